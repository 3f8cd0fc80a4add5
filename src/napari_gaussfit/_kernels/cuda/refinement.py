"""Refining Gaussians by Fisher scoring on a CUDA device, and sending what that takes.

Blocks of more than a few Gaussians have no room in a thread block's shared memory: they are the
CPU's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_gaussfit._kernels.cpu import refinement_kernels as own
from napari_gaussfit._kernels.cpu.information_kernels import SHAPE
from napari_gaussfit._kernels.cpu.refinement_kernels import some_of
from napari_gaussfit._kernels.cuda import room_on
from napari_gaussfit._kernels.cuda.device import floats, launch
from napari_gaussfit._kernels.cuda.refinement_kernels import (
    FEW,
    ONE_GAUSSIAN,
    THREADS,
    refine_few,
    refine_one,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_gaussfit._kernels.cpu.refinement_kernels import BlockScene

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]

MOST = 4
"""Gaussians, of one channel, that are refined together here."""

BATCH = 1 << 14
"""Blocks of a launch: each has some kilobytes of a device's memory meanwhile."""


class Refiner:
    """Refines blocks of Gaussians on a device, to which it sends a stack once.

    Parameters
    ----------
    device : torch.device
        A CUDA device, or the CPU where one is simulated.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._sent: tuple[NDArray[np.float32], torch.Tensor] | None = None

    def __call__(
        self, scene: BlockScene, most_steps: int, limits: Floats
    ) -> tuple[Floats, Floats, Floats, Floats]:
        """Refine blocks of Gaussians on the device, and on the CPU those of many.

        Parameters and results are those of `cpu.refinement_kernels.refine_blocks`.
        """
        shapes, amplitudes = scene.gaussians
        channels, count = amplitudes.shape
        sizes = np.diff(scene.members[0]) * (SHAPE + channels) + channels
        after, number = (shapes.copy(), amplitudes.copy()), SHAPE + 2 * channels
        found = np.full((count, number, number), np.nan), np.full((count, 3 + channels), np.nan)
        voxels = self._there(scene.voxels)
        for least, most, kernel in ((0, ONE_GAUSSIAN, refine_one), (ONE_GAUSSIAN, FEW, refine_few)):
            which = np.flatnonzero((sizes > least) & (sizes <= most))
            for begin in range(0, len(which), BATCH):
                some = which[begin : begin + BATCH]
                part, ids = blocks_alone(scene, some)
                with room_on(self._device):
                    results = _refine(voxels, part, most, kernel, most_steps, limits)
                scene.backgrounds[some] = part.backgrounds
                _keep(ids, results, (*after, *found))
        rest = np.flatnonzero(sizes > FEW)
        if len(rest):
            part, ids = blocks_alone(scene, rest)
            results = own.refine_blocks(part, most_steps, limits)
            scene.backgrounds[rest] = part.backgrounds
            _keep(ids, results, (*after, *found))
        return (*after, *found)

    def _there(self, voxels: NDArray[np.float32]) -> torch.Tensor:
        """Return voxels on the device: a measurement asks for those of one stack many times."""
        if self._sent is None or self._sent[0] is not voxels:
            with room_on(self._device):
                self._sent = voxels, torch.from_numpy(voxels).to(self._device)
        return self._sent[1]


def blocks_alone(scene: BlockScene, which: Integers) -> tuple[BlockScene, Integers]:
    """Return some of the blocks by themselves, with backgrounds of their own.

    Parameters
    ----------
    scene : BlockScene
        The scene of all blocks, which stays as it is.
    which : ndarray of int, shape [b]
        Which blocks are wanted, by their numbers.

    Returns
    -------
    scene : BlockScene
        With those Gaussians alone that are in these blocks, which come first, or that reach them.
    ids : ndarray of int
        Which of all Gaussians those in these blocks are.
    """
    (starts, members), (other_starts, others) = (
        some_of(lists, which) for lists in (scene.members, scene.others)
    )
    ids = np.concatenate([members, np.setdiff1d(others, members)])
    order = np.argsort(ids)
    places = order[np.searchsorted(ids, others, sorter=order)]
    shapes, amplitudes = scene.gaussians
    alone = scene._replace(
        bounds=scene.bounds[which],
        windows=scene.windows[ids],
        members=(starts, np.arange(len(members))),
        others=(other_starts, places),
        gaussians=(shapes[ids], amplitudes[:, ids]),
        backgrounds=scene.backgrounds[which],
    )
    return alone, members


def _keep(
    ids: Integers,
    results: tuple[Floats, Floats, Floats, Floats],
    kept: tuple[Floats, Floats, Floats, Floats],
) -> None:
    """Take over what was found of some Gaussians: the first of `results`."""
    for one, result in zip((0, 2, 3), (results[0], *results[2:]), strict=True):
        kept[one][ids] = result[: len(ids)]
    kept[1][:, ids] = results[1][:, : len(ids)]


def _refine(
    voxels: torch.Tensor,
    scene: BlockScene,
    most: int,
    kernel: Any,
    most_steps: int,
    limits: Floats,
) -> tuple[Floats, Floats, Floats, Floats]:
    """Refine blocks that have room in a kernel's shared memory, on voxels that are on a device.

    What is returned has the Gaussians of the blocks alone, which come first in the scene.
    """
    device, (shapes, amplitudes) = voxels.device, scene.gaussians
    channels, count, bounds = len(amplitudes), len(scene.members[1]), scene.bounds

    def sent(values: NDArray[Any]) -> torch.Tensor:
        kind = np.float64 if values.dtype.kind == "f" else np.int32
        return torch.from_numpy(np.ascontiguousarray(values, kind)).to(device)

    volumes = channels * np.prod(bounds[:, 1::2] - bounds[:, ::2] + 1, axis=1)
    begins = np.cumsum(volumes) - volumes
    number = SHAPE + 2 * channels

    def room(*shape: int) -> torch.Tensor:
        return torch.empty(shape, dtype=torch.float64, device=device)

    found = (
        room(count, SHAPE),
        room(channels, count),
        room(count, number, number),
        room(count, 3 + channels),
    )
    grounds = sent(scene.backgrounds)
    launch(
        kernel,
        (len(bounds),),
        THREADS,
        voxels,
        sent(begins),
        (sent(bounds), sent(scene.windows)),
        (sent(scene.members[0]), sent(scene.members[1])),
        (sent(scene.others[0]), sent(scene.others[1])),
        (sent(shapes), sent(amplitudes), grounds),
        (sent(scene.noise), sent(limits), np.int32(most_steps)),
        (floats(device, 3, int(volumes.sum())), room(len(bounds), most, most)),
        found,
    )
    scene.backgrounds[:] = grounds.cpu().numpy()
    centres, heights, covariances, numbers = (one.cpu().numpy() for one in found)
    return centres, heights, covariances, numbers
