"""Numba kernels of a matched filter: what one more Gaussian would win, voxel by voxel.

A filter is a product of three symmetric ones, along z, y and x. Each plane is filtered in rows
that stay in the first-level cache; beyond the volume's faces there is nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_gaussfit._kernels.arithmetic import ZERO, Array
from napari_gaussfit._kernels.compiled import njit


@njit(inline="always")
def _add(weight: np.float32, source: Array, row: Array) -> None:
    for x in range(len(row)):
        row[x] += weight * source[x]


@njit(nogil=True, fastmath=True, error_model="numpy", cache=True)
def match_planes(
    residual: Array,
    filters: tuple[Array, Array, Array],
    worth: np.float32,
    index: int,
    gains: Array,
    shapes: NDArray[np.uint8],
    first: int,
    end: int,
) -> None:
    """Raise `gains` [Z, Y, X] on planes [first, end) where this filter wins more, and say so.

    residual : [Z, Y, X]; filters : along z, y and x, each of odd length; worth : of the square of
    what is filtered; shapes : [Z, Y, X], the `index` of the filter that wins most.
    """
    depth, rows, columns = residual.shape
    along_z, along_y, along_x = filters
    rz, ry, rx = len(along_z) // 2, len(along_y) // 2, len(along_x) // 2
    plane = np.empty((rows, columns), np.float32)
    padded = np.zeros(columns + 2 * rx, np.float32)
    row = np.empty(columns, np.float32)
    for z in range(first, end):
        for y in range(rows):
            plane[y] = ZERO
            for other in range(max(0, z - rz), min(depth, z + rz + 1)):
                _add(along_z[other - z + rz], residual[other, y], plane[y])
        for y in range(rows):
            inner = padded[rx : rx + columns]
            inner[:] = ZERO
            for other in range(max(0, y - ry), min(rows, y + ry + 1)):
                _add(along_y[other - y + ry], plane[other], inner)
            row[:] = ZERO
            for n in range(len(along_x)):
                _add(along_x[n], padded[n : n + columns], row)
            best, which = gains[z, y], shapes[z, y]
            for x in range(columns):
                gain = worth * max(row[x], ZERO) ** 2
                if gain > best[x]:
                    best[x] = gain
                    which[x] = index


@njit(nogil=True, error_model="numpy", cache=True)
def mark_maxima(
    gains: Array, reach: tuple[int, int, int], top: NDArray[np.bool_], first: int, end: int
) -> None:
    """Set `top` [Z, Y, X] on planes [first, end) to where no gain within reach is larger."""
    depth, rows, columns = gains.shape
    rz, ry, rx = reach
    for z in range(first, end):
        for y in range(rows):
            for x in range(columns):
                top[z, y, x] = gains[z, y, x] > ZERO and not _is_beaten(
                    gains,
                    gains[z, y, x],
                    (max(0, z - rz), min(depth, z + rz + 1)),
                    (max(0, y - ry), min(rows, y + ry + 1)),
                    (max(0, x - rx), min(columns, x + rx + 1)),
                )


@njit(nogil=True, error_model="numpy", cache=True)
def _is_beaten(
    gains: Array,
    gain: np.float32,
    planes: tuple[int, int],
    rows: tuple[int, int],
    columns: tuple[int, int],
) -> bool:
    for z in range(planes[0], planes[1]):
        for y in range(rows[0], rows[1]):
            for x in range(columns[0], columns[1]):
                if gains[z, y, x] > gain:
                    return True
    return False
