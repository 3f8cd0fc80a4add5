"""CUDA kernels of a matched filter, a thread a voxel: the twins of `cpu.relocation_kernels`."""

from __future__ import annotations

import numpy as np
from numba import cuda

from napari_gaussfit._kernels.cuda.device import Counts, U, kernel
from napari_gaussfit._kernels.shared.gaussian import INT, ZERO, Array


@kernel
def add_missing(
    voxels: Array, first_plane: Counts, background: Array, prediction: Array, residual: Array
) -> None:
    """Set `residual` [P, Y, X] to what a field lacks on as many planes of a stack.

    voxels : [Z, Y, X]; first_plane, background : [1]; prediction : [P, Y, X], without background.
    """
    i = INT(cuda.grid(1))
    columns, rows = INT(residual.shape[2]), INT(residual.shape[1])
    if i < residual.size:
        x, y, z = i % columns, (i // columns) % rows, i // (columns * rows)
        known = voxels[first_plane[0] + z, y, x]
        residual[z, y, x] = known - (prediction[z, y, x] + background[0])


@kernel
def smooth(
    source: Array, length: np.int32, stride: np.int32, weights: Array, smoothed: Array
) -> None:
    """Filter a volume [V] along an axis by `weights` of odd length; beyond its ends is nothing.

    length, stride : voxels along the axis, and from one to the next.
    """
    i, step = U(cuda.grid(1)), U(stride)
    if i < source.size:
        n, reach = U(U(i // step) % U(length)), U(weights.shape[0] // 2)
        m, end, total = U(0), U(min(U(U(2) * reach + U(1)), U(U(length) + reach - n))), ZERO
        if n < reach:
            m = U(reach - n)
        at = U(i + U(m * step) - U(reach * step))
        while m < end:
            total += weights[m] * source[at]
            m, at = U(m + U(1)), U(at + step)
        smoothed[i] = total


@kernel
def match(
    filtered: Array, worths: Array, index: np.int32, gains: Array, shapes: np.ndarray
) -> None:
    """Raise `gains` [N] where filter `index` wins more, and say so in `shapes` [N].

    filtered : [N]; worths : [S], of the square of what each filter gives.
    """
    i = INT(cuda.grid(1))
    if i < filtered.size:
        positive = max(filtered[i], ZERO)
        gain = worths[index] * positive * positive
        if gain > gains[i]:
            gains[i] = gain
            shapes[i] = index


@kernel
def keep_maxima(gains: Array, reach: Counts, kept: Array) -> None:
    """Set `kept` [Z, Y, X] to the gains that none within `reach` [3] exceeds, and 0 elsewhere."""
    i = INT(cuda.grid(1))
    depth, rows, columns = INT(gains.shape[0]), INT(gains.shape[1]), INT(gains.shape[2])
    if i >= gains.size:
        return
    x, y, z = i % columns, (i // columns) % rows, i // (columns * rows)
    gain = gains[z, y, x]
    largest = gain
    left, right = max(INT(0), x - reach[2]), min(columns, x + reach[2] + INT(1))
    if gain > ZERO:
        for k in range(max(INT(0), z - reach[0]), min(depth, z + reach[0] + INT(1))):
            for j in range(max(INT(0), y - reach[1]), min(rows, y + reach[1] + INT(1))):
                if largest <= gain:  # or it is beaten already
                    for m in range(left, right):
                        largest = max(largest, gains[k, j, m])
    kept[z, y, x] = gain if largest <= gain else ZERO
