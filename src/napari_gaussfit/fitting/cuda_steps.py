"""Steps of a fit on a CUDA device: captured in a graph once, then replayed; nobody waits.

`CudaSteps` is the sibling of `steps.CpuSteps`, on buffers that stay where they are as long as the
number of Gaussians does. Which views and bricks a step looks at are indices in device memory;
losses and norms stay there until they are asked for.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cached_property
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_gaussfit._kernels.cuda import Graphs, backend, room_on
from napari_gaussfit._kernels.geometry import Grid
from napari_gaussfit.fitting.bounds import confine, hold_axes, keep_above
from napari_gaussfit.fitting.cuda_held_out import HeldOutViews
from napari_gaussfit.fitting.cuda_relocation import CudaRelocation
from napari_gaussfit.fitting.losses import DARKEST_RATE, WINDOW, dissimilarity
from napari_gaussfit.fitting.objective import CUTOFF_PER_ERROR, CUTOFFS
from napari_gaussfit.fitting.steps import StepResult, decibels, recount_state

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from napari_gaussfit.fitting.objective import Drawn, Objective
    from napari_gaussfit.fitting.optimisers import Optimiser
    from napari_gaussfit.fitting.state import OptimiserState
    from napari_gaussfit.fitting.steps import Slab
    from napari_gaussfit.stacks.stack import Stack


class BrickTargets:
    """The stack's voxels on a device, and the bricks in which steps look at them.

    Parameters
    ----------
    stacks : sequence of Stack
        The channels in working units.
    bricks : sequence of slices
        Voxels of each brick.
    device : torch.device
        CUDA device to put them on.
    """

    def __init__(
        self,
        stacks: Sequence[Stack],
        bricks: Sequence[tuple[slice, slice, slice]],
        device: torch.device,
    ) -> None:
        spacing = np.asarray(stacks[0].spacing, np.float32)
        starts = np.asarray([[s.start for s in brick] for brick in bricks], np.int32)
        grids = []
        for brick, start in zip(bricks, starts, strict=True):
            z, y, x = (s.stop - s.start for s in brick)
            grids.append(Grid(start.astype(np.float32) * spacing, spacing, (z, y, x)))
        self._grids = backend.Grids.of(grids, device)
        counts = torch.tensor([math.prod(grid.shape) for grid in grids], dtype=torch.float32)
        self.tables = backend.BrickTables(
            _together([torch.from_numpy(stack.voxels) for stack in stacks], device),
            torch.from_numpy(starts).to(device),
            self._grids.shapes,
            counts.to(device),
            torch.ones_like(counts).to(device),
        )

    def select(self, which: Tensor) -> backend.Grids:
        """Return the grids of the bricks with indices [N], on the device."""
        return self._grids if len(self.tables.counts) == 1 else self._grids.select(which)


def _together(volumes: Sequence[Tensor], device: torch.device) -> Tensor:
    """Return volumes as one tensor on a device, each sent there by itself."""
    if len(volumes) == 1:
        return volumes[0][None].to(device)
    whole = torch.empty((len(volumes), *volumes[0].shape), dtype=torch.float32, device=device)
    for place, volume in zip(whole, volumes, strict=True):
        place.copy_(volume)
    return whole


class ViewTargets:
    """The training views on a device, padded to the largest.

    Parameters
    ----------
    objective : Objective
        The loss, of which these are the targets.
    volumes : sequence of Volume
        Spline coefficients of the stack in each channel, on the device.
    device : torch.device
        CUDA device to put them on.
    """

    def __init__(
        self, objective: Objective, volumes: Sequence[backend.Volume], device: torch.device
    ) -> None:
        views = [objective.views.view(camera) for camera in objective.views.training]
        weights = [objective.pixel_weight(view) for view in views]
        rays = [view.rays for view in views]
        self.tables = backend.Views.of(rays, objective.search_step, device)
        # With voxels a pixel's target is the stack where the field is largest, else its maximum.
        self._volumes, self._maxima = volumes, None
        if not objective.has_voxels:
            self._maxima = torch.stack([backend.maxima(v, self.tables) for v in volumes])
        shape = (len(volumes), *self.tables.shape)
        self.depths = torch.zeros(shape, dtype=torch.float32, device=device)
        self.shapes = [view.rays.shape for view in views]
        self.weights = torch.tensor(weights, dtype=torch.float32, device=device)
        self.counts = torch.tensor(
            [view.pixels for view in views], dtype=torch.float32, device=device
        )

    @cached_property
    def windows(self) -> Tensor:
        """The weight of each of SSIM's windows in each view, [V, H - 6, W - 6]."""
        padded = self.depths.shape[2:]
        counted = [_windows(shape, (padded[0], padded[1])) for shape in self.shapes]
        return torch.stack(counted).to(self.depths.device)

    @cached_property
    def edges(self) -> tuple[Tensor, Tensor] | None:
        """Matrices that continue views by their last row and column [V, H or 7, H], [V, W or 7, W].

        None where no view is narrower than one of SSIM's windows.
        """
        if min(map(min, self.shapes)) >= WINDOW:
            return None
        found = []
        for axis, size in enumerate(self.depths.shape[2:]):
            places = torch.arange(max(size, WINDOW))
            whole = torch.stack(
                [torch.eye(size)[places.clamp(max=shape[axis] - 1)] for shape in self.shapes]
            )
            found.append(whole.to(self.depths.device))
        return found[0], found[1]

    def depths_of(self, which: Tensor) -> Tensor:
        """Return where views [N] were last found largest in each channel [C N, H, W]."""
        return self.depths.index_select(1, which).flatten(0, 1)

    def of(self, which: Tensor, evaluation: backend.MipEvaluation) -> Tensor:
        """Return the targets [C N, H, W] of views that have just been looked at."""
        shape = (len(self.depths), len(which), *self.depths.shape[2:])
        self.depths.index_copy_(1, which, evaluation.depth.reshape(shape))
        if self._maxima is not None:
            return self._maxima.index_select(1, which).flatten(0, 1)
        return evaluation.target_of(self._volumes)


def _windows(shape: tuple[int, int], padded: tuple[int, int]) -> Tensor:
    """Return the weight of each of SSIM's windows in a padded view: even, 0 outside the view."""
    rows, width = (max(1, size - WINDOW + 1) for size in shape)
    shares = torch.zeros([max(1, size - WINDOW + 1) for size in padded])
    shares[:rows, :width] = 1.0 / (rows * width)
    return shares


class CudaSteps:
    """Takes steps on a CUDA device, where steps of a kind are captured in a graph.

    Parameters
    ----------
    objective : Objective
        The loss that steps minimise.
    state : OptimiserState
        The Gaussians and the optimiser's moments, on the device; changed in place.
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
        self._device = state.means.device
        self._bricks: BrickTargets | None = None
        self._views: ViewTargets | None = None
        with room_on(self._device):
            self._load_targets()
            self._build()

    def _load_targets(self) -> None:
        """Put what steps look at on the device."""
        objective, device = self._objective, self._device
        channels, spacing = objective.channels, objective.stack.spacing
        self._volumes = [backend.Volume(c.views.projector.spline, device) for c in channels]
        self._spacing = torch.tensor(spacing, dtype=torch.float32, device=device)
        if objective.has_voxels:
            stacks = [channel.stack for channel in channels]
            self._bricks = BrickTargets(stacks, objective.bricks, device)
        if objective.has_projections:
            self._views = ViewTargets(objective, self._volumes, device)
            self._importance = (1 - objective.settings.ssim_weight) * self._views.weights

    def _build(self) -> None:
        """Make what knows the memory of the Gaussians; graphs are captured anew."""
        objective, state, device = self._objective, self.state, self._device
        settings = objective.settings
        self.graphs = Graphs(device)
        self._relocation: CudaRelocation | None = None
        self._held_out: HeldOutViews | None = None
        if self._bricks is not None:
            voxels, spacing = self._bricks.tables.voxels, objective.stack.spacing
            self._relocation = CudaRelocation(self.graphs, state, voxels, spacing, self._slab)
        self._losses = backend.Losses(
            darkest=DARKEST_RATE if settings.loss == "poisson" else 0.0,
            zero=[channel.zero for channel in objective.channels],
            rules=(objective.background_rate, CUTOFF_PER_ERROR, *CUTOFFS),
            background=state.background,
            cutoff=state.cutoff,
        )
        self._rates = torch.zeros(state.first.shape[1], device=device)
        self._chosen: dict[str, Tensor] = {}
        self._known: dict[str, list[int]] = {}
        shape = state.amplitudes.shape
        self._gradients = tuple(
            torch.full((*shape, *size), math.nan, device=device) for size in ((3,), (6,), ())
        )
        self._found = StepResult()

    def _held_out_views(self) -> HeldOutViews:
        """Return the held-out views, which take memory when one is first looked at."""
        if self._held_out is None:
            objective = self._objective
            views = [objective.views.view(camera) for camera in objective.views.held_out]
            self._held_out = HeldOutViews(
                self.graphs, self.state, self._volumes, views, objective.search_step
            )
        return self._held_out

    def take(self, drawn: Drawn, rate: float) -> None:
        """Take a step; returns when it is on its way. See `Steps.take`."""
        with room_on(self._device):
            self._rates.fill_(rate)
            self._choose("bricks", drawn.bricks)
            self._choose("views", drawn.views)
            kind = drawn.search, len(drawn.bricks), len(drawn.views)
            self.graphs.run(kind, lambda: self._take(search=drawn.search))

    def _choose(self, name: str, which: Sequence[int]) -> None:
        """Put indices where the captured step reads them."""
        key, device = f"{name} {len(which)}", self._device
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
        state, stack, moments = self.state, self._objective.stack, []
        packed = backend.pack(*state.gaussians, state.cutoff)
        if self._bricks is not None and len(self._chosen["bricks"]):
            moments.append(self._add_voxels(self._bricks, packed))
        if self._views is not None and len(self._chosen["views"]):
            first = not moments
            moments.append(self._add_pixels(self._views, packed, search=search, first=first))
        backend.unpack_into(sum(moments[1:], moments[0]), packed, self._gradients)
        gradients = self._summed()
        if not self._objective.settings.full_covariance:
            hold_axes(gradients[1])
        self._optimiser(state, gradients, self._rates)
        confine(state.means, stack.shape, stack.spacing)

    def _summed(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients, those by means and widths summed over the channels."""
        means, cholesky, amplitudes = self._gradients
        if len(amplitudes) == 1:
            return means[0], cholesky[0], amplitudes
        for gradient in (means, cholesky):
            gradient[0] = gradient.sum(0)
        return means[0], cholesky[0], amplitudes

    def _add_voxels(self, bricks: BrickTargets, packed: Tensor) -> Tensor:
        """Return the moments of the voxels' loss."""
        which = self._chosen["bricks"]
        evaluation = backend.GridEvaluation(bricks.select(which))
        prediction = evaluation.forward(packed)
        weights = self._losses.of_bricks(bricks.tables, which, prediction)
        return evaluation.backward(packed, weights)

    def _add_pixels(
        self, targets: ViewTargets, packed: Tensor, *, search: bool, first: bool
    ) -> Tensor:
        """Return the moments of the views' loss; `first` where no voxels have been looked at."""
        which = self._chosen["views"]
        start = None if search else targets.depths_of(which)
        views = backend.selected(targets.tables, which)
        evaluation = backend.MipEvaluation(views, start=start)
        image = evaluation.forward(packed)
        known = targets.of(which, evaluation)
        drawn = backend.Drawn(views, which, targets.counts, self._importance)
        weights = self._losses.of_views(drawn, known, image, first=first)
        if self._objective.settings.ssim_weight:
            channels = len(self.state.background)
            hit = (views.near < views.far).repeat(channels, 1, 1)
            background = self.state.background.repeat_interleave(len(which))[:, None, None]
            goal = torch.where(hit, known - background, 0.0)
            weights += torch.where(hit, self._add_dissimilarity(targets, image, goal), 0.0)
        return evaluation.backward(packed, weights)

    def _add_dissimilarity(self, targets: ViewTargets, image: Tensor, goal: Tensor) -> Tensor:
        """Return the derivatives of the views' 1 - SSIM, which is added to the loss."""
        which, leaf = self._chosen["views"], image.detach().requires_grad_()
        weight = self._objective.settings.ssim_weight
        shares = weight * targets.weights.index_select(0, which) / len(which)
        total = torch.zeros((), device=image.device)
        for n in range(len(image)):
            view = n % len(which)
            own, pair = which[view : view + 1], (leaf[n], goal[n])
            if targets.edges is not None:
                rows, columns = (edge.index_select(0, own)[0] for edge in targets.edges)
                pair = (rows @ pair[0] @ columns.T, rows @ pair[1] @ columns.T)
            windows = targets.windows.index_select(0, own)[0]
            total = total + shares[view] * dissimilarity(*pair, windows)
        (derivative,) = torch.autograd.grad(total, leaf)
        self._losses.found[0, 0] += total.detach()
        return derivative

    def found(self, *, due: bool) -> StepResult:
        """Return what the last step found; waits for it where it is due. See `Steps.found`."""
        if not due:
            return replace(self._found, train_psnr=math.nan, voxel_psnr=math.nan)
        # What steps leave: of several channels, sums stand in the first channel's place.
        means, cholesky, amplitudes = self._gradients
        norms = [torch.linalg.vector_norm(g) for g in (means[0], cholesky[0], amplitudes)]
        values = torch.cat([self._losses.found.flatten(), torch.stack(norms)]).tolist()
        (d_means, d_cholesky, d_amplitudes), found = values[-3:], values[:-3]
        self._found = StepResult(
            sum(found[::3]),
            fmean(map(decibels, found[2::3])),
            fmean(map(decibels, found[1::3])),
            (d_means, d_cholesky, d_amplitudes),
        )
        return self._found

    def widen(self, narrowest: float) -> None:
        """Widen Gaussians that are narrower than so many voxels; see `bounds.widen`."""
        backend.widen(self.state.cholesky, self._spacing, narrowest)

    def keep_above(self, floor: Tensor) -> None:
        """Widen Gaussians that are narrower than `floor`; see `bounds.keep_above`."""
        widths = torch.diagonal(floor).clone()
        if torch.equal(floor, torch.diag(widths)):
            # Along z, y and x it is what voxels are to `widen`, by which nobody waits.
            backend.widen(self.state.cholesky, widths.to(self._device), 1.0)
        else:
            keep_above(self.state.cholesky, floor.to(self._device))

    def relocate(self, first: int, kept: int) -> None:
        """Relocate Gaussians, looking at planes from `first` on; the first `kept` stay."""
        if self._relocation is not None:
            with room_on(self._device):
                self._relocation(first, kept)

    def recount(self, first: int, kept: int, room: int, floor: Tensor | None = None) -> int:
        """Add Gaussians and take some away, on the CPU; waits for the device. See `Steps.recount`.

        Steps are captured anew for another number of Gaussians.
        """
        state = self.state.to(torch.device("cpu"))
        before = state.means
        waiting = recount_state(self._objective, state, self._slab, first, kept, room, floor)
        if state.means is not before:
            self.state = state.to(self._device)
            with room_on(self._device):
                self._build()
        return waiting

    def look(self, n: int) -> float:
        """Return the PSNR in dB of held-out view n; waits for it."""
        with room_on(self._device):
            return self._held_out_views().psnr(n)

    def depths(self, n: int) -> Tensor:
        """Return where on training view n's rays each channel was last largest [C, H, W], in t."""
        if self._views is None:
            message = "these steps look at no views"
            raise ValueError(message)
        rows, width = self._views.shapes[n]
        return self._views.depths[:, n, :rows, :width]

    def set_depths(self, n: int, depths: Tensor) -> None:
        """Set what `depths` returns."""
        self.depths(n).copy_(depths)
