"""Relocation on a CUDA device: what `relocation` does on the CPU, without a wait for the device.

Which Gaussians move, and where to, is known to the device alone.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_gaussfit._kernels.cuda import backend
from napari_gaussfit.fitting.objective import RESIDUAL_TOLERANCE
from napari_gaussfit.fitting.relocation import (
    APART,
    CLOSE,
    DIMMEST,
    RELOCATED_SHARE,
    SHAPES,
    filters,
    worth,
)
from napari_gaussfit.fitting.seeding import DIMMEST as DIMMEST_SEED
from napari_gaussfit.stacks.statistics import SMOOTHING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from napari_gaussfit._kernels.cuda import Graphs
    from napari_gaussfit.fitting.state import OptimiserState
    from napari_gaussfit.fitting.steps import Slab


class CudaRelocation:
    """Moves Gaussians from where they are hardly missed to where most is missing.

    Parameters
    ----------
    graphs : Graphs
        Graphs in which a relocation is captured.
    state : OptimiserState
        The Gaussians and the optimiser's moments, changed in place.
    voxels : Tensor, shape [C, Z, Y, X]
        The stack's voxels, on the device.
    spacing : sequence of float
        Voxel spacing (dz, dy, dx).
    slab : Slab
        Planes that it looks at, and Gaussians that it moves at most.
    """

    def __init__(
        self,
        graphs: Graphs,
        state: OptimiserState,
        voxels: Tensor,
        spacing: Sequence[float],
        slab: Slab,
    ) -> None:
        self._graphs, self._state, self._voxels = graphs, state, voxels
        self._spacing, self._planes, self._most = tuple(spacing), slab.planes, slab.most
        self._device = voxels.device
        self._kept, self._close = self._whole(0), self._doubles(CLOSE)
        self._scale = self._doubles((2 * math.pi) ** 1.5 / math.prod(spacing))
        self._filters = filters_on(spacing, self._device)
        self._smoothing = smoothing_on(self._device)
        self._make_slab()

    def _whole(self, *numbers: int) -> Tensor:
        return torch.tensor(numbers, dtype=torch.int32, device=self._device)

    def _doubles(self, *numbers: float) -> Tensor:
        return torch.tensor(numbers, dtype=torch.float64, device=self._device)

    def _make_slab(self) -> None:
        """Make the tables of as many planes as are looked at."""
        shape = (self._planes, *self._voxels.shape[2:])
        origins = torch.tensor([[0.0, 0.0, 0.0, *self._spacing]], device=self._device)
        whole = self._whole(*shape)
        self._grids = backend.Grids(origins, whole[None], shape)
        self._slab = backend.Slab(self._whole(0), whole, self._doubles(*self._spacing))

    def __call__(self, first: int, kept: int) -> None:
        """Relocate, looking at planes from `first` on; the first `kept` Gaussians stay.

        Returns when it is on its way. Where the device has no room, fewer planes are looked at
        from then on, and as many fewer Gaussians moved.
        """
        if not self._most or len(self._state.means) < 2:
            return
        while not self._has_looked_from(first, kept):
            self._graphs.forget("relocation")
            self._planes, self._most = self._planes // 2, max(1, self._most // 2)
            self._make_slab()

    def _has_looked_from(self, first: int, kept: int) -> bool:
        """Relocate; False where the device has no room, but may have for fewer planes."""
        self._slab.first.fill_(first)
        self._kept.fill_(kept)
        self._grids.origins[0, 0].fill_(first * self._spacing[0])
        try:
            self._graphs.run("relocation", self._relocate)
        except torch.OutOfMemoryError:
            if self._planes == 1:
                raise
            return False
        return True

    def _relocate(self) -> None:
        state = self._state
        packed = backend.pack(*state.gaussians, RESIDUAL_TOLERANCE * state.amplitudes.amax(1))
        prediction = backend.GridEvaluation(self._grids).forward(packed)
        residual = backend.missing(self._voxels, self._slab.first, state.background, prediction)
        # Of several channels the sum of residuals counts, and of a Gaussian all of its light.
        total, heights = residual[0], state.amplitudes[0]
        if len(residual) > 1:
            total, heights = residual.sum(0), torch.linalg.vector_norm(state.amplitudes, dim=0)
        gaussians = (state.means, state.cholesky, heights)
        sites = backend.sites(total, self._filters, self._most)
        costs, neighbours, shares = backend.removal_costs(*gaussians, self._scale)
        leaving = backend.leaving(
            costs, sites.gains, (neighbours, shares), (self._kept, self._close), gaussians[2]
        )
        least = (DIMMEST * heights.amax()).reshape(1)
        backend.put_down(leaving, sites, self._slab, self._filters, least, gaussians, state.moments)
        if len(residual) > 1:
            backend.light(
                leaving,
                sites,
                residual,
                self._smoothing,
                (RELOCATED_SHARE, DIMMEST_SEED),
                heights,
                state.amplitudes,
            )


def smoothing_on(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return the weights of `statistics.smoothed` along z, y and x, on a device."""
    made = []
    for sigma in SMOOTHING:
        reach = int(4 * sigma + 0.5)
        weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
        made.append(torch.from_numpy((weights / weights.sum()).astype(np.float32)).to(device))
    return made[0], made[1], made[2]


def filters_on(spacing: Sequence[float], device: torch.device) -> backend.Filters:
    """Return the filters of `relocation` on a device.

    Parameters
    ----------
    spacing : sequence of float
        Voxel spacing (dz, dy, dx).
    device : torch.device
        CUDA device to put them on.

    Returns
    -------
    Filters
        Those of all `SHAPES`.
    """
    cholesky = np.zeros((len(SHAPES), 6), np.float32)
    cholesky[:, [0, 2, 5]] = np.log(np.asarray(SHAPES) * np.asarray(spacing, np.float64))
    all_along = []
    for shape in SHAPES:
        z, y, x = (torch.from_numpy(weights).to(device) for weights in filters(shape))
        all_along.append((z, y, x))
    return backend.Filters(
        all_along,
        torch.tensor([float(worth(shape)) for shape in SHAPES], device=device),
        torch.from_numpy(cholesky).to(device),
        torch.tensor(APART, dtype=torch.int32, device=device),
    )
