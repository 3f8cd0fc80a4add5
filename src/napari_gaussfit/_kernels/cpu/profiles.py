"""The CPU backend's soft MIP and line integral: evaluations like those of `cpu`.

Both project each Gaussian by itself, over the pixels that its footprint holds.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from napari_gaussfit._kernels.cpu import profile_kernels
from napari_gaussfit._kernels.cpu.mip import footprints_of, speeds, view_of
from napari_gaussfit._kernels.geometry import Rays
from napari_gaussfit._kernels.shared.gaussian import MOMENTS, Array
from napari_gaussfit._threads import run_pieces


class SoftMipEvaluation:
    """Each pixel's softmax-weighted mean of the Gaussians' own peaks along `Rays`."""

    def __init__(self, rays: Rays, temperature: float) -> None:
        self.rays, self.view = rays, view_of(rays)
        self.sharpness = np.float32(1.0 / (math.log(2.0) * temperature))

    def forward(self, packed: Array) -> Tensor:
        rows = self.rays.shape[0]
        self.footprints = footprints_of(packed, self.rays)
        self.blend = np.empty((profile_kernels.BLEND, *self.rays.shape), np.float32)

        def strip(first: int, end: int) -> None:
            profile_kernels.blend_strip(
                self.footprints,
                first,
                end,
                self.view.near,
                self.view.far,
                self.sharpness,
                self.blend,
            )

        run_pieces(strip, rows)
        value = torch.from_numpy(self.blend[profile_kernels.VALUE])
        return torch.where(self.view.hit, value, 0.0)

    def backward(self, packed: Array, weights: Tensor) -> Array:
        masked = torch.where(self.view.hit, weights, 0.0).numpy()
        moments = np.zeros((len(packed), MOMENTS), np.float32)

        def gather(first: int, end: int) -> None:
            profile_kernels.gather_blend_moments(
                self.footprints,
                self.blend,
                self.view.near,
                self.view.far,
                self.sharpness,
                masked,
                moments,
                first,
                end,
            )

        run_pieces(gather, len(packed))
        return moments


class LineIntegralEvaluation:
    """The integral of f over the length of each of `Rays` inside the box."""

    def __init__(self, rays: Rays) -> None:
        self.rays, self.view = rays, view_of(rays)
        # The kernels integrate over t; a ray that misses the box has no length.
        self.speed = torch.where(self.view.hit, torch.from_numpy(speeds(rays)), 0.0)

    def forward(self, packed: Array) -> Tensor:
        rows = self.rays.shape[0]
        self.footprints = footprints_of(packed, self.rays)
        values = np.empty(self.rays.shape, np.float32)

        def strip(first: int, end: int) -> None:
            profile_kernels.integrate_strip(
                self.footprints, first, end, self.view.near, self.view.far, values
            )

        run_pieces(strip, rows)
        return torch.from_numpy(values) * self.speed

    def backward(self, packed: Array, weights: Tensor) -> Array:
        scaled = (weights * self.speed).numpy()
        moments = np.zeros((len(packed), MOMENTS), np.float32)

        def gather(first: int, end: int) -> None:
            profile_kernels.gather_line_moments(
                self.footprints, self.view.near, self.view.far, scaled, moments, first, end
            )

        run_pieces(gather, len(packed))
        return moments
