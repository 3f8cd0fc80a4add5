"""An exact number of Gaussians: shared among tiles, and made so in each."""

from __future__ import annotations

import numpy as np
import pytest

from napari_gaussfit.errors import SettingsError
from napari_gaussfit.fitting.placed import Placed
from napari_gaussfit.fitting.tile_counts import of_count, shared
from napari_gaussfit.model.gaussians import Gaussians


def some(amplitudes: list[float], seed: int = 0) -> Placed:
    """Return Gaussians of two channels, the second half as bright."""
    rng = np.random.default_rng(seed)
    roots = rng.normal(0, 0.4, (len(amplitudes), 3, 3)) + np.eye(3)
    first, second = (
        Gaussians.from_covariances(
            rng.uniform(0, 20, (len(amplitudes), 3)),
            roots @ roots.transpose(0, 2, 1),
            factor * np.array(amplitudes),
        )
        for factor in (1, 0.5)
    )
    return Placed.of([first, second], (0, 0, 0), (1, 1, 1))


def moments(found: Placed, channel: int) -> tuple[float, np.ndarray, np.ndarray]:
    """Return mass, centre and covariance of all light."""
    own = Gaussians(found.means.astype(np.float32), found.cholesky, found.amplitudes[channel])
    mass = own.integrated_intensities()
    centre = (mass[:, None] * found.means).sum(0) / mass.sum()
    away = found.means - centre
    spread = own.covariances + away[:, :, None] * away[:, None, :]
    return mass.sum(), centre, (mass[:, None, None] * spread).sum(0) / mass.sum()


def test_a_number_is_shared_by_volume_and_none_is_lost() -> None:
    lights = {(0, 0, n): light for n, light in enumerate((0.0, 3.0, 3.0, 1.0))}

    assert [*shared(70, lights).values()] == [0, 30, 30, 10]
    for total in range(12):
        assert sum(shared(total, lights).values()) == total
    with pytest.raises(SettingsError, match="no tile stands out of the background"):
        shared(7, {(0, 0, 0): 0.0})


def test_too_many_lose_the_faintest_and_others_come_after() -> None:
    found = some([5.0, 5e-3, 4.0, 3.0])

    kept = of_count(found, np.array([True, True, True, False]), 2)

    assert np.array_equal(kept.means, found.means[[0, 2, 3]])


@pytest.mark.parametrize("count", [4, 5, 9])
def test_too_few_are_divided_and_all_light_stays_where_it_was(count: int) -> None:
    found = some([5.0, 3.0, 1.0])

    more = of_count(found, np.ones(3, np.bool_), count)

    assert len(more) == count
    for channel in range(2):
        before, after = moments(found, channel), moments(more, channel)
        for old, new in zip(before, after, strict=True):
            assert np.allclose(old, new, rtol=1e-4, atol=1e-4)
