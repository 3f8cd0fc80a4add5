"""One Gaussian's own profile along a ray: scalar code that CPU loops and CUDA kernels share.

Along a ray, |u|^2 of one Gaussian is |c|^2 + A x^2, with x = s - s* the distance in t from its
peak, c the value of u there, perpendicular to d, and A = |d|^2 (see footprint for u, d, s). No
Gaussian needs to know of another's, so that no search is needed.
"""

from __future__ import annotations

import math

from numba.extending import register_jitable

from napari_gaussfit._kernels.arithmetic import HALF, ONE, ZERO, Array, F, Vector, exp2_negative
from napari_gaussfit._kernels.footprint import DEPTH, LN2, dot, on_ray

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


@register_jitable
def along(vector: Vector, direction: Vector, x: F) -> Vector:
    """Return vector + x direction."""
    return (
        vector[0] + x * direction[0],
        vector[1] + x * direction[1],
        vector[2] + x * direction[2],
    )


@register_jitable
def profile(g: Array, k: int, i: int, j: int) -> tuple[Vector, Vector, F, F]:
    """Return c, d, A and t at the peak of footprint k on the ray of pixel (i, j)."""
    u, d = on_ray(g, k, i, j, ZERO)
    a = dot(d, d)
    s = -dot(u, d) / a
    return along(u, d, s), d, a, g[k, DEPTH] + s


@register_jitable
def highest(g: Array, k: int, i: int, j: int, near: F, far: F) -> tuple[F, Vector]:
    """Return 2^(-|u|^2) and u of footprint k where it is largest between `near` and `far`."""
    c, d, _, peak = profile(g, k, i, j)
    u = along(c, d, min(max(peak, near), far) - peak)
    return exp2_negative(-dot(u, u)), u


@register_jitable
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


@register_jitable
def blend_slope(peak: F, top: F, total: F, value: F, sharpness: F) -> F:
    """Return the derivative of a soft MIP by one peak, w (1 + (p - v) / tau); w is its share."""
    share = exp2_negative((peak - top) * sharpness) / total
    return share * (ONE + (peak - value) * sharpness * LN2)


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
