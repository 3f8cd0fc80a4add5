"""Numba kernels of a relocation: what one more Gaussian would win, and what one less would cost.

A matched filter tells the first, voxel by voxel. It is a product of three symmetric filters, along
z, y and x. Each plane is filtered in rows that stay in the first-level cache; beyond the volume's
faces there is nothing.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from napari_gaussfit._kernels.cpu.jit import (
    WIDTH,
    add_to,
    exact_kernel,
    fast_kernel,
    filled,
    inlined,
    load,
)
from napari_gaussfit._kernels.shared.gaussian import DAMPING, ZERO, Array, Array64, overlap

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


@exact_kernel
def removal_costs(
    mu: Array64,
    sigma: Array64,
    volume: Array64,
    neighbours: NDArray[np.int64],
    costs: Array64,
    shares: Array64,
    first: int,
    end: int,
) -> None:
    """Set rows [first, end) of `costs` [K] and `shares` [K, M].

    A cost is the integral of (g_k - sum_n shares[k, n] g_n)^2 over (2 pi)^(3/2), least by the
    choice of the shares, n over the row of `neighbours` [K, M].

    mu : [K, 3]; sigma : [K, 6], the triangle 00, 10, 11, 20, 21, 22; volume : [K], det L.
    """
    count = neighbours.shape[1]
    gram = np.empty((count, count))
    beside, y = np.empty(count), np.empty(count)
    for k in range(first, end):
        for m in range(count):
            i = neighbours[k, m]
            beside[m] = overlap(mu, sigma, volume, k, i)
            for n in range(m + 1):
                gram[m, n] = overlap(mu, sigma, volume, i, neighbours[k, n])
            gram[m, m] *= 1.0 + DAMPING
        # Cholesky's factor in place, then the two triangular solutions.
        for m in range(count):
            for n in range(m + 1):
                s = gram[m, n]
                for p in range(n):
                    s -= gram[m, p] * gram[n, p]
                if m == n:
                    gram[m, m] = math.sqrt(max(s, DAMPING * DAMPING * gram[m, m]))
                else:
                    gram[m, n] = s / gram[n, n]
        explained = 0.0
        for m in range(count):
            s = beside[m]
            for p in range(m):
                s -= gram[m, p] * y[p]
            y[m] = s / gram[m, m]
            explained += y[m] * y[m]
        for m in range(count - 1, -1, -1):
            s = y[m]
            for p in range(m + 1, count):
                s -= gram[p, m] * shares[k, p]
            shares[k, m] = s / gram[m, m]
        costs[k] = max(overlap(mu, sigma, volume, k, k) - explained, 0.0)
