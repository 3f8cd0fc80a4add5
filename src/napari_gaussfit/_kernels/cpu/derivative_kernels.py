"""Numba kernel at free points: f with its gradient and its Hessian by the point, in float64.

With P = Sigma^-1 and v = P (x - mu), a Gaussian g = a exp(-(x - mu)^T v / 2) has

    dg/dx = -g v,    d2g/dx2 = g (v v^T - P).

Points come in blocks that lie close together; what is out of reach of a whole block is found once.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from napari_gaussfit._kernels.cpu.jit import exact_kernel, exact_part

__all__ = ["BLOCK", "REACH2", "SUMS", "sum_derivatives"]

BLOCK = 32
"""Points that are looked at together."""

REACH2 = 30.0
"""(x - mu)^T P (x - mu) beyond which a Gaussian is nothing: exp(-15) is 3e-7."""

SUMS = 10
"""f; its derivatives by z, y, x; by zz, zy, zx, yy, yx, xx."""

Floats = NDArray[np.float64]


@exact_part
def _list_near(means: Floats, reaches: Floats, points: Floats, near: NDArray[np.int64]) -> int:
    """Write to `near` [K] which Gaussians reach the box of points [B, 3]; return how many."""
    lower, upper = np.empty(3), np.empty(3)
    for axis in range(3):
        lower[axis], upper[axis] = points[:, axis].min(), points[:, axis].max()
    count = 0
    for k in range(means.shape[0]):
        away2 = 0.0
        for axis in range(3):
            away = max(lower[axis] - means[k, axis], means[k, axis] - upper[axis], 0.0)
            away2 += away * away
        if away2 <= reaches[k] * reaches[k]:
            near[count] = k
            count += 1
    return count


@exact_kernel
def sum_derivatives(
    means: Floats,
    precisions: Floats,
    amplitudes: Floats,
    reaches: Floats,
    points: Floats,
    sums: Floats,
    first: int,
    end: int,
) -> None:
    """Set what `SUMS` names, rows of `sums` [B, 10], for blocks [first, end) of points [B, 3].

    means : [K, 3]; precisions : [K, 6], P's entries zz, zy, zx, yy, yx, xx; amplitudes : [K];
    reaches : [K], distances from the centre beyond which a Gaussian is nothing.
    """
    near = np.empty(means.shape[0], np.int64)
    for block in range(first, end):
        start = block * BLOCK
        stop = min(start + BLOCK, points.shape[0])
        count = _list_near(means, reaches, points[start:stop], near)
        sums[start:stop] = 0.0
        for c in range(count):
            k = near[c]
            pzz, pzy, pzx = precisions[k, 0], precisions[k, 1], precisions[k, 2]
            pyy, pyx, pxx = precisions[k, 3], precisions[k, 4], precisions[k, 5]
            for b in range(start, stop):
                z, y, x = (
                    points[b, 0] - means[k, 0],
                    points[b, 1] - means[k, 1],
                    points[b, 2] - means[k, 2],
                )
                vz = pzz * z + pzy * y + pzx * x
                vy = pzy * z + pyy * y + pyx * x
                vx = pzx * z + pyx * y + pxx * x
                square = z * vz + y * vy + x * vx
                if square > REACH2:
                    continue
                g = amplitudes[k] * math.exp(-0.5 * square)
                sums[b, 0] += g
                sums[b, 1] -= g * vz
                sums[b, 2] -= g * vy
                sums[b, 3] -= g * vx
                sums[b, 4] += g * (vz * vz - pzz)
                sums[b, 5] += g * (vz * vy - pzy)
                sums[b, 6] += g * (vz * vx - pzx)
                sums[b, 7] += g * (vy * vy - pyy)
                sums[b, 8] += g * (vy * vx - pyx)
                sums[b, 9] += g * (vx * vx - pxx)
