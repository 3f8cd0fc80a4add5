"""The exact MIP is the largest f on each ray, and its gradient that of f there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from scenes import CUTOFF, assert_gradients_agree

from napari_gaussfit import _kernels
from napari_gaussfit._kernels import reference
from napari_gaussfit._kernels.cpu.backend import MipEvaluation, pack, unpack_gradient

if TYPE_CHECKING:
    from scenes import Field

    from napari_gaussfit._kernels import Rays

OF_PEAK = 0.01


def test_mip_agrees_with_the_reference(field: Field, rays: Rays) -> None:
    found = _kernels.mip(
        *field.leaves(torch.float32), rays, cutoff=CUTOFF, bin_step=field.narrowest
    )
    true = reference.mip(*(p.detach() for p in field.leaves(torch.float64)), rays)
    worst = float(((found - true).abs().max() / true.max()).detach())
    assert worst < OF_PEAK, f"off by {worst:.2%} of the peak"


def test_mip_equals_a_dense_ray_march(field: Field, many_rays: Rays) -> None:
    """Every ray of an image, marched at 600 points by the kernel that evaluates points."""
    leaves = [p.detach() for p in field.leaves(torch.float32)]
    found = _kernels.mip(*leaves, many_rays, cutoff=CUTOFF, bin_step=field.narrowest)
    near, far = reference.clip(many_rays, torch.float32)
    o, d = reference.origins_and_directions(many_rays, torch.float32)
    hit = near < far
    t = near[hit][:, None] + (far - near)[hit][:, None] * torch.linspace(0, 1, 600)
    points = o[hit][:, None] + t[..., None] * d[hit][:, None]
    marched = _kernels.evaluate(*leaves, points.reshape(-1, 3), cutoff=1e-4).reshape(t.shape)
    true = torch.zeros_like(found)
    true[hit] = marched.amax(-1)
    low = float((true - found).max() / true.max())
    high = float((found - true).max() / true.max())
    assert low < OF_PEAK, f"misses {low:.2%} of the peak"
    assert high < OF_PEAK, f"finds {high:.2%} of the peak more than there is"


def test_gradient_of_the_mip_is_that_of_f_where_it_is_largest(field: Field, rays: Rays) -> None:
    single, double = field.leaves(torch.float32), field.leaves(torch.float64)
    evaluation = MipEvaluation(rays, field.narrowest)
    packed = pack(*single, CUTOFF)
    value = evaluation.forward(packed)
    weights = torch.randn(value.shape, generator=torch.Generator().manual_seed(4))
    found = unpack_gradient(evaluation.backward(packed, weights), packed)
    o, d = reference.origins_and_directions(rays, torch.float64)
    near, far = reference.clip(rays, torch.float64)
    depth = torch.from_numpy(evaluation.depth[:, : rays.shape[1]]).double()
    f = reference.evaluate(*double, (o + depth[..., None] * d).reshape(-1, 3)).reshape(rays.shape)
    f = torch.where(near < far, f, 0.0)
    true = torch.autograd.grad((f * weights.double()).sum(), double)
    assert_gradients_agree(found, true)


def test_mip_of_one_gaussian_is_its_own_peak_on_each_ray(single: Field, many_rays: Rays) -> None:
    found = _kernels.mip(
        *single.leaves(torch.float32), many_rays, cutoff=CUTOFF, bin_step=single.narrowest
    )
    own = reference.soft_mip(*single.leaves(torch.float64), many_rays, 1.0)
    torch.testing.assert_close(found.double(), own, rtol=1e-5, atol=1e-5)


def test_mip_is_zero_where_a_ray_misses_the_box(overlapping: Field, many_rays: Rays) -> None:
    near, far = reference.clip(many_rays, torch.float64)
    image = _kernels.mip(*overlapping.leaves(torch.float32), many_rays, cutoff=CUTOFF, bin_step=1.0)
    assert (far <= near).any()
    assert (image[far <= near] == 0).all()
    assert (image[near < far] > 0).all()
