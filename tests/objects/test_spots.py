"""Spots: one Gaussian each, as many as there are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from napari_gaussfit.errors import SettingsError
from napari_gaussfit.measure.noise import Noise
from napari_gaussfit.measure.refinement import refine
from napari_gaussfit.measure.table import ERRORS
from napari_gaussfit.model.field import GaussianField
from napari_gaussfit.objects.spots import (
    Spots,
    SpotSettings,
    fit_spots,
    peaks_seen,
    spots_table,
)
from napari_gaussfit.stacks.stack import Stack
from napari_gaussfit.synthetic.phantoms import Phantom, photon_counts
from napari_gaussfit.synthetic.phantoms import spots as isolated

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SPACING, SIGMAS = (0.2, 0.1, 0.1), np.array([0.4, 0.15, 0.15])
SHAPE = (28, 64, 64)


def recorded(
    means: list[tuple[float, float, float]], peaks: list[float], sigmas: np.ndarray = SIGMAS
) -> Phantom:
    """Spots at places in voxels, on 10 photons."""
    covariances = np.broadcast_to(np.diag(sigmas**2), (len(means), 3, 3))
    truth = GaussianField.from_covariances(
        np.multiply(means, SPACING), covariances, peaks, background=10.0
    )
    return photon_counts(truth, SHAPE, SPACING)


def far_from(spots: Spots, truth: GaussianField) -> np.ndarray:
    """Distance of each true spot to the nearest found one, in its sigmas."""
    apart = (spots.gaussians.means[:, None] - truth.numpy().means) / SIGMAS
    return np.linalg.norm(apart, axis=2).min(0)


@pytest.fixture(scope="module")
def found() -> tuple[Phantom, Spots]:
    phantom = isolated(peak=100.0)
    return phantom, fit_spots(phantom.stack)


def test_isolated_spots_are_found_each_as_one(found: tuple[Phantom, Spots]) -> None:
    phantom, spots = found
    assert len(spots) == 48
    assert far_from(spots, phantom.truth).max() < 0.2


def test_isolated_spots_are_measured_as_well_as_the_bound_allows(
    found: tuple[Phantom, Spots],
) -> None:
    phantom, spots = found
    true = phantom.truth.numpy().means
    nearest = np.linalg.norm(spots.gaussians.means[:, None] - true, axis=2).argmin(1)
    errors = (spots.gaussians.means - true[nearest]) / np.column_stack(
        [spots.measurement.errors()[f"sd_{axis}"] for axis in "zyx"]
    )
    rms = np.sqrt(np.mean(errors**2, axis=0))
    # 48 draws: the root mean square of a perfect measurement spreads by a tenth.
    assert (rms < 1.35).all(), rms


def test_dim_spots_are_found_each_as_one() -> None:
    phantom = isolated(peak=20.0)
    spots = fit_spots(phantom.stack)
    assert len(spots) == 48
    assert far_from(spots, phantom.truth).max() < 1.0


def test_two_close_spots_are_two_and_a_rod_is_one() -> None:
    pair = recorded([(14, 32, 30), (14, 32, 34)], [100.0, 100.0])
    rod = recorded([(14, 32, 32)], [100.0], np.array([0.24, 0.12, 0.36]))
    assert len(fit_spots(pair.stack)) == 2
    assert len(fit_spots(rod.stack)) == 1


def test_spots_at_random_are_found_nearly_as_well_as_from_the_true_places_and_count() -> None:
    """150 points, some closer than a standard deviation: what is longer than all others is two."""
    rng = np.random.default_rng(0)
    means = rng.uniform((3, 3, 3), (38, 116, 116), (150, 3)) * SPACING
    covariances = np.broadcast_to(np.diag(SIGMAS**2), (150, 3, 3))
    truth = GaussianField.from_covariances(
        means, covariances, rng.uniform(50, 150, 150), background=10.0
    )
    phantom = photon_counts(truth, (42, 120, 120), SPACING, seed=1)
    found = fit_spots(phantom.stack).gaussians
    oracle = refine([truth.numpy()], [phantom.stack], noise=Noise(1.0)).gaussians[0]
    assert f1(found.means, means) >= f1(oracle.means, means) - 0.01


def f1(found: np.ndarray, true: np.ndarray) -> float:
    """F1 of places within a sigma of true ones, each of one."""
    apart, near = cKDTree(true / SIGMAS).query(found / SIGMAS)
    return 2 * len(np.unique(near[apart < 1])) / (len(found) + len(true))


def test_rods_of_any_direction_are_one_each() -> None:
    """Where spots share no shape, a long one is not taken for two."""
    means = [(14, y, x) for y in (12, 32, 52) for x in (10, 24, 38, 52)]
    turns = Rotation.random(len(means), random_state=np.random.default_rng(1)).as_matrix()
    scale = np.diag(SPACING)
    shapes = turns @ np.diag(np.square((3.0, 1.5, 1.2))) @ turns.swapaxes(1, 2)
    truth = GaussianField.from_covariances(
        np.multiply(means, SPACING), scale @ shapes @ scale, np.full(12, 100.0), background=10.0
    )
    assert len(fit_spots(photon_counts(truth, SHAPE, SPACING).stack)) == 12


def test_a_stack_of_noise_has_no_spots() -> None:
    counts = np.random.default_rng(3).poisson(10.0, SHAPE).astype(np.float32)
    spots = fit_spots(Stack.from_array(counts, spacing=SPACING))
    assert len(spots) == 0
    assert len(spots_table(spots, SPACING)) == 0


def test_points_are_spots_and_excluded_ones_are_not() -> None:
    phantom = recorded([(14, 20, 20), (14, 44, 44), (14, 20, 44)], [100.0, 100.0, 1.5])
    excluded = np.multiply([(14, 44, 44)], SPACING)
    points = np.multiply([(14, 20, 44)], SPACING)
    assert len(fit_spots(phantom.stack)) == 2
    spots = fit_spots(phantom.stack, points=points, excluded=excluded)
    assert len(spots) == 2
    far = far_from(spots, phantom.truth)
    assert far[0] < 1
    assert far[1] > 4
    assert far[2] < 3


def test_a_point_outside_of_the_stack_is_refused() -> None:
    stack = recorded([(14, 20, 20)], [50.0]).stack
    with pytest.raises(SettingsError, match="outside of the stack"):
        fit_spots(stack, SpotSettings(noise=Noise(1.0)), points=[(0, 0, 99)])


def test_what_is_larger_than_the_largest_size_is_no_spot() -> None:
    phantom = recorded([(14, 16, 16), (14, 40, 40)], [100.0, 100.0])
    blob = recorded([(14, 40, 40)], [300.0], np.array([0.9, 0.6, 0.6]))
    stack = Stack.from_array(
        phantom.stack.voxels.astype(np.float32) + blob.stack.voxels, spacing=SPACING
    )
    spots = fit_spots(stack, SpotSettings(largest_size=0.6))
    assert far_from(spots, phantom.truth)[0] < 0.5
    across = spots.gaussians.fwhm().min(1)
    assert (across < 0.6 * 1.3).all()


def test_the_same_comes_out_each_time() -> None:
    phantom = recorded([(14, 20, 20), (14, 22, 24), (14, 44, 44)], [50.0, 80.0, 30.0])
    first, second = (fit_spots(phantom.stack).gaussians for _ in range(2))
    for name in ("means", "cholesky", "amplitudes"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def test_rows_have_error_bars_signal_to_noise_and_neighbours(found: tuple[Phantom, Spots]) -> None:
    phantom, spots = found
    table = spots_table(spots, phantom.stack.spacing)
    assert set(ERRORS) <= set(table.columns)
    assert table[list(ERRORS)].notna().all().all()
    assert (table["neighbours"] == 0).all()
    # 100 photons over 10: from the sum of squares of the light over its own variance.
    assert table["signal_to_noise"].between(60, 90).all()
    assert [*table.columns[-4:]] == ["signal_to_noise", "neighbours", "flags", "unit"]


def test_close_spots_are_each_others_neighbours() -> None:
    phantom = recorded([(14, 32, 30), (14, 32, 34), (8, 10, 10)], [100.0, 100.0, 100.0])
    assert fit_spots(phantom.stack).neighbours.tolist() == [0, 1, 1]


def test_squared_error_finds_the_same_isolated_spots() -> None:
    phantom = recorded([(14, 20, 20), (14, 44, 44)], [100.0, 60.0])
    spots = fit_spots(phantom.stack, SpotSettings(likelihood="squared"))
    assert len(spots) == 2
    assert far_from(spots, phantom.truth).max() < 0.3


def test_four_confocal_beads_are_four(stack_path: Callable[[str], Path]) -> None:
    """Their blur is no Gaussian: tails and haloes are no spots."""
    stack = Stack.open(stack_path("spots_beads/beads_confocal_mpicbg.tif"))
    spots = fit_spots(stack)
    found = spots.gaussians.means / stack.spacing
    by_eye = np.array([(23, 112, 45), (23, 73, 30), (23, 36, 126), (23, 82, 76)])
    assert len(spots) == 4
    assert np.linalg.norm(found[:, None] - by_eye, axis=2).min(0).max() < 3


def test_blobs_in_a_bright_nucleus_are_as_many_as_a_person_counts(
    stack_path: Callable[[str], Path],
) -> None:
    """295 have a peak of their own on the projection, by eye; as many has that of what is found."""
    stack = Stack.open(stack_path("spots_beads/puncta_nucleus_punctatools_p1.tif"), channel=1)
    said: list[str] = []
    spots = fit_spots(stack, meanwhile=said.append)
    seen = peaks_seen(spots, stack.shape, stack.spacing)
    assert abs(seen - 295) < 30
    assert len(spots) >= seen
    assert "widths cannot be told" in spots.notes[0]
    steady = [words.split()[:3] for words in said if words.endswith("spots are steady")]
    assert steady[0][0] == "0"
    assert steady[-1][0] == steady[-1][2]


def test_what_a_projection_shows_of_spots_behind_each_other_is_one() -> None:
    phantom = recorded([(6, 32, 32), (22, 32, 32), (14, 12, 50)], [100.0, 60.0, 50.0])
    spots = fit_spots(phantom.stack)
    assert len(spots) == 3
    assert peaks_seen(spots, SHAPE, SPACING) == 2


@pytest.mark.parametrize("place", [(20.0, 40.0, 53.0), (0.0, 0.0, 0.0), (41.0, 79.0, 40.0)])
def test_a_point_where_nothing_is_stays_where_it_was_put(place: tuple[float, ...]) -> None:
    phantom = isolated(peak=100.0)
    point = np.multiply(place, SPACING)
    true = phantom.truth.numpy().means
    assert np.linalg.norm((true - point) / SIGMAS, axis=1).min() > 3, "something is there"
    spots = fit_spots(phantom.stack, points=[point])
    assert len(spots) == 49
    [row] = np.flatnonzero(["placed by hand" in flags for flags in spots.measurement.flags])
    np.testing.assert_allclose(spots.gaussians.means[row], point, atol=1e-6)
    error = spots.measurement.errors()["sd_amplitude"][row]
    assert abs(spots.gaussians.amplitudes[row]) < 4 * error
    # The others are what they are without it.
    alone = fit_spots(phantom.stack).gaussians
    others = np.delete(spots.gaussians.means, row, axis=0)
    np.testing.assert_allclose(others, alone.means, atol=0.02)


def test_a_point_beside_a_spot_is_that_spot() -> None:
    phantom = isolated(peak=100.0)
    true = phantom.truth.numpy().means[7].astype(float)
    spots = fit_spots(phantom.stack, points=[true + np.multiply(0.4, SIGMAS)])
    assert len(spots) == 48
    assert not any("placed by hand" in flags for flags in spots.measurement.flags)
