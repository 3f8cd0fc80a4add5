"""Numba kernels along the rays of a view: their ends, footprints, residuals, gradients.

And Gaussians' own profiles, of which the soft MIP and the line integral are made. See `footprint`
for how a Gaussian lies on the rays, and for the symbols; `cpu.mip_kernels` finds the maximum of f.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from napari_gaussfit._kernels.cpu.jit import (
    CHUNK,
    WIDTH,
    exact_kernel,
    fast_kernel,
    filled,
    inlined,
    load,
    ramp,
    total,
)
from napari_gaussfit._kernels.shared.footprint import (
    COLUMN,
    DEPTH,
    FIRST_ROW,
    HEIGHT,
    LAST_ROW,
    PIXEL_U,
    PIXEL_V,
    RAY,
    RAY_U,
    RAY_V,
    ROW,
    column_ends,
    dot,
    footprint,
)
from napari_gaussfit._kernels.shared.gaussian import (
    MOMENTS,
    NO_MOMENTS,
    ONE,
    ZERO,
    Array,
    F,
    Vector,
    exp2_negative,
    with_point,
)
from napari_gaussfit._kernels.shared.profile import (
    blend_slope,
    blended,
    highest,
    integrated,
    line_moments,
    profile,
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


# What the soft MIP keeps of each pixel: a `Blend`, whose VALUE is the pixel's in the end.
TOP, TOTAL, VALUE, TOUCHED, BLEND = 0, 1, 2, 3, 4


@inlined
def add_peak(blend: Array, i: int, j: int, peak: F, times: F, sharpness: F) -> None:
    """Add a peak, so many times, to a pixel's softmax."""
    before = blend[TOP, i, j], blend[TOTAL, i, j], blend[VALUE, i, j], blend[TOUCHED, i, j]
    top, total, value, touched = blended(before, peak, times, sharpness)
    blend[TOP, i, j], blend[TOTAL, i, j] = top, total
    blend[VALUE, i, j], blend[TOUCHED, i, j] = value, touched


@exact_kernel
def blend_strip(
    g: Array, first_row: int, end_row: int, near: Array, far: Array, sharpness: F, blend: Array
) -> None:
    """Set rows [first_row, end_row) of `blend` [BLEND, H, W] to the soft MIP of K Gaussians.

    `sharpness` is log2(e) / tau. A Gaussian that does not touch a ray has the peak 0 there.
    """
    rows, width = blend.shape[1], blend.shape[2]
    count = g.shape[0]
    blend[:, first_row:end_row] = ZERO
    for k in range(count):
        top_row = max(first_row, int(g[k, FIRST_ROW]))
        for i in range(top_row, min(end_row - 1, int(g[k, LAST_ROW]), rows - 1) + 1):
            first, last = columns(g, k, F(i) - g[k, ROW], width)
            for j in range(first, last + 1):
                e, _ = highest(g, k, i, j, near[i, j], far[i, j])
                add_peak(blend, i, j, g[k, HEIGHT] * e, ONE, sharpness)
    for i in range(first_row, end_row):
        for j in range(width):
            rest = F(count) - blend[TOUCHED, i, j]
            if rest > ZERO:
                add_peak(blend, i, j, ZERO, rest, sharpness)
            if count > 0:
                blend[VALUE, i, j] /= blend[TOTAL, i, j]


@exact_kernel
def gather_blend_moments(
    g: Array,
    blend: Array,
    near: Array,
    far: Array,
    sharpness: F,
    weights: Array,
    moments: Array,
    first: int,
    end: int,
) -> None:
    """Set rows [first, end) of `moments` [K, 10] to the sums that `unpack_gradient` wants.

    With v the pixel's value and w_k a Gaussian's share in it, dv/dp_k = w_k (1 + (p_k - v) / tau);
    by the envelope theorem the derivative of p_k is that at its highest point held fixed.
    weights : [H, W], derivative of the loss by each pixel.
    """
    width = blend.shape[2]
    for k in range(first, end):
        s = NO_MOMENTS
        for i in range(int(g[k, FIRST_ROW]), int(g[k, LAST_ROW]) + 1):
            left, right = columns(g, k, F(i) - g[k, ROW], width)
            for j in range(left, right + 1):
                e, u = highest(g, k, i, j, near[i, j], far[i, j])
                peak = g[k, HEIGHT] * e
                slope = blend_slope(
                    peak, blend[TOP, i, j], blend[TOTAL, i, j], blend[VALUE, i, j], sharpness
                )
                s = with_point(s, weights[i, j] * slope * e, u[0], u[1], u[2])
        for m in range(MOMENTS):
            moments[k, m] = s[m]


@exact_kernel
def integrate_strip(
    g: Array, first_row: int, end_row: int, near: Array, far: Array, values: Array
) -> None:
    """Set rows [first_row, end_row) of `values` [H, W] to the integral of f over t."""
    width = values.shape[1]
    values[first_row:end_row] = ZERO
    for k in range(g.shape[0]):
        top_row = max(first_row, int(g[k, FIRST_ROW]))
        for i in range(top_row, min(end_row - 1, int(g[k, LAST_ROW])) + 1):
            first, last = columns(g, k, F(i) - g[k, ROW], width)
            for j in range(first, last + 1):
                c, _, a, peak = profile(g, k, i, j)
                j0, _, _ = line_moments(dot(c, c), a, near[i, j] - peak, far[i, j] - peak)
                values[i, j] += g[k, HEIGHT] * j0


@exact_kernel
def gather_line_moments(
    g: Array, near: Array, far: Array, weights: Array, moments: Array, first: int, end: int
) -> None:
    """Set rows [first, end) of `moments` [K, 10] to the sums that `unpack_gradient` wants.

    Here they are integrals over t as well, of u = c + x d and of u u^T.
    weights : [H, W], derivative of the loss by each pixel.
    """
    width = weights.shape[1]
    for k in range(first, end):
        s = NO_MOMENTS
        for i in range(int(g[k, FIRST_ROW]), int(g[k, LAST_ROW]) + 1):
            left, right = columns(g, k, F(i) - g[k, ROW], width)
            for j in range(left, right + 1):
                c, d, a, peak = profile(g, k, i, j)
                j0, j1, j2 = line_moments(dot(c, c), a, near[i, j] - peak, far[i, j] - peak)
                w = weights[i, j]
                s = integrated(s, c, d, w * j0, w * j1, w * j2)
        for m in range(MOMENTS):
            moments[k, m] = s[m]
