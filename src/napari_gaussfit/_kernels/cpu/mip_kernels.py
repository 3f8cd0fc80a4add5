"""Numba kernels that find the maximum of f on each ray: a search in bins, then a climb to the mode.

See `footprint` for how a Gaussian lies on the rays, and for the symbols.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from napari_gaussfit._kernels.cpu.jit import (
    CHUNK,
    WIDTH,
    add_to,
    fast_kernel,
    filled,
    highest,
    inlined,
    lanes,
    load,
    lowest,
    part,
    ramp,
    up_to,
)
from napari_gaussfit._kernels.cpu.ray_kernels import columns, three
from napari_gaussfit._kernels.shared.footprint import (
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
    mode_near_bin,
    newton_step,
)
from napari_gaussfit._kernels.shared.gaussian import (
    HALF,
    NOWHERE,
    TWO,
    ZERO,
    Array,
    F,
    exp2_negative,
    first_index,
    last_index,
    log2_positive,
)

# What the climb sums on each ray: f, f' and f'' (see `newton_step`), at the place on trial.
VALUE, SLOPE, CURVATURE, TRIAL = 0, 1, 2, 3
# A Gaussian on one row of pixels: first and last column, then what its footprint says there, so
# that u = B + q A + s (D + q E) at column MIDDLE + q and depth AT + s.
FIRST, LAST, MIDDLE, TOP, AT, WITHIN2 = 0, 1, 2, 3, 4, 5
B, A, D, E, LINE = 6, 9, 12, 15, 18

NOTHING = F(-99.0)  # log2 of less than any bin holds that something adds to

Members = NDArray[np.int32]
Counts = NDArray[np.int64]

# What kernels are given together is in plain tuples: numba's cache would keep the names of others'
# classes, and could not be read any more where one has gone.
Strips = tuple[Counts, Members, int]
"""Where each strip's Gaussians begin in all of them, these (see `list_members`), and its rows."""
Ends = tuple[Array, Array]
"""Where rays enter and leave the box, in t: both [H, width + CHUNK]."""
Search = tuple[F, F, int, int]
"""Of bins along rays the first one's centre, the distance in t and the number; evaluations of the
climb after them."""


@fast_kernel
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


@part
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


@inlined
def _note(spans: Counts, j: int, low: int, high: int) -> None:
    """Widen the spans of bins that columns from j on have something in."""
    for chunk in range(j // CHUNK, (j + WIDTH - 1) // CHUNK + 1):
        spans[chunk, 0], spans[chunk, 1] = min(spans[chunk, 0], low), max(spans[chunk, 1], high)


@inlined
def _may_peak(bins: Array, b: int, c: int) -> bool:
    """Whether bin b holds something, and no less than both beside it, on any ray of a chunk."""
    before, after = max(b - 1, 0), min(b + 1, bins.shape[0] - 1)
    above = filled(-NOWHERE)
    for j in range(c, c + CHUNK, WIDTH):
        middle = load(bins, (b, j))
        beside = max(load(bins, (before, j)), load(bins, (after, j)))
        above = max(above, middle - max(beside, FAINTEST))
    return bool(highest(above) >= ZERO)


@part
def _highest_modes(
    bins: Array, spans: Counts, near: Array, far: Array, bin_start: F, bin_step: F, depth: Array
) -> None:
    """Set `depth` to the highest mode on each ray, by parabolas through the logs of three bins.

    The bins' values alone rank modes wrongly, by up to an eighth at a step of one sigma; and
    what they hold beyond the ends of a ray must not count. Bins and spans are left empty.
    """
    count, padded = bins.shape
    inverse = F(1.0) / bin_step
    state = lanes(6)
    start, stop, low, high = state[0], state[1], state[2], state[3]  # in bins
    best, place = state[4], state[5]
    for c in range(0, padded - CHUNK, CHUNK):
        first_start, last_start, first_stop, last_stop = NOWHERE, -NOWHERE, NOWHERE, -NOWHERE
        for n in range(CHUNK):
            lane = np.uintp(c + n)
            start[n] = (near[lane] - bin_start) * inverse
            stop[n] = (far[lane] - bin_start) * inverse
            low[n], high[n] = max(ZERO, np.floor(start[n])), min(F(count - 1), np.ceil(stop[n]))
            best[n], place[n] = NOTHING, HALF * (start[n] + stop[n])
            first_start, last_start = min(first_start, low[n]), max(last_start, low[n])
            first_stop, last_stop = min(first_stop, high[n]), max(last_stop, high[n])
        first, last = spans[c // CHUNK, 0], spans[c // CHUNK, 1]
        for b in range(first, last + 1):
            at, before, after = F(b), np.uintp(max(b - 1, 0)), np.uintp(min(b + 1, count - 1))
            ends = first_start <= at <= last_start or first_stop <= at <= last_stop
            if not (ends or _may_peak(bins, b, c)):
                continue
            for n in range(CHUNK):
                lane = np.uintp(c + n)
                left = log2_positive(max(bins[before, lane], FAINTEST))
                middle = log2_positive(max(bins[np.uintp(b), lane], FAINTEST))
                right = log2_positive(max(bins[after, lane], FAINTEST))
                peak = (middle >= left) & (middle >= right)
                estimate, move = mode_near_bin(
                    left, middle, right, start[n] - at, stop[n] - at, peak
                )
                end = (at == low[n]) | (at == high[n])
                inside = (low[n] <= at) & (at <= high[n])
                better = (peak | end) & inside & (middle > NOTHING) & (estimate > best[n])
                best[n] = estimate if better else best[n]
                place[n] = at + move if better else place[n]
        bins[first : last + 1, c : c + CHUNK] = ZERO
        spans[c // CHUNK, 0], spans[c // CHUNK, 1] = count, -1
        for n in range(CHUNK):
            lane = np.uintp(c + n)
            at = bin_start + place[n] * bin_step
            depth[lane] = min(max(at, near[lane]), far[lane])


@part
def _search_row(
    lines: Array,
    bins: Array,
    spans: Counts,
    near: Array,
    far: Array,
    bin_start: F,
    bin_step: F,
    depth: Array,
) -> None:
    """Set `depth` on the rays of a row to the mode that bins along them, [T, W], show highest.

    A profile is added up at the bins' centres; one narrower than a bin, which would hide between
    them, is widened. `spans` are the first and the last bin that a chunk of rays has anything in.
    """
    count = bins.shape[0]
    widest = F(1.0) / (bin_step * bin_step)
    inverse = F(1.0) / bin_step
    for k in range(lines.shape[0]):
        b0, b1, b2 = three(lines, k, B)
        a0, a1, a2 = three(lines, k, A)
        d0, d1, d2 = three(lines, k, D)
        e0, e1, e2 = three(lines, k, E)
        height, t, r2 = lines[k, TOP], lines[k, AT], lines[k, WITHIN2]
        j1 = int(lines[k, LAST])
        for j in range(int(lines[k, FIRST]), j1 + 1, WIDTH):
            q = F(j) - lines[k, MIDDLE] + ramp()
            x0, x1, x2 = b0 + q * a0, b1 + q * a1, b2 + q * a2
            y0, y1, y2 = d0 + q * e0, d1 + q * e1, d2 + q * e2
            a = y0 * y0 + y1 * y1 + y2 * y2
            s = -(x0 * y0 + x1 * y1 + x2 * y2) / a
            beside = max(x0 * x0 + x1 * x1 + x2 * x2 - a * s * s, ZERO)
            a = min(a, widest)
            place, reach = s + t, math.sqrt(max(r2 - beside, ZERO) / a)
            begin = lowest(up_to(j1 - j, place - reach, NOWHERE))
            end = highest(up_to(j1 - j, place + reach, -NOWHERE))
            low = first_index((begin - bin_start) * inverse, 0)
            high = last_index((end - bin_start) * inverse, count - 1)
            if low <= high:
                _note(spans, j, low, high)
            for b in range(low, high + 1):
                s = (bin_start + F(b) * bin_step) - place
                add_to(bins, (b, j), height * exp2_negative(-(beside + a * s * s)))
    _highest_modes(bins, spans, near, far, bin_start, bin_step, depth)


@part
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
            b0, b1, b2 = three(lines, k, B)
            a0, a1, a2 = three(lines, k, A)
            d0, d1, d2 = three(lines, k, D)
            e0, e1, e2 = three(lines, k, E)
            height, t = lines[k, TOP], lines[k, AT]
            for j in range(int(lines[k, FIRST]), int(lines[k, LAST]) + 1, WIDTH):
                q = F(j) - lines[k, MIDDLE] + ramp()
                s = load(sums, (TRIAL, j)) - t
                y0, y1, y2 = d0 + q * e0, d1 + q * e1, d2 + q * e2
                u0, u1, u2 = b0 + q * a0 + s * y0, b1 + q * a1 + s * y1, b2 + q * a2 + s * y2
                e = height * exp2_negative(-(u0 * u0 + u1 * u1 + u2 * u2))
                uy = u0 * y0 + u1 * y1 + u2 * y2
                bend = TWO * LN2 * uy * uy - (y0 * y0 + y1 * y1 + y2 * y2)
                add_to(sums, (VALUE, j), e)
                add_to(sums, (SLOPE, j), -(e * uy))
                add_to(sums, (CURVATURE, j), e * bend)
        for j in range(depth.size - CHUNK):
            height, trial = sums[VALUE, j], sums[TRIAL, j]
            higher = height > peak[j]
            step = newton_step(height, sums[SLOPE, j], sums[CURVATURE, j], longest_step)
            ahead = min(max(trial + step, near[j]), far[j])
            back = depth[j] + QUARTER * (trial - depth[j])
            sums[TRIAL, j] = ahead if higher else back
            peak[j], depth[j] = max(peak[j], height), trial if higher else depth[j]


@fast_kernel
def find_modes(
    g: Array,
    strips: Strips,
    ends: Ends,
    search: Search,
    depth: Array,
    peak: Array,
    first: int,
    end: int,
) -> None:
    """Set `depth` to the highest mode of f on rays and `peak` to f there, on strips [first, end).

    With no bins there is no search: the climb to the mode begins where `depth` says.
    depth, peak : [H, width + CHUNK].
    """
    starts, members, strip_rows = strips
    near, far = ends
    bin_start, bin_step, bin_count, evaluations = search
    rows, padded = depth.shape
    bins = np.zeros((bin_count, padded), np.float32)
    spans = np.empty((padded // CHUNK + 1, 2), np.int64)
    spans[:, 0], spans[:, 1] = bin_count, -1
    sums = np.empty((4, padded), np.float32)
    for n in range(first, end):
        some = members[starts[n] : starts[n + 1]]
        lines = np.empty((some.size, LINE), np.float32)
        for i in range(n * strip_rows, min((n + 1) * strip_rows, rows)):
            touching = lines[: _unpack_row(g, some, i, padded - CHUNK, lines)]
            if bin_count > 0:
                _search_row(touching, bins, spans, near[i], far[i], bin_start, bin_step, depth[i])
            _climb_row(touching, near[i], far[i], bin_step, evaluations, sums, depth[i], peak[i])
