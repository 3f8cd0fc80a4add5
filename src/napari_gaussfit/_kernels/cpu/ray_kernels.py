"""Numba kernels along the rays of a view: their ends, footprints, residuals, gradients.

See `footprint` for how a Gaussian lies on the rays, and for the symbols.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from napari_gaussfit._kernels.cpu.jit import exact_kernel, fast_kernel, inlined
from napari_gaussfit._kernels.cpu.simd import CHUNK, WIDTH, filled, load, ramp, total
from napari_gaussfit._kernels.shared.footprint import (
    COLUMN,
    DEPTH,
    FIRST_ROW,
    LAST_ROW,
    PIXEL_U,
    PIXEL_V,
    RAY,
    RAY_U,
    RAY_V,
    ROW,
    column_ends,
    footprint,
)
from napari_gaussfit._kernels.shared.gaussian import (
    MOMENTS,
    ZERO,
    Array,
    F,
    Vector,
    exp2_negative,
    with_point,
)

Exact = NDArray[np.float64]

PARALLEL = 1e-12  # slower than this along an axis, a ray never crosses that axis's faces


@exact_kernel
def clip_rows(
    frame: Exact,
    lower: Array,
    upper: Array,
    nearest: float,
    near: Array,
    far: Array,
    first: int,
    end: int,
) -> None:
    """Set rows [first, end) of `near` and `far` [H, W]; both are 0 where a ray misses the box.

    frame : [6, 3] as `Rays.frame`.
    nearest : smallest t that a ray may have.
    """
    for i in range(first, end):
        for j in range(near.shape[1]):
            enters, leaves = nearest, math.inf
            for axis in range(3):
                origin = frame[0, axis] + i * frame[1, axis] + j * frame[2, axis]
                direction = frame[3, axis] + i * frame[4, axis] + j * frame[5, axis]
                if abs(direction) < PARALLEL:
                    if origin < lower[axis] or origin > upper[axis]:
                        enters = math.inf
                    continue
                one, other = (lower[axis] - origin) / direction, (upper[axis] - origin) / direction
                enters, leaves = max(enters, min(one, other)), min(leaves, max(one, other))
            hit = enters < leaves
            near[i, j] = np.float32(enters if hit else 0.0)
            far[i, j] = np.float32(leaves if hit else 0.0)


@fast_kernel
def footprints(
    packed: Array,
    frame: Array,
    solve: Array,
    perspective: bool,
    rows: int,
    out: Array,
    first: int,
    end: int,
) -> None:
    """Fill rows [first, end) of `out` [K, FOOTPRINT]; see `footprint`."""
    for k in range(first, end):
        footprint(packed, k, frame, solve, perspective, rows, out)


@inlined
def columns(g: Array, k: int, p: F, width: int) -> tuple[int, int]:
    """First and last column of a row that a footprint touches (last < first when none)."""
    first, last = column_ends(g, k, p, width)
    # Held to the row once more, as integers: nothing is written outside of it, whatever they were.
    return max(0, int(first)), min(width - 1, int(last))


@inlined
def three(g: Array, k: int, first: int) -> Vector:
    """Return the vector that begins at entry `first` of row k."""
    return g[k, first], g[k, first + 1], g[k, first + 2]


@inlined
def _at_row(g: Array, k: int, p: F, first: int, c0: F, c1: F, c2: F) -> Vector:
    """Return c + p times the vector that begins at entry `first` of footprint k."""
    return c0 + p * g[k, first], c1 + p * g[k, first + 1], c2 + p * g[k, first + 2]


@fast_kernel
def subtract(
    peak: Array,
    target: Array,
    offset: F,
    near: Array,
    far: Array,
    squares: NDArray[np.float64],
    first: int,
    end: int,
) -> None:
    """Turn rows [first, end) of `peak` into ``peak + offset - target``, 0 where rays miss the box.

    target : [H, width]; near, far, peak : [H, width + CHUNK].
    squares : [H], each row's sum of squares, to be set.
    """
    width = target.shape[1]
    for i in range(first, end):
        total = ZERO
        for j in range(width):
            difference = peak[i, j] + offset - target[i, j]
            peak[i, j] = difference if near[i, j] < far[i, j] else ZERO
            total += peak[i, j] * peak[i, j]
        peak[i, width:] = ZERO
        squares[i] = total


@fast_kernel
def gather_moments(
    g: Array, depth: Array, weights: Array, moments: Array, first: int, end: int
) -> None:
    """Set rows [first, end) of `moments` to the sums that `unpack_gradient` wants.

    weights : [H, width + CHUNK], derivative of the loss by each pixel, padded with zeros.
    """
    width = depth.shape[1] - CHUNK
    none = filled(ZERO)
    for k in range(first, end):
        sums = (none, none, none, none, none, none, none, none, none, none)
        a0, a1, a2 = three(g, k, PIXEL_U)
        c0, c1, c2 = three(g, k, RAY)
        e0, e1, e2 = three(g, k, RAY_U)
        t = g[k, DEPTH]
        for i in range(int(g[k, FIRST_ROW]), int(g[k, LAST_ROW]) + 1):
            p = F(i) - g[k, ROW]
            j0, j1 = columns(g, k, p, width)
            b0, b1, b2 = _at_row(g, k, p, PIXEL_V, ZERO, ZERO, ZERO)
            d0, d1, d2 = _at_row(g, k, p, RAY_V, c0, c1, c2)
            for j in range(j0, j1 + 1, WIDTH):
                q = F(j) - g[k, COLUMN] + ramp()
                along = load(depth, (i, j)) - t
                u0 = b0 + q * a0 + along * (d0 + q * e0)
                u1 = b1 + q * a1 + along * (d1 + q * e1)
                u2 = b2 + q * a2 + along * (d2 + q * e2)
                e = exp2_negative(-(u0 * u0 + u1 * u1 + u2 * u2))
                sums = with_point(sums, load(weights, (i, j)) * e, u0, u1, u2)
        for m in range(MOMENTS):
            moments[k, m] = total(sums[m])
