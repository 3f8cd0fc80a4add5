"""All of a fit that is on a CUDA device: Gaussians and targets, steps, relocation, looks."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import torch

from napari_gaussfit._kernels.cuda import backend
from napari_gaussfit._kernels.cuda.memory import room_on
from napari_gaussfit.fitting.bounds import farthest_means
from napari_gaussfit.fitting.cuda_held_out import CapturedLooks
from napari_gaussfit.fitting.cuda_relocation import CapturedRelocation
from napari_gaussfit.fitting.cuda_steps import Bricks, CapturedSteps, Pixels, Rules, State
from napari_gaussfit.fitting.objective import CUTOFF_PER_ERROR, CUTOFFS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_gaussfit.fitting.objective import Objective, Tensors


class CapturedFit:
    """A fit's Gaussians, moments and targets on a device, and all that is done with them there.

    Parameters
    ----------
    objective : Objective
        What is fitted, and how.
    gaussians, moments : tuple of Tensor
        Means, Cholesky parameters and amplitudes; the optimiser's first and second moments, and
        ages. Copied to the device.
    device : torch.device
        Which one.
    planes : int
        How many of the stack a relocation looks at.
    most : int
        How many Gaussians it moves at most.

    Attributes
    ----------
    state : State
        What changes.
    steps : CapturedSteps
        Change it.
    """

    def __init__(
        self,
        objective: Objective,
        gaussians: Tensors,
        moments: Tensors,
        device: torch.device,
        *,
        planes: int,
        most: int,
    ) -> None:
        self._objective, self._device = objective, device
        with room_on(device):
            self._build(gaussians, moments, planes, most)

    def _build(self, gaussians: Tensors, moments: Tensors, planes: int, most: int) -> None:
        objective, device = self._objective, self._device
        means, cholesky, amplitudes = (tensor.to(device) for tensor in gaussians)
        first, second, age = (tensor.to(device) for tensor in moments)
        background = torch.full((1,), objective.background, device=device)
        cutoff = torch.full((1,), objective.cutoff, device=device)
        self.state = State(means, cholesky, amplitudes, first, second, age, background, cutoff)
        self._volume = backend.Volume(objective.views.projector.spline, device)
        spacing = objective.stack.spacing
        bricks = Bricks(objective.stack, objective.bricks, device) if objective.has_voxels else None
        pixels = self._pixels(device) if objective.has_projections else None
        self.steps = CapturedSteps(_rules(objective), self.state, bricks, pixels)
        self._spacing = torch.tensor(spacing, dtype=torch.float32, device=device)
        self._relocation: CapturedRelocation | None = None
        if bricks is not None:
            self._relocation = CapturedRelocation(
                self.steps.graphs, self.state, bricks.tables.voxels, spacing, planes, most
            )

    def _pixels(self, device: torch.device) -> Pixels:
        objective = self._objective
        views = [objective.views.view(camera) for camera in objective.views.training]
        weights = [objective.pixel_weight(view) for view in views]
        # With voxels a pixel's target is the stack where the field is largest.
        follows = objective.has_voxels
        step = objective.search_step
        return Pixels(views, self._volume, step, weights, device, follows=follows)

    @cached_property
    def _looks(self) -> CapturedLooks:
        """What a look at a held-out view takes, made at the first."""
        objective = self._objective
        views = [objective.views.view(camera) for camera in objective.views.held_out]
        graphs, step = self.steps.graphs, objective.search_step
        return CapturedLooks(graphs, self.state, self._volume, views, step)

    def step(
        self, bricks: Sequence[int], views: Sequence[int], *, rate: float, search: bool
    ) -> None:
        """Take a step; see `CapturedSteps.step`."""
        with room_on(self._device):
            self.steps.step(bricks, views, rate=rate, search=search)

    def relocate(self, first: int, kept: int) -> None:
        """Relocate, looking at planes from `first` on; the first `kept` Gaussians stay."""
        if self._relocation is not None:
            with room_on(self._device):
                self._relocation(first, kept)

    def widen(self, narrowest: float) -> None:
        """Widen Gaussians that are narrower than voxels; see `bounds.widen`."""
        backend.widen(self.state.cholesky, self._spacing, narrowest)

    def held_out_error(self, n: int) -> float:
        """Return the mean squared error of held-out view n, in working units; waits for it."""
        with room_on(self._device):
            return self._looks.error(n)


def _rules(objective: Objective) -> Rules:
    settings = objective.settings
    return Rules(
        settings.loss,
        settings.ssim_weight,
        settings.full_covariance,
        objective.background_rate,
        CUTOFF_PER_ERROR,
        CUTOFFS,
        farthest_means(objective.stack.shape, objective.stack.spacing),
        objective.zero,
    )
