"""A step of a fit on the CPU, and what a step is on any device.

`Steps` is what a device must do for `trainer`: `CpuSteps` is the CPU's, `cuda_steps.CudaSteps` that
of a CUDA device. All is in working units, see `scaling`.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from functools import reduce
from statistics import fmean
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from napari_gaussfit import _kernels
from napari_gaussfit._kernels.geometry import Grid
from napari_gaussfit.fitting.bounds import confine, hold_axes, keep_above, widen
from napari_gaussfit.fitting.evidence import recount
from napari_gaussfit.fitting.losses import DARKEST_RATE, LOSSES, dissimilarity, poisson_deviance
from napari_gaussfit.fitting.objective import CUTOFF_PER_ERROR, CUTOFFS
from napari_gaussfit.fitting.relocation import relocate_channels

if TYPE_CHECKING:
    from torch import Tensor

    from napari_gaussfit._kernels import GradientSum
    from napari_gaussfit.fitting.objective import Drawn, Objective
    from napari_gaussfit.fitting.optimisers import Optimiser
    from napari_gaussfit.fitting.state import OptimiserState, Tensors

    Numbers = tuple[float, float, float]


@dataclass(frozen=True)
class StepResult:
    """What a step found; NaN where it did not look.

    Parameters
    ----------
    loss : float
        Loss over all channels, in working units.
    train_psnr, voxel_psnr : float
        PSNR in dB of the step's own view and of its bricks, the mean over the channels.
    gradient_norms : tuple of float
        Norms of the gradients by means, Cholesky parameters and amplitudes.
    """

    loss: float = math.nan
    train_psnr: float = math.nan
    voxel_psnr: float = math.nan
    gradient_norms: tuple[float, float, float] = (math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class Slab:
    """The extent of a relocation.

    Parameters
    ----------
    planes : int
        Number of the stack's planes that it looks at.
    most : int
        Largest number of Gaussians that it moves.
    """

    planes: int
    most: int


class Steps(Protocol):
    """Moves the Gaussians of a fit on one device.

    Attributes
    ----------
    state : OptimiserState
        Gaussians, moments and levels that steps change, on that device.
    """

    state: OptimiserState

    def take(self, drawn: Drawn, rate: float) -> None:
        """Take a step; a device may return before it is done.

        Parameters
        ----------
        drawn : Drawn
            What the step looks at.
        rate : float
            The optimiser's step size.
        """

    def found(self, *, due: bool) -> StepResult:
        """Return what the last step found.

        Parameters
        ----------
        due : bool
            Whether this step is recorded. Where it is not, a device that would have to wait for the
            step may return what it knew before, without the PSNRs.
        """

    def widen(self, narrowest: float) -> None:
        """Widen Gaussians that are narrower than so many voxels; see `bounds.widen`."""

    def keep_above(self, floor: Tensor) -> None:
        """Widen Gaussians that are narrower than [3, 3] on the CPU; see `bounds.keep_above`."""

    def relocate(self, first: int, kept: int) -> None:
        """Relocate Gaussians, looking at planes from `first` on; the first `kept` stay."""

    def recount(self, first: int, kept: int, room: int, floor: Tensor | None = None) -> int:
        """Add Gaussians and take some away, as `evidence.recount` does.

        Parameters
        ----------
        first : int
            The first of the planes that are looked at.
        kept : int
            Number of Gaussians, the first ones, that stay.
        room : int
            Largest number of Gaussians after this.

        Returns
        -------
        int
            Number of places for whose Gaussians there was no room.
        """

    def look(self, n: int) -> float:
        """Return the PSNR in dB of held-out view n, the mean over the channels."""

    def depths(self, n: int) -> Tensor:
        """Return where on training view n's rays each channel was last largest [C, H, W], in t."""

    def set_depths(self, n: int, depths: Tensor) -> None:
        """Set what `depths` returns."""


class CpuSteps:
    """Takes steps on the CPU.

    Parameters
    ----------
    objective : Objective
        The loss that steps minimise.
    state : OptimiserState
        The Gaussians and the optimiser's moments; changed in place.
    optimiser : Optimiser
        Function that moves the Gaussians against the gradients.
    slab : Slab
        Planes that a relocation looks at, and Gaussians that it moves at most.
    """

    def __init__(
        self, objective: Objective, state: OptimiserState, optimiser: Optimiser, slab: Slab
    ) -> None:
        self.state = state
        self._objective, self._optimiser, self._slab = objective, optimiser, slab
        self._losses = [ChannelLoss(objective, state, n) for n in range(len(objective.channels))]
        self._rates = torch.empty(state.first.shape[1])
        self._found = StepResult()

    def take(self, drawn: Drawn, rate: float) -> None:
        """Take a step; see `Steps.take`."""
        gradients, found = self.gradients(drawn)
        if not self._objective.settings.full_covariance:
            hold_axes(gradients[1])
        self._optimiser(self.state, gradients, self._rates.fill_(rate))
        stack = self._objective.stack
        confine(self.state.means, stack.shape, stack.spacing)
        d_means, d_cholesky, d_amplitudes = (float(g.norm()) for g in gradients)
        self._found = StepResult(*found, (d_means, d_cholesky, d_amplitudes))

    def gradients(self, drawn: Drawn) -> tuple[Tensors, Numbers]:
        """Return the gradients of the loss by the Gaussians; loss, view's and bricks' PSNR."""
        parts = [loss.gradients(drawn) for loss in self._losses]
        means, cholesky, amplitudes = zip(*(gradients for gradients, _ in parts), strict=True)
        losses, train_psnrs, voxel_psnrs = zip(*(found for _, found in parts), strict=True)
        gradients = (
            reduce(operator.add, means),
            reduce(operator.add, cholesky),
            torch.stack(amplitudes) if len(parts) > 1 else amplitudes[0][None],
        )
        return gradients, (sum(losses), fmean(train_psnrs), fmean(voxel_psnrs))

    def found(self, *, due: bool) -> StepResult:  # noqa: ARG002 - it is there, due or not
        """Return what the last step found."""
        return self._found

    def widen(self, narrowest: float) -> None:
        """Widen Gaussians that are narrower than so many voxels; see `bounds.widen`."""
        widen(self.state.cholesky, self._objective.stack.spacing, narrowest)

    def keep_above(self, floor: Tensor) -> None:
        """Widen Gaussians that are narrower than `floor`; see `bounds.keep_above`."""
        keep_above(self.state.cholesky, floor)

    def relocate(self, first: int, kept: int) -> None:
        """Relocate Gaussians, looking at planes from `first` on; the first `kept` stay."""
        end = first + self._slab.planes
        moved = relocate_channels(
            self.state.gaussians,
            [
                channel.residual(self.state.field(n), first, end)
                for n, channel in enumerate(self._objective.channels)
            ],
            self._objective.stack.spacing,
            self._slab.most,
            first_plane=first,
            kept=kept,
        )
        self.state.forget(moved)

    def recount(self, first: int, kept: int, room: int, floor: Tensor | None = None) -> int:
        """Add Gaussians and take some away; see `Steps.recount`."""
        return recount_state(self._objective, self.state, self._slab, first, kept, room, floor)

    def look(self, n: int) -> float:
        """Return the PSNR in dB of held-out view n, the mean over the channels."""
        state = self.state
        return fmean(
            channel.held_out_psnr(state.field(c), n, float(state.cutoff[c]))
            for c, channel in enumerate(self._objective.channels)
        )

    def depths(self, n: int) -> Tensor:
        """Return where on training view n's rays each channel was last largest [C, H, W], in t."""
        return torch.stack([loss.depths[n] for loss in self._losses])

    def set_depths(self, n: int, depths: Tensor) -> None:
        """Set what `depths` returns."""
        for loss, depth in zip(self._losses, depths, strict=True):
            loss.depths[n] = depth


def recount_state(
    objective: Objective,
    state: OptimiserState,
    slab: Slab,
    first: int,
    kept: int,
    room: int,
    floor: Tensor | None = None,
) -> int:
    """Add Gaussians to a state on the CPU and take some away; see `Steps.recount`.

    Where none come or go, the state's tensors are the same as before.
    """
    end = first + slab.planes
    residuals = [
        channel.residual(state.field(n), first, end) for n, channel in enumerate(objective.channels)
    ]
    fitted = [
        channel.voxels[first:end].numpy() - residual
        for channel, residual in zip(objective.channels, residuals, strict=True)
    ]
    found = recount(
        state.gaussians,
        residuals,
        fitted,
        objective.stack.spacing,
        voxels=objective.stack.voxels.size,
        room=room,
        first_plane=first,
        kept=kept,
        floor=floor,
        points=objective.settings.shape == "point",
        noises=[channel.noise for channel in objective.channels],
    )
    if len(found.stay) < len(state.means) or len(found.added[0]):
        state.forget(found.changed)
        state.recount(found.stay, found.added)
    return found.waiting


class ChannelLoss:
    """The loss of one channel, and its gradient, on the CPU.

    Parameters
    ----------
    objective : Objective
        The loss of which this is a part.
    state : OptimiserState
        The Gaussians; the channel's background and cutoff in it are moved by each step.
    number : int
        The channel, from 0.

    Attributes
    ----------
    depths : dict of Tensor, shape [H, W]
        Place on each ray (t) where the field was largest when a training view was last looked at,
        by the view's number.
    """

    def __init__(self, objective: Objective, state: OptimiserState, number: int) -> None:
        self._objective, self._state, self._number = objective, state, number
        self._channel = objective.channels[number]
        self.depths: dict[int, Tensor] = {}

    @property
    def _background(self) -> float:
        return float(self._state.background[self._number])

    def gradients(self, drawn: Drawn) -> tuple[Tensors, Numbers]:
        """Return the gradients of a step's loss by means, Cholesky parameters and amplitudes [K].

        And the loss, and the PSNRs of view and bricks.
        """
        means, cholesky, amplitudes = self._state.gaussians
        cutoff = self._state.cutoff
        total = _kernels.GradientSum(
            means, cholesky, amplitudes[self._number], cutoff=float(cutoff[self._number])
        )
        loss, train_psnr, voxel_psnr = 0.0, math.nan, math.nan
        if drawn.bricks:
            value, voxel_psnr = self._add_voxels(total, drawn.bricks)
            loss += value
        for n in drawn.views:
            value, train_psnr = self._add_pixels(total, n, search=drawn.search)
            loss += value
        error = 10 ** (-(train_psnr if math.isnan(voxel_psnr) else voxel_psnr) / 20)
        cutoff[self._number] = _kernels.cutoff_of(error, CUTOFF_PER_ERROR, *CUTOFFS)
        return total.gradients(), (loss, train_psnr, voxel_psnr)

    def _add_voxels(self, total: GradientSum, drawn: list[int]) -> tuple[float, float]:
        """Add the voxels' loss on a few bricks, and move the background; return it, and PSNR."""
        losses, squares = 0.0, 0.0
        spacing = np.asarray(self._channel.stack.spacing, np.float32)
        rate = self._objective.background_rate
        for n in drawn:
            brick = self._objective.bricks[n]
            origin = [s.start * d for s, d in zip(brick, self._channel.stack.spacing, strict=True)]
            depth, rows, columns = (s.stop - s.start for s in brick)
            grid = Grid(np.asarray(origin, np.float32), spacing, (depth, rows, columns))
            target = self._channel.voxels[brick]
            loss, square, mean = self._add_brick(total, grid, target, 1 / len(drawn))
            self._state.background[self._number] -= rate * mean / len(drawn)
            losses += loss / len(drawn)
            squares += square / len(drawn)
        return losses, decibels(squares)

    def _add_brick(
        self, total: GradientSum, grid: Grid, target: Tensor, weight: float
    ) -> tuple[float, float, float]:
        """Add the loss of a brick; return it, the mean squared residual, and the mean residual.

        The latter, by which f is too bright, is weighted as the loss weighs it.
        """
        background = self._background
        if self._objective.settings.loss == "squared":
            square, mean = total.add_squared_residual(
                grid, target, offset=background, weight=weight
            )
            return square, square, mean
        counts, offset = target + self._channel.zero, background + self._channel.zero
        loss, f = total.add_loss_on_grid(
            grid, lambda f: poisson_deviance(f + offset, counts), weight=weight
        )
        residual, weights = f + offset - counts, 1 / (f + offset).clamp(min=DARKEST_RATE)
        too_bright = float((residual * weights).mean() / weights.mean())
        return loss, float(residual.square().mean()), too_bright

    def _add_pixels(self, total: GradientSum, n: int, *, search: bool) -> tuple[float, float]:
        """Add the loss of one training view; return it, and the view's PSNR.

        Its target is the stack where the field is largest: the maximum of a noisy stack lies above
        that of what is there. Without voxels in the loss, it is that maximum all the same.
        """
        objective, views, background = self._objective, self._channel.views, self._background
        view = views.view(views.training[n])
        weight, start = objective.pixel_weight(view), None if search else self.depths[n]
        target = views.projector.spline if objective.has_voxels else view.target
        rays, step = view.rays, objective.search_step
        if objective.settings.loss == "squared" and not objective.settings.ssim_weight:
            loss, self.depths[n] = total.add_squared_mip_residual(
                rays, target, offset=background, weight=weight, bin_step=step, start=start
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
        return weight * loss, decibels(float((error + background)[view.hit].square().mean()))

    def _view_loss(self, image: Tensor, target: Tensor, hit: Tensor) -> Tensor:
        settings, zero, background = (
            self._objective.settings,
            self._channel.zero,
            self._background,
        )
        loss_of, share = LOSSES[settings.loss], settings.ssim_weight
        loss = loss_of(image[hit] + (background + zero), target[hit] + zero)
        if not share:
            return loss
        above = torch.where(hit, target - background, 0.0)
        return (1 - share) * loss + share * dissimilarity(image, above)


def decibels(mean_square: float) -> float:
    """Return the PSNR of a mean squared error in working units."""
    return float(-10 * np.log10(max(mean_square, 1e-30)))
