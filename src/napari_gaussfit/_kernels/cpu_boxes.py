"""Numba kernels of the boxes that Gaussians fit into, which tell who can be left out."""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from napari_gaussfit._kernels.arithmetic import (
    MEAN,
    NOWHERE,
    ONE,
    RADIUS2,
    ZERO,
    Array,
    F,
    half_sides,
)


@njit(nogil=True, error_model="numpy", cache=True)
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


@njit(inline="always")
def apart(a: Array, k: int, b: Array, n: int) -> bool:
    """Whether box k of `a` and box n of `b` have no point in common."""
    beyond = False
    for axis in range(3):
        beyond |= a[k, axis] > b[n, 3 + axis] or a[k, 3 + axis] < b[n, axis]
    return beyond


@njit(inline="always")
def _layer(boxes: Array, k: int, box: Array, layers: int) -> int:
    """Return in which layer of `box` [1, 6] box k begins, or `layers` if it is apart."""
    if apart(boxes, k, box, 0):
        return layers
    height = max(box[0, 3] - box[0, 0], ONE / NOWHERE)
    return int(max(boxes[k, 0] - box[0, 0], ZERO) / height * F(layers - 1))


@njit(nogil=True, error_model="numpy", cache=True)
def list_meeting(boxes: Array, box: Array, layers: int, some: NDArray[np.int64]) -> int:
    """Write to `some` [K] which boxes meet the only one of `box` [1, 6]; return how many.

    Layer by layer along the first axis: those that follow each other see the same part of a grid.
    """
    starts = np.zeros(layers + 2, np.int64)
    own = np.empty(boxes.shape[0], np.int64)
    for k in range(own.size):
        own[k] = _layer(boxes, k, box, layers)
        starts[own[k] + 1] += 1
    starts[:] = np.cumsum(starts)
    count: int = starts[layers]
    for k in range(own.size):
        some[starts[own[k]]] = k
        starts[own[k]] += 1
    return count
