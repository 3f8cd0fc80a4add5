"""What the rays of a view meet: a Gaussian, and a stack as a cubic B-spline.

Scalar code that CPU loops and CUDA kernels share.

`footprint` moves a Gaussian into the frame of the ray through its mean, at pixel (i_c, j_c)
and parameter t_c. With p = i - i_c, q = j - j_c and s = t - t_c,

    u = p a_v + q a_u + s d(p, q),      d(p, q) = d_c + p d_v + q d_u    (all times W),

for orthographic (d_v = d_u = 0) and pinhole cameras alike. The Gaussian touches the ray where
|(p a_v + q a_u) x d_c|^2 < r^2 |d(p, q)|^2: a conic in (p, q), so that the pixels of a row
it touches follow exactly, without the usual Jacobian approximation.

A spline's coefficients carry `MARGIN` more on every side, mirrored, so that no point of the box
asks for one that is not there.
"""

from __future__ import annotations

import math
from typing import Any

from napari_gaussfit._kernels.shared.gaussian import (
    AMPLITUDE,
    FACTOR,
    HALF,
    INT,
    MEAN,
    NOWHERE,
    ONE,
    RADIUS2,
    TWO,
    ZERO,
    Array,
    F,
    Index,
    Vector,
    inverse_scale,
    is_within,
    square_root,
)

LN2 = F(math.log(2.0))
QUARTER = F(0.25)
FAINTEST = F(1e-30)  # value whose logarithm stands for that of nothing
# A mean in a pinhole's own plane is seen at no pixel: it is moved by this part of its reach.
NEAREST = F(1e-4)

# A footprint: see `footprint`.
ROW, COLUMN, DEPTH, HEIGHT, REACH2 = 0, 1, 2, 3, 4
PIXEL_V, PIXEL_U, RAY, RAY_V, RAY_U = 5, 8, 11, 14, 17
QUU, QVU, LU, QVV, LV, L0 = 20, 21, 22, 23, 24, 25
FIRST_ROW, LAST_ROW, FOOTPRINT = 26, 27, 28


def _factor_times(packed: Array, k: int, z: F, y: F, x: F) -> Vector:
    return (
        packed[k, FACTOR] * z,
        packed[k, FACTOR + 1] * z + packed[k, FACTOR + 2] * y,
        packed[k, FACTOR + 3] * z + packed[k, FACTOR + 4] * y + packed[k, FACTOR + 5] * x,
    )


def depth_per_u(packed: Array, k: int, solve: Array) -> F:
    """How much the depth t changes at most where u changes by 1: |W^-T n|, n = dt/dx."""
    y2 = solve[2, 2] / packed[k, FACTOR + 5]
    y1 = (solve[2, 1] - packed[k, FACTOR + 4] * y2) / packed[k, FACTOR + 2]
    y0 = solve[2, 0] - packed[k, FACTOR + 1] * y1 - packed[k, FACTOR + 3] * y2
    y0 /= packed[k, FACTOR]
    return F(math.sqrt(y0 * y0 + y1 * y1 + y2 * y2))


def cross(a: Vector, b: Vector) -> Vector:
    return (
        a[1] * b[2] - a[2] * b[1],
        a[2] * b[0] - a[0] * b[2],
        a[0] * b[1] - a[1] * b[0],
    )


def dot(a: Vector, b: Vector) -> F:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def footprint(
    packed: Array, k: int, frame: Array, solve: Array, perspective: bool, rows: int, out: Array
) -> None:
    """Fill row k of `out` [K, FOOTPRINT]; an empty footprint ends before it begins.

    `solve` is the inverse of the matrix whose columns are (d_v, d_u, d0) for a pinhole camera
    and (o_v, o_u, d0) for an orthographic one.
    """
    out[k, FIRST_ROW], out[k, LAST_ROW] = ONE, -ONE
    r2 = packed[k, RADIUS2]
    if r2 <= ZERO:
        return
    x = packed[k, MEAN] - frame[0, 0]
    y = packed[k, MEAN + 1] - frame[0, 1]
    z = packed[k, MEAN + 2] - frame[0, 2]
    i = solve[0, 0] * x + solve[0, 1] * y + solve[0, 2] * z
    j = solve[1, 0] * x + solve[1, 1] * y + solve[1, 2] * z
    t = solve[2, 0] * x + solve[2, 1] * y + solve[2, 2] * z
    if perspective:
        reach = math.sqrt(r2) * depth_per_u(packed, k, solve)
        if t + reach <= ZERO:
            return
        t = math.copysign(max(abs(t), NEAREST * reach), t)
        i, j = i / t, j / t
    pv = _factor_times(
        packed,
        k,
        frame[1, 0] + t * frame[4, 0],
        frame[1, 1] + t * frame[4, 1],
        frame[1, 2] + t * frame[4, 2],
    )
    pu = _factor_times(
        packed,
        k,
        frame[2, 0] + t * frame[5, 0],
        frame[2, 1] + t * frame[5, 1],
        frame[2, 2] + t * frame[5, 2],
    )
    d = _factor_times(
        packed,
        k,
        frame[3, 0] + i * frame[4, 0] + j * frame[5, 0],
        frame[3, 1] + i * frame[4, 1] + j * frame[5, 1],
        frame[3, 2] + i * frame[4, 2] + j * frame[5, 2],
    )
    dv = _factor_times(packed, k, frame[4, 0], frame[4, 1], frame[4, 2])
    du = _factor_times(packed, k, frame[5, 0], frame[5, 1], frame[5, 2])
    cv, cu = cross(pv, d), cross(pu, d)
    quu = dot(cu, cu) - r2 * dot(du, du)
    qvu = dot(cv, cu) - r2 * dot(dv, du)
    qvv = dot(cv, cv) - r2 * dot(dv, dv)
    lu, lv, l0 = -r2 * dot(d, du), -r2 * dot(d, dv), -r2 * dot(d, d)
    # A conic is the same times a number: a power of two, which rounds nothing, keeps the squares
    # of its coefficients in float32, whatever the unit of lengths.
    size = max(abs(quu), abs(qvv))
    scale = inverse_scale(size)
    quu, qvu, qvv = quu * scale, qvu * scale, qvv * scale
    lu, lv, l0 = lu * scale, lv * scale, l0 * scale
    # Rows: where the discriminant of the conic in q, itself quadratic in p, is positive.
    square, linear, constant = qvu * qvu - quu * qvv, qvu * lu - quu * lv, lu * lu - quu * l0
    low, high = -F(1e9), F(1e9)
    if quu > ZERO and square < ZERO:
        root = linear * linear - square * constant
        if root <= ZERO:
            return
        root = math.sqrt(root)
        low, high = (linear - root) / -square, (linear + root) / -square
    # A Gaussian that overflows beside pixels of this size is seen at none of them.
    seen = is_within(i, NOWHERE) & is_within(j, NOWHERE) & is_within(t, NOWHERE)
    seen &= is_within(low, NOWHERE) & is_within(high, NOWHERE) & is_within(size, NOWHERE)
    seen &= is_within(quu, NOWHERE) & is_within(qvu, NOWHERE) & is_within(qvv, NOWHERE)
    seen &= is_within(lu, NOWHERE) & is_within(lv, NOWHERE) & is_within(l0, NOWHERE)
    if not seen:
        return
    out[k, FIRST_ROW] = min(F(rows), max(ZERO, math.ceil(i + low)))
    out[k, LAST_ROW] = max(-ONE, min(F(rows - 1), math.floor(i + high)))
    out[k, ROW], out[k, COLUMN], out[k, DEPTH] = i, j, t
    out[k, HEIGHT], out[k, REACH2] = packed[k, AMPLITUDE], r2
    for n in range(3):
        out[k, PIXEL_V + n], out[k, PIXEL_U + n] = pv[n], pu[n]
        out[k, RAY + n], out[k, RAY_V + n], out[k, RAY_U + n] = d[n], dv[n], du[n]
    out[k, QUU], out[k, QVU], out[k, LU] = quu, qvu, lu
    out[k, QVV], out[k, LV], out[k, L0] = qvv, lv, l0


def column_ends(g: Array, k: Index, p: F, width: int) -> tuple[F, F]:
    """First and last column of a row that a footprint touches (last < first when none)."""
    quu = g[k, QUU]
    b = g[k, QVU] * p + g[k, LU]
    c = (g[k, QVV] * p + TWO * g[k, LV]) * p + g[k, L0]
    if quu <= ZERO:
        return ZERO, F(width - 1)
    root = b * b - quu * c
    if root <= ZERO:
        return ZERO, -ONE
    root = square_root(root)
    j = g[k, COLUMN]
    # Rounded up and down by casts: `math.ceil` is a call.
    low = min(F(width), max(ZERO, j + (-b - root) / quu))
    high = min(F(width - 1), max(-ONE, j + (-b + root) / quu))
    whole = F(INT(low))
    return whole + F(whole < low), F(INT(high + ONE)) - ONE


def column_extent(g: Array, k: int, width: int) -> tuple[F, F]:
    """First and last column of all that a footprint touches."""
    quu, qvu, qvv, lu, lv = g[k, QUU], g[k, QVU], g[k, QVV], g[k, LU], g[k, LV]
    square, linear, constant = qvu * qvu - quu * qvv, qvu * lv - qvv * lu, lv * lv - qvv * g[k, L0]
    if qvv <= ZERO or square >= ZERO:
        return ZERO, F(width - 1)
    root = linear * linear - square * constant
    if root <= ZERO:
        return ZERO, -ONE
    root = F(math.sqrt(root))
    j = g[k, COLUMN]
    first, last = (
        math.ceil(j + (linear - root) / -square),
        math.floor(j + (linear + root) / -square),
    )
    return min(F(width), max(ZERO, F(first))), max(-ONE, min(F(width - 1), F(last)))


def on_ray(g: Array, k: Index, i: Index, j: Index, s: F) -> tuple[Vector, Vector]:
    """Return u on the ray of pixel (i, j) at s from the footprint's depth, and du/ds there."""
    p, q = F(i) - g[k, ROW], F(j) - g[k, COLUMN]
    d = (
        g[k, RAY] + p * g[k, RAY_V] + q * g[k, RAY_U],
        g[k, RAY + 1] + p * g[k, RAY_V + 1] + q * g[k, RAY_U + 1],
        g[k, RAY + 2] + p * g[k, RAY_V + 2] + q * g[k, RAY_U + 2],
    )
    u = (
        p * g[k, PIXEL_V] + q * g[k, PIXEL_U] + s * d[0],
        p * g[k, PIXEL_V + 1] + q * g[k, PIXEL_U + 1] + s * d[1],
        p * g[k, PIXEL_V + 2] + q * g[k, PIXEL_U + 2] + s * d[2],
    )
    return u, d


def on_parallel_ray(g: Array, k: Index, i: Index, j: Index, s: F) -> Vector:
    """Return u as `on_ray` does, of an orthographic camera: all rays have the same direction."""
    p, q = F(i) - g[k, ROW], F(j) - g[k, COLUMN]
    return (
        p * g[k, PIXEL_V] + q * g[k, PIXEL_U] + s * g[k, RAY],
        p * g[k, PIXEL_V + 1] + q * g[k, PIXEL_U + 1] + s * g[k, RAY + 1],
        p * g[k, PIXEL_V + 2] + q * g[k, PIXEL_U + 2] + s * g[k, RAY + 2],
    )


def mode_near_bin(before: F, middle: F, after: F, least: F, most: F, top: Any) -> tuple[F, F]:
    """Return the log2 of the mode by the parabola through the log2 of three bins, and where it is.

    The place is in bins from the middle one, between `least` and `most`. `top` says that the
    middle one is the highest: no profile in the bins is narrower than one, so that the mode is
    2^(1/4) higher at most.
    """
    left, right = before - middle, after - middle
    slope, bend = HALF * (right - left), left + right
    move = min(max(-slope / min(bend, -F(1e-6)), -ONE), ONE)
    move = min(max(move, least), most)
    gain = move * (slope + HALF * bend * move)
    return middle + min(gain, QUARTER if top else max(left, right)), move


def newton_step(value: F, slope: F, curvature: F, longest: F) -> F:
    """Step in t of Newton's method on log f, of f, f' and f'' (the latter two over 2 ln 2).

    The logarithm of one Gaussian is a parabola, so that one step ends at its peak, from however
    far. Where log f is convex the step is the longest one uphill.
    """
    bend = TWO * LN2 * slope * slope / value - curvature
    step = slope / bend if bend > ZERO else F(math.copysign(longest, slope))
    return min(max(step, -longest), longest)


SIXTH, TWO_THIRDS = F(1.0 / 6.0), F(2.0 / 3.0)
STEP = F(0.5)  # voxels between a ray's samples, along the axis on which it is fastest
MARGIN = 2
BOTH_MARGINS = 2 * MARGIN


def weights(f: F) -> tuple[F, F, F, F]:
    """Weights of the four coefficients around a point, `f` beyond the second of them."""
    g = ONE - f
    return (
        SIXTH * g * g * g,
        TWO_THIRDS - HALF * f * f * (TWO - f),
        TWO_THIRDS - HALF * g * g * (TWO - g),
        SIXTH * f * f * f,
    )


def place(frame: Array, spacing: Array, i: int, j: int, t: F, axis: int, size: int) -> F:
    """Return where on an axis of `size` voxels, in voxels, pixel (i, j)'s ray is at t.

    Held inside the box, whatever rounding says of a camera far away.
    """
    o = frame[0, axis] + F(i) * frame[1, axis] + F(j) * frame[2, axis]
    d = frame[3, axis] + F(i) * frame[4, axis] + F(j) * frame[5, axis]
    return min(max((o + t * d) / spacing[axis], -HALF), F(size) - HALF)


def vertex(before: F, best: F, after: F) -> F:
    """Where a parabola through three samples is largest, in samples from the middle one.

    0 where the middle one is not the largest: within a search's slack, a neighbour may be.
    """
    bend = before - best + after - best
    if bend >= ZERO or best < max(before, after):
        return ZERO
    return HALF * (before - after) / bend
