"""Gaussians are grouped into the objects that a stack was made of, and these are measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from skimage.measure import marching_cubes, mesh_surface_area

from napari_gaussfit import GaussianField
from napari_gaussfit.errors import SettingsError
from napari_gaussfit.model.gaussians import Gaussians
from napari_gaussfit.objects.grouping import (
    Grouping,
    Groups,
    GroupSettings,
    group,
    merge,
    split,
    typical_radius,
)
from napari_gaussfit.objects.labels import Painter, measure_objects, paint
from napari_gaussfit.synthetic.phantoms import nuclei

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

SHAPE, SPACING = (40, 50, 60), (1.0, 0.8, 0.8)
RADIUS = 6.0
CENTRES = np.array([[20.0, 12.0, 12.0], [20.0, 12.0, 25.5], [20.0, 29.0, 36.0]])


def ball(centre: Floats, count: int, seed: int, radius: float = RADIUS) -> Floats:
    """Places spread evenly over a ball."""
    rng = np.random.default_rng(seed)
    away = rng.normal(size=(count, 3))
    away *= radius * rng.uniform(size=(count, 1)) ** (1 / 3) / np.linalg.norm(away, axis=1)[:, None]
    return centre + away


def field_of(*places: Floats, sigma: float = 1.5) -> GaussianField:
    means = np.concatenate(places)
    covariances = np.tile(sigma**2 * np.eye(3), (len(means), 1, 1))
    brightness = np.random.default_rng(9).uniform(50, 150, len(means))
    return GaussianField.from_covariances(means, covariances, brightness, background=10.0)


@pytest.fixture(scope="module")
def balls() -> GaussianField:
    """Three balls, two of which touch, of 120 Gaussians each."""
    return field_of(*(ball(centre, 120, n) for n, centre in enumerate(CENTRES)))


@pytest.fixture(scope="module")
def groups(balls: GaussianField) -> Groups:
    return group(balls.numpy())


def test_the_radius_of_objects_comes_from_the_field(balls: GaussianField) -> None:
    assert typical_radius(balls.numpy()) == pytest.approx(RADIUS + 1.0, rel=0.2)


def test_each_gaussian_is_in_the_object_that_it_was_made_for(groups: Groups) -> None:
    assert len(groups) == 3
    for n in range(3):
        own = groups.of[n * 120 : (n + 1) * 120]
        assert np.bincount(own).max() >= 115


def test_a_lower_saddle_joins_what_touches(balls: GaussianField) -> None:
    joined = group(balls.numpy(), GroupSettings(saddle=0.2))
    assert len(joined) == 2
    assert joined.of[0] == joined.of[120] != joined.of[300]


def test_a_phantom_s_nuclei_are_found_and_counted() -> None:
    """Of 12 nuclei that stand apart, each is one object, of the Gaussians that it was made of."""
    phantom = nuclei(seed=1, photons=None)
    found = group(phantom.truth.numpy())
    labels, found = paint(phantom.truth, found, phantom.stack.shape, phantom.stack.spacing)
    assert len(found) == labels.max() == 12


def test_labels_are_where_the_objects_are(balls: GaussianField, groups: Groups) -> None:
    labels, kept = paint(balls, groups, SHAPE, SPACING)
    for n, centre in enumerate(CENTRES):
        at = tuple(np.rint(centre / SPACING).astype(int))
        assert labels[at] == kept.of[n * 120]
    assert labels[0, 0, 0] == 0


def test_what_is_measured_is_that_of_balls(balls: GaussianField, groups: Groups) -> None:
    labels, kept = paint(balls, groups, SHAPE, SPACING)
    found = measure_objects(balls, kept, labels, SPACING)
    alone = kept.of[300] - 1
    np.testing.assert_allclose(found.centre[alone], CENTRES[2], atol=0.5)
    radius = (found.volume[alone] * 3 / (4 * np.pi)) ** (1 / 3)
    assert radius == pytest.approx(RADIUS + 0.7, rel=0.1)
    np.testing.assert_allclose(found.semiaxes[alone], radius, rtol=0.1)
    assert found.surface[alone] == pytest.approx(4 * np.pi * radius**2, rel=0.15)
    assert found.gaussians.sum() == 360
    light = balls.numpy().integrated_intensities()
    assert found.intensity.sum() == pytest.approx(light.sum(), rel=1e-6)
    touching = {int(kept.of[0]), int(kept.of[120])}
    assert {n + 1 for n, touched in enumerate(found.neighbours) if touched} == touching
    assert not found.at_border.any()


def test_surfaces_and_neighbours_are_those_of_each_object_by_itself(
    balls: GaussianField, groups: Groups
) -> None:
    """All objects are measured at once, by a table of cells; marching cubes tell the same."""
    labels, kept = paint(balls, groups, SHAPE, SPACING)
    found = measure_objects(balls, kept, labels, SPACING)
    for number in range(1, len(kept) + 1):
        solid = np.pad(labels == number, 1).astype(np.float32)
        corners, faces, _, _ = marching_cubes(solid, 0.5, spacing=SPACING)
        assert found.surface[number - 1] == pytest.approx(mesh_surface_area(corners, faces))
        places = np.argwhere(labels == number) * SPACING
        np.testing.assert_allclose(found.centre[number - 1], places.mean(axis=0))
        moments = np.cov(places.T, bias=True) + np.diag(np.square(SPACING) / 12)
        semiaxes = np.sqrt(5 * np.linalg.eigvalsh(moments)[::-1])
        np.testing.assert_allclose(found.semiaxes[number - 1], semiaxes)


def test_another_share_looks_labels_up(
    balls: GaussianField, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What voxels are in whose basin is found once: a slider only looks it up."""
    grouping, painter = Grouping(balls.numpy()), Painter(balls, SHAPE, SPACING)
    apart, _ = painter.paint(grouping.at(0.97))
    monkeypatch.setattr(Painter, "_light_of", lambda *_: pytest.fail("drawn anew"))
    joined, groups = painter.paint(grouping.at(0.2))
    assert (apart.max(), joined.max(), len(groups)) == (3, 2, 2)
    np.testing.assert_array_equal(apart > 0, joined > 0)


def test_a_basin_in_two_objects_is_divided_between_these_alone(balls: GaussianField) -> None:
    grouping, painter = Grouping(balls.numpy()), Painter(balls, SHAPE, SPACING)
    whole, groups = painter.paint(grouping.at(0.97))
    third = int(groups.of[300])
    of = groups.of.copy()
    upper = (of == third) & (balls.numpy().means[:, 0] > CENTRES[2, 0])
    of[upper] = 4
    labels, cut = painter.paint(grouping.of(of, groups.radius))
    assert len(cut) == 4
    np.testing.assert_array_equal(np.isin(labels, [third, 4]), whole == third)
    np.testing.assert_array_equal(labels[whole != third], whole[whole != third])
    heights = [np.argwhere(labels == n)[:, 0].mean() for n in (third, 4)]
    assert heights[1] - heights[0] > RADIUS / 2


def test_an_object_at_a_face_of_the_stack_is_said_to_be() -> None:
    field = field_of(
        ball(np.array([20.0, 1.0, 20.0]), 80, 0), ball(np.array([20.0, 25.0, 20.0]), 80, 1)
    )
    labels, kept = paint(field, group(field.numpy()), SHAPE, SPACING)
    found = measure_objects(field, kept, labels, SPACING)
    by_place = found.at_border[np.argsort(found.centre[:, 1])]
    assert list(by_place) == [True, False]


def test_merged_objects_are_one_and_the_numbers_stay_whole(groups: Groups) -> None:
    merged = merge(groups, [1, 3])
    assert len(merged) == 2
    assert set(merged.of[np.isin(groups.of, [1, 3])]) == {1}
    assert set(merged.of[groups.of == 2]) == {2}


def test_what_was_merged_is_split_again(balls: GaussianField, groups: Groups) -> None:
    pair = sorted({int(groups.of[10]), int(groups.of[130])})
    merged = merge(groups, pair)
    again = split(merged, balls.numpy(), pair[0])
    assert len(again) >= 3
    assert again.of[10] != again.of[130]


def test_one_mode_is_not_split() -> None:
    one = Gaussians.from_covariances([[0, 0, 0], [0, 0, 0.1]], [np.eye(3)] * 2, [1.0, 1.0])
    with pytest.raises(SettingsError, match="object 1 has one mode"):
        split(group(one, GroupSettings(radius=2.0)), one, 1)


@pytest.mark.parametrize("numbers", [[0], [4], []])
def test_objects_that_there_are_not_are_refused(groups: Groups, numbers: list[int]) -> None:
    with pytest.raises(SettingsError, match="expected numbers from 1 to 3"):
        merge(groups, numbers)


def test_no_gaussians_are_no_objects() -> None:
    empty = GaussianField.from_covariances(np.empty((0, 3)), np.empty((0, 3, 3)), np.empty(0))
    labels, groups = paint(empty, group(empty.numpy()), (3, 4, 5), (1.0, 1.0, 1.0))
    assert (
        len(groups) == labels.max() == len(measure_objects(empty, groups, labels, (1.0,) * 3)) == 0
    )


@pytest.mark.parametrize(("setting", "value"), [("saddle", 1.2), ("radius", 0.0)])
def test_settings_that_cannot_be_meant_are_refused(setting: str, value: float) -> None:
    with pytest.raises(SettingsError, match=setting):
        GroupSettings(**{setting: value})
