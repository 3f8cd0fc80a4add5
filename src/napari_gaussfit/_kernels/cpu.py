"""The CPU backend: Numba kernels over all cores, on torch's memory, without the GIL.

Work is split so that results do not depend on the number of threads: a voxel or pixel is summed
by one task in the order of the Gaussians, and a Gaussian's gradient by one task in the order of
its voxels or pixels.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from napari_gaussfit._kernels import (
    arithmetic,
    compiled,
    cpu_adam,
    cpu_boxes,
    cpu_clip,
    cpu_points,
    cpu_rays,
    cpu_voxels,
)
from napari_gaussfit._kernels.arithmetic import MOMENTS, Array
from napari_gaussfit._kernels.footprint import FOOTPRINT
from napari_gaussfit._kernels.geometry import Grid, Rays
from napari_gaussfit._kernels.lanes import CHUNK
from napari_gaussfit._kernels.threads import run_pieces

compiled.forget_stale(Path(str(cpu_rays.find_modes.stats.cache_path)))

STRIP_ROWS = 4  # rows of pixels that have a list of Gaussians in common
# What takes as long as to wake a thread: rows clipped to the box, footprints, Gaussians that take
# a step, and pairs of a Gaussian and a point.
CLIPPED_ROWS, FOOTPRINTS, STEPPED = 64, 2000, 2000
EVALUATED_PAIRS, GATHERED_PAIRS = 300_000, 150_000
LARGEST_BIN_COUNT = 256
# Of f on the climb to the mode, as many as on CUDA; after a search two leave 3e-4 at most.
EVALUATIONS = 4


def _array(tensor: Tensor) -> Array:
    return tensor.detach().contiguous().numpy()


@njit(nogil=True, error_model="numpy", cache=True)
def _pack_all(
    means: Array, cholesky: Array, amplitudes: Array, cutoff: np.float32, packed: Array
) -> None:
    for k in range(packed.shape[0]):
        arithmetic.pack(means, cholesky, amplitudes, cutoff, k, packed)


@njit(nogil=True, error_model="numpy", cache=True)
def _unpack_all(
    moments: Array, packed: Array, d_means: Array, d_cholesky: Array, d_amplitudes: Array
) -> None:
    for k in range(packed.shape[0]):
        arithmetic.unpack_gradient(moments, packed, k, d_means, d_cholesky, d_amplitudes)


def pack(means: Tensor, cholesky: Tensor, amplitudes: Tensor, cutoff: float) -> Array:
    """Return the kernels' records [K, PACKED] of Gaussians in Cholesky parameters."""
    packed = np.empty((len(means), arithmetic.PACKED), np.float32)
    _pack_all(_array(means), _array(cholesky), _array(amplitudes), np.float32(cutoff), packed)
    return packed


def unpack_gradient(moments: Array, packed: Array) -> tuple[Tensor, ...]:
    """Return derivatives by means [K, 3], Cholesky parameters [K, 6] and amplitudes [K]."""
    count = len(packed)
    d_means, d_cholesky, d_amplitudes = (
        np.empty(shape, np.float32) for shape in ((count, 3), (count, 6), (count,))
    )
    _unpack_all(moments, packed, d_means, d_cholesky, d_amplitudes)
    return tuple(torch.from_numpy(d) for d in (d_means, d_cholesky, d_amplitudes))


def adam_step(
    parameters: tuple[Tensor, Tensor, Tensor],
    gradients: tuple[Tensor, Tensor, Tensor],
    moments: tuple[Tensor, Tensor, Tensor],
    rates: Tensor,
) -> None:
    """Take one optimiser step in place; see `reference.adam_step`."""
    # What changes must be the tensors' own memory, however strided: a copy would be lost.
    changed = (tensor.detach().numpy() for tensor in (*parameters, *moments))
    means, cholesky, amplitudes, first, second, age = changed
    read = (*gradients, rates)
    d_means, d_cholesky, d_amplitudes, steps = (_array(tensor) for tensor in read)

    def step(begin: int, end: int) -> None:
        cpu_adam.adam_step(
            means,
            cholesky,
            amplitudes,
            d_means,
            d_cholesky,
            d_amplitudes,
            first,
            second,
            age,
            steps,
            begin,
            end,
        )

    run_pieces(step, len(means), STEPPED)


def _boxes(packed: Array) -> Array:
    boxes = np.empty((len(packed), 6), np.float32)
    cpu_boxes.boxes_of(packed, boxes)
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
        count = cpu_boxes.list_meeting(_boxes(packed), box, some)
        self._some = some[:count]
        self._packed = packed if count == len(packed) else packed[self._some]

    def forward(self, packed: Array) -> Tensor:
        self._find(packed)
        volume, grid = self._empty(), self.grid

        def slab(first: int, end: int) -> None:
            cpu_voxels.add_slab(self._packed, grid.origin, grid.spacing, volume, first, end)

        run_pieces(slab, grid.shape[0])
        return torch.from_numpy(volume)[:, :, : grid.shape[2]]

    def backward(self, packed: Array, weights: Tensor) -> Array:
        padded, width = self._empty(), self.grid.shape[2]
        padded[:, :, :width] = weights.numpy()
        padded[:, :, width:] = 0.0
        return self._gathered(len(packed), padded)

    def _gathered(self, count: int, padded: Array) -> Array:
        gathered = np.empty((len(self._packed), MOMENTS), np.float32)
        grid = self.grid

        def gather(first: int, end: int) -> None:
            cpu_voxels.gather_moments(
                self._packed, grid.origin, grid.spacing, padded, gathered, first, end
            )

        run_pieces(gather, len(gathered))
        if len(gathered) == count:
            return gathered
        moments = np.zeros((count, MOMENTS), np.float32)
        moments[self._some] = gathered
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
            cpu_voxels.add_slab(self._packed, grid.origin, grid.spacing, residual, first, end)
            # A brick of a stack lies scattered in its memory: each slab is brought together here.
            target = np.ascontiguousarray(self._target[first:end])
            cpu_voxels.subtract(residual[first:end], target, self._offset, sums[first:end])

        run_pieces(slab, grid.shape[0])
        square, mean = (sums.sum(0) / self._target.size).tolist()
        moments = self._gathered(len(packed), residual)
        moments *= np.float32(2.0 * weight / self._target.size)
        return square, mean, moments


class PointEvaluation:
    """f at free points [B, 3]."""

    def __init__(self, points: Tensor) -> None:
        self.count = len(points)
        blocks = max(1, -(-self.count // cpu_points.BLOCK))
        # Points that fill up the last block repeat the last one and weigh nothing.
        self.points = np.zeros((3, blocks * cpu_points.BLOCK), np.float32)
        self.points[:, : self.count] = _array(points).T
        if self.count:
            self.points[:, self.count :] = self.points[:, self.count - 1 : self.count]
        self.bounds = np.empty((blocks, 6), np.float32)
        cpu_points.bounds_of_blocks(self.points, self.bounds)

    def forward(self, packed: Array) -> Tensor:
        values = np.empty(self.points.shape[1], np.float32)
        self.reaches = _boxes(packed)

        def blocks(first: int, end: int) -> None:
            cpu_points.evaluate_blocks(
                packed, self.reaches, self.points, self.bounds, values, first, end
            )

        least = -(-EVALUATED_PAIRS // (cpu_points.BLOCK * max(1, len(packed))))
        run_pieces(blocks, len(self.bounds), least)
        return torch.from_numpy(values)[: self.count]

    def backward(self, packed: Array, weights: Tensor) -> Array:
        padded = np.zeros(self.points.shape[1], np.float32)
        padded[: self.count] = weights.numpy()
        moments = np.empty((len(packed), MOMENTS), np.float32)

        def gather(first: int, end: int) -> None:
            cpu_points.gather_moments(
                packed, self.reaches, self.points, self.bounds, padded, moments, first, end
            )

        least = -(-GATHERED_PAIRS // max(1, self.count))
        run_pieces(gather, len(packed), least)
        return moments


class View:
    """What the kernels need of `Rays` beyond themselves; the same for every field."""

    def __init__(self, rays: Rays) -> None:
        frame = rays.frame.astype(np.float64)
        columns = frame[[4, 5, 3]] if rays.perspective else frame[[1, 2, 3]]
        self.solve = np.ascontiguousarray(np.linalg.inv(columns.T), np.float32)
        rows, width = rays.shape
        self.near, self.far = np.empty((2, rows, width + CHUNK), np.float32)

        def clip(first: int, end: int) -> None:
            cpu_clip.clip_rows(
                frame, rays.lower, rays.upper, rays.near, self.near, self.far, first, end
            )

        run_pieces(clip, rows, CLIPPED_ROWS)
        hit = self.near < self.far
        self.near[~hit] = self.far[~hit] = 0.0
        self.hit = torch.from_numpy(hit[:, :width])
        self.count = int(self.hit.sum())
        # Where the first ray enters the box and the last one leaves it.
        self.span = (
            (float(self.near[hit].min()), float(self.far[hit].max())) if self.count else (0.0, 0.0)
        )


@functools.lru_cache(maxsize=256)
def view_of(rays: Rays) -> View:
    """Return the `View` of rays, kept between calls."""
    return View(rays)


def footprints_of(packed: Array, rays: Rays) -> Array:
    """Return the pixels that each Gaussian touches, and its place there: [K, FOOTPRINT]."""
    out = np.empty((len(packed), FOOTPRINT), np.float32)
    solve = view_of(rays).solve

    def project(first: int, end: int) -> None:
        cpu_rays.footprints(
            packed, rays.frame, solve, rays.perspective, rays.shape[0], out, first, end
        )

    run_pieces(project, len(packed), FOOTPRINTS)
    return out


def hits(rays: Rays) -> NDArray[np.bool_]:
    """Return which rays [H, W] cross the box."""
    mask: NDArray[np.bool_] = view_of(rays).hit.numpy()
    return mask


def speeds(rays: Rays) -> Array:
    """Return how long a step of 1 in t is on each ray [H, W]."""
    i, j = np.arange(rays.shape[0])[:, None, None], np.arange(rays.shape[1])[None, :, None]
    directions = rays.frame[3] + i * rays.frame[4] + j * rays.frame[5]
    lengths_of_steps: Array = np.linalg.norm(directions, axis=-1).astype(np.float32)
    return lengths_of_steps


def lengths(rays: Rays) -> Array:
    """Return each ray's length [H, W] inside the box."""
    view, width = view_of(rays), rays.shape[1]
    inside: Array = (view.far - view.near)[:, :width] * speeds(rays)
    return inside


def _members(footprints: Array, rows: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Return which Gaussians touch each strip of rows: see `cpu_rays.list_members`."""
    starts = np.empty(-(-rows // STRIP_ROWS) + 1, np.int64)
    nothing = np.empty(0, np.int32)
    cpu_rays.list_members(footprints, STRIP_ROWS, starts, nothing)
    if not starts[-1]:
        return starts, nothing
    members = np.empty(starts[-1], np.int32)
    cpu_rays.list_members(footprints, STRIP_ROWS, starts, members)
    return starts, members


class MipEvaluation:
    """The exact MIP of f along `Rays`: where f is largest, then f there.

    Parameters
    ----------
    rays : Rays
        Through the pixels.
    bin_step : float
        Distance in t of the places where the search for the maximum looks.
    start : Tensor, shape [H, W], optional
        Where the climb to the maximum begins, instead of where a search finds f largest.
    """

    def __init__(self, rays: Rays, bin_step: float, start: Tensor | None = None) -> None:
        self.rays, self.bin_step = rays, bin_step
        self.view = view_of(rays)
        self.depth = np.zeros((rays.shape[0], rays.shape[1] + CHUNK), np.float32)
        self._start = start

    def _bins(self) -> tuple[float, float, int]:
        """Return the first bin's centre, the step and the number of bins; none without a search."""
        if self._start is not None or not self.view.count:
            return 0.0, self.bin_step, 0
        start, stop = self.view.span
        count = int(min(LARGEST_BIN_COUNT, max(1, np.ceil((stop - start) / self.bin_step))))
        step = (stop - start) / count
        return start + 0.5 * step, step, count

    def _find(self, packed: Array) -> tuple[Array, int, Callable[[int, int], None]]:
        """Return where the values come, the number of strips, and what finds those of some."""
        rows, width = self.rays.shape
        depth, near, far = self.depth, self.view.near, self.view.far
        self.footprints = footprints_of(packed, self.rays)
        if self._start is not None:
            depth[:, :width] = _array(self._start)
        value = np.empty(depth.shape, np.float32)
        starts, members = _members(self.footprints, rows)
        bin_start, bin_step, bin_count = self._bins()

        def strips(first: int, end: int) -> None:
            cpu_rays.find_modes(
                self.footprints,
                starts,
                members,
                STRIP_ROWS,
                near,
                far,
                np.float32(bin_start),
                np.float32(bin_step),
                bin_count,
                EVALUATIONS,
                depth,
                value,
                first,
                end,
            )

        return value, len(starts) - 1, strips

    def forward(self, packed: Array) -> Tensor:
        value, count, strips = self._find(packed)
        run_pieces(strips, count)
        found = torch.from_numpy(value[:, : self.rays.shape[1]])
        return torch.where(self.view.hit, found, 0.0)

    def backward(self, packed: Array, weights: Tensor) -> Array:
        rows, width = self.rays.shape
        padded = np.zeros((rows, width + CHUNK), np.float32)
        padded[:, :width] = torch.where(self.view.hit, weights, 0.0).numpy()
        return self._gathered(len(packed), padded)

    def _gathered(self, count: int, padded: Array) -> Array:
        moments = np.empty((count, MOMENTS), np.float32)

        def gather(first: int, end: int) -> None:
            cpu_rays.gather_moments(self.footprints, self.depth, padded, moments, first, end)

        run_pieces(gather, count)
        return moments


class MipResidual(MipEvaluation):
    """The mean of (MIP + offset - target)^2 over the pixels whose rays cross the box.

    Parameters
    ----------
    rays, bin_step, start
        As of `MipEvaluation`.
    target : Tensor, shape [H, W]
        What the MIP should be.
    offset : float
        Is added to the MIP.
    """

    def __init__(
        self, rays: Rays, bin_step: float, start: Tensor | None, target: Tensor, offset: float
    ) -> None:
        super().__init__(rays, bin_step, start)
        self._target, self._offset = _array(target), np.float32(offset)
        self._count = max(1, self.view.count)

    def gather(self, packed: Array, weight: float) -> tuple[float, Array]:
        """Return the mean, and `weight` times the moments of its derivative."""
        residual, count, find = self._find(packed)
        rows, view = len(residual), self.view
        squares = np.empty(rows)

        def strips(first: int, end: int) -> None:
            find(first, end)
            i0, i1 = STRIP_ROWS * first, min(STRIP_ROWS * end, rows)
            cpu_rays.subtract(
                residual, self._target, self._offset, view.near, view.far, squares, i0, i1
            )

        run_pieces(strips, count)
        moments = self._gathered(len(packed), residual)
        moments *= np.float32(2.0 * weight / self._count)
        return float(squares.sum()) / self._count, moments
