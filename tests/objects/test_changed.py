"""Which parts of a stack are looked at again."""

from __future__ import annotations

import numpy as np

from napari_gaussfit.model.gaussians import Gaussians
from napari_gaussfit.objects.changed import Changed

SHAPE, SPACING = (20, 200, 300), np.array([0.2, 0.1, 0.1])
MARGINS = np.array([6, 10, 10])


def spots(*places: tuple[float, float, float]) -> Gaussians:
    """Of a standard deviation of 2 voxels."""
    means = np.reshape(places, (-1, 3)) * SPACING
    return Gaussians.from_covariances(
        means, np.tile(np.diag((2 * SPACING) ** 2), (len(means), 1, 1)), np.ones(len(means))
    )


def test_what_changed_is_looked_at_with_what_filters_see_and_then_forgotten() -> None:
    changed = Changed(SHAPE, SPACING)
    changed.at(spots((10, 50, 60), (10, 150, 250)))
    parts = changed.parts(MARGINS)
    assert len(parts) == 2
    for part, (y, x) in zip(parts, ((50, 60), (150, 250)), strict=True):
        core, wide = part.core, part.wide
        places = np.array([[10, y, x], [10, y + 5, x - 5], [10, y, x + 20]], float)
        assert part.holds(places).tolist() == [True, True, False]
        assert core[1].start - wide[1].start == 10
        assert wide[0] == slice(0, 20)
    assert changed.parts(MARGINS) == []


def test_where_most_of_a_stack_changed_all_of_it_is_looked_at() -> None:
    changed = Changed(SHAPE, SPACING)
    changed.at(spots(*((10, y, x) for y in range(10, 200, 20) for x in range(10, 300, 20))))
    [part] = changed.parts(MARGINS)
    assert part.core == part.wide == tuple(slice(0, n) for n in SHAPE)


def test_spots_at_a_corner_and_beyond_change_what_is_there() -> None:
    changed = Changed(SHAPE, SPACING)
    changed.at(spots((-3, 203, -2)))
    [part] = changed.parts(MARGINS)
    assert part.holds(np.array([[0.0, 199, 0]])).all()
