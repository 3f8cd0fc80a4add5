"""Held-out views of a fit on a CUDA device, of which each look finds a number."""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING

import torch

from napari_gaussfit._kernels.cuda import backend
from napari_gaussfit.fitting.steps import decibels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_gaussfit._kernels.cuda import Graphs
    from napari_gaussfit.fitting.state import OptimiserState
    from napari_gaussfit.model.views import View


class HeldOutViews:
    """Held-out views on a device, padded to the largest; their targets are made there.

    Parameters
    ----------
    graphs : Graphs
        Graphs in which the look at a view is captured.
    state : OptimiserState
        The Gaussians that are looked at.
    volumes : sequence of Volume
        Spline coefficients of the stack in each channel, on the device.
    views : sequence of View
        The held-out views, in the order of their targets.
    bin_step : float
        Distance in t between the places at which the search for a ray's maximum looks.
    """

    def __init__(
        self,
        graphs: Graphs,
        state: OptimiserState,
        volumes: Sequence[backend.Volume],
        views: Sequence[View],
        bin_step: float,
    ) -> None:
        self._graphs, self._state = graphs, state
        device = state.means.device
        self._tables = backend.Views.of([view.rays for view in views], bin_step, device)
        self._targets = torch.stack([backend.maxima(v, self._tables) for v in volumes])
        pixels = [view.pixels for view in views]
        self._pixels = torch.tensor(pixels, dtype=torch.float32, device=device)
        self._which = torch.zeros(1, dtype=torch.int64, device=device)
        self._errors = torch.zeros(len(volumes), device=device)

    def psnr(self, n: int) -> float:
        """Return the PSNR in dB of view n, the mean over the channels; waits for it."""
        self._which.fill_(n)
        self._graphs.run("held-out view", self._look)
        return fmean(map(decibels, self._errors.tolist()))

    def _look(self) -> None:
        state, which = self._state, self._which
        views = backend.selected(self._tables, which)
        packed = backend.pack(*state.gaussians, state.cutoff)
        image = backend.MipEvaluation(views).forward(packed) + state.background[:, None, None]
        [target] = self._targets.index_select(1, which).unbind(1)
        lacks = torch.where(views.near < views.far, target - image, 0.0)
        self._errors.copy_(lacks.square().sum((1, 2)) / self._pixels.index_select(0, which))
