"""The CUDA backend: numba-cuda kernels on torch's memory and stream, no copies, no waiting.

The evaluations are those of the CPU backend, and beyond them take several views or grids, and
several channels (amplitudes [C, K]), in one launch. A voxel, a pixel and a Gaussian's gradient
each are summed by one block in an order of its own: no atomics, the same result every time.
"""

from napari_gaussfit._kernels.cuda.gaussians import (
    adam_step,
    pack,
    unpack_gradient,
    unpack_into,
    widen,
)
from napari_gaussfit._kernels.cuda.grids import GridEvaluation, Grids, PointEvaluation
from napari_gaussfit._kernels.cuda.mip import (
    LineIntegralEvaluation,
    MipEvaluation,
    SoftMipEvaluation,
    Views,
    Volume,
    maxima,
)
from napari_gaussfit._kernels.cuda.objective import BrickTables, Drawn, Losses, selected
from napari_gaussfit._kernels.cuda.relocation import (
    Filters,
    Slab,
    leaving,
    missing,
    put_down,
    removal_costs,
    sites,
)
from napari_gaussfit._kernels.shared.gaussian import MOMENTS

__all__ = [
    "MOMENTS",
    "BrickTables",
    "Drawn",
    "Filters",
    "GridEvaluation",
    "Grids",
    "LineIntegralEvaluation",
    "Losses",
    "MipEvaluation",
    "PointEvaluation",
    "Slab",
    "SoftMipEvaluation",
    "Views",
    "Volume",
    "adam_step",
    "leaving",
    "maxima",
    "missing",
    "pack",
    "put_down",
    "removal_costs",
    "selected",
    "sites",
    "unpack_gradient",
    "unpack_into",
    "widen",
]
