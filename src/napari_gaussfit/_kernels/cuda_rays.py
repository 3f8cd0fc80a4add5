"""CUDA kernels along the rays of views: footprints, the search for maxima, values, gradients.

The twins of `cpu_rays` and `cpu_modes`. An image is a view of one channel: image n shows channel
n // V in view n % V. A block has one tile of an image, a thread one pixel; backward, a block has
one Gaussian and gathers over its footprint in every view.
"""

from __future__ import annotations

import math

import numpy as np
from numba import cuda

from napari_gaussfit._kernels.arithmetic import HALF, INT, RADIUS2, TWO, ZERO, Array, F, with_point
from napari_gaussfit._kernels.arithmetic import exp2_negative as exp2
from napari_gaussfit._kernels.cuda_device import (
    CAPACITY,
    GATHERING,
    GROUP,
    NO_MOMENTS,
    RECORDS,
    STAGED,
    SUMS,
    WIDE,
    Counts,
    add_up,
    ceil_int,
    collect,
    device,
    floor_int,
    kernel,
    stage,
)
from napari_gaussfit._kernels.footprint import (
    DEPTH,
    FAINTEST,
    FIRST_ROW,
    FOOTPRINT,
    HEIGHT,
    LAST_ROW,
    LN2,
    QUARTER,
    REACH2,
    ROW,
    column_ends,
    column_extent,
    depth_per_u,
    dot,
    footprint,
    mode_near_bin,
    newton_step,
    on_ray,
)
from napari_gaussfit._kernels.profiles import profile

TILE = 8
THREADS = TILE * TILE
SCAN = THREADS + THREADS // GROUP
CELL = 128  # pixels a side that have a list of Gaussians in common
BINS = 64  # depth bins a pixel that shared memory holds; a longer ray is searched in pieces
SEARCHED = (BINS, THREADS)
EVALUATIONS = 4  # of f on the climb from a bin's centre to the mode
FARTHEST = INT(1 << 30)
FAR_BIN = 1 << 30  # beyond every bin: all depths are in one cell
PERSPECTIVE, ROWS, WIDTH = 0, 1, 2  # columns of a table of views
FIRST_BIN, BIN_STEP, BIN_COUNT = 0, 1, 2  # columns of a table of searches


@kernel
def project(
    packed: Array,
    frames: Array,
    solves: Array,
    views: Counts,
    searches: Array,
    footprints: Array,
    boxes: Counts,
) -> None:
    """Find where every Gaussian lies in every image: one thread a pair of both.

    packed : [C, K, PACKED]. frames, solves, views, searches : [V, 6, 3], [V, 3, 3], [V, 3], [V, 3].
    footprints, boxes : [N, K, FOOTPRINT] and [N, 6, K], the latter bins, rows and columns.
    """
    k, n = cuda.grid(1), cuda.blockIdx.y
    if k >= packed.shape[1]:
        return
    v, channel = n % frames.shape[0], n // frames.shape[0]
    rows, width = views[v, ROWS], views[v, WIDTH]
    g = footprints[n]
    footprint(packed[channel], k, frames[v], solves[v], views[v, PERSPECTIVE] != 0, rows, g)
    first, last = INT(g[k, FIRST_ROW]), INT(g[k, LAST_ROW])
    left, right, low, high = FARTHEST, -FARTHEST, FARTHEST, -FARTHEST
    if first <= last:
        leftmost, rightmost = column_extent(g, k, width)
        left, right = INT(leftmost), INT(rightmost)
        step, r = searches[v, BIN_STEP], math.sqrt(packed[channel, k, RADIUS2])
        reach = r * max(depth_per_u(packed[channel], k, solves[v]), step)
        low = floor_int((g[k, DEPTH] - reach - searches[v, FIRST_BIN]) / step)
        high = ceil_int((g[k, DEPTH] + reach - searches[v, FIRST_BIN]) / step)
    else:
        first, last = FARTHEST, -FARTHEST
    boxes[n, 0, k], boxes[n, 1, k] = low, high
    boxes[n, 2, k], boxes[n, 3, k] = first, last
    boxes[n, 4, k], boxes[n, 5, k] = left, right


@device
def cell_of_tile(row: int, column: int, width: int) -> int:
    """Return the number of the cell that holds a tile; `width` is the padded images'."""
    return (row * TILE // CELL) * ((width + CELL - 1) // CELL) + column * TILE // CELL


@device
def consider(
    best: tuple[F, F, F], b: int, before: F, value: F, after: F, ray: tuple[F, F], search: Array
) -> tuple[F, F, F]:
    """Return the highest mode so far (log2, place, height), bin b among those looked at.

    The bins' values alone rank modes wrongly, by up to an eighth at a step of one sigma; and
    what they hold beyond the ends of a ray must not count.
    """
    start, stop = ray
    first, step = search[FIRST_BIN], search[BIN_STEP]
    low = max(INT(0), floor_int((start - first) / step))
    high = min(INT(search[BIN_COUNT]) - INT(1), ceil_int((stop - first) / step))
    if b < low or b > high:
        return best
    peak = value >= before and value >= after
    if not (peak or b == low or b == high):  # noqa: PLR1714, SIM109 - numba has no `in` here
        return best
    # No profile in the bins is narrower than one: a top is 2^(1/4) higher at most.
    if max(F(1.2) * value, before, after) <= best[2] or value <= FAINTEST:
        return best
    at = first + F(b) * step
    least, most = (start - at) / step, (stop - at) / step
    left, right = math.log2(max(before, FAINTEST)), math.log2(max(after, FAINTEST))
    estimate, move = mode_near_bin(F(left), F(math.log2(value)), F(right), least, most, peak)
    if estimate <= best[0]:
        return best
    return estimate, at + move * step, F(math.pow(TWO, estimate))


@kernel
def search(
    footprints: Array,
    boxes: Counts,
    lists: Counts,
    counts: Counts,
    views: Counts,
    near: Array,
    far: Array,
    searches: Array,
    depth: Array,
) -> None:
    """Set `depth` [N, H, W] to where the highest mode of f is, by depth bins in shared memory.

    near, far : [V, H, W], where rays enter and leave the box.
    """
    scan = cuda.shared.array(SCAN, np.int32)
    found = cuda.shared.array(CAPACITY, np.uint32)
    records = cuda.shared.array(STAGED, np.float32, WIDE)
    bins = cuda.shared.array(SEARCHED, np.float32)
    n, thread = cuda.blockIdx.z, cuda.threadIdx.x
    v, row, column = n % near.shape[0], cuda.blockIdx.y * TILE, cuda.blockIdx.x * TILE
    if row >= views[v, ROWS] or column >= views[v, WIDTH]:
        return
    i, j = row + thread // TILE, column + thread % TILE
    held = i < views[v, ROWS] and j < views[v, WIDTH]
    ray = (ZERO, ZERO)
    if held:
        ray = (near[v, i, j], far[v, i, j])
    on = ray[0] < ray[1]
    cell = cell_of_tile(cuda.blockIdx.y, cuda.blockIdx.x, near.shape[2])
    g, candidates, count = footprints[n], lists[n, cell], counts[n, cell]
    first, step = searches[v, FIRST_BIN], searches[v, BIN_STEP]
    bin_count = INT(searches[v, BIN_COUNT])
    # A profile narrower than a bin would hide between the centres: widen it.
    widest = F(1.0) / (step * step)
    best = (-F(1e30), HALF * (ray[0] + ray[1]), ZERO)
    before, value = ZERO, ZERO
    begin = INT(0)
    while begin < bin_count:
        size = min(INT(BINS), bin_count - begin)
        for b in range(size):
            bins[b, thread] = ZERO
        tile = (
            begin,
            begin + size - INT(1),
            row,
            row + TILE - 1,
            column,
            column + TILE - 1,
        )
        start = INT(0)
        while start < count:
            number, start = collect(
                boxes, n, tile, candidates, count, start, found, scan, thread, THREADS
            )
            for part in range(0, number, RECORDS):
                staged = stage(g, found, part, number, records, FOOTPRINT, thread, THREADS)
                if on:
                    for m in range(staged):
                        add_profile(
                            records, m, i, j, first, step, widest, begin, size, bins, thread
                        )
        for b in range(size):
            after = bins[b, thread]
            if begin + b == 0:
                before = after
            else:
                if on:
                    best = consider(best, begin + b - 1, before, value, after, ray, searches[v])
                before = value
            value = after
        begin += INT(BINS)
    if held:
        if on:
            best = consider(best, bin_count - 1, before, value, value, ray, searches[v])
        depth[n, i, j] = min(max(best[1], ray[0]), ray[1])


@device
def add_profile(
    g: Array,
    k: int,
    i: int,
    j: int,
    first: F,
    step: F,
    widest: F,
    begin: int,
    size: int,
    bins: Array,
    thread: int,
) -> None:
    """Add Gaussian k's profile on the ray of pixel (i, j) to bins [begin, begin + size).

    Evenly spaced exponents are quadratic in the bin's number: each value is the last one's times
    a ratio, and each ratio the last one's times a constant.
    """
    c, _, a, place = profile(g, k, i, j)
    m, r2 = dot(c, c), g[k, REACH2]
    if m >= r2:
        return
    sharp = min(a, widest)
    reach = math.sqrt((r2 - m) / sharp)
    low = max(begin, ceil_int((place - reach - first) / step))
    high = min(begin + size - INT(1), floor_int((place + reach - first) / step))
    if low > high:
        return
    s = first + F(low) * step - place
    value = g[k, HEIGHT] * exp2(-(m + sharp * s * s))
    ratio = exp2(-sharp * step * (TWO * s + step))
    shrink = exp2(-TWO * sharp * step * step)
    for b in range(low - begin, high - begin + 1):
        bins[b, thread] += value
        value *= ratio
        ratio *= shrink


@kernel
def climb(
    footprints: Array,
    boxes: Counts,
    lists: Counts,
    counts: Counts,
    views: Counts,
    near: Array,
    far: Array,
    searches: Array,
    depth: Array,
    peaks: Array,
) -> None:
    """Move `depth` [N, H, W] to the mode of f along each ray and set `peaks` to f there.

    By steps of `newton_step`, no longer than a bin; one that led downhill is taken back by three
    quarters. A ray that misses the box has the peak 0.
    """
    scan = cuda.shared.array(SCAN, np.int32)
    found = cuda.shared.array(CAPACITY, np.uint32)
    records = cuda.shared.array(STAGED, np.float32, WIDE)
    n, thread = cuda.blockIdx.z, cuda.threadIdx.x
    v, row, column = n % near.shape[0], cuda.blockIdx.y * TILE, cuda.blockIdx.x * TILE
    if row >= views[v, ROWS] or column >= views[v, WIDTH]:
        return
    i, j = row + thread // TILE, column + thread % TILE
    held = i < views[v, ROWS] and j < views[v, WIDTH]
    start, stop, trial = ZERO, ZERO, ZERO
    if held:
        start, stop, trial = near[v, i, j], far[v, i, j], depth[n, i, j]
    on = start < stop
    cell = cell_of_tile(cuda.blockIdx.y, cuda.blockIdx.x, near.shape[2])
    g, candidates, count = footprints[n], lists[n, cell], counts[n, cell]
    tile = (-FARTHEST, FARTHEST, row, row + TILE - 1, column, column + TILE - 1)
    number, at = collect(boxes, n, tile, candidates, count, INT(0), found, scan, thread, THREADS)
    whole = at >= count
    peak, best = ZERO, trial
    for _ in range(EVALUATIONS):
        value, slope, curvature = ZERO, ZERO, ZERO
        going = True
        while going:
            for part in range(0, number, RECORDS):
                staged = stage(g, found, part, number, records, FOOTPRINT, thread, THREADS)
                if on:
                    for m in range(staged):
                        u, d = on_ray(records, m, i, j, trial - records[m, DEPTH])
                        square = dot(u, u)
                        if square < records[m, REACH2]:
                            e = records[m, HEIGHT] * exp2(-square)
                            ud = dot(u, d)
                            value += e
                            slope -= e * ud
                            curvature += e * (TWO * LN2 * ud * ud - dot(d, d))
            going = not whole and at < count
            if not whole:
                if not going:
                    at = INT(0)  # from the beginning, for the next evaluation
                number, at = collect(
                    boxes, n, tile, candidates, count, at, found, scan, thread, THREADS
                )
        if value > peak:
            peak, best = value, trial
            step = newton_step(value, slope, curvature, searches[v, BIN_STEP])
            trial = min(max(best + step, start), stop)
        else:
            trial = best + QUARTER * (trial - best)
    if held:
        depth[n, i, j], peaks[n, i, j] = best, peak


@kernel
def gather_moments(
    footprints: Array,
    boxes: Counts,
    views: Counts,
    near: Array,
    far: Array,
    depth: Array,
    weights: Array,
    moments: Array,
) -> None:
    """Set `moments` [C, K, 10] to the sums that `unpack_gradient` wants, of f where it is largest.

    weights : [N, H, W], derivative of the loss by each pixel.
    """
    sums = cuda.shared.array(SUMS, np.float32)
    k, channel, thread = cuda.blockIdx.x, cuda.blockIdx.y, cuda.threadIdx.x
    s = NO_MOMENTS
    for v in range(near.shape[0]):
        n = channel * near.shape[0] + v
        g, width = footprints[n], views[v, WIDTH]
        for i in range(boxes[n, 2, k] + thread // GATHERING, boxes[n, 3, k] + 1, GATHERING):
            first, last = column_ends(g, k, F(i) - g[k, ROW], width)
            for j in range(INT(first) + thread % GATHERING, INT(last) + 1, GATHERING):
                if near[v, i, j] < far[v, i, j]:
                    u, _ = on_ray(g, k, i, j, depth[n, i, j] - g[k, DEPTH])
                    square = dot(u, u)
                    if square < g[k, REACH2]:
                        we = weights[n, i, j] * exp2(-square)
                        s = with_point(s, we, u[0], u[1], u[2])
    add_up(s, sums, thread, moments[channel, k])
