"""What a fit minimises on one stack: the loss of the views and bricks that a step draws.

Knows no optimiser and no relocation. Intensities are scaled: the background is taken off and the
stack's range is 1.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from napari_gaussfit import _kernels
from napari_gaussfit._kernels.geometry import Grid
from napari_gaussfit._limits import BRIGHTEST
from napari_gaussfit.losses import LOSSES, dissimilarity
from napari_gaussfit.metrics import psnr
from napari_gaussfit.views import EndlessShuffle, Views

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from napari_gaussfit._kernels import GradientSum
    from napari_gaussfit.camera import Camera
    from napari_gaussfit.field import GaussianField
    from napari_gaussfit.settings import FitSettings
    from napari_gaussfit.stack import Stack
    from napari_gaussfit.views import View

    Tensors = tuple[Tensor, Tensor, Tensor]
    Brick = tuple[slice, slice, slice]

PIXEL_WEIGHT = 0.7
"""What a pixel of the training views counts, all together, in voxels of the stack. More
wins projections and loses voxels: on the beads 0.4 gives 47.6 and 50.5 dB, 0.7 48.2 and 50.2."""

SEARCH_STEP = 1.5
"""How far apart the search for a ray's maximum looks, in finest spacings."""

SEARCH_EVERY = 2
"""Every so many steps a ray's maximum is searched for. Between, with the voxels' term to hold
the field to the stack, the climb begins where the stack itself is largest: a third of the time."""

BACKGROUND_RATE = 0.01
"""How much of its mean residual the background takes up in a step."""

CUTOFF_PER_ERROR = 0.02
"""A Gaussian is left out where it adds less than this part of the field's own error: tails that
are left out while fitting come back in the end, and 0.1 costs the beads 2 dB."""

CUTOFFS = (1e-5, 1e-3)
"""The smallest and the largest cutoff, in parts of the range; a fit begins between."""

BRICK = (32, 128, 128)
"""Largest brick of voxels, z, y, x: its volume stays in the second-level cache by planes."""

VOXELS_PER_STEP = 1_000_000
"""About as many voxels are looked at in a step, however large the stack."""

HELD_OUT_EVERY = 10
"""Steps from one look at a held-out view to the next."""


class Found(NamedTuple):
    """Loss of a step, and PSNRs in dB of the views and bricks that it is of, NaN for none."""

    loss: float
    train_psnr: float
    voxel_psnr: float


class Objective:
    """The loss of a field on one stack, and what of the fit is no Gaussian: the background.

    Parameters
    ----------
    stack : Stack
        What to fit.
    settings : FitSettings
        How.
    rng : numpy.random.Generator
        Draws the bricks and views of each step.
    background : float
        To begin with, in raw intensity.

    Attributes
    ----------
    range : float
        Raw intensity that counts as 1.
    views : Views
        Those trained on, and those held out.
    bricks : list of tuple of slice
        Which voxels are looked at together.
    background, cutoff : float
        What the field lies above, and below which a Gaussian's contribution is left out; in
        scaled intensity. Each step moves both.
    """

    def __init__(
        self, stack: Stack, settings: FitSettings, rng: np.random.Generator, background: float
    ) -> None:
        self.stack, self.settings = stack, settings
        low, high = stack.value_range
        self.range = high - low
        self.views = Views(stack, settings.views, settings.held_out)
        self.bricks = _bricks(stack.shape)
        share = VOXELS_PER_STEP / math.prod(stack.shape)
        self.bricks_per_step = max(1, round(min(1.0, share) * len(self.bricks)))
        self.background = background / self.range
        self.cutoff = math.sqrt(math.prod(CUTOFFS))
        self._voxels = torch.from_numpy(np.asarray(stack.voxels, np.float32) / self.range)
        self._view_order = EndlessShuffle(len(self.views.training), rng)
        self._brick_order = EndlessShuffle(len(self.bricks), rng)
        self._held_out_psnr: dict[int, float] = {}

    @property
    def has_voxels(self) -> bool:
        """Whether the stack's voxels count."""
        return "voxels" in self.settings.objective

    @property
    def has_projections(self) -> bool:
        """Whether the views' pixels count."""
        return "mip" in self.settings.objective

    @property
    def background_rate(self) -> float:
        """How fast the background follows the mean residual; 0 where it was given."""
        return BACKGROUND_RATE if self.settings.background is None else 0.0

    @property
    def search_step(self) -> float:
        """How far apart the search for a ray's maximum looks, in the stack's unit."""
        return SEARCH_STEP * min(self.stack.spacing)

    def searches(self, iteration: int) -> bool:
        """Whether this step searches for rays' maxima."""
        return not self.has_voxels or iteration % SEARCH_EVERY == 0

    def pixel_weight(self, view: View) -> float:
        """Return the weight of a view's loss beside that of the voxels."""
        if not self.has_voxels:
            return 1.0
        return PIXEL_WEIGHT * view.pixels * len(self.views.training) / self._voxels.numel()

    def draw(self) -> tuple[list[int], list[int]]:
        """Return which bricks and which training views the next step looks at."""
        bricks = self._brick_order.draw(self.bricks_per_step if self.has_voxels else 0)
        views = self._view_order.draw(1 if self.has_projections else 0)
        return bricks.tolist(), views.tolist()

    def gradients(self, tensors: Tensors, iteration: int) -> tuple[Tensors, Found]:
        """Return the gradients of a step's loss by a scaled field's tensors, and what it found."""
        bricks, views = self.draw()
        total = _kernels.GradientSum(*tensors, cutoff=self.cutoff)
        loss, train_psnr, voxel_psnr = 0.0, float("nan"), float("nan")
        if bricks:
            value, voxel_psnr = self._add_voxels(total, bricks)
            loss += value
        for n in views:
            view = self.views.view(self.views.training[n])
            value, train_psnr = self._add_pixels(total, view, search=self.searches(iteration))
            loss += value
        error = 10 ** (-(train_psnr if math.isnan(voxel_psnr) else voxel_psnr) / 20)
        self.cutoff = min(max(CUTOFF_PER_ERROR * error, CUTOFFS[0]), CUTOFFS[1])
        return total.gradients(), Found(loss, train_psnr, voxel_psnr)

    def _add_voxels(self, total: GradientSum, drawn: list[int]) -> tuple[float, float]:
        """Add the voxels' loss on a few bricks, and move the background."""
        losses, squares = 0.0, 0.0
        spacing = np.asarray(self.stack.spacing, np.float32)
        for n in drawn:
            brick = self.bricks[n]
            origin = [s.start * d for s, d in zip(brick, self.stack.spacing, strict=True)]
            depth, rows, columns = (s.stop - s.start for s in brick)
            grid = Grid(np.asarray(origin, np.float32), spacing, (depth, rows, columns))
            loss, square, mean = self._add_brick(total, grid, self._voxels[brick], 1 / len(drawn))
            self.background -= self.background_rate * mean / len(drawn)
            losses += loss / len(drawn)
            squares += square / len(drawn)
        return losses, decibels(squares)

    def _add_brick(
        self, total: GradientSum, grid: Grid, target: Tensor, weight: float
    ) -> tuple[float, float, float]:
        """Return the loss of a brick, and the means of (f - target)^2 and of f - target."""
        if self.settings.loss == "squared":
            square, mean = total.add_squared_residual(
                grid, target, offset=self.background, weight=weight
            )
            return square, square, mean
        above = target - self.background
        loss, prediction = total.add_loss_on_grid(
            grid, lambda f: LOSSES[self.settings.loss](f, above), weight=weight
        )
        residual = prediction - above
        return loss, float(residual.square().mean()), float(residual.mean())

    def _add_pixels(self, total: GradientSum, view: View, *, search: bool) -> tuple[float, float]:
        """Add the loss of one view."""
        weight, start = self.pixel_weight(view), None if search else view.depth
        target, step = view.target / self.range, self.search_step
        if self.settings.loss == "squared" and not self.settings.ssim_weight:
            square = total.add_squared_mip_residual(
                view.rays,
                target,
                offset=self.background,
                weight=weight,
                bin_step=step,
                start=start,
            )
            return weight * square, decibels(square)
        above = target - self.background
        loss, image = total.add_loss_of_mip(
            view.rays,
            lambda image: self._view_loss(image, above, view.hit),
            weight=weight,
            bin_step=step,
            start=start,
        )
        error = float((image - above)[view.hit].square().mean())
        return weight * loss, decibels(error)

    def _view_loss(self, image: Tensor, target: Tensor, hit: Tensor) -> Tensor:
        loss, share = LOSSES[self.settings.loss](image[hit], target[hit]), self.settings.ssim_weight
        if not share:
            return loss
        return (1 - share) * loss + share * dissimilarity(image, torch.where(hit, target, 0.0))

    def residual(self, field: GaussianField, first: int, end: int) -> NDArray[np.float32]:
        """Return stack minus a scaled field on planes [first, end), in scaled intensity."""
        shape, spacing = self.stack.shape, self.stack.spacing
        prediction = field.voxelise_planes(first, end, shape, spacing, tolerance=1e-3)
        residual: NDArray[np.float32] = (self._voxels[first:end] - prediction.cpu()).numpy()
        return residual

    def held_out_psnr(self, field: GaussianField, iteration: int) -> float:
        """Return the mean PSNR of the held-out views, one of them looked at anew.

        Each call, `HELD_OUT_EVERY` steps after the last, looks at the next view; the others count
        as they were last seen. The field is in raw intensity.
        """
        cameras = self.views.held_out
        n = (iteration // HELD_OUT_EVERY) % len(cameras)
        self._held_out_psnr[n] = self._view_psnr(field, cameras[n], self.cutoff)
        return float(np.mean(list(self._held_out_psnr.values())))

    def view_psnr(self, field: GaussianField, n: int) -> float:
        """Return the PSNR of held-out view n, alike whenever it is asked for; raw intensity."""
        return self._view_psnr(field, self.views.held_out[n], CUTOFFS[0])

    def _view_psnr(self, field: GaussianField, camera: Camera, cutoff: float) -> float:
        view = self.views.view(camera)
        image = _kernels.mip(
            *field.tensors,
            view.rays,
            cutoff=cutoff * self.range,
            bin_step=self.search_step,
        )
        return psnr(
            view.target.numpy(),
            (image.cpu() + field.background).numpy(),
            self.stack.value_range,
            view.hit.numpy(),
        )

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs to go on as if nothing had been, as JSON types."""
        return {
            "views_left": self._view_order.left,
            "bricks_left": self._brick_order.left,
            "held_out_psnr": self._held_out_psnr,
            "background": self.background,
            "cutoff": self.cutoff,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up an earlier state of the same stack and settings.

        Raises
        ------
        ValueError
            If it is of another, or holds numbers that none has.
        """
        self._view_order.restore(state["views_left"])
        self._brick_order.restore(state["bricks_left"])
        known = {int(n): float(value) for n, value in state["held_out_psnr"].items()}
        if not set(known) <= set(range(len(self.views.held_out))):
            raise ValueError(f"held_out_psnr is of views {sorted(known)[:5]}")
        background, cutoff = float(state["background"]), float(state["cutoff"])
        sound = abs(background) * self.range <= BRIGHTEST
        if not (sound and CUTOFFS[0] <= cutoff <= CUTOFFS[1]):
            raise ValueError(f"background is {background:g} and cutoff {cutoff:g}")
        self._held_out_psnr, self.background, self.cutoff = known, background, cutoff


def decibels(mean_square: float) -> float:
    """Return the PSNR of a mean squared error in scaled intensity."""
    return float(-10 * np.log10(max(mean_square, 1e-30)))


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
