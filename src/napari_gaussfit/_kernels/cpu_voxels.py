"""Numba kernels on a regular grid: add Gaussians to it, and gather their gradients from it.

A Gaussian meets the grid in rows along x. Rows are walked in chunks of `CHUNK` points: a constant
trip count is what lets LLVM vectorise short rows (a variable one leaves most of a 20-point row to
its scalar remainder). Volumes are therefore padded by one chunk along x. Where a plane's rows fit
into one chunk they all begin at the same column; in wider ones the ends of each row follow exactly
from the cutoff. Rows are so short that what is done once a row counts: no calls (`math.floor` is
one), no slices (each counts references), unsigned indices, no division.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from napari_gaussfit._kernels.arithmetic import (
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
from napari_gaussfit._kernels.lanes import CHUNK, lanes

Factor = tuple[F, F, F, F, F, F]
Ends = tuple[int, int]
PLANE_MOMENTS = 6  # those without u_0, which is the same all over a plane


@njit(inline="always")
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


@njit(inline="always")
def _planes(
    packed: Array, k: int, origin: Array, spacing: Array, first: int, end: int
) -> tuple[int, int]:
    """First and last plane of [first, end) that Gaussian k touches (last < first when none)."""
    z = (packed[k, MEAN] - origin[0]) / spacing[0]
    reach = math.sqrt(max(packed[k, RADIUS2], ZERO)) / (packed[k, FACTOR] * spacing[0])
    return first_index(z - reach, first), last_index(z + reach, end - 1)


@njit(inline="always")
def _plane(
    mean: Vector, factor: Factor, r2: F, z: int, rows: int, width: int
) -> tuple[F, F, int, int, Ends]:
    """Return what a Gaussian is on a plane.

    That is u_0, what it leaves of r^2, first and last row, and the first and the last column that
    any of the rows touches.
    """
    dz = F(z) - mean[0]
    u0 = factor[0] * dz
    left = max(r2 - u0 * u0, ZERO)
    reach = math.sqrt(left)
    i11, i22 = ONE / factor[2], ONE / factor[5]
    dy = -factor[1] * dz * i11
    middle_x = mean[2] - (factor[3] * dz + factor[4] * dy) * i22
    slant = factor[4] * i11
    half_y, half_x = reach * i11, reach * i22 * math.sqrt(ONE + slant * slant)
    return (
        u0,
        left,
        first_index(mean[1] + dy - half_y, 0),
        last_index(mean[1] + dy + half_y, rows - 1),
        (first_index(middle_x - half_x, 0), last_index(middle_x + half_x, width - 1)),
    )


@njit(inline="always")
def _row(
    mean: Vector, factor: Factor, left: F, z: int, y: int, ends: Ends, width: int
) -> tuple[F, F, int, int]:
    """Return what a Gaussian is on a row: u_1, where u_2 is 0, first and last column.

    `left` of r^2 and the plane's columns, `ends`, are those of `_plane`.
    """
    dz, dy = F(z) - mean[0], F(y) - mean[1]
    i22 = ONE / factor[5]
    u1 = factor[1] * dz + factor[2] * dy
    centre = mean[2] - (factor[3] * dz + factor[4] * dy) * i22
    first, last = ends
    if last - first >= CHUNK:
        reach = math.sqrt(max(left - u1 * u1, ZERO)) * i22
        first, last = first_index(centre - reach, 0), last_index(centre + reach, width - 1)
    return u1, centre, first, last


@njit(nogil=True, fastmath=True, error_model="numpy", cache=True)
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
        step = factor[5]
        for z in range(low, high + 1):
            u0, left, y0, y1, ends = _plane(mean, factor, r2, z, rows, width)
            for y in range(y0, y1 + 1):
                u1, centre, x0, x1 = _row(mean, factor, left, z, y, ends, width)
                rest = u0 * u0 + u1 * u1
                for x in range(x0, x1 + 1, CHUNK):
                    start = (F(x) - centre) * step
                    for i in range(CHUNK):
                        u2 = start + step * F(i)
                        volume[np.uintp(z), np.uintp(y), np.uintp(x + i)] += (
                            amplitude * exp2_negative(-rest - u2 * u2)
                        )


@njit(nogil=True, fastmath=True, error_model="numpy", cache=True)
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


@njit(nogil=True, fastmath=True, error_model="numpy", cache=True)
def gather_moments(
    packed: Array,
    origin: Array,
    spacing: Array,
    weights: Array,
    moments: Array,
    first: int,
    end: int,
) -> None:
    """Set rows [first, end) of `moments` to the sums that `unpack_gradient` wants.

    `weights` is the derivative of the loss by each voxel, padded with zeros like a volume.
    """
    planes, rows, width = weights.shape[0], weights.shape[1], weights.shape[2] - CHUNK
    plane, total = lanes(PLANE_MOMENTS), lanes(MOMENTS)
    for k in range(first, end):
        total[:] = ZERO
        low, high = _planes(packed, k, origin, spacing, 0, planes)
        r2 = packed[k, RADIUS2]
        mean, factor = _in_voxels(packed, k, origin, spacing)
        step = factor[5]
        for z in range(low, high + 1):
            u0, left, y0, y1, ends = _plane(mean, factor, r2, z, rows, width)
            plane[:] = ZERO
            for y in range(y0, y1 + 1):
                u1, centre, x0, x1 = _row(mean, factor, left, z, y, ends, width)
                rest = u0 * u0 + u1 * u1
                for x in range(x0, x1 + 1, CHUNK):
                    start = (F(x) - centre) * step
                    for i in range(CHUNK):
                        u2 = start + step * F(i)
                        we = weights[np.uintp(z), np.uintp(y), np.uintp(x + i)] * exp2_negative(
                            -rest - u2 * u2
                        )
                        we1, we2 = we * u1, we * u2
                        plane[0, i] += we
                        plane[1, i] += we1
                        plane[2, i] += we2
                        plane[3, i] += we1 * u1
                        plane[4, i] += we2 * u1
                        plane[5, i] += we2 * u2
            for i in range(CHUNK):
                s, s1, s2 = plane[0, i], plane[1, i], plane[2, i]
                total[0, i] += s
                total[1, i] += u0 * s
                total[2, i] += s1
                total[3, i] += s2
                total[4, i] += u0 * u0 * s
                total[5, i] += u0 * s1
                total[6, i] += plane[3, i]
                total[7, i] += u0 * s2
                total[8, i] += plane[4, i]
                total[9, i] += plane[5, i]
        for n in range(MOMENTS):
            moments[k, n] = total[n].sum()
