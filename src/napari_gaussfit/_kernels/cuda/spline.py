"""Projecting stacks on a CUDA device."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from napari_gaussfit._kernels.cuda import spline_kernels
from napari_gaussfit._kernels.cuda.gaussians import blocks_of
from napari_gaussfit._kernels.cuda.launch import launch

if TYPE_CHECKING:
    from torch import Tensor

    from napari_gaussfit._kernels.cuda.mip import Views, Volume


def maxima(volume: Volume, views: Views) -> Tensor:
    """Return the largest values [V, H, W] of a stack on the rays of views, 0 off the box."""
    image = torch.zeros_like(views.near)
    count, rows, width = image.shape
    across, down = spline_kernels.THREADS
    launch(
        spline_kernels.march_maximum,
        (blocks_of(width, across), blocks_of(rows, down), count),
        spline_kernels.THREADS,
        volume.coefficients,
        volume.spacing,
        views.frames,
        views.sizes,
        views.near,
        views.far,
        image,
    )
    return image
