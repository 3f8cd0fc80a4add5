"""Numba kernels that turn a stack into the coefficients of its cubic B-spline, in place.

Along each axis a filter runs forth and back, mirrored at the outer voxel centres (Unser, "Splines:
a perfect fit for signal and image processing", 1999). SciPy's, line by line in double precision,
takes several times as long.
"""

from __future__ import annotations

import math

import numpy as np

from napari_gaussfit._kernels.cpu.jit import fast_kernel, inlined
from napari_gaussfit._kernels.shared.gaussian import ONE, ZERO, Array, F
from napari_gaussfit._kernels.shared.spline import MARGIN

POLE = F(math.sqrt(3.0) - 2.0)
GAIN = F(6.0)
TURN = GAIN * POLE / (POLE * POLE - ONE)
HORIZON = 14  # voxels that the filter's first value looks at: POLE^14 is 1e-8


@inlined
def _mirrored(n: int, size: int) -> int:
    """Return which of `size` voxels, 2 or more, lies at n from the first on."""
    n %= 2 * size - 2
    return min(n, 2 * size - 2 - n)


@inlined
def _row(c: Array, axis: int, line: int, n: int) -> Array:
    """Return row n along an axis, 0 or 1, of those that lie at `line` along the other."""
    z, y = (n, line) if axis == 0 else (line, n)
    return c[z + MARGIN, y + MARGIN, MARGIN:-MARGIN]


@fast_kernel
def filter_rows(c: Array, axis: int, first: int, end: int) -> None:
    """Filter along z or y (axis 0 or 1) what lies at [first, end) along the other.

    c : [Z + 4, Y + 4, X + 4], with `MARGIN` more on every side, which is left alone.
    """
    size = c.shape[axis] - 2 * MARGIN
    begin = np.empty(c.shape[2] - 2 * MARGIN, np.float32)
    for line in range(first, end):
        begin[:] = ZERO
        weight = ONE
        for n in range(HORIZON):
            row = _row(c, axis, line, _mirrored(n, size))
            for x in range(len(begin)):
                begin[x] += weight * row[x]
            weight *= POLE
        before = _row(c, axis, line, 0)
        before[:] = begin
        for n in range(1, size):
            row = _row(c, axis, line, n)
            for x in range(len(row)):
                row[x] += POLE * before[x]
            before = row
        after, before = _row(c, axis, line, size - 1), _row(c, axis, line, size - 2)
        for x in range(len(after)):
            after[x] = TURN * (after[x] + POLE * before[x])
        for n in range(size - 2, -1, -1):
            row = _row(c, axis, line, n)
            for x in range(len(row)):
                row[x] = POLE * (after[x] - GAIN * row[x])
            after = row


@fast_kernel
def filter_columns(c: Array, first: int, end: int) -> None:
    """Filter planes [first, end) along x; see `filter_rows`."""
    size = c.shape[2] - 2 * MARGIN
    for z in range(first, end):
        for y in range(c.shape[1] - 2 * MARGIN):
            row = c[z + MARGIN, y + MARGIN, MARGIN:-MARGIN]
            begin, weight = ZERO, ONE
            for n in range(HORIZON):
                begin += weight * row[_mirrored(n, size)]
                weight *= POLE
            row[0] = begin
            for x in range(1, size):
                row[x] += POLE * row[x - 1]
            row[size - 1] = TURN * (row[size - 1] + POLE * row[size - 2])
            for x in range(size - 2, -1, -1):
                row[x] = POLE * (row[x + 1] - GAIN * row[x])
