"""CUDA kernels on regular grids: Gaussians summed tile by tile, and their gradients gathered.

The twins of `cpu.grid_kernels`. Several grids (bricks of one stack, channels) go in one launch:
volume n shows channel n // G on grid n % G. Along x only the last entry of u moves, so that a
thread has a few neighbours along x and takes the two other entries once.
"""

from __future__ import annotations

import math

import numpy as np
from numba import cuda

from napari_gaussfit._kernels.cuda.device import (
    CAPACITY,
    GATHERING,
    GROUP,
    NO_MOMENTS,
    RECORDS,
    STAGED_PACKED,
    SUMS,
    WIDE,
    Counts,
    U,
    add_up,
    ceil_int,
    collect,
    floor_int,
    kernel,
    stage,
)
from napari_gaussfit._kernels.shared.gaussian import (
    AMPLITUDE,
    FACTOR,
    INT,
    MEAN,
    ONE,
    PACKED,
    RADIUS2,
    ZERO,
    Array,
    F,
    with_point,
)
from napari_gaussfit._kernels.shared.gaussian import exp2_negative as exp2

TILE = (4, 8, 16)
NEIGHBOURS = 4  # voxels along x that a thread has
THREADS = TILE[0] * TILE[1] * TILE[2] // NEIGHBOURS
SCAN = THREADS + THREADS // GROUP
CELL = 64  # voxels a side that have a list of Gaussians in common
ORIGIN, SPACING = 0, 3  # columns of a table of grids


@kernel
def bound(packed: Array, grids: Array, shapes: Counts, boxes: Counts) -> None:
    """Set `boxes` [N, 6, K] to the first and last z, y, x that each Gaussian reaches.

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
            boxes[n, 2 * axis, k], boxes[n, 2 * axis + 1, k] = INT(1), INT(-1)
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
        boxes[n, 2 * axis, k] = max(INT(0), ceil_int((centre - reach) * inverse))
        last = min(shapes[b, axis] - INT(1), floor_int((centre + reach) * inverse))
        boxes[n, 2 * axis + 1, k] = last


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
        first_plane, first_row = boxes[n, 0, k], boxes[n, 2, k]
        rows = INT(max(INT(0), INT(boxes[n, 3, k] - first_row + INT(1))))
        planes = INT(max(INT(0), INT(boxes[n, 1, k] - first_plane + INT(1))))
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
                height, reach = exp2(-square), math.sqrt(left) * i22
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
