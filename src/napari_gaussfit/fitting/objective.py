"""What a fit minimises on one stack: the loss of the views and bricks that a step draws.

Knows no optimiser and no relocation. All is in working units, see `scaling`.
"""

from __future__ import annotations

import itertools
import math
import operator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from napari_gaussfit import _kernels
from napari_gaussfit._kernels.geometry import Grid
from napari_gaussfit.errors import SettingsError
from napari_gaussfit.fitting.losses import DARKEST_RATE, LOSSES, dissimilarity, poisson_deviance
from napari_gaussfit.measure.metrics import psnr
from napari_gaussfit.model.views import EndlessShuffle, Views

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from napari_gaussfit._kernels import GradientSum
    from napari_gaussfit.model.camera import Camera
    from napari_gaussfit.model.field import GaussianField
    from napari_gaussfit.model.scaling import WorkingStack
    from napari_gaussfit.model.views import View
    from napari_gaussfit.settings import FitSettings

    Tensors = tuple[Tensor, Tensor, Tensor]
    Brick = tuple[slice, slice, slice]

PIXEL_WEIGHT = 0.15
"""What a pixel of the training views counts, all together, in voxels of the stack. More takes noise
away and costs voxels: with 0.16 and 0.2 the dendrite's own field at 300 photons (`test_truth.py`)
is met at 39.5 and 39.6 dB of unseen views and 49.25 and 49.32 of noise-free voxels, and the voxels
of the dendrite itself at 63.02 and 62.98."""

SEARCH_STEP = 1.5
"""How far apart the search for a ray's maximum looks, in finest spacings."""

SEARCH_EVERY = 8
"""Every so many steps a ray's maximum is searched for. Between, the climb begins where the
field was largest when this view was last looked at: a third of the time. Whether every second
step searches or every eighth, fits of real stacks end within 0.02 dB of their voxels."""

FARTHEST_ZERO = 1e3
"""Ranges below the lowest voxel in which an intensity of 0 is looked for: farther away the noise of
photons is even, and single precision would lose what is in the stack (9 dB at 10^6)."""

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

RESIDUAL_TOLERANCE = 1e-3
"""What may be left out of a field whose residual is asked for, in parts of its largest
amplitude."""

LARGEST_BACKGROUND = 1e15
"""Of a state that a fit goes on from: also of a stack with a large offset it is far below."""

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
    working : WorkingStack
        What to fit.
    settings : FitSettings
        Fit settings.
    rng : numpy.random.Generator
        Draws the bricks and views of each step.
    background : float
        To begin with, in working units.

    Attributes
    ----------
    stack : Stack
        What is fitted, in working units.
    views : Views
        Those trained on, and those held out.
    bricks : list of tuple of slice
        Which voxels are looked at together.
    zero : float
        What an intensity of 0 lies below the lowest voxel, for a loss that must know; else 0.
    background, cutoff : float
        What the field lies above, and below which a Gaussian's contribution is left out. Each step
        moves both.
    depths : dict of Tensor, shape [H, W]
        By a training view's number, where on its rays (t) the field was largest when the view was
        last looked at.
    """

    def __init__(
        self,
        working: WorkingStack,
        settings: FitSettings,
        rng: np.random.Generator,
        background: float,
    ) -> None:
        self.stack, self.settings = working.stack, settings
        self.views = Views(self.stack, settings.views, settings.held_out)
        self.bricks = _bricks(self.stack.shape)
        share = VOXELS_PER_STEP / math.prod(self.stack.shape)
        self.bricks_per_step = max(1, round(min(1.0, share) * len(self.bricks)))
        self.zero = _darkness(working) if settings.loss == "poisson" else 0.0
        self.background = background
        self.cutoff = math.sqrt(math.prod(CUTOFFS))
        self.depths: dict[int, Tensor] = {}
        self._voxels = torch.from_numpy(self.stack.voxels)
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

    def searches(self, iteration: int, views: list[int]) -> bool:
        """Whether this step searches for the maxima on its views' rays."""
        known = self.depths.keys() >= set(views)
        return not (self.has_voxels and known) or iteration % SEARCH_EVERY == 0

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
        """Return the gradients of a step's loss by a field's tensors, and what it found."""
        bricks, views = self.draw()
        total = _kernels.GradientSum(*tensors, cutoff=self.cutoff)
        loss, train_psnr, voxel_psnr = 0.0, float("nan"), float("nan")
        if bricks:
            value, voxel_psnr = self._add_voxels(total, bricks)
            loss += value
        search = self.searches(iteration, views)
        for n in views:
            value, train_psnr = self._add_pixels(total, n, search=search)
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
        """Return the loss of a brick, its mean squared residual, and by how much f is too bright.

        The latter is the mean residual, weighted as the loss weighs it.
        """
        if self.settings.loss == "squared":
            square, mean = total.add_squared_residual(
                grid, target, offset=self.background, weight=weight
            )
            return square, square, mean
        counts, offset = target + self.zero, self.background + self.zero
        loss, f = total.add_loss_on_grid(
            grid, lambda f: poisson_deviance(f + offset, counts), weight=weight
        )
        residual, weights = f + offset - counts, 1 / (f + offset).clamp(min=DARKEST_RATE)
        too_bright = float((residual * weights).mean() / weights.mean())
        return loss, float(residual.square().mean()), too_bright

    def _add_pixels(self, total: GradientSum, n: int, *, search: bool) -> tuple[float, float]:
        """Add the loss of one training view.

        Its target is the stack where the field is largest: the maximum of a noisy stack lies above
        that of what is there. Where voxels are not to be used, it is that maximum all the same.
        """
        view = self.views.view(self.views.training[n])
        weight, start = self.pixel_weight(view), None if search else self.depths[n]
        target = self.views.projector.spline if self.has_voxels else view.target
        rays, step = view.rays, self.search_step
        if self.settings.loss == "squared" and not self.settings.ssim_weight:
            loss, self.depths[n] = total.add_squared_mip_residual(
                rays, target, offset=self.background, weight=weight, bin_step=step, start=start
            )
            return weight * loss, decibels(loss)
        loss, error, self.depths[n] = total.add_loss_of_mip(
            rays,
            target,
            lambda image, goal: self._view_loss(image, goal, view.hit),
            weight=weight,
            bin_step=step,
            start=start,
        )
        return weight * loss, decibels(float((error + self.background)[view.hit].square().mean()))

    def _view_loss(self, image: Tensor, target: Tensor, hit: Tensor) -> Tensor:
        loss_of, share = LOSSES[self.settings.loss], self.settings.ssim_weight
        loss = loss_of(image[hit] + (self.background + self.zero), target[hit] + self.zero)
        if not share:
            return loss
        above = torch.where(hit, target - self.background, 0.0)
        return (1 - share) * loss + share * dissimilarity(image, above)

    def residual(self, field: GaussianField, first: int, end: int) -> NDArray[np.float32]:
        """Return stack minus field on planes [first, end)."""
        shape, spacing = self.stack.shape, self.stack.spacing
        prediction = field.voxelise_planes(first, end, shape, spacing, tolerance=RESIDUAL_TOLERANCE)
        residual: NDArray[np.float32] = (self._voxels[first:end] - prediction.cpu()).numpy()
        return residual

    def next_held_out(self, iteration: int) -> int:
        """Return which held-out view is to be looked at, `HELD_OUT_EVERY` steps after the last."""
        return (iteration // HELD_OUT_EVERY) % len(self.views.held_out)

    def held_out_psnr(self, n: int, psnr: float) -> float:
        """Return the mean PSNR of the held-out views, of which n has just been looked at.

        The others count as they were last seen.
        """
        self._held_out_psnr[n] = psnr
        return float(np.mean(list(self._held_out_psnr.values())))

    def look(self, field: GaussianField, n: int) -> float:
        """Return the PSNR of held-out view n, as exactly as the fit is."""
        return self._view_psnr(field, self.views.held_out[n], self.cutoff)

    def view_psnr(self, field: GaussianField, n: int) -> float:
        """Return the PSNR of held-out view n, alike whenever it is asked for."""
        return self._view_psnr(field, self.views.held_out[n], CUTOFFS[0])

    def _view_psnr(self, field: GaussianField, camera: Camera, cutoff: float) -> float:
        view = self.views.view(camera)
        image = _kernels.mip(
            *field.tensors,
            view.rays,
            cutoff=cutoff,
            bin_step=self.search_step,
        )
        return psnr(
            view.target.numpy(),
            image.cpu().numpy() + np.float32(field.background),
            self.stack.value_range,
            view.hit.numpy(),
        )

    def packed_depths(self) -> dict[str, Tensor]:
        """Return `depths` as two tensors: the views' numbers, and the depths of rays in the box."""
        if not self.has_voxels or not self.depths:
            return {}
        numbers = sorted(self.depths)
        depths = [self.depths[n].cpu().numpy()[self._seen_by(n)] for n in numbers]
        return {
            "depth_views": torch.tensor(numbers),
            "depths": torch.from_numpy(np.concatenate(depths)),
        }

    def _seen_by(self, n: int) -> NDArray[np.bool_]:
        """Return which rays of training view n cross the box."""
        hit: NDArray[np.bool_] = self.views.view(self.views.training[n]).hit.numpy()
        return hit

    def unpacked_depths(self, state: dict[str, Tensor]) -> dict[int, Tensor]:
        """Return the `depths` that `packed_depths` gave."""
        depths: dict[int, Tensor] = {}
        if "depth_views" not in state:
            return depths
        known = state["depths"].numpy()
        if not np.isfinite(known).all():
            raise ValueError("depths are not all finite")
        first = 0
        for n in map(operator.index, state["depth_views"].tolist()):
            hit = self._seen_by(n)
            end = first + int(np.count_nonzero(hit))
            depth = np.zeros(hit.shape, np.float32)
            depth[hit] = known[first:end]
            depths[n], first = torch.from_numpy(depth), end
        return depths

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs beside `depths`, as JSON types."""
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
        sound = abs(background) <= LARGEST_BACKGROUND
        # A device keeps it in float32: a ten-millionth beyond the largest is that.
        if not (sound and 0.999 * CUTOFFS[0] <= cutoff <= 1.001 * CUTOFFS[1]):
            raise ValueError(f"background is {background:g} and cutoff {cutoff:g}")
        self._held_out_psnr, self.background, self.cutoff = known, background, cutoff


def _darkness(working: WorkingStack) -> float:
    """Return what an intensity of 0 lies below the lowest voxel, in working units.

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


def decibels(mean_square: float) -> float:
    """Return the PSNR of a mean squared error in working units."""
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
