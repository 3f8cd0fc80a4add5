"""CUDA kernels that find where f is largest on rays: by a search among depth bins, and a climb.

The twins of those in `cpu.mip_kernels`. A block has one tile of an image, a thread one pixel, or a
few threads have it together; `mip_kernels` says where Gaussians lie in images, and gathers
gradients.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import cuda

from napari_gaussfit._kernels.cuda.device import (
    GROUP,
    LONG,
    RECORDS,
    SHARE,
    WIDE,
    Counts,
    U,
    ceil_int,
    collect,
    device,
    floor_int,
    kernel,
    places,
)
from napari_gaussfit._kernels.cuda.mip_kernels import (
    BIN_COUNT,
    BIN_STEP,
    FARTHEST,
    FIRST_BIN,
    PARALLEL_RAYS,
    PERSPECTIVE,
    PINHOLE,
    ROWS,
    SMALL,
    TILE,
    TILES,
    WIDTH,
    cell_of_tile,
)
from napari_gaussfit._kernels.shared.footprint import (
    FAINTEST,
    LN2,
    QUARTER,
    mode_near_bin,
    newton_step,
)
from napari_gaussfit._kernels.shared.gaussian import (
    HALF,
    INT,
    ONE,
    TWO,
    ZERO,
    Array,
    F,
    Index,
    square_root,
)
from napari_gaussfit._kernels.shared.gaussian import exp2_negative as exp2
from napari_gaussfit._kernels.shared.profile import (
    LIMIT,
    PARALLEL,
    PEAK,
    PROFILE,
    SHRINK,
    profile_on_ray,
    square_on_ray,
)

TILE_PIXELS = TILE * TILE
SPLIT = 4  # threads a pixel where there are few, among which Gaussians are divided
# Gaussians that a tile keeps in shared memory; more of them come in pieces. With a few more, and
# `BINS`, one block less would run at a time.
FOUND = 320
STAGED_PROFILES = (RECORDS, PROFILE)
QUAD = 4  # numbers that a thread copies at once
UNROLLED = 4  # profiles, or bins, that a thread looks at in one go
BINS, BINS_OF_SPLIT = 64, 28  # depth bins a pixel in shared memory; a longer ray comes in pieces
CARRIED = 2  # bins before a piece, in rows of their own
TWO_ROWS = 2 * TILE_PIXELS
WORD = 32  # bits
NOTHING = F(1e9), -F(1e9)  # the ends of no ray
CLOSE = F(1.2)  # a mode is no higher than so many times the highest of the bins about it
LEAST_OF_MODE = ONE / CLOSE
EVALUATIONS = 4  # of f on the climb from a bin's centre to the mode
FARTHEST_CLIMB = F(EVALUATIONS - 1) + F(0.01)  # bins from its start that a climb can come
KEPT, KEPT_OF_SPLIT = 22, 10  # profiles that a thread keeps on a climb


@device
def collect_of_small_cell(
    candidates: Counts,
    tiles: Counts,
    tile: int,
    count: int,
    found: Counts,
    scan: Counts,
    thread: int,
    threads: int,
) -> tuple[INT, INT]:
    """Fill `found` with those that reach a tile of a small cell, as `collect` does with boxes."""
    held, start, room = INT(0), INT(0), INT(0) < count
    while room:
        met, some = INT(0), INT(0)
        for m in range(SHARE):
            at = INT(start + INT(m * threads) + thread)
            if at < count:
                bit = INT((tiles[U(at)] >> INT(tile)) & INT(1))
                met |= bit << INT(m)
                some = INT(some + bit)
        place, total = places(some, scan, thread, threads)
        room = held + total <= found.shape[0]
        if room:
            place = INT(place + held)
            for m in range(SHARE):
                if met & (INT(1) << INT(m)):
                    found[U(place)] = candidates[U(start + INT(m * threads) + thread)]
                    place = INT(place + INT(1))
            held = INT(held + total)
            start = INT(start + INT(SHARE * threads))
            room = start < count
    cuda.syncthreads()
    return held, start


@device
def consider(
    best: tuple[F, F, F],
    least: F,
    b: int,
    around: tuple[F, F, F],
    low: int,
    high: int,
    ends: tuple[F, F],
) -> tuple[F, F, F]:
    """Return the highest mode so far (log2, place in bins, height), bin b among those looked at.

    around : f in the bin before, in bin b, in the bin after.
    least : no mode that is lower is the highest.
    low, high : first and last bin that the ray, from ends[0] to ends[1] in bins, has a part of.

    The bins' values alone rank modes wrongly, by up to an eighth at a step of one sigma; and
    what they hold beyond the ends of a ray must not count.
    """
    before, value, after = around
    # No profile in the bins is narrower than one: a top is 2^(1/4) higher at most.
    if max(CLOSE * value, before, after) <= least or value <= FAINTEST:
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
def stage_profiles(
    own: Array,
    found: Counts,
    first: int,
    number: int,
    records: Array,
    perspective: bool,
    thread: int,
    threads: int,
) -> U:
    """Copy profiles found[first], found[first + 1], ... of `own` to `records` in shared memory.

    Returns how many there are, `RECORDS` at most. A thread copies four numbers at a time. What is
    after them, to a multiple of `UNROLLED`, touches no ray.
    """
    count = U(min(INT(number - first), INT(RECORDS)))
    m, column = U(thread % RECORDS), U(thread // RECORDS * QUAD)
    width = U(PROFILE if perspective else PARALLEL)
    cuda.syncthreads()
    if m < count:
        k = U(found[U(first + m)])
        while column < width:
            for n in range(QUAD):
                records[m, U(column + U(n))] = own[k, U(column + U(n))]
            column = U(column + U(threads // RECORDS * QUAD))
    else:
        while column < width:
            for n in range(QUAD):
                records[m, U(column + U(n))] = ZERO
            column = U(column + U(threads // RECORDS * QUAD))
        if thread < RECORDS:
            records[m, LIMIT] = -ONE
    cuda.syncthreads()
    return count


@device
def touching_profiles(
    r: Array, staged: U, i: Index, j: Index, perspective: bool, part: int, split: int
) -> U:
    """Return which of the staged profiles touch the ray of pixel (i, j), a bit each."""
    touching, m = U(0), LONG(part * UNROLLED)
    while m < staged:
        some = U(0)
        for n in range(UNROLLED):
            square = square_on_ray(r, LONG(m + LONG(n)), i, j, perspective)
            some = U(some | (U(1 << n) if square < r[LONG(m + LONG(n)), LIMIT] else U(0)))
        touching = U(touching | U(some << U(m)))
        m = LONG(m + LONG(split * UNROLLED))
    return touching


@device
def add_profile(
    r: Array,
    k: Index,
    i: Index,
    j: Index,
    perspective: bool,
    to: tuple[F, F],
    bins: Array,
    place_of_bins: Index,
) -> None:
    """Add profile k on the ray of pixel (i, j) to bins to[0] to to[0] + to[1].

    Evenly spaced exponents are quadratic in the bin's number: each value is the last one's times
    a ratio, and each ratio the last one's times a constant.
    """
    m, a, place = profile_on_ray(r, k, i, j, perspective)
    # A profile narrower than a bin would hide between the centres: widen it.
    sharp = min(a, ONE)
    shrink = exp2(-TWO * sharp) if perspective else r[k, SHRINK]
    place -= to[0]
    reach = square_root((r[k, LIMIT] - m) / sharp)
    low = INT(max(place - reach + ONE, ZERO))  # rounded up by a cast, of what is not negative
    left = min(place + reach, to[1]) - F(low)
    if left < ZERO:
        return
    s = place - F(low)
    value = r[k, PEAK] * exp2(sharp * s * -s - m)
    ratio = exp2(sharp * (TWO * s - ONE))
    at = LONG(U(low * TILE_PIXELS + place_of_bins))
    # Two at a time: a thread waits for each load. Counted in floats, of which a GPU does most.
    while left >= ONE:
        here, there = bins[at], bins[LONG(at + LONG(TILE_PIXELS))]
        following = value * ratio
        ratio *= shrink
        bins[at], bins[LONG(at + LONG(TILE_PIXELS))] = here + value, there + following
        value = following * ratio
        ratio *= shrink
        at = LONG(at + LONG(2 * TILE_PIXELS))
        left -= TWO
    if left >= ZERO:
        bins[at] += value


@device
def add_profiles(
    r: Array,
    staged: U,
    i: Index,
    j: Index,
    perspective: bool,
    to: tuple[F, F],
    bins: Array,
    place_of_bins: Index,
    part: int,
    split: int,
) -> None:
    """Add those of the staged profiles that touch the ray of pixel (i, j): see `add_profile`.

    Which of them do, then those: threads that add different ones at once wait less for each other.
    """
    touching = touching_profiles(r, staged, i, j, perspective, part, split)
    while touching != U(0):
        k = U(cuda.ffs(touching) - 1)
        touching = U(touching & U(touching - U(1)))
        add_profile(r, k, i, j, perspective, to, bins, place_of_bins)


@device
def range_of_tile(ends: tuple[F, F], shared: Array, thread: int) -> tuple[F, F]:
    """Return the least of a tile's ends[0], and the greatest ends[1]; `shared` is for both."""
    if thread < TILE_PIXELS:
        shared[U(thread)], shared[U(TILE_PIXELS + thread)] = ends
    cuda.syncthreads()
    least, most = shared[U(thread % TILE)], shared[U(TILE_PIXELS + thread % TILE)]
    for n in range(1, TILE):
        at = U(n * TILE + thread % TILE)
        least, most = min(least, shared[at]), max(most, shared[U(at + U(TILE_PIXELS))])
    cuda.syncthreads()
    if thread < TILE:
        shared[U(thread)], shared[U(TILE + thread)] = least, most
    cuda.syncthreads()
    for n in range(TILE):
        least, most = min(least, shared[U(n)]), max(most, shared[U(n + TILE)])
    cuda.syncthreads()
    return least, most


@device
def highest_bin(
    bins: Array, begin: INT, size: INT, rows: int, ends: tuple[F, F], pixel: int, split: int
) -> F:
    """Return the largest of bins `begin` to `begin` + `size` that lie wholly between a ray's ends.

    rows : of shared memory that a thread has. Sums of a ray's threads are added up there meanwhile.
    """
    highest, b = ZERO, INT(0)
    while b < size:
        at, top = LONG(U((b + CARRIED) * TILE_PIXELS + pixel)), ZERO
        for m in range(UNROLLED):
            here = LONG(at + LONG(m * TILE_PIXELS))
            value = bins[here]
            for other in range(1, split):
                there = LONG(here + LONG(other * rows * TILE_PIXELS))
                value += bins[there]
                bins[there] = ZERO
            if split > 1:
                bins[here] = value
            top = max(top, value)
        if F(begin + b) > ends[0] and F(begin + b + INT(UNROLLED)) < ends[1]:
            highest = max(highest, top)
        b = INT(b + INT(UNROLLED))
    return highest


@device
def rows_to_consider(
    bins: Array, start: INT, size: INT, least: F, ends: tuple[INT, INT], pixel: int
) -> U:
    """Return which of the 32 rows of bins from `start` on may be by the highest mode, a bit each.

    Rows end with `size`. ends : rows where the ray begins and ends.
    """
    rows, m, most = U(0), U(0), min(INT(WORD), INT(size - start + INT(1)))
    # No profile in the bins is narrower than one: a top is 2^(1/4) higher at most.
    least *= LEAST_OF_MODE
    while m < most:
        some, at = U(0), LONG(U((start + INT(m)) * TILE_PIXELS + pixel))
        for n in range(UNROLLED):
            high = bins[LONG(at + LONG(n * TILE_PIXELS))] > least
            some = U(some | (U(1 << n) if high else U(0)))
        rows = U(rows | U(some << m))
        m = U(m + U(UNROLLED))
    for n in range(2):
        row = INT(ends[n] - start)
        if row >= INT(0) and row < INT(WORD):
            rows = U(rows | U(U(1) << U(row)))
    return rows if most == INT(WORD) else U(rows & U(U(U(1) << U(most)) - U(1)))


@device
def best_of_bins(
    best: tuple[F, F, F],
    least: F,
    bins: Array,
    begin: INT,
    size: INT,
    ray: tuple[int, int, F, F],
    pixel: int,
) -> tuple[F, F, F]:
    """Return the highest mode so far, see `consider`, with bins up to the last but one looked at.

    The first rows of `bins` are those of the two bins before. Empties the others.

    least : no mode that is lower is the highest.
    ray : first and last bin that it has a part of, and where it begins and ends, in bins.
    """
    before = INT(begin - INT(CARRIED))
    if begin == INT(0):
        bins[U(TILE_PIXELS + pixel)] = bins[U(CARRIED * TILE_PIXELS + pixel)]
    edges, start = (INT(ray[0] - before), INT(ray[1] - before)), INT(1)
    while start <= size:
        rows = rows_to_consider(bins, start, size, least, edges, pixel)
        while rows != U(0):
            row = INT(start + INT(cuda.ffs(rows) - 1))
            rows = U(rows & U(rows - U(1)))
            at = LONG(U((row - INT(1)) * TILE_PIXELS + pixel))
            three = bins[at], bins[LONG(at + LONG(TILE_PIXELS))], bins[LONG(at + LONG(TWO_ROWS))]
            place, ends = INT(before + row), (ray[2], ray[3])
            best = consider(best, least, place, three, ray[0], ray[1], ends)
            least = max(least, best[2])
        start = INT(start + INT(WORD))
    at = LONG(U(size * TILE_PIXELS + pixel))
    last, b = (bins[at], bins[LONG(at + LONG(TILE_PIXELS))]), INT(0)
    while b < size:
        at = LONG(U((b + CARRIED) * TILE_PIXELS + pixel))
        for m in range(UNROLLED):
            bins[LONG(at + LONG(m * TILE_PIXELS))] = ZERO
        b = INT(b + INT(UNROLLED))
    bins[U(pixel)], bins[U(TILE_PIXELS + pixel)] = last
    return best


@device
def near_profiles(
    r: Array,
    staged: U,
    i: Index,
    j: Index,
    perspective: bool,
    trial: F,
    part: int,
    split: int,
) -> U:
    """Return which of the staged profiles a climb from `trial` may meet, a bit each."""
    near_by, k = U(0), LONG(part * UNROLLED)
    while k < staged:
        some = U(0)
        for n in range(UNROLLED):
            m, a, place = profile_on_ray(r, LONG(k + LONG(n)), i, j, perspective)
            away = max(abs(trial - place) - FARTHEST_CLIMB, ZERO)
            within = m + a * away * away < r[LONG(k + LONG(n)), LIMIT]
            some = U(some | (U(1 << n) if within else U(0)))
        near_by = U(near_by | U(some << U(k)))
        k = LONG(k + LONG(split * UNROLLED))
    return near_by


@device
def keep_near(
    r: Array,
    near_by: U,
    i: Index,
    j: Index,
    perspective: bool,
    kept: Array,
    reaching: U,
    room: int,
    thread: int,
    threads: int,
) -> U:
    """Keep place, a and peak of profiles, as many as there is room for; return how many reach."""
    while near_by != U(0):
        k = U(cuda.ffs(near_by) - 1)
        near_by = U(near_by & U(near_by - U(1)))
        if reaching < U(room):
            m, a, place = profile_on_ray(r, k, i, j, perspective)
            at = U(reaching * U(3 * threads) + U(thread))
            kept[at], kept[U(at + U(threads))] = place, a
            kept[U(at + U(2 * threads))] = r[k, PEAK] * exp2(-m)
        reaching = U(reaching + U(1))
    return reaching


@device
def with_value(sums: tuple[F, F, F], peak: F, a: F, x: F, faintest: F) -> tuple[F, F, F]:
    """Return f, f' and f'' (the latter two over 2 ln 2) with peak 2^(-a x^2) added.

    Nothing is added that is not above `faintest`: a Gaussian ends there.
    """
    slope = a * x
    e = peak * exp2(slope * -x)
    e = e if abs(e) > faintest else ZERO
    return sums[0] + e, sums[1] - e * slope, sums[2] + e * (TWO * LN2 * slope * slope - a)


@device
def with_staged(
    sums: tuple[F, F, F],
    r: Array,
    staged: U,
    i: Index,
    j: Index,
    perspective: bool,
    trial: F,
    faintest: F,
    part: int,
    split: int,
) -> tuple[F, F, F]:
    """Return what `with_value` returns, of all staged profiles."""
    k = U(part)
    while k < staged:
        m, a, place = profile_on_ray(r, k, i, j, perspective)
        if m < r[k, LIMIT]:
            sums = with_value(sums, r[k, PEAK] * exp2(-m), a, trial - place, faintest)
        k = U(k + U(split))
    return sums


@device
def sums_of_ray(
    sums: tuple[F, F, F], totals: Array, place: int, thread: int, split: int
) -> tuple[F, F, F]:
    """Return sums over all threads of a ray, to each of them; `totals` holds those of a block."""
    totals[0, thread], totals[1, thread], totals[2, thread] = sums
    cuda.syncthreads()
    total = (ZERO, ZERO, ZERO)
    for other in range(split):
        at = U(place + other * TILE_PIXELS)
        total = (total[0] + totals[0, at], total[1] + totals[1, at], total[2] + totals[2, at])
    cuda.syncthreads()
    return total


def make_along_rays(split: int, *, searching: bool) -> Any:
    """Make a kernel that finds the highest mode of f on rays, or climbs to one from a given place.

    Parameters
    ----------
    split : int
        Threads a pixel, among which Gaussians are divided. One is the least work; a few images have
        too few pixels to keep a device busy with one.
    searching : bool
        Whether the highest mode is looked for, by depth bins in shared memory.
    """
    threads, found_size = TILE_PIXELS * split, max(FOUND, SHARE * TILE_PIXELS * split)
    # Of bins, a multiple of `UNROLLED`.
    bin_rows, room = (BINS, KEPT) if split == 1 else (BINS_OF_SPLIT, KEPT_OF_SPLIT)
    all_rows, scan_size = bin_rows + CARRIED, threads + threads // GROUP
    # A climb keeps three numbers of each profile where the bins were.
    store_size = max(all_rows, 3 * room) * threads
    parts = 3, threads if split > 1 else 1

    @device
    def search(
        own: Array,
        boxes: Counts,
        n: int,
        among: tuple[Counts, int],
        rows: tuple[int, int, int, int],
        bin_count: INT,
        ends: tuple[F, F],
        pixel: tuple[Index, Index, bool],
        shared: tuple[Counts, Counts, Array, Array],
        thread: int,
    ) -> F:
        """Return where the highest mode is on a ray, in bins, to the first of its threads.

        among : Gaussians that reach the tile, or of which some do, and how many they are.
        rows : first and last row and column of the tile. ends : where the ray begins and ends.
        pixel : row and column, and whether the camera is a pinhole.
        shared : memory for `collect`, for what is chosen, for profiles, for bins.
        """
        (i, j, perspective), (scan, chosen, records, store) = pixel, shared
        place, part, on = thread % TILE_PIXELS, thread // TILE_PIXELS, ends[0] < ends[1]
        low, high = max(INT(0), floor_int(ends[0])), min(bin_count - INT(1), ceil_int(ends[1]))
        # A bin before and one after are looked at too.
        nearest, farthest = range_of_tile(ends if on else NOTHING, store, thread)
        begin = max(INT(0), INT(floor_int(nearest) - INT(1)))
        stop = min(bin_count, INT(ceil_int(farthest) + INT(2)))
        own_bins = INT(part * all_rows * TILE_PIXELS + place)
        at = LONG(U(own_bins))
        end = LONG(at + LONG(all_rows * TILE_PIXELS))
        while at < end:
            store[at], store[LONG(at + LONG(TILE_PIXELS))] = ZERO, ZERO
            at = LONG(at + LONG(TWO_ROWS))
        place_of_bins = INT(own_bins + INT(CARRIED * TILE_PIXELS))
        best = (-F(1e30), HALF * (ends[0] + ends[1]), ZERO)
        while begin < stop:
            size, start = INT(min(INT(bin_rows), INT(stop - begin))), INT(0)
            piece = (begin, begin + size - INT(1), *rows)
            to = F(begin), F(INT(size - INT(1)))
            while start < among[1]:
                number, start = collect(
                    boxes, n, piece, among[0], among[1], start, chosen, scan, thread, threads
                )
                done = INT(0)
                while done < number:
                    staged = stage_profiles(
                        own, chosen, done, number, records, perspective, thread, threads
                    )
                    bins = store, place_of_bins
                    if on and perspective:
                        add_profiles(records, staged, i, j, PINHOLE, to, *bins, part, split)
                    elif on:
                        add_profiles(records, staged, i, j, PARALLEL_RAYS, to, *bins, part, split)
                    done = INT(done + INT(RECORDS))
            if split > 1:
                cuda.syncthreads()
            if on and part == 0:
                # No mode is lower than the highest bin between the ray's ends.
                least = highest_bin(store, begin, size, all_rows, ends, place, split)
                ray = low, high, ends[0], ends[1]
                best = best_of_bins(best, max(least, best[2]), store, begin, size, ray, place)
            if split > 1:
                cuda.syncthreads()
            begin = INT(begin + INT(bin_rows))
        if on and part == 0:
            value, last_bin = store[U(TILE_PIXELS + place)], INT(bin_count - INT(1))
            around = store[U(place)], value, value
            best = consider(best, best[2], last_bin, around, low, high, ends)
        return min(max(best[1], ends[0]), ends[1])

    @device
    def climb(
        own: Array,
        boxes: Counts,
        n: int,
        among: tuple[Counts, int],
        rows: tuple[int, int, int, int],
        held: tuple[Counts, Any, Any],
        trial: F,
        ends: tuple[F, F],
        pixel: tuple[Index, Index, bool],
        shared: tuple[Counts, Array, Array, Array],
        thread: int,
    ) -> tuple[F, F]:
        """Return the mode of f on a ray near `trial`, and f there, to all of a ray's threads.

        held : Gaussians that reach the tile, how many, and where in `among` to go on for others.
        shared : memory for `collect`, for profiles, for what is kept of them, for sums.

        By steps of `newton_step`, no longer than a bin; one that led downhill is taken back by
        three quarters. It ends within `EVALUATIONS` - 1 bins of its start: each thread keeps those
        few profiles that reach its ray there. Where one of a tile's has more than it can keep, all
        that reach the tile are looked at in each evaluation.
        """
        (i, j, perspective), (scan, records, store, totals) = pixel, shared
        place, part, on = thread % TILE_PIXELS, thread // TILE_PIXELS, ends[0] < ends[1]
        (candidates, count), (found, number, at) = among, held
        everywhere, whole = (-FARTHEST, FARTHEST, *rows), at >= count
        # Where a Gaussian ends, f of it is the same for all of a channel.
        faintest = ZERO
        if number > 0:
            k = U(found[0])
            faintest = abs(own[k, PEAK]) * exp2(-own[k, LIMIT])
        reaching, going = U(0), True
        while going:
            done = INT(0)
            while done < number:
                staged = stage_profiles(
                    own, found, done, number, records, perspective, thread, threads
                )
                near_by = U(0)
                if on and perspective:
                    near_by = near_profiles(records, staged, i, j, PINHOLE, trial, part, split)
                elif on:
                    near_by = near_profiles(
                        records, staged, i, j, PARALLEL_RAYS, trial, part, split
                    )
                reaching = keep_near(
                    records, near_by, i, j, perspective, store, reaching, room, thread, threads
                )
                done = INT(done + INT(RECORDS))
            going = not whole and at < count
            if not whole:
                if not going:
                    at = INT(0)  # from the beginning, for what comes next
                number, at = collect(
                    boxes, n, everywhere, candidates, count, at, found, scan, thread, threads
                )
        crowded = cuda.syncthreads_or(INT(reaching > U(room)))
        peak, highest = ZERO, trial
        for _ in range(EVALUATIONS):
            sums = (ZERO, ZERO, ZERO)
            k = U(0)
            while crowded == 0 and k < reaching:
                here = U(k * U(3 * threads) + U(thread))
                a, x = store[U(here + U(threads))], trial - store[here]
                sums = with_value(sums, store[U(here + U(2 * threads))], a, x, faintest)
                k = U(k + U(1))
            going = crowded != 0
            while going:
                done = INT(0)
                while done < number:
                    staged = stage_profiles(
                        own, found, done, number, records, perspective, thread, threads
                    )
                    if on:
                        sums = with_staged(
                            sums, records, staged, i, j, perspective, trial, faintest, part, split
                        )
                    done = INT(done + INT(RECORDS))
                going = not whole and at < count
                if not whole:
                    if not going:
                        at = INT(0)
                    number, at = collect(
                        boxes, n, everywhere, candidates, count, at, found, scan, thread, threads
                    )
            if split > 1:
                sums = sums_of_ray(sums, totals, place, thread, split)
            if sums[0] > peak:
                peak, highest = sums[0], trial
                move = newton_step(sums[0], sums[1], sums[2], ONE)
                trial = min(max(highest + move, ends[0]), ends[1])
            else:
                trial = highest + QUARTER * (trial - highest)
        return highest, peak

    def along_rays(
        profiles: Array,
        boxes: Counts,
        lists: Counts,
        tiles: Counts,
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
        """Set `depth` [N, H, W] to where the highest mode of f is, and `peaks` to f there.

        profiles : [N, K, PROFILE]. near, far : [V, H, W], where rays enter and leave the box; one
            that misses it has the peak 0.
        """
        scan = cuda.shared.array(scan_size, np.int32)
        found = cuda.shared.array(found_size, np.int32)
        chosen = cuda.shared.array(found_size, np.int32)
        records = cuda.shared.array(STAGED_PROFILES, np.float32, WIDE)
        store = cuda.shared.array(store_size, np.float32)
        totals = cuda.shared.array(parts, np.float32)
        n, thread = cuda.blockIdx.z, cuda.threadIdx.x
        place, part = thread % TILE_PIXELS, thread // TILE_PIXELS
        v, row, column = n % near.shape[0], cuda.blockIdx.y * TILE, cuda.blockIdx.x * TILE
        if row >= views[v, ROWS] or column >= views[v, WIDTH]:
            return
        i, j = INT(row + place // TILE), INT(column + place % TILE)
        held = i < views[v, ROWS] and j < views[v, WIDTH]
        first, step = searches[v, FIRST_BIN], searches[v, BIN_STEP]
        ends = (ZERO, ZERO)
        if held:
            ends = ((near[v, i, j] - first) / step, (far[v, i, j] - first) / step)
        rows = (row, row + TILE - 1, column, column + TILE - 1)
        y, x, own = row // SMALL, column // SMALL, profiles[n]
        count = counts[n, y, x]
        if count >= 0:
            candidates, of_each = lists[n, y, x], tiles[n, y, x]
            tile = row % SMALL // TILE * TILES + column % SMALL // TILE
            number, at = collect_of_small_cell(
                candidates, of_each, tile, count, found, scan, thread, threads
            )
        else:
            cell = cell_of_tile(cuda.blockIdx.y, cuda.blockIdx.x, near.shape[2])
            candidates, count = coarse[n, cell], coarse_counts[n, cell]
            everywhere = (-FARTHEST, FARTHEST, *rows)
            number, at = collect(
                boxes, n, everywhere, candidates, count, INT(0), found, scan, thread, threads
            )
        pixel = i, j, views[v, PERSPECTIVE] != 0
        if searching:
            among = (found, number) if at >= count else (candidates, count)
            bin_count, shared = INT(searches[v, BIN_COUNT]), (scan, chosen, records, store)
            trial = search(own, boxes, n, among, rows, bin_count, ends, pixel, shared, thread)
            if split > 1:
                if part == 0:
                    totals[0, place] = trial
                cuda.syncthreads()
                trial = totals[0, place]
            cuda.syncthreads()
        else:
            trial = (depth[n, i, j] - first) / step if held else ZERO
        highest, peak = climb(
            own,
            boxes,
            n,
            (candidates, count),
            rows,
            (found, number, at),
            trial,
            ends,
            pixel,
            (scan, records, store, totals),
            thread,
        )
        if held and part == 0:
            depth[n, i, j], peaks[n, i, j] = first + highest * step, peak

    along_rays.__name__ = "find_modes" if searching else "climb"
    return kernel(along_rays)


find_modes, climb = make_along_rays(1, searching=True), make_along_rays(1, searching=False)
find_modes_split = make_along_rays(SPLIT, searching=True)
climb_split = make_along_rays(SPLIT, searching=False)
