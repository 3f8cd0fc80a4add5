"""The CPU backend: Numba kernels over all cores, on torch's memory, without the GIL.

Here are Gaussians, grids and points; `cpu.mip` has the MIP, `cpu.profiles` what else rays see.

Work is split so that results do not depend on the number of threads: a voxel or pixel is summed
by one task in one order of the Gaussians, and a Gaussian's gradient by one task in the order of
its voxels or pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from napari_gaussfit._kernels.cpu import (
    gaussian_kernels,
    grid_kernels,
    point_kernels,
)
from napari_gaussfit._kernels.cpu.simd import CHUNK
from napari_gaussfit._kernels.geometry import Grid
from napari_gaussfit._kernels.shared import gaussian
from napari_gaussfit._kernels.shared.gaussian import MOMENTS, Array
from napari_gaussfit._threads import run_pieces

# What takes as long as to wake a thread: Gaussians that take a step, and pairs of a Gaussian and a
# point.
STEPPED, EVALUATED_PAIRS, GATHERED_PAIRS = 2000, 300_000, 150_000
# Gaussians are walked by tiles of so many voxels a side, planes in slabs of so many:
TILE_SIDE = 16
SLAB_VOXELS = 250_000  # 1 MB, about what a core's second-level cache holds


def array_of(tensor: Tensor) -> Array:
    """Return a tensor's own memory, or a copy where it does not lie in order."""
    return tensor.detach().contiguous().numpy()


def pack(means: Tensor, cholesky: Tensor, amplitudes: Tensor, cutoff: float) -> Array:
    """Return the kernels' records [K, PACKED] of Gaussians in Cholesky parameters."""
    packed = np.empty((len(means), gaussian.PACKED), np.float32)
    gaussian_kernels.pack(
        array_of(means), array_of(cholesky), array_of(amplitudes), np.float32(cutoff), packed
    )
    return packed


def unpack_gradient(moments: Array, packed: Array) -> tuple[Tensor, Tensor, Tensor]:
    """Return derivatives by means [K, 3], Cholesky parameters [K, 6] and amplitudes [K]."""
    count = len(packed)
    sizes = (count, 3), (count, 6), (count,)
    d_means, d_cholesky, d_amplitudes = (torch.empty(size) for size in sizes)
    arrays = d_means.numpy(), d_cholesky.numpy(), d_amplitudes.numpy()
    gaussian_kernels.unpack_gradient(moments, packed, *arrays)
    return d_means, d_cholesky, d_amplitudes


def adam_step(
    parameters: tuple[Tensor, Tensor, Tensor],
    gradients: tuple[Tensor, Tensor, Tensor],
    moments: tuple[Tensor, Tensor, Tensor],
    rates: Tensor,
) -> None:
    """Take one optimiser step in place; see `reference.adam_step`."""
    # What changes must be the tensors' own memory, however strided: a copy would be lost.
    means, cholesky, amplitudes, first, second, age = (
        tensor.detach().numpy() for tensor in (*parameters, *moments)
    )
    d_means, d_cholesky, d_amplitudes = map(array_of, gradients)
    step = partial(
        gaussian_kernels.adam_step,
        (means, cholesky, np.atleast_2d(amplitudes)),
        (d_means, d_cholesky, np.atleast_2d(d_amplitudes)),
        (first, second, age),
        array_of(rates),
    )
    run_pieces(step, len(means), STEPPED)


def _boxes(packed: Array) -> Array:
    boxes = np.empty((len(packed), 6), np.float32)
    point_kernels.boxes_of(packed, boxes)
    return boxes


class GridEvaluation:
    """f on a `Grid`."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid

    def _empty(self) -> Array:
        nz, ny, nx = self.grid.shape
        return np.empty((nz, ny, nx + CHUNK), np.float32)

    def _find(self, packed: Array) -> None:
        """Find the Gaussians that touch the grid: few, where it is a brick of a large stack."""
        grid = self.grid
        end = grid.origin + (np.asarray(grid.shape) - 1) * grid.spacing
        box = np.concatenate([grid.origin, end]).astype(np.float32)[None]
        some = np.empty(len(packed), np.int64)
        planes, rows, columns = (-(-size // TILE_SIDE) for size in grid.shape)
        count = point_kernels.list_meeting(_boxes(packed), box, (planes, rows, columns), some)
        self._some = some[:count]
        self._packed = packed.take(self._some, axis=0)

    def forward(self, packed: Array) -> Tensor:
        self._find(packed)
        volume, grid = self._empty(), self.grid

        def slab(first: int, end: int) -> None:
            grid_kernels.add_slab(self._packed, grid.origin, grid.spacing, volume, first, end)

        self._run_slabs(slab)
        return torch.from_numpy(volume)[:, :, : grid.shape[2]]

    def _run_slabs(self, task: Callable[[int, int], object]) -> None:
        """Call ``task(first, end)`` on planes of the grid that a core's cache has room for."""
        planes, rows, columns = self.grid.shape
        run_pieces(task, planes, most=max(1, SLAB_VOXELS // (rows * columns)))

    def backward(self, packed: Array, weights: Tensor) -> Array:
        padded, width = self._empty(), self.grid.shape[2]
        given = weights.numpy()

        def pad(first: int, end: int) -> None:
            padded[first:end, :, :width] = given[first:end]
            padded[first:end, :, width:] = 0.0

        self._run_slabs(pad)
        return self._gathered(len(packed), padded)

    def _gathered(self, count: int, padded: Array) -> Array:
        moments = np.zeros((count, MOMENTS), np.float32)
        grid = self.grid

        def gather(first: int, end: int) -> None:
            grid_kernels.gather_moments(
                self._packed, grid.origin, grid.spacing, padded, self._some, moments, first, end
            )

        run_pieces(gather, len(self._some))
        return moments


class GridResidual(GridEvaluation):
    """The mean of (f + offset - target)^2 on a `Grid`, in one pass over its voxels.

    Parameters
    ----------
    grid : Grid
        Where.
    target : Tensor, shape [Z, Y, X]
        What f should be there.
    offset : float
        Is added to f.
    """

    def __init__(self, grid: Grid, target: Tensor, offset: float) -> None:
        super().__init__(grid)
        self._target, self._offset = target.numpy(), np.float32(offset)

    def gather(self, packed: Array, weight: float) -> tuple[float, float, Array]:
        """Return the mean, that of its root, and `weight` times the moments of its derivative."""
        self._find(packed)
        residual, grid = self._empty(), self.grid
        sums = np.empty((grid.shape[0], 2))

        def slab(first: int, end: int) -> None:
            grid_kernels.add_slab(self._packed, grid.origin, grid.spacing, residual, first, end)
            # A brick of a stack lies scattered in its memory: each slab is brought together here.
            target = np.ascontiguousarray(self._target[first:end])
            grid_kernels.subtract(residual[first:end], target, self._offset, sums[first:end])

        self._run_slabs(slab)
        square, mean = (sums.sum(0) / self._target.size).tolist()
        moments = self._gathered(len(packed), residual)
        moments *= np.float32(2.0 * weight / self._target.size)
        return square, mean, moments


class PointEvaluation:
    """f at free points [B, 3]."""

    def __init__(self, points: Tensor) -> None:
        self.count = len(points)
        blocks = max(1, -(-self.count // point_kernels.BLOCK))
        # Points that fill up the last block repeat the last one and weigh nothing.
        self.points = np.zeros((3, blocks * point_kernels.BLOCK), np.float32)
        self.points[:, : self.count] = array_of(points).T
        if self.count:
            self.points[:, self.count :] = self.points[:, self.count - 1 : self.count]
        self.bounds = np.empty((blocks, 6), np.float32)
        point_kernels.bounds_of_blocks(self.points, self.bounds)

    def forward(self, packed: Array) -> Tensor:
        values = np.empty(self.points.shape[1], np.float32)
        self.reaches = _boxes(packed)

        def blocks(first: int, end: int) -> None:
            point_kernels.evaluate_blocks(
                packed, self.reaches, self.points, self.bounds, values, first, end
            )

        least = -(-EVALUATED_PAIRS // (point_kernels.BLOCK * max(1, len(packed))))
        run_pieces(blocks, len(self.bounds), least)
        return torch.from_numpy(values)[: self.count]

    def backward(self, packed: Array, weights: Tensor) -> Array:
        padded = np.zeros(self.points.shape[1], np.float32)
        padded[: self.count] = weights.numpy()
        moments = np.empty((len(packed), MOMENTS), np.float32)

        def gather(first: int, end: int) -> None:
            point_kernels.gather_moments(
                packed, self.reaches, self.points, self.bounds, padded, moments, first, end
            )

        least = -(-GATHERED_PAIRS // max(1, self.count))
        run_pieces(gather, len(packed), least)
        return moments
