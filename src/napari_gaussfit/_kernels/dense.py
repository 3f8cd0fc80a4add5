"""The operations in plain torch, where compiled kernels cannot follow.

These are float64, the transforms of `torch.func`, derivatives of derivatives, and derivatives by
the points. The functions are those of `reference`; here is when they are used, and what they cost:
every Gaussian is evaluated at every point, and a graph keeps all that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from napari_gaussfit._kernels import reference
from napari_gaussfit._kernels.geometry import Rays
from napari_gaussfit.errors import SettingsError

__all__ = ["are_needed", "gradients", "mip", "transformed", "values"]

Tensors = tuple[Tensor, Tensor, Tensor]
Twin = Callable[[Tensor, Tensor, Tensor], Tensor]
"""One of `reference`, of means, Cholesky parameters and amplitudes."""

FLOATS_A_PAIR = 24
"""Numbers that a graph keeps of a Gaussian at a point: offset, whitened offset, exponent, value,
and their derivatives."""

PAIRS_AT_ONCE = 2**22
"""Gaussians at points that are evaluated together without a graph: 0.4 GB in float64."""

NEWTON_STEPS = 3
"""From a kernel's depth, right to 1e-6 of a width, each step doubles the digits."""


def transformed() -> bool:
    """Tell whether a transform of `torch.func` runs: then no value of a tensor can be looked at."""
    active: bool = torch._C._are_functorch_transforms_active()  # noqa: SLF001
    return active


def are_needed(tensors: Tensors, points: Tensor | None = None) -> bool:
    """Tell whether kernels cannot evaluate these Gaussians.

    Parameters
    ----------
    tensors : tuple of Tensor
        Means [K, 3], Cholesky parameters [K, 6] and amplitudes [K].
    points : Tensor, optional
        Where, if that may be learnt too.

    Raises
    ------
    SettingsError
        If the tensors are of several types, or of another type than float32 and float64.
    """
    types = {tensor.dtype for tensor in tensors}
    if len(types) > 1 or not types <= {torch.float32, torch.float64}:
        found = ", ".join(str(tensor.dtype).removeprefix("torch.") for tensor in tensors)
        raise SettingsError(
            f"means, cholesky and amplitudes are {found}; expected all float32 or all float64 "
            "(field.to(torch.float32))"
        )
    if torch.float64 in types or transformed():
        return True
    return points is not None and points.requires_grad and torch.is_grad_enabled()


def values(tensors: Tensors, points: Tensor) -> Tensor:
    """Return f [B] of Gaussians at points [B, 3], in parts where nothing is learnt.

    Parameters
    ----------
    tensors : tuple of Tensor
        Means [K, 3], Cholesky parameters [K, 6] and amplitudes [K].
    points : Tensor, shape [B, 3]
        The places at which the field is evaluated.

    Raises
    ------
    SettingsError
        If there is no room for what a graph keeps.
    """
    count = max(1, len(tensors[0]))
    learnt = torch.is_grad_enabled() and any(t.requires_grad for t in (*tensors, points))
    if learnt or transformed():
        refuse_what_memory_cannot_hold(count * len(points), tensors[0])
        return reference.evaluate(*tensors, points)
    parts = torch.split(points, max(1, PAIRS_AT_ONCE // count))
    return torch.cat([reference.evaluate(*tensors, part) for part in parts])


def gradients(twin: Twin, tensors: Sequence[Tensor], weights: Tensor) -> Sequence[Tensor | None]:
    """Return the derivatives of ``(twin * weights).sum()`` by three tensors, to be derived again.

    Parameters
    ----------
    twin : callable
        Returns the field at the points, of parameters in float64.
    tensors : sequence of Tensor
        Means [K, 3], Cholesky parameters [K, 6] and amplitudes [K].
    weights : Tensor
        Of the shape of f.

    Raises
    ------
    SettingsError
        If there is no room.
    """
    means, cholesky, amplitudes = tensors
    refuse_what_memory_cannot_hold(max(1, len(means)) * weights.numel(), means)
    wanted = [tensor for tensor in tensors if tensor.requires_grad]
    found = torch.autograd.grad(
        twin(means, cholesky, amplitudes), wanted, weights, create_graph=True, allow_unused=True
    )
    by_tensor = iter(found)
    return [next(by_tensor) if tensor.requires_grad else None for tensor in tensors]


def refuse_what_memory_cannot_hold(pairs: int, like: Tensor) -> None:
    """Refuse so many Gaussians at points, in a graph.

    Parameters
    ----------
    pairs : int
        The number of Gaussians times that of points.
    like : Tensor
        Whose type and device count.

    Raises
    ------
    SettingsError
        If there is less memory than they need. A CUDA device says so by itself.
    """
    import psutil

    needed = FLOATS_A_PAIR * pairs * like.element_size()
    free = psutil.virtual_memory().available
    if like.device.type == "cpu" and needed > free:
        raise SettingsError(
            f"second derivatives, torch.func, float64 and derivatives by points are computed for "
            f"every Gaussian at every point: {pairs:,} pairs take about {needed / 1e9:.3g} GB of "
            f"memory, {free / 1e9:.3g} GB are free; take fewer points or Gaussians at a time"
        )


class FindsDepth(Protocol):
    """What has looked for the maxima of f on rays."""

    depth: Any


def mip(
    means: Tensor, cholesky: Tensor, amplitudes: Tensor, rays: Rays, evaluation: FindsDepth
) -> Tensor:
    """Return the MIP [H, W] by where it was found, with derivatives of first and second order.

    The largest f lies at t*(p), where df/dt = 0 or a ray leaves the box. Its second derivative by
    parameters p is f_pp - f_pt f_tp / f_tt: that of f after one step of Newton's in t.

    Parameters
    ----------
    means, cholesky, amplitudes : Tensor
        [K, 3], [K, 6], [K].
    rays : Rays
        The rays through the pixels, cut to the stack's box.
    evaluation : MipEvaluation
        A kernel's, after its forward: it knows t near the largest f on each ray.
    """
    rows, columns = rays.shape
    depth = torch.as_tensor(evaluation.depth).reshape(rows, -1)[:, :columns]
    near, far = reference.clip(rays, means.dtype, means.device)
    a, b, c = reference.profiles(means, cholesky, rays)

    def along(t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return f, df/dt and d2f/dt2 [H, W]."""
        slope = a * t[..., None] + b
        g = amplitudes * torch.exp(-0.5 * ((a * t[..., None] + 2 * b) * t[..., None] + c))
        return g.sum(-1), -(g * slope).sum(-1), (g * (slope * slope - a)).sum(-1)

    def stepped(t: Tensor) -> Tensor:
        """Return t after a step towards the maximum; held where the box ends, and in the flat."""
        _, first, second = along(t)
        curved = second < 0
        step = torch.where(curved, first / torch.where(curved, second, -1.0), 0.0)
        inside = (t > near) & (t < far)
        return torch.where(inside, torch.minimum(torch.maximum(t - step, near), far), t)

    with torch.no_grad():
        t = torch.minimum(torch.maximum(depth.to(near), near), far)
        for _ in range(NEWTON_STEPS):
            t = stepped(t)
    value, _, _ = along(stepped(t))
    return torch.where(near < far, value, torch.zeros_like(value))
