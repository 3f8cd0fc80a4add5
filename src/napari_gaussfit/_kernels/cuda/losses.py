"""CUDA kernels of losses by voxels and pixels: their derivatives, and what a step found.

Losses are those of `shared.loss`, by the rate, which is the prediction above the background. Sums
go block by block in one order, so that a step finds the same each time.
"""

from __future__ import annotations

import math

import numpy as np
from numba import cuda

from napari_gaussfit._kernels.cuda.device import Counts, U, device, kernel
from napari_gaussfit._kernels.shared.gaussian import INT, ONE, ZERO, Array, F
from napari_gaussfit._kernels.shared.loss import cutoff_of, loss_of

THREADS = 128
PER_THREAD = 8  # voxels or pixels
PER_BLOCK = THREADS * PER_THREAD
# Sums of each block, over what it looks at.
LOSS, SQUARE, LACK, TRUST, SUMS = 0, 1, 2, 3, 4
SCRATCH = (SUMS, THREADS)
# What is found, see `conclude`.
TOTAL, VOXEL_ERROR, PIXEL_ERROR = 0, 1, 2
# What `conclude` is told.
BACKGROUND_RATE, CUTOFF_PER_ERROR, LEAST_CUTOFF, LARGEST_CUTOFF = 0, 1, 2, 3


@device
def sum_up(s: tuple[F, F, F, F], scratch: Array, thread: int) -> None:
    """Set `scratch` [SUMS, 0] to the sums of `s` over a block of `THREADS`."""
    cuda.syncthreads()
    scratch[0, thread], scratch[1, thread] = s[0], s[1]
    scratch[2, thread], scratch[3, thread] = s[2], s[3]
    cuda.syncthreads()
    span = THREADS // 2
    while span > 0:
        if thread < span:
            for n in range(SUMS):
                scratch[n, thread] += scratch[n, thread + span]
        cuda.syncthreads()
        span //= 2


@kernel
def brick_losses(
    voxels: Array,
    starts: Counts,
    shapes: Counts,
    which: Counts,
    counts: Array,
    background: Array,
    prediction: Array,
    rows: np.int32,
    columns: np.int32,
    zero: F,
    darkest: F,
    weights: Array,
    sums: Array,
) -> None:
    """Set `weights` [N, V] to derivatives of the mean loss over N bricks, 0 outside of them.

    voxels : [Z, Y, X], of the whole stack. starts, shapes : [B, 3], of all bricks.
    which : [N], of them. counts : [B], voxels of each.
    prediction : [N, V], without the background [1], of so many rows and columns a plane.
    sums : [N, SUMS, blocks], over what each block looks at.
    """
    scratch = cuda.shared.array(SCRATCH, np.float32)
    n, block, thread = cuda.blockIdx.y, cuda.blockIdx.x, cuda.threadIdx.x
    b, size = which[n], U(prediction.shape[1])
    scale = ONE / (counts[b] * F(prediction.shape[0]))
    loss, square, lack, trust = ZERO, ZERO, ZERO, ZERO
    for m in range(PER_THREAD):
        i = U(block * PER_BLOCK + m * THREADS + thread)
        if i < size:
            row = U(i // U(columns))
            z, x = U(row // U(rows)), U(i - U(row * U(columns)))
            y = U(row - U(z * U(rows)))
            if z < U(shapes[b, 0]) and y < U(shapes[b, 1]) and x < U(shapes[b, 2]):
                known = voxels[
                    U(U(starts[b, 0]) + z), U(U(starts[b, 1]) + y), U(U(starts[b, 2]) + x)
                ]
                rate = prediction[n, i] + background[0]
                value, derivative, trusted = loss_of(rate, known, zero, darkest)
                weights[n, i] = scale * derivative
                loss += value
                square += (known - rate) * (known - rate)
                lack += (known - rate) * trusted
                trust += trusted
            else:
                weights[n, i] = ZERO
    sum_up((loss, square, lack, trust), scratch, thread)
    if thread < SUMS:
        sums[n, thread, block] = scratch[thread, 0]


@kernel
def pixel_losses(
    near: Array,
    far: Array,
    known: Array,
    which: Counts,
    counts: Array,
    importance: Array,
    background: Array,
    image: Array,
    zero: F,
    darkest: F,
    weights: Array,
    sums: Array,
) -> None:
    """Set `weights` [N, P] to derivatives of the loss of N views, 0 where rays miss the box.

    near, far, known : [N, P], ends of rays and their targets. which : [N], of all views.
    counts, importance : [V], rays of each view in the box, and what the mean over them counts.
    image : [N, P], without the background [1]. sums : [N, SUMS, blocks], of each block.
    """
    scratch = cuda.shared.array(SCRATCH, np.float32)
    n, block, thread = cuda.blockIdx.y, cuda.blockIdx.x, cuda.threadIdx.x
    v, size = which[n], U(image.shape[1])
    scale = importance[v] / (counts[v] * F(image.shape[0]))
    loss, square, lack, trust = ZERO, ZERO, ZERO, ZERO
    for m in range(PER_THREAD):
        i = U(block * PER_BLOCK + m * THREADS + thread)
        if i < size:
            if near[n, i] < far[n, i]:
                target, rate = known[n, i], image[n, i] + background[0]
                value, derivative, trusted = loss_of(rate, target, zero, darkest)
                weights[n, i] = scale * derivative
                loss += value
                square += (target - rate) * (target - rate)
                lack += (target - rate) * trusted
                trust += trusted
            else:
                weights[n, i] = ZERO
    sum_up((loss, square, lack, trust), scratch, thread)
    if thread < SUMS:
        sums[n, thread, block] = scratch[thread, 0]


@kernel
def conclude(
    sums: Array,
    which: Counts,
    counts: Array,
    importance: Array,
    rules: Array,
    slot: INT,
    first: INT,
    found: Array,
    background: Array,
    cutoff: Array,
) -> None:
    """Sum up what N bricks or views gave, in one block; background and cutoff follow.

    sums : [N, SUMS, blocks]. which : [N]; counts, importance : of all bricks or views.
    rules : [4], how fast the background follows, the cutoff by the error, and its bounds.
    slot : of `found` [3], which gets the mean squared error; `TOTAL` is the loss of all. What is
    `first` begins it, and sets the cutoff.
    """
    scratch = cuda.shared.array(SCRATCH, np.float32)
    thread = cuda.threadIdx.x
    number, blocks = sums.shape[0], sums.shape[2]
    total, error, change = ZERO, ZERO, ZERO
    for n in range(number):
        loss, square, lack, trust = ZERO, ZERO, ZERO, ZERO
        for block in range(thread, blocks, THREADS):
            loss += sums[n, LOSS, block]
            square += sums[n, SQUARE, block]
            lack += sums[n, LACK, block]
            trust += sums[n, TRUST, block]
        sum_up((loss, square, lack, trust), scratch, thread)
        v = which[n]
        share = ONE / (counts[v] * F(number))
        total += importance[v] * share * scratch[LOSS, 0]
        error += share * scratch[SQUARE, 0]
        change += scratch[LACK, 0] / (scratch[TRUST, 0] * F(number))
    if thread == 0:
        found[slot] = error
        if first == 1:
            found[TOTAL] = total
            cutoff[0] = cutoff_of(
                F(math.sqrt(error)),
                rules[CUTOFF_PER_ERROR],
                rules[LEAST_CUTOFF],
                rules[LARGEST_CUTOFF],
            )
        else:
            found[TOTAL] += total
        background[0] += rules[BACKGROUND_RATE] * change
