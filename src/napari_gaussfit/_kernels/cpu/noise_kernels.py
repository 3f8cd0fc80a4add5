"""Numba kernels of noise: differences of what a fit leaves, the light that they are of, and where.

A plane is filtered in rows that stay in the first-level cache. What is filtered is computed as it
is written, in the order in which `measure.differences` has it for whole arrays.
"""

from __future__ import annotations

import numpy as np

from napari_gaussfit._kernels.cpu.jit import exact_kernel, exact_part, fast_kernel
from napari_gaussfit._kernels.shared.gaussian import Array, Array64

Triple = tuple[float, float, float]
Lags = tuple[int, int, int]


@exact_part
def _add_filtered(
    mask: Triple, power: float, a: Array64, b: Array64, c: Array64, row: Array64
) -> None:
    if power:
        for x in range(len(row)):
            difference = mask[0] * a[x] + mask[1] * b[x] + mask[2] * c[x]
            row[x] += difference * difference / power
    else:
        for x in range(len(row)):
            row[x] += mask[0] * a[x] + mask[1] * b[x] + mask[2] * c[x]


@exact_kernel
def filter_each_axis(
    values: Array64, lags: Lags, mask: Triple, power: float, out: Array, first: int, end: int
) -> None:
    """Set planes [first, end) of `out` to values filtered along each axis, the mean of these.

    values : [Z, Y, X]; lags : voxels from one to the next, 0 along an axis that is left out, which
    not all are; mask : their weights; power : by which squares are divided, 0 where none are taken;
    out : [Z - 2 lag, Y - 2 lag, X - 2 lag].
    """
    lz, ly, lx = lags
    ways = (lz > 0) + (ly > 0) + (lx > 0)
    columns = out.shape[2]
    end_x = lx + columns
    row = np.empty(columns)
    for z in range(first, end):
        for y in range(out.shape[1]):
            row[:] = 0.0
            line = values[z + lz, y + ly]
            middle = line[lx:end_x]
            if lz:
                a, c = values[z, y + ly, lx:end_x], values[z + 2 * lz, y + ly, lx:end_x]
                _add_filtered(mask, power, a, middle, c, row)
            if ly:
                a, c = values[z + lz, y, lx:end_x], values[z + lz, y + 2 * ly, lx:end_x]
                _add_filtered(mask, power, a, middle, c, row)
            if lx:
                _add_filtered(mask, power, line[:columns], middle, line[2 * lx :], row)
            for x in range(columns):
                out[z, y, x] = row[x] / ways


@exact_kernel
def filter_all_axes(
    values: Array64, lags: Lags, mask: Triple, out: Array, first: int, end: int
) -> None:
    """Set planes [first, end) of `out` to values filtered along z, then along y, then along x.

    As for `filter_each_axis`.
    """
    lz, ly, lx = lags
    height, width = values.shape[1:]
    _, rows, columns = out.shape
    plane, row = np.empty((height, width)), np.empty(width)
    for z in range(first, end):
        for y in range(height):
            for x in range(width):
                value = values[z, y, x]
                if lz:
                    middle, after = values[z + lz, y, x], values[z + 2 * lz, y, x]
                    value = mask[0] * value + mask[1] * middle + mask[2] * after
                plane[y, x] = value
        for y in range(rows):
            for x in range(width):
                value = plane[y, x]
                if ly:
                    middle, after = plane[y + ly, x], plane[y + 2 * ly, x]
                    value = mask[0] * value + mask[1] * middle + mask[2] * after
                row[x] = value
            for x in range(columns):
                value = row[x]
                if lx:
                    value = mask[0] * value + mask[1] * row[x + lx] + mask[2] * row[x + 2 * lx]
                out[z, y, x] = value


@fast_kernel
def sum_squares_and_boxes(
    residual: Array, fitted: Array, box: Lags, squares: Array64, light: Array64,
    first: int, end: int,
) -> None:  # fmt: skip
    """Set planes [first, end) of `squares` [Z] and `light` [Z, boxes along y, boxes along x].

    To the sum of the squared residual, and to those of what is fitted in each box of so many voxels
    along z, y and x.
    """
    _, rows, columns = box
    height, width = fitted.shape[1:]
    for z in range(first, end):
        total = 0.0
        light[z] = 0.0
        for y in range(height):
            line, left = fitted[z, y], residual[z, y]
            for x in range(width):
                value = np.float64(left[x])
                total += value * value
            for n in range(light.shape[2]):
                bright = 0.0
                for x in range(n * columns, min((n + 1) * columns, width)):
                    bright += np.float64(line[x])
                light[z, y // rows, n] += bright
        squares[z] = total
