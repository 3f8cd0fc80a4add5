"""The arithmetic of Gaussians, written once for every compiled backend.

Everything here is scalar code that Numba inlines into CPU loops and CUDA kernels alike: in float32,
but for overlaps. Symbols: mu the mean, L the lower Cholesky factor of the covariance, W = c L^-1
with c^2 = log2(e) / 2, so that a Gaussian of amplitude a has the value a 2^(-|u|^2) at x = mu +
W^-1 u. As L is lower triangular in the order z, y, x, the first entry of u depends on z alone and
the second on z and y alone: along x only the third moves.

The integral of the product of two Gaussians i and j of amplitude 1, their overlap, is

    <g_i, g_j> = (2 pi)^(3/2) |L_i| |L_j| / sqrt(|S|) exp(-1/2 d^T S^-1 d),

with d = mu_i - mu_j and S = Sigma_i + Sigma_j. What taking a Gaussian away costs is a difference of
such numbers, in which most digits cancel: they are in double precision.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_gaussfit import _limits as limits

F = np.float32
Array = NDArray[np.float32]
Vector = tuple[F, F, F]
Index = int | np.integer[Any]
INT = np.int32
SCALE = F(math.sqrt(0.5 / math.log(2.0)))  # c above

# One packed Gaussian: amplitude, mean (3), W (00, 10, 11, 20, 21, 22), |u|^2 at the cutoff.
AMPLITUDE, MEAN, FACTOR, RADIUS2, PACKED = 0, 1, 4, 10, 11
MOMENTS = 10  # of one Gaussian, see `unpack_gradient`

ZERO, HALF, ONE, TWO = F(0.0), F(0.5), F(1.0), F(2.0)
NO_MOMENTS = (ZERO, ZERO, ZERO, ZERO, ZERO, ZERO, ZERO, ZERO, ZERO, ZERO)
NOWHERE = F(1e30)  # where nothing is
FARTHEST_MEAN, BRIGHTEST = F(limits.FARTHEST_MEAN), F(limits.BRIGHTEST)
WIDEST, MOST_ELONGATED = F(limits.WIDEST), F(limits.MOST_ELONGATED)
LOG_WIDEST = F(math.log(limits.WIDEST))  # -LOG_WIDEST is that of the narrowest
LAST_INDEX = F(1e9)  # beyond every array
# Far above the denormals, whose arithmetic is a hundred times slower, and far below a cutoff.
LOWEST_EXPONENT = F(-60.0)

# Degree-5 fit of 2^f on [0, 1), exact at 0; relative error below 1.5e-7 (tests/_kernels).
C1, C2, C3 = F(0.6931513), F(0.24016444), F(0.055799913)
C4, C5 = F(0.00901703), F(0.0018671303)

# log2(1 + f) = f + f (1 - f) q(f) on [0, 1), exact at both ends; q is a fit, error below 3e-6.
Q0, Q1, Q2 = F(0.44254494), F(-0.2756003), F(0.18194889)
Q3, Q4 = F(-0.09595646), F(0.02584145)


def power_of_two(whole: F) -> F:
    """2^whole of a whole number between -126 and 127."""
    value: F = INT((INT(whole) + INT(127)) << INT(23)).view(np.float32)
    return value


def exp2_negative(x: F) -> F:
    """2^x for x <= 0 without a library call, so that loops over it vectorise."""
    x = max(x, LOWEST_EXPONENT)
    whole = np.floor(x)
    f = x - whole
    p = ((((C5 * f + C4) * f + C3) * f + C2) * f + C1) * f + ONE
    value: F = p * power_of_two(whole)
    return value


def square_root(x: F) -> F:
    """Square root of x >= 0: a GPU takes its one instruction for it, right to two units or so."""
    return F(math.sqrt(x))


def log2_positive(x: F) -> F:
    """log2(x) for normal x > 0 without a library call, so that loops over it vectorise."""
    bits = F(x).view(np.int32)
    f = INT((bits & INT(0x7FFFFF)) | INT(0x3F800000)).view(np.float32) - ONE
    q = (((Q4 * f + Q3) * f + Q2) * f + Q1) * f + Q0
    value: F = F(INT(bits >> INT(23)) - INT(127)) + f + f * (ONE - f) * q
    return value


def first_index(position: F, least: int) -> int:
    """Smallest whole number neither below `position` nor below `least` >= 0; no library call."""
    # Held to what an integer holds: the cast of anything else is undefined.
    position = min(LAST_INDEX, max(-ONE, position))
    whole = int(position)
    return max(least, whole + int(F(whole) < position))


def last_index(position: F, most: int) -> int:
    """Largest whole number not above `position` or `most`; negative where there is none."""
    return min(most, int(min(LAST_INDEX, max(-ONE, position)) + ONE) - 1)


def log2_ratio(a: F, b: F) -> F:
    """log2(a / b) of two positive numbers."""
    return F(math.log2(a / b))


def is_within(x: F, limit: F) -> bool:
    """Whether |x| <= limit, which neither NaN nor an infinity is.

    By their bits, which are in the order of the numbers: code that is compiled with fastmath may
    take a comparison with NaN for true.
    """
    bits, most = F(x).view(np.int32), F(limit).view(np.int32)
    return bool((bits & INT(0x7FFFFFFF)) <= most)


def inverse_scale(x: F) -> F:
    """Return the power of two that brings x, from 0 to 2^126, to between 1 and 2, if it can."""
    exponent = F(x).view(np.int32) >> INT(23)
    value: F = INT((INT(254) - exponent) << INT(23)).view(np.float32)
    return value


def is_sound(means: Array, cholesky: Array, amplitudes: Array, k: int) -> bool:
    """Whether the kernels can evaluate Gaussian k: finite, and nothing beyond the limits."""
    sound = is_within(amplitudes[k], BRIGHTEST)
    for axis in range(3):
        sound &= is_within(means[k, axis], FARTHEST_MEAN)
    for n in (0, 2, 5):
        sound &= is_within(cholesky[k, n], LOG_WIDEST)
    for n in (1, 3, 4):
        sound &= is_within(cholesky[k, n], WIDEST)
    if not sound:
        return False
    narrowest = F(math.exp(min(cholesky[k, 0], cholesky[k, 2], cholesky[k, 5])))
    longest = F(math.exp(max(cholesky[k, 0], cholesky[k, 2], cholesky[k, 5])))
    longest = max(longest, abs(cholesky[k, 1]), abs(cholesky[k, 3]), abs(cholesky[k, 4]))
    return bool(longest <= MOST_ELONGATED * narrowest)


def pack_nowhere(k: int, packed: Array) -> None:
    """Write a Gaussian that reaches nothing, as finite numbers, to row k of `packed`."""
    for n in range(PACKED):
        packed[k, n] = ZERO
    packed[k, FACTOR], packed[k, FACTOR + 2], packed[k, FACTOR + 5] = ONE, ONE, ONE
    packed[k, RADIUS2] = -ONE


def pack(
    means: Array, cholesky: Array, amplitudes: Array, cutoff: F, k: int, packed: Array
) -> None:
    """Write row k of `packed`; beyond its cutoff a Gaussian contributes less than `cutoff`.

    One that is not sound is nowhere: every kernel begins here, and none has to ask again.
    """
    if not is_sound(means, cholesky, amplitudes, k):
        pack_nowhere(k, packed)
        return
    l00, l11, l22 = (
        F(math.exp(cholesky[k, 0])),
        F(math.exp(cholesky[k, 2])),
        F(math.exp(cholesky[k, 5])),
    )
    l10, l20, l21 = cholesky[k, 1], cholesky[k, 3], cholesky[k, 4]
    amplitude = amplitudes[k]
    packed[k, AMPLITUDE] = amplitude
    for axis in range(3):
        packed[k, MEAN + axis] = means[k, axis]
    packed[k, FACTOR] = SCALE / l00
    packed[k, FACTOR + 1] = -SCALE * l10 / (l00 * l11)
    packed[k, FACTOR + 2] = SCALE / l11
    packed[k, FACTOR + 3] = SCALE * (l10 * l21 - l11 * l20) / (l00 * l11 * l22)
    packed[k, FACTOR + 4] = -SCALE * l21 / (l11 * l22)
    packed[k, FACTOR + 5] = SCALE / l22
    height = abs(amplitude)
    packed[k, RADIUS2] = log2_ratio(height, cutoff) if height > cutoff else -ONE


def half_sides(packed: Array, k: int, r: F) -> Vector:
    """Half the sides of the box that the ellipsoid |u| <= r of Gaussian k fits into.

    They are r times the lengths of the rows of W^-1.
    """
    i00 = ONE / packed[k, FACTOR]
    i11 = ONE / packed[k, FACTOR + 2]
    i22 = ONE / packed[k, FACTOR + 5]
    i10 = -packed[k, FACTOR + 1] * i00 * i11
    i21 = -packed[k, FACTOR + 4] * i11 * i22
    i20 = -(packed[k, FACTOR + 3] * i00 + packed[k, FACTOR + 4] * i10) * i22
    return (
        r * i00,
        r * F(math.sqrt(i10 * i10 + i11 * i11)),
        r * F(math.sqrt(i20 * i20 + i21 * i21 + i22 * i22)),
    )


def with_point(sums: Any, we: Any, u0: Any, u1: Any, u2: Any) -> Any:
    """Return the ten sums that `unpack_gradient` wants, with a point (or a vector of such) more."""
    we0, we1, we2 = we * u0, we * u1, we * u2
    return (
        sums[0] + we,
        sums[1] + we0,
        sums[2] + we1,
        sums[3] + we2,
        sums[4] + we0 * u0,
        sums[5] + we1 * u0,
        sums[6] + we1 * u1,
        sums[7] + we2 * u0,
        sums[8] + we2 * u1,
        sums[9] + we2 * u2,
    )


def unpack_gradient(
    moments: Array, packed: Array, k: int, d_means: Array, d_cholesky: Array, d_amplitudes: Array
) -> None:
    """Turn moments of a Gaussian into derivatives, row k.

    With w the derivative of the loss by f and e = 2^(-|u|^2), `moments` holds the sums over
    the points of w e (1, u_0, u_1, u_2, u_0 u_0, u_1 u_0, u_1 u_1, u_2 u_0, u_2 u_1, u_2 u_2).
    With v = u / c and M = L^-1 dL: d(a e) = e da + a e (v . L^-1 dmu + v^T M v).
    """
    a = packed[k, AMPLITUDE]
    s = ONE / SCALE
    w00, w10, w11 = packed[k, FACTOR] * s, packed[k, FACTOR + 1] * s, packed[k, FACTOR + 2] * s
    w20, w21, w22 = packed[k, FACTOR + 3] * s, packed[k, FACTOR + 4] * s, packed[k, FACTOR + 5] * s
    d_amplitudes[k] = moments[k, 0]
    v0, v1, v2 = a * s * moments[k, 1], a * s * moments[k, 2], a * s * moments[k, 3]
    d_means[k, 0] = w00 * v0 + w10 * v1 + w20 * v2
    d_means[k, 1] = w11 * v1 + w21 * v2
    d_means[k, 2] = w22 * v2
    s2 = a * s * s
    m00, m10, m11 = s2 * moments[k, 4], s2 * moments[k, 5], s2 * moments[k, 6]
    m20, m21, m22 = s2 * moments[k, 7], s2 * moments[k, 8], s2 * moments[k, 9]
    # dLoss/dL = the lower triangle of L^-T m, m the lower triangle of sum w e a v v^T
    # with all of a row's entries: column j of m is (m0j, m1j, m2j).
    d_cholesky[k, 0] = (w00 * m00 + w10 * m10 + w20 * m20) / w00
    d_cholesky[k, 1] = w11 * m10 + w21 * m20
    d_cholesky[k, 2] = (w11 * m11 + w21 * m21) / w11
    d_cholesky[k, 3] = w22 * m20
    d_cholesky[k, 4] = w22 * m21
    d_cholesky[k, 5] = m22


Array64 = NDArray[np.float64]

NEIGHBOURS = 24
"""Nearest Gaussians that make up for one that is taken away."""

DAMPING = 1e-6
"""Keeps the equations solvable where neighbours are copies of each other."""


def overlap(mu: Array64, sigma: Array64, volume: Array64, i: int, j: int) -> float:
    """<g_i, g_j> / (2 pi)^(3/2).

    mu : [K, 3]; sigma : [K, 6], the triangle 00, 10, 11, 20, 21, 22; volume : [K], det L.
    """
    a, b, c = sigma[i, 0] + sigma[j, 0], sigma[i, 1] + sigma[j, 1], sigma[i, 2] + sigma[j, 2]
    d, e, f = sigma[i, 3] + sigma[j, 3], sigma[i, 4] + sigma[j, 4], sigma[i, 5] + sigma[j, 5]
    # The triangle of S, row by row; then its cofactors.
    x, y, z = mu[i, 0] - mu[j, 0], mu[i, 1] - mu[j, 1], mu[i, 2] - mu[j, 2]
    caa, cab, cad = c * f - e * e, d * e - b * f, b * e - c * d
    ccc, cce, cff = a * f - d * d, b * d - a * e, a * c - b * b
    determinant = a * caa + b * cab + d * cad
    if determinant <= 0.0:
        return 0.0
    square = x * x * caa + y * y * ccc + z * z * cff
    square += 2.0 * (x * y * cab + x * z * cad + y * z * cce)
    value: float = (
        volume[i] * volume[j] / math.sqrt(determinant) * math.exp(-0.5 * square / determinant)
    )
    return value
