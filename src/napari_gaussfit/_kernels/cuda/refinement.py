"""Refining Gaussians by Fisher scoring on a CUDA device, and sending what that takes.

Blocks of more than a few Gaussians have no room in a thread block's shared memory: they are the
CPU's.
"""

from __future__ import annotations

import math
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


def refine_blocks(
    device: torch.device, scene: BlockScene, most_steps: int, limits: Floats
) -> tuple[Floats, Floats, Floats, Floats]:
    """Refine blocks of Gaussians on a device, and on the CPU those of many.

    Parameters and results are those of `cpu.refinement_kernels.refine_blocks`.
    """
    shapes, amplitudes = scene.gaussians
    channels, count = amplitudes.shape
    sizes = np.diff(scene.members[0]) * (SHAPE + channels) + channels
    after, number = (shapes.copy(), amplitudes.copy()), SHAPE + 2 * channels
    found = np.full((count, number, number), np.nan), np.full((count, 3 + channels), np.nan)
    with room_on(device):
        voxels = torch.from_numpy(scene.voxels).to(device)
    for least, most, kernel in ((0, ONE_GAUSSIAN, refine_one), (ONE_GAUSSIAN, FEW, refine_few)):
        which = np.flatnonzero((sizes > least) & (sizes <= most))
        for begin in range(0, len(which), BATCH):
            some = which[begin : begin + BATCH]
            part = blocks_of(scene, some)
            with room_on(device):
                results = _refine(voxels, part, most, kernel, most_steps, limits)
            scene.backgrounds[some] = part.backgrounds
            _keep(part.members[1], results, (*after, *found))
    rest = np.flatnonzero(sizes > FEW)
    if len(rest):
        part = blocks_of(scene, rest)
        results = own.refine_blocks(part, most_steps, limits)
        scene.backgrounds[rest] = part.backgrounds
        _keep(part.members[1], results, (*after, *found))
    return (*after, *found)


def blocks_of(scene: BlockScene, which: Integers) -> BlockScene:
    """Return some of the blocks, with backgrounds of their own."""
    return scene._replace(
        bounds=scene.bounds[which],
        members=some_of(scene.members, which),
        others=some_of(scene.others, which),
        backgrounds=scene.backgrounds[which],
    )


def _keep(
    ids: Integers,
    results: tuple[Floats, Floats, Floats, Floats],
    kept: tuple[Floats, Floats, Floats, Floats],
) -> None:
    """Take over what was found of some Gaussians."""
    for one, result in zip((0, 2, 3), (results[0], *results[2:]), strict=True):
        kept[one][ids] = result[ids]
    kept[1][:, ids] = results[1][:, ids]


def _refine(
    voxels: torch.Tensor,
    scene: BlockScene,
    most: int,
    kernel: Any,
    most_steps: int,
    limits: Floats,
) -> tuple[Floats, Floats, Floats, Floats]:
    """Refine blocks that have room in a kernel's shared memory, on voxels that are on a device."""
    device, (shapes, amplitudes) = voxels.device, scene.gaussians
    (channels, count), bounds = amplitudes.shape, scene.bounds

    def sent(values: NDArray[Any]) -> torch.Tensor:
        kind = np.float64 if values.dtype.kind == "f" else np.int32
        return torch.from_numpy(np.ascontiguousarray(values, kind)).to(device)

    volumes = channels * np.prod(bounds[:, 1::2] - bounds[:, ::2] + 1, axis=1)
    begins = np.cumsum(volumes) - volumes
    number = SHAPE + 2 * channels
    found = (
        sent(shapes).clone(),
        sent(amplitudes).clone(),
        torch.full((count, number, number), math.nan, dtype=torch.float64, device=device),
        torch.full((count, 3 + channels), math.nan, dtype=torch.float64, device=device),
    )
    inverses = torch.empty((len(bounds), most, most), dtype=torch.float64, device=device)
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
        (floats(device, 3, int(volumes.sum())), inverses),
        found,
    )
    scene.backgrounds[:] = grounds.cpu().numpy()
    centres, heights, covariances, numbers = (one.cpu().numpy() for one in found)
    return centres, heights, covariances, numbers
