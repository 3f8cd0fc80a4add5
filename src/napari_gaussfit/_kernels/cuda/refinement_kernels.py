"""Refining Gaussians by Fisher scoring: a thread block a window of the stack.

The twin of `cpu.refinement_kernels`, which says what is computed. Sums over voxels are in float32,
`ITEMS` at a time, of the derivatives themselves: with rows e_p = sqrt(w) dr/dtheta_p and a last one
sqrt(w) (d - r), where w is a voxel's weight, the products of all rows are the information, the
score and chi^2. Cholesky's factors are in shared memory and in double precision.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import cuda

from napari_gaussfit._kernels.cpu.information_kernels import (
    EVEN,
    LEAST_RATE,
    PHOTONS,
    SHAPE,
    UNKNOWN,
)
from napari_gaussfit._kernels.cpu.refinement_kernels import (
    FIRST_DAMPING,
    LARGEST_STRETCH,
    LEAST_DAMPING,
    LONGEST_MOVE,
    MOST_DAMPING,
    NOTHING,
    STEADY,
    WRONG_MODEL,
)
from napari_gaussfit._kernels.cuda.derivatives import (
    RECORD,
    bend_of,
    differentiate,
    from_centre,
    height_of,
    inverses,
    place_in_shape,
    record,
    scale_of,
)
from napari_gaussfit._kernels.cuda.device import (
    LONG,
    WIDE,
    Counts,
    U,
    crowded_kernel,
    device,
    exact,
)
from napari_gaussfit._kernels.cuda.solver import (
    at,
    damp,
    factor,
    invert,
    limited,
    place_of,
    solve,
)
from napari_gaussfit._kernels.shared.gaussian import (
    HALF,
    INT,
    ONE,
    ZERO,
    Array,
    Array64,
    F,
    square_root,
)

THREADS = 64
ITEMS = THREADS  # voxels whose derivatives stand in shared memory at a time
PAIRS = THREADS // 2  # threads that have a pair of rows by a pair each, of half of the items
QUAD = 4  # items that are read at once
NO_PRODUCTS = (ZERO, ZERO, ZERO, ZERO)
PER_MOVE, PER_STRETCH = 1.0 / LONGEST_MOVE, 1.0 / LARGEST_STRETCH
ONE_GAUSSIAN, FEW = 13, 44  # parameters of a block: one of two channels, four of one channel


@exact
def products_of_pairs(rows: Array, row: U, column: U, half: int) -> tuple[F, F, F, F]:
    """Return sums, over half of the items, of a pair of rows' products with another pair's.

    Of each number that is read from shared memory two products are made, and four are read at once.
    """
    upper, lower, left, right = LONG(row), LONG(row + U(1)), LONG(column), LONG(column + U(1))
    s00, s01, s10, s11 = NO_PRODUCTS
    first = LONG(half * (ITEMS // 2))
    end = LONG(first + LONG(ITEMS // 2))
    while first < end:
        for m in range(QUAD):
            n = LONG(first + LONG(m))
            a, b, c, d = rows[upper, n], rows[lower, n], rows[left, n], rows[right, n]
            s00, s01, s10, s11 = s00 + a * c, s01 + a * d, s10 + b * c, s11 + b * d
        first = LONG(first + LONG(QUAD))
    return s00, s01, s10, s11


@exact
def signed_products_of_pairs(
    rows: Array, row: U, column: U, half: int, size: int
) -> tuple[F, F, F, F]:
    """Return sums as `products_of_pairs` does, of products times the sign in row `size`."""
    upper, lower, left, right = LONG(row), LONG(row + U(1)), LONG(column), LONG(column + U(1))
    s00, s01, s10, s11 = NO_PRODUCTS
    first = LONG(half * (ITEMS // 2))
    for m in range(ITEMS // 2):
        n = LONG(first + LONG(m))
        sign, c, d = rows[LONG(size), n], rows[left, n], rows[right, n]
        a, b = sign * rows[upper, n], sign * rows[lower, n]
        s00, s01, s10, s11 = s00 + a * c, s01 + a * d, s10 + b * c, s11 + b * d
    return s00, s01, s10, s11


@exact
def pairs_of(number: int) -> tuple[U, U]:
    """Return the first rows of two pairs, the second no lower: number by number of a triangle.

    The root is exact where the first goes up by one.
    """
    row = U(HALF * (F(math.sqrt(F(INT(8 * number + 1)))) - ONE))
    column = U(U(number) - at(row, 0))
    return U(row + row), U(column + column)


@exact
def channel_and_place(
    item: INT, sizes: tuple[INT, INT, INT], inverse: tuple[F, F, F]
) -> tuple[INT, F, F, F]:
    """Return the channel of an item, and its z, y and x, by products in place of quotients.

    They are right below a million items: a half is farther from a whole number than rounding.
    """
    plane = INT(sizes[1] * sizes[2])
    c = INT((F(item) + HALF) * inverse[0])
    i = INT(item - c * INT(sizes[0] * plane))
    z = INT((F(i) + HALF) * inverse[1])
    i = INT(i - z * plane)
    y = INT((F(i) + HALF) * inverse[2])
    return c, F(z), F(y), F(INT(i - y * sizes[2]))


@exact
def along(corner: tuple[INT, INT, INT], axis: int) -> INT:
    """Return a corner's place along an axis: a tuple's number by a variable may end a thread."""
    return corner[0] if axis == 0 else corner[1] if axis == 1 else corner[2]


@exact
def inverses_of(sizes: tuple[INT, INT, INT]) -> tuple[F, F, F]:
    """Return what `channel_and_place` multiplies by."""
    rows = F(sizes[1] * sizes[2])
    return ONE / (F(sizes[0]) * rows), ONE / rows, ONE / F(sizes[2])


@device
def quotient(a: F, b: F) -> F:
    """Return a / b by a GPU's one instruction, right to two units or so."""
    return a / b


def make_refine(most: int) -> Any:
    """Make the kernel that refines blocks of `most` parameters at most."""
    triangle, whole = most * (most + 1) // 2, (most + 1) * (most + 2) // 2
    gaussians = most // (SHAPE + 1)
    records_shape, rows_shape = (max(gaussians, 1), RECORD), (most + 2, ITEMS + QUAD)

    @exact
    def add_bends(
        inverse: tuple[Array, Array],
        r: Array,
        rows: Array,
        bent: Array64,
        counts: tuple[int, int, int],
        thread: int,
    ) -> None:
        """Add to `bent` what residuals make of second derivatives: a thread a pair of numbers.

        rows : of each item residual over variance times g, over gain; the same times amplitude; u,
            v, and the channel.
        """
        k, count, channels = counts
        if thread < SHAPE * (SHAPE + 1) // 2:
            p, q = 0, thread
            while q > p:
                q -= p + 1
                p += 1
            part, scales = ZERO, (scale_of(r, p), scale_of(r, q))
            for n in range(ITEMS):
                if rows[1, n] != ZERO:
                    part += rows[1, n] * bend_of(p, q, scales, inverse, rows, n)
            bent[at(SHAPE * k + p, SHAPE * k + q)] += part
        elif thread < SHAPE * (SHAPE + 1) // 2 + SHAPE:
            p = thread - SHAPE * (SHAPE + 1) // 2
            scale, i, j = scale_of(r, p), p, 0
            if p >= 3:
                i, j = place_in_shape(p)
            for c in range(channels):
                part = ZERO
                for n in range(ITEMS):
                    if rows[8, n] == F(c):
                        by_p = rows[5 + i, n] * scale
                        part += rows[0, n] * (by_p * rows[2 + j, n] if p >= 3 else by_p)
                bent[at(SHAPE * count + c * count + k, SHAPE * k + p)] += part

    @exact
    def sum_up(
        given: tuple[Array, LONG],
        sizes: tuple[INT, INT, INT],
        per_size: tuple[F, F, F],
        theta: Array64,
        shared: tuple[Array, Array, Array64, Array64],
        numbers: tuple[float, float, float, Any],
        counts: tuple[int, int, int],
        thread: int,
    ) -> None:
        """Set the triangle of all rows' products at `theta`.

        given : [3, voxels of all blocks], light, whether it counts, and what others add, in
            photons; and where the block's begin.
        shared : records, rows, the triangle, and what residuals add to the likelihood's curvature.
        counts : of Gaussians, channels and parameters.
        numbers : 1 / gain, intercept / gain, how voxels count, and whether the score's spread is
            asked for, and that curvature, and chi^2 by the rate; see
            `cpu.information_kernels.information`.
        """
        (voxels, begins_at), (records, rows, products, bent) = given, shared
        halves = cuda.shared.array((4, PAIRS), np.float32)
        photons_of_one, offset, kind, spread = numbers
        of_one, lost = F(photons_of_one), ZERO
        m = cuda.shared.array((3, 3), np.float32)
        inner = cuda.shared.array((3, 3), np.float32)
        count, channels, size = counts
        total = sizes[0] * sizes[1] * sizes[2]
        if thread < count:
            record(theta, SHAPE * thread, (INT(0), INT(0), INT(0)), records[thread])
        for entry in range(thread, at(size, size) + 1, THREADS):
            products[entry] = 0.0
        if spread:
            for entry in range(thread, at(size, 0), THREADS):
                bent[entry] = 0.0
        cuda.syncthreads()
        for begin in range(0, channels * total, ITEMS):
            item = begin + thread
            c, pull, z, y, x = INT(0), ZERO, ZERO, ZERO, ZERO
            at_item = LONG(begins_at + LONG(item))
            counted = item < channels * total and voxels[1, at_item] > ZERO
            # What follows sets all but rows of other channels.
            p = U(SHAPE * count if counted else 0)
            while p <= U(size):
                rows[p, thread] = ZERO
                p = U(p + U(1))
            if counted:
                c, z, y, x = channel_and_place(INT(item), sizes, per_size)
                ground, amplitude = U((SHAPE + channels) * count + c), U(SHAPE * count + c * count)
                rate, k = voxels[2, at_item] + F((theta[ground] + offset) * photons_of_one), U(0)
                while k < U(count):
                    g = height_of(from_centre(records[k], z, y, x))
                    rate += F(theta[U(amplitude + k)] * photons_of_one) * g
                    k = U(k + U(1))
                weight = ONE
                if kind == PHOTONS:
                    rate = max(rate, LEAST_RATE)
                    weight = quotient(ONE, rate)
                off = voxels[0, at_item] - rate
                pull = weight * off
                if spread:
                    lost += quotient(pull * off, max(rate, LEAST_RATE))
                    told = kind != UNKNOWN
                    weight = weight * weight * voxels[0, at_item] if told else pull * pull
                scale, k = square_root(abs(weight)), U(0)
                # Once more, as what is known by now would be scaled by reading it again.
                while k < U(count):
                    u = from_centre(records[k], z, y, x)
                    g = scale * height_of(u)
                    height = F(theta[U(amplitude + k)] * photons_of_one) * g
                    differentiate(records[k], u, height, rows, U(U(SHAPE) * k), thread)
                    rows[U(amplitude + k), thread] = g * of_one
                    k = U(k + U(1))
                rows[ground, thread] = scale * of_one
                # Of a spread the last row is its sign: a reading may be below 0.
                rows[size, thread] = scale * off
                if spread:
                    rows[size, thread] = F(math.copysign(ONE, weight))
            cuda.syncthreads()
            rows_of_tiles = (size + 2) // 2
            for begun in range(0, at(rows_of_tiles, 0), PAIRS):
                row, column = pairs_of(begun + thread % PAIRS)
                half, part = thread // PAIRS, NO_PRODUCTS
                if row <= size and spread:
                    part = signed_products_of_pairs(rows, row, column, half, size)
                elif row <= size:
                    part = products_of_pairs(rows, row, column, half)
                if thread >= PAIRS:
                    for n in range(4):
                        halves[n, thread - PAIRS] = part[n]
                cuda.syncthreads()
                if thread < PAIRS and row <= size:
                    for n in range(4):
                        i, j = row + n // 2, column + n % 2
                        if j <= i <= size:
                            products[at(i, j)] += part[n] + halves[n, thread]
                cuda.syncthreads()
            if spread:
                for one in range(count):
                    if thread == 0:
                        inverses(records[one], m, inner)
                    u = from_centre(records[one], z, y, x)
                    amplitude = theta[LONG(SHAPE * count + c * count + one)] * photons_of_one
                    rows[0, thread] = pull * height_of(u) * of_one
                    rows[1, thread] = pull * height_of(u) * F(amplitude)
                    v2 = u[2] * records[one, 8]
                    v1 = (u[1] - records[one, 7] * v2) * records[one, 5]
                    v0 = (u[0] - records[one, 4] * v1 - records[one, 6] * v2) * records[one, 3]
                    rows[2, thread], rows[3, thread], rows[4, thread] = u
                    rows[5, thread], rows[6, thread], rows[7, thread] = v0, v1, v2
                    rows[8, thread] = F(c)
                    cuda.syncthreads()
                    add_bends((m, inner), records[one], rows, bent, (one, count, channels), thread)
                    cuda.syncthreads()
        if spread:
            rows[0, thread] = lost
            cuda.syncthreads()
            if thread == 0:
                whole_loss = ZERO
                for n in range(ITEMS):
                    whole_loss += rows[0, n]
                products[at(size, size)] = whole_loss
            cuda.syncthreads()

    @crowded_kernel
    def refine(
        voxels: Array,
        begins: Counts,
        boxes: tuple[Counts, Counts],
        members: tuple[Counts, Counts],
        others: tuple[Counts, Counts],
        start: tuple[Array64, Array64, Array64],
        rules: tuple[Array64, Array64, INT],
        scratch: tuple[Array, Array64],
        found: tuple[Array64, Array64, Array64, Array64],
    ) -> None:
        """Refine a block of Gaussians; see `cpu.refinement_kernels.refine_block`.

        voxels : [C, Z, Y, X]. begins : [N], where each block's part of the scratch memory begins.
        boxes : of blocks [N, 6] and of Gaussians' windows [K, 6].
        members, others : where a block's begin [N + 1], and which they are.
        start : shapes [K, 9], amplitudes [C, K] and backgrounds [N, C], the latter changed.
        rules : noise [4], limits [3, 3], steps at most.
        scratch : [3, voxels of all blocks], and [N, most, most].
        found : shapes, amplitudes, covariances [K, 9 + 2 C, 9 + 2 C], numbers [K, 3 + C].
        """
        records = cuda.shared.array(records_shape, np.float32)
        rows = cuda.shared.array(rows_shape, np.float32, WIDE)
        tried = cuda.shared.array(whole, np.float64)
        fisher = cuda.shared.array(triangle, np.float64)
        damped = cuda.shared.array(triangle, np.float64)
        theta = cuda.shared.array(most, np.float64)
        trial = cuda.shared.array(most, np.float64)
        step = cuda.shared.array(most, np.float64)
        score = cuda.shared.array(most, np.float64)
        begun = cuda.shared.array(most, np.float64)
        b, thread = cuda.blockIdx.x, cuda.threadIdx.x
        (bounds, windows), (starts, ids), (other_starts, other_ids) = boxes, members, others
        shapes, amplitudes, backgrounds = start
        noise, limits, most_steps = rules
        channels, first, count = amplitudes.shape[0], starts[b], starts[b + 1] - starts[b]
        size = count * (SHAPE + channels) + channels
        corner = bounds[b, 0], bounds[b, 2], bounds[b, 4]
        sizes = (
            bounds[b, 1] - corner[0] + INT(1),
            bounds[b, 3] - corner[1] + INT(1),
            bounds[b, 5] - corner[2] + INT(1),
        )
        total = sizes[0] * sizes[1] * sizes[2]
        gain, intercept, kind = noise[0], noise[1], noise[3]
        # A quotient of doubles takes a GPU as long as a voxel's exponential and derivatives.
        photons_of_one, offset = 1.0 / gain, intercept / gain
        per_size = inverses_of(sizes)
        poisson = kind == PHOTONS
        cut, begins_at = scratch[0], LONG(begins[b])
        # What is begun with; centres are from the box's corner, where float32 has them exactly.
        if thread < size:
            value = 0.0
            if thread < SHAPE * count:
                k, n = thread // SHAPE, thread % SHAPE
                value = shapes[ids[first + k], n]
                if n < 3:
                    value -= along(corner, n)
            elif thread < (SHAPE + channels) * count:
                c = (thread - SHAPE * count) // count
                value = amplitudes[c, ids[first + thread - SHAPE * count - c * count]]
            else:
                value = backgrounds[b, thread - (SHAPE + channels) * count]
            theta[thread], trial[thread], begun[thread] = value, value, value
            step[thread], score[thread] = 0.0, 0.0
        # The block's voxels in photons: which of them count, and what other blocks add.
        looked = 0
        for begin in range(0, channels * total, THREADS):
            item, counts = begin + thread, False
            if item < channels * total:
                c, from_z, from_y, from_x = channel_and_place(INT(item), sizes, per_size)
                z, y, x = corner[0] + INT(from_z), corner[1] + INT(from_y), corner[2] + INT(from_x)
                value = voxels[LONG(c), LONG(z), LONG(y), LONG(x)]
                for k in range(count):
                    box = windows[ids[first + k]]
                    counts = counts or (
                        box[0] <= z <= box[1] and box[2] <= y <= box[3] and box[4] <= x <= box[5]
                    )
                counts = counts and value < noise[2]
                at_item = LONG(begins_at + LONG(item))
                cut[0, at_item] = value * F(photons_of_one) + F(offset * photons_of_one)
                cut[1, at_item] = ONE if counts else ZERO
                cut[2, at_item] = ZERO
            looked += cuda.syncthreads_count(INT(counts))
        for m in range(other_starts[b], other_starts[b + 1]):
            k = other_ids[m]
            if thread == 0:
                record(shapes[k], 0, corner, records[0])
            cuda.syncthreads()
            for item in range(thread, channels * total, THREADS):
                c, from_z, from_y, from_x = channel_and_place(INT(item), sizes, per_size)
                u = from_centre(records[0], from_z, from_y, from_x)
                height = F(amplitudes[LONG(c), LONG(k)] * photons_of_one) * height_of(u)
                cut[2, LONG(begins_at + LONG(item))] += height
            cuda.syncthreads()
        freedom = max(looked - size, 1)
        damping, chi2, reduced, taken, steps = 10.0 * FIRST_DAMPING, 0.0, 0.0, 0, 0
        steady, ended, inverted, sandwich = False, False, False, False
        going = True
        while going:
            sum_up(
                (cut, begins_at),
                sizes,
                per_size,
                trial,
                (records, rows, tried, damped),
                (photons_of_one, offset, kind, ended),
                (count, channels, size),
                thread,
            )
            if ended:
                sandwich = True
                break
            gained = 0.0
            for i in range(size):
                gained += step[i] * (score[i] + tried[at(size, i)])
            cuda.syncthreads()
            if taken == 0 or gained > 0.0:
                chi2 = tried[at(size, size)]
                for entry in range(thread, at(size, 0), THREADS):
                    fisher[entry] = tried[entry]
                if thread < size:
                    theta[thread], score[thread] = trial[thread], tried[at(size, thread)]
                cuda.syncthreads()
                # Amplitudes that would be negative stay 0, and nothing of others'.
                dark = SHAPE * count <= thread < size - channels
                if dark and theta[thread] <= 0.0 and score[thread] <= 0.0:
                    score[thread] = 0.0
                    for i in range(size):
                        fisher[at(max(i, thread), min(i, thread))] = 0.0
                cuda.syncthreads()
                damping = max(damping * 0.1, LEAST_DAMPING)
            else:
                damping *= 10.0
            while damping < MOST_DAMPING and not damp(fisher, damping, damped, size, thread):
                damping *= 10.0
                cuda.syncthreads()
            ended = taken == most_steps or not damping < MOST_DAMPING
            if not ended:
                taken += 1
                if thread < size:
                    step[thread] = score[thread]
                cuda.syncthreads()
                solve(damped, step, size, thread)
                square, longest = 0.0, 1.0
                for i in range(size):
                    square += step[i] * score[i]
                    n = i % SHAPE
                    if i < SHAPE * count and n < 3:
                        longest = max(longest, abs(step[i]) * PER_MOVE)
                    elif i < SHAPE * count and (n == 3 or n == 5 or n == 8):  # noqa: PLR1714
                        longest = max(longest, abs(step[i]) * PER_STRETCH)
                cuda.syncthreads()
                if thread < size:
                    value = theta[thread] + step[thread] / longest
                    if thread < SHAPE * count:
                        value = limited(value, thread % SHAPE, begun[thread], limits)
                    elif thread < size - channels:
                        value = max(value, 0.0)
                    trial[thread], step[thread] = value, value - theta[thread]
                cuda.syncthreads()
                variance = 1.0 if poisson else max(chi2, 1e-300) / freedom
                steady = square < STEADY * size * variance and damping <= FIRST_DAMPING
                ended = steady
            if ended:
                if steady and thread < size:
                    theta[thread] = trial[thread]
                reduced = chi2 / freedom
                cuda.syncthreads()
                inverted = damp(fisher, 0.0, damped, size, thread)
                going = inverted
                if inverted:
                    invert(damped, scratch[1][b], size, thread)
                    steps = taken if steady else -taken
                    fits = reduced <= 1.0 + WRONG_MODEL * math.sqrt(2.0 / max(looked, 1))
                    going = not (poisson and fits)
                    if thread < size:
                        trial[thread] = theta[thread]
                    cuda.syncthreads()
        inverse = scratch[1][b]
        if sandwich:
            if kind == EVEN:
                reduced = tried[at(size, size)] / freedom
            curved = True
            for i in range(size):
                known = fisher[at(i, i)] >= NOTHING
                first_part = tried[at(i, i)] if poisson else fisher[at(i, i)]
                curved = curved and (not known or first_part - damped[at(i, i)] >= NOTHING)
            cuda.syncthreads()
            if thread < size:
                known = fisher[at(thread, thread)] >= NOTHING
                for j in range(thread + 1):
                    entry = at(thread, j)
                    first_part = tried[entry] if poisson else fisher[entry]
                    value = 1.0 if j == thread else 0.0
                    if known and fisher[at(j, j)] >= NOTHING:
                        value = first_part - damped[entry]
                    damped[entry] = value
            cuda.syncthreads()
            if curved and factor(damped, size, thread):
                invert(damped, inverse, size, thread)
            cuda.syncthreads()
        if thread < size and inverted:
            for j in range(thread + 1):
                value = inverse[thread, j]
                if sandwich:
                    # A row of the inverse times the squared scores, times a column of it.
                    value = 0.0
                    for n in range(size):
                        inner = 0.0
                        for m in range(size):
                            inner += inverse[thread, m] * tried[at(max(m, n), min(m, n))]
                        value += inner * inverse[n, j]
                damped[at(thread, j)] = value
        cuda.syncthreads()
        for k in range(count):
            own_id, across = ids[first + k], SHAPE + 2 * channels
            for entry in range(thread, across * across, THREADS):
                i = place_of(entry // across, k, count, channels)
                j = place_of(entry % across, k, count, channels)
                known = inverted and fisher[at(i, i)] >= NOTHING and fisher[at(j, j)] >= NOTHING
                value = damped[at(max(i, j), min(i, j))] if known else math.nan
                found[2][own_id, entry // across, entry % across] = value
            if thread < SHAPE:
                place = along(corner, thread) if thread < 3 else INT(0)
                found[0][own_id, thread] = theta[SHAPE * k + thread] + place
            if thread < channels:
                found[1][thread, own_id] = theta[SHAPE * count + thread * count + k]
                found[3][own_id, 3 + thread] = theta[size - channels + thread]
            if thread == 0:
                found[3][own_id, 0], found[3][own_id, 1] = reduced, float(looked)
                found[3][own_id, 2] = float(steps)
        if thread < channels:
            backgrounds[b, thread] = theta[size - channels + thread]

    return refine


refine_one, refine_few = make_refine(ONE_GAUSSIAN), make_refine(FEW)
