"""CUDA kernels along the rays of views: footprints, the search for maxima, values, gradients.

The twins of `cpu.ray_kernels` and `cpu.mip_kernels`. An image is a view of one channel: image n
shows channel n // V in view n % V. A block has one tile of an image, a thread one pixel; backward,
a block has one Gaussian and gathers over its footprint in every view.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import cuda

from napari_gaussfit._kernels.cuda.device import (
    GATHERING,
    GROUP,
    LISTING_SCAN,
    LISTING_THREADS,
    RECORDS,
    SHARE,
    SUMS,
    WIDE,
    Counts,
    U,
    add_up,
    ceil_int,
    collect,
    device,
    floor_int,
    kernel,
    overlap,
    places,
    stage,
)
from napari_gaussfit._kernels.shared.footprint import (
    DEPTH,
    FAINTEST,
    FIRST_ROW,
    FOOTPRINT,
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
from napari_gaussfit._kernels.shared.gaussian import (
    HALF,
    INT,
    NO_MOMENTS,
    ONE,
    RADIUS2,
    TWO,
    ZERO,
    Array,
    F,
    Index,
    with_point,
)
from napari_gaussfit._kernels.shared.gaussian import exp2_negative as exp2
from napari_gaussfit._kernels.shared.profile import (
    LIMIT,
    PEAK,
    PROFILE,
    profile_of,
    profile_on_ray,
    square_on_ray,
)

TILE = 8
TILE_PIXELS = THREADS = TILE * TILE
SPLIT = 4  # threads a pixel where there are few, among which Gaussians are divided
SCAN = THREADS + THREADS // GROUP
CELL = 128  # pixels a side that have a list of Gaussians in common
BINS, BINS_OF_SPLIT = 48, 32  # depth bins a pixel in shared memory; a longer ray comes in pieces
FOUND = 512  # Gaussians that a tile keeps in shared memory; more of them come in pieces
SMALL = 32  # pixels a side of a small cell, whose list is taken from that of its cell
SMALL_IN_CELL = CELL // SMALL
ROOM = 8  # of the Gaussians, a part that a small cell's list has room for
LEAST_ROOM = 256
EVALUATIONS = 4  # of f on the climb from a bin's centre to the mode
FARTHEST_CLIMB = F(EVALUATIONS - 1) + F(0.01)  # bins from its start that a climb can come
KEPT, KEPT_OF_SPLIT = 16, 8  # profiles that a thread keeps on a climb
STAGED_PROFILES = (RECORDS, PROFILE)
MAKING = 128  # threads that make a footprint and a profile each
MADE_FOOTPRINTS = (MAKING, FOOTPRINT + 1)
MADE_PROFILES = (MAKING, PROFILE + 1)
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
    profiles: Array,
    boxes: Counts,
) -> None:
    """Find where every Gaussian lies in every image: one thread a pair of both.

    packed : [C, K, PACKED]. frames, solves, views, searches : [V, 6, 3], [V, 3, 3], [V, 3], [V, 3].
    footprints, profiles : [N, K, FOOTPRINT] and [N, K, PROFILE].
    boxes : [N, 6, K], bins, rows and columns.
    """
    # Rows are made in shared memory and copied together: a thread that wrote a row of its own
    # would fill each sector of memory in eight turns. The last column spares bank conflicts.
    g = cuda.shared.array(MADE_FOOTPRINTS, np.float32)
    r = cuda.shared.array(MADE_PROFILES, np.float32)
    begin, thread, n = cuda.blockIdx.x * MAKING, cuda.threadIdx.x, cuda.blockIdx.y
    k, count = begin + thread, packed.shape[1]
    v, channel = n % frames.shape[0], n // frames.shape[0]
    rows, width = views[v, ROWS], views[v, WIDTH]
    if k < count:
        one, own = packed[channel, k : k + 1], g[thread : thread + 1]
        footprint(one, 0, frames[v], solves[v], views[v, PERSPECTIVE] != 0, rows, own)
        first, last = INT(own[0, FIRST_ROW]), INT(own[0, LAST_ROW])
        left, right, low, high = FARTHEST, -FARTHEST, FARTHEST, -FARTHEST
        if first <= last:
            leftmost, rightmost = column_extent(own, 0, width)
            left, right = INT(leftmost), INT(rightmost)
            first_bin, step = searches[v, FIRST_BIN], searches[v, BIN_STEP]
            profile_of(own, 0, first_bin, step, r[thread : thread + 1])
            reach = math.sqrt(one[0, RADIUS2]) * max(depth_per_u(one, 0, solves[v]), step)
            low = floor_int((own[0, DEPTH] - reach - first_bin) / step)
            high = ceil_int((own[0, DEPTH] + reach - first_bin) / step)
        else:
            first, last = FARTHEST, -FARTHEST
        boxes[n, 0, k], boxes[n, 1, k] = low, high
        boxes[n, 2, k], boxes[n, 3, k] = first, last
        boxes[n, 4, k], boxes[n, 5, k] = left, right
    cuda.syncthreads()
    made = min(INT(MAKING), INT(count - begin))
    for at in range(thread, made * FOOTPRINT, MAKING):
        row = at // FOOTPRINT
        footprints[n, begin + row, at - row * FOOTPRINT] = g[row, at - row * FOOTPRINT]
    for at in range(thread, made * PROFILE, MAKING):
        row = at // PROFILE
        profiles[n, begin + row, at - row * PROFILE] = r[row, at - row * PROFILE]


@device
def cell_of_tile(row: int, column: int, width: int) -> int:
    """Return the number of the cell that holds a tile; `width` is the padded images'."""
    return (row * TILE // CELL) * ((width + CELL - 1) // CELL) + column * TILE // CELL


@kernel
def list_small_cells(
    boxes: Array, coarse: Counts, coarse_counts: Counts, lists: Counts, counts: Counts
) -> None:
    """List the Gaussians that reach each small cell, of those of its cell: one block a small cell.

    boxes : [N, 6, K]. coarse, coarse_counts : of cells, as `list_cells` leaves them.
    lists, counts : [N, rows, columns, room] and [N, rows, columns] of small cells; a count is -1
        where the room does not hold all.
    """
    scan = cuda.shared.array(LISTING_SCAN, np.int32)
    n, number, thread = cuda.blockIdx.y, INT(cuda.blockIdx.x), cuda.threadIdx.x
    across = INT(counts.shape[2])
    row, column = number // across, number % across
    cell = row // SMALL_IN_CELL * ((across + SMALL_IN_CELL - 1) // SMALL_IN_CELL)
    cell += column // SMALL_IN_CELL
    top, left = row * SMALL, column * SMALL
    tile = (-FARTHEST, FARTHEST, top, top + SMALL - 1, left, left + SMALL - 1)
    room, held = INT(lists.shape[3]), INT(0)
    candidates, own = coarse[n, cell], lists[n, row, column]
    start, count = INT(0), coarse_counts[n, cell]
    while start < count:
        at, k, met = INT(start + thread), INT(0), INT(0)
        if at < count:
            k = candidates[U(at)]
            met = INT(overlap(boxes, n, U(k), tile))
        place, total = places(met, scan, thread, LISTING_THREADS)
        place = INT(place + held)
        if met and place < room:
            own[U(place)] = k
        held = INT(held + total)
        start = INT(start + INT(LISTING_THREADS))
    if thread == 0:
        counts[n, row, column] = held if held <= room else -INT(1)


@device
def candidates_of_tile(
    lists: Counts,
    counts: Counts,
    coarse: Counts,
    coarse_counts: Counts,
    n: int,
    tile: tuple[int, int],
    width: int,
) -> tuple[Counts, int]:
    """Return the list of the small cell that holds a tile, or of its cell where that is too long.

    `tile` is its place among tiles, row and column; `width` is the padded images'.
    """
    row, column = tile[0] * TILE // SMALL, tile[1] * TILE // SMALL
    if counts[n, row, column] >= 0:
        return lists[n, row, column], counts[n, row, column]
    cell = cell_of_tile(tile[0], tile[1], width)
    return coarse[n, cell], coarse_counts[n, cell]


@device
def consider(
    best: tuple[F, F, F],
    b: int,
    around: tuple[F, F, F],
    low: int,
    high: int,
    ends: tuple[F, F],
) -> tuple[F, F, F]:
    """Return the highest mode so far (log2, place in bins, height), bin b among those looked at.

    around : f in the bin before, in bin b, in the bin after.
    low, high : first and last bin that the ray, from ends[0] to ends[1] in bins, has a part of.

    The bins' values alone rank modes wrongly, by up to an eighth at a step of one sigma; and
    what they hold beyond the ends of a ray must not count.
    """
    before, value, after = around
    # No profile in the bins is narrower than one: a top is 2^(1/4) higher at most.
    if max(F(1.2) * value, before, after) <= best[2] or value <= FAINTEST:
        return best
    if b < low or b > high:
        return best
    peak = value >= before and value >= after
    if not (peak or b == low or b == high):  # noqa: PLR1714, SIM109 - numba has no `in` here
        return best
    least, most = ends[0] - F(b), ends[1] - F(b)
    left, right = math.log2(max(before, FAINTEST)), math.log2(max(after, FAINTEST))
    estimate, move = mode_near_bin(F(left), F(math.log2(value)), F(right), least, most, peak)
    if estimate <= best[0]:
        return best
    return estimate, F(b) + move, F(math.pow(TWO, estimate))


@device
def add_profile(
    r: Array,
    k: Index,
    i: Index,
    j: Index,
    perspective: bool,
    first: F,
    last: F,
    bins: Array,
    place_of_bins: Index,
) -> None:
    """Add profile k on the ray of pixel (i, j) to bins `first` to `first` + `last`.

    Evenly spaced exponents are quadratic in the bin's number: each value is the last one's times
    a ratio, and each ratio the last one's times a constant.
    """
    m, a, place = profile_on_ray(r, k, i, j, perspective)
    rest = r[k, LIMIT] - m
    # A profile narrower than a bin would hide between the centres: widen it.
    sharp = min(a, ONE)
    place -= first
    reach = math.sqrt(rest / sharp)
    low = INT(math.ceil(max(place - reach, ZERO)))
    high = INT(math.floor(min(place + reach, last)))
    if low > high:
        return
    s = F(low) - place
    value = r[k, PEAK] * exp2(-(m + sharp * s * s))
    ratio = exp2(-sharp * (TWO * s + ONE))
    shrink = exp2(-TWO * sharp)
    at, end = U(low * TILE_PIXELS + place_of_bins), U(high * TILE_PIXELS + place_of_bins)
    # Two at a time: a thread waits for each load.
    while at < end:
        after = U(at + U(TILE_PIXELS))
        here, there = bins[at], bins[after]
        following = value * ratio
        ratio *= shrink
        bins[at], bins[after] = here + value, there + following
        value = following * ratio
        ratio *= shrink
        at = U(after + U(TILE_PIXELS))
    if at == end:
        bins[at] += value


def make_search(split: int) -> Any:
    """Make the kernel that searches rays, with `split` threads a pixel among which Gaussians are.

    One is the least work; a few images have too few pixels to keep a device busy with one.
    """
    threads, found_size = TILE_PIXELS * split, max(FOUND, SHARE * TILE_PIXELS * split)
    bin_rows = BINS if split == 1 else BINS_OF_SPLIT
    scan_size, binned = threads + threads // GROUP, bin_rows * TILE_PIXELS * split

    @kernel
    def search(
        profiles: Array,
        boxes: Counts,
        lists: Counts,
        counts: Counts,
        coarse: Counts,
        coarse_counts: Counts,
        views: Counts,
        near: Array,
        far: Array,
        searches: Array,
        depth: Array,
    ) -> None:
        """Set `depth` [N, H, W] to where the highest mode of f is, by depth bins in shared memory.

        profiles : [N, K, PROFILE]. near, far : [V, H, W], where rays enter and leave the box.
        """
        scan = cuda.shared.array(scan_size, np.int32)
        found = cuda.shared.array(found_size, np.int32)
        chosen = cuda.shared.array(found_size, np.int32)
        records = cuda.shared.array(STAGED_PROFILES, np.float32, WIDE)
        bins = cuda.shared.array(binned, np.float32)
        n, thread = cuda.blockIdx.z, cuda.threadIdx.x
        pixel, part = thread % TILE_PIXELS, thread // TILE_PIXELS
        v, row, column = n % near.shape[0], cuda.blockIdx.y * TILE, cuda.blockIdx.x * TILE
        if row >= views[v, ROWS] or column >= views[v, WIDTH]:
            return
        i, j = INT(row + pixel // TILE), INT(column + pixel % TILE)
        held = i < views[v, ROWS] and j < views[v, WIDTH]
        first, step = searches[v, FIRST_BIN], searches[v, BIN_STEP]
        bin_count, perspective = INT(searches[v, BIN_COUNT]), views[v, PERSPECTIVE] != 0
        ends = (ZERO, ZERO)
        if held:
            ends = ((near[v, i, j] - first) / step, (far[v, i, j] - first) / step)
        on = ends[0] < ends[1]
        low, high = max(INT(0), floor_int(ends[0])), min(bin_count - INT(1), ceil_int(ends[1]))
        rows = (row, row + TILE - 1, column, column + TILE - 1)
        candidates, count = candidates_of_tile(
            lists,
            counts,
            coarse,
            coarse_counts,
            n,
            (cuda.blockIdx.y, cuda.blockIdx.x),
            near.shape[2],
        )
        everywhere = (-FARTHEST, FARTHEST, *rows)
        number, start = collect(
            boxes, n, everywhere, candidates, count, INT(0), found, scan, thread, threads
        )
        if start >= count:
            candidates, count = found, number
        own, place_of_bins = profiles[n], INT(part * bin_rows * TILE_PIXELS + pixel)
        best = (-F(1e30), HALF * (ends[0] + ends[1]), ZERO)
        before, value = ZERO, ZERO
        begin = INT(0)
        while begin < bin_count:
            size = INT(min(INT(bin_rows), INT(bin_count - begin)))
            last = F(INT(size - INT(1)))
            at, end = U(place_of_bins), U(place_of_bins + size * TILE_PIXELS)
            while at < end:
                bins[at] = ZERO
                at = U(at + U(TILE_PIXELS))
            tile = (begin, begin + size - INT(1), *rows)
            start = INT(0)
            while start < count:
                number, start = collect(
                    boxes, n, tile, candidates, count, start, chosen, scan, thread, threads
                )
                done = INT(0)
                while done < number:
                    staged = stage(own, chosen, done, number, records, PROFILE, thread, threads)
                    # Which of them touch the ray, then those: threads of a warp that add different
                    # ones at once wait less for each other.
                    touching, m = U(0), U(part)
                    while on and m < staged:
                        square = square_on_ray(records, m, i, j, perspective)
                        touching = U(touching | U(U(square < records[m, LIMIT]) << m))
                        m = U(m + U(split))
                    while touching != U(0):
                        m = U(cuda.ffs(touching) - 1)
                        touching = U(touching & U(touching - U(1)))
                        add_profile(
                            records,
                            m,
                            i,
                            j,
                            perspective,
                            F(begin),
                            last,
                            bins,
                            place_of_bins,
                        )
                    done = INT(done + INT(RECORDS))
            if split > 1:
                cuda.syncthreads()
            at, end = U(pixel), U(pixel + size * TILE_PIXELS)
            b = INT(begin - INT(1))
            while part == 0 and at < end:
                after = bins[at]
                for other in range(1, split):
                    after += bins[U(at + U(other * bin_rows * TILE_PIXELS))]
                if on:
                    best = consider(best, b, (before, value, after), low, high, ends)
                before, value = after if b < 0 else value, after
                at, b = U(at + U(TILE_PIXELS)), INT(b + INT(1))
            if split > 1:
                cuda.syncthreads()
            begin = INT(begin + INT(bin_rows))
        if held and part == 0:
            if on:
                best = consider(best, bin_count - 1, (before, value, value), low, high, ends)
            depth[n, i, j] = min(max(first + best[1] * step, near[v, i, j]), far[v, i, j])

    return search


@device
def with_value(sums: tuple[F, F, F], peak: F, a: F, x: F, limit: F) -> tuple[F, F, F]:
    """Return f, f' and f'' (the latter two over 2 ln 2) with peak 2^(-a x^2) added.

    Nothing is added where the exponent is not below `limit`.
    """
    slope = a * x
    e = peak * exp2(-slope * x) if slope * x < limit else ZERO
    return sums[0] + e, sums[1] - e * slope, sums[2] + e * (TWO * LN2 * slope * slope - a)


def make_climb(split: int) -> Any:
    """Make the kernel that climbs along rays, with `split` threads a pixel: see `make_search`."""
    threads, found_size = TILE_PIXELS * split, max(FOUND, SHARE * TILE_PIXELS * split)
    scan_size, kept_count = threads + threads // GROUP, KEPT if split == 1 else KEPT_OF_SPLIT
    kept_shape, parts = (4, kept_count, threads), (3, threads)  # place, a, peak, limit

    @kernel
    def climb(
        profiles: Array,
        boxes: Counts,
        lists: Counts,
        counts: Counts,
        coarse: Counts,
        coarse_counts: Counts,
        views: Counts,
        near: Array,
        far: Array,
        searches: Array,
        depth: Array,
        peaks: Array,
    ) -> None:
        """Move `depth` [N, H, W] to the mode of f along each ray and set `peaks` to f there.

        By steps of `newton_step`, no longer than a bin; one that led downhill is taken back by
        three quarters. A ray that misses the box has the peak 0.

        A climb ends within `EVALUATIONS` - 1 bins of its start: each thread keeps those few
        profiles that reach its ray there. Where one of a tile's has more than it can keep, all
        that reach the tile are looked at in each evaluation.
        """
        scan = cuda.shared.array(scan_size, np.int32)
        found = cuda.shared.array(found_size, np.int32)
        records = cuda.shared.array(STAGED_PROFILES, np.float32, WIDE)
        kept = cuda.shared.array(kept_shape, np.float32)
        totals = cuda.shared.array(parts, np.float32)
        n, thread = cuda.blockIdx.z, cuda.threadIdx.x
        pixel, part = thread % TILE_PIXELS, thread // TILE_PIXELS
        v, row, column = n % near.shape[0], cuda.blockIdx.y * TILE, cuda.blockIdx.x * TILE
        if row >= views[v, ROWS] or column >= views[v, WIDTH]:
            return
        i, j = INT(row + pixel // TILE), INT(column + pixel % TILE)
        held = i < views[v, ROWS] and j < views[v, WIDTH]
        first, step = searches[v, FIRST_BIN], searches[v, BIN_STEP]
        perspective = views[v, PERSPECTIVE] != 0
        start, stop, trial = ZERO, ZERO, ZERO
        if held:
            start, stop = (near[v, i, j] - first) / step, (far[v, i, j] - first) / step
            trial = (depth[n, i, j] - first) / step
        on = start < stop
        candidates, count = candidates_of_tile(
            lists,
            counts,
            coarse,
            coarse_counts,
            n,
            (cuda.blockIdx.y, cuda.blockIdx.x),
            near.shape[2],
        )
        tile = (-FARTHEST, FARTHEST, row, row + TILE - 1, column, column + TILE - 1)
        number, at = collect(
            boxes, n, tile, candidates, count, INT(0), found, scan, thread, threads
        )
        whole = at >= count
        own, reaching = profiles[n], U(0)
        going = True
        while going:
            done = INT(0)
            while done < number:
                staged = stage(own, found, done, number, records, PROFILE, thread, threads)
                near_by, k = U(0), U(part)
                while on and k < staged:
                    m, a, place = profile_on_ray(records, k, i, j, perspective)
                    away = max(abs(trial - place) - FARTHEST_CLIMB, ZERO)
                    near_by = U(near_by | U(U(m + a * away * away < records[k, LIMIT]) << k))
                    k = U(k + U(split))
                while near_by != U(0):
                    k = U(cuda.ffs(near_by) - 1)
                    near_by = U(near_by & U(near_by - U(1)))
                    if reaching < U(kept_count):
                        m, a, place = profile_on_ray(records, k, i, j, perspective)
                        kept[0, reaching, thread], kept[1, reaching, thread] = place, a
                        kept[2, reaching, thread] = records[k, PEAK] * exp2(-m)
                        kept[3, reaching, thread] = records[k, LIMIT] - m
                    reaching = U(reaching + U(1))
                done = INT(done + INT(RECORDS))
            going = not whole and at < count
            if not whole:
                if not going:
                    at = INT(0)  # from the beginning, for what comes next
                number, at = collect(
                    boxes, n, tile, candidates, count, at, found, scan, thread, threads
                )
        crowded = cuda.syncthreads_or(INT(reaching > U(kept_count)))
        peak, best = ZERO, trial
        for _ in range(EVALUATIONS):
            sums = (ZERO, ZERO, ZERO)
            k = U(0)
            while crowded == 0 and k < reaching:
                a, x = kept[1, k, thread], trial - kept[0, k, thread]
                sums = with_value(sums, kept[2, k, thread], a, x, kept[3, k, thread])
                k = U(k + U(1))
            going = crowded != 0
            while going:
                done = INT(0)
                while done < number:
                    staged = stage(own, found, done, number, records, PROFILE, thread, threads)
                    k = U(part)
                    while on and k < staged:
                        m, a, place = profile_on_ray(records, k, i, j, perspective)
                        rest = records[k, LIMIT] - m
                        if rest > ZERO:
                            peak_there = records[k, PEAK] * exp2(-m)
                            sums = with_value(sums, peak_there, a, trial - place, rest)
                        k = U(k + U(split))
                    done = INT(done + INT(RECORDS))
                going = not whole and at < count
                if not whole:
                    if not going:
                        at = INT(0)
                    number, at = collect(
                        boxes, n, tile, candidates, count, at, found, scan, thread, threads
                    )
            if split > 1:
                totals[0, thread], totals[1, thread], totals[2, thread] = sums
                cuda.syncthreads()
                sums = (ZERO, ZERO, ZERO)
                for other in range(split):
                    at_other = U(pixel + other * TILE_PIXELS)
                    sums = (
                        sums[0] + totals[0, at_other],
                        sums[1] + totals[1, at_other],
                        sums[2] + totals[2, at_other],
                    )
                cuda.syncthreads()
            if sums[0] > peak:
                peak, best = sums[0], trial
                move = newton_step(sums[0], sums[1], sums[2], ONE)
                trial = min(max(best + move, start), stop)
            else:
                trial = best + QUARTER * (trial - best)
        if held and part == 0:
            depth[n, i, j], peaks[n, i, j] = first + best * step, peak

    return climb


search, climb = make_search(1), make_climb(1)
search_split, climb_split = make_search(SPLIT), make_climb(SPLIT)


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
        i, bottom = INT(boxes[n, 2, k] + thread // GATHERING), boxes[n, 3, k]
        while i <= bottom:
            first, last = column_ends(g, k, F(i) - g[k, ROW], width)
            j, right = INT(INT(first) + thread % GATHERING), INT(last)
            while j <= right:
                # Both are asked for at once: there are too few threads to wait for one by one.
                t, weight = depth[n, U(i), U(j)], weights[n, U(i), U(j)]
                u, _ = on_ray(g, k, i, j, t - g[k, DEPTH])
                square = dot(u, u)
                if square < g[k, REACH2] and near[v, U(i), U(j)] < far[v, U(i), U(j)]:
                    s = with_point(s, weight * exp2(-square), u[0], u[1], u[2])
                j = INT(j + INT(GATHERING))
            i = INT(i + INT(GATHERING))
    add_up(s, sums, thread, moments[channel, k])


SELECTING_THREADS = 256
FRAME, SOLVE, TRIPLE = 18, 9, 3


@kernel
def select_views(
    which: Counts,
    tables: tuple[Array, Array, Counts, Array, Array, Array],
    own: tuple[Array, Array, Counts, Array, Array, Array],
) -> None:
    """Copy rows `which` [N] of the tables of `cuda.mip.Views`, each [V, ...] made flat, to `own`.

    These are frames, solves, sizes, searches, near and far.
    """
    n, i = cuda.blockIdx.y, U(cuda.grid(1))
    v = which[n]
    frames, solves, sizes, searches, near, far = tables
    own_frames, own_solves, own_sizes, own_searches, own_near, own_far = own
    if i < own_near.shape[1]:
        own_near[n, i] = near[v, i]
        own_far[n, i] = far[v, i]
    if i < FRAME:
        own_frames[n, i] = frames[v, i]
    if i < SOLVE:
        own_solves[n, i] = solves[v, i]
    if i < TRIPLE:
        own_sizes[n, i] = sizes[v, i]
        own_searches[n, i] = searches[v, i]
