"""Numba kernels along the rays of a view: footprints, the search for maxima, values, gradients.

See `footprint` for how a Gaussian lies on the rays, and for the symbols.
"""

from __future__ import annotations

import math

from numba import njit

from napari_gaussfit._kernels.arithmetic import HALF, TWO, ZERO, Array, F, exp2_negative
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
                at = bin_start + F(b) * bin_step
                least, most = (start - at) / bin_step, (stop - at) / bin_step
                estimate, move = mode_near_bin(before, value, after, least, most, peak)
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

    By steps of `newton_step`; one that led downhill is taken back by three quarters.
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
                step = newton_step(height, slope[i, j], curvature[i, j], longest_step)
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
