"""Numba kernels on a regular grid: add Gaussians to it, and gather their gradients from it.

A Gaussian meets a plane in an ellipse, which is walked in columns as wide as a vector: down one,
u moves by the same from row to row, so that little is done but the exponential. Which rows of it
the ellipse touches follows exactly from the cutoff. Volumes are padded by one chunk along x, where
the last column may end. No calls (`math.floor` is one), no slices (each counts references).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_gaussfit._kernels.cpu.jit import fast_kernel, inlined
from napari_gaussfit._kernels.cpu.simd import CHUNK, WIDTH, add_to, filled, load, ramp, total
from napari_gaussfit._kernels.shared.gaussian import (
    AMPLITUDE,
    FACTOR,
    MEAN,
    MOMENTS,
    ONE,
    RADIUS2,
    ZERO,
    Array,
    F,
    Vector,
    exp2_negative,
    first_index,
    last_index,
)

Factor = tuple[F, F, F, F, F, F]
RUN = 32  # rows in which u follows from that of the last: rounding adds up to 1e-6


@inlined
def _in_voxels(packed: Array, k: int, origin: Array, spacing: Array) -> tuple[Vector, Factor]:
    """Mean and W of Gaussian k, in voxels of the grid."""
    hz, hy, hx = spacing[0], spacing[1], spacing[2]
    mean = (
        (packed[k, MEAN] - origin[0]) / hz,
        (packed[k, MEAN + 1] - origin[1]) / hy,
        (packed[k, MEAN + 2] - origin[2]) / hx,
    )
    factor = (
        packed[k, FACTOR] * hz,
        packed[k, FACTOR + 1] * hz,
        packed[k, FACTOR + 2] * hy,
        packed[k, FACTOR + 3] * hz,
        packed[k, FACTOR + 4] * hy,
        packed[k, FACTOR + 5] * hx,
    )
    return mean, factor


@inlined
def _planes(
    packed: Array, k: int, origin: Array, spacing: Array, first: int, end: int
) -> tuple[int, int]:
    """First and last plane of [first, end) that Gaussian k touches (last < first when none)."""
    z = (packed[k, MEAN] - origin[0]) / spacing[0]
    reach = math.sqrt(max(packed[k, RADIUS2], ZERO)) / (packed[k, FACTOR] * spacing[0])
    return first_index(z - reach, first), last_index(z + reach, end - 1)


@inlined
def _section(mean: Vector, factor: Factor, r2: F, z: int) -> tuple[F, F, F, F]:
    """Return u_0 on plane z, the radius left there, and the y and x of the ellipse's centre."""
    dz = F(z) - mean[0]
    u0 = factor[0] * dz
    i11, i22 = ONE / factor[2], ONE / factor[5]
    dy = -factor[1] * dz * i11
    dx = -(factor[3] * dz + factor[4] * dy) * i22
    return u0, F(math.sqrt(max(r2 - u0 * u0, ZERO))), mean[1] + dy, mean[2] + dx


@inlined
def _columns(factor: Factor, radius: F, x: F, width: int) -> tuple[int, int]:
    """First and last column that an ellipse about x touches."""
    slant = factor[4] / factor[2]
    reach = radius * (math.sqrt(ONE + slant * slant) / factor[5])
    return first_index(x - reach, 0), last_index(x + reach, width - 1)


@inlined
def _rows(factor: Factor, radius: F, y: F, begin: F, end: F, rows: int) -> tuple[int, int]:
    """First and last row where an ellipse about y touches columns `begin` to `end` from its centre.

    Its upper edge is highest in the column nearest to that of its top, the lower one likewise.
    """
    f1, f12, f2 = factor[2], factor[4], factor[5]
    inverse = ONE / (f1 * f1 + f12 * f12)
    top = -radius * (f12 / (f1 * f2))
    left = radius * radius * (f1 * f1 + f12 * f12)
    dx = min(max(-top, begin), end)
    low = (-f12 * f2 * dx - math.sqrt(max(left - (f1 * f2 * dx) ** 2, ZERO))) * inverse
    dx = min(max(top, begin), end)
    high = (-f12 * f2 * dx + math.sqrt(max(left - (f1 * f2 * dx) ** 2, ZERO))) * inverse
    return first_index(y + low, 0), last_index(y + high, rows - 1)


@fast_kernel
def add_slab(
    packed: Array, origin: Array, spacing: Array, volume: Array, first_plane: int, end_plane: int
) -> None:
    """Set planes [first_plane, end_plane) of `volume` to the sum of all Gaussians."""
    rows, width = volume.shape[1], volume.shape[2] - CHUNK
    volume[first_plane:end_plane] = ZERO
    for k in range(packed.shape[0]):
        low, high = _planes(packed, k, origin, spacing, first_plane, end_plane)
        if low > high:
            continue
        amplitude, r2 = packed[k, AMPLITUDE], packed[k, RADIUS2]
        mean, factor = _in_voxels(packed, k, origin, spacing)
        steps = factor[5] * ramp()
        for z in range(low, high + 1):
            u0, radius, cy, cx = _section(mean, factor, r2, z)
            x0, x1 = _columns(factor, radius, cx, width)
            for x in range(x0, x1 + 1, WIDTH):
                dx = F(x) - cx
                y0, y1 = _rows(factor, radius, cy, dx, dx + F(WIDTH - 1), rows)
                for start in range(y0, y1 + 1, RUN):
                    dy = F(start) - cy
                    u1, u2 = factor[2] * dy, factor[4] * dy + factor[5] * dx + steps
                    for y in range(start, min(start + RUN, y1 + 1)):
                        e = exp2_negative(-(u0 * u0 + u1 * u1) - u2 * u2)
                        add_to(volume, (z, y, x), amplitude * e)
                        u1, u2 = u1 + factor[2], u2 + factor[4]


@fast_kernel
def subtract(volume: Array, target: Array, offset: F, sums: NDArray[np.float64]) -> None:
    """Turn `volume` into ``volume + offset - target``, its padding into zeros.

    sums : [Z, 2], each plane's sum of squares and sum, to be set.
    """
    width = target.shape[2]
    for z in range(target.shape[0]):
        squares, total = 0.0, 0.0
        for y in range(target.shape[1]):
            row_squares, row_total = ZERO, ZERO
            for x in range(width):
                difference = volume[z, y, x] + offset - target[z, y, x]
                volume[z, y, x] = difference
                row_squares += difference * difference
                row_total += difference
            for x in range(width, width + CHUNK):
                volume[z, y, x] = ZERO
            squares += float(row_squares)
            total += float(row_total)
        sums[z, 0], sums[z, 1] = squares, total


@inlined
def _with_point(sums: Any, we: Any, u1: Any, u2: Any) -> Any:
    """Add what is gathered at a point to a plane's moments: those without u_0, which is one."""
    we1, we2 = we * u1, we * u2
    return (
        sums[0] + we,
        sums[1] + we1,
        sums[2] + we2,
        sums[3] + we1 * u1,
        sums[4] + we2 * u1,
        sums[5] + we2 * u2,
    )


@inlined
def _with_plane(sums: Any, plane: Any, u0: F) -> Any:
    """Add a plane's moments to all."""
    s, s1, s2, s11, s21, s22 = plane
    return (
        sums[0] + s,
        sums[1] + u0 * s,
        sums[2] + s1,
        sums[3] + s2,
        sums[4] + u0 * u0 * s,
        sums[5] + u0 * s1,
        sums[6] + s11,
        sums[7] + u0 * s2,
        sums[8] + s21,
        sums[9] + s22,
    )


@fast_kernel
def gather_moments(
    packed: Array,
    origin: Array,
    spacing: Array,
    weights: Array,
    places: NDArray[np.int64],
    moments: Array,
    first: int,
    end: int,
) -> None:
    """Set rows `places` [first, end) of `moments` to the sums that `unpack_gradient` wants.

    `weights` is the derivative of the loss by each voxel, padded with zeros like a volume.
    """
    planes, rows, width = weights.shape[0], weights.shape[1], weights.shape[2] - CHUNK
    none = filled(ZERO)
    nothing = (none, none, none, none, none, none)
    for k in range(first, end):
        sums = nothing + (none, none, none, none)  # noqa: RUF005 (numba has no stars)
        low, high = _planes(packed, k, origin, spacing, 0, planes)
        r2 = packed[k, RADIUS2]
        mean, factor = _in_voxels(packed, k, origin, spacing)
        steps = factor[5] * ramp()
        for z in range(low, high + 1):
            u0, radius, cy, cx = _section(mean, factor, r2, z)
            x0, x1 = _columns(factor, radius, cx, width)
            plane = nothing
            for x in range(x0, x1 + 1, WIDTH):
                dx = F(x) - cx
                y0, y1 = _rows(factor, radius, cy, dx, dx + F(WIDTH - 1), rows)
                for start in range(y0, y1 + 1, RUN):
                    dy = F(start) - cy
                    u1, u2 = factor[2] * dy, factor[4] * dy + factor[5] * dx + steps
                    for y in range(start, min(start + RUN, y1 + 1)):
                        e = exp2_negative(-(u0 * u0 + u1 * u1) - u2 * u2)
                        plane = _with_point(plane, load(weights, (z, y, x)) * e, u1, u2)
                        u1, u2 = u1 + factor[2], u2 + factor[4]
            sums = _with_plane(sums, plane, u0)
        for n in range(MOMENTS):
            moments[places[k], n] = total(sums[n])
