"""Numba kernel that bounds a cubic B-spline from above, in cells of half a voxel or a voxel.

A polynomial lies below the largest of its Bezier points. Those of a half of a cell are much nearer
to it than the spline's own coefficients, which overshoot noise several times: on a noisy stack
they leave one in fifteen samples of a ray to be interpolated where coefficients leave nearly all.
Those of whole cells leave two or three times as many, and are found in a tenth of the time.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_gaussfit._kernels.cpu.jit import fast_kernel, inlined
from napari_gaussfit._kernels.shared.gaussian import HALF, TWO, ZERO, Array, F

Codes = NDArray[np.uint8]

LOWEST = F(-1e30)
SIXTH, THIRD = F(1.0 / 6.0), F(1.0 / 3.0)

# Bezier points of a cell, from the four coefficients around it; and of both its halves, the middle
# one shared.
WHOLE = (np.array([[1, 4, 1, 0], [0, 4, 2, 0], [0, 2, 4, 0], [0, 1, 4, 1]]) / 6).astype(np.float32)
_LEFT = np.array([[8, 0, 0, 0], [4, 4, 0, 0], [2, 4, 2, 0], [1, 3, 3, 1]], np.float32) / F(8)
HALVES = np.concatenate([_LEFT @ WHOLE, (_LEFT[::-1, ::-1] @ WHOLE)[1:]])


@inlined
def _mix(point: Array, r0: Array, r1: Array, r2: Array, r3: Array, mixed: Array) -> None:
    """Set `mixed` [X] to a Bezier point, of weights [4], between rows [X] of coefficients."""
    w0, w1, w2, w3 = point
    for x in range(mixed.shape[0]):
        mixed[x] = w0 * r0[x] + w1 * r1[x] + w2 * r2[x] + w3 * r3[x]


@inlined
def _raise(row: Array, bounds: Array) -> None:
    """Raise the bounds of cells [X] to the Bezier points of a row of coefficients."""
    for x in range(bounds.shape[0]):
        r0, r1, r2, r3 = row[x], row[x + 1], row[x + 2], row[x + 3]
        p0, p3 = SIXTH * (r0 + F(4.0) * r1 + r2), SIXTH * (r1 + F(4.0) * r2 + r3)
        p1, p2 = THIRD * (TWO * r1 + r2), THIRD * (r1 + TWO * r2)
        bounds[x] = max(bounds[x], p0, p1, p2, p3)


@inlined
def _raise_halves(row: Array, left: Array, right: Array) -> None:
    """Raise the bounds of cells' halves [X] to the Bezier points of a row of coefficients."""
    for x in range(left.shape[0]):
        r0, r1, r2, r3 = row[x], row[x + 1], row[x + 2], row[x + 3]
        p0, p3 = SIXTH * (r0 + F(4.0) * r1 + r2), SIXTH * (r1 + F(4.0) * r2 + r3)
        p1, p2 = THIRD * (TWO * r1 + r2), THIRD * (r1 + TWO * r2)
        h = HALF * (p1 + p2)
        l1, l5 = HALF * (p0 + p1), HALF * (p2 + p3)
        l2, l4 = HALF * (l1 + h), HALF * (h + l5)
        middle = HALF * (l2 + l4)
        left[x] = max(left[x], p0, l1, l2, middle)
        right[x] = max(right[x], middle, l4, l5, p3)


@inlined
def _code(bound: F, low: F, scale: F, table: Codes) -> np.uint8:
    entry = min(max((bound - low) * scale, ZERO), F(table.shape[0] - 1))
    code: np.uint8 = table[np.uintp(int(entry))]
    return code


@fast_kernel
def bound_planes(
    coefficients: Array, low: F, scale: F, table: Codes, codes: Codes, first: int, end: int
) -> None:
    """Set what belongs to planes [first, end) of cells to codes of bounds.

    coefficients : [Z + 3, Y + 3, X + 3] for [Z, Y, X] cells.
    table : codes of bounds; that of b is entry (b - low) * scale, or the first or the last.
    codes : [n Z, n Y, n X], with n = 1 or 2 entries a cell and axis.
    """
    rows, width = coefficients.shape[1], coefficients.shape[2]
    parts = 2 if codes.shape[2] > width - 3 else 1
    points = HALVES if parts == 2 else WHOLE
    planes = np.empty((len(points), rows, width), np.float32)
    row = np.empty(width, np.float32)
    bounds = np.empty((parts, width - 3), np.float32)
    for z in range(first, end):
        for a in range(len(points)):
            for y in range(rows):
                r0, r1 = coefficients[z, y], coefficients[z + 1, y]
                r2, r3 = coefficients[z + 2, y], coefficients[z + 3, y]
                _mix(points[a], r0, r1, r2, r3, planes[a, y])
        for y in range(rows - 3):
            for part in range(parts * parts):
                sz, sy = part // parts, part % parts
                bounds[:] = LOWEST
                for a in range(3 * sz, 3 * sz + 4):
                    r0, r1 = planes[a, y], planes[a, y + 1]
                    r2, r3 = planes[a, y + 2], planes[a, y + 3]
                    for b in range(3 * sy, 3 * sy + 4):
                        _mix(points[b], r0, r1, r2, r3, row)
                        if parts == 2:
                            _raise_halves(row, bounds[0], bounds[1])
                        else:
                            _raise(row, bounds[0])
                line = codes[parts * z + sz, parts * y + sy]
                for x in range(width - 3):
                    for n in range(parts):
                        line[parts * x + n] = _code(bounds[n, x], low, scale, table)
