"""Many that overlap, and small ones on a broad one, come to the truth within their error bars."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_gaussfit.measure.noise import Noise
from napari_gaussfit.measure.refinement import refine
from napari_gaussfit.measure.turns import _apart
from napari_gaussfit.model.field import GaussianField
from napari_gaussfit.model.gaussians import Gaussians
from napari_gaussfit.stacks.stack import Stack

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_gaussfit.measure.measurement import Measurement

    Floats = NDArray[np.float64]

SIGMA = 1.5


def spheres(means: Floats, sigmas: Floats, amplitudes: Floats) -> Gaussians:
    cholesky = np.zeros((len(means), 6))
    cholesky[:, [0, 2, 5]] = np.log(sigmas)[:, None]
    return Gaussians(means, cholesky, amplitudes, 20.0, "pixel")


def measured(truth: Gaussians, shape: tuple[int, ...], rng: np.random.Generator) -> Measurement:
    """Record the light of Gaussians by photons, and refine them from a little beside."""
    z, y, x = shape
    light = GaussianField.from_numpy(truth).voxelise((z, y, x), (1.0, 1.0, 1.0)).numpy()
    count, diagonal = len(truth), np.array([1, 0, 1, 0, 0, 1])
    start = Gaussians(
        truth.means + rng.normal(0, 0.1, (count, 3)),
        truth.cholesky + rng.normal(0, 0.05, (count, 6)) * diagonal,
        truth.amplitudes * rng.uniform(0.9, 1.1, count),
        20.0,
        "pixel",
    )
    return refine([start], [Stack.from_array(rng.poisson(light).astype(np.float32))], noise=ONE)


ONE = Noise(1.0)


def pulls(found: Measurement, truth: Gaussians) -> Floats:
    """Return errors [K, 3] of amplitudes, places and widths along x, in error bars."""
    [one] = found.gaussians
    spread = np.sqrt(np.diagonal(found.covariances, axis1=1, axis2=2))
    return np.column_stack(
        [
            (one.amplitudes - truth.amplitudes) / spread[:, 9],
            (one.means[:, 2] - truth.means[:, 2]) / spread[:, 2],
            (one.cholesky[:, 5] - truth.cholesky[:, 5]) / spread[:, 8],
        ]
    )


def rms(values: Floats) -> Floats:
    return np.asarray(np.sqrt(np.mean(values**2, axis=0)))


@pytest.mark.parametrize(("gap", "most"), [(4.0, 1.35), (3.0, 4.5)])
def test_a_crowd_comes_to_the_truth(gap: float, most: float) -> None:
    """At 3 sigmas: error bars know of nothing beyond two dozen neighbours, errors do."""
    rng = np.random.default_rng(0)
    grid = np.indices((6, 6, 6)).reshape(3, -1).T
    means = 8 + grid * gap * SIGMA + rng.normal(0, 0.25, grid.shape)
    truth = spheres(means, np.full(216, SIGMA), rng.uniform(240, 560, 216))
    found = measured(truth, tuple((means.max(0) + 9).astype(int)), rng)
    assert (rms(pulls(found, truth)) < most).all()


def test_small_ones_on_a_broad_one_are_measured_by_themselves() -> None:
    rng = np.random.default_rng(1)
    broad, side = 8 * SIGMA, 94
    grid = np.indices((5, 5, 5)).reshape(3, -1).T
    small = (side - 1) / 2 + (grid - 2) * 5.5 * SIGMA + rng.uniform(-0.5, 0.5, grid.shape)
    means = np.vstack([np.full((1, 3), (side - 1) / 2), small])
    sigmas, amplitudes = np.full(126, SIGMA), np.full(126, 200.0)
    sigmas[0], amplitudes[0] = broad, 30.0
    truth = spheres(means, sigmas, amplitudes)
    found = measured(truth, (side, side, side), rng)
    assert not any("structure" in flag for flag in found.flags)
    errors = pulls(found, truth)
    assert (rms(errors[1:]) < 1.2).all()
    assert (np.abs(errors[0]) < 3).all()


def test_no_two_blocks_of_a_part_reach_each_other() -> None:
    rng = np.random.default_rng(0)
    blocks = np.arange(61), rng.permutation(60)
    lists = [rng.choice(60, rng.integers(0, 8), replace=False) for _ in range(60)]
    others = np.concatenate([[0], np.cumsum([len(some) for some in lists])]), np.concatenate(lists)
    which = np.flatnonzero(rng.random(60) < 0.8)
    parts = _apart(which, blocks, others)
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), which)
    for part in parts:
        own = blocks[1][part]
        for block in part:
            reached = lists[block][lists[block] != blocks[1][block]]
            assert not np.isin(reached, own).any()
