"""How much memory a fit takes, said before it starts.

A fit is fullest while its seeds are found, and nearly so while Gaussians are relocated and at the
report: smoothed copies of the stack stand beside what lives as long as the fit. Measured on stacks
of 0.7 to 53 million voxels (`python -m benchmarks memory`).
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
"""Bytes a voxel of the coefficients that views are projected from."""

BOUNDS, HALVED_BOUNDS = 1, 8
"""Bytes a voxel of their bounds in a large stack, and in a small one."""

VOXELS = 4
"""Bytes a voxel of the stack in float32, which steps compare the field with."""

COPIES = 13
"""Bytes a voxel of copies at the fullest moment: signal, smoothed signal, its maxima, weights."""

VIEW = 1_250_000
"""Bytes of a view of 50,000 pixels: target, depth, where its rays enter and leave the box."""

GAUSSIAN = 500
"""Bytes a Gaussian: parameters, moments, gradients, footprints on a view, snapshots."""

RELOCATION_VOXELS = 4_000_000
"""Relocation looks at a slab of about as many voxels, however large the stack: its time and memory
stay what they are on a small one. A neurite of 20 million is fitted alike with 8 million or 2."""

ON_DEVICE = 600_000_000
"""Bytes of a GPU that torch and the kernels take before a fit has any."""

DEVICE_VOXEL = 8
"""Bytes a voxel there: the stack and its spline's coefficients, in float32."""

DEVICE_SLAB = 60
"""Bytes a voxel of a relocation's slab there: the field, what it lacks, filtered and kept, gains,
and what sorting them takes."""

DEVICE_VIEW = 1_100_000
"""Bytes of a view there: of the largest frame what its rays enter, leave and aim at, or depths, and
images of a step."""

DEVICE_GAUSSIAN = 900
"""Bytes a Gaussian there: parameters, moments, gradients, footprints and profiles, lists of cells,
neighbours and their shares."""


def predict_memory(voxels: int, nbytes: int, settings: FitSettings) -> int:
    """Return the memory, in bytes, that a process comes to in fitting a stack on the CPU.

    Parameters
    ----------
    voxels : int
        Their number, all channels together.
    nbytes : int
        Their size as they are stored.
    settings : FitSettings
        How the fit is done; where it leaves the number of Gaussians open, that counts for nothing.
    """
    bounds = HALVED_BOUNDS if voxels <= MOST_HALVED else BOUNDS
    views = TRAINING_VIEWS + 3 + settings.held_out
    gaussians = GAUSSIAN * (settings.gaussians or 0)
    a_voxel = SPLINE + bounds + VOXELS + COPIES
    return PROCESS + nbytes + a_voxel * voxels + VIEW * views + gaussians


def predict_device_memory(voxels: int, settings: FitSettings) -> int:
    """Return the memory, in bytes, that a fit comes to on a GPU.

    Counted from what stands there; no bytes of it have been measured.

    Parameters
    ----------
    voxels : int
        Their number.
    settings : FitSettings
        How the fit is done; where it leaves the number of Gaussians open, that counts for nothing.
    """
    views = TRAINING_VIEWS + 3 + settings.held_out
    gaussians = DEVICE_GAUSSIAN * (settings.gaussians or 0)
    slab = DEVICE_SLAB * min(voxels, RELOCATION_VOXELS)
    return ON_DEVICE + DEVICE_VOXEL * voxels + slab + DEVICE_VIEW * views + gaussians


def memory_line(stacks: Sequence[Stack], settings: FitSettings) -> str:
    """Say, with a line break, what a fit takes and what is free.

    Parameters
    ----------
    stacks : sequence of Stack
        The channels.
    settings : FitSettings
        How they are fitted.

    Returns
    -------
    str
        In GB.
    """
    import psutil

    voxels = sum(stack.voxels.size for stack in stacks)
    needed = predict_memory(voxels, sum(stack.nbytes for stack in stacks), settings)
    available = psutil.virtual_memory().available
    line = f"takes about {needed / 1e9:.2g} GB of memory; {available / 1e9:.2g} GB are free"
    on_device = _on_device(voxels, settings) if len(stacks) == 1 else ""
    return f"{line}{on_device}\n"


def _on_device(voxels: int, settings: FitSettings) -> str:
    """Say what a fit takes of a GPU's memory, and what is free there; nothing of the CPU."""
    from napari_gaussfit._kernels import device_named
    from napari_gaussfit._kernels.cuda.memory import free_memory

    device = device_named(settings.device)
    if device.type == "cpu":
        return ""
    needed, (free, _) = predict_device_memory(voxels, settings), free_memory(device)
    return f"; {needed / 1e9:.2g} GB on the GPU, where {free / 1e9:.2g} GB are free"


def refuse_what_memory_cannot_hold(label: str, shape: tuple[int, int, int], nbytes: int) -> None:
    """Check, before its voxels are read, that the fit of a stack has room.

    Parameters
    ----------
    label : str
        The stack, for the message.
    shape : tuple of int
        Its voxels, z, y, x.
    nbytes : int
        Its size as it is stored.

    Raises
    ------
    StackError
        If it has not.
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
