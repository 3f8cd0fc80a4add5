"""What a fit minimises: the targets in every channel, and which of them a step looks at.

Knows neither device nor optimiser; `steps` computes the loss. All is in working units, see
`scaling`.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from napari_gaussfit import _kernels
from napari_gaussfit.errors import SettingsError
from napari_gaussfit.measure.metrics import psnr
from napari_gaussfit.model.views import EndlessShuffle, Views

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from napari_gaussfit.measure.noise import Noise
    from napari_gaussfit.model.field import GaussianField
    from napari_gaussfit.model.scaling import WorkingStack
    from napari_gaussfit.model.views import View
    from napari_gaussfit.settings import FitSettings
    from napari_gaussfit.stacks.stack import Stack

    Brick = tuple[slice, slice, slice]

PIXEL_WEIGHT = 0.15
"""Weight of the projection loss beside the voxel loss: what a pixel of the training views counts,
all views together, in voxels of the stack. More takes noise away and costs voxels: with 0.16 and
0.2 the dendrite's own field at 300 photons (`test_truth.py`) is met at 39.5 and 39.6 dB of unseen
views and 49.25 and 49.32 of noise-free voxels, and the voxels of the dendrite itself at 63.02 and
62.98."""

SEARCH_STEP = 1.5
"""Distance between the places at which the search for a ray's maximum looks, in finest spacings."""

SEARCH_EVERY = 8
"""Steps from one search for the maxima of rays to the next. In between, the climb begins where the
field was largest when the view was last looked at, which takes a third of the time. Whether every
second step searches or every eighth, fits of real stacks end within 0.02 dB of their voxels."""

FARTHEST_ZERO = 1e3
"""Ranges below the lowest voxel in which an intensity of 0 is looked for: farther away the noise of
photons is even, and single precision would lose what is in the stack (9 dB at 10^6)."""

BACKGROUND_RATE = 0.01
"""Part of its mean residual that the background takes up in a step."""

CUTOFF_PER_ERROR = 0.02
"""A Gaussian is left out where it adds less than this part of the field's own error: tails that
are left out while fitting come back in the end, and 0.1 costs the beads 2 dB."""

CUTOFFS = (1e-5, 1e-3)
"""The smallest and the largest cutoff, in parts of the range; a fit begins between."""

BRICK = (32, 128, 128)
"""Largest brick of voxels, z, y, x: its volume stays in the second-level cache by planes."""

VOXELS_PER_STEP = 1_000_000
"""Voxels that a step looks at, about, however large the stack."""

RESIDUAL_TOLERANCE = 1e-3
"""Contribution below which a Gaussian is left out of a residual, in parts of the largest
amplitude."""

HELD_OUT_EVERY = 10
"""Steps from one look at a held-out view to the next."""


class Drawn(NamedTuple):
    """What one step looks at, in every channel.

    Parameters
    ----------
    bricks, views : list of int
        Indices of bricks of voxels, and of training views.
    search : bool
        True to search the views' rays for maxima, False to climb from where these last were.
    """

    bricks: list[int]
    views: list[int]
    search: bool


@dataclass(frozen=True, eq=False)
class Channel:
    """What one channel of a fit is compared with.

    Parameters
    ----------
    working : WorkingStack
        The channel's stack and its working units.
    views : Views
        Training and held-out views of it.
    zero : float
        Distance of intensity 0 below the lowest voxel, for a loss that counts photons; else 0.
    noise : Noise or None
        In working units, where the time before has told it.
    """

    working: WorkingStack
    views: Views
    zero: float
    noise: Noise | None = None

    @property
    def stack(self) -> Stack:
        """The stack in working units."""
        return self.working.stack

    @cached_property
    def voxels(self) -> Tensor:
        """The stack's voxels [Z, Y, X], in its own memory."""
        return torch.from_numpy(self.stack.voxels)

    def residual(self, field: GaussianField, first: int, end: int) -> NDArray[np.float32]:
        """Return stack minus field on planes [first, end)."""
        shape, spacing = self.stack.shape, self.stack.spacing
        prediction = field.voxelise_planes(first, end, shape, spacing, tolerance=RESIDUAL_TOLERANCE)
        residual: NDArray[np.float32] = (self.voxels[first:end] - prediction.cpu()).numpy()
        return residual

    def held_out_psnr(self, field: GaussianField, n: int, cutoff: float) -> float:
        """Return the PSNR of a field's MIP in held-out view n."""
        view = self.views.view(self.views.held_out[n])
        step = search_step(self.stack)
        image = _kernels.mip(*field.tensors, view.rays, cutoff=cutoff, bin_step=step)
        return psnr(
            view.target.numpy(),
            image.cpu().numpy() + np.float32(field.background),
            self.stack.value_range,
            view.hit.numpy(),
        )


class Objective:
    """The loss of a fit over all channels: its targets, and the order in which steps see them.

    Parameters
    ----------
    workings : sequence of WorkingStack
        The channels, of one shape and spacing.
    settings : FitSettings
        Settings of the fit.
    rng : numpy.random.Generator
        Source of the order of bricks and views.
    noises : sequence of Noise or None
        Of each channel in raw intensity, as the time before has told it; empty where none has.

    Attributes
    ----------
    channels : tuple of Channel
        Targets of each channel.
    bricks : list of tuple of slice
        Voxels that are looked at together.
    seen : set of int
        Training views that steps have looked at, so that it is known where on their rays the
        field is largest.
    """

    def __init__(
        self,
        workings: Sequence[WorkingStack],
        settings: FitSettings,
        rng: np.random.Generator,
        noises: Sequence[Noise | None] = (),
    ) -> None:
        self.settings = settings
        self.channels = tuple(
            Channel(
                working,
                Views(working.stack, settings.views, settings.held_out),
                _darkness(working) if settings.loss == "poisson" else 0.0,
                noise and noise.rescaled(1 / working.range, -float(working.lowest) / working.range),
            )
            for working, noise in zip(workings, noises or (None,) * len(workings), strict=True)
        )
        self._voxels = math.prod(self.stack.shape)
        self.bricks = _bricks(self.stack.shape)
        share = VOXELS_PER_STEP / self._voxels
        self.bricks_per_step = max(1, round(min(1.0, share) * len(self.bricks)))
        self.seen: set[int] = set()
        self._view_order = EndlessShuffle(len(self.views.training), rng)
        self._brick_order = EndlessShuffle(len(self.bricks), rng)
        self._held_out_psnr: dict[int, float] = {}

    @property
    def stack(self) -> Stack:
        """The first channel in working units, whose shape and spacing are those of all."""
        return self.channels[0].stack

    @property
    def views(self) -> Views:
        """The first channel's views, whose cameras and rays are those of all."""
        return self.channels[0].views

    @property
    def has_voxels(self) -> bool:
        """Whether the loss is over the stack's voxels, among others."""
        return "voxels" in self.settings.objective

    @property
    def has_projections(self) -> bool:
        """Whether the loss is over pixels of the training views, among others."""
        return "mip" in self.settings.objective

    @property
    def background_rate(self) -> float:
        """Part of its mean residual that a background takes up in a step; 0 where it is given."""
        return BACKGROUND_RATE if self.settings.background is None else 0.0

    @property
    def search_step(self) -> float:
        """Distance between the places at which the search for a ray's maximum looks."""
        return search_step(self.stack)

    def pixel_weight(self, view: View) -> float:
        """Return the weight of a view's loss beside that of the voxels."""
        if not self.has_voxels:
            return 1.0
        return PIXEL_WEIGHT * view.pixels * len(self.views.training) / self._voxels

    def draw(self, iteration: int) -> Drawn:
        """Return what a step looks at: the next bricks and views of a random order."""
        bricks = self._brick_order.draw(self.bricks_per_step if self.has_voxels else 0).tolist()
        views = self._view_order.draw(1 if self.has_projections else 0).tolist()
        known = self.has_voxels and self.seen.issuperset(views)
        self.seen.update(views)
        return Drawn(bricks, views, not known or iteration % SEARCH_EVERY == 0)

    def next_held_out(self, iteration: int) -> int:
        """Return which held-out view is to be looked at, `HELD_OUT_EVERY` steps after the last."""
        return (iteration // HELD_OUT_EVERY) % len(self.views.held_out)

    def held_out_psnr(self, n: int, psnr: float) -> float:
        """Return the mean PSNR of the held-out views, of which n has just been looked at.

        The others count as they were last seen.
        """
        self._held_out_psnr[n] = psnr
        return float(np.mean(list(self._held_out_psnr.values())))

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs, as JSON types."""
        return {
            "views_left": self._view_order.left,
            "bricks_left": self._brick_order.left,
            "held_out_psnr": self._held_out_psnr,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up an earlier state of the same stacks and settings.

        Raises
        ------
        ValueError
            If it is of others, or holds numbers that none has.
        """
        self._view_order.restore(state["views_left"])
        self._brick_order.restore(state["bricks_left"])
        known = {int(n): float(value) for n, value in state["held_out_psnr"].items()}
        if not set(known) <= set(range(len(self.views.held_out))):
            raise ValueError(f"held_out_psnr is of views {sorted(known)[:5]}")
        self._held_out_psnr = known


def search_step(stack: Stack) -> float:
    """Return the distance between the places at which the search for a ray's maximum looks."""
    return SEARCH_STEP * min(stack.spacing)


def _darkness(working: WorkingStack) -> float:
    """Return the distance of intensity 0 below the lowest voxel, in working units.

    Raises
    ------
    SettingsError
        If it lies above all voxels.
    """
    highest = working.lowest + working.range
    if highest <= 0:
        raise SettingsError(
            f"loss='poisson': the stack's brightest voxel is {highest:g}, and photons are above 0; "
            "give a stack in which 0 means no light, or use loss='squared'"
        )
    return min(working.lowest / working.range, FARTHEST_ZERO)


def _bricks(shape: tuple[int, int, int]) -> list[Brick]:
    """Cut a volume that is too large for a step into even bricks no larger than `BRICK`."""
    if math.prod(shape) <= VOXELS_PER_STEP:
        z, y, x = (slice(0, size) for size in shape)
        return [(z, y, x)]
    cuts = []
    for size, most in zip(shape, BRICK, strict=True):
        edges = np.linspace(0, size, -(-size // most) + 1).round().astype(int)
        cuts.append([slice(int(a), int(b)) for a, b in itertools.pairwise(edges)])
    return [(z, y, x) for z in cuts[0] for y in cuts[1] for x in cuts[2]]
