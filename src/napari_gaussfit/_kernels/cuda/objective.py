"""What a step's bricks and views lose on a CUDA device, in a few launches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_gaussfit._kernels.cuda import losses, mip_kernels
from napari_gaussfit._kernels.cuda.device import launch
from napari_gaussfit._kernels.cuda.gaussians import blocks_of, floats
from napari_gaussfit._kernels.cuda.losses import PIXEL_ERROR, THREADS, VOXEL_ERROR
from napari_gaussfit._kernels.cuda.mip import Views

if TYPE_CHECKING:
    from torch import Tensor


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
        self._rules_of_pixels[losses.BACKGROUND_RATE] = 0.0
        self._background, self._cutoff = background, cutoff
        self.found = torch.full((3,), torch.nan, device=device)

    def of_bricks(self, bricks: BrickTables, which: Tensor, prediction: Tensor) -> Tensor:
        """Return the derivatives [N, Z, Y, X] of the mean loss of bricks by their prediction.

        Then the background follows. Nothing else has been looked at in this step yet.
        """
        weights, sums = self._room(prediction)
        launch(
            losses.brick_losses,
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
            losses.pixel_losses,
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
        blocks = blocks_of(prediction[0].numel(), losses.PER_BLOCK)
        sums = floats(prediction.device, len(prediction), losses.SUMS, blocks)
        return torch.empty_like(prediction), sums

    def _conclude(self, sums: Tensor, *tables: Tensor, slot: int, first: bool) -> None:
        launch(
            losses.conclude,
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
