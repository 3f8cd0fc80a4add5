"""Held-out views of a fit on a CUDA device, of which each look finds a number."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from napari_gaussfit._kernels.cuda import backend

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
    volume : Volume
        Spline coefficients of the stack, on the device.
    views : sequence of View
        The held-out views, in the order of their targets.
    bin_step : float
        Distance in t between the places at which the search for a ray's maximum looks.
    """

    def __init__(
        self,
        graphs: Graphs,
        state: OptimiserState,
        volume: backend.Volume,
        views: Sequence[View],
        bin_step: float,
    ) -> None:
        self._graphs, self._state = graphs, state
        device = state.means.device
        self._tables = backend.Views.of([view.rays for view in views], bin_step, device)
        self._targets = backend.maxima(volume, self._tables)
        pixels = [view.pixels for view in views]
        self._pixels = torch.tensor(pixels, dtype=torch.float32, device=device)
        self._which = torch.zeros(1, dtype=torch.int64, device=device)
        self._error = torch.zeros(1, device=device)

    def error(self, n: int) -> float:
        """Return the mean squared error of view n, in working units; waits for it."""
        self._which.fill_(n)
        self._graphs.run("held-out view", self._look)
        return self._error.item()

    def _look(self) -> None:
        state, which = self._state, self._which
        views = backend.selected(self._tables, which)
        packed = backend.pack(*state.gaussians, state.cutoff)
        image = backend.MipEvaluation(views).forward(packed) + state.background
        lacks = torch.where(
            views.near < views.far, self._targets.index_select(0, which) - image, 0.0
        )
        self._error.copy_(lacks.square().sum() / self._pixels.index_select(0, which))
