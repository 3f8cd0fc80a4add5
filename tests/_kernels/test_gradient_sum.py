"""What a step gathers term by term is the gradient of the sum of its losses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from scenes import CUTOFF, SIZE, assert_gradients_agree, make_rays
from scipy.ndimage import map_coordinates

from napari_gaussfit import _kernels
from napari_gaussfit._kernels import GradientSum, Grid, Rays, reference
from napari_gaussfit._kernels.cpu.backend import hits
from napari_gaussfit._kernels.cpu.spline import SplineVolume

if TYPE_CHECKING:
    from scenes import Field
    from torch import Tensor

OFFSET = 0.25


def some_target(shape: tuple[int, ...]) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(4))


def gathering(field: Field) -> GradientSum:
    return GradientSum(*field.leaves(torch.float32), cutoff=CUTOFF)


def test_the_squared_residual_agrees_with_the_reference(field: Field, grid: Grid) -> None:
    target, total = some_target(grid.shape), gathering(field)
    square, mean = total.add_squared_residual(grid, target, offset=OFFSET, weight=3.0)
    leaves = field.leaves(torch.float64)
    residual = reference.voxelise(*leaves, grid) + OFFSET - target
    assert square == pytest.approx(float(residual.detach().square().mean()), rel=1e-4, abs=1e-6)
    assert mean == pytest.approx(float(residual.detach().mean()), rel=1e-4, abs=1e-6)
    true = torch.autograd.grad(3.0 * residual.square().mean(), leaves)
    assert_gradients_agree(total.gradients(), true)


@pytest.mark.parametrize("searched", [True, False])
def test_the_squared_residual_of_a_mip_is_that_of_its_pixels(
    field: Field, many_rays: Rays, *, searched: bool
) -> None:
    """Held against the MIP itself, which tests of its own hold against the reference."""
    start = None if searched else torch.zeros(many_rays.shape) + 12.0
    looks = {"bin_step": field.narrowest, "start": start}
    target, total = some_target(many_rays.shape), gathering(field)
    square, _ = total.add_squared_mip_residual(
        many_rays, target, offset=OFFSET, weight=3.0, **looks
    )
    leaves = field.leaves(torch.float32)
    image = _kernels.mip(*leaves, many_rays, cutoff=CUTOFF, **looks)
    seen = (image + OFFSET - target)[torch.from_numpy(hits(many_rays))]
    assert square == pytest.approx(float(seen.detach().square().mean()), rel=1e-5)
    true = torch.autograd.grad(3.0 * seen.square().mean(), leaves)
    assert_gradients_agree(total.gradients(), true)


@pytest.mark.parametrize("camera", ["orthographic", "pinhole"])
def test_the_target_of_a_volume_is_its_value_where_the_field_is_largest(
    overlapping: Field, camera: str
) -> None:
    """Noise that lifts the volume's own maximum elsewhere on the ray is not seen."""
    rays = make_rays(camera, (10, 11))
    voxels = np.random.default_rng(0).normal(1.0, 0.3, (9, 10, 11)).astype(np.float32)
    spacing = np.asarray(SIZE, np.float32) / voxels.shape
    volume = SplineVolume(voxels, spacing)
    looks = {"bin_step": overlapping.narrowest, "start": None}
    total, again = gathering(overlapping), gathering(overlapping)
    square, depth = total.add_squared_mip_residual(rays, volume, offset=OFFSET, weight=3.0, **looks)
    o, d = reference.origins_and_directions(rays, torch.float64)
    points = (o + depth[..., None].double() * d).numpy() / spacing
    points = points.clip(-0.5, np.array(voxels.shape) - 0.5)
    there = map_coordinates(voxels.astype(float), np.moveaxis(points, -1, 0), mode="mirror")
    target = torch.from_numpy(there.astype(np.float32))
    expected, _ = again.add_squared_mip_residual(rays, target, offset=OFFSET, weight=3.0, **looks)
    assert square == pytest.approx(expected, rel=1e-3)
    for found, true in zip(total.gradients(), again.gradients(), strict=True):
        assert float((found - true).norm()) < 2e-3 * float(true.norm())
    hit = torch.from_numpy(hits(rays))
    _, error, _ = gathering(overlapping).add_loss_of_mip(
        rays, volume, lambda image, goal: (image - goal).square().mean(), weight=1.0, **looks
    )
    image = _kernels.mip(*overlapping.leaves(torch.float32), rays, cutoff=CUTOFF, **looks)
    np.testing.assert_allclose((image.detach() - error)[hit], target[hit], atol=1e-3)


def test_terms_add_up(overlapping: Field, fine_grid: Grid) -> None:
    rays = make_rays("pinhole", (10, 11))
    voxels, pixels = some_target(fine_grid.shape), some_target(rays.shape)
    looks = {"bin_step": overlapping.narrowest, "start": None}
    total = gathering(overlapping)
    total.add_squared_residual(fine_grid, voxels, offset=OFFSET, weight=0.5)
    total.add_squared_mip_residual(rays, pixels, offset=OFFSET, weight=2.0, **looks)
    on_grid, f = total.add_loss_on_grid(fine_grid, lambda f: (f * voxels).sum(), weight=0.1)
    on_rays, error, _ = total.add_loss_of_mip(
        rays, pixels, lambda image, goal: (image * goal).sum(), weight=-0.3, **looks
    )
    leaves = overlapping.leaves(torch.float32)
    true_f = _kernels.voxelise(*leaves, fine_grid, cutoff=CUTOFF)
    true_image = _kernels.mip(*leaves, rays, cutoff=CUTOFF, **looks)
    hit = torch.from_numpy(hits(rays))
    loss = (
        0.5 * (true_f + OFFSET - voxels).square().mean()
        + 2.0 * (true_image + OFFSET - pixels)[hit].square().mean()
        + 0.1 * (true_f * voxels).sum()
        - 0.3 * (true_image * pixels).sum()
    )
    assert_gradients_agree(total.gradients(), torch.autograd.grad(loss, leaves))
    assert on_grid == pytest.approx(float((f * voxels).sum()))
    assert on_rays == pytest.approx(float(((error + pixels) * pixels).sum()), rel=1e-4)


def test_a_view_past_the_box_adds_nothing(overlapping: Field) -> None:
    rays = make_rays("orthographic", (4, 5))
    frame = rays.frame.copy()
    frame[0] += 1000 * frame[1] / np.linalg.norm(frame[1])
    past = Rays(frame, rays.shape, rays.lower, rays.upper, rays.near)
    total = gathering(overlapping)
    square, _ = total.add_squared_mip_residual(
        past, torch.ones(4, 5), offset=OFFSET, weight=1.0, bin_step=1.0, start=None
    )
    assert square == 0.0
    assert all(float(gradient.abs().max()) == 0.0 for gradient in total.gradients())
