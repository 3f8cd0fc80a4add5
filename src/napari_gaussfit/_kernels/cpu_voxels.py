"""Numba kernels on a regular grid: add Gaussians to it, and gather their gradients from it.

A Gaussian meets the grid in rows along x, whose ends follow exactly from the cutoff. Rows are
walked in chunks of `CHUNK` points: a constant trip count is what lets LLVM vectorise short
rows (a variable one leaves most of a 20-point row to its scalar remainder). Volumes are
therefore padded by one chunk along x. Rows are so short that what is done once a row counts: no
calls (`math.floor` is one), no slices (each counts references), unsigned indices.
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
    RADIUS2,
    ZERO,
    Array,
    F,
    exp2_negative,
    first_index,
    last_index,
)

CHUNK = 16


@njit(nogil=True, fastmath=True, error_model="numpy", cache=True)
def add_slab(
    packed: Array, origin: Array, spacing: Array, volume: Array, first_plane: int, end_plane: int
) -> None:
    """Set planes [first_plane, end_plane) of `volume` to the sum of all Gaussians."""
    rows, width = volume.shape[1], volume.shape[2] - CHUNK
    volume[first_plane:end_plane] = ZERO
    oz, oy, ox = origin[0], origin[1], origin[2]
    hz, hy, hx = spacing[0], spacing[1], spacing[2]
    iz, iy, ix = F(1.0) / hz, F(1.0) / hy, F(1.0) / hx
    for k in range(packed.shape[0]):
        r2 = packed[k, RADIUS2]
        if r2 <= ZERO:
            continue
        amplitude = packed[k, AMPLITUDE]
        mz, my, mx = packed[k, MEAN] - oz, packed[k, MEAN + 1] - oy, packed[k, MEAN + 2] - ox
        w00, w10, w11 = packed[k, FACTOR], packed[k, FACTOR + 1], packed[k, FACTOR + 2]
        w20, w21, w22 = packed[k, FACTOR + 3], packed[k, FACTOR + 4], packed[k, FACTOR + 5]
        i11, i22 = F(1.0) / w11, F(1.0) / w22
        step = w22 * hx
        reach = math.sqrt(r2) / w00
        for z in range(
            first_index((mz - reach) * iz, first_plane),
            last_index((mz + reach) * iz, end_plane - 1) + 1,
        ):
            dz = F(z) * hz - mz
            u0 = w00 * dz
            left0 = r2 - u0 * u0
            if left0 <= ZERO:
                continue
            shift = w10 * dz
            reach_y = math.sqrt(left0) * i11
            centre_y = my - shift * i11
            for y in range(
                first_index((centre_y - reach_y) * iy, 0),
                last_index((centre_y + reach_y) * iy, rows - 1) + 1,
            ):
                dy = F(y) * hy - my
                u1 = shift + w11 * dy
                left1 = left0 - u1 * u1
                if left1 <= ZERO:
                    continue
                reach_x = math.sqrt(left1) * i22
                centre_x = mx - (w20 * dz + w21 * dy) * i22
                x0 = first_index((centre_x - reach_x) * ix, 0)
                x1 = last_index((centre_x + reach_x) * ix, width - 1)
                rest = u0 * u0 + u1 * u1
                for x in range(x0, x1 + 1, CHUNK):
                    start = (F(x) * hx - centre_x) * w22
                    for i in range(CHUNK):
                        u2 = start + step * F(i)
                        volume[np.uintp(z), np.uintp(y), np.uintp(x + i)] += (
                            amplitude * exp2_negative(-rest - u2 * u2)
                        )


@njit(nogil=True, fastmath=True, error_model="numpy", cache=True)
def subtract_slab(
    volume: Array,
    target: Array,
    offset: F,
    sums: NDArray[np.float64],
    first_plane: int,
    end_plane: int,
) -> None:
    """Turn planes of `volume` into ``volume + offset - target``, its padding into zeros.

    sums : [Z, 2], each plane's sum of squares and sum, to be set.
    """
    width = target.shape[2]
    for z in range(first_plane, end_plane):
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
    oz, oy, ox = origin[0], origin[1], origin[2]
    hz, hy, hx = spacing[0], spacing[1], spacing[2]
    iz, iy, ix = F(1.0) / hz, F(1.0) / hy, F(1.0) / hx
    for k in range(first, end):
        s = ZERO
        s0, s1, s2 = ZERO, ZERO, ZERO
        s00, s10, s11, s20, s21, s22 = ZERO, ZERO, ZERO, ZERO, ZERO, ZERO
        r2 = max(packed[k, RADIUS2], ZERO)
        mz, my, mx = packed[k, MEAN] - oz, packed[k, MEAN + 1] - oy, packed[k, MEAN + 2] - ox
        w00, w10, w11 = packed[k, FACTOR], packed[k, FACTOR + 1], packed[k, FACTOR + 2]
        w20, w21, w22 = packed[k, FACTOR + 3], packed[k, FACTOR + 4], packed[k, FACTOR + 5]
        i11, i22 = F(1.0) / w11, F(1.0) / w22
        step = w22 * hx
        reach = math.sqrt(r2) / w00
        for z in range(
            first_index((mz - reach) * iz, 0), last_index((mz + reach) * iz, planes - 1) + 1
        ):
            dz = F(z) * hz - mz
            u0 = w00 * dz
            left0 = r2 - u0 * u0
            if left0 <= ZERO:
                continue
            shift = w10 * dz
            reach_y = math.sqrt(left0) * i11
            centre_y = my - shift * i11
            for y in range(
                first_index((centre_y - reach_y) * iy, 0),
                last_index((centre_y + reach_y) * iy, rows - 1) + 1,
            ):
                dy = F(y) * hy - my
                u1 = shift + w11 * dy
                left1 = left0 - u1 * u1
                if left1 <= ZERO:
                    continue
                reach_x = math.sqrt(left1) * i22
                centre_x = mx - (w20 * dz + w21 * dy) * i22
                x0 = first_index((centre_x - reach_x) * ix, 0)
                x1 = last_index((centre_x + reach_x) * ix, width - 1)
                rest = u0 * u0 + u1 * u1
                row, row2, row22 = ZERO, ZERO, ZERO
                for x in range(x0, x1 + 1, CHUNK):
                    start = (F(x) * hx - centre_x) * w22
                    for i in range(CHUNK):
                        u2 = start + step * F(i)
                        we = weights[np.uintp(z), np.uintp(y), np.uintp(x + i)] * exp2_negative(
                            -rest - u2 * u2
                        )
                        row += we
                        row2 += we * u2
                        row22 += we * u2 * u2
                s += row
                s0 += u0 * row
                s1 += u1 * row
                s2 += row2
                s00 += u0 * u0 * row
                s10 += u1 * u0 * row
                s11 += u1 * u1 * row
                s20 += u0 * row2
                s21 += u1 * row2
                s22 += row22
        moments[k, 0] = s
        moments[k, 1] = s0
        moments[k, 2] = s1
        moments[k, 3] = s2
        moments[k, 4] = s00
        moments[k, 5] = s10
        moments[k, 6] = s11
        moments[k, 7] = s20
        moments[k, 8] = s21
        moments[k, 9] = s22
