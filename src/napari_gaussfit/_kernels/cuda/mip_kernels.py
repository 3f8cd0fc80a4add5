"""CUDA kernels of views: where Gaussians lie in images, which reach what part, and gradients.

The twins of `cpu.ray_kernels` and `cpu.mip_kernels`. An image is a view of one channel: image n
shows channel n // V in view n % V. A block has one tile of an image, a thread one pixel; backward,
a block has one Gaussian and gathers over its footprint in every view.
"""

from __future__ import annotations

import math

import numpy as np
from numba import cuda

from napari_gaussfit._kernels.cuda.device import (
    GATHERING,
    GATHERING_THREADS,
    GROUP,
    LISTING_SCAN,
    LISTING_THREADS,
    SHARE,
    SUMS,
    Counts,
    Moments,
    U,
    add_up,
    ceil_int,
    device,
    floor_int,
    kernel,
    overlap,
    places,
)
from napari_gaussfit._kernels.shared.footprint import (
    DEPTH,
    FIRST_ROW,
    FOOTPRINT,
    LAST_ROW,
    REACH2,
    ROW,
    column_ends,
    column_extent,
    depth_per_u,
    dot,
    footprint,
    on_parallel_ray,
    on_ray,
)
from napari_gaussfit._kernels.shared.gaussian import (
    INT,
    NO_MOMENTS,
    RADIUS2,
    Array,
    F,
    with_point,
)
from napari_gaussfit._kernels.shared.gaussian import exp2_negative as exp2
from napari_gaussfit._kernels.shared.profile import (
    PROFILE,
    profile_of,
)

LOW_HALF, HALF_BITS, NO_PAIR = np.int64(0xFFFFFFFF), np.int64(32), np.int64(0)
TEAM = 32  # threads of a block that gather one view
TOGETHER = 16  # views whose footprints stand in shared memory
SEEN, SEEN_VIEWS = (TOGETHER, FOOTPRINT), (2, TOGETHER)
TILE = 8
THREADS = TILE * TILE
SCAN = THREADS + THREADS // GROUP
CELL = 128  # pixels a side that have a list of Gaussians in common
SMALL = 32  # pixels a side of a small cell, whose list is taken from that of its cell
SMALL_IN_CELL, TILES = CELL // SMALL, SMALL // TILE  # small cells a cell, tiles a small cell
FIRST_OF_ROWS = INT(sum(1 << row * TILES for row in range(TILES)))
ROOM = 8  # of the Gaussians, a part that a small cell's list has room for
LEAST_ROOM = 256
MAKING = 128  # threads that make a footprint and a profile each
MADE_FOOTPRINTS = (MAKING, FOOTPRINT + 1)
MADE_PROFILES = (MAKING, PROFILE + 1)
FARTHEST = INT(1 << 30)
FAR_BIN = 1 << 30  # beyond every bin: all depths are in one cell
# Of a view's camera, at compile time: for one whose rays are parallel there is less to do.
PARALLEL_RAYS, PINHOLE = False, True
PERSPECTIVE, ROWS, WIDTH = 0, 1, 2  # columns of a table of views
FIRST_BIN, BIN_STEP, BIN_COUNT = 0, 1, 2  # columns of a table of searches


@device
def write_rows(table: Array, first: U, made: Array, count: U, width: U, thread: U) -> None:
    """Copy `count` rows of `made` to the rows of `table` from `first` on, number after number."""
    at, end = thread, U(count * width)
    while at < end:
        row = U(at // width)
        column = U(at - row * width)
        table[U(first + row), column] = made[row, column]
        at = U(at + U(MAKING))


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
    boxes : [N, K, 6], bins, rows and columns.
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
        boxes[n, k, 0], boxes[n, k, 1] = low, high
        boxes[n, k, 2], boxes[n, k, 3] = first, last
        boxes[n, k, 4], boxes[n, k, 5] = left, right
    cuda.syncthreads()
    made = U(min(INT(MAKING), INT(count - begin)))
    write_rows(footprints[n], U(begin), g, made, U(FOOTPRINT), U(thread))
    write_rows(profiles[n], U(begin), r, made, U(PROFILE), U(thread))


@device
def bits_between(first: INT, last: INT) -> INT:
    """Return a number whose bits from `first` to `last` are set."""
    return INT((INT(2) << INT(last)) - (INT(1) << INT(first)))


@device
def tiles_met(boxes: Counts, n: int, k: U, top: INT, left: INT) -> INT:
    """Return which tiles of the small cell at `top`, `left` a box meets, a bit each, by rows."""
    end = INT(SMALL - 1)
    first, last = max(boxes[n, k, 2] - top, INT(0)), min(boxes[n, k, 3] - top, end)
    west, east = max(boxes[n, k, 4] - left, INT(0)), min(boxes[n, k, 5] - left, end)
    down = bits_between(INT(first // TILE * TILES), INT(last // TILE * TILES)) & FIRST_OF_ROWS
    return INT(down * bits_between(INT(west // TILE), INT(east // TILE)))


@kernel
def list_small_cells(
    boxes: Array,
    coarse: Counts,
    coarse_counts: Counts,
    lists: Counts,
    tiles: Counts,
    counts: Counts,
) -> None:
    """List the Gaussians that reach each small cell, of those of its cell: one block a small cell.

    boxes : [N, K, 6]. coarse, coarse_counts : of cells, as `list_cells` leaves them.
    lists, tiles : [N, rows, columns, room] of small cells, with which of its tiles each reaches.
    counts : [N, rows, columns]; -1 where the room does not hold all.
    """
    scan = cuda.shared.array(LISTING_SCAN, np.int32)
    n, number, thread = cuda.blockIdx.y, INT(cuda.blockIdx.x), INT(cuda.threadIdx.x)
    across = INT(counts.shape[2])
    row, column = number // across, number % across
    cell = row // SMALL_IN_CELL * ((across + SMALL_IN_CELL - 1) // SMALL_IN_CELL)
    cell += column // SMALL_IN_CELL
    top, left = INT(row * SMALL), INT(column * SMALL)
    tile = (-FARTHEST, FARTHEST, top, INT(top + SMALL - 1), left, INT(left + SMALL - 1))
    room, held = INT(lists.shape[3]), INT(0)
    candidates, own, own_tiles = coarse[n, cell], lists[n, row, column], tiles[n, row, column]
    start, count = INT(0), coarse_counts[n, cell]
    while start < count:
        met, some = INT(0), INT(0)
        for m in range(SHARE):
            at = INT(start + INT(m * LISTING_THREADS) + thread)
            if at < count and overlap(boxes, n, U(candidates[U(at)]), tile):
                met |= INT(1) << INT(m)
                some = INT(some + INT(1))
        place, total = places(some, scan, thread, LISTING_THREADS)
        place = INT(place + held)
        for m in range(SHARE):
            if met & (INT(1) << INT(m)) and place < room:
                k = candidates[U(start + INT(m * LISTING_THREADS) + thread)]
                own[U(place)], own_tiles[U(place)] = k, tiles_met(boxes, n, U(k), top, left)
                place = INT(place + INT(1))
        held = INT(held + total)
        start = INT(start + INT(SHARE * LISTING_THREADS))
    if thread == 0:
        counts[n, row, column] = held if held <= room else -INT(1)


@device
def cell_of_tile(row: int, column: int, width: int) -> int:
    """Return the number of the cell that holds a tile; `width` is the padded images'."""
    return (row * TILE // CELL) * ((width + CELL - 1) // CELL) + column * TILE // CELL


@device
def with_pixel(
    s: Moments, g: Array, n: U, i: INT, j: INT, both: np.int64, perspective: bool
) -> Moments:
    """Return sums with a pixel of footprint `n` of `g` more; see `gather_moments`."""
    t, weight = U(both & LOW_HALF).view(F), U((both >> HALF_BITS) & LOW_HALF).view(F)
    if perspective:
        u, _ = on_ray(g, n, i, j, t - g[n, DEPTH])
    else:
        u = on_parallel_ray(g, n, i, j, t - g[n, DEPTH])
    square = dot(u, u)
    if square < g[n, REACH2]:
        s = with_point(s, weight * exp2(-square), u[0], u[1], u[2])
    return s


@device
def gathered(
    s: Moments,
    g: Array,
    n: U,
    width: int,
    pairs: Array,
    across: U,
    place: U,
    perspective: bool,
) -> Moments:
    """Return sums with a team's share of those over footprint `n` of `g`, in an image.

    pairs : [H W], `across` numbers a row: see `gather_moments`.
    """
    i, bottom = INT(INT(g[n, FIRST_ROW]) + INT(place // U(GATHERING))), INT(g[n, LAST_ROW])
    while i <= bottom:
        first, last = column_ends(g, n, F(i) - g[n, ROW], width)
        j, right = INT(INT(first) + INT(place % U(GATHERING))), INT(last)
        begin = U(U(i) * across)
        while j <= right:
            # Two are asked for at once: a thread waits long for each.
            other, both = INT(j + INT(GATHERING)), pairs[U(begin + U(j))]
            second = pairs[U(begin + U(other))] if other <= right else NO_PAIR
            s = with_pixel(s, g, n, i, j, both, perspective)
            if other <= right:
                s = with_pixel(s, g, n, i, other, second, perspective)
            j = INT(other + INT(GATHERING))
        i = INT(i + INT(TEAM // GATHERING))
    return s


@kernel
def gather_moments(
    footprints: Array, views: Counts, pairs: Counts, across: U, moments: Array
) -> None:
    """Set `moments` [C, K, 10] to the sums that `unpack_gradient` wants, of f where it is largest.

    A block has a Gaussian, and each of its teams of threads every so many views.

    footprints : [N, K, FOOTPRINT]. across : W.
    pairs : [N, H W], where f is largest and the derivative of the loss by each pixel, 0 where a ray
        misses the box: bits of two floats in a number, as a thread waits long for each it asks for.
    """
    sums = cuda.shared.array(SUMS, np.float32)
    g = cuda.shared.array(SEEN, np.float32)
    of_views = cuda.shared.array(SEEN_VIEWS, np.int32)
    k, channel, thread = cuda.blockIdx.x, cuda.blockIdx.y, U(cuda.threadIdx.x)
    s, count, begin = NO_MOMENTS, U(views.shape[0]), U(0)
    images = U(U(channel) * count)
    while begin < count:
        number = min(U(TOGETHER), U(count - begin))
        cuda.syncthreads()
        if thread < number:
            v = U(begin + thread)
            of_views[0, thread], of_views[1, thread] = views[v, WIDTH], views[v, PERSPECTIVE]
        at = thread
        while at < U(number * U(FOOTPRINT)):
            n = U(at // U(FOOTPRINT))
            column = U(at - U(n * U(FOOTPRINT)))
            g[n, column] = footprints[U(images + U(begin + n)), k, column]
            at = U(at + U(GATHERING_THREADS))
        cuda.syncthreads()
        n, place = U(thread // U(TEAM)), U(thread % U(TEAM))
        while n < number:
            image = U(images + U(begin + n))
            width = of_views[0, n]
            if of_views[1, n]:
                s = gathered(s, g, n, width, pairs[image], across, place, PINHOLE)
            else:
                s = gathered(s, g, n, width, pairs[image], across, place, PARALLEL_RAYS)
            n = U(n + U(GATHERING_THREADS // TEAM))
        begin = U(begin + U(TOGETHER))
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
