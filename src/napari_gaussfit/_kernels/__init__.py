"""Evaluating sums of Gaussians: the operations, and the one place that picks a backend.

Each operation takes means [K, 3], Cholesky parameters [K, 6] and amplitudes [K] (float32, axis
order z, y, x) and is differentiable with respect to these three. `cutoff` is the value below
which a Gaussian's contribution may be left out. Background is no business of a kernel's. What
kernels cannot follow is computed in plain torch: see `dense`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_gaussfit._kernels import dense, reference
from napari_gaussfit._kernels.cuda import room_on, why_not
from napari_gaussfit._kernels.geometry import Grid, Rays
from napari_gaussfit._kernels.shared.step import cutoff_of
from napari_gaussfit.errors import SettingsError

__all__ = [
    "Backend",
    "GradientSum",
    "Grid",
    "Rays",
    "Volume",
    "adam_step",
    "backend_name",
    "cutoff_of",
    "device_named",
    "evaluate",
    "fallback",
    "kernel_folder",
    "line_integral",
    "mip",
    "refuse_transforms",
    "soft_mip",
    "transformed",
    "voxelise",
    "why_not",
]


Tensors = tuple[Tensor, Tensor, Tensor]

transformed = dense.transformed


class Volume(Protocol):
    """What has a value everywhere on `Rays`: see `cpu.spline.SplineVolume.sample`."""

    def sample(
        self,
        rays: Rays,
        depth: NDArray[np.float32],
        image: NDArray[np.float32],
        first: int,
        end: int,
    ) -> None:
        """Set rows [first, end) of `image` [H, W] to the values at t = `depth` on each ray."""


class Evaluation(Protocol):
    """One kernel over one geometry, forward and backward."""

    def forward(self, packed: Any) -> Tensor:
        """Return f of packed Gaussians."""

    def backward(self, packed: Any, weights: Tensor) -> Any:
        """Return the moments of Gaussians under `weights`, the derivative of the loss by f."""


class MipSearch(Evaluation, Protocol):
    """The exact MIP's kernel, which keeps where on each ray it found f largest."""

    depth: Any


class Backend(Protocol):
    """What a module offers that serves a device; see the functions of the same names here."""

    def pack(self, means: Tensor, cholesky: Tensor, amplitudes: Tensor, cutoff: float, /) -> Any:
        """Return the kernels' records of Gaussians."""

    def unpack_gradient(self, moments: Any, packed: Any, /) -> Tensors:
        """Return derivatives by means, Cholesky parameters and amplitudes."""

    def adam_step(
        self, parameters: Tensors, gradients: Tensors, moments: Tensors, rates: Tensor, /
    ) -> None:
        """Take one optimiser step in place; see `reference.adam_step`."""

    def PointEvaluation(self, points: Tensor, /) -> Evaluation:  # noqa: N802
        """Return what evaluates f at points [B, 3]."""

    def GridEvaluation(self, grid: Grid, /) -> Evaluation:  # noqa: N802
        """Return what evaluates f on a grid."""

    def MipEvaluation(  # noqa: N802
        self, rays: Rays, bin_step: float, start: Tensor | None, /
    ) -> MipSearch:
        """Return what evaluates the exact MIP of f."""

    def SoftMipEvaluation(self, rays: Rays, temperature: float, /) -> Evaluation:  # noqa: N802
        """Return what evaluates the soft MIP of f."""

    def LineIntegralEvaluation(self, rays: Rays, /) -> Evaluation:  # noqa: N802
        """Return what evaluates the integral of f over rays."""


def backend_name(device: torch.device) -> str:
    """Return which backend serves tensors on `device`: "numba" or "numba-cuda".

    Raises
    ------
    SettingsError
        If none does; the message says why, and what to do.
    """
    if device.type == "cpu":
        return "numba"
    if device.type != "cuda":
        message = f"device={device}: expected 'cpu', 'cuda' or 'auto'"
        raise SettingsError(message)
    reason = why_not(device.index)
    if reason is not None:
        message = f"device={device} cannot be used: {reason}. Or use device='cpu'"
        raise SettingsError(message)
    return "numba-cuda"


def device_named(name: str) -> torch.device:
    """Return the device that "auto", "cpu", "cuda" or "cuda:0" stands for.

    "auto" is CUDA where a kernel has run on it, else the CPU.

    Raises
    ------
    SettingsError
        If no backend serves it.
    """
    if name == "auto":
        return torch.device("cpu" if why_not() else "cuda")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        message = f"device={name!r}: expected 'auto', 'cpu', 'cuda' or 'cuda:' and a number"
        raise SettingsError(message) from error
    backend_name(device)
    return device


def fallback(name: str) -> str | None:
    """Return why "auto" is the CPU here, and what to do; None where it is not, or not asked for."""
    reason = why_not() if name == "auto" else None
    return None if reason is None else f"device auto is the CPU here: {reason}"


def kernel_folder() -> tuple[Path, bool]:
    """Return where the CPU's compiled kernels are kept, and whether that is a temporary folder."""
    from napari_gaussfit._kernels import compiled
    from napari_gaussfit._kernels.cpu import grid_kernels

    folder = Path(str(grid_kernels.bounds_of_blocks.stats.cache_path))
    return folder, compiled.is_temporary(folder)


def _backend_of(device: torch.device) -> Backend:
    """Return the backend that serves tensors on `device`."""
    if backend_name(device) == "numba":
        from napari_gaussfit._kernels.cpu import backend as cpu

        return cpu
    from napari_gaussfit._kernels.cuda import backend as cuda

    return cuda


def adam_step(parameters: Tensors, gradients: Tensors, moments: Tensors, rates: Tensor) -> None:
    """Take one optimiser step in place, of amplitudes [K] or [C, K]; see `reference.adam_step`."""
    _backend_of(rates.device).adam_step(parameters, gradients, moments, rates)


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
        twin: dense.Twin,
    ) -> Tensor:
        """Evaluate, and keep what backward needs."""
        ctx.save_for_backward(means, cholesky, amplitudes)
        ctx.twin = twin
        with room_on(means.device):
            packed = _backend_of(means.device).pack(means, cholesky, amplitudes, cutoff)
            ctx.packed, ctx.evaluation, ctx.like = packed, evaluation, amplitudes
            return evaluation.forward(packed)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gather the gradients; where these are to be derived again, in plain torch."""
        if torch.is_grad_enabled():
            with room_on(ctx.like.device):
                again = dense.gradients(ctx.twin, ctx.saved_tensors, gradients[0])
            return *again, None, None, None
        with room_on(ctx.like.device):
            moments = ctx.evaluation.backward(ctx.packed, gradients[0])
            unpack = _backend_of(ctx.like.device).unpack_gradient
            d_means, d_cholesky, d_amplitudes = unpack(moments, ctx.packed)
        return d_means, d_cholesky, d_amplitudes.reshape(ctx.like.shape), None, None, None


_sum: Callable[..., Tensor] = _Sum.apply


def refuse_transforms() -> None:
    """Refuse a MIP under `torch.func`.

    Raises
    ------
    SettingsError
        If one of its transforms runs.
    """
    if dense.transformed():
        raise SettingsError(
            "the MIP has none of torch.func's transforms, since its maximum is searched for; use "
            "backward() or torch.autograd.grad, or mode='soft-mip'"
        )


def evaluate(
    means: Tensor, cholesky: Tensor, amplitudes: Tensor, points: Tensor, *, cutoff: float
) -> Tensor:
    """Return the sum of the Gaussians [B] at points [B, 3]."""
    if dense.are_needed((means, cholesky, amplitudes), points):
        return dense.values((means, cholesky, amplitudes), points)
    evaluation = _backend_of(means.device).PointEvaluation(points)
    twin = partial(reference.evaluate, points=points)
    return _sum(means, cholesky, amplitudes, cutoff, evaluation, twin)


def voxelise(
    means: Tensor, cholesky: Tensor, amplitudes: Tensor, grid: Grid, *, cutoff: float
) -> Tensor:
    """Return the sum of the Gaussians [Z, Y, X] on a grid."""
    if dense.are_needed((means, cholesky, amplitudes)):
        points = reference.points_of(grid, means)
        return dense.values((means, cholesky, amplitudes), points).reshape(grid.shape)
    evaluation = _backend_of(means.device).GridEvaluation(grid)
    twin = partial(reference.voxelise, grid=grid)
    return _sum(means, cholesky, amplitudes, cutoff, evaluation, twin)


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
    evaluation = _backend_of(means.device).MipEvaluation(rays, bin_step, start)
    twin = partial(dense.mip, rays=rays, evaluation=evaluation)
    if dense.are_needed((means, cholesky, amplitudes)):
        single = (means.detach().float(), cholesky.detach().float(), amplitudes.detach().float())
        _sum(*single, cutoff, evaluation, twin)  # which finds where on each ray
        return twin(means, cholesky, amplitudes)
    return _sum(means, cholesky, amplitudes, cutoff, evaluation, twin)


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
    twin = partial(reference.soft_mip, rays=rays, temperature=temperature)
    if dense.are_needed((means, cholesky, amplitudes)):
        return twin(means, cholesky, amplitudes)
    evaluation = _backend_of(means.device).SoftMipEvaluation(rays, temperature)
    return _sum(means, cholesky, amplitudes, cutoff, evaluation, twin)


def line_integral(
    means: Tensor, cholesky: Tensor, amplitudes: Tensor, rays: Rays, *, cutoff: float
) -> Tensor:
    """Return the integral [H, W] of the sum over each ray's length inside the box."""
    twin = partial(reference.line_integral, rays=rays)
    if dense.are_needed((means, cholesky, amplitudes)):
        return twin(means, cholesky, amplitudes)
    evaluation = _backend_of(means.device).LineIntegralEvaluation(rays)
    return _sum(means, cholesky, amplitudes, cutoff, evaluation, twin)


class GradientSum:
    """The gradient of a sum of losses, gathered term by term of Gaussians that are packed once.

    What a fit's step on the CPU does instead of autograd: the moments of a sum are the sum of its
    terms', and squared residuals need no operation of torch's. A term's weight is what its loss
    counts in the sum; what the methods return is without it.

    Parameters
    ----------
    means : Tensor, shape [K, 3]
        In the stack's unit, axis order z, y, x.
    cholesky : Tensor, shape [K, 6]
        Gradients by the Cholesky parameters.
    amplitudes : Tensor, shape [K]
        In the intensity of the targets.
    cutoff : float
        Contributions below it may be left out.
    """

    def __init__(
        self, means: Tensor, cholesky: Tensor, amplitudes: Tensor, *, cutoff: float
    ) -> None:
        from napari_gaussfit._kernels.cpu import backend

        self._backend = backend
        self._packed = backend.pack(means, cholesky, amplitudes, cutoff)
        self._moments: Any = 0.0

    def add_squared_residual(
        self, grid: Grid, target: Tensor, *, offset: float, weight: float
    ) -> tuple[float, float]:
        """Add the mean of (f + offset - target)^2 on a grid; return it, and that of its root."""
        residual = self._backend.GridResidual(grid, target, offset)
        square, mean, moments = residual.gather(self._packed, weight)
        self._moments += moments
        return square, mean

    def add_squared_mip_residual(
        self,
        rays: Rays,
        target: Tensor | Volume,
        *,
        offset: float,
        weight: float,
        bin_step: float,
        start: Tensor | None,
    ) -> tuple[float, Tensor]:
        """Add the mean of (MIP + offset - target)^2 over pixels that see the box.

        Returns
        -------
        square : float
            That mean.
        depth : Tensor, shape [H, W]
            Where on each ray, in t, f is largest; the target is a volume's value there.
        """
        residual = self._backend.MipResidual(rays, bin_step, start, target, offset)
        square: float
        square, moments = residual.gather(self._packed, weight)
        self._moments += moments
        return square, residual.found

    def add_loss_on_grid(
        self, grid: Grid, loss: Callable[[Tensor], Tensor], *, weight: float
    ) -> tuple[float, Tensor]:
        """Add the loss of f [Z, Y, X] on a grid; return it, and f."""
        evaluation = self._backend.GridEvaluation(grid)
        prediction = evaluation.forward(self._packed)
        return self._add(evaluation, prediction, loss, weight), prediction

    def add_loss_of_mip(
        self,
        rays: Rays,
        target: Tensor | Volume,
        loss: Callable[[Tensor, Tensor], Tensor],
        *,
        weight: float,
        bin_step: float,
        start: Tensor | None,
    ) -> tuple[float, Tensor, Tensor]:
        """Add the loss of the exact MIP [H, W] by its target.

        Returns
        -------
        value : float
            The loss.
        error : Tensor, shape [H, W]
            MIP minus target.
        depth : Tensor, shape [H, W]
            As of `add_squared_mip_residual`.
        """
        evaluation = self._backend.MipEvaluation(rays, bin_step, start)
        image = evaluation.forward(self._packed)
        goal = target if isinstance(target, Tensor) else evaluation.target_of(target)
        value = self._add(evaluation, image, lambda mip: loss(mip, goal), weight)
        return value, image - goal, evaluation.found

    def _add(
        self,
        evaluation: Evaluation,
        prediction: Tensor,
        loss: Callable[[Tensor], Tensor],
        weight: float,
    ) -> float:
        """Add the loss of what an evaluation gave; return it."""
        leaf = prediction.detach().requires_grad_()
        value = loss(leaf)
        (weights,) = torch.autograd.grad(value, leaf)
        self._moments += evaluation.backward(self._packed, weight * weights)
        return value.item()

    def gradients(self) -> Tensors:
        """Return the derivatives by means [K, 3], Cholesky parameters [K, 6], amplitudes [K]."""
        return self._backend.unpack_gradient(self._moments, self._packed)
