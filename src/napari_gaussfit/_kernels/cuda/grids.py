"""f at points and on grids, and its gradient, on a CUDA device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from napari_gaussfit._kernels.cuda import device as cuda_device
from napari_gaussfit._kernels.cuda import grid_kernels, point_kernels
from napari_gaussfit._kernels.cuda.device import launch
from napari_gaussfit._kernels.cuda.gaussians import THREADS, Lists, blocks_of, floats, whole_numbers
from napari_gaussfit._kernels.geometry import Grid
from napari_gaussfit._kernels.shared.gaussian import MOMENTS

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
        self._boxes = whole_numbers(device, images, 6, count)
        launch(
            grid_kernels.bound,
            (blocks_of(count, THREADS), images),
            THREADS,
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
            cuda_device.GATHERING_THREADS,
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
            1, min(BLOCKS_AT_ONCE // max(1, blocks), blocks_of(total, 4 * point_kernels.SIDE))
        )

    def forward(self, packed: Tensor) -> Tensor:
        """Return f of packed Gaussians."""
        device, records = packed.device, packed[0]
        count, points = len(records), len(self.points)
        if not count or not points:
            return torch.zeros(points, dtype=torch.float32, device=device)
        if self.dense:
            side = point_kernels.SIDE
            blocks = blocks_of(points, side)
            parts = floats(device, self._parts(blocks, count), points)
            launch(
                point_kernels.evaluate_dense,
                (blocks, len(parts)),
                (side, side),
                records,
                self.points,
                parts,
            )
            return parts.sum(0)
        blocks = blocks_of(points, point_kernels.BLOCK)
        self._bounds, self._boxes = floats(device, blocks, 6), floats(device, 1, 6, count)
        launch(
            point_kernels.bound_points,
            (blocks_of(blocks, THREADS),),
            THREADS,
            self.points,
            self._bounds,
        )
        launch(
            point_kernels.bound_gaussians,
            (blocks_of(count, THREADS),),
            THREADS,
            records,
            self._boxes,
        )
        values = floats(device, points)
        launch(
            point_kernels.evaluate_culled,
            (blocks,),
            point_kernels.BLOCK,
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
            side = point_kernels.SIDE
            blocks = blocks_of(count, side)
            parts = floats(device, self._parts(blocks, points), count, MOMENTS)
            launch(
                point_kernels.gather_dense,
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
            point_kernels.gather_culled,
            (count,),
            cuda_device.GATHERING_THREADS,
            records,
            self._boxes,
            self.points,
            self._bounds,
            weights,
            moments[0],
        )
        return moments
