"""Numba kernels at free points, f at each and gradients; and of boxes, which tell who is left out.

Points come in blocks; a Gaussian is skipped where the block's bounding box lies beyond its reach,
so that points ordered in space cost little more than the pairs that matter.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from napari_gaussfit._kernels.cpu.jit import exact_kernel, fast_kernel, inlined
from napari_gaussfit._kernels.shared.gaussian import (
    AMPLITUDE,
    FACTOR,
    MEAN,
    NOWHERE,
    ONE,
    RADIUS2,
    ZERO,
    Array,
    F,
    exp2_negative,
    half_sides,
)

Tiles = tuple[int, int, int]


@exact_kernel
def boxes_of(packed: Array, boxes: Array) -> None:
    """Set `boxes` [K, 6] to the lower and upper corner of the box that each cutoff fits into.

    One below the cutoff everywhere has its corners beyond each other: no box meets it.
    """
    for k in range(packed.shape[0]):
        r = F(math.sqrt(packed[k, RADIUS2])) if packed[k, RADIUS2] > ZERO else -NOWHERE
        halves = half_sides(packed, k, r)
        for axis in range(3):
            boxes[k, axis] = packed[k, MEAN + axis] - halves[axis]
            boxes[k, 3 + axis] = packed[k, MEAN + axis] + halves[axis]


@inlined
def apart(a: Array, k: int, b: Array, n: int) -> bool:
    """Whether box k of `a` and box n of `b` have no point in common."""
    beyond = False
    for axis in range(3):
        beyond |= a[k, axis] > b[n, 3 + axis] or a[k, 3 + axis] < b[n, axis]
    return beyond


@inlined
def _tile(boxes: Array, k: int, box: Array, tiles: Tiles) -> int:
    """Return in which tile of `box` [1, 6] box k begins, counted along the last axis first."""
    tile = 0
    for axis in range(3):
        side = max(box[0, 3 + axis] - box[0, axis], ONE / NOWHERE)
        share = max(boxes[k, axis] - box[0, axis], ZERO) / side
        tile = tile * tiles[axis] + min(int(share * F(tiles[axis])), tiles[axis] - 1)
    return tile


@exact_kernel
def list_meeting(boxes: Array, box: Array, tiles: Tiles, some: NDArray[np.int64]) -> int:
    """Write to `some` [K] which boxes meet the only one of `box` [1, 6]; return how many.

    Tile by tile, of so many along each axis: those that follow each other see the same part of a
    grid, which is in the cache then.
    """
    apart_from_all = tiles[0] * tiles[1] * tiles[2]
    starts = np.zeros(apart_from_all + 2, np.int64)
    own = np.empty(boxes.shape[0], np.int64)
    for k in range(own.size):
        own[k] = apart_from_all if apart(boxes, k, box, 0) else _tile(boxes, k, box, tiles)
        starts[own[k] + 1] += 1
    starts[:] = np.cumsum(starts)
    count: int = starts[apart_from_all]
    for k in range(own.size):
        some[starts[own[k]]] = k
        starts[own[k]] += 1
    return count


BLOCK = 128


@exact_kernel
def bounds_of_blocks(points: Array, bounds: Array) -> None:
    """Set `bounds` [blocks, 6] to the lower and upper corner of each block of `points` [3, B]."""
    for b in range(bounds.shape[0]):
        for axis in range(3):
            block = points[axis, b * BLOCK : (b + 1) * BLOCK]
            bounds[b, axis], bounds[b, 3 + axis] = block.min(), block.max()


@fast_kernel
def evaluate_blocks(
    packed: Array,
    reaches: Array,
    points: Array,
    bounds: Array,
    values: Array,
    first: int,
    end: int,
) -> None:
    """Set `values` [B] on blocks [first, end) to f at `points` [3, B].

    reaches, bounds : the boxes of Gaussians and of blocks.
    """
    for b in range(first, end):
        z, y, x = (
            points[0, b * BLOCK : (b + 1) * BLOCK],
            points[1, b * BLOCK : (b + 1) * BLOCK],
            points[2, b * BLOCK : (b + 1) * BLOCK],
        )
        value = values[b * BLOCK : (b + 1) * BLOCK]
        value[:] = ZERO
        for k in range(packed.shape[0]):
            if apart(reaches, k, bounds, b):
                continue
            a, mz, my, mx = (
                packed[k, AMPLITUDE],
                packed[k, MEAN],
                packed[k, MEAN + 1],
                packed[k, MEAN + 2],
            )
            w00, w10, w11 = packed[k, FACTOR], packed[k, FACTOR + 1], packed[k, FACTOR + 2]
            w20, w21, w22 = packed[k, FACTOR + 3], packed[k, FACTOR + 4], packed[k, FACTOR + 5]
            for n in range(BLOCK):
                dz, dy, dx = z[n] - mz, y[n] - my, x[n] - mx
                u0 = w00 * dz
                u1 = w10 * dz + w11 * dy
                u2 = w20 * dz + w21 * dy + w22 * dx
                value[n] += a * exp2_negative(-(u0 * u0 + u1 * u1 + u2 * u2))


@fast_kernel
def gather_moments(
    packed: Array,
    reaches: Array,
    points: Array,
    bounds: Array,
    weights: Array,
    moments: Array,
    first: int,
    end: int,
) -> None:
    """Set rows [first, end) of `moments` to the sums that `unpack_gradient` wants.

    weights : [B], the derivative of the loss by each value.
    """
    blocks = bounds.shape[0]
    for k in range(first, end):
        moments[k] = ZERO
        mz, my, mx = packed[k, MEAN], packed[k, MEAN + 1], packed[k, MEAN + 2]
        w00, w10, w11 = packed[k, FACTOR], packed[k, FACTOR + 1], packed[k, FACTOR + 2]
        w20, w21, w22 = packed[k, FACTOR + 3], packed[k, FACTOR + 4], packed[k, FACTOR + 5]
        b = 0
        while b < blocks:
            if apart(reaches, k, bounds, b):
                b += 1
                continue
            start = b
            while b < blocks and not apart(reaches, k, bounds, b):
                b += 1
            # All blocks in a row at once: the ten sums stay in vectors, added up once.
            run = slice(start * BLOCK, b * BLOCK)
            z, y, x, weight = points[0, run], points[1, run], points[2, run], weights[run]
            s = ZERO
            s0, s1, s2 = ZERO, ZERO, ZERO
            s00, s10, s11, s20, s21, s22 = ZERO, ZERO, ZERO, ZERO, ZERO, ZERO
            for n in range((b - start) * BLOCK):
                dz, dy, dx = z[n] - mz, y[n] - my, x[n] - mx
                u0 = w00 * dz
                u1 = w10 * dz + w11 * dy
                u2 = w20 * dz + w21 * dy + w22 * dx
                we = weight[n] * exp2_negative(-(u0 * u0 + u1 * u1 + u2 * u2))
                we0, we1, we2 = we * u0, we * u1, we * u2
                s += we
                s0 += we0
                s1 += we1
                s2 += we2
                s00 += we0 * u0
                s10 += we1 * u0
                s11 += we1 * u1
                s20 += we2 * u0
                s21 += we2 * u1
                s22 += we2 * u2
            moments[k, 0] += s
            moments[k, 1] += s0
            moments[k, 2] += s1
            moments[k, 3] += s2
            moments[k, 4] += s00
            moments[k, 5] += s10
            moments[k, 6] += s11
            moments[k, 7] += s20
            moments[k, 8] += s21
            moments[k, 9] += s22
