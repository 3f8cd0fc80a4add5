"""Numba kernels of a matched filter: what one more Gaussian would win, voxel by voxel.

A filter is a product of three symmetric ones, along z, y and x. Each plane is filtered in rows
that stay in the first-level cache; beyond the volume's faces there is nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_gaussfit._kernels.cpu.jit import exact_kernel, fast_kernel, inlined
from napari_gaussfit._kernels.cpu.simd import WIDTH, add_to, filled, load
from napari_gaussfit._kernels.shared.gaussian import ZERO, Array

Filter = tuple[Array, Array, Array]


@inlined
def _add(weight: np.float32, source: Array, row: Array) -> None:
    for x in range(len(row)):
        row[x] += weight * source[x]


@inlined
def _filter_plane(residual: Array, z: int, along_z: Array, ry: int, plane: Array) -> None:
    """Set rows of `plane`, from row `ry` on, to plane z of what is filtered along z."""
    depth, rows, columns = residual.shape
    rz = len(along_z) // 2
    for y in range(rows):
        row = plane[ry + y, :columns]
        row[:] = ZERO
        for other in range(max(0, z - rz), min(depth, z + rz + 1)):
            _add(along_z[other - z + rz], residual[other, y], row)


@inlined
def _filter_row(
    plane: Array, y: int, along_y: Array, along_x: Array, padded: Array, row: Array
) -> None:
    """Set `row` to row y of a plane filtered along y and x; `padded` is working memory.

    A sum stays in a register until it is complete.
    """
    rx = len(along_x) // 2
    padded[:] = ZERO
    for x in range(0, len(row), WIDTH):
        total = filled(ZERO)
        for n in range(len(along_y)):
            total = total + along_y[n] * load(plane, (y + n, x))
        add_to(padded, (rx + x,), total)
    row[:] = ZERO
    for x in range(0, len(row), WIDTH):
        total = filled(ZERO)
        for n in range(len(along_x)):
            total = total + along_x[n] * load(padded, (x + n,))
        add_to(row, (x,), total)


@fast_kernel
def match_planes(
    residual: Array,
    filters: tuple[Filter, ...],
    worths: Array,
    gains: Array,
    shapes: NDArray[np.uint8],
    first: int,
    end: int,
) -> None:
    """Set `gains` [Z, Y, X] on planes [first, end) to what the best filter wins, `shapes` to which.

    residual : [Z, Y, X]; filters : along z, y and x, each of odd length; worths : of the square of
    what each has filtered. Where none wins anything, `shapes` is 0.
    """
    rows, columns = residual.shape[1], residual.shape[2]
    width = -(-columns // WIDTH) * WIDTH
    row = np.empty(width, np.float32)
    gains[first:end], shapes[first:end] = ZERO, 0
    for z in range(first, end):
        for index in range(len(filters)):
            along_z, along_y, along_x = filters[index]
            worth, ry = worths[index], len(along_y) // 2
            # Nothing beyond the faces: what is filtered there stays 0.
            plane = np.zeros((rows + 2 * ry, width), np.float32)
            padded = np.empty(width + len(along_x), np.float32)
            _filter_plane(residual, z, along_z, ry, plane)
            for y in range(rows):
                _filter_row(plane, y, along_y, along_x, padded, row)
                best, which = gains[z, y], shapes[z, y]
                for x in range(columns):
                    gain = worth * max(row[x], ZERO) ** 2
                    more = gain > best[x]
                    best[x] = gain if more else best[x]
                    which[x] = index if more else which[x]


@exact_kernel
def mark_maxima(
    gains: Array, reach: tuple[int, int, int], top: NDArray[np.bool_], first: int, end: int
) -> None:
    """Set `top` [Z, Y, X] on planes [first, end) to where no gain within reach is larger."""
    depth, rows, columns = gains.shape
    rz, ry, rx = reach
    padded = np.zeros(columns + 2 * rx, np.float32)
    largest = padded[rx : rx + columns]
    for z in range(first, end):
        for y in range(rows):
            largest[:] = ZERO
            for plane in range(max(0, z - rz), min(depth, z + rz + 1)):
                for line in range(max(0, y - ry), min(rows, y + ry + 1)):
                    other = gains[plane, line]
                    for x in range(columns):
                        largest[x] = max(largest[x], other[x])
            row, marks = gains[z, y], top[z, y]
            for x in range(columns):
                beside = ZERO
                for n in range(2 * rx + 1):
                    beside = max(beside, padded[x + n])
                marks[x] = (row[x] > ZERO) & (row[x] >= beside)
