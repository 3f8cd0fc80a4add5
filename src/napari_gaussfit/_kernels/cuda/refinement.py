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

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]

MOST = 4
"""Gaussians, of one channel, that are refined together here."""

BATCH = 1 << 14
"""Blocks of a launch: each has some kilobytes of a device's memory meanwhile."""


def refine_blocks(
    device: torch.device,
    voxels: NDArray[np.float32],
    bounds: Integers,
    windows: Integers,
    members: tuple[Integers, Integers],
    others: tuple[Integers, Integers],
    before: tuple[Floats, Floats],
    backgrounds: Floats,
    noise: Floats,
    most_steps: int,
    limits: Floats,
) -> tuple[Floats, Floats, Floats, Floats]:
    """Refine blocks of Gaussians on a device, and on the CPU those of many.

    Parameters and results are those of `cpu.refinement_kernels.refine_blocks`.
    """
    channels, count = before[1].shape
    sizes = np.diff(members[0]) * (SHAPE + channels) + channels
    after, number = (before[0].copy(), before[1].copy()), SHAPE + 2 * channels
    found = np.full((count, number, number), np.nan), np.full((count, 3 + channels), np.nan)
    with room_on(device):
        on_device = torch.from_numpy(voxels).to(device)
    for least, most, kernel in ((0, ONE_GAUSSIAN, refine_one), (ONE_GAUSSIAN, FEW, refine_few)):
        which = np.flatnonzero((sizes > least) & (sizes <= most))
        for begin in range(0, len(which), BATCH):
            some = which[begin : begin + BATCH]
            parts = bounds[some], some_of(members, some), some_of(others, some)
            grounds = backgrounds[some]
            with room_on(device):
                results = _refine(
                    on_device,
                    most,
                    kernel,
                    *parts,
                    grounds,
                    windows,
                    before,
                    (noise, limits),
                    most_steps,
                )
            backgrounds[some] = grounds
            _keep(parts[1][1], results, (*after, *found))
    rest = np.flatnonzero(sizes > FEW)
    if len(rest):
        parts = bounds[rest], some_of(members, rest), some_of(others, rest)
        grounds = backgrounds[rest]
        results = own.refine_blocks(
            voxels, parts[0], windows, *parts[1:], before, grounds, noise, most_steps, limits
        )
        backgrounds[rest] = grounds
        _keep(parts[1][1], results, (*after, *found))
    return (*after, *found)


def some_of(lists: tuple[Integers, Integers], which: Integers) -> tuple[Integers, Integers]:
    """Return some of the lists that lie one after the other in an array."""
    starts, all_of = lists
    lengths = np.diff(starts)[which]
    ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    places = np.arange(ends[-1]) + np.repeat(starts[which] - ends[:-1], lengths)
    return ends, all_of[places]


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
    most: int,
    kernel: Any,
    bounds: Integers,
    members: tuple[Integers, Integers],
    others: tuple[Integers, Integers],
    backgrounds: Floats,
    windows: Integers,
    before: tuple[Floats, Floats],
    rules: tuple[Floats, Floats],
    most_steps: int,
) -> tuple[Floats, Floats, Floats, Floats]:
    """Refine blocks that have room in a kernel's shared memory."""
    device, (channels, count) = voxels.device, before[1].shape

    def sent(values: NDArray[Any]) -> torch.Tensor:
        kind = np.float64 if values.dtype.kind == "f" else np.int32
        return torch.from_numpy(np.ascontiguousarray(values, kind)).to(device)

    volumes = channels * np.prod(bounds[:, 1::2] - bounds[:, ::2] + 1, axis=1)
    begins = np.cumsum(volumes) - volumes
    number = SHAPE + 2 * channels
    found = (
        sent(before[0]).clone(),
        sent(before[1]).clone(),
        torch.full((count, number, number), math.nan, dtype=torch.float64, device=device),
        torch.full((count, 3 + channels), math.nan, dtype=torch.float64, device=device),
    )
    inverses = torch.empty((len(bounds), most, most), dtype=torch.float64, device=device)
    grounds = sent(backgrounds)
    launch(
        kernel,
        (len(bounds),),
        THREADS,
        voxels,
        sent(begins),
        (sent(bounds), sent(windows)),
        (sent(members[0]), sent(members[1])),
        (sent(others[0]), sent(others[1])),
        (sent(before[0]), sent(before[1]), grounds),
        (sent(rules[0]), sent(rules[1]), np.int32(most_steps)),
        (floats(device, 3, int(volumes.sum())), inverses),
        found,
    )
    backgrounds[:] = grounds.cpu().numpy()
    shapes, amplitudes, covariances, numbers = (one.cpu().numpy() for one in found)
    return shapes, amplitudes, covariances, numbers
