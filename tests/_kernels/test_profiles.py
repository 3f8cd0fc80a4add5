"""Soft MIP and line integral are what their formulas say, and so are their gradients."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from scenes import CUTOFF, SIZE, assert_agrees, make_rays

from napari_gaussfit import _kernels
from napari_gaussfit._kernels import reference

if TYPE_CHECKING:
    from scenes import Field

    from napari_gaussfit._kernels import Rays


@pytest.mark.parametrize("temperature", [0.01, 0.1, 10.0])
def test_soft_mip_agrees_with_the_reference(field: Field, rays: Rays, temperature: float) -> None:
    assert_agrees(
        field,
        lambda *p: _kernels.soft_mip(*p, rays, cutoff=CUTOFF, temperature=temperature),
        lambda *p: reference.soft_mip(*p, rays, temperature),
    )


def test_line_integral_agrees_with_the_reference(field: Field, rays: Rays) -> None:
    assert_agrees(
        field,
        lambda *p: _kernels.line_integral(*p, rays, cutoff=CUTOFF),
        lambda *p: reference.line_integral(*p, rays),
    )


@pytest.mark.parametrize("sign", [-1, 1])
def test_soft_mip_takes_amplitudes_of_either_sign(
    overlapping: Field, few_rays: Rays, sign: int
) -> None:
    overlapping.amplitudes[::2] *= -1
    overlapping.amplitudes[1::2] *= sign
    assert_agrees(
        overlapping,
        lambda *p: _kernels.soft_mip(*p, few_rays, cutoff=CUTOFF, temperature=0.01),
        lambda *p: reference.soft_mip(*p, few_rays, 0.01),
    )


def test_a_cold_soft_mip_is_the_highest_of_the_own_peaks(
    overlapping: Field, few_rays: Rays
) -> None:
    """Even where peak / temperature is far beyond what exp can hold."""
    leaves = overlapping.leaves(torch.float32)
    cold = _kernels.soft_mip(*leaves, few_rays, cutoff=CUTOFF, temperature=1e-6)
    peaks = torch.stack(
        [
            _kernels.soft_mip(
                *(p[k : k + 1] for p in leaves), few_rays, cutoff=CUTOFF, temperature=1
            )
            for k in range(len(overlapping.means))
        ]
    )
    torch.testing.assert_close(cold, peaks.amax(0), rtol=1e-5, atol=1e-6)
    gradients = torch.autograd.grad(cold.sum(), leaves)
    assert all(g.isfinite().all() for g in gradients)


def test_a_hot_soft_mip_is_the_mean_of_the_own_peaks(overlapping: Field, few_rays: Rays) -> None:
    leaves = overlapping.leaves(torch.float32)
    hot = _kernels.soft_mip(*leaves, few_rays, cutoff=CUTOFF, temperature=1e6)
    peaks = [
        _kernels.soft_mip(*(p[k : k + 1] for p in leaves), few_rays, cutoff=CUTOFF, temperature=1)
        for k in range(len(overlapping.means))
    ]
    torch.testing.assert_close(hot, torch.stack(peaks).mean(0), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("sigma", [30.0, 300.0, 3000.0])
def test_line_integral_of_gaussians_far_wider_than_the_box(
    few_rays: Rays, overlapping: Field, sigma: float
) -> None:
    overlapping.cholesky.zero_()
    overlapping.cholesky[:, [0, 2, 5]] = math.log(sigma)
    assert_agrees(
        overlapping,
        lambda *p: _kernels.line_integral(*p, few_rays, cutoff=CUTOFF),
        lambda *p: reference.line_integral(*p, few_rays),
    )


def test_line_integrals_of_a_view_add_up_to_the_integrated_intensity(
    single: Field, axis_rays: Rays
) -> None:
    """Of a Gaussian within the box, seen through pixels of area 0.25."""
    single.means[:] = torch.tensor([12.0, 10.0, 14.0])
    single.cholesky[:] = torch.tensor([0.3, 0.2, 0.1, -0.3, 0.4, 0.2])
    leaves = single.leaves(torch.float32)
    found = float(_kernels.line_integral(*leaves, axis_rays, cutoff=CUTOFF).sum().detach()) * 0.25
    true = float(single.amplitudes[0]) * (2 * math.pi) ** 1.5 * math.exp(0.3 + 0.1 + 0.2)
    assert found == pytest.approx(true, rel=1e-4)


def test_a_pinhole_amid_the_gaussians_sees_those_that_reach_before_it(overlapping: Field) -> None:
    """Also those whose means lie behind it."""
    rays = make_rays("pinhole", (20, 21))
    rays.frame[0] = np.asarray(SIZE) / 2
    assert_agrees(
        overlapping,
        lambda *p: _kernels.line_integral(*p, rays, cutoff=CUTOFF),
        lambda *p: reference.line_integral(*p, rays),
    )
