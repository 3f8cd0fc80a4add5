"""Projecting stacks on a CUDA device."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from napari_gaussfit._kernels import cuda_spline
from napari_gaussfit._kernels.cuda_gaussians import blocks_of
from napari_gaussfit._kernels.cuda_launch import launch

if TYPE_CHECKING:
    from torch import Tensor

    from napari_gaussfit._kernels.cuda_views import Views, Volume


def maxima(volume: Volume, views: Views) -> Tensor:
    """Return the largest values [V, H, W] of a stack on the rays of views, 0 off the box."""
    image = torch.zeros_like(views.near)
    count, rows, width = image.shape
    across, down = cuda_spline.THREADS
    launch(
        cuda_spline.march_maximum,
        (blocks_of(width, across), blocks_of(rows, down), count),
        cuda_spline.THREADS,
        volume.coefficients,
        volume.spacing,
        views.frames,
        views.sizes,
        views.near,
        views.far,
        image,
    )
    return image
