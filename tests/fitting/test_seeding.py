"""Seeds begin where the signal is, as wide and as bright as it is there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from napari_gaussfit.errors import SettingsError
from napari_gaussfit.fitting.seeding import (
    draw_sites,
    local_maxima,
    seed_count,
    seed_field,
)
from napari_gaussfit.settings import FitSettings
from napari_gaussfit.stacks.stack import Stack
from napari_gaussfit.stacks.statistics import (
    peak_widths,
    smoothed,
    suggested_count,
)
from napari_gaussfit.synthetic.phantoms import neurite, separated

if TYPE_CHECKING:
    from napari_gaussfit.model.field import GaussianField
    from napari_gaussfit.synthetic.phantoms import Phantom

SPACING = (0.3, 0.1, 0.1)
SHAPE = (20, 40, 40)


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    """Six Gaussians apart from each other, without noise."""
    return separated(count=6, shape=(40, 64, 64))


def seeds_of(phantom: Phantom, count: int, *, seed: int = 0, noise: float = 0.0) -> GaussianField:
    signal = phantom.stack.voxels.astype(np.float32) - phantom.truth.background
    rng = np.random.default_rng(seed)
    return seed_field(smoothed(signal), phantom.stack.spacing, count, rng, noise=noise)


def test_the_same_draw_gives_the_same_seeds(phantom: Phantom) -> None:
    one, again, other = (seeds_of(phantom, 30, seed=seed) for seed in (3, 3, 4))
    for name in ("means", "cholesky", "amplitudes"):
        assert torch.equal(getattr(one, name), getattr(again, name)), name
    assert not torch.equal(one.means, other.means)


def test_every_peak_has_a_seed_of_its_own_size(phantom: Phantom) -> None:
    seeds, truth = seeds_of(phantom, len(phantom.truth)), phantom.truth
    away = (truth.means[:, None] - seeds.means).norm(dim=-1)
    partner = away.argmin(1)
    assert len(partner.unique()) == len(truth), "one seed a peak"
    off = (seeds.means[partner] - truth.means).abs() / torch.tensor(phantom.stack.spacing)
    assert float(off.max()) < 1, f"a seed is {float(off.max()):.2f} voxels from its peak"
    known = truth.covariances.diagonal(dim1=1, dim2=2).sqrt()
    found = seeds.covariances.diagonal(dim1=1, dim2=2).sqrt()[partner]
    ratio = found / known
    assert float(ratio.min()) > 0.6, f"a width is {float(ratio.min()):.2f} of the true one"
    assert float(ratio.max()) < 1.5, f"a width is {float(ratio.max()):.2f} of the true one"


def test_widths_of_peaks_are_those_of_the_gaussians_that_made_them() -> None:
    sigmas, centre = np.array([1.5, 2.0, 2.5]), np.array([10, 18, 21])
    offsets = np.stack(np.indices(SHAPE), -1) - centre
    volume = (300 * np.exp(-0.5 * ((offsets / sigmas) ** 2).sum(-1))).astype(np.float32)
    calm = smoothed(volume)
    peaks = local_maxima(calm, 50.0)
    np.testing.assert_array_equal(peaks, [centre])
    np.testing.assert_allclose(peak_widths(calm, peaks)[0], sigmas, rtol=0.03)


def test_local_maxima_come_brightest_first_and_none_below_the_threshold() -> None:
    calm = np.zeros(SHAPE, np.float32)
    for place, height in (((3, 5, 5), 2.0), ((9, 20, 20), 5.0), ((0, 39, 39), 3.0)):
        calm[place] = height
    np.testing.assert_array_equal(local_maxima(calm, 1.0), [[9, 20, 20], [0, 39, 39], [3, 5, 5]])
    np.testing.assert_array_equal(local_maxima(calm, 2.5), [[9, 20, 20], [0, 39, 39]])


def test_a_peak_at_a_face_has_a_width() -> None:
    offsets = np.stack(np.indices(SHAPE), -1) - np.array([0, 0, 39])
    volume = (300 * np.exp(-0.5 * (offsets**2).sum(-1) / 4)).astype(np.float32)
    widths = peak_widths(volume, np.array([[0, 0, 39]]))
    assert np.isfinite(widths).all()
    assert (widths > 0.5).all()


def test_points_are_where_seeds_begin(phantom: Phantom) -> None:
    points = np.random.default_rng(0).uniform(0, 5, (8, 3))
    signal = phantom.stack.voxels - np.float32(phantom.truth.background)
    for count in (20, 8):
        rng = np.random.default_rng(1)
        seeds = seed_field(smoothed(signal), SPACING, count, rng, points=points)
        assert len(seeds) == count
        np.testing.assert_allclose(seeds.means[:8], points, atol=1e-5)


def test_a_point_begins_as_wide_as_its_spot() -> None:
    """Also where it was clicked a voxel beside the middle."""
    phantom = separated(count=6, shape=(30, 60, 60), photons=None)
    signal = phantom.stack.voxels - np.float32(phantom.truth.background)
    spacing = np.asarray(phantom.stack.spacing)
    beside = np.random.default_rng(0).integers(-1, 2, (6, 3)) * spacing
    points = phantom.truth.means.numpy() + beside
    rng = np.random.default_rng(1)
    seeds = seed_field(smoothed(signal), phantom.stack.spacing, 6, rng, points=points)
    found = seeds.covariances.diagonal(dim1=-2, dim2=-1).sqrt()
    true = phantom.truth.covariances.diagonal(dim1=-2, dim2=-1).sqrt()
    np.testing.assert_allclose(found, true, rtol=0.35)


def test_as_many_gaussians_begin_as_there_are_points(phantom: Phantom) -> None:
    points, voxels = np.zeros((8, 3)), phantom.stack.voxels
    assert seed_count(FitSettings(), points, voxels) == 8
    assert seed_count(FitSettings(gaussians=20, exactly=True), points, voxels) == 20
    assert seed_count(FitSettings(exactly=True), None, voxels) == suggested_count(voxels)
    with pytest.raises(SettingsError, match="gaussians=5: expected at least as many as the 8 poin"):
        seed_count(FitSettings(gaussians=5), points, voxels)
    with pytest.raises(SettingsError, match="there is no point to begin at"):
        seed_count(FitSettings(), points[:0], voxels)


def test_points_where_nothing_is_above_a_given_background_have_a_width(phantom: Phantom) -> None:
    points = phantom.truth.means.numpy().astype(np.float64)
    signal = phantom.stack.voxels.astype(np.float32) - 1e6
    seeds = seed_field(
        smoothed(signal),
        phantom.stack.spacing,
        len(points),
        np.random.default_rng(0),
        points=points,
    )
    assert seeds.cholesky.isfinite().all()


def test_points_outside_of_the_stack_begin_at_its_face() -> None:
    signal = np.random.default_rng(0).uniform(1, 2, SHAPE).astype(np.float32)
    points = np.array([[-3.0, 1.0, 1.0], [1.0, 99.0, 1.0]])
    seeds = seed_field(smoothed(signal), SPACING, 5, np.random.default_rng(1), points=points)
    lower, upper = Stack.from_array(signal, spacing=SPACING).box
    assert (seeds.means.numpy() >= lower - 1e-5).all()
    assert (seeds.means.numpy() <= upper + 1e-5).all()


@pytest.mark.parametrize("count", [1, 2, 3, 200])
def test_any_count_of_seeds_is_valid(phantom: Phantom, count: int) -> None:
    seeds = seeds_of(phantom, count)
    assert len(seeds) == count
    for name in ("means", "cholesky", "amplitudes"):
        assert getattr(seeds, name).isfinite().all(), f"{name} of {count} seeds"
    assert (seeds.amplitudes > 0).all()


def test_there_may_be_more_seeds_than_voxels() -> None:
    signal = np.random.default_rng(0).uniform(0, 9, (3, 4, 5)).astype(np.float32)
    seeds = seed_field(smoothed(signal), SPACING, 100, np.random.default_rng(1))
    assert len(seeds) == 100
    assert len(seeds.means.unique(dim=0)) > 90, "jittered apart"
    assert seeds.cholesky.isfinite().all()


def test_seeds_sum_to_about_the_signal() -> None:
    stack = neurite(photons=None).stack
    signal = stack.voxels - np.float32(100)
    seeds = seed_field(smoothed(signal), stack.spacing, 400, np.random.default_rng(0))
    left = signal - seeds.voxelise(stack.shape, stack.spacing).numpy()
    share = float(np.square(left).sum() / np.square(signal).sum())
    assert share < 0.4, f"{share:.0%} of the signal's energy is left"


def test_sites_are_drawn_by_weight_and_each_voxel_once() -> None:
    weights = np.zeros((4, 5, 6), np.float32)
    weights[1, 2, 3], weights[2, 2, 2], weights[3, 4, 5] = 5, 5, 1e-6
    drawn = draw_sites(weights, 2, np.random.default_rng(0))
    voxels = {tuple(site) for site in np.rint(drawn).astype(int).tolist()}
    assert voxels == {(1, 2, 3), (2, 2, 2)}
    assert draw_sites(weights, 0, np.random.default_rng(0)).shape == (0, 3)
    assert len(draw_sites(weights, 50, np.random.default_rng(0))) == 50
    assert len(draw_sites(np.zeros((2, 2, 2), np.float32), 5, np.random.default_rng(0))) == 5
