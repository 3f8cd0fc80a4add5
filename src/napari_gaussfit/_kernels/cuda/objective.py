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
    from collections.abc import Sequence

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


@device
def with_loss(
    sums: tuple[F, F, F, F], rate: F, known: F, zero: F, darkest: F
) -> tuple[tuple[F, F, F, F], F]:
    """Return `sums` with what is lost at a voxel or pixel, and the derivative by the rate."""
    loss, square, lack, trust = sums
    value, derivative, trusted = loss_of(rate, known, zero, darkest)
    away = known - rate
    return (loss + value, square + away * away, lack + away * trusted, trust + trusted), derivative


@device
def put(s: tuple[F, F, F, F], scratch: Array, thread: int, sums: Array, block: int) -> None:
    """Set `sums` [SUMS, blocks] of a block to those of `s` over its threads."""
    sum_up(s, scratch, thread)
    if thread < SUMS:
        sums[thread, block] = scratch[thread, 0]


@kernel
def brick_losses(
    voxels: Array,
    bricks: tuple[Counts, Counts, Array],
    which: Counts,
    levels: tuple[Array, Array],
    prediction: Array,
    plane: tuple[INT, INT],
    darkest: F,
    weights: Array,
    sums: Array,
) -> None:
    """Set `weights` [C N, V] to derivatives of the mean loss over N bricks, 0 outside of them.

    voxels : [C, Z, Y, X], of the whole stack.
    bricks : first voxels and shapes [B, 3] of all bricks, and voxels of each [B].
    which : [N], of them.
    levels : background, and distance of intensity 0 below the lowest voxel, [C] each.
    prediction : [C N, V], without the background, of so many rows and columns a `plane`.
    sums : [C N, SUMS, blocks], over what each block looks at.
    """
    scratch = cuda.shared.array(SCRATCH, np.float32)
    channel, block, thread = cuda.blockIdx.z, cuda.blockIdx.x, cuda.threadIdx.x
    n, b = channel * which.shape[0] + cuda.blockIdx.y, which[cuda.blockIdx.y]
    (starts, shapes, counts), (rows, columns) = bricks, plane
    background, zero = levels[0][channel], levels[1][channel]
    scale, size = ONE / (counts[b] * F(which.shape[0])), U(prediction.shape[1])
    own, found, derivatives = voxels[channel], prediction[n], weights[n]
    s = (ZERO, ZERO, ZERO, ZERO)
    for m in range(PER_THREAD):
        i = U(block * PER_BLOCK + m * THREADS + thread)
        if i < size:
            row = U(i // U(columns))
            z, x = U(row // U(rows)), U(i - U(row * U(columns)))
            y = U(row - U(z * U(rows)))
            if z < U(shapes[b, 0]) and y < U(shapes[b, 1]) and x < U(shapes[b, 2]):
                known = own[U(U(starts[b, 0]) + z), U(U(starts[b, 1]) + y), U(U(starts[b, 2]) + x)]
                s, derivative = with_loss(s, found[i] + background, known, zero, darkest)
                derivatives[i] = scale * derivative
            else:
                derivatives[i] = ZERO
    put(s, scratch, thread, sums[n], block)


@kernel
def pixel_losses(
    ends: tuple[Array, Array],
    known: Array,
    which: Counts,
    shares: tuple[Array, Array],
    levels: tuple[Array, Array],
    image: Array,
    darkest: F,
    weights: Array,
    sums: Array,
) -> None:
    """Set `weights` [C N, P] to derivatives of the loss of N views, 0 where rays miss the box.

    ends : where rays enter and leave the box, [N, P] each. known : [C N, P], targets.
    which : [N], of all views.
    shares : rays of each view in the box, and what the mean over them counts, [V] each.
    levels : background, and distance of intensity 0 below the lowest voxel, [C] each.
    image : [C N, P], without the background. sums : [C N, SUMS, blocks], of each block.
    """
    scratch = cuda.shared.array(SCRATCH, np.float32)
    channel, block, thread = cuda.blockIdx.z, cuda.blockIdx.x, cuda.threadIdx.x
    view, v = cuda.blockIdx.y, which[cuda.blockIdx.y]
    n, size = channel * which.shape[0] + view, U(image.shape[1])
    near, far, (counts, importance) = ends[0][view], ends[1][view], shares
    found, targets, derivatives = image[n], known[n], weights[n]
    background, zero = levels[0][channel], levels[1][channel]
    scale = importance[v] / (counts[v] * F(which.shape[0]))
    s = (ZERO, ZERO, ZERO, ZERO)
    for m in range(PER_THREAD):
        i = U(block * PER_BLOCK + m * THREADS + thread)
        if i < size:
            if near[i] < far[i]:
                s, derivative = with_loss(s, found[i] + background, targets[i], zero, darkest)
                derivatives[i] = scale * derivative
            else:
                derivatives[i] = ZERO
    put(s, scratch, thread, sums[n], block)


@kernel
def conclude(
    sums: Array,
    which: Counts,
    shares: tuple[Array, Array],
    rules: Array,
    slot: INT,
    first: INT,
    found: Array,
    background: Array,
    cutoff: Array,
) -> None:
    """Sum up what N bricks or views gave, a block a channel; background and cutoff follow.

    sums : [C N, SUMS, blocks].
    which : [N]; shares : voxels or rays of all bricks or views, and what the mean of each counts.
    rules : [4], how fast the background follows, the cutoff by the error, and its bounds.
    slot : of `found` [C, 3], which gets the mean squared error; `TOTAL` is the loss of all. What is
    `first` begins it, and sets the cutoff.
    """
    scratch = cuda.shared.array(SCRATCH, np.float32)
    channel, thread = cuda.blockIdx.x, cuda.threadIdx.x
    number, blocks = which.shape[0], sums.shape[2]
    counts, importance = shares
    total, error, change = ZERO, ZERO, ZERO
    for view in range(number):
        n = channel * number + view
        loss, square, lack, trust = ZERO, ZERO, ZERO, ZERO
        for block in range(thread, blocks, THREADS):
            loss += sums[n, LOSS, block]
            square += sums[n, SQUARE, block]
            lack += sums[n, LACK, block]
            trust += sums[n, TRUST, block]
        sum_up((loss, square, lack, trust), scratch, thread)
        v = which[view]
        share = ONE / (counts[v] * F(number))
        total += importance[v] * share * scratch[LOSS, 0]
        error += share * scratch[SQUARE, 0]
        change += scratch[LACK, 0] / (scratch[TRUST, 0] * F(number))
    if thread == 0:
        found[channel, slot] = error
        if first == 1:
            found[channel, TOTAL] = total
            cutoff[channel] = cutoff_of(
                F(math.sqrt(error)),
                rules[CUTOFF_PER_ERROR],
                rules[LEAST_CUTOFF],
                rules[LARGEST_CUTOFF],
            )
        else:
            found[channel, TOTAL] += total
        background[channel] += rules[BACKGROUND_RATE] * change


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
        tuple(table.flatten(1) for table in tables),
        tuple(table.flatten(1) for table in own),
    )
    frames, solves, sizes, searches, near, far = own
    return Views(frames, solves, sizes, (near, far), searches)


@dataclass(frozen=True, eq=False)
class BrickTables:
    """A stack's voxels, and the bricks that it is looked at in, on a device.

    Parameters
    ----------
    voxels : Tensor, shape [C, Z, Y, X]
        Of the whole stack, in each channel.
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
        The views of a step, with the tables of their rays.
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
    zero : sequence of float
        What an intensity of 0 lies below the lowest voxel of each channel.
    rules : sequence of float
        How fast the background follows the mean residual of bricks; the cutoff in parts of the
        root of the mean squared error, its least and largest value.
    background, cutoff : Tensor, shape [C]
        Of each channel; changed.

    Attributes
    ----------
    found : Tensor, shape [C, 3]
        Of each channel: the loss of all that a step looked at, the mean squared errors of voxels
        and of pixels; NaN where none has looked.
    """

    def __init__(
        self,
        *,
        darkest: float,
        zero: Sequence[float],
        rules: tuple[float, float, float, float],
        background: Tensor,
        cutoff: Tensor,
    ) -> None:
        device = background.device
        zeros = torch.tensor(zero, dtype=torch.float32, device=device)
        self._levels, self._darkest = (background, zeros), np.float32(darkest)
        self._rules = torch.tensor(rules, dtype=torch.float32, device=device)
        # Pixels leave the background to the voxels.
        self._rules_of_pixels = self._rules.clone()
        self._rules_of_pixels[BACKGROUND_RATE] = 0.0
        self._background, self._cutoff = background, cutoff
        self.found = torch.full((len(zero), 3), torch.nan, device=device)

    def of_bricks(self, bricks: BrickTables, which: Tensor, prediction: Tensor) -> Tensor:
        """Return the derivatives [C N, Z, Y, X] of the mean loss of bricks by their prediction.

        Then the background follows. Nothing else has been looked at in this step yet.
        """
        weights, sums = self._room(prediction)
        shares = (bricks.counts, bricks.importance)
        launch(
            brick_losses,
            (sums.shape[2], len(which), len(self.found)),
            THREADS,
            bricks.voxels,
            (bricks.starts, bricks.shapes, bricks.counts),
            which,
            self._levels,
            prediction.flatten(1),
            (np.int32(prediction.shape[2]), np.int32(prediction.shape[3])),
            self._darkest,
            weights.flatten(1),
            sums,
        )
        self._conclude(sums, which, shares, self._rules, slot=VOXEL_ERROR, first=True)
        return weights

    def of_views(self, drawn: Drawn, known: Tensor, image: Tensor, *, first: bool) -> Tensor:
        """Return the derivatives [C N, H, W] of the loss of views by their image.

        `known` are their targets [C N, H, W]; `first` tells whether nothing else has been looked
        at in this step.
        """
        weights, sums = self._room(image)
        shares = (drawn.counts, drawn.importance)
        launch(
            pixel_losses,
            (sums.shape[2], len(drawn.which), len(self.found)),
            THREADS,
            (drawn.views.near.flatten(1), drawn.views.far.flatten(1)),
            known.flatten(1),
            drawn.which,
            shares,
            self._levels,
            image.flatten(1),
            self._darkest,
            weights.flatten(1),
            sums,
        )
        rules = self._rules_of_pixels
        self._conclude(sums, drawn.which, shares, rules, slot=PIXEL_ERROR, first=first)
        return weights

    def _room(self, prediction: Tensor) -> tuple[Tensor, Tensor]:
        """Return memory for derivatives, and for each block's sums."""
        blocks = blocks_of(prediction[0].numel(), PER_BLOCK)
        sums = floats(prediction.device, len(prediction), SUMS, blocks)
        return torch.empty_like(prediction), sums

    def _conclude(
        self,
        sums: Tensor,
        which: Tensor,
        shares: tuple[Tensor, Tensor],
        rules: Tensor,
        *,
        slot: int,
        first: bool,
    ) -> None:
        launch(
            conclude,
            (len(self.found),),
            THREADS,
            sums,
            which,
            shares,
            rules,
            np.int32(slot),
            np.int32(first),
            self.found,
            self._background,
            self._cutoff,
        )
