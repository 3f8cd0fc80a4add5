"""The oracle: every kernel once more, dense, in plain torch, of any dtype, with autograd.

Each function has the name and the arguments of the one in `_kernels` whose twin it is. Nobody
waits for it: memory grows with (number of Gaussians) x (number of points).

Symbols: mu the means, L the Cholesky factors, u = L^-1 (x - mu), x(t) = o + t d a ray.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from napari_gaussfit._kernels.geometry import Grid, Rays

MARCH = 1024  # samples along a ray when its maximum is searched


def factors(cholesky: Tensor) -> Tensor:
    """Return L [K, 3, 3] of the Cholesky parameters [K, 6]."""
    a, b, c, d, e, f = cholesky.unbind(-1)
    zero = torch.zeros_like(a)
    rows = ((a.exp(), zero, zero), (b, c.exp(), zero), (d, e, f.exp()))
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def _whitened(vectors: Tensor, cholesky: Tensor) -> Tensor:
    """Return L^-1 v [..., K, 3] of vectors [..., K, 3]."""
    one = torch.eye(3, dtype=cholesky.dtype, device=cholesky.device).expand(len(cholesky), 3, 3)
    inverse: Tensor = torch.linalg.solve_triangular(factors(cholesky), one, upper=False)
    return torch.einsum("kij,...kj->...ki", inverse, vectors)


def evaluate(means: Tensor, cholesky: Tensor, amplitudes: Tensor, points: Tensor) -> Tensor:
    """Return the sum of the Gaussians [B] at points [B, 3]."""
    u = _whitened(points.unsqueeze(-2) - means, cholesky)  # [B, K, 3]
    return (torch.exp(-0.5 * (u * u).sum(-1)) * amplitudes).sum(-1)


def points_of(grid: Grid, like: Tensor) -> Tensor:
    """Return a grid's points [Z Y X, 3], of the type and on the device of a tensor."""
    axes = [
        float(origin) + float(step) * torch.arange(n, dtype=like.dtype, device=like.device)
        for origin, step, n in zip(grid.origin, grid.spacing, grid.shape, strict=True)
    ]
    return torch.cartesian_prod(*axes)


def voxelise(means: Tensor, cholesky: Tensor, amplitudes: Tensor, grid: Grid) -> Tensor:
    """Return the sum of the Gaussians [Z, Y, X] on a grid."""
    planes = points_of(grid, means).reshape(grid.shape[0], -1, 3)
    return torch.stack([evaluate(means, cholesky, amplitudes, plane) for plane in planes]).reshape(
        grid.shape
    )


def origins_and_directions(
    rays: Rays, dtype: torch.dtype, device: torch.device | None = None
) -> tuple[Tensor, Tensor]:
    """Return o and d [H, W, 3] of every pixel."""
    frame = torch.as_tensor(rays.frame, dtype=dtype, device=device)
    i = torch.arange(rays.shape[0], dtype=dtype, device=device)[:, None, None]
    j = torch.arange(rays.shape[1], dtype=dtype, device=device)[None, :, None]
    return frame[0] + i * frame[1] + j * frame[2], frame[3] + i * frame[4] + j * frame[5]


def clip(
    rays: Rays, dtype: torch.dtype, device: torch.device | None = None
) -> tuple[Tensor, Tensor]:
    """Return where each ray enters and leaves the box [H, W]; near >= far where it misses."""
    o, d = origins_and_directions(rays, dtype, device)
    lower, upper = (
        torch.as_tensor(c, dtype=dtype, device=device) for c in (rays.lower, rays.upper)
    )
    d = torch.where(d.abs() < 1e-12, torch.full_like(d, 1e-12), d)
    one, two = (lower - o) / d, (upper - o) / d
    near = torch.minimum(one, two).amax(-1).clamp(min=rays.near)
    return near, torch.maximum(one, two).amin(-1)


def mip_depth(means: Tensor, cholesky: Tensor, amplitudes: Tensor, rays: Rays) -> Tensor:
    """Return t [H, W] of the largest f on each ray, by a dense march and golden sections."""
    with torch.no_grad():
        o, d = origins_and_directions(rays, means.dtype)
        near, far = clip(rays, means.dtype)
        depth = torch.zeros_like(near)
        for i, j in (near < far).nonzero().tolist():

            def f(t: Tensor, i: int = i, j: int = j) -> Tensor:
                return evaluate(means, cholesky, amplitudes, o[i, j] + t[:, None] * d[i, j])

            low, high = near[i, j], far[i, j]
            for _ in range(3):
                t = torch.linspace(0, 1, MARCH, dtype=means.dtype) * (high - low) + low
                best = int(f(t).argmax())
                low, high = t[max(best - 1, 0)], t[min(best + 1, MARCH - 1)]
            depth[i, j] = t[best]
        return depth


def mip(means: Tensor, cholesky: Tensor, amplitudes: Tensor, rays: Rays) -> Tensor:
    """Return the exact MIP [H, W], 0 where a ray misses the box.

    By the envelope theorem its derivative is that of f at the maximum held fixed.
    """
    depth = mip_depth(means, cholesky, amplitudes, rays)
    o, d = origins_and_directions(rays, means.dtype)
    points = (o + depth[..., None] * d).reshape(-1, 3)
    values = evaluate(means, cholesky, amplitudes, points).reshape(rays.shape)
    near, far = clip(rays, means.dtype)
    return torch.where(near < far, values, torch.zeros_like(values))


def profiles(means: Tensor, cholesky: Tensor, rays: Rays) -> tuple[Tensor, Tensor, Tensor]:
    """Return A, B, C [H, W, K]: along a ray the exponent is -(A t^2 + 2 B t + C) / 2."""
    o, d = origins_and_directions(rays, means.dtype, means.device)
    start = _whitened(o.unsqueeze(-2) - means, cholesky)
    ray = _whitened(d.unsqueeze(-2).expand(*rays.shape, len(means), 3), cholesky)
    return (ray * ray).sum(-1), (ray * start).sum(-1), (start * start).sum(-1)


def soft_mip(
    means: Tensor, cholesky: Tensor, amplitudes: Tensor, rays: Rays, temperature: float
) -> Tensor:
    """Return each pixel's softmax-weighted mean [H, W] of the Gaussians' own peaks on its ray.

    v = sum_k w_k p_k with w = softmax(p / temperature) over all K Gaussians, and p_k the largest
    value of Gaussian k alone on the ray clipped to the box.
    """
    a, b, c = profiles(means, cholesky, rays)
    near, far = clip(rays, means.dtype, means.device)
    t = torch.clamp(-b / a, near[..., None], far[..., None])
    peaks = amplitudes * torch.exp(-0.5 * (a * t * t + 2 * b * t + c))
    value = (torch.softmax(peaks / temperature, -1) * peaks).sum(-1)
    return torch.where(near < far, value, torch.zeros_like(value))


def line_integral(means: Tensor, cholesky: Tensor, amplitudes: Tensor, rays: Rays) -> Tensor:
    """Return the integral [H, W] of the Gaussians over each ray's length inside the box."""
    a, b, c = profiles(means, cholesky, rays)
    near, far = clip(rays, means.dtype, means.device)
    _, d = origins_and_directions(rays, means.dtype, means.device)
    peak = -b / a
    height = amplitudes * torch.exp(-0.5 * (c - b * b / a))
    root = torch.sqrt(0.5 * a)
    ends = torch.erf(root * (far[..., None] - peak)) - torch.erf(root * (near[..., None] - peak))
    value = (height * (0.5 * math.sqrt(math.pi) / root) * ends).sum(-1) * d.norm(dim=-1)
    return torch.where(near < far, value, torch.zeros_like(value))


def adam_step(
    parameters: tuple[Tensor, Tensor, Tensor],
    gradients: tuple[Tensor, Tensor, Tensor],
    moments: tuple[Tensor, Tensor, Tensor],
    rates: Tensor,
    *,
    decays: tuple[float, float],
    longest_step: float,
) -> None:
    """Take one step of Adam in each Gaussian's own frame, in place.

    The coordinates are (log a; nu; M; log a of further channels) with dmu = L nu and dL = L M,
    M lower triangular: steps are relative to the Gaussian's own brightness, widths and
    orientation, so that one rate suits every scale and unit.

    Parameters
    ----------
    parameters, gradients : tuple of Tensor
        Means [K, 3], Cholesky parameters [K, 6], amplitudes [C, K], or [K] of one channel;
        derivatives of the loss.
    moments : tuple of Tensor
        Running means of the gradient [K, 9 + C] and of its square [K, 9 + C]; steps taken [K].
    rates : Tensor, shape [9 + C]
        Step sizes of log a, nu (3), M (00, 10, 11, 20, 21, 22) and log a of further channels.
    decays : tuple of float
        Of the two running means (Kingma and Ba, Adam, 2015: beta_1, beta_2).
    longest_step : float
        No coordinate changes by more.
    """
    means, cholesky, amplitudes = parameters
    d_means, d_cholesky, d_amplitudes = gradients
    first, second, age = moments
    lower = factors(cholesky)
    d_lower = factors_gradient(cholesky, d_cholesky)
    rows, columns = torch.tril_indices(3, 3)
    d_m = (lower.transpose(-1, -2) @ d_lower)[:, rows, columns]
    d_nu = (lower.transpose(-1, -2) @ d_means.unsqueeze(-1)).squeeze(-1)
    by_log = (amplitudes * d_amplitudes).reshape(-1, len(means)).T
    g = torch.cat([by_log[:, :1], d_nu, d_m, by_log[:, 1:]], 1)
    age += 1
    first += (1 - decays[0]) * (g - first)
    second += (1 - decays[1]) * (g * g - second)
    corrected = first / (1 - decays[0] ** age)[:, None]
    root = (second / (1 - decays[1] ** age)[:, None]).sqrt() + 1e-15
    step = (-rates * corrected / root).clamp(-longest_step, longest_step)
    amplitudes *= torch.cat([step[:, :1], step[:, 10:]], 1).T.exp().reshape(amplitudes.shape)
    means += (lower @ step[:, 1:4, None]).squeeze(-1)
    growth = torch.zeros_like(lower)
    growth[:, rows, columns] = step[:, 4:10]
    diagonal = torch.diagonal(growth, dim1=-2, dim2=-1)
    diagonal.copy_(diagonal.exp())
    cholesky.copy_(cholesky_parameters(lower @ growth))


def factors_gradient(cholesky: Tensor, d_cholesky: Tensor) -> Tensor:
    """Return derivatives by L [K, 3, 3] of those by the Cholesky parameters [K, 6]."""
    a, b, c, d, e, f = d_cholesky.unbind(-1)
    zero = torch.zeros_like(a)
    la, lc, lf = (cholesky[:, n].exp() for n in (0, 2, 5))
    rows = ((a / la, zero, zero), (b, c / lc, zero), (d, e, f / lf))
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def cholesky_parameters(lower: Tensor) -> Tensor:
    """Return the Cholesky parameters [K, 6] of L [K, 3, 3]; the inverse of `factors`."""
    return torch.stack(
        [
            lower[:, 0, 0].log(),
            lower[:, 1, 0],
            lower[:, 1, 1].log(),
            lower[:, 2, 0],
            lower[:, 2, 1],
            lower[:, 2, 2].log(),
        ],
        -1,
    )
