"""Numba kernels along the rays of a view: footprints, the search for maxima, values, gradients.

`footprint` moves a Gaussian into the frame of the ray through its mean, at pixel (i_c, j_c)
and parameter t_c. With p = i - i_c, q = j - j_c and s = t - t_c,

    u = p a_v + q a_u + s d(p, q),      d(p, q) = d_c + p d_v + q d_u    (all times W),

for orthographic (d_v = d_u = 0) and pinhole cameras alike. The Gaussian touches the ray where
|(p a_v + q a_u) x d_c|^2 < r^2 |d(p, q)|^2: a conic in (p, q), so that the pixels of a row
it touches follow exactly, without the usual Jacobian approximation.
"""

from __future__ import annotations

import math

from numba import njit

from napari_gaussfit._kernels.arithmetic import (
    AMPLITUDE,
    FACTOR,
    HALF,
    MEAN,
    ONE,
    RADIUS2,
    TWO,
    ZERO,
    Array,
    F,
    Vector,
    exp2_negative,
)

CHUNK = 16
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


@njit(inline="always")
def _factor_times(packed: Array, k: int, z: F, y: F, x: F) -> Vector:
    return (
        packed[k, FACTOR] * z,
        packed[k, FACTOR + 1] * z + packed[k, FACTOR + 2] * y,
        packed[k, FACTOR + 3] * z + packed[k, FACTOR + 4] * y + packed[k, FACTOR + 5] * x,
    )


@njit(inline="always")
def _depth_per_u(packed: Array, k: int, solve: Array) -> F:
    """How much the depth t changes at most where u changes by 1: |W^-T n|, n = dt/dx."""
    y2 = solve[2, 2] / packed[k, FACTOR + 5]
    y1 = (solve[2, 1] - packed[k, FACTOR + 4] * y2) / packed[k, FACTOR + 2]
    y0 = solve[2, 0] - packed[k, FACTOR + 1] * y1 - packed[k, FACTOR + 3] * y2
    y0 /= packed[k, FACTOR]
    return F(math.sqrt(y0 * y0 + y1 * y1 + y2 * y2))


@njit(inline="always")
def _cross(a: Vector, b: Vector) -> Vector:
    return (
        a[1] * b[2] - a[2] * b[1],
        a[2] * b[0] - a[0] * b[2],
        a[0] * b[1] - a[1] * b[0],
    )


@njit(inline="always")
def dot(a: Vector, b: Vector) -> F:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@njit(nogil=True, fastmath=True, error_model="numpy", cache=True)
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
    """Fill rows [first, end) of `out` [K, FOOTPRINT]; an empty footprint ends before it begins.

    `solve` is the inverse of the matrix whose columns are (d_v, d_u, d0) for a pinhole camera
    and (o_v, o_u, d0) for an orthographic one.
    """
    for k in range(first, end):
        out[k, FIRST_ROW], out[k, LAST_ROW] = ONE, -ONE
        r2 = packed[k, RADIUS2]
        if r2 <= ZERO:
            continue
        x = packed[k, MEAN] - frame[0, 0]
        y = packed[k, MEAN + 1] - frame[0, 1]
        z = packed[k, MEAN + 2] - frame[0, 2]
        i = solve[0, 0] * x + solve[0, 1] * y + solve[0, 2] * z
        j = solve[1, 0] * x + solve[1, 1] * y + solve[1, 2] * z
        t = solve[2, 0] * x + solve[2, 1] * y + solve[2, 2] * z
        if perspective:
            reach = math.sqrt(r2) * _depth_per_u(packed, k, solve)
            if t + reach <= ZERO:
                continue
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
        cv, cu = _cross(pv, d), _cross(pu, d)
        quu = dot(cu, cu) - r2 * dot(du, du)
        qvu = dot(cv, cu) - r2 * dot(dv, du)
        qvv = dot(cv, cv) - r2 * dot(dv, dv)
        lu, lv, l0 = -r2 * dot(d, du), -r2 * dot(d, dv), -r2 * dot(d, d)
        # Rows: where the discriminant of the conic in q, itself quadratic in p, is positive.
        square, linear, constant = qvu * qvu - quu * qvv, qvu * lu - quu * lv, lu * lu - quu * l0
        low, high = -F(1e9), F(1e9)
        if quu > ZERO and square < ZERO:
            root = linear * linear - square * constant
            if root <= ZERO:
                continue
            root = math.sqrt(root)
            low, high = (linear - root) / -square, (linear + root) / -square
        out[k, FIRST_ROW] = max(ZERO, math.ceil(i + low))
        out[k, LAST_ROW] = min(F(rows - 1), math.floor(i + high))
        out[k, ROW], out[k, COLUMN], out[k, DEPTH] = i, j, t
        out[k, HEIGHT], out[k, REACH2] = packed[k, AMPLITUDE], r2
        for n in range(3):
            out[k, PIXEL_V + n], out[k, PIXEL_U + n] = pv[n], pu[n]
            out[k, RAY + n], out[k, RAY_V + n], out[k, RAY_U + n] = d[n], dv[n], du[n]
        out[k, QUU], out[k, QVU], out[k, LU] = quu, qvu, lu
        out[k, QVV], out[k, LV], out[k, L0] = qvv, lv, l0


@njit(inline="always")
def columns(g: Array, k: int, p: F, width: int) -> tuple[int, int]:
    """First and last column of a row that a footprint touches (last < first when none)."""
    quu = g[k, QUU]
    b = g[k, QVU] * p + g[k, LU]
    c = (g[k, QVV] * p + TWO * g[k, LV]) * p + g[k, L0]
    if quu <= ZERO:
        return 0, width - 1
    root = b * b - quu * c
    if root <= ZERO:
        return 0, -1
    root = math.sqrt(root)
    j = g[k, COLUMN]
    return (
        max(0, int(math.ceil(j + (-b - root) / quu))),
        min(width - 1, int(math.floor(j + (-b + root) / quu))),
    )


@njit(nogil=True, fastmath=True, error_model="numpy", cache=True)
def _highest_modes(
    bins: Array,
    first_row: int,
    end_row: int,
    near: Array,
    far: Array,
    bin_start: F,
    bin_step: F,
    depth: Array,
) -> None:
    """Set `depth` to the highest mode on each ray, by parabolas through the logs of three bins.

    The bins' values alone rank modes wrongly, by up to an eighth at a step of one sigma; and
    what they hold beyond the ends of a ray must not count.
    """
    count, width = bins.shape[1], depth.shape[1] - CHUNK
    for i in range(first_row, end_row):
        row = i - first_row
        for j in range(width):
            start, stop = near[i, j], far[i, j]
            best, top, where = -F(1e30), ZERO, HALF * (start + stop)
            low = max(0, int(math.floor((start - bin_start) / bin_step)))
            high = min(count - 1, int(math.ceil((stop - bin_start) / bin_step)))
            for b in range(low, high + 1):
                value = bins[row, b, j]
                before, after = bins[row, max(b - 1, 0), j], bins[row, min(b + 1, count - 1), j]
                peak = value >= before and value >= after
                if not (peak or b in (low, high)):
                    continue
                # No profile in the bins is narrower than one: a top is 2^(1/4) higher at most.
                if max(F(1.2) * value, before, after) <= top or value <= FAINTEST:
                    continue
                middle = F(math.log2(value))
                left = F(math.log2(max(before, FAINTEST))) - middle
                right = F(math.log2(max(after, FAINTEST))) - middle
                slope, bend = HALF * (right - left), left + right
                at = bin_start + F(b) * bin_step
                move = min(max(-slope / min(bend, -F(1e-6)), -ONE), ONE)
                move = min(max(move, (start - at) / bin_step), (stop - at) / bin_step)
                gain = move * (slope + HALF * bend * move)
                estimate = middle + min(gain, QUARTER if peak else max(left, right))
                if estimate > best:
                    best, where = estimate, at + move * bin_step
                    top = F(math.pow(TWO, best))
            depth[i, j] = min(max(where, start), stop)


@njit(nogil=True, fastmath=True, error_model="numpy", cache=True)
def search_strip(
    g: Array,
    first_row: int,
    end_row: int,
    near: Array,
    far: Array,
    bin_start: F,
    bin_step: F,
    bins: Array,
    depth: Array,
    scratch: Array,
) -> None:
    """Set `depth` on rows [first_row, end_row) to the centre of the bin of largest f.

    bins : [rows, T, width + CHUNK] and scratch [3, CHUNK]: working memory.
    near, far, depth : [H, width + CHUNK], where rays enter and leave the box.
    """
    width = depth.shape[1] - CHUNK
    count = bins.shape[1]
    bins[: end_row - first_row] = ZERO
    # A profile narrower than a bin would hide between the centres: widen it.
    widest = F(1.0) / (bin_step * bin_step)
    peak, place, sharpness = scratch[0], scratch[1], scratch[2]
    for k in range(g.shape[0]):
        top = max(first_row, int(g[k, FIRST_ROW]))
        for i in range(top, min(end_row - 1, int(g[k, LAST_ROW])) + 1):
            p = F(i) - g[k, ROW]
            j0, j1 = columns(g, k, p, width)
            b0 = p * g[k, PIXEL_V]
            b1 = p * g[k, PIXEL_V + 1]
            b2 = p * g[k, PIXEL_V + 2]
            d0 = g[k, RAY] + p * g[k, RAY_V]
            d1 = g[k, RAY + 1] + p * g[k, RAY_V + 1]
            d2 = g[k, RAY + 2] + p * g[k, RAY_V + 2]
            a0, a1, a2 = g[k, PIXEL_U], g[k, PIXEL_U + 1], g[k, PIXEL_U + 2]
            e0, e1, e2 = g[k, RAY_U], g[k, RAY_U + 1], g[k, RAY_U + 2]
            height, t, r2 = g[k, HEIGHT], g[k, DEPTH], g[k, REACH2]
            for j in range(j0, j1 + 1, CHUNK):
                q0 = F(j) - g[k, COLUMN]
                earliest, latest = F(1e30), -F(1e30)
                for n in range(CHUNK):
                    q = q0 + F(n)
                    x0, x1, x2 = b0 + q * a0, b1 + q * a1, b2 + q * a2
                    y0, y1, y2 = d0 + q * e0, d1 + q * e1, d2 + q * e2
                    a = y0 * y0 + y1 * y1 + y2 * y2
                    s = -(x0 * y0 + x1 * y1 + x2 * y2) / a
                    m = max(x0 * x0 + x1 * x1 + x2 * x2 - a * s * s, ZERO)
                    a = min(a, widest)
                    inside = j + n <= j1
                    peak[n] = height * exp2_negative(-m) if inside else ZERO
                    place[n] = t + s
                    sharpness[n] = a
                    reach = math.sqrt(max(r2 - m, ZERO) / a)
                    earliest = min(earliest, t + s - reach if inside else F(1e30))
                    latest = max(latest, t + s + reach if inside else -F(1e30))
                low = max(0, int(math.ceil((earliest - bin_start) / bin_step)))
                high = min(count - 1, int(math.floor((latest - bin_start) / bin_step)))
                for b in range(low, high + 1):
                    at = bin_start + F(b) * bin_step
                    lane = bins[i - first_row, b, j : j + CHUNK]
                    for n in range(CHUNK):
                        s = at - place[n]
                        lane[n] += peak[n] * exp2_negative(-sharpness[n] * s * s)
    _highest_modes(bins, first_row, end_row, near, far, bin_start, bin_step, depth)


@njit(nogil=True, fastmath=True, error_model="numpy", cache=True)
def climb_strip(
    g: Array,
    first_row: int,
    end_row: int,
    near: Array,
    far: Array,
    longest_step: F,
    evaluations: int,
    sums: Array,
    depth: Array,
    peak: Array,
) -> None:
    """Move `depth` to the mode of f along each ray and set `peak` to f there.

    Newton steps on log f: the logarithm of one Gaussian is a parabola, so that one step ends at
    its peak, from however far. Where log f is convex the step is the longest one uphill; a
    step that led downhill is taken back by three quarters.
    sums : [4, H, width + CHUNK], working memory.
    """
    width = depth.shape[1] - CHUNK
    value, slope, curvature, trial = sums[0], sums[1], sums[2], sums[3]
    trial[first_row:end_row] = depth[first_row:end_row]
    peak[first_row:end_row] = ZERO
    for _ in range(evaluations):
        value[first_row:end_row] = ZERO
        slope[first_row:end_row] = ZERO
        curvature[first_row:end_row] = ZERO
        for k in range(g.shape[0]):
            top = max(first_row, int(g[k, FIRST_ROW]))
            for i in range(top, min(end_row - 1, int(g[k, LAST_ROW])) + 1):
                p = F(i) - g[k, ROW]
                j0, j1 = columns(g, k, p, width)
                b0 = p * g[k, PIXEL_V]
                b1 = p * g[k, PIXEL_V + 1]
                b2 = p * g[k, PIXEL_V + 2]
                d0 = g[k, RAY] + p * g[k, RAY_V]
                d1 = g[k, RAY + 1] + p * g[k, RAY_V + 1]
                d2 = g[k, RAY + 2] + p * g[k, RAY_V + 2]
                a0, a1, a2 = g[k, PIXEL_U], g[k, PIXEL_U + 1], g[k, PIXEL_U + 2]
                e0, e1, e2 = g[k, RAY_U], g[k, RAY_U + 1], g[k, RAY_U + 2]
                height, t = g[k, HEIGHT], g[k, DEPTH]
                for j in range(j0, j1 + 1, CHUNK):
                    q0 = F(j) - g[k, COLUMN]
                    at = trial[i, j : j + CHUNK]
                    values = value[i, j : j + CHUNK]
                    slopes = slope[i, j : j + CHUNK]
                    curvatures = curvature[i, j : j + CHUNK]
                    for n in range(CHUNK):
                        q = q0 + F(n)
                        s = at[n] - t
                        y0, y1, y2 = d0 + q * e0, d1 + q * e1, d2 + q * e2
                        u0 = b0 + q * a0 + s * y0
                        u1 = b1 + q * a1 + s * y1
                        u2 = b2 + q * a2 + s * y2
                        e = height * exp2_negative(-(u0 * u0 + u1 * u1 + u2 * u2))
                        uy = u0 * y0 + u1 * y1 + u2 * y2
                        values[n] += e
                        slopes[n] -= e * uy
                        curvatures[n] += e * (TWO * LN2 * uy * uy - (y0 * y0 + y1 * y1 + y2 * y2))
        for i in range(first_row, end_row):
            for j in range(width):
                height = value[i, j]
                if height <= peak[i, j]:
                    trial[i, j] = depth[i, j] + QUARTER * (trial[i, j] - depth[i, j])
                    continue
                peak[i, j], depth[i, j] = height, trial[i, j]
                uphill = slope[i, j]
                bend = TWO * LN2 * uphill * uphill / height - curvature[i, j]
                step = uphill / bend if bend > ZERO else math.copysign(longest_step, uphill)
                step = min(max(step, -longest_step), longest_step)
                trial[i, j] = min(max(depth[i, j] + step, near[i, j]), far[i, j])


@njit(nogil=True, fastmath=True, error_model="numpy", cache=True)
def gather_moments(
    g: Array, depth: Array, weights: Array, moments: Array, lanes: Array, first: int, end: int
) -> None:
    """Add to rows [first, end) of `moments` the sums that `unpack_gradient` wants.

    weights : [H, width + CHUNK], derivative of the loss by each pixel, padded with zeros.
    lanes : [10, CHUNK], working memory: sums stay vectors until a Gaussian is done.
    """
    width = depth.shape[1] - CHUNK
    for k in range(first, end):
        lanes[:] = ZERO
        for i in range(int(g[k, FIRST_ROW]), int(g[k, LAST_ROW]) + 1):
            p = F(i) - g[k, ROW]
            j0, j1 = columns(g, k, p, width)
            b0 = p * g[k, PIXEL_V]
            b1 = p * g[k, PIXEL_V + 1]
            b2 = p * g[k, PIXEL_V + 2]
            d0 = g[k, RAY] + p * g[k, RAY_V]
            d1 = g[k, RAY + 1] + p * g[k, RAY_V + 1]
            d2 = g[k, RAY + 2] + p * g[k, RAY_V + 2]
            a0, a1, a2 = g[k, PIXEL_U], g[k, PIXEL_U + 1], g[k, PIXEL_U + 2]
            e0, e1, e2 = g[k, RAY_U], g[k, RAY_U + 1], g[k, RAY_U + 2]
            t = g[k, DEPTH]
            for j in range(j0, j1 + 1, CHUNK):
                q0 = F(j) - g[k, COLUMN]
                at = depth[i, j : j + CHUNK]
                weight = weights[i, j : j + CHUNK]
                for n in range(CHUNK):
                    q = q0 + F(n)
                    along = at[n] - t
                    u0 = b0 + q * a0 + along * (d0 + q * e0)
                    u1 = b1 + q * a1 + along * (d1 + q * e1)
                    u2 = b2 + q * a2 + along * (d2 + q * e2)
                    we = weight[n] * exp2_negative(-(u0 * u0 + u1 * u1 + u2 * u2))
                    we0, we1, we2 = we * u0, we * u1, we * u2
                    lanes[0, n] += we
                    lanes[1, n] += we0
                    lanes[2, n] += we1
                    lanes[3, n] += we2
                    lanes[4, n] += we0 * u0
                    lanes[5, n] += we1 * u0
                    lanes[6, n] += we1 * u1
                    lanes[7, n] += we2 * u0
                    lanes[8, n] += we2 * u1
                    lanes[9, n] += we2 * u2
        for m in range(lanes.shape[0]):
            moments[k, m] += lanes[m].sum()
