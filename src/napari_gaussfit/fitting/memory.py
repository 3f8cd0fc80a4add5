"""How much memory a fit takes, predicted before it starts.

The peak comes while seeds are drawn, and nearly again at relocations and the report: smoothed
copies of the stack stand beside what lives as long as the fit. Measured on stacks of 0.7 to 53
million voxels (`python -m benchmarks memory`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from napari_gaussfit._limits import MOST_HALVED
from napari_gaussfit.errors import StackError
from napari_gaussfit.settings import TRAINING_VIEWS, FitSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_gaussfit.stacks.stack import Stack

__all__ = [
    "memory_line",
    "predict_device_memory",
    "predict_memory",
    "refuse_what_memory_cannot_hold",
]

PROCESS = 480_000_000
"""Bytes of an interpreter with torch, SciPy, Numba and the compiled kernels at work."""

SPLINE = 4
"""Bytes per voxel of the spline coefficients that views are projected from."""

BOUNDS, HALVED_BOUNDS = 1, 8
"""Bytes per voxel of the coefficients' bounds, in a large stack and in a small one."""

VOXELS = 4
"""Bytes per voxel of the stack in float32, with which steps compare the field."""

COPIES = 13
"""Bytes per voxel of copies at the peak: signal, smoothed signal, its maxima, weights."""

VIEW = 1_250_000
"""Bytes of a view of 50,000 pixels: target, depth, where its rays enter and leave the box."""

GAUSSIAN = 500
"""Bytes per Gaussian: parameters, moments, gradients, footprints on a view, snapshots."""

RELOCATION_VOXELS = 4_000_000
"""Voxels of the slab that a relocation looks at, about, however large the stack, so that its time
and memory stay bounded. A neurite of 20 million is fitted equally well with 8 million or 2."""

ON_DEVICE = 600_000_000
"""Bytes of a GPU's memory that torch and the kernels take before a fit."""

DEVICE_VOXEL = 8
"""Bytes per voxel on a GPU: the stack and its spline's coefficients, in float32."""

DEVICE_SLAB = 60
"""Bytes per voxel of a relocation's slab on a GPU: field, residual, filtered residuals, gains, and
what sorting these takes."""

DEVICE_VIEW = 1_100_000
"""Bytes of a view on a GPU, for the largest frame: where rays enter and leave the box, targets or
depths, and images of a step."""

DEVICE_GAUSSIAN = 900
"""Bytes per Gaussian on a GPU: parameters, moments, gradients, footprints and profiles, lists of
cells, neighbours and their shares."""


def predict_memory(voxels: int, nbytes: int, settings: FitSettings) -> int:
    """Return the memory, in bytes, that a process comes to in fitting a stack on the CPU.

    Parameters
    ----------
    voxels : int
        Number of voxels, all channels together.
    nbytes : int
        Bytes of these voxels as they are stored.
    settings : FitSettings
        Settings of the fit; Gaussians count only where their number is given.
    """
    bounds = HALVED_BOUNDS if voxels <= MOST_HALVED else BOUNDS
    views = TRAINING_VIEWS + 3 + settings.held_out
    gaussians = GAUSSIAN * (settings.gaussians or 0)
    a_voxel = SPLINE + bounds + VOXELS + COPIES
    return PROCESS + nbytes + a_voxel * voxels + VIEW * views + gaussians


def predict_device_memory(voxels: int, settings: FitSettings, channels: int = 1) -> int:
    """Return the memory, in bytes, that a fit comes to on a GPU.

    Counted from what stands there. An H200 took 726 MB for the fit of a dendrite, of 720 predicted.

    Parameters
    ----------
    voxels : int
        Number of voxels of the stack, in one channel.
    settings : FitSettings
        Settings of the fit; Gaussians count only where their number is given.
    channels : int
        How many channels share their Gaussians.
    """
    views = TRAINING_VIEWS + 3 + settings.held_out
    gaussians = DEVICE_GAUSSIAN * (settings.gaussians or 0)
    slab = DEVICE_SLAB * min(voxels, RELOCATION_VOXELS)
    of_each = DEVICE_VOXEL * voxels + slab + DEVICE_VIEW * views + gaussians
    return ON_DEVICE + channels * of_each


def memory_line(stacks: Sequence[Stack], settings: FitSettings) -> str:
    """Return a line on the memory that a fit takes and that is free.

    Parameters
    ----------
    stacks : sequence of Stack
        Channels of the recording.
    settings : FitSettings
        Settings of the fit.

    Returns
    -------
    str
        The line, in GB, with a line break.
    """
    import psutil

    voxels = sum(stack.voxels.size for stack in stacks)
    needed = predict_memory(voxels, sum(stack.nbytes for stack in stacks), settings)
    available = psutil.virtual_memory().available
    line = f"takes about {needed / 1e9:.2g} GB of memory; {available / 1e9:.2g} GB are free"
    return f"{line}{_on_device(stacks, settings)}\n"


def _on_device(stacks: Sequence[Stack], settings: FitSettings) -> str:
    """Return the part of the line that is on a GPU's memory; empty on the CPU."""
    from napari_gaussfit._kernels import device_named
    from napari_gaussfit._kernels.cuda import free_memory

    device = device_named(settings.device)
    if device.type == "cpu":
        return ""
    needed = predict_device_memory(stacks[0].voxels.size, settings, len(stacks))
    free, _ = free_memory(device)
    return f"; {needed / 1e9:.2g} GB on the GPU, where {free / 1e9:.2g} GB are free"


def refuse_what_memory_cannot_hold(label: str, shape: tuple[int, int, int], nbytes: int) -> None:
    """Refuse a stack whose fit has no room in memory, before its voxels are read.

    Parameters
    ----------
    label : str
        Name of the stack in the message.
    shape : tuple of int
        Number of voxels along z, y, x.
    nbytes : int
        Bytes of the voxels as they are stored.

    Raises
    ------
    StackError
        If the memory that is free does not suffice.
    """
    import psutil

    voxels = math.prod(shape)
    needed = predict_memory(voxels, nbytes, FitSettings()) - PROCESS  # which is there already
    available = int(psutil.virtual_memory().available)
    if needed > available:
        raise StackError(
            f"{label}: its {voxels:,} voxels ({' x '.join(map(str, shape))}) need about "
            f"{needed / 1e9:.3g} GB of memory to be fitted, {available / 1e9:.3g} GB are free; "
            "crop or bin the stack, or close other programs"
        )
