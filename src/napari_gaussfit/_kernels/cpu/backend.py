"""The CPU backend: all that it offers, in Numba kernels on torch's memory, over all cores."""

from napari_gaussfit._kernels.cpu.grids import (
    GridEvaluation,
    GridResidual,
    PointEvaluation,
    adam_step,
    pack,
    unpack_gradient,
)
from napari_gaussfit._kernels.cpu.mip import MipEvaluation, MipResidual
from napari_gaussfit._kernels.cpu.profiles import LineIntegralEvaluation, SoftMipEvaluation

__all__ = [
    "GridEvaluation",
    "GridResidual",
    "LineIntegralEvaluation",
    "MipEvaluation",
    "MipResidual",
    "PointEvaluation",
    "SoftMipEvaluation",
    "adam_step",
    "pack",
    "unpack_gradient",
]
