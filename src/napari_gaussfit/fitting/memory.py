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
    from napari_gaussfit.fitting.fit import Fit

__all__ = ["memory_line", "predict_memory", "refuse_what_memory_cannot_hold"]

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


def memory_line(fit: Fit) -> str:
    """Say, with a line break, what a fit takes and what is free.

    Parameters
    ----------
    fit : Fit
        An idle fit.

    Returns
    -------
    str
        In GB.
    """
    import psutil

    voxels = sum(stack.voxels.size for stack in fit.stacks)
    needed = predict_memory(voxels, sum(stack.nbytes for stack in fit.stacks), fit.settings)
    available = psutil.virtual_memory().available
    return f"takes about {needed / 1e9:.2g} GB of memory; {available / 1e9:.2g} GB are free\n"


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
