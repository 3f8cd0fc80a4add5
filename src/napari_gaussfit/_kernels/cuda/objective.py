"""What a step's bricks and views lose on a CUDA device: kernels, and what launches them.

Losses are those of `shared.step`, by the rate, which is the prediction above the background. Sums
go block by block in one order, so that a step finds the same each time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numba import cuda

from napari_gaussfit._kernels.cuda import mip_kernels
from napari_gaussfit._kernels.cuda.device import (
    Counts,
    U,
    blocks_of,
    device,
    floats,
    kernel,
    launch,
)
from napari_gaussfit._kernels.cuda.mip import Views
from napari_gaussfit._kernels.shared.gaussian import INT, ONE, ZERO, Array, F
from napari_gaussfit._kernels.shared.step import cutoff_of, loss_of

if TYPE_CHECKING:
    from torch import Tensor


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


def selected(views: Views, which: Tensor) -> Views:
    """Return the tables of the views that indices [N] choose, on the device: `Views.select`."""
    tables = (views.frames, views.solves, views.sizes, views.searches, views.near, views.far)
    own = tuple(
        torch.empty((len(which), *t.shape[1:]), dtype=t.dtype, device=t.device) for t in tables
    )
    pixels = max(views.near[0].numel(), mip_kernels.FRAME)
    launch(
        mip_kernels.select_views,
        (blocks_of(pixels, mip_kernels.SELECTING_THREADS), len(which)),
        mip_kernels.SELECTING_THREADS,
        which,
        *(table.flatten(1) for table in (*tables, *own)),
    )
    frames, solves, sizes, searches, near, far = own
    return Views(frames, solves, sizes, (near, far), searches)


@dataclass(frozen=True, eq=False)
class BrickTables:
    """A stack's voxels, and the bricks that it is looked at in, on a device.

    Parameters
    ----------
    voxels : Tensor, shape [Z, Y, X]
        Of the whole stack.
    starts, shapes : Tensor, shape [B, 3], int32
        First voxel of each brick; its voxels along z, y, x.
    counts, importance : Tensor, shape [B]
        Voxels of each; what the mean over them counts: 1.
    """

    voxels: Tensor
    starts: Tensor
    shapes: Tensor
    counts: Tensor
    importance: Tensor


@dataclass(frozen=True, eq=False)
class Drawn:
    """Views that a step looks at, on a device.

    Parameters
    ----------
    views : Views
        Their tables.
    which : Tensor, shape [N], int64
        Their numbers among all.
    counts, importance : Tensor, shape [V]
        Of all views: rays in the box, and what the mean over them counts.
    """

    views: Views
    which: Tensor
    counts: Tensor
    importance: Tensor


class Losses:
    """Losses of bricks and views, and what a step found.

    Parameters
    ----------
    darkest : float
        What a rate counts at least in the Poisson deviance; 0 where the loss is the squared error.
    zero : float
        What an intensity of 0 lies below the lowest voxel.
    rules : sequence of float
        How fast the background follows the mean residual of bricks; the cutoff in parts of the
        root of the mean squared error, its least and largest value.
    background, cutoff : Tensor, shape [1]
        Changed.

    Attributes
    ----------
    found : Tensor, shape [3]
        The loss of all that a step looked at, the mean squared errors of voxels and of pixels; NaN
        where none has looked.
    """

    def __init__(
        self,
        *,
        darkest: float,
        zero: float,
        rules: tuple[float, float, float, float],
        background: Tensor,
        cutoff: Tensor,
    ) -> None:
        self._kind = (np.float32(zero), np.float32(darkest))
        device = background.device
        self._rules = torch.tensor(rules, dtype=torch.float32, device=device)
        # Pixels leave the background to the voxels.
        self._rules_of_pixels = self._rules.clone()
        self._rules_of_pixels[BACKGROUND_RATE] = 0.0
        self._background, self._cutoff = background, cutoff
        self.found = torch.full((3,), torch.nan, device=device)

    def of_bricks(self, bricks: BrickTables, which: Tensor, prediction: Tensor) -> Tensor:
        """Return the derivatives [N, Z, Y, X] of the mean loss of bricks by their prediction.

        Then the background follows. Nothing else has been looked at in this step yet.
        """
        weights, sums = self._room(prediction)
        launch(
            brick_losses,
            (sums.shape[2], len(which)),
            THREADS,
            bricks.voxels,
            bricks.starts,
            bricks.shapes,
            which,
            bricks.counts,
            self._background,
            prediction.flatten(1),
            np.int32(prediction.shape[2]),
            np.int32(prediction.shape[3]),
            *self._kind,
            weights.flatten(1),
            sums,
        )
        tables = (which, bricks.counts, bricks.importance, self._rules)
        self._conclude(sums, *tables, slot=VOXEL_ERROR, first=True)
        return weights

    def of_views(self, drawn: Drawn, known: Tensor, image: Tensor, *, first: bool) -> Tensor:
        """Return the derivatives [N, H, W] of the loss of views by their image.

        `known` are their targets [N, H, W]; `first` tells whether nothing else has been looked at
        in this step.
        """
        weights, sums = self._room(image)
        tables = (drawn.which, drawn.counts, drawn.importance)
        launch(
            pixel_losses,
            (sums.shape[2], len(image)),
            THREADS,
            drawn.views.near.flatten(1),
            drawn.views.far.flatten(1),
            known.flatten(1),
            *tables,
            self._background,
            image.flatten(1),
            *self._kind,
            weights.flatten(1),
            sums,
        )
        self._conclude(sums, *tables, self._rules_of_pixels, slot=PIXEL_ERROR, first=first)
        return weights

    def _room(self, prediction: Tensor) -> tuple[Tensor, Tensor]:
        """Return memory for derivatives, and for each block's sums."""
        blocks = blocks_of(prediction[0].numel(), PER_BLOCK)
        sums = floats(prediction.device, len(prediction), SUMS, blocks)
        return torch.empty_like(prediction), sums

    def _conclude(self, sums: Tensor, *tables: Tensor, slot: int, first: bool) -> None:
        launch(
            conclude,
            (1,),
            THREADS,
            sums,
            *tables,
            np.int32(slot),
            np.int32(first),
            self.found,
            self._background,
            self._cutoff,
        )
