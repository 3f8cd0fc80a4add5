"""The oracle's own gradients agree with finite differences."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from napari_gaussfit._kernels import reference

if TYPE_CHECKING:
    from scenes import Field
    from torch import Tensor

    from napari_gaussfit._kernels import Grid, Rays


@pytest.fixture
def leaves(overlapping: Field) -> list[Tensor]:
    """Three Gaussians in float64."""
    return [p.detach()[:3].requires_grad_() for p in overlapping.leaves(torch.float64)]


def test_gradient_of_f_at_points(leaves: list[Tensor]) -> None:
    points = torch.rand(5, 3, dtype=torch.float64) * 20
    assert torch.autograd.gradcheck(lambda *p: reference.evaluate(*p, points), leaves)


def test_gradient_of_f_on_a_grid(leaves: list[Tensor], coarse_grid: Grid) -> None:
    assert torch.autograd.gradcheck(lambda *p: reference.voxelise(*p, coarse_grid), leaves)


def test_gradient_of_the_soft_mip(leaves: list[Tensor], few_rays: Rays) -> None:
    assert torch.autograd.gradcheck(lambda *p: reference.soft_mip(*p, few_rays, 0.2), leaves)


def test_gradient_of_the_line_integral(leaves: list[Tensor], few_rays: Rays) -> None:
    assert torch.autograd.gradcheck(lambda *p: reference.line_integral(*p, few_rays), leaves)


def test_gradient_of_the_mip_with_its_maximum_held_fixed(
    leaves: list[Tensor], few_rays: Rays
) -> None:
    """Finite differences search anew each time: that they agree is the envelope theorem."""
    assert torch.autograd.gradcheck(
        lambda *p: reference.mip(*p, few_rays), leaves, eps=1e-5, atol=1e-4
    )


def test_the_march_finds_the_largest_of_many_samples(overlapping: Field, few_rays: Rays) -> None:
    leaves = [p.detach() for p in overlapping.leaves(torch.float64)]
    found = reference.mip(*leaves, few_rays)
    near, far = reference.clip(few_rays, torch.float64)
    o, d = reference.origins_and_directions(few_rays, torch.float64)
    for i, j in (near < far).nonzero().tolist():
        t = torch.linspace(float(near[i, j]), float(far[i, j]), 5000, dtype=torch.float64)
        samples = reference.evaluate(*leaves, o[i, j] + t[:, None] * d[i, j])
        assert float(samples.max()) <= float(found[i, j]) + 1e-12
        assert float(samples.max()) == pytest.approx(float(found[i, j]), rel=1e-4)
