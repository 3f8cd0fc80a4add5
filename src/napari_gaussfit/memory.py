"""How much memory a fit takes, said before it starts.

A fit is fullest while its seeds are found, and nearly so while Gaussians are relocated and at the
report: smoothed copies of the stack stand beside what lives as long as the fit. Measured on stacks
of 0.7 to 53 million voxels (`python -m benchmarks memory`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_gaussfit.settings import TRAINING_VIEWS

if TYPE_CHECKING:
    from napari_gaussfit.settings import FitSettings

__all__ = ["predict_memory"]

PROCESS = 480_000_000
"""Bytes of an interpreter with torch, SciPy, Numba and the compiled kernels at work."""

SPLINE = 4
"""Bytes a voxel of the coefficients that views are projected from."""

BOUNDS, HALVED_BOUNDS = 1, 8
"""Bytes a voxel of their bounds in a large stack, and in a small one."""

MOST_HALVED = 16_000_000
"""Cells of a voxel of which each half has a bound of its own; in larger stacks, for memory's sake,
each whole one."""

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
