"""Numba kernels of the boxes that Gaussians fit into, which tell who can be left out."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from napari_gaussfit._kernels.cpu.jit import exact_kernel, inlined
from napari_gaussfit._kernels.shared.gaussian import (
    MEAN,
    NOWHERE,
    ONE,
    RADIUS2,
    ZERO,
    Array,
    F,
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
