"""CUDA kernels over Gaussians, on regular grids and at free points: sums, and gradients gathered.

The twins of `cpu.grid_kernels`. Several grids (bricks of one stack, channels) go in one launch:
volume n shows channel n // G on grid n % G. Along x only the last entry of u moves, so that a
thread has a few neighbours along x and takes the two other entries once.

At points there are two ways. The dense one takes every pair of a Gaussian and a point, in blocks of
16 x 16, one entry of each a thread: it fills the device however few points there are. The culled
one takes points in blocks, as its twin does, and leaves out the Gaussians whose boxes a block's box
does not meet: it wins where there are many points, ordered in space.
"""

from __future__ import annotations

import math

import numpy as np
from numba import cuda

from napari_gaussfit._kernels.cuda.device import (
    CAPACITY,
    GATHERING,
    GATHERING_THREADS,
    GROUP,
    RECORDS,
    STAGED_PACKED,
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
    stage,
)
from napari_gaussfit._kernels.shared import gaussian
from napari_gaussfit._kernels.shared.gaussian import (
    AMPLITUDE,
    FACTOR,
    INT,
    MEAN,
    MOMENTS,
    NO_MOMENTS,
    NOWHERE,
    ONE,
    PACKED,
    RADIUS2,
    TWO,
    ZERO,
    Array,
    F,
    Vector,
    half_sides,
    square_root,
    with_point,
)
from napari_gaussfit._kernels.shared.gaussian import exp2_negative as exp2
from napari_gaussfit._kernels.shared.step import COORDINATES, adam_brighten, adam_update


@kernel
def pack(means: Array, cholesky: Array, amplitudes: Array, cutoff: Array, packed: Array) -> None:
    """Write `packed` [C, K, PACKED]; amplitudes [C, K], cutoffs [C]."""
    k, channel = cuda.grid(1), cuda.blockIdx.y
    if k < means.shape[0]:
        gaussian.pack(means, cholesky, amplitudes[channel], cutoff[channel], k, packed[channel])


@kernel
def unpack_gradient(
    moments: Array, packed: Array, d_means: Array, d_cholesky: Array, d_amplitudes: Array
) -> None:
    """Turn moments [C, K, 10] into each channel's part of the derivatives, [C, K, ...]."""
    k, c = cuda.grid(1), cuda.blockIdx.y
    if k < packed.shape[1]:
        gaussian.unpack_gradient(
            moments[c], packed[c], k, d_means[c], d_cholesky[c], d_amplitudes[c]
        )


@kernel
def adam_step(
    means: Array,
    cholesky: Array,
    amplitudes: Array,
    d_means: Array,
    d_cholesky: Array,
    d_amplitudes: Array,
    first: Array,
    second: Array,
    age: Array,
    rates: Array,
) -> None:
    """Take one step in place; see `reference.adam_step`, whose twin this is.

    amplitudes, d_amplitudes : [C, K]. first, second : [K, 9 + C]. rates : [9 + C].
    """
    k = cuda.grid(1)
    g = cuda.local.array(COORDINATES, np.float32)
    moments = first, second, age
    if k < means.shape[0]:
        leaves = means, cholesky, amplitudes[0]
        adam_update(k, leaves, (d_means, d_cholesky, d_amplitudes[0]), moments, rates, g)
        for c in range(1, amplitudes.shape[0]):
            n = COORDINATES + c - 1
            adam_brighten(k, n, amplitudes[c], d_amplitudes[c], moments, rates)


SWEEPS = 6  # of Jacobi rotations: float32 is exhausted after four or five
NEGLIGIBLE = F(1e-9)
MATRIX = (3, 3)


@device
def rotate(a: Array, v: Array, p: int, q: int) -> None:
    """Zero entry (p, q) of a symmetric matrix by a rotation (Golub and Van Loan, section 8.5)."""
    off = a[p, q]
    if abs(off) <= NEGLIGIBLE * (abs(a[p, p]) + abs(a[q, q])):
        return
    theta = (a[q, q] - a[p, p]) / (TWO * off)
    t = F(math.copysign(ONE, theta)) / (abs(theta) + math.sqrt(theta * theta + ONE))
    c = ONE / math.sqrt(t * t + ONE)
    s = t * c
    for k in range(3):
        one, other = a[k, p], a[k, q]
        a[k, p], a[k, q] = c * one - s * other, s * one + c * other
    for k in range(3):
        one, other = a[p, k], a[q, k]
        a[p, k], a[q, k] = c * one - s * other, s * one + c * other
    for k in range(3):
        one, other = v[k, p], v[k, q]
        v[k, p], v[k, q] = c * one - s * other, s * one + c * other


@kernel
def widen(cholesky: Array, spacing: Array, narrowest: F) -> None:
    """Give Gaussians the standard deviation `narrowest`, in voxels, where they have less."""
    k = cuda.grid(1)
    a = cuda.local.array(MATRIX, np.float32)
    v = cuda.local.array(MATRIX, np.float32)
    if k >= cholesky.shape[0]:
        return
    sz, sy, sx = spacing[0], spacing[1], spacing[2]
    l00 = F(math.exp(cholesky[k, 0])) / sz
    l10, l11 = cholesky[k, 1] / sy, F(math.exp(cholesky[k, 2])) / sy
    l20, l21, l22 = cholesky[k, 3] / sx, cholesky[k, 4] / sx, F(math.exp(cholesky[k, 5])) / sx
    i00, i11, i22 = ONE / l00, ONE / l11, ONE / l22
    i10, i21 = -l10 * i00 * i11, -l21 * i11 * i22
    i20 = -(l20 * i00 + l21 * i10) * i22
    # The smallest singular value is no less than 1 / |L^-1|: most need no closer look.
    squares = i00 * i00 + i10 * i10 + i11 * i11 + i20 * i20 + i21 * i21 + i22 * i22
    floor = narrowest * narrowest
    if squares * floor <= ONE:
        return
    a[0, 0], a[0, 1], a[0, 2] = l00 * l00, l00 * l10, l00 * l20
    a[1, 0], a[1, 1], a[1, 2] = l00 * l10, l10 * l10 + l11 * l11, l10 * l20 + l11 * l21
    a[2, 0], a[2, 1] = l00 * l20, l10 * l20 + l11 * l21
    a[2, 2] = l20 * l20 + l21 * l21 + l22 * l22
    for i in range(3):
        for j in range(3):
            v[i, j] = ONE if i == j else ZERO
    for _ in range(SWEEPS):
        rotate(a, v, INT(0), INT(1))
        rotate(a, v, INT(0), INT(2))
        rotate(a, v, INT(1), INT(2))
    if min(a[0, 0], a[1, 1], a[2, 2]) >= floor:
        return
    e0, e1, e2 = max(a[0, 0], floor), max(a[1, 1], floor), max(a[2, 2], floor)
    for i in range(3):
        for j in range(i + 1):
            a[i, j] = e0 * v[i, 0] * v[j, 0] + e1 * v[i, 1] * v[j, 1] + e2 * v[i, 2] * v[j, 2]
    l00 = math.sqrt(a[0, 0])
    l10, l20 = a[1, 0] / l00, a[2, 0] / l00
    l11 = math.sqrt(a[1, 1] - l10 * l10)
    l21 = (a[2, 1] - l20 * l10) / l11
    l22 = math.sqrt(a[2, 2] - l20 * l20 - l21 * l21)
    cholesky[k, 0], cholesky[k, 1], cholesky[k, 2] = (
        math.log(l00 * sz),
        l10 * sy,
        math.log(l11 * sy),
    )
    cholesky[k, 3], cholesky[k, 4], cholesky[k, 5] = l20 * sx, l21 * sx, math.log(l22 * sx)


TILE = (4, 8, 16)
NEIGHBOURS = 4  # voxels along x that a thread has
THREADS = TILE[0] * TILE[1] * TILE[2] // NEIGHBOURS
SCAN = THREADS + THREADS // GROUP
CELL = 64  # voxels a side that have a list of Gaussians in common
ORIGIN, SPACING = 0, 3  # columns of a table of grids


@kernel
def bound(packed: Array, grids: Array, shapes: Counts, boxes: Counts) -> None:
    """Set `boxes` [N, K, 6] to the first and last z, y, x that each Gaussian reaches.

    packed : [C, K, PACKED]. grids : [G, 6], origins and spacings. shapes : [G, 3].
    Along each axis the reach is r |row of W^-1|.
    """
    k, n = cuda.grid(1), cuda.blockIdx.y
    if k >= packed.shape[1]:
        return
    b, channel = n % grids.shape[0], n // grids.shape[0]
    r2 = packed[channel, k, RADIUS2]
    if r2 <= ZERO:
        for axis in range(3):
            boxes[n, k, 2 * axis], boxes[n, k, 2 * axis + 1] = INT(1), INT(-1)
        return
    r = math.sqrt(r2)
    i00 = ONE / packed[channel, k, FACTOR]
    i11, i22 = ONE / packed[channel, k, FACTOR + 2], ONE / packed[channel, k, FACTOR + 5]
    i10 = -packed[channel, k, FACTOR + 1] * i00 * i11
    i21 = -packed[channel, k, FACTOR + 4] * i11 * i22
    i20 = -(packed[channel, k, FACTOR + 3] * i00 + packed[channel, k, FACTOR + 4] * i10) * i22
    reach_z = r * i00
    reach_y = r * math.sqrt(i10 * i10 + i11 * i11)
    reach_x = r * math.sqrt(i20 * i20 + i21 * i21 + i22 * i22)
    for axis in range(3):
        reach = reach_z
        if axis == 1:
            reach = reach_y
        elif axis == 2:
            reach = reach_x
        centre = packed[channel, k, MEAN + axis] - grids[b, ORIGIN + axis]
        inverse = ONE / grids[b, SPACING + axis]
        boxes[n, k, 2 * axis] = max(INT(0), ceil_int((centre - reach) * inverse))
        last = min(shapes[b, axis] - INT(1), floor_int((centre + reach) * inverse))
        boxes[n, k, 2 * axis + 1] = last


@kernel
def voxelise(
    packed: Array,
    grids: Array,
    shapes: Counts,
    boxes: Counts,
    lists: Counts,
    counts: Counts,
    volumes: Array,
) -> None:
    """Set `volumes` [N, Z, Y, X] to the sum of all Gaussians; a block has one tile."""
    scan = cuda.shared.array(SCAN, np.int32)
    found = cuda.shared.array(CAPACITY, np.uint32)
    records = cuda.shared.array(STAGED_PACKED, np.float32, WIDE)
    thread = cuda.threadIdx.x
    layers = (volumes.shape[1] + TILE[0] - 1) // TILE[0]
    n, plane = cuda.blockIdx.z // layers, (cuda.blockIdx.z % layers) * TILE[0]
    row, column = cuda.blockIdx.y * TILE[1], cuda.blockIdx.x * TILE[2]
    b, channel = n % grids.shape[0], n // grids.shape[0]
    if plane >= shapes[b, 0] or row >= shapes[b, 1] or column >= shapes[b, 2]:
        return
    across = TILE[2] // NEIGHBOURS
    x = column + (thread % across) * NEIGHBOURS
    y = row + (thread // across) % TILE[1]
    z = plane + thread // (across * TILE[1])
    at_z = grids[b, ORIGIN] + F(z) * grids[b, SPACING]
    at_y = grids[b, ORIGIN + 1] + F(y) * grids[b, SPACING + 1]
    at_x = grids[b, ORIGIN + 2] + F(x) * grids[b, SPACING + 2]
    spacing = grids[b, SPACING + 2]
    rows, columns = (volumes.shape[2] + CELL - 1) // CELL, (volumes.shape[3] + CELL - 1) // CELL
    cell = ((plane // CELL) * rows + row // CELL) * columns + column // CELL
    candidates, count = lists[n, cell], counts[n, cell]
    tile = (
        plane,
        plane + TILE[0] - 1,
        row,
        row + TILE[1] - 1,
        column,
        column + TILE[2] - 1,
    )
    v0, v1, v2, v3 = ZERO, ZERO, ZERO, ZERO
    start = INT(0)
    while start < count:
        number, start = collect(
            boxes, n, tile, candidates, count, start, found, scan, thread, THREADS
        )
        done = INT(0)
        while done < number:
            staged = stage(packed[channel], found, done, number, records, PACKED, thread, THREADS)
            done = INT(done + INT(RECORDS))
            for m in range(int(staged)):
                dz, dy = at_z - records[m, MEAN], at_y - records[m, MEAN + 1]
                u0 = records[m, FACTOR] * dz
                u1 = records[m, FACTOR + 1] * dz + records[m, FACTOR + 2] * dy
                square = u0 * u0 + u1 * u1
                left = records[m, RADIUS2] - square
                if left > ZERO:
                    w22 = records[m, FACTOR + 5]
                    u2 = records[m, FACTOR + 3] * dz + records[m, FACTOR + 4] * dy
                    u2 += w22 * (at_x - records[m, MEAN + 2])
                    step = w22 * spacing
                    height = records[m, AMPLITUDE] * exp2(-square)
                    if u2 * u2 < left:
                        v0 += height * exp2(-u2 * u2)
                    u2 += step
                    if u2 * u2 < left:
                        v1 += height * exp2(-u2 * u2)
                    u2 += step
                    if u2 * u2 < left:
                        v2 += height * exp2(-u2 * u2)
                    u2 += step
                    if u2 * u2 < left:
                        v3 += height * exp2(-u2 * u2)
    if z < shapes[b, 0] and y < shapes[b, 1]:
        width = shapes[b, 2]
        if x < width:
            volumes[n, z, y, x] = v0
        if x + 1 < width:
            volumes[n, z, y, x + 1] = v1
        if x + 2 < width:
            volumes[n, z, y, x + 2] = v2
        if x + 3 < width:
            volumes[n, z, y, x + 3] = v3


@kernel
def gather_moments(
    packed: Array, grids: Array, shapes: Counts, boxes: Counts, weights: Array, moments: Array
) -> None:
    """Set `moments` [C, K, 10] to the sums that `unpack_gradient` wants; a block has a Gaussian.

    weights : [N, Z, Y, X], derivative of the loss by each voxel.
    """
    sums = cuda.shared.array(SUMS, np.float32)
    k, channel, thread = cuda.blockIdx.x, cuda.blockIdx.y, cuda.threadIdx.x
    g = packed[channel, k]
    r2 = g[RADIUS2]
    i22 = ONE / g[FACTOR + 5]
    s = NO_MOMENTS
    for b in range(grids.shape[0]):
        n = channel * grids.shape[0] + b
        first_plane, first_row = boxes[n, k, 0], boxes[n, k, 2]
        rows = INT(max(INT(0), INT(boxes[n, k, 3] - first_row + INT(1))))
        planes = INT(max(INT(0), INT(boxes[n, k, 1] - first_plane + INT(1))))
        inverse, spacing = ONE / grids[b, SPACING + 2], grids[b, SPACING + 2]
        offset = grids[b, ORIGIN + 2] - g[MEAN + 2]
        own = weights[n]
        line, lines = INT(thread // GATHERING), INT(planes * rows)
        while line < lines:
            z, y = INT(first_plane + line // rows), INT(first_row + line % rows)
            line = INT(line + INT(GATHERING))
            dz = grids[b, ORIGIN] + F(z) * grids[b, SPACING] - g[MEAN]
            dy = grids[b, ORIGIN + 1] + F(y) * grids[b, SPACING + 1] - g[MEAN + 1]
            u0 = g[FACTOR] * dz
            u1 = g[FACTOR + 1] * dz + g[FACTOR + 2] * dy
            square = u0 * u0 + u1 * u1
            left = r2 - square
            if left > ZERO:
                shift = g[FACTOR + 3] * dz + g[FACTOR + 4] * dy
                height, reach = exp2(-square), square_root(left) * i22
                centre = -shift * i22 - offset
                x = max(INT(0), ceil_int((centre - reach) * inverse))
                last = min(INT(shapes[b, 2] - INT(1)), floor_int((centre + reach) * inverse))
                x = INT(x + thread % GATHERING)
                while x <= last:
                    u2 = shift + g[FACTOR + 5] * (offset + F(x) * spacing)
                    we = own[U(z), U(y), U(x)] * height * exp2(-u2 * u2)
                    s = with_point(s, we, u0, u1, u2)
                    x = INT(x + INT(GATHERING))
    add_up(s, sums, thread, moments[channel, k])


SIDE = 16  # of a dense block
BLOCK = GATHERING_THREADS  # points that are culled together
POINT_SCAN = BLOCK + BLOCK // GROUP
DENSE = 4 * SIDE  # Gaussians that a dense block has in shared memory
DENSE_STAGED = (DENSE, PACKED + 1)
DENSE_SUMS, DENSE_MOMENTS = (SIDE, SIDE + 1), (MOMENTS, SIDE, SIDE + 1)


@device
def at_point(packed: Array, k: int, z: F, y: F, x: F) -> Vector:
    """Return u of Gaussian k at a point."""
    dz, dy, dx = z - packed[k, MEAN], y - packed[k, MEAN + 1], x - packed[k, MEAN + 2]
    return (
        packed[k, FACTOR] * dz,
        packed[k, FACTOR + 1] * dz + packed[k, FACTOR + 2] * dy,
        packed[k, FACTOR + 3] * dz + packed[k, FACTOR + 4] * dy + packed[k, FACTOR + 5] * dx,
    )


@kernel
def evaluate_dense(packed: Array, points: Array, parts: Array) -> None:
    """Set `parts` [P, B] to sums over every P-th `DENSE` Gaussians at `points` [B, 3].

    A thread's column is its point, its row says which of the Gaussians are its.
    """
    sums = cuda.shared.array(DENSE_SUMS, np.float32)
    records = cuda.shared.array(DENSE_STAGED, np.float32, WIDE)
    column, row = cuda.threadIdx.x, cuda.threadIdx.y
    b, thread = cuda.blockIdx.x * SIDE + column, row * SIDE + column
    z, y, x = ZERO, ZERO, ZERO
    if b < points.shape[0]:
        z, y, x = points[b, 0], points[b, 1], points[b, 2]
    total = ZERO
    for first in range(cuda.blockIdx.y * DENSE, packed.shape[0], DENSE * cuda.gridDim.y):
        staged = min(DENSE, packed.shape[0] - first)
        cuda.syncthreads()
        for n in range(thread, staged * PACKED, SIDE * SIDE):
            m = n // PACKED
            records[m, n - m * PACKED] = packed[first + m, n - m * PACKED]
        cuda.syncthreads()
        for m in range(row, staged, SIDE):
            u = at_point(records, m, z, y, x)
            value = records[m, AMPLITUDE] * exp2(-(u[0] * u[0] + u[1] * u[1] + u[2] * u[2]))
            if records[m, RADIUS2] > ZERO:
                total += value
    sums[row, column] = total
    cuda.syncthreads()
    if row == 0 and b < points.shape[0]:
        total = ZERO
        for n in range(SIDE):
            total += sums[n, column]
        parts[cuda.blockIdx.y, b] = total


@kernel
def gather_dense(packed: Array, points: Array, weights: Array, parts: Array) -> None:
    """Set `parts` [P, K, 10] to the sums that `unpack_gradient` wants over every P-th group.

    A thread's column is its Gaussian, its row the first of its points.
    weights : [B], the derivative of the loss by each value.
    """
    sums = cuda.shared.array(DENSE_MOMENTS, np.float32)
    column, row = cuda.threadIdx.x, cuda.threadIdx.y
    k = cuda.blockIdx.x * SIDE + column
    s = NO_MOMENTS
    if k < packed.shape[0] and packed[k, RADIUS2] > ZERO:
        for b in range(cuda.blockIdx.y * SIDE + row, points.shape[0], SIDE * cuda.gridDim.y):
            u = at_point(packed, k, points[b, 0], points[b, 1], points[b, 2])
            we = weights[b] * exp2(-(u[0] * u[0] + u[1] * u[1] + u[2] * u[2]))
            s = with_point(s, we, u[0], u[1], u[2])
    sums[0, row, column], sums[1, row, column] = s[0], s[1]
    sums[2, row, column], sums[3, row, column] = s[2], s[3]
    sums[4, row, column], sums[5, row, column] = s[4], s[5]
    sums[6, row, column], sums[7, row, column] = s[6], s[7]
    sums[8, row, column], sums[9, row, column] = s[8], s[9]
    cuda.syncthreads()
    # Now a row has one of the ten sums.
    if row < MOMENTS and k < packed.shape[0]:
        total = ZERO
        for n in range(SIDE):
            total += sums[row, n, column]
        parts[cuda.blockIdx.y, k, row] = total


@kernel
def bound_gaussians(packed: Array, boxes: Array) -> None:
    """Set `boxes` [1, K, 6] to the lower and upper end along each axis that a Gaussian reaches."""
    k = cuda.grid(1)
    if k >= packed.shape[0]:
        return
    r2 = packed[k, RADIUS2]
    if r2 <= ZERO:
        for axis in range(3):
            boxes[0, k, 2 * axis], boxes[0, k, 2 * axis + 1] = NOWHERE, -NOWHERE
        return
    halves = half_sides(packed, k, F(math.sqrt(r2)))
    for axis in range(3):
        boxes[0, k, 2 * axis] = packed[k, MEAN + axis] - halves[axis]
        boxes[0, k, 2 * axis + 1] = packed[k, MEAN + axis] + halves[axis]


@kernel
def bound_points(points: Array, bounds: Array) -> None:
    """Set `bounds` [blocks, 6] to the lower and upper end along each axis of `points` [B, 3]."""
    block = cuda.grid(1)
    if block >= bounds.shape[0]:
        return
    first, end = block * BLOCK, min((block + 1) * BLOCK, points.shape[0])
    for axis in range(3):
        low, high = points[first, axis], points[first, axis]
        for b in range(first + 1, end):
            low, high = min(low, points[b, axis]), max(high, points[b, axis])
        bounds[block, 2 * axis], bounds[block, 2 * axis + 1] = low, high


@kernel
def evaluate_culled(
    packed: Array, boxes: Array, points: Array, bounds: Array, everyone: Counts, values: Array
) -> None:
    """Set `values` [B] to f at `points` [B, 3]; `everyone` [K] holds 0 to K - 1."""
    scan = cuda.shared.array(POINT_SCAN, np.int32)
    found = cuda.shared.array(CAPACITY, np.uint32)
    records = cuda.shared.array(STAGED_PACKED, np.float32, WIDE)
    block, thread = cuda.blockIdx.x, cuda.threadIdx.x
    b = block * BLOCK + thread
    held = b < points.shape[0]
    z, y, x = ZERO, ZERO, ZERO
    if held:
        z, y, x = points[b, 0], points[b, 1], points[b, 2]
    tile = (
        bounds[block, 0],
        bounds[block, 1],
        bounds[block, 2],
        bounds[block, 3],
        bounds[block, 4],
        bounds[block, 5],
    )
    total, start = ZERO, INT(0)
    while start < packed.shape[0]:
        number, start = collect(
            boxes, 0, tile, everyone, packed.shape[0], start, found, scan, thread, BLOCK
        )
        for part in range(0, number, RECORDS):
            staged = stage(packed, found, part, number, records, PACKED, thread, BLOCK)
            for m in range(staged):
                u = at_point(records, m, z, y, x)
                square = u[0] * u[0] + u[1] * u[1] + u[2] * u[2]
                if square < records[m, RADIUS2]:
                    total += records[m, AMPLITUDE] * exp2(-square)
    if held:
        values[b] = total


@kernel
def gather_culled(
    packed: Array, boxes: Array, points: Array, bounds: Array, weights: Array, moments: Array
) -> None:
    """Set `moments` [K, 10] to the sums that `unpack_gradient` wants; a block has a Gaussian.

    weights : [B], the derivative of the loss by each value.
    """
    sums = cuda.shared.array(SUMS, np.float32)
    k, thread = cuda.blockIdx.x, cuda.threadIdx.x
    s = NO_MOMENTS
    for block in range(bounds.shape[0]):
        tile = (
            bounds[block, 0],
            bounds[block, 1],
            bounds[block, 2],
            bounds[block, 3],
            bounds[block, 4],
            bounds[block, 5],
        )
        b = block * BLOCK + thread
        if b < points.shape[0] and overlap(boxes, 0, k, tile):
            u = at_point(packed, k, points[b, 0], points[b, 1], points[b, 2])
            square = u[0] * u[0] + u[1] * u[1] + u[2] * u[2]
            if square < packed[k, RADIUS2]:
                s = with_point(s, weights[b] * exp2(-square), u[0], u[1], u[2])
    add_up(s, sums, thread, moments[k])
