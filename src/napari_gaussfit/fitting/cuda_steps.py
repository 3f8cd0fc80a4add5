"""Steps of a fit on a CUDA device: captured in a graph once, then replayed; nobody waits.

The twin of what `training` does on the CPU, on buffers that stay where they are as long as the
number of Gaussians does. Which views and bricks a step looks at are indices in device memory;
losses and norms stay there until they are asked for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_gaussfit._kernels import cuda
from napari_gaussfit._kernels.cuda_graphs import Graphs
from napari_gaussfit._kernels.geometry import Grid
from napari_gaussfit.fitting.losses import DARKEST_RATE, LOSSES, WINDOW, dissimilarity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from napari_gaussfit._kernels.cpu_stacks import SplineVolume
    from napari_gaussfit.model.views import View
    from napari_gaussfit.stacks.stack import Stack

OFF_DIAGONAL = (1, 3, 4)
"""Cholesky parameters that are 0 where axes are kept along z, y, x."""

BLANK = 1.0
"""Prediction and target where there is neither voxel nor ray: they agree, and no loss is 0 / 0."""


@dataclass(frozen=True)
class Rules:
    """What steps do; the numbers are `training`'s.

    Parameters
    ----------
    loss : str
        A name in `losses.LOSSES`.
    ssim_weight : float
        Weight of 1 - SSIM of the projections beside the loss.
    full_covariance : bool
        False keeps the Gaussians' axes along z, y, x.
    background_rate : float
        How fast the background follows the mean residual; 0 keeps it.
    cutoff_per_error : float
        A Gaussian is left out where it adds less than this part of the field's own error.
    cutoffs : tuple of float
        The smallest and the largest cutoff.
    zero : float
        What an intensity of 0 lies below the lowest voxel, for a loss that must know; else 0.
    """

    loss: str
    ssim_weight: float
    full_covariance: bool
    background_rate: float
    cutoff_per_error: float
    cutoffs: tuple[float, float]
    zero: float = 0.0


@dataclass(frozen=True, eq=False)
class State:
    """What steps change, in place: contiguous float32 tensors on the device.

    Parameters
    ----------
    means, cholesky, amplitudes : Tensor, shape [K, 3], [K, 6], [K]
        The Gaussians, in working units.
    first, second, age : Tensor, shape [K, 10], [K, 10], [K]
        The optimiser's moments, and the steps that each Gaussian has taken.
    background, cutoff : Tensor, shape [1]
        In working units.
    """

    means: Tensor
    cholesky: Tensor
    amplitudes: Tensor
    first: Tensor
    second: Tensor
    age: Tensor
    background: Tensor
    cutoff: Tensor


@dataclass(frozen=True)
class Numbers:
    """What the last step found, in working units; NaN where it did not look.

    Parameters
    ----------
    loss : float
        Of the whole objective.
    voxel_error, pixel_error : float
        Mean squared errors of its bricks and views.
    gradient_norms : tuple of float
        Of means, Cholesky parameters and amplitudes.
    """

    loss: float
    voxel_error: float
    pixel_error: float
    gradient_norms: tuple[float, float, float]


class Bricks:
    """The stack's voxels on a device, and its bricks, padded to the largest.

    Parameters
    ----------
    stack : Stack
        What is fitted.
    bricks : sequence of slices
        Which voxels each holds.
    device : torch.device
        Where to put them.
    """

    def __init__(
        self,
        stack: Stack,
        bricks: Sequence[tuple[slice, slice, slice]],
        device: torch.device,
    ) -> None:
        spacing = np.asarray(stack.spacing, np.float32)
        grids = []
        for brick in bricks:
            origin = np.asarray([s.start for s in brick], np.float32) * spacing
            z, y, x = (s.stop - s.start for s in brick)
            grids.append(Grid(origin, spacing, (z, y, x)))
        self.grids = cuda.Grids.of(grids, device)
        targets = np.zeros((len(bricks), *self.grids.shape), np.float32)
        inside = np.zeros(targets.shape, bool)
        for n, (brick, grid) in enumerate(zip(bricks, grids, strict=True)):
            z, y, x = grid.shape
            targets[n, :z, :y, :x] = stack.voxels[brick]
            inside[n, :z, :y, :x] = True
        self.voxels = torch.from_numpy(stack.voxels).to(device)
        self.targets = torch.from_numpy(targets).to(device)
        self.inside = torch.from_numpy(inside).to(device)


class Pixels:
    """All training views on a device, padded to the largest.

    Parameters
    ----------
    views : sequence of View
        What is trained on.
    spline : SplineVolume or None
        Of the stack, whose value where the field is largest is a pixel's target; without it, the
        stack's own maximum is.
    bin_step : float
        Distance in t of the places where the search for a ray's maximum looks.
    weights : sequence of float
        Of each view's loss.
    device : torch.device
        Where to put them.
    """

    def __init__(
        self,
        views: Sequence[View],
        spline: SplineVolume | None,
        bin_step: float,
        weights: Sequence[float],
        device: torch.device,
    ) -> None:
        self.tables = cuda.Views.of([view.rays for view in views], bin_step, device)
        shape = self.tables.shape

        def padded(name: str, dtype: torch.dtype) -> Tensor:
            all_views = torch.zeros(shape, dtype=dtype)
            for n, view in enumerate(views):
                rows, width = view.rays.shape
                all_views[n, :rows, :width] = getattr(view, name)
            return all_views.to(device)

        self.hit = padded("hit", torch.bool)
        self.target = (
            padded("target", torch.float32) if spline is None else cuda.Volume(spline, device)
        )
        self.depths = torch.zeros(shape, dtype=torch.float32, device=device)
        self.shapes = [view.rays.shape for view in views]
        self.weights = torch.tensor(weights, dtype=torch.float32, device=device)
        self.windows = torch.stack([_windows(view.rays.shape, shape[1:]) for view in views]).to(
            device
        )


def _windows(own: tuple[int, int], padded: tuple[int, int]) -> Tensor:
    """Return what each of SSIM's windows counts in a padded view: its own alone, all alike."""
    rows, width = (max(0, size - WINDOW + 1) for size in own)
    shares = torch.zeros([max(1, size - WINDOW + 1) for size in padded])
    if rows and width:
        shares[:rows, :width] = 1.0 / (rows * width)
    return shares


class CapturedSteps:
    """Takes steps on what `state` holds.

    On a CUDA device steps of a kind are captured in a graph.

    Parameters
    ----------
    rules : Rules
        What a step does.
    state : State
        What it changes.
    bricks, pixels : Bricks and Pixels, optional
        What it looks at: at least one of them.
    """

    def __init__(
        self, rules: Rules, state: State, bricks: Bricks | None, pixels: Pixels | None
    ) -> None:
        self.rules, self.state = rules, state
        self._bricks, self._pixels = bricks, pixels
        device = state.means.device
        self.graphs = Graphs(device)
        self._rates = torch.zeros(10, device=device)
        self._numbers = torch.full((6,), math.nan, device=device)
        self._chosen: dict[str, Tensor] = {}
        self._free = torch.ones(6, device=device)
        if not rules.full_covariance:
            self._free[list(OFF_DIAGONAL)] = 0.0

    def step(
        self, bricks: Sequence[int], views: Sequence[int], *, rate: float, search: bool
    ) -> None:
        """Take one step; returns when it is on its way.

        Parameters
        ----------
        bricks, views : sequence of int
            Which ones it looks at.
        rate : float
            The optimiser's step size.
        search : bool
            Whether rays' maxima are searched for, or climbed to from where they were last.
        """
        self._rates.fill_(rate)
        self._choose("bricks", bricks)
        self._choose("views", views)
        self.graphs.run((search, len(bricks), len(views)), lambda: self._take(search=search))

    def _choose(self, name: str, which: Sequence[int]) -> None:
        """Put indices where the captured step reads them."""
        key, device = f"{name} {len(which)}", self._rates.device
        if key not in self._chosen:
            self._chosen[key] = torch.zeros(len(which), dtype=torch.int64, device=device)
        self._chosen[name] = self._chosen[key]
        # Each travels with its launch: no host memory that must stay as it is, no wait.
        for place, index in zip(self._chosen[key], which, strict=True):
            place.fill_(int(index))

    def _take(self, *, search: bool) -> None:
        """Take a step by operations on the device alone."""
        state, rules, numbers = self.state, self.rules, self._numbers
        packed = cuda.pack(state.means, state.cholesky, state.amplitudes, state.cutoff)
        moments = torch.zeros(
            (1, len(state.means), cuda.MOMENTS), dtype=torch.float32, device=packed.device
        )
        loss, errors = torch.zeros((), device=packed.device), []
        if self._bricks is not None and len(self._chosen["bricks"]):
            value, error = self._add_voxels(self._bricks, packed, moments)
            loss, errors = loss + value, [error]
            numbers[1].copy_(error)
        if self._pixels is not None and len(self._chosen["views"]):
            value, error = self._add_pixels(self._pixels, packed, moments, search=search)
            loss, errors = loss + value, [*errors, error]
            numbers[2].copy_(error)
        d_means, d_cholesky, d_amplitudes = cuda.unpack_gradient(moments, packed)
        d_cholesky = d_cholesky * self._free
        gradients = (d_means, d_cholesky, d_amplitudes[0])
        cuda.adam_step(
            (state.means, state.cholesky, state.amplitudes),
            gradients,
            (state.first, state.second, state.age),
            self._rates,
        )
        state.cutoff.copy_((rules.cutoff_per_error * errors[0].sqrt()).clamp(*rules.cutoffs))
        numbers[0].copy_(loss)
        for n, gradient in enumerate(gradients):
            numbers[3 + n].copy_(torch.linalg.vector_norm(gradient))

    def _add_voxels(self, bricks: Bricks, packed: Tensor, moments: Tensor) -> tuple[Tensor, Tensor]:
        """Add to `moments` those of the voxels' loss; return it and the mean squared error."""
        which = self._chosen["bricks"]
        evaluation = cuda.GridEvaluation(bricks.grids.select(which))
        prediction = evaluation.forward(packed).requires_grad_()
        inside = bricks.inside.index_select(0, which)
        target = bricks.targets.index_select(0, which)
        shares = 1.0 / inside.flatten(1).sum(1)
        loss = self._mean_loss(prediction, target, inside, shares / len(which))
        (weights,) = torch.autograd.grad(loss, prediction)
        moments += evaluation.backward(packed, weights)
        rate = prediction.detach() + self.state.background
        difference = torch.where(inside, target - rate, 0.0).flatten(1)
        if self.rules.background_rate:
            by_brick = difference.sum(1) * shares
            if self.rules.loss == "poisson":
                trust = 1.0 / (rate + self.rules.zero).clamp(min=DARKEST_RATE)
                trust = torch.where(inside, trust, 0.0).flatten(1)
                by_brick = (difference * trust).sum(1) / trust.sum(1)
            self.state.background.add_(self.rules.background_rate * by_brick.mean())
        return loss.detach(), (difference.square().sum(1) * shares).mean()

    def _add_pixels(
        self, pixels: Pixels, packed: Tensor, moments: Tensor, *, search: bool
    ) -> tuple[Tensor, Tensor]:
        """Add to `moments` those of the views' loss; return it and the mean squared error."""
        which, share = self._chosen["views"], self.rules.ssim_weight
        start = None if search else pixels.depths.index_select(0, which)
        evaluation = cuda.MipEvaluation(pixels.tables.select(which), start=start)
        image = evaluation.forward(packed).requires_grad_()
        hit = pixels.hit.index_select(0, which)
        pixels.depths.index_copy_(0, which, evaluation.depth)
        if isinstance(pixels.target, torch.Tensor):
            target = pixels.target.index_select(0, which)
        else:
            target = evaluation.target_of(pixels.target)
        weights = pixels.weights.index_select(0, which) / len(which)
        each = 1.0 / hit.flatten(1).sum(1)
        loss = (1 - share) * self._mean_loss(image, target, hit, each * weights)
        target = target - self.state.background
        if share:
            blank = torch.where(hit, target, 0.0)
            for n in range(len(which)):
                shares = pixels.windows.index_select(0, which[n : n + 1])[0]
                loss = loss + share * weights[n] * dissimilarity(image[n], blank[n], shares)
        (derivative,) = torch.autograd.grad(loss, image)
        moments += evaluation.backward(packed, torch.where(hit, derivative, 0.0))
        difference = torch.where(hit, target - image.detach(), 0.0).flatten(1)
        return loss.detach(), (difference.square().sum(1) * each).mean()

    def _mean_loss(
        self, prediction: Tensor, target: Tensor, inside: Tensor, weights: Tensor
    ) -> Tensor:
        """Return the sum over n of weights[n] times the sum of the loss of part n inside.

        The prediction is without the background, the target as it was recorded.
        """
        total = torch.zeros((), device=prediction.device)
        offset = self.state.background + self.rules.zero
        for n in range(len(prediction)):
            seen = torch.where(inside[n], prediction[n] + offset, BLANK)
            known = torch.where(inside[n], target[n] + self.rules.zero, BLANK)
            mean = LOSSES[self.rules.loss](seen, known)
            total = total + weights[n] * inside[n].numel() * mean
        return total

    def depth(self, n: int) -> Tensor:
        """Return where training view n's maxima were last, [H, W]: the steps' own memory."""
        if self._pixels is None:
            message = "these steps look at no views"
            raise ValueError(message)
        rows, width = self._pixels.shapes[n]
        return self._pixels.depths[n, :rows, :width]

    def widen(self, spacing: Tensor, narrowest: float) -> None:
        """Widen Gaussians that are narrower than voxels; see `bounds.widen`."""
        cuda.widen(self.state.cholesky, spacing, narrowest)

    def numbers(self) -> Numbers:
        """Return what the last step found; waits for it."""
        loss, voxels, pixels, *norms = self._numbers.tolist()
        return Numbers(loss, voxels, pixels, (norms[0], norms[1], norms[2]))
