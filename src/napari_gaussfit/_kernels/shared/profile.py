"""One Gaussian's own profile along a ray: scalar code that CPU loops and CUDA kernels share.

Along a ray, |u|^2 of one Gaussian is |c|^2 + A x^2, with x = s - s* the distance in t from its
peak, c the value of u there, perpendicular to d, and A = |d|^2 (see footprint for u, d, s). No
Gaussian needs to know of another's, so that no search is needed.
"""

from __future__ import annotations

import math
from typing import Any

from napari_gaussfit._kernels.shared.footprint import (
    COLUMN,
    DEPTH,
    HEIGHT,
    LN2,
    PIXEL_U,
    PIXEL_V,
    RAY,
    RAY_U,
    RAY_V,
    REACH2,
    ROW,
    cross,
    dot,
    on_ray,
)
from napari_gaussfit._kernels.shared.gaussian import (
    HALF,
    ONE,
    TWO,
    ZERO,
    Array,
    F,
    Index,
    Vector,
    exp2_negative,
    square_root,
)

# A profile: all that one Gaussian's profile along any ray of a view follows from, see `profile_of`.
# Of the row before it, it keeps ROW, COLUMN; what comes after `PARALLEL` is of use to pinhole
# cameras alone. Kernels copy it by four numbers.
ACROSS_V, ACROSS_VU, ACROSS_U, LIMIT = 2, 3, 4, 5
PLACE, SHARP, SHIFT_V, SHIFT_U, PEAK, SHRINK, PARALLEL = 6, 7, 8, 9, 10, 11, 12
LENGTH_V, LENGTH_U, LENGTH_VV, LENGTH_VU, LENGTH_UU = 12, 13, 14, 15, 16
SHIFT_VV, SHIFT_VU, SHIFT_UU, PROFILE = 17, 18, 19, 20

Blend = tuple[F, F, F, F]
"""A pixel's softmax so far: the largest peak, the sum of exp((peak - top) / tau), that sum
weighted by the peaks, and the number of Gaussians in them."""

HALF_ROOT_PI = F(0.5 * math.sqrt(math.pi))
# Below this many sigma / sqrt(2) the closed form loses its digits to cancellation, while four
# nodes (Gauss and Legendre's) are exact to 2e-7.
SHORTEST = F(0.25)
NODES = (F(-0.8611363116), F(-0.3399810436), F(0.3399810436), F(0.8611363116))
NODE_WEIGHTS = (F(0.3478548451), F(0.6521451549), F(0.6521451549), F(0.3478548451))
FARTHEST = F(6.0)  # erfc(6) = 2e-17: farther out it would reach the denormals


def along(vector: Vector, direction: Vector, x: F) -> Vector:
    """Return vector + x direction."""
    return (
        vector[0] + x * direction[0],
        vector[1] + x * direction[1],
        vector[2] + x * direction[2],
    )


def profile(g: Array, k: int, i: int, j: int) -> tuple[Vector, Vector, F, F]:
    """Return c, d, A and t at the peak of footprint k on the ray of pixel (i, j)."""
    u, d = on_ray(g, k, i, j, ZERO)
    a = dot(d, d)
    s = -dot(u, d) / a
    return along(u, d, s), d, a, g[k, DEPTH] + s


def profile_of(g: Array, k: int, first: F, step: F, out: Array) -> None:
    """Fill row k of `out` [K, PROFILE] with the profile of footprint k, depths in bins.

    Bin b is at t = first + b step. On the ray of pixel (i, j), with p = i - i_c and q = j - j_c,
    f of this Gaussian is `peak` 2^(-(m + a x^2)) at x bins from its place, and nothing where the
    exponent is above `limit`; `shrink` is 2^(-2 a), of a profile no narrower than a bin. For an
    orthographic camera |c|^2 = m is a quadratic form of (p, q), kept by its Cholesky factor, whose
    squares lose no digits where the form is elongated:

        m = (p L_vv + q L_vu)^2 + (q L_uu)^2,   place = t_c + p s_v + q s_u,   a = |d_c|^2.

    For a pinhole camera |d|^2 and u . d are quadratic in (p, q) too: see `profile_on_ray`.
    """
    pv = (g[k, PIXEL_V], g[k, PIXEL_V + 1], g[k, PIXEL_V + 2])
    pu = (g[k, PIXEL_U], g[k, PIXEL_U + 1], g[k, PIXEL_U + 2])
    d = (g[k, RAY], g[k, RAY + 1], g[k, RAY + 2])
    dv = (g[k, RAY_V], g[k, RAY_V + 1], g[k, RAY_V + 2])
    du = (g[k, RAY_U], g[k, RAY_U + 1], g[k, RAY_U + 2])
    length2 = dot(d, d)
    per_length = ONE / F(math.sqrt(length2))
    towards = (d[0] * per_length, d[1] * per_length, d[2] * per_length)
    cv, cu = cross(pv, towards), cross(pu, towards)
    root = F(math.sqrt(dot(cv, cv)))
    out[k, ROW], out[k, COLUMN] = g[k, ROW], g[k, COLUMN]
    out[k, PLACE] = (g[k, DEPTH] - first) / step
    out[k, PEAK], out[k, LIMIT], out[k, SHARP] = g[k, HEIGHT], g[k, REACH2], length2 * step * step
    out[k, ACROSS_V], out[k, ACROSS_VU] = root, dot(cv, cu) / root
    out[k, ACROSS_U] = dot(cross(cv, cu), towards) / root
    inverse = ONE / length2
    shift = -inverse / step
    out[k, SHIFT_V], out[k, SHIFT_U] = dot(pv, d) * shift, dot(pu, d) * shift
    out[k, SHRINK] = exp2_negative(-TWO * min(out[k, SHARP], ONE))
    out[k, LENGTH_V], out[k, LENGTH_U] = TWO * dot(d, dv) * inverse, TWO * dot(d, du) * inverse
    out[k, LENGTH_VV], out[k, LENGTH_UU] = dot(dv, dv) * inverse, dot(du, du) * inverse
    out[k, LENGTH_VU] = TWO * dot(dv, du) * inverse
    out[k, SHIFT_VV], out[k, SHIFT_UU] = dot(pv, dv) * shift, dot(pu, du) * shift
    out[k, SHIFT_VU] = (dot(pv, du) + dot(pu, dv)) * shift


def _relative_length2(r: Array, k: Index, p: F, q: F) -> F:
    """Return |d|^2 on a ray of a pinhole camera over that of the ray through the mean."""
    length2: F = (
        ONE
        + (r[k, LENGTH_V] + p * r[k, LENGTH_VV] + q * r[k, LENGTH_VU]) * p
        + (r[k, LENGTH_U] + q * r[k, LENGTH_UU]) * q
    )
    return length2


def square_on_ray(r: Array, k: Index, i: Index, j: Index, perspective: bool) -> F:
    """Return m of profile k on the ray of pixel (i, j); see `profile_of`."""
    p, q = F(i) - r[k, ROW], F(j) - r[k, COLUMN]
    v, u = p * r[k, ACROSS_V] + q * r[k, ACROSS_VU], q * r[k, ACROSS_U]
    m: F = v * v + u * u
    return m / _relative_length2(r, k, p, q) if perspective else m


def profile_on_ray(r: Array, k: Index, i: Index, j: Index, perspective: bool) -> tuple[F, F, F]:
    """Return m, a and the place of profile k on the ray of pixel (i, j); see `profile_of`."""
    p, q = F(i) - r[k, ROW], F(j) - r[k, COLUMN]
    m, a = square_on_ray(r, k, i, j, perspective), r[k, SHARP]
    shift = p * r[k, SHIFT_V] + q * r[k, SHIFT_U]
    if perspective:
        length2 = _relative_length2(r, k, p, q)
        shift += (p * r[k, SHIFT_VV] + q * r[k, SHIFT_VU]) * p + q * q * r[k, SHIFT_UU]
        a, shift = a * length2, shift / length2
    return m, a, r[k, PLACE] + shift


def highest(g: Array, k: int, i: int, j: int, near: F, far: F) -> tuple[F, Vector]:
    """Return 2^(-|u|^2) and u of footprint k where it is largest between `near` and `far`."""
    c, d, _, peak = profile(g, k, i, j)
    u = along(c, d, min(max(peak, near), far) - peak)
    return exp2_negative(-dot(u, u)), u


def blended(blend: Blend, peak: F, times: F, sharpness: F) -> Blend:
    """Return a softmax with a peak added, so many times; its largest term always is 1."""
    top, total, value, touched = blend
    if touched == ZERO:
        return peak, times, times * peak, times
    if peak > top:
        shrink = exp2_negative((top - peak) * sharpness)
        return peak, total * shrink + times, value * shrink + times * peak, touched + times
    weight = times * exp2_negative((peak - top) * sharpness)
    return top, total + weight, value + weight * peak, touched + times


def blend_slope(peak: F, top: F, total: F, value: F, sharpness: F) -> F:
    """Return the derivative of a soft MIP by one peak, w (1 + (p - v) / tau); w is its share."""
    share = exp2_negative((peak - top) * sharpness) / total
    return share * (ONE + (peak - value) * sharpness * LN2)


def erf_difference(low: F, high: F) -> F:
    """Return erf(high) - erf(low) for low <= high, without cancellation in the tails."""
    low, high = min(max(low, -FARTHEST), FARTHEST), min(max(high, -FARTHEST), FARTHEST)
    if low > ZERO:
        return F(math.erfc(low) - math.erfc(high))
    if high < ZERO:
        return F(math.erfc(-high) - math.erfc(-low))
    return F(math.erf(high) - math.erf(low))


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


def line_moments(m: F, a: F, low: F, high: F) -> tuple[F, F, F]:
    """Return the integrals of x^n 2^(-m - a x^2) from `low` to `high`, for n = 0, 1, 2."""
    bend = LN2 * a
    root = square_root(bend)
    if root * (high - low) < SHORTEST:
        return short_line_moments(m, a, low, high)
    zeroth = exp2_negative(-m) * HALF_ROOT_PI / root * erf_difference(root * low, root * high)
    at_low, at_high = exp2_negative(-(m + a * low * low)), exp2_negative(-(m + a * high * high))
    first = (at_low - at_high) * HALF / bend
    second = (zeroth + low * at_low - high * at_high) * HALF / bend
    return zeroth, first, second


def integrated(s: Any, c: Vector, d: Vector, zeroth: F, first: F, second: F) -> Any:
    """Return the sums that `unpack_gradient` wants, with the integral of u = c + x d over x."""
    u = (
        zeroth * c[0] + first * d[0],
        zeroth * c[1] + first * d[1],
        zeroth * c[2] + first * d[2],
    )
    xu = (first * c[0] + second * d[0], first * c[1] + second * d[1], first * c[2] + second * d[2])
    return (
        s[0] + zeroth,
        s[1] + u[0],
        s[2] + u[1],
        s[3] + u[2],
        s[4] + (u[0] * c[0] + xu[0] * d[0]),
        s[5] + (u[1] * c[0] + xu[1] * d[0]),
        s[6] + (u[1] * c[1] + xu[1] * d[1]),
        s[7] + (u[2] * c[0] + xu[2] * d[0]),
        s[8] + (u[2] * c[1] + xu[2] * d[1]),
        s[9] + (u[2] * c[2] + xu[2] * d[2]),
    )
