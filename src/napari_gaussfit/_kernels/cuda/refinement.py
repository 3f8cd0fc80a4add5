"""Refining Gaussians by Fisher scoring on a CUDA device: a thread block a window of the stack.

The twin of `cpu.refinement_kernels`, which says what is computed. Sums over voxels are in float32,
`ITEMS` at a time, of the derivatives themselves: with rows e_p = sqrt(w) dr/dtheta_p and a last one
sqrt(w) (d - r), where w is a voxel's weight, the products of all rows are the information, the
score and chi^2. Cholesky's factors are in shared memory and in double precision, for error bars are
what is left of large numbers. Blocks of more than a few Gaussians have no room there: they are the
CPU's.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numba import cuda

from napari_gaussfit._kernels.cpu import refinement_kernels as own
from napari_gaussfit._kernels.cpu.information_kernels import (
    EVEN,
    LEAST_RATE,
    PHOTONS,
    REACH2,
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
from napari_gaussfit._kernels.cuda import room_on
from napari_gaussfit._kernels.cuda.device import SIMULATED, Counts, floats, launch
from napari_gaussfit._kernels.shared.gaussian import HALF, INT, ONE, SCALE, ZERO, Array, Array64, F

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]

THREADS = 64
ITEMS = THREADS  # voxels whose derivatives stand in shared memory at a time
ONE_GAUSSIAN, FEW = 13, 44  # parameters of a block: one of two channels, four of one channel
MOST = 4  # Gaussians, of one channel, that are refined together here
RECORD = 12  # centre, 1 / l00, l10, 1 / l11, l20, l21, 1 / l22, l00, l11, l22
FARTHEST = REACH2 / (SCALE * SCALE)
BATCH = 1 << 14
"""Blocks of a launch: each has some kilobytes of a device's memory meanwhile."""

# Nothing is taken for finite here: limits may be infinite, and what is not known is NaN.
exact = cuda.jit(device=True)
exact_kernel = cuda.jit(cache=not SIMULATED)


@exact
def at(i: int, j: int) -> int:
    """Return where entry (i, j), j <= i, of a triangle is in a row of its entries."""
    return i * (i + 1) // 2 + j


@exact
def factor(a: Array64, size: int, thread: int) -> Any:
    """Put the Cholesky factor in place of the triangle `a`; False where it has none.

    A thread a row, and column after column.
    """
    for n in range(size):
        rest = 0.0
        if n <= thread < size:
            rest = a[at(thread, n)]
            for p in range(n):
                rest -= a[at(thread, p)] * a[at(n, p)]
        if thread == n:
            a[at(n, n)] = math.sqrt(rest) if rest > 1e-300 else -1.0
        cuda.syncthreads()
        pivot = a[at(n, n)]
        if pivot < 0.0:
            return False
        if n < thread < size:
            a[at(thread, n)] = rest / pivot
        cuda.syncthreads()
    return True


@exact
def solve(a: Array64, b: Array64, size: int, thread: int) -> None:
    """Replace b [size] by the solution x of a a^T x = b: a thread a row."""
    for p in range(size):
        if thread == p:
            b[p] /= a[at(p, p)]
        cuda.syncthreads()
        if p < thread < size:
            b[thread] -= a[at(thread, p)] * b[p]
    for p in range(size - 1, -1, -1):
        if thread == p:
            b[p] /= a[at(p, p)]
        cuda.syncthreads()
        if thread < p:
            b[thread] -= a[at(p, thread)] * b[p]
    cuda.syncthreads()


@exact
def damp(fisher: Array64, damping: float, damped: Array64, size: int, thread: int) -> Any:
    """Set `damped` to the factor of the information; see `cpu.refinement_kernels.damp`."""
    if thread < size:
        nothing = fisher[at(thread, thread)] < NOTHING
        for j in range(thread):
            unknown = nothing or fisher[at(j, j)] < NOTHING
            damped[at(thread, j)] = 0.0 if unknown else fisher[at(thread, j)]
        own_entry = fisher[at(thread, thread)] * (1.0 + damping) + 1e-300
        damped[at(thread, thread)] = 1.0 if nothing else own_entry
    cuda.syncthreads()
    return factor(damped, size, thread)


@exact
def invert(a: Array64, inverse: Array64, size: int, thread: int) -> None:
    """Set `inverse` [size, size] to that of a a^T: a thread a column, each by itself."""
    if thread < size:
        x = inverse[thread]
        for i in range(size):
            rest = 1.0 if i == thread else 0.0
            for n in range(i):
                rest -= a[at(i, n)] * x[n]
            x[i] = rest / a[at(i, i)]
        for i in range(size - 1, -1, -1):
            rest = x[i]
            for n in range(i + 1, size):
                rest -= a[at(n, i)] * x[n]
            x[i] = rest / a[at(i, i)]
    cuda.syncthreads()


@exact
def record(theta: Array64, first: int, corner: tuple[INT, INT, INT], record: Array) -> None:
    """Set `record` [RECORD] of the Gaussian whose shape begins at `theta[first]`."""
    for n in range(3):
        record[n] = F(theta[first + n] - corner[n])
    l00, l11, l22 = (
        math.exp(theta[first + 3]),
        math.exp(theta[first + 5]),
        math.exp(theta[first + 8]),
    )
    record[3], record[5], record[8] = F(1.0 / l00), F(1.0 / l11), F(1.0 / l22)
    record[4], record[6], record[7] = (
        F(theta[first + 4]),
        F(theta[first + 6]),
        F(theta[first + 7]),
    )
    record[9], record[10], record[11] = F(l00), F(l11), F(l22)


@exact
def from_centre(r: Array, z: F, y: F, x: F) -> tuple[F, F, F]:
    """Return u = L^-1 (x - mu) of a voxel."""
    u0 = (z - r[0]) * r[3]
    u1 = (y - r[1] - r[4] * u0) * r[5]
    return u0, u1, (x - r[2] - r[6] * u0 - r[7] * u1) * r[8]


@exact
def height_of(u: tuple[F, F, F]) -> F:
    """Return exp(-|u|^2 / 2), and 0 on the rows of voxels where the CPU leaves a Gaussian out."""
    square = u[0] * u[0] + u[1] * u[1]
    return F(math.exp(-HALF * (square + u[2] * u[2]))) if square <= FARTHEST else ZERO


@exact
def differentiate(r: Array, u: tuple[F, F, F], height: F, rows: Array, first: int, n: int) -> None:
    """Set rows [first, first + 9) of item n: what a height's change with centre and widths is."""
    v2 = u[2] * r[8]
    v1 = (u[1] - r[7] * v2) * r[5]
    v0 = (u[0] - r[4] * v1 - r[6] * v2) * r[3]
    rows[first, n], rows[first + 1, n], rows[first + 2, n] = height * v0, height * v1, height * v2
    rows[first + 3, n] = height * v0 * u[0] * r[9]
    rows[first + 4, n] = height * v1 * u[0]
    rows[first + 5, n] = height * v1 * u[1] * r[10]
    rows[first + 6, n] = height * v2 * u[0]
    rows[first + 7, n] = height * v2 * u[1]
    rows[first + 8, n] = height * v2 * u[2] * r[11]


@exact
def limited(value: float, n: int, start: float, limits: Array64) -> Any:
    """Return number n of a shape as near as may be; see `cpu.refinement_kernels.keep_within`."""
    if n < 3:
        return min(max(value, start - limits[2, n]), start + limits[2, n])
    axis = 0 if n == 3 else 1 if n <= 5 else 2
    if n == 3 or n == 5 or n == 8:  # noqa: PLR1714 - numba has no `in` here
        return min(max(value, limits[0, axis]), limits[1, axis])
    widest = math.exp(limits[1, axis])
    return min(max(value, -widest), widest)


@exact
def place_of(i: int, k: int, count: int, channels: int) -> int:
    """Return where number i of Gaussian k and the backgrounds is among those of its block."""
    if i < SHAPE:
        return SHAPE * k + i
    if i < SHAPE + channels:
        return SHAPE * count + (i - SHAPE) * count + k
    return SHAPE * count + channels * count + i - SHAPE - channels


@exact
def inverses(r: Array, m: Array, a: Array) -> None:
    """Set `m` to L^-1 and `a` to the inverse of the covariance, of a record's Gaussian."""
    for i in range(3):
        for j in range(3):
            m[i, j] = ZERO
    m[0, 0], m[1, 1], m[2, 2] = r[3], r[5], r[8]
    m[1, 0], m[2, 1] = -r[4] * r[3] * r[5], -r[7] * r[5] * r[8]
    m[2, 0] = -(r[6] * r[3] + r[7] * m[1, 0]) * r[8]
    for i in range(3):
        for j in range(3):
            a[i, j] = m[0, i] * m[0, j] + m[1, i] * m[1, j] + m[2, i] * m[2, j]


@exact
def place_in_shape(p: int) -> tuple[int, int]:
    """Return row and column of L of number p >= 3 of a shape."""
    i = 0 if p == 3 else 1 if p <= 5 else 2
    return i, p - 3 - i * (i + 1) // 2


@exact
def bend_of(
    p: int, q: int, scales: tuple[F, F], inverse: tuple[Array, Array], rows: Array, n: int
) -> Any:
    """Return d2g / g by numbers p and q of a shape at item n, q <= p.

    With M = L^-1 and A = M^T M, dv = -A dmu - M^T dL^T v - A dL u and du = -M (dmu + dL u); of a
    height's logarithm the derivative by mu is v, that by L is v u^T.
    scales : of both, 1, or of a logarithm the number itself. rows : from 2 on, u and then v.
    """
    m, inner = inverse
    i, j, a, b = p, 0, q, 0
    if p >= 3:
        i, j = place_in_shape(p)
    if q >= 3:
        a, b = place_in_shape(q)
    v_i, u_j, v_a, u_b = rows[5 + i, n], rows[2 + j, n], rows[5 + a, n], rows[2 + b, n]
    if q < 3:
        by_q, d_v, d_u = v_a, -inner[i, a], -m[j, a]
    else:
        by_q = scales[1] * v_a * u_b
        d_v = -scales[1] * (m[b, i] * v_a + inner[i, a] * u_b)
        d_u = -scales[1] * m[j, a] * u_b
    if p < 3:
        return v_i * by_q + d_v
    by_p = scales[0] * v_i * u_j
    bent = by_p * by_q + scales[0] * (d_v * u_j + v_i * d_u)
    return bent + by_p if p == q and i == j else bent


@exact
def scale_of(r: Array, p: int) -> Any:
    """Return what a derivative by number p of a shape has beyond that by L or mu."""
    return r[9] if p == 3 else r[10] if p == 5 else r[11] if p == 8 else ONE


def make_refine(most: int) -> Any:
    """Make the kernel that refines blocks of `most` parameters at most."""
    triangle, whole = most * (most + 1) // 2, (most + 1) * (most + 2) // 2
    gaussians = most // (SHAPE + 1)
    records_shape, rows_shape = (max(gaussians, 1), RECORD), (most + 1, ITEMS + 1)

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
        voxels: Array,
        sizes: tuple[INT, INT, INT],
        theta: Array64,
        shared: tuple[Array, Array, Array64, Array64],
        numbers: tuple[float, float, float, Any],
        counts: tuple[int, int, int],
        thread: int,
    ) -> None:
        """Set the triangle of all rows' products at `theta`.

        voxels : [3, C V], light, whether it counts, and what others add, in photons.
        shared : records, rows, the triangle, and what residuals add to the likelihood's curvature.
        counts : of Gaussians, channels and parameters.
        numbers : gain and intercept, how voxels count, and whether the score's spread is asked for,
            and that curvature, and chi^2 by the rate; see `cpu.information_kernels.information`.
        """
        records, rows, products, bent = shared
        gain, intercept, kind, spread = numbers
        lost = ZERO
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
            for p in range(size + 1):
                rows[p, thread] = ZERO
            c, pull, z, y, x = INT(0), ZERO, ZERO, ZERO, ZERO
            if item < channels * total and voxels[1, item] > ZERO:
                c = INT(item // total)
                i = item - c * total
                z, y = F(i // (sizes[1] * sizes[2])), F((i // sizes[2]) % sizes[1])
                x = F(i % sizes[2])
                ground = SHAPE * count + channels * count + c
                rate = voxels[2, item] + F((theta[ground] + intercept / gain) / gain)
                for k in range(count):
                    u = from_centre(records[k], z, y, x)
                    amplitude = SHAPE * count + c * count + k
                    g = height_of(u)
                    height = F(theta[amplitude] / gain) * g
                    rate += height
                    differentiate(records[k], u, height, rows, SHAPE * k, thread)
                    rows[amplitude, thread] = g / F(gain)
                rows[ground, thread] = ONE / F(gain)
                weight = ONE
                if kind == PHOTONS:
                    rate = max(rate, LEAST_RATE)
                    weight = ONE / rate
                off = voxels[0, item] - rate
                pull = weight * off
                if spread:
                    lost += pull * off / max(rate, LEAST_RATE)
                    told = kind != UNKNOWN
                    weight = weight * weight * voxels[0, item] if told else pull * pull
                scale = F(math.sqrt(abs(weight)))
                for p in range(size):
                    rows[p, thread] *= scale
                # Of a spread the last row is its sign: a reading may be below 0.
                rows[size, thread] = scale * off
                if spread:
                    rows[size, thread] = F(math.copysign(ONE, weight))
            cuda.syncthreads()
            row, column = 0, thread
            while column > row:
                column -= row + 1
                row += 1
            while row <= size:
                part = ZERO
                for n in range(ITEMS):
                    product = rows[row, n] * rows[column, n]
                    part += product * rows[size, n] if spread else product
                products[at(row, column)] += part
                column += THREADS
                while column > row:
                    column -= row + 1
                    row += 1
            cuda.syncthreads()
            if spread:
                for k in range(count):
                    if thread == 0:
                        inverses(records[k], m, inner)
                    u = from_centre(records[k], z, y, x)
                    amplitude = theta[SHAPE * count + c * count + k] / gain
                    rows[0, thread] = pull * height_of(u) / F(gain)
                    rows[1, thread] = pull * height_of(u) * F(amplitude)
                    v2 = u[2] * records[k, 8]
                    v1 = (u[1] - records[k, 7] * v2) * records[k, 5]
                    v0 = (u[0] - records[k, 4] * v1 - records[k, 6] * v2) * records[k, 3]
                    rows[2, thread], rows[3, thread], rows[4, thread] = u
                    rows[5, thread], rows[6, thread], rows[7, thread] = v0, v1, v2
                    rows[8, thread] = F(c)
                    cuda.syncthreads()
                    add_bends((m, inner), records[k], rows, bent, (k, count, channels), thread)
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

    @exact_kernel
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
        rows = cuda.shared.array(rows_shape, np.float32)
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
        poisson = kind == PHOTONS
        cut = scratch[0][:, begins[b] : begins[b] + channels * total]
        # What is begun with; centres are from the box's corner, where float32 has them exactly.
        if thread < size:
            value = 0.0
            if thread < SHAPE * count:
                k, n = thread // SHAPE, thread % SHAPE
                value = shapes[ids[first + k], n]
                if n < 3:
                    value -= corner[n]
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
                c = item // total
                i = item - c * total
                z = corner[0] + i // (sizes[1] * sizes[2])
                y, x = corner[1] + (i // sizes[2]) % sizes[1], corner[2] + i % sizes[2]
                value = voxels[c, z, y, x]
                for k in range(count):
                    box = windows[ids[first + k]]
                    counts = counts or (
                        box[0] <= z <= box[1] and box[2] <= y <= box[3] and box[4] <= x <= box[5]
                    )
                counts = counts and value < noise[2]
                cut[0, item] = value * F(1.0 / gain) + F(intercept / (gain * gain))
                cut[1, item] = ONE if counts else ZERO
                cut[2, item] = ZERO
            looked += cuda.syncthreads_count(INT(counts))
        for m in range(other_starts[b], other_starts[b + 1]):
            k = other_ids[m]
            if thread == 0:
                record(shapes[k], 0, corner, records[0])
            cuda.syncthreads()
            for item in range(thread, channels * total, THREADS):
                c = item // total
                i = item - c * total
                z, y = F(i // (sizes[1] * sizes[2])), F((i // sizes[2]) % sizes[1])
                u = from_centre(records[0], z, y, F(i % sizes[2]))
                cut[2, item] += F(amplitudes[c, k] / gain) * height_of(u)
            cuda.syncthreads()
        freedom = max(looked - size, 1)
        damping, chi2, reduced, taken, steps = 10.0 * FIRST_DAMPING, 0.0, 0.0, 0, 0
        steady, ended, inverted, sandwich = False, False, False, False
        going = True
        while going:
            sum_up(
                cut,
                sizes,
                trial,
                (records, rows, tried, damped),
                (gain, intercept, kind, ended),
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
                        longest = max(longest, abs(step[i]) / LONGEST_MOVE)
                    elif i < SHAPE * count and (n == 3 or n == 5 or n == 8):  # noqa: PLR1714
                        longest = max(longest, abs(step[i]) / LARGEST_STRETCH)
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
                place = corner[thread] if thread < 3 else INT(0)
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


def refine_blocks(
    device: torch.device,
    voxels: NDArray[np.float32],
    bounds: Integers,
    windows: Integers,
    members: tuple[Integers, Integers],
    others: tuple[Integers, Integers],
    before: tuple[Floats, Floats],
    backgrounds: Floats,
    noise: Floats,
    most_steps: int,
    limits: Floats,
) -> tuple[Floats, Floats, Floats, Floats]:
    """Refine blocks of Gaussians on a device, and on the CPU those of many.

    Parameters and results are those of `cpu.refinement_kernels.refine_blocks`.
    """
    channels, count = before[1].shape
    sizes = np.diff(members[0]) * (SHAPE + channels) + channels
    after, number = (before[0].copy(), before[1].copy()), SHAPE + 2 * channels
    found = np.full((count, number, number), np.nan), np.full((count, 3 + channels), np.nan)
    with room_on(device):
        on_device = torch.from_numpy(voxels).to(device)
    for least, most, kernel in ((0, ONE_GAUSSIAN, refine_one), (ONE_GAUSSIAN, FEW, refine_few)):
        which = np.flatnonzero((sizes > least) & (sizes <= most))
        for begin in range(0, len(which), BATCH):
            some = which[begin : begin + BATCH]
            parts = bounds[some], some_of(members, some), some_of(others, some)
            grounds = backgrounds[some]
            with room_on(device):
                results = _refine(
                    on_device,
                    most,
                    kernel,
                    *parts,
                    grounds,
                    windows,
                    before,
                    (noise, limits),
                    most_steps,
                )
            backgrounds[some] = grounds
            _keep(parts[1][1], results, (*after, *found))
    rest = np.flatnonzero(sizes > FEW)
    if len(rest):
        parts = bounds[rest], some_of(members, rest), some_of(others, rest)
        grounds = backgrounds[rest]
        results = own.refine_blocks(
            voxels, parts[0], windows, *parts[1:], before, grounds, noise, most_steps, limits
        )
        backgrounds[rest] = grounds
        _keep(parts[1][1], results, (*after, *found))
    return (*after, *found)


def some_of(lists: tuple[Integers, Integers], which: Integers) -> tuple[Integers, Integers]:
    """Return some of the lists that lie one after the other in an array."""
    starts, all_of = lists
    lengths = np.diff(starts)[which]
    ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    places = np.arange(ends[-1]) + np.repeat(starts[which] - ends[:-1], lengths)
    return ends, all_of[places]


def _keep(
    ids: Integers,
    results: tuple[Floats, Floats, Floats, Floats],
    kept: tuple[Floats, Floats, Floats, Floats],
) -> None:
    """Take over what was found of some Gaussians."""
    for one, result in zip((0, 2, 3), (results[0], *results[2:]), strict=True):
        kept[one][ids] = result[ids]
    kept[1][:, ids] = results[1][:, ids]


def _refine(
    voxels: torch.Tensor,
    most: int,
    kernel: Any,
    bounds: Integers,
    members: tuple[Integers, Integers],
    others: tuple[Integers, Integers],
    backgrounds: Floats,
    windows: Integers,
    before: tuple[Floats, Floats],
    rules: tuple[Floats, Floats],
    most_steps: int,
) -> tuple[Floats, Floats, Floats, Floats]:
    """Refine blocks that have room in a kernel's shared memory."""
    device, (channels, count) = voxels.device, before[1].shape

    def sent(values: NDArray[Any]) -> torch.Tensor:
        kind = np.float64 if values.dtype.kind == "f" else np.int32
        return torch.from_numpy(np.ascontiguousarray(values, kind)).to(device)

    volumes = channels * np.prod(bounds[:, 1::2] - bounds[:, ::2] + 1, axis=1)
    begins = np.cumsum(volumes) - volumes
    number = SHAPE + 2 * channels
    found = (
        sent(before[0]).clone(),
        sent(before[1]).clone(),
        torch.full((count, number, number), math.nan, dtype=torch.float64, device=device),
        torch.full((count, 3 + channels), math.nan, dtype=torch.float64, device=device),
    )
    inverses = torch.empty((len(bounds), most, most), dtype=torch.float64, device=device)
    grounds = sent(backgrounds)
    launch(
        kernel,
        (len(bounds),),
        THREADS,
        voxels,
        sent(begins),
        (sent(bounds), sent(windows)),
        (sent(members[0]), sent(members[1])),
        (sent(others[0]), sent(others[1])),
        (sent(before[0]), sent(before[1]), grounds),
        (sent(rules[0]), sent(rules[1]), np.int32(most_steps)),
        (floats(device, 3, int(volumes.sum())), inverses),
        found,
    )
    backgrounds[:] = grounds.cpu().numpy()
    shapes, amplitudes, covariances, numbers = (one.cpu().numpy() for one in found)
    return shapes, amplitudes, covariances, numbers
