"""Evaluating sums of Gaussians: the operations, and the one place that picks a backend.

Each operation takes means [K, 3], Cholesky parameters [K, 6] and amplitudes [K] (float32, axis
order z, y, x) and is differentiable with respect to these three. `cutoff` is the value below
which a Gaussian's contribution may be left out. Background is no business of a kernel's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from napari_gaussfit._kernels.geometry import Grid, Rays
from napari_gaussfit.errors import SettingsError

__all__ = [
    "Grid",
    "Rays",
    "backend_name",
    "device_named",
    "evaluate",
    "line_integral",
    "mip",
    "soft_mip",
    "voxelise",
]


class Evaluation(Protocol):
    """One kernel over one geometry, forward and backward."""

    def forward(self, packed: Any) -> Tensor:
        """Return f of packed Gaussians."""

    def backward(self, packed: Any, weights: Tensor) -> Any:
        """Return the moments of Gaussians under `weights`, the derivative of the loss by f."""


def backend_name(device: torch.device) -> str:
    """Return which backend serves tensors on `device`.

    Raises
    ------
    SettingsError
        If none does.
    """
    if device.type != "cpu":
        message = f"device={device}: this version computes on the CPU only; use device='cpu'"
        raise SettingsError(message)
    return "numba"


def device_named(name: str) -> torch.device:
    """Return the device that "auto", "cpu" or "cuda" stands for.

    Raises
    ------
    SettingsError
        If no backend serves it.
    """
    device = torch.device("cpu" if name == "auto" else name)
    backend_name(device)
    return device


class _Sum(torch.autograd.Function):
    """Ties a kernel's forward and backward together for autograd."""

    @staticmethod
    def forward(
        ctx: Any,
        means: Tensor,
        cholesky: Tensor,
        amplitudes: Tensor,
        cutoff: float,
        evaluation: Evaluation,
    ) -> Tensor:
        """Evaluate, and keep what backward needs."""
        from napari_gaussfit._kernels import cpu

        backend_name(means.device)
        packed = cpu.pack(means, cholesky, amplitudes, cutoff)
        ctx.packed, ctx.evaluation = packed, evaluation
        return evaluation.forward(packed)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gather the gradients."""
        from napari_gaussfit._kernels import cpu

        moments = ctx.evaluation.backward(ctx.packed, gradients[0])
        return (*cpu.unpack_gradient(moments, ctx.packed), None, None)


_sum: Callable[..., Tensor] = _Sum.apply


def evaluate(
    means: Tensor, cholesky: Tensor, amplitudes: Tensor, points: Tensor, *, cutoff: float
) -> Tensor:
    """Return the sum of the Gaussians [B] at points [B, 3]."""
    from napari_gaussfit._kernels import cpu

    return _sum(means, cholesky, amplitudes, cutoff, cpu.PointEvaluation(points))


def voxelise(
    means: Tensor, cholesky: Tensor, amplitudes: Tensor, grid: Grid, *, cutoff: float
) -> Tensor:
    """Return the sum of the Gaussians [Z, Y, X] on a grid."""
    from napari_gaussfit._kernels import cpu

    return _sum(means, cholesky, amplitudes, cutoff, cpu.GridEvaluation(grid))


def mip(
    means: Tensor,
    cholesky: Tensor,
    amplitudes: Tensor,
    rays: Rays,
    *,
    cutoff: float,
    bin_step: float,
    start: Tensor | None = None,
) -> Tensor:
    """Return the exact MIP [H, W] of the sum, 0 where a ray misses the box.

    `bin_step` is the distance in t of the places where the search for the maximum looks. With
    `start` [H, W], values of t, there is no search: each pixel has the mode that is uphill from
    there, which is its maximum where `start` is near enough.
    """
    from napari_gaussfit._kernels import cpu

    return _sum(means, cholesky, amplitudes, cutoff, cpu.MipEvaluation(rays, bin_step, start))


def soft_mip(
    means: Tensor,
    cholesky: Tensor,
    amplitudes: Tensor,
    rays: Rays,
    *,
    cutoff: float,
    temperature: float,
) -> Tensor:
    """Return each pixel's softmax-weighted mean [H, W] of the Gaussians' own peaks on its ray.

    v = sum_k w_k p_k with w = softmax(p / temperature) over all K Gaussians, and p_k the largest
    value of Gaussian k alone on the ray inside the box; 0 where a ray misses the box. Choose
    `cutoff` well below `temperature`: a peak below it counts as 0.
    """
    from napari_gaussfit._kernels.cpu_projections import SoftMipEvaluation

    return _sum(means, cholesky, amplitudes, cutoff, SoftMipEvaluation(rays, temperature))


def line_integral(
    means: Tensor, cholesky: Tensor, amplitudes: Tensor, rays: Rays, *, cutoff: float
) -> Tensor:
    """Return the integral [H, W] of the sum over each ray's length inside the box."""
    from napari_gaussfit._kernels.cpu_projections import LineIntegralEvaluation

    return _sum(means, cholesky, amplitudes, cutoff, LineIntegralEvaluation(rays))
