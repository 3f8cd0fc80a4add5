"""The least time that a kernel can take, from what it must move and compute.

Operations are those of the formulas, one a lane: pairs of a Gaussian and a voxel or pixel that it
reaches, times the arithmetic of one. An exponential takes a special unit, of which there is one
for eight lanes. Bytes are the arrays that must be read and written once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from benchmarks.fields import pairs_per_volume
from napari_gaussfit._kernels.cpu import backend
from napari_gaussfit._kernels.reference import factors
from napari_gaussfit._kernels.shared.footprint import FOOTPRINT
from napari_gaussfit._kernels.shared.gaussian import MOMENTS, PACKED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.fields import Parameters
    from napari_gaussfit._kernels.geometry import Rays

LANES, SPECIAL_UNITS = 128, 16
"""Of a multiprocessor, since Turing's successors: arithmetic lanes, units for exponentials."""

FLOAT = 4
BOX = 6
EVALUATIONS = 4

# Arithmetic of one pair, exponentials apart, counted in the kernels' sources; products that are
# added count with the sum.
VOXEL, VOXEL_MOMENTS = 4, 17
ON_RAY = 15
PROFILE = ON_RAY + 19
BIN = 3
CLIMB = ON_RAY + 16
PIXEL_MOMENTS = ON_RAY + 19
POINT, POINT_MOMENTS = 14, 27
SAMPLE = 150
FOOTPRINT_OF_ONE, STEP_OF_ADAM = 250, 150


@dataclass(frozen=True)
class Device:
    """What a device can do at most: multiprocessors, clock in Hz, bytes a second."""

    name: str
    processors: int
    clock: float
    bandwidth: float


# Data sheets: boost clocks, memory bandwidths.
KNOWN = (
    Device("H200 SXM", 132, 1.98e9, 4.8e12),
    Device("H100 SXM", 132, 1.98e9, 3.35e12),
    Device("GeForce RTX 4060", 24, 2.46e9, 0.272e12),
)


@dataclass(frozen=True)
class Work:
    """What a kernel must do: operations, exponentials, bytes."""

    operations: float
    exponentials: float
    moved: float

    def seconds(self, device: Device) -> tuple[float, str]:
        """The least time on a device, and what takes it."""
        cycles = device.processors * device.clock
        ways = {
            "arithmetic": self.operations / (cycles * LANES),
            "exponentials": self.exponentials / (cycles * SPECIAL_UNITS),
            "bytes": self.moved / device.bandwidth,
        }
        longest = max(ways, key=lambda way: ways[way])
        return ways[longest], longest


def of_grid(parameters: Parameters, cutoff: float, voxels: int, voxel: float) -> dict[str, Work]:
    """Work of voxelising, forward and backward; `voxel` is a voxel's volume."""
    _, cholesky, amplitudes = parameters
    pairs, count = pairs_per_volume(cholesky, amplitudes, cutoff) / voxel, len(amplitudes)
    records = FLOAT * count * PACKED
    return {
        "cuda.grid_kernels.voxelise": Work(VOXEL * pairs, pairs, records + FLOAT * voxels),
        "cuda.grid_kernels.gather_moments": Work(
            VOXEL_MOMENTS * pairs, pairs, records + FLOAT * (voxels + count * MOMENTS)
        ),
    }


def of_views(
    parameters: Parameters, cutoff: float, views: Sequence[Rays], bin_step: float
) -> dict[str, Work]:
    """Work of exact MIPs, forward and backward."""
    pairs, bins = pixel_pairs(parameters, cutoff, views, bin_step)
    pixels = sum(rays.shape[0] * rays.shape[1] for rays in views)
    images = len(views) * len(parameters[0])
    records = FLOAT * images * FOOTPRINT
    moments = FLOAT * len(parameters[0]) * MOMENTS
    return {
        "cuda.mip_kernels.project": Work(
            FOOTPRINT_OF_ONE * images, 0.0, records + FLOAT * images * (PACKED + BOX)
        ),
        "cuda.mode_kernels.find_modes": Work(
            (PROFILE + EVALUATIONS * CLIMB) * pairs + BIN * bins,
            (3 + EVALUATIONS) * pairs,
            records + FLOAT * 5 * pixels,
        ),
        "cuda.mip_kernels.gather_moments": Work(
            PIXEL_MOMENTS * pairs, pairs, records + FLOAT * 4 * pixels + moments
        ),
    }


def of_targets(views: Sequence[Rays], voxels: int) -> dict[str, Work]:
    """Work of reading a stack's spline where f is largest: a sample a pixel that sees the box."""
    pixels = sum(int(hits.sum()) for hits in map(backend.hits, views))
    moved = FLOAT * (voxels + 4 * pixels)
    return {"cuda.ray_kernels.sample_rays": Work(SAMPLE * pixels, 0.0, moved)}


def of_points(count: int, points: int) -> dict[str, Work]:
    """Work of the dense field at points, forward and backward."""
    pairs, read = float(count * points), FLOAT * (count * PACKED + 3 * points)
    return {
        "cuda.grid_kernels.evaluate_dense": Work(POINT * pairs, pairs, read + FLOAT * points),
        "cuda.grid_kernels.gather_dense": Work(
            POINT_MOMENTS * pairs, pairs, read + FLOAT * (points + count * MOMENTS)
        ),
    }


def of_adam(count: int) -> dict[str, Work]:
    """Work of a step of Adam: parameters, gradients and moments read, all but gradients written."""
    return {
        "cuda.grid_kernels.adam_step": Work(
            STEP_OF_ADAM * count, 0.0, FLOAT * count * (31 * 2 + 10)
        )
    }


def pixel_pairs(
    parameters: Parameters, cutoff: float, views: Sequence[Rays], bin_step: float
) -> tuple[float, float]:
    """Pairs of a Gaussian and a pixel of orthographic views, and the depth bins that they fill.

    A footprint is an ellipse of pi r^2 sqrt(det) with the covariance as it is projected. Over it,
    a profile is cut off at (2/3) 2 r standard deviations along the ray, in the mean.
    """
    _, cholesky, amplitudes = parameters
    lower = factors(cholesky)
    sigma = lower @ lower.transpose(-1, -2)
    reach2 = 2 * torch.log((amplitudes / cutoff).clamp(min=1.0))
    pairs = bins = 0.0
    for rays in views:
        v, u, d = (torch.from_numpy(rays.frame[n]).float() for n in (1, 2, 3))
        area = float(v.norm() * u.norm())
        plane = torch.stack([v / v.norm(), u / u.norm()])
        projected = plane @ sigma @ plane.T
        each = math.pi * reach2 * torch.linalg.det(projected).clamp(min=0.0).sqrt() / area
        along = torch.linalg.solve_triangular(
            lower, d.expand(len(lower), 3)[..., None], upper=False
        )
        width = 1.0 / along.squeeze(-1).norm(dim=-1)
        pairs += float(each.sum())
        bins += float((each * (4 / 3) * reach2.sqrt() * width / bin_step).sum())
    return pairs, bins
