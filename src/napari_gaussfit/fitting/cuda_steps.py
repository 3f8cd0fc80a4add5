"""Steps of a fit on a CUDA device: captured in a graph once, then replayed; nobody waits.

The twin of what `trainer` does on the CPU, on buffers that stay where they are as long as the
number of Gaussians does. Which views and bricks a step looks at are indices in device memory;
losses and norms stay there until they are asked for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_gaussfit._kernels.cuda import backend
from napari_gaussfit._kernels.cuda.graphs import Graphs
from napari_gaussfit._kernels.geometry import Grid
from napari_gaussfit.fitting.losses import DARKEST_RATE, WINDOW, dissimilarity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from napari_gaussfit.model.views import View
    from napari_gaussfit.stacks.stack import Stack

OFF_DIAGONAL = (1, 3, 4)
"""Cholesky parameters that are 0 where axes are kept along z, y, x."""


@dataclass(frozen=True)
class Rules:
    """What steps do; the numbers are `trainer`'s.

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
    farthest : tuple of float
        Where the outermost voxels are centred (z, y, x), beyond which no mean moves; see
        `bounds.confine`.
    zero : float
        What an intensity of 0 lies below the lowest voxel, for a loss that must know; else 0.
    """

    loss: str
    ssim_weight: float
    full_covariance: bool
    background_rate: float
    cutoff_per_error: float
    cutoffs: tuple[float, float]
    farthest: tuple[float, float, float]
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
    background, cutoff : float
        After the step.
    """

    loss: float
    voxel_error: float
    pixel_error: float
    gradient_norms: tuple[float, float, float]
    background: float
    cutoff: float


class Bricks:
    """The stack's voxels and bricks on a device.

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
        starts = np.asarray([[s.start for s in brick] for brick in bricks], np.int32)
        grids = []
        for brick, start in zip(bricks, starts, strict=True):
            z, y, x = (s.stop - s.start for s in brick)
            grids.append(Grid(start.astype(np.float32) * spacing, spacing, (z, y, x)))
        self._grids = backend.Grids.of(grids, device)
        counts = torch.tensor([math.prod(grid.shape) for grid in grids], dtype=torch.float32)
        self.tables = backend.BrickTables(
            torch.from_numpy(stack.voxels).to(device),
            torch.from_numpy(starts).to(device),
            self._grids.shapes,
            counts.to(device),
            torch.ones_like(counts).to(device),
        )

    def select(self, which: Tensor) -> backend.Grids:
        """Return the grids of the bricks that indices choose, on the device."""
        return self._grids if len(self.tables.counts) == 1 else self._grids.select(which)


class Pixels:
    """All training views on a device, padded to the largest.

    Parameters
    ----------
    views : sequence of View
        What is trained on.
    volume : Volume
        The stack's spline.
    follows : bool
        Whether a pixel's target is the stack where the field is largest, or else its maximum.
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
        volume: backend.Volume,
        bin_step: float,
        weights: Sequence[float],
        device: torch.device,
        *,
        follows: bool,
    ) -> None:
        self.tables = backend.Views.of([view.rays for view in views], bin_step, device)
        shape = self.tables.shape
        self.target = volume if follows else backend.maxima(volume, self.tables)
        self.depths = torch.zeros(shape, dtype=torch.float32, device=device)
        self.shapes = [view.rays.shape for view in views]
        self.weights = torch.tensor(weights, dtype=torch.float32, device=device)
        self.counts = torch.tensor(
            [view.pixels for view in views], dtype=torch.float32, device=device
        )

    @cached_property
    def windows(self) -> Tensor:
        """What SSIM's windows count in each view, [V, H - 6, W - 6]."""
        padded = self.depths.shape[1:]
        counted = [_windows(own, (padded[0], padded[1])) for own in self.shapes]
        return torch.stack(counted).to(self.depths.device)


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
        self._chosen: dict[str, Tensor] = {}
        self._known: dict[str, list[int]] = {}
        count = len(state.means)
        self._gradients = tuple(
            torch.full((1, count, *size), math.nan, device=device) for size in ((3,), (6,), ())
        )
        self._losses = backend.Losses(
            darkest=DARKEST_RATE if rules.loss == "poisson" else 0.0,
            zero=rules.zero,
            rules=(rules.background_rate, rules.cutoff_per_error, *rules.cutoffs),
            background=state.background,
            cutoff=state.cutoff,
        )
        if pixels is not None:
            self._importance = (1 - rules.ssim_weight) * pixels.weights
        self._free = torch.ones(6, device=device)
        self._free[list(OFF_DIAGONAL)] = 0.0
        self._farthest = torch.tensor(rules.farthest, dtype=torch.float32, device=device)
        self._nearest = torch.zeros_like(self._farthest)

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
        if self._known.get(key) == list(which):
            return
        self._known[key] = list(which)
        # Each travels with its launch: no host memory that must stay as it is, no wait.
        for place, index in zip(self._chosen[key], which, strict=True):
            place.fill_(int(index))

    def _take(self, *, search: bool) -> None:
        """Take a step by operations on the device alone."""
        state, moments = self.state, []
        packed = backend.pack(state.means, state.cholesky, state.amplitudes, state.cutoff)
        if self._bricks is not None and len(self._chosen["bricks"]):
            moments.append(self._of_voxels(self._bricks, packed))
        if self._pixels is not None and len(self._chosen["views"]):
            of_pixels = self._of_pixels(self._pixels, packed, search=search, first=not moments)
            moments.append(of_pixels)
        backend.unpack_into(sum(moments[1:], moments[0]), packed, self._gradients)
        d_means, d_cholesky, d_amplitudes = (gradient[0] for gradient in self._gradients)
        if not self.rules.full_covariance:
            d_cholesky *= self._free
        backend.adam_step(
            (state.means, state.cholesky, state.amplitudes),
            (d_means, d_cholesky, d_amplitudes),
            (state.first, state.second, state.age),
            self._rates,
        )
        torch.clamp(state.means, self._nearest, self._farthest, out=state.means)

    def _of_voxels(self, bricks: Bricks, packed: Tensor) -> Tensor:
        """Return the moments of the voxels' loss."""
        which = self._chosen["bricks"]
        evaluation = backend.GridEvaluation(bricks.select(which))
        prediction = evaluation.forward(packed)
        weights = self._losses.of_bricks(bricks.tables, which, prediction)
        return evaluation.backward(packed, weights)

    def _of_pixels(self, pixels: Pixels, packed: Tensor, *, search: bool, first: bool) -> Tensor:
        """Return the moments of the views' loss; `first` where no voxels have been looked at."""
        which = self._chosen["views"]
        start = None if search else pixels.depths.index_select(0, which)
        views = backend.selected(pixels.tables, which)
        evaluation = backend.MipEvaluation(views, start=start)
        image = evaluation.forward(packed)
        pixels.depths.index_copy_(0, which, evaluation.depth)
        if isinstance(pixels.target, torch.Tensor):
            known = pixels.target.index_select(0, which)
        else:
            known = evaluation.target_of(pixels.target)
        drawn = backend.Drawn(views, which, pixels.counts, self._importance)
        weights = self._losses.of_views(drawn, known, image, first=first)
        if self.rules.ssim_weight:
            hit = views.near < views.far
            goal = torch.where(hit, known - self.state.background, 0.0)
            weights += torch.where(hit, self._structure(pixels, image, goal), 0.0)
        return evaluation.backward(packed, weights)

    def _structure(self, pixels: Pixels, image: Tensor, goal: Tensor) -> Tensor:
        """Return the derivatives of the views' dissimilarity, which is added to what was found."""
        which, leaf = self._chosen["views"], image.detach().requires_grad_()
        shares = self.rules.ssim_weight * pixels.weights.index_select(0, which) / len(which)
        total = torch.zeros((), device=image.device)
        for n in range(len(which)):
            windows = pixels.windows.index_select(0, which[n : n + 1])[0]
            total = total + shares[n] * dissimilarity(leaf[n], goal[n], windows)
        (derivative,) = torch.autograd.grad(total, leaf)
        self._losses.found[0] += total.detach()
        return derivative

    def depth(self, n: int) -> Tensor:
        """Return where training view n's maxima were last, [H, W]: the steps' own memory."""
        if self._pixels is None:
            message = "these steps look at no views"
            raise ValueError(message)
        rows, width = self._pixels.shapes[n]
        return self._pixels.depths[n, :rows, :width]

    def numbers(self) -> Numbers:
        """Return what the last step found, and where it left background and cutoff.

        Waits for it, once.
        """
        norms = [torch.linalg.vector_norm(gradient) for gradient in self._gradients]
        state = (self.state.background[0], self.state.cutoff[0])
        loss, voxels, pixels, *rest = torch.stack([*self._losses.found, *norms, *state]).tolist()
        return Numbers(loss, voxels, pixels, (rest[0], rest[1], rest[2]), rest[3], rest[4])
