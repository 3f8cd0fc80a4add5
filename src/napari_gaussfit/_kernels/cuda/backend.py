"""The CUDA backend: numba-cuda kernels on torch's memory and stream, no copies, no waiting.

Here are Gaussians, f on grids and at points; what else the backend offers is taken in from beside
it. The evaluations are those of the CPU backend, and beyond them take several views or grids, and
several channels (amplitudes [C, K]), in one launch. A voxel, a pixel and a Gaussian's gradient each
are summed by one block in an order of its own: no atomics, the same result every time.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numba.core import config
from torch import Tensor

from napari_gaussfit._kernels.cuda import grid_kernels
from napari_gaussfit._kernels.cuda.device import (
    GATHERING_THREADS,
    GAUSSIAN_THREADS,
    Lists,
    blocks_of,
    floats,
    launch,
    whole_numbers,
)
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
    light,
    missing,
    put_down,
    removal_costs,
    sites,
)
from napari_gaussfit._kernels.geometry import Grid
from napari_gaussfit._kernels.shared.gaussian import MOMENTS, PACKED

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
    "light",
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

# Small grids of blocks are meant: a step's launches are captured together.
config.CUDA_LOW_OCCUPANCY_WARNINGS = 0


def pack(means: Tensor, cholesky: Tensor, amplitudes: Tensor, cutoff: float | Tensor) -> Tensor:
    """Return the kernels' records [C, K, PACKED] of Gaussians in Cholesky parameters.

    `amplitudes` are [K] or [C, K]; `cutoff` is a number or a tensor [C].
    """
    device, count = means.device, len(means)
    channels = _by_channel(amplitudes).contiguous()
    if not isinstance(cutoff, Tensor):
        cutoff = torch.full((len(channels),), cutoff, dtype=torch.float32, device=device)
    packed = floats(device, len(channels), count, PACKED)
    launch(
        grid_kernels.pack,
        (blocks_of(count, GAUSSIAN_THREADS), len(channels)),
        GAUSSIAN_THREADS,
        means.contiguous(),
        cholesky.contiguous(),
        channels,
        cutoff,
        packed,
    )
    return packed


def unpack_gradient(moments: Tensor, packed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return derivatives by means [K, 3], Cholesky parameters [K, 6] and amplitudes [C, K]."""
    channels, count = packed.shape[:2]
    device = packed.device
    gradients = (
        floats(device, channels, count, 3),
        floats(device, channels, count, 6),
        floats(device, channels, count),
    )
    unpack_into(moments, packed, gradients)
    d_means, d_cholesky, d_amplitudes = gradients
    return d_means.sum(0), d_cholesky.sum(0), d_amplitudes


def unpack_into(moments: Tensor, packed: Tensor, gradients: tuple[Tensor, ...]) -> None:
    """Set each channel's part of the derivatives: [C, K, 3], [C, K, 6] and [C, K]."""
    channels, count = packed.shape[:2]
    blocks = (blocks_of(count, GAUSSIAN_THREADS), channels)
    launch(grid_kernels.unpack_gradient, blocks, GAUSSIAN_THREADS, moments, packed, *gradients)


def adam_step(
    parameters: tuple[Tensor, Tensor, Tensor],
    gradients: tuple[Tensor, Tensor, Tensor],
    moments: tuple[Tensor, Tensor, Tensor],
    rates: Tensor,
) -> None:
    """Take one optimiser step in place; see `reference.adam_step`."""
    launch(
        grid_kernels.adam_step,
        (blocks_of(len(parameters[0]), GAUSSIAN_THREADS),),
        GAUSSIAN_THREADS,
        *map(_by_channel, parameters),
        *(_by_channel(gradient.contiguous()) for gradient in gradients),
        *moments,
        rates,
    )


def _by_channel(values: Tensor) -> Tensor:
    """Return amplitudes [K] of one channel as [1, K], and what has two axes as it is."""
    return values[None] if values.ndim == 1 else values


def widen(cholesky: Tensor, spacing: Tensor, narrowest: float) -> None:
    """Widen Gaussians that are narrower than voxels, in place; see `bounds.widen`.

    `spacing` is (dz, dy, dx) on the device, `narrowest` the least sigma in voxels.
    """
    blocks = (blocks_of(len(cholesky), GAUSSIAN_THREADS),)
    launch(grid_kernels.widen, blocks, GAUSSIAN_THREADS, cholesky, spacing, np.float32(narrowest))


# Up to here a block of points each would leave most of the device idle.
DENSE_POINTS = 4096
BLOCKS_AT_ONCE = 1024  # that fill a large device


class Grids:
    """Tables of several grids: origins and spacings [G, 6], shapes [G, 3], the largest shape."""

    def __init__(self, origins: Tensor, shapes: Tensor, shape: tuple[int, int, int]) -> None:
        self.origins, self.shapes, self.shape = origins, shapes, shape

    @classmethod
    def of(cls, grids: Sequence[Grid], device: torch.device) -> Grids:
        """Make the tables of some grids."""
        origins = np.stack([np.concatenate([g.origin, g.spacing]) for g in grids])
        shapes = np.asarray([g.shape for g in grids], np.int32)
        z, y, x = (int(size) for size in shapes.max(0))
        return cls(
            torch.from_numpy(origins.astype(np.float32)).to(device),
            torch.from_numpy(shapes).to(device),
            (z, y, x),
        )

    def select(self, which: Tensor) -> Grids:
        """Return the tables of the grids that indices choose, on the device."""
        return Grids(self.origins[which], self.shapes[which], self.shape)


class GridEvaluation:
    """f on a `Grid` [Z, Y, X], or on several [N, Z, Y, X]: volume n is of channel n // G."""

    def __init__(self, grid: Grid | Grids) -> None:
        self.grid = grid

    def forward(self, packed: Tensor) -> Tensor:
        """Return f of packed Gaussians."""
        device, (channels, count, _) = packed.device, packed.shape
        grids = self.grid if isinstance(self.grid, Grids) else Grids.of([self.grid], device)
        self._grids, images = grids, channels * len(grids.origins)
        self._boxes = whole_numbers(device, images, count, 6)
        launch(
            grid_kernels.bound,
            (blocks_of(count, GAUSSIAN_THREADS), images),
            GAUSSIAN_THREADS,
            packed,
            grids.origins,
            grids.shapes,
            self._boxes,
        )
        cell = (grid_kernels.CELL,) * 3
        lists = Lists(self._boxes, cell, grids.shape)
        volumes = torch.zeros((images, *grids.shape), dtype=torch.float32, device=device)
        tiles = [blocks_of(s, t) for s, t in zip(grids.shape, grid_kernels.TILE, strict=True)]
        launch(
            grid_kernels.voxelise,
            (tiles[2], tiles[1], tiles[0] * images),
            grid_kernels.THREADS,
            packed,
            grids.origins,
            grids.shapes,
            self._boxes,
            lists.lists,
            lists.counts,
            volumes,
        )
        return volumes[0] if isinstance(self.grid, Grid) and channels == 1 else volumes

    def backward(self, packed: Tensor, weights: Tensor) -> Tensor:
        """Return the moments [C, K, 10] of Gaussians under `weights`."""
        channels, count, _ = packed.shape
        moments = floats(packed.device, channels, count, MOMENTS)
        grids = self._grids
        launch(
            grid_kernels.gather_moments,
            (count, channels),
            GATHERING_THREADS,
            packed,
            grids.origins,
            grids.shapes,
            self._boxes,
            weights.reshape(-1, *grids.shape).contiguous(),
            moments,
        )
        return moments


class PointEvaluation:
    """f at free points [B, 3], of one channel."""

    def __init__(self, points: Tensor) -> None:
        self.points = points.detach().contiguous()
        self.dense = len(points) <= DENSE_POINTS

    def _parts(self, blocks: int, total: int) -> int:
        """Into how many parts to cut sums over `total`, so that all of a device is busy."""
        return max(
            1, min(BLOCKS_AT_ONCE // max(1, blocks), blocks_of(total, 4 * grid_kernels.SIDE))
        )

    def forward(self, packed: Tensor) -> Tensor:
        """Return f of packed Gaussians."""
        device, records = packed.device, packed[0]
        count, points = len(records), len(self.points)
        if not count or not points:
            return torch.zeros(points, dtype=torch.float32, device=device)
        if self.dense:
            side = grid_kernels.SIDE
            blocks = blocks_of(points, side)
            parts = floats(device, self._parts(blocks, count), points)
            launch(
                grid_kernels.evaluate_dense,
                (blocks, len(parts)),
                (side, side),
                records,
                self.points,
                parts,
            )
            return parts.sum(0)
        blocks = blocks_of(points, grid_kernels.BLOCK)
        self._bounds, self._boxes = floats(device, blocks, 6), floats(device, 1, count, 6)
        launch(
            grid_kernels.bound_points,
            (blocks_of(blocks, GAUSSIAN_THREADS),),
            GAUSSIAN_THREADS,
            self.points,
            self._bounds,
        )
        launch(
            grid_kernels.bound_gaussians,
            (blocks_of(count, GAUSSIAN_THREADS),),
            GAUSSIAN_THREADS,
            records,
            self._boxes,
        )
        values = floats(device, points)
        launch(
            grid_kernels.evaluate_culled,
            (blocks,),
            grid_kernels.BLOCK,
            records,
            self._boxes,
            self.points,
            self._bounds,
            torch.arange(count, dtype=torch.int32, device=device),
            values,
        )
        return values

    def backward(self, packed: Tensor, weights: Tensor) -> Tensor:
        """Return the moments [1, K, 10] of Gaussians under `weights`."""
        device, records = packed.device, packed[0]
        count, points, weights = len(records), len(self.points), weights.contiguous()
        if not count or not points:
            return torch.zeros((1, count, MOMENTS), dtype=torch.float32, device=device)
        if self.dense:
            side = grid_kernels.SIDE
            blocks = blocks_of(count, side)
            parts = floats(device, self._parts(blocks, points), count, MOMENTS)
            launch(
                grid_kernels.gather_dense,
                (blocks, len(parts)),
                (side, side),
                records,
                self.points,
                weights,
                parts,
            )
            return parts.sum(0, keepdim=True)
        moments = floats(device, 1, count, MOMENTS)
        launch(
            grid_kernels.gather_culled,
            (count,),
            GATHERING_THREADS,
            records,
            self._boxes,
            self.points,
            self._bounds,
            weights,
            moments[0],
        )
        return moments
