"""Numba kernels along the rays of a view: footprints, the search for maxima, values, gradients.

See `footprint` for how a Gaussian lies on the rays, and for the symbols.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from napari_gaussfit._kernels.arithmetic import (
    HALF,
    ONE,
    TWO,
    ZERO,
    Array,
    F,
    Vector,
    exp2_negative,
    first_index,
    last_index,
)
from napari_gaussfit._kernels.footprint import (
    COLUMN,
    DEPTH,
    FAINTEST,
    FIRST_ROW,
    HEIGHT,
    LAST_ROW,
    LN2,
    PIXEL_U,
    PIXEL_V,
    QUARTER,
    RAY,
    RAY_U,
    RAY_V,
    REACH2,
    ROW,
    column_ends,
    footprint,
    mode_near_bin,
    newton_step,
)

CHUNK = 16
# What the climb sums on each ray: f, f' and f'' (see `newton_step`), at the place on trial.
VALUE, SLOPE, CURVATURE, TRIAL = 0, 1, 2, 3
# A Gaussian on one row of pixels: first and last column, then what its footprint says there, so
# that u = B + q A + s (D + q E) at column MIDDLE + q and depth AT + s.
FIRST, LAST, MIDDLE, TOP, AT, WITHIN2 = 0, 1, 2, 3, 4, 5
B, A, D, E, LINE = 6, 9, 12, 15, 18

Members = NDArray[np.int32]
Counts = NDArray[np.int64]


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
    """Fill rows [first, end) of `out` [K, FOOTPRINT]; see `footprint`."""
    for k in range(first, end):
        footprint(packed, k, frame, solve, perspective, rows, out)


@njit(inline="always")
def columns(g: Array, k: int, p: F, width: int) -> tuple[int, int]:
    """First and last column of a row that a footprint touches (last < first when none)."""
    first, last = column_ends(g, k, p, width)
    return int(first), int(last)


@njit(inline="always")
def _three(g: Array, k: int, first: int) -> Vector:
    return g[k, first], g[k, first + 1], g[k, first + 2]


@njit(inline="always")
def _at_row(g: Array, k: int, p: F, first: int, c0: F, c1: F, c2: F) -> Vector:
    """Return c + p times the vector that begins at entry `first` of footprint k."""
    return c0 + p * g[k, first], c1 + p * g[k, first + 1], c2 + p * g[k, first + 2]


@njit(nogil=True, fastmath=True, error_model="numpy", cache=True)
def list_members(g: Array, strip_rows: int, starts: Counts, members: Members) -> None:
    """List the Gaussians that touch each strip of rows, in order: members[starts[n]:starts[n+1]].

    With no room in `members`, only count: starts[-1] says how much there must be.
    """
    counting = members.size == 0
    if counting:
        starts[:] = 0
    for k in range(g.shape[0]):
        first, last = int(g[k, FIRST_ROW]), int(g[k, LAST_ROW])
        if last < first:
            continue
        for n in range(first // strip_rows, last // strip_rows + 1):
            if not counting:
                members[starts[n]] = k
            starts[n + counting] += 1
    if counting:
        starts[:] = np.cumsum(starts)
    else:
        # Each start has moved on to the next one's.
        for n in range(starts.size - 1, 0, -1):
            starts[n] = starts[n - 1]
        starts[0] = 0


@njit(nogil=True, fastmath=True, error_model="numpy", cache=True)
def _unpack_row(g: Array, members: Members, i: int, width: int, lines: Array) -> int:
    """Write one of `lines` [K, LINE] for each member that touches row i; return how many do."""
    count = 0
    for index in range(members.size):
        k = members[index]
        if g[k, FIRST_ROW] > F(i) or g[k, LAST_ROW] < F(i):
            continue
        p = F(i) - g[k, ROW]
        j0, j1 = columns(g, k, p, width)
        if j1 < j0:
            continue
        line = lines[count]
        line[FIRST], line[LAST] = F(j0), F(j1)
        line[MIDDLE], line[TOP], line[AT] = g[k, COLUMN], g[k, HEIGHT], g[k, DEPTH]
        line[WITHIN2] = g[k, REACH2]
        for n in range(3):
            line[B + n] = p * g[k, PIXEL_V + n]
            line[A + n] = g[k, PIXEL_U + n]
            line[D + n] = g[k, RAY + n] + p * g[k, RAY_V + n]
            line[E + n] = g[k, RAY_U + n]
        count += 1
    return count


@njit(nogil=True, fastmath=True, error_model="numpy", cache=True)
def _highest_modes(
    bins: Array, near: Array, far: Array, bin_start: F, bin_step: F, depth: Array, lanes: Array
) -> None:
    """Set `depth` to the highest mode on each ray, by parabolas through the logs of three bins.

    The bins' values alone rank modes wrongly, by up to an eighth at a step of one sigma; and
    what they hold beyond the ends of a ray must not count.
    """
    count, padded = bins.shape
    lows, highs, tops, best = lanes[0], lanes[1], lanes[2], lanes[3]
    inverse = F(1.0) / bin_step
    for j in range(padded):
        lows[j] = max(ZERO, np.floor((near[j] - bin_start) * inverse))
        highs[j] = min(F(count - 1), np.ceil((far[j] - bin_start) * inverse))
        tops[j], best[j] = FAINTEST, -F(1e30)
        depth[j] = HALF * (near[j] + far[j])
    # What bins between the ends of a ray hold is surely reached on it: the rest must beat that.
    for b in range(count):
        at = bin_start + F(b) * bin_step
        for j in range(padded):
            inside = (near[j] <= at) & (at <= far[j])
            tops[j] = max(tops[j], bins[np.uintp(b), np.uintp(j)] if inside else ZERO)
    for b in range(count):
        here = np.uintp(b)
        previous, following = np.uintp(max(b - 1, 0)), np.uintp(min(b + 1, count - 1))
        for c in range(0, padded - CHUNK, CHUNK):
            some = ZERO
            for n in range(CHUNK):
                lane = np.uintp(c + n)
                value, before, after = bins[here, lane], bins[previous, lane], bins[following, lane]
                # No profile in the bins is narrower than one: a top is 2^(1/4) higher at most.
                high = max(F(1.2) * value, before, after) >= tops[lane]
                inside = (lows[lane] <= F(b)) & (F(b) <= highs[lane]) & (value > FAINTEST)
                some = max(some, ONE if high & inside else ZERO)
            if some == ZERO:
                continue
            for j in range(c, c + CHUNK):
                low, high = int(lows[j]), int(highs[j])
                if b < low or b > high:
                    continue
                value, before, after = bins[b, j], bins[previous, j], bins[following, j]
                peak = value >= before and value >= after
                if not (peak or b in (low, high)):
                    continue
                if max(F(1.2) * value, before, after) < tops[j] or value <= FAINTEST:
                    continue
                at = bin_start + F(b) * bin_step
                least, most = (near[j] - at) * inverse, (far[j] - at) * inverse
                estimate, move = mode_near_bin(before, value, after, least, most, peak)
                if estimate > best[j]:
                    best[j], depth[j] = estimate, at + move * bin_step
    for j in range(padded):
        depth[j] = min(max(depth[j], near[j]), far[j])


@njit(nogil=True, fastmath=True, error_model="numpy", cache=True)
def _search_row(
    lines: Array, bins: Array, near: Array, far: Array, bin_start: F, bin_step: F, depth: Array
) -> None:
    """Set `depth` on the rays of a row to the mode that bins along them, [T, W], show highest.

    A profile is added up at the bins' centres; one narrower than a bin, which would hide between
    them, is widened.
    """
    count = bins.shape[0]
    bins[:] = ZERO
    lanes = np.empty((4, bins.shape[1]), np.float32)
    beside, place, sharpness = lanes[0, :CHUNK], lanes[1, :CHUNK], lanes[2, :CHUNK]
    widest = F(1.0) / (bin_step * bin_step)
    inverse = F(1.0) / bin_step
    for k in range(lines.shape[0]):
        b0, b1, b2 = _three(lines, k, B)
        a0, a1, a2 = _three(lines, k, A)
        d0, d1, d2 = _three(lines, k, D)
        e0, e1, e2 = _three(lines, k, E)
        height, t, r2 = lines[k, TOP], lines[k, AT], lines[k, WITHIN2]
        j1 = int(lines[k, LAST])
        for j in range(int(lines[k, FIRST]), j1 + 1, CHUNK):
            q0 = F(j) - lines[k, MIDDLE]
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
                beside[n], place[n] = m, t + s
                sharpness[n] = a
                reach = math.sqrt(max(r2 - m, ZERO) / a)
                earliest = min(earliest, t + s - reach if inside else F(1e30))
                latest = max(latest, t + s + reach if inside else -F(1e30))
            low = first_index((earliest - bin_start) * inverse, 0)
            high = last_index((latest - bin_start) * inverse, count - 1)
            for b in range(low, high + 1):
                at = bin_start + F(b) * bin_step
                for n in range(CHUNK):
                    s = at - place[n]
                    bins[np.uintp(b), np.uintp(j + n)] += height * exp2_negative(
                        -(beside[n] + sharpness[n] * s * s)
                    )
    _highest_modes(bins, near, far, bin_start, bin_step, depth, lanes)


@njit(nogil=True, fastmath=True, error_model="numpy", cache=True)
def _climb_row(
    lines: Array,
    near: Array,
    far: Array,
    longest_step: F,
    evaluations: int,
    sums: Array,
    depth: Array,
    peak: Array,
) -> None:
    """Move `depth` to the mode of f along each ray of a row and set `peak` to f there.

    By steps of `newton_step`; one that led downhill is taken back by three quarters.
    sums : [4, W], working memory.
    """
    for j in range(depth.size):
        sums[TRIAL, j], peak[j] = depth[j], ZERO
    for _ in range(evaluations):
        sums[:TRIAL] = ZERO
        for k in range(lines.shape[0]):
            b0, b1, b2 = _three(lines, k, B)
            a0, a1, a2 = _three(lines, k, A)
            d0, d1, d2 = _three(lines, k, D)
            e0, e1, e2 = _three(lines, k, E)
            height, t = lines[k, TOP], lines[k, AT]
            for j in range(int(lines[k, FIRST]), int(lines[k, LAST]) + 1, CHUNK):
                q0 = F(j) - lines[k, MIDDLE]
                for n in range(CHUNK):
                    q = q0 + F(n)
                    s = sums[TRIAL, np.uintp(j + n)] - t
                    y0, y1, y2 = d0 + q * e0, d1 + q * e1, d2 + q * e2
                    u0 = b0 + q * a0 + s * y0
                    u1 = b1 + q * a1 + s * y1
                    u2 = b2 + q * a2 + s * y2
                    e = height * exp2_negative(-(u0 * u0 + u1 * u1 + u2 * u2))
                    uy = u0 * y0 + u1 * y1 + u2 * y2
                    bend = TWO * LN2 * uy * uy - (y0 * y0 + y1 * y1 + y2 * y2)
                    sums[VALUE, np.uintp(j + n)] += e
                    sums[SLOPE, np.uintp(j + n)] -= e * uy
                    sums[CURVATURE, np.uintp(j + n)] += e * bend
        for j in range(depth.size - CHUNK):
            height = sums[VALUE, j]
            if height <= peak[j]:
                sums[TRIAL, j] = depth[j] + QUARTER * (sums[TRIAL, j] - depth[j])
                continue
            peak[j], depth[j] = height, sums[TRIAL, j]
            step = newton_step(height, sums[SLOPE, j], sums[CURVATURE, j], longest_step)
            sums[TRIAL, j] = min(max(depth[j] + step, near[j]), far[j])


@njit(nogil=True, fastmath=True, error_model="numpy", cache=True)
def find_modes(
    g: Array,
    members: Members,
    first_row: int,
    end_row: int,
    near: Array,
    far: Array,
    bin_start: F,
    bin_step: F,
    bin_count: int,
    evaluations: int,
    depth: Array,
    peak: Array,
) -> None:
    """Set `depth` to the highest mode of f on rays [first_row, end_row) and `peak` to f there.

    With no bins there is no search: the climb to the mode begins where `depth` says.
    near, far, depth, peak : [H, width + CHUNK].
    """
    padded = depth.shape[1]
    lines = np.empty((members.size, LINE), np.float32)
    bins = np.empty((bin_count, padded), np.float32)
    sums = np.empty((4, padded), np.float32)
    for i in range(first_row, end_row):
        touching = lines[: _unpack_row(g, members, i, padded - CHUNK, lines)]
        if bin_count > 0:
            _search_row(touching, bins, near[i], far[i], bin_start, bin_step, depth[i])
        _climb_row(touching, near[i], far[i], bin_step, evaluations, sums, depth[i], peak[i])


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
        a0, a1, a2 = _three(g, k, PIXEL_U)
        c0, c1, c2 = _three(g, k, RAY)
        e0, e1, e2 = _three(g, k, RAY_U)
        t = g[k, DEPTH]
        for i in range(int(g[k, FIRST_ROW]), int(g[k, LAST_ROW]) + 1):
            p = F(i) - g[k, ROW]
            j0, j1 = columns(g, k, p, width)
            b0, b1, b2 = _at_row(g, k, p, PIXEL_V, ZERO, ZERO, ZERO)
            d0, d1, d2 = _at_row(g, k, p, RAY_V, c0, c1, c2)
            for j in range(j0, j1 + 1, CHUNK):
                q0 = F(j) - g[k, COLUMN]
                for n in range(CHUNK):
                    q = q0 + F(n)
                    along = depth[np.uintp(i), np.uintp(j + n)] - t
                    u0 = b0 + q * a0 + along * (d0 + q * e0)
                    u1 = b1 + q * a1 + along * (d1 + q * e1)
                    u2 = b2 + q * a2 + along * (d2 + q * e2)
                    e = exp2_negative(-(u0 * u0 + u1 * u1 + u2 * u2))
                    we = weights[np.uintp(i), np.uintp(j + n)] * e
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
