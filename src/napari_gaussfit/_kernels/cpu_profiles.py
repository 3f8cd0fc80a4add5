"""Numba kernels of the Gaussians' own profiles along rays: soft MIP and line integral.

Along a ray, |u|^2 of one Gaussian is |c|^2 + A x^2, with x = s - s* the distance in t from its
peak, c the value of u there, perpendicular to d, and A = |d|^2 (see cpu_rays for u, d, s). No
Gaussian needs to know of another's, so that no search is needed.
"""

from __future__ import annotations

import math

from numba import njit
from numba.extending import register_jitable

from napari_gaussfit._kernels.arithmetic import (
    HALF,
    ONE,
    ZERO,
    Array,
    F,
    Vector,
    exp2_negative,
)
from napari_gaussfit._kernels.cpu_rays import (
    COLUMN,
    DEPTH,
    FIRST_ROW,
    HEIGHT,
    LAST_ROW,
    LN2,
    PIXEL_U,
    PIXEL_V,
    RAY,
    RAY_U,
    RAY_V,
    ROW,
    columns,
    dot,
)

# What the soft MIP keeps of each pixel: the largest peak, the sum of exp((peak - top) / tau),
# that sum weighted by the peaks (in the end: the value), and the number of Gaussians in them.
TOP, TOTAL, VALUE, TOUCHED, BLEND = 0, 1, 2, 3, 4

HALF_ROOT_PI = F(0.5 * math.sqrt(math.pi))
# Below this many sigma / sqrt(2) the closed form loses its digits to cancellation, while four
# nodes (Gauss and Legendre's) are exact to 2e-7.
SHORTEST = F(0.25)
NODES = (F(-0.8611363116), F(-0.3399810436), F(0.3399810436), F(0.8611363116))
NODE_WEIGHTS = (F(0.3478548451), F(0.6521451549), F(0.6521451549), F(0.3478548451))
FARTHEST = F(6.0)  # erfc(6) = 2e-17: farther out it would reach the denormals


@register_jitable(inline="always")
def along(vector: Vector, direction: Vector, x: F) -> Vector:
    """Return vector + x direction."""
    return (
        vector[0] + x * direction[0],
        vector[1] + x * direction[1],
        vector[2] + x * direction[2],
    )


@register_jitable(inline="always")
def profile(g: Array, k: int, i: int, j: int) -> tuple[Vector, Vector, F, F]:
    """Return c, d, A and t at the peak of footprint k on the ray of pixel (i, j)."""
    p, q = F(i) - g[k, ROW], F(j) - g[k, COLUMN]
    u = (
        p * g[k, PIXEL_V] + q * g[k, PIXEL_U],
        p * g[k, PIXEL_V + 1] + q * g[k, PIXEL_U + 1],
        p * g[k, PIXEL_V + 2] + q * g[k, PIXEL_U + 2],
    )
    d = (
        g[k, RAY] + p * g[k, RAY_V] + q * g[k, RAY_U],
        g[k, RAY + 1] + p * g[k, RAY_V + 1] + q * g[k, RAY_U + 1],
        g[k, RAY + 2] + p * g[k, RAY_V + 2] + q * g[k, RAY_U + 2],
    )
    a = dot(d, d)
    s = -dot(u, d) / a
    return along(u, d, s), d, a, g[k, DEPTH] + s


@register_jitable(inline="always")
def highest(g: Array, k: int, i: int, j: int, near: F, far: F) -> tuple[F, Vector]:
    """Return 2^(-|u|^2) and u of footprint k where it is largest between `near` and `far`."""
    c, d, _, peak = profile(g, k, i, j)
    u = along(c, d, min(max(peak, near), far) - peak)
    return exp2_negative(-dot(u, u)), u


@njit(nogil=True, error_model="numpy", cache=True)
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


@register_jitable
def add_peak(blend: Array, i: int, j: int, peak: F, times: F, sharpness: F) -> None:
    """Add a peak, so many times, to a pixel's softmax; its largest term always is 1."""
    top = blend[TOP, i, j]
    if blend[TOUCHED, i, j] == ZERO or peak > top:
        shrink = exp2_negative((top - peak) * sharpness)
        if blend[TOUCHED, i, j] == ZERO:
            shrink = ZERO
        blend[TOP, i, j] = peak
        blend[TOTAL, i, j] = blend[TOTAL, i, j] * shrink + times
        blend[VALUE, i, j] = blend[VALUE, i, j] * shrink + times * peak
    else:
        weight = times * exp2_negative((peak - top) * sharpness)
        blend[TOTAL, i, j] += weight
        blend[VALUE, i, j] += weight * peak
    blend[TOUCHED, i, j] += times


@njit(nogil=True, error_model="numpy", cache=True)
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
    """Add to rows [first, end) of `moments` [K, 10] the sums that `unpack_gradient` wants.

    With v the pixel's value and w_k a Gaussian's share in it, dv/dp_k = w_k (1 + (p_k - v) / tau);
    by the envelope theorem the derivative of p_k is that at its highest point held fixed.
    weights : [H, W], derivative of the loss by each pixel.
    """
    width = blend.shape[2]
    for k in range(first, end):
        for i in range(int(g[k, FIRST_ROW]), int(g[k, LAST_ROW]) + 1):
            left, right = columns(g, k, F(i) - g[k, ROW], width)
            for j in range(left, right + 1):
                e, u = highest(g, k, i, j, near[i, j], far[i, j])
                peak = g[k, HEIGHT] * e
                share = exp2_negative((peak - blend[TOP, i, j]) * sharpness) / blend[TOTAL, i, j]
                slope = ONE + (peak - blend[VALUE, i, j]) * sharpness * LN2
                we = weights[i, j] * share * slope * e
                moments[k, 0] += we
                for m in range(3):
                    moments[k, 1 + m] += we * u[m]
                moments[k, 4] += we * u[0] * u[0]
                moments[k, 5] += we * u[1] * u[0]
                moments[k, 6] += we * u[1] * u[1]
                moments[k, 7] += we * u[2] * u[0]
                moments[k, 8] += we * u[2] * u[1]
                moments[k, 9] += we * u[2] * u[2]


@register_jitable
def erf_difference(low: F, high: F) -> F:
    """Return erf(high) - erf(low) for low <= high, without cancellation in the tails."""
    low, high = min(max(low, -FARTHEST), FARTHEST), min(max(high, -FARTHEST), FARTHEST)
    if low > ZERO:
        return F(math.erfc(low) - math.erfc(high))
    if high < ZERO:
        return F(math.erfc(-high) - math.erfc(-low))
    return F(math.erf(high) - math.erf(low))


@register_jitable
def short_line_moments(m: F, a: F, low: F, high: F) -> tuple[F, F, F]:
    """Return what `line_moments` returns, where 2^(-a x^2) is nearly a parabola."""
    middle, half = HALF * (low + high), HALF * (high - low)
    zeroth, first, second = ZERO, ZERO, ZERO
    for n in range(4):
        x = middle + half * NODES[n]
        e = half * NODE_WEIGHTS[n] * exp2_negative(-(m + a * x * x))
        zeroth += e
        first += e * x
        second += e * x * x
    return zeroth, first, second


@register_jitable
def line_moments(m: F, a: F, low: F, high: F) -> tuple[F, F, F]:
    """Return the integrals of x^n 2^(-m - a x^2) from `low` to `high`, for n = 0, 1, 2."""
    bend = LN2 * a
    root = math.sqrt(bend)
    if root * (high - low) < SHORTEST:
        return short_line_moments(m, a, low, high)
    zeroth = exp2_negative(-m) * HALF_ROOT_PI / root * erf_difference(root * low, root * high)
    at_low, at_high = exp2_negative(-(m + a * low * low)), exp2_negative(-(m + a * high * high))
    first = (at_low - at_high) * HALF / bend
    second = (zeroth + low * at_low - high * at_high) * HALF / bend
    return zeroth, first, second


@njit(nogil=True, error_model="numpy", cache=True)
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


@njit(nogil=True, error_model="numpy", cache=True)
def gather_line_moments(
    g: Array, near: Array, far: Array, weights: Array, moments: Array, first: int, end: int
) -> None:
    """Add to rows [first, end) of `moments` [K, 10] the sums that `unpack_gradient` wants.

    Here they are integrals over t as well, of u = c + x d and of u u^T.
    weights : [H, W], derivative of the loss by each pixel.
    """
    width = weights.shape[1]
    for k in range(first, end):
        for i in range(int(g[k, FIRST_ROW]), int(g[k, LAST_ROW]) + 1):
            left, right = columns(g, k, F(i) - g[k, ROW], width)
            for j in range(left, right + 1):
                c, d, a, peak = profile(g, k, i, j)
                j0, j1, j2 = line_moments(dot(c, c), a, near[i, j] - peak, far[i, j] - peak)
                w = weights[i, j]
                j0, j1, j2 = w * j0, w * j1, w * j2
                u = (j0 * c[0] + j1 * d[0], j0 * c[1] + j1 * d[1], j0 * c[2] + j1 * d[2])
                xu = (j1 * c[0] + j2 * d[0], j1 * c[1] + j2 * d[1], j1 * c[2] + j2 * d[2])
                moments[k, 0] += j0
                for m in range(3):
                    moments[k, 1 + m] += u[m]
                moments[k, 4] += u[0] * c[0] + xu[0] * d[0]
                moments[k, 5] += u[1] * c[0] + xu[1] * d[0]
                moments[k, 6] += u[1] * c[1] + xu[1] * d[1]
                moments[k, 7] += u[2] * c[0] + xu[2] * d[0]
                moments[k, 8] += u[2] * c[1] + xu[2] * d[1]
                moments[k, 9] += u[2] * c[2] + xu[2] * d[2]
