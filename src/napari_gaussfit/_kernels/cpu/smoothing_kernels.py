"""Numba kernels of a stack that is smoothed: separable symmetric filters, means of boxes, maxima.

Each plane is filtered along y and x in rows that stay in the first-level cache, then each strip of
columns along z. Which voxel stands for one beyond a face is the caller's to say.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_gaussfit._kernels.cpu.jit import (
    WIDTH,
    exact_kernel,
    exact_part,
    fast_kernel,
    filled,
    inlined,
    load,
    store,
)
from napari_gaussfit._kernels.shared.gaussian import Array

Counts = NDArray[np.int64]
Axis = tuple[Array, Counts]
"""The filter's middle and one half [r + 1]; which of n voxels stand at -r to n - 1 + r."""

STRIP = 16 * WIDTH
"""Columns that are filtered along z together."""


@inlined
def _filter_line(line: Array, weights: Array, row: Array) -> None:
    """Set `row` to a line [r + row + r] filtered along itself. Sums stay in a register."""
    reach = len(weights) - 1
    for x in range(0, len(row), WIDTH):
        total = filled(weights[0]) * load(line, (reach + x,))
        for n in range(1, reach + 1):
            total = total + weights[n] * (
                load(line, (reach + x - n,)) + load(line, (reach + x + n,))
            )
        store(row, (x,), total)


@inlined
def _filter_across(rows: Array, axis: Axis, y: int, row: Array) -> None:
    """Set `row` to row y of `rows` filtered along their other axis."""
    weights, beyond = axis
    reach = len(weights) - 1
    for x in range(0, rows.shape[1], WIDTH):
        total = filled(weights[0]) * load(rows, (y, x))
        for n in range(1, reach + 1):
            before, after = beyond[y + reach - n], beyond[y + reach + n]
            total = total + weights[n] * (load(rows, (before, x)) + load(rows, (after, x)))
        store(row, (x,), total)


@fast_kernel
def smooth_planes(
    volume: Array, along_y: Axis, along_x: Axis, out: Array, first: int, end: int
) -> None:
    """Set planes [first, end) of `out`, which may be `volume`, to those of a volume filtered."""
    height, width = volume.shape[1:]
    weights, beyond = along_x
    reach = len(weights) - 1
    padded = -(-width // WIDTH) * WIDTH
    plane, row = np.zeros((height, padded), np.float32), np.empty(padded, np.float32)
    line = np.zeros(padded + 2 * reach, np.float32)
    for z in range(first, end):
        plane[:, :width] = volume[z]
        for y in range(height):
            _filter_across(plane, along_y, y, row)
            line[reach : reach + width] = row[:width]
            for x in range(reach):
                line[x], line[reach + width + x] = row[beyond[x]], row[beyond[reach + width + x]]
            _filter_line(line, weights, row)
            out[z, y] = row[:width]


@fast_kernel
def smooth_columns(volume: Array, along_z: Axis, first: int, end: int) -> None:
    """Filter the columns of rows [first, end) along z, in place."""
    depth, _, width = volume.shape
    rows, row = np.zeros((depth, STRIP), np.float32), np.empty(STRIP, np.float32)
    for y in range(first, end):
        for x in range(0, width, STRIP):
            own = min(STRIP, width - x)
            for z in range(depth):
                rows[z, :own] = volume[z, y, x : x + own]
            for z in range(depth):
                _filter_across(rows, along_z, z, row)
                volume[z, y, x : x + own] = row[:own]


@fast_kernel
def mean_boxes(volume: Array, bins: tuple[int, int, int], out: Array, first: int, end: int) -> None:
    """Set planes [first, end) of `out` to means of boxes; the last along a side are smaller."""
    depth, height, width = volume.shape
    for z in range(first, end):
        planes = range(z * bins[0], min((z + 1) * bins[0], depth))
        for y in range(out.shape[1]):
            lines = range(y * bins[1], min((y + 1) * bins[1], height))
            for x in range(out.shape[2]):
                last = min((x + 1) * bins[2], width)
                total = np.float32(0.0)
                for c in planes:
                    for b in lines:
                        for a in range(x * bins[2], last):
                            total += volume[c, b, a]
                out[z, y, x] = total / (len(planes) * len(lines) * (last - x * bins[2]))


@exact_part
def _is_top(volume: Array, z: int, y: int, x: int) -> bool:
    """Tell whether no neighbour is above a voxel; of equal ones the last counts."""
    own = volume[z, y, x]
    for c in range(max(z - 1, 0), min(z + 2, volume.shape[0])):
        for b in range(max(y - 1, 0), min(y + 2, volume.shape[1])):
            for a in range(max(x - 1, 0), min(x + 2, volume.shape[2])):
                other = volume[c, b, a]
                if other > own or (other == own and (c, b, a) > (z, y, x)):
                    return False
    return True


@exact_kernel
def find_maxima(volume: Array, lowest: float, first: int, end: int) -> Counts:
    """Return z, y, x [n, 3] of the maxima above `lowest` in planes [first, end), in order."""
    found = np.empty((64, 3), np.int64)
    count = 0
    last = volume.shape[2] - 1
    for z in range(first, end):
        for y in range(volume.shape[1]):
            row = volume[z, y]
            for x in range(last + 1):
                # Most voxels of a slope are seen from their own row to be no maximum.
                if not row[x] > lowest or (0 < x < last and max(row[x - 1], row[x + 1]) > row[x]):
                    continue
                if _is_top(volume, z, y, x):
                    if count == len(found):
                        more = np.empty((2 * count, 3), np.int64)
                        more[:count] = found
                        found = more
                    found[count, 0], found[count, 1], found[count, 2] = z, y, x
                    count += 1
    return found[:count]
