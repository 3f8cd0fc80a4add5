"""A phantom is a stack like a microscope's, and exactly the Gaussians that it is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from napari_gaussfit.errors import SettingsError
from napari_gaussfit.model.field import FWHM_PER_SIGMA
from napari_gaussfit.synthetic.phantoms import Phantom, beads, neurite, nuclei, separated

if TYPE_CHECKING:
    from collections.abc import Callable

MAKERS = [neurite, beads, nuclei, separated]


@pytest.mark.parametrize("make", MAKERS)
def test_without_noise_the_stack_is_the_sum_of_the_truth(make: Callable[..., Phantom]) -> None:
    phantom = make(photons=None)
    stack, truth = phantom.stack, phantom.truth
    assert stack.voxels.dtype == np.float32
    np.testing.assert_array_equal(stack.voxels, truth.voxelise(stack.shape, stack.spacing).numpy())
    indices = np.random.default_rng(0).integers(0, stack.shape, (50, 3))
    offsets = (indices * stack.spacing)[:, None] - truth.means.double().numpy()
    precisions = np.linalg.inv(truth.covariances.double().numpy())
    squares = np.einsum("bki,kij,bkj->bk", offsets, precisions, offsets)
    summed = truth.background + np.exp(-squares / 2) @ truth.amplitudes.double().numpy()
    np.testing.assert_allclose(stack.voxels[tuple(indices.T)], summed, atol=0.02)


@pytest.mark.parametrize("make", MAKERS)
def test_one_seed_makes_one_phantom(make: Callable[..., Phantom]) -> None:
    first, again, other = make(seed=4), make(seed=4), make(seed=5)
    np.testing.assert_array_equal(first.stack.voxels, again.stack.voxels)
    assert torch.equal(first.truth.means, again.truth.means)
    assert not np.array_equal(first.stack.voxels, other.stack.voxels)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("seed", range(6))
def test_every_seed_makes_a_stack_like_a_microscopes(
    make: Callable[..., Phantom], seed: int
) -> None:
    phantom = make(seed=seed, photons=100)
    stack = phantom.stack
    assert stack.name == phantom.name == make.__name__
    assert stack.shape == (40, 128, 128)
    assert stack.unit == phantom.truth.unit == "micrometer"
    assert stack.spacing[0] > stack.spacing[1] == stack.spacing[2]
    assert stack.voxels.dtype == np.uint16
    assert 1500 < stack.value_range[1] < 6000
    dark = float(np.percentile(stack.voxels, 10))
    assert dark < 1.2 * phantom.truth.background, "most of a stack is background"


@pytest.mark.parametrize("make", MAKERS)
def test_noise_is_that_of_the_photons(make: Callable[..., Phantom]) -> None:
    clean = make(photons=None).stack.voxels.astype(np.float64)
    for photons in (30.0, 3000.0):
        gain = clean.max() / photons
        noise = make(photons=photons).stack.voxels - clean
        expected = gain * clean + 2.0**2 + 1 / 12
        bright = clean > 300
        assert (noise[bright] ** 2 / expected[bright]).mean() == pytest.approx(1, abs=0.1)
        assert abs(noise[bright].mean()) < 4 * np.sqrt(expected[bright].mean() / bright.sum())


def test_beads_have_the_size_of_a_ball_and_the_point_spread_function() -> None:
    truth = beads(count=7, diameter=0.5).truth
    sigmas, axes = truth.principal()
    lateral = np.hypot(0.1, 0.5 / np.sqrt(20))
    axial = np.hypot(0.28, 0.5 / np.sqrt(20))
    assert len(truth) == 7
    np.testing.assert_allclose(sigmas, [[axial, lateral, lateral]] * 7, rtol=1e-5)
    np.testing.assert_allclose(axes[:, 0].abs(), [[1, 0, 0]] * 7, atol=1e-5)
    np.testing.assert_allclose(truth.fwhm()[:, 0], axial * FWHM_PER_SIGMA, rtol=1e-5)


def test_separated_gaussians_do_not_reach_each_other_or_the_faces() -> None:
    phantom = separated()
    truth, stack = phantom.truth, phantom.stack
    assert len(truth) == 50
    precisions = np.linalg.inv(truth.covariances.double().numpy())
    offsets = truth.means.double().numpy()[:, None] - truth.means.double().numpy()
    squares = np.einsum("bki,kij,bkj->bk", offsets, precisions, offsets)
    np.fill_diagonal(squares, np.inf)
    assert squares.min() > 49, "a centre is 7 sigmas or more away from any other Gaussian's"
    lower, upper = stack.box
    extent = 3 * np.sqrt(np.diagonal(truth.covariances.numpy(), axis1=1, axis2=2))
    assert (truth.means.numpy() - extent >= lower).all()
    assert (truth.means.numpy() + extent <= upper).all()
    in_voxels = truth.covariances.numpy() / np.outer(stack.spacing, stack.spacing)
    widths = np.sqrt(np.linalg.eigvalsh(in_voxels))
    assert widths.min() >= 1.199
    assert widths.max() <= 2.001
    assert np.ptp(widths) > 0.5, "widths differ"


def test_a_neurite_is_one_bright_structure_that_enters_the_box_from_one_side() -> None:
    from scipy.ndimage import label

    voxels = neurite(photons=None).stack.voxels
    parts, _ = label(voxels > 100 + 0.05 * 3000)
    sizes = np.bincount(parts.ravel())[1:]
    assert sizes.max() > 0.9 * sizes.sum()
    largest = parts == 1 + sizes.argmax()
    assert largest[:, :, 0].any(), "it enters at the first column"
    assert np.ptp(np.nonzero(largest)[2]) > 100, "and runs through the box"


def test_nuclei_are_apart_and_have_texture() -> None:
    from scipy.ndimage import label

    voxels = nuclei(photons=None, count=5).stack.voxels
    parts, count = label(voxels > 100 + 0.12 * 3000)
    assert 3 <= count <= 5
    inside = voxels[voxels > 100 + 0.25 * 3000]
    assert inside.std() > 0.15 * inside.mean()
    assert 0 < (parts > 0).mean() < 0.3


@pytest.mark.parametrize("make", [beads, nuclei, separated])
def test_more_than_the_box_holds_is_refused(make: Callable[..., Phantom]) -> None:
    with pytest.raises(SettingsError, match=r"count=40 does not fit into shape=\(9, 20, 20\)"):
        make(count=40, shape=(9, 20, 20))
    with pytest.raises(SettingsError, match="count=0 leaves the stack empty"):
        make(count=0)


@pytest.mark.parametrize("photons", [0, -1, float("nan"), float("inf")])
def test_no_light_is_refused(photons: float) -> None:
    with pytest.raises(SettingsError, match="is no amount of light"):
        separated(photons=photons)
