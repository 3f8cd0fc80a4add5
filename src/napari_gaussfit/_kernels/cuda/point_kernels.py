"""CUDA kernels at free points: f at each, and gradients gathered from them.

Two ways to do both. The dense one takes every pair of a Gaussian and a point, in blocks of 16 x 16,
one entry of each a thread: it fills the device however few points there are. The culled one takes
points in blocks, as the twins in `cpu.point_kernels` do, and leaves out the Gaussians whose boxes a
block's box does not meet: it wins where there are many points, ordered in space.
"""

from __future__ import annotations

import math

import numpy as np
from numba import cuda

from napari_gaussfit._kernels.cuda.device import (
    CAPACITY,
    GATHERING_THREADS,
    GROUP,
    NO_MOMENTS,
    RECORDS,
    STAGED_PACKED,
    SUMS,
    WIDE,
    Counts,
    add_up,
    collect,
    device,
    kernel,
    overlap,
    stage,
)
from napari_gaussfit._kernels.shared.gaussian import (
    AMPLITUDE,
    FACTOR,
    INT,
    MEAN,
    MOMENTS,
    NOWHERE,
    PACKED,
    RADIUS2,
    ZERO,
    Array,
    F,
    Vector,
    half_sides,
    with_point,
)
from napari_gaussfit._kernels.shared.gaussian import exp2_negative as exp2

SIDE = 16  # of a dense block
BLOCK = GATHERING_THREADS  # points that are culled together
SCAN = BLOCK + BLOCK // GROUP
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
    """Set `boxes` [1, 6, K] to the lower and upper end along each axis that a Gaussian reaches."""
    k = cuda.grid(1)
    if k >= packed.shape[0]:
        return
    r2 = packed[k, RADIUS2]
    if r2 <= ZERO:
        for axis in range(3):
            boxes[0, 2 * axis, k], boxes[0, 2 * axis + 1, k] = NOWHERE, -NOWHERE
        return
    halves = half_sides(packed, k, F(math.sqrt(r2)))
    for axis in range(3):
        boxes[0, 2 * axis, k] = packed[k, MEAN + axis] - halves[axis]
        boxes[0, 2 * axis + 1, k] = packed[k, MEAN + axis] + halves[axis]


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
    scan = cuda.shared.array(SCAN, np.int32)
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
