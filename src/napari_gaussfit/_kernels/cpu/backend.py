"""The CPU backend: Numba kernels over all cores, on torch's memory, without the GIL.

Work is split so that results do not depend on the number of threads: a voxel or pixel is summed
by one task in one order of the Gaussians, and a Gaussian's gradient by one task in the order of
its voxels or pixels.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_gaussfit._kernels.cpu import grid_kernels, mip_kernels, ray_kernels
from napari_gaussfit._kernels.cpu.jit import CHUNK
from napari_gaussfit._kernels.geometry import Grid, Rays
from napari_gaussfit._kernels.shared import gaussian
from napari_gaussfit._kernels.shared.footprint import FOOTPRINT
from napari_gaussfit._kernels.shared.gaussian import MOMENTS, Array
from napari_gaussfit._threads import run_pieces

if TYPE_CHECKING:
    from napari_gaussfit._kernels import Volume


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
    grid_kernels.pack(
        array_of(means), array_of(cholesky), array_of(amplitudes), np.float32(cutoff), packed
    )
    return packed


def unpack_gradient(moments: Array, packed: Array) -> tuple[Tensor, Tensor, Tensor]:
    """Return derivatives by means [K, 3], Cholesky parameters [K, 6] and amplitudes [K]."""
    count = len(packed)
    sizes = (count, 3), (count, 6), (count,)
    d_means, d_cholesky, d_amplitudes = (torch.empty(size) for size in sizes)
    arrays = d_means.numpy(), d_cholesky.numpy(), d_amplitudes.numpy()
    grid_kernels.unpack_gradient(moments, packed, *arrays)
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
        grid_kernels.adam_step,
        (means, cholesky, np.atleast_2d(amplitudes)),
        (d_means, d_cholesky, np.atleast_2d(d_amplitudes)),
        (first, second, age),
        array_of(rates),
    )
    run_pieces(step, len(means), STEPPED)


def _boxes(packed: Array) -> Array:
    boxes = np.empty((len(packed), 6), np.float32)
    grid_kernels.boxes_of(packed, boxes)
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
        count = grid_kernels.list_meeting(_boxes(packed), box, (planes, rows, columns), some)
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
        The voxels at which the field is compared with the stack.
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
        blocks = max(1, -(-self.count // grid_kernels.BLOCK))
        # Points that fill up the last block repeat the last one and weigh nothing.
        self.points = np.zeros((3, blocks * grid_kernels.BLOCK), np.float32)
        self.points[:, : self.count] = array_of(points).T
        if self.count:
            self.points[:, self.count :] = self.points[:, self.count - 1 : self.count]
        self.bounds = np.empty((blocks, 6), np.float32)
        grid_kernels.bounds_of_blocks(self.points, self.bounds)

    def forward(self, packed: Array) -> Tensor:
        values = np.empty(self.points.shape[1], np.float32)
        self.reaches = _boxes(packed)

        def blocks(first: int, end: int) -> None:
            grid_kernels.evaluate_blocks(
                packed, self.reaches, self.points, self.bounds, values, first, end
            )

        least = -(-EVALUATED_PAIRS // (grid_kernels.BLOCK * max(1, len(packed))))
        run_pieces(blocks, len(self.bounds), least)
        return torch.from_numpy(values)[: self.count]

    def backward(self, packed: Array, weights: Tensor) -> Array:
        padded = np.zeros(self.points.shape[1], np.float32)
        padded[: self.count] = weights.numpy()
        moments = np.empty((len(packed), MOMENTS), np.float32)

        def gather(first: int, end: int) -> None:
            grid_kernels.gather_from_points(
                packed, self.reaches, self.points, self.bounds, padded, moments, first, end
            )

        least = -(-GATHERED_PAIRS // max(1, self.count))
        run_pieces(gather, len(packed), least)
        return moments


STRIP_ROWS = 4  # rows of pixels that have a list of Gaussians in common
# What takes as long as to wake a thread: rows clipped to the box, and footprints.
CLIPPED_ROWS, FOOTPRINTS = 64, 2000
LARGEST_BIN_COUNT = 256
# Of f on the climb to the mode, as many as on CUDA; after a search two leave 3e-4 at most.
EVALUATIONS = 4


class View:
    """What the kernels need of `Rays` beyond themselves; the same for every field."""

    def __init__(self, rays: Rays) -> None:
        frame = rays.frame.astype(np.float64)
        columns = frame[[4, 5, 3]] if rays.perspective else frame[[1, 2, 3]]
        self.solve = np.ascontiguousarray(np.linalg.inv(columns.T), np.float32)
        rows, width = rays.shape
        self.near, self.far = np.empty((2, rows, width + CHUNK), np.float32)

        def clip(first: int, end: int) -> None:
            ray_kernels.clip_rows(
                frame, rays.lower, rays.upper, rays.near, self.near, self.far, first, end
            )

        run_pieces(clip, rows, CLIPPED_ROWS)
        hit = self.near < self.far
        self.near[~hit] = self.far[~hit] = 0.0
        self.hit = torch.from_numpy(hit[:, :width])
        self.count = int(np.count_nonzero(hit))
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
        ray_kernels.footprints(
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
    """Return which Gaussians touch each strip of rows: see `cpu.mip_kernels.list_members`."""
    starts = np.empty(-(-rows // STRIP_ROWS) + 1, np.int64)
    nothing = np.empty(0, np.int32)
    mip_kernels.list_members(footprints, STRIP_ROWS, starts, nothing)
    if not starts[-1]:
        return starts, nothing
    members = np.empty(starts[-1], np.int32)
    mip_kernels.list_members(footprints, STRIP_ROWS, starts, members)
    return starts, members


class MipEvaluation:
    """The exact MIP of f along `Rays`: where f is largest, then f there.

    Parameters
    ----------
    rays : Rays
        The rays through the pixels, cut to the stack's box.
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
            depth[:, :width] = array_of(self._start)
        value = np.empty(depth.shape, np.float32)
        starts, members = _members(self.footprints, rows)
        start, step, count = self._bins()
        find = partial(
            mip_kernels.find_modes,
            self.footprints,
            (starts, members, STRIP_ROWS),
            (near, far),
            (np.float32(start), np.float32(step), count, EVALUATIONS),
            depth,
            value,
        )
        return value, len(starts) - 1, find

    @property
    def found(self) -> Tensor:
        """Where on each ray [H, W], in t, f was found largest."""
        return torch.from_numpy(self.depth[:, : self.rays.shape[1]])

    def target_of(self, volume: Volume) -> Tensor:
        """Return the values [H, W] of a volume where f was found largest, 0 off the box."""
        rows = self.rays.shape[0]
        image = np.empty(self.rays.shape, np.float32)
        run_pieces(partial(volume.sample, self.rays, self.depth, image), rows, CLIPPED_ROWS)
        return torch.from_numpy(image)

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
            ray_kernels.gather_moments(self.footprints, self.depth, padded, moments, first, end)

        run_pieces(gather, count)
        return moments


class MipResidual(MipEvaluation):
    """The mean of (MIP + offset - target)^2 over the pixels whose rays cross the box.

    Parameters
    ----------
    rays, bin_step, start
        The rays and how they are searched, as for `MipEvaluation`.
    target : Tensor, shape [H, W], or Volume
        What the MIP should be; of a volume, its value where on the ray f is largest.
    offset : float
        Is added to the MIP.
    """

    def __init__(
        self,
        rays: Rays,
        bin_step: float,
        start: Tensor | None,
        target: Tensor | Volume,
        offset: float,
    ) -> None:
        super().__init__(rays, bin_step, start)
        self._volume = None if isinstance(target, Tensor) else target
        self._target = array_of(target) if isinstance(target, Tensor) else None
        self._offset = np.float32(offset)
        self._count = max(1, self.view.count)

    def gather(self, packed: Array, weight: float) -> tuple[float, Array]:
        """Return the mean, and `weight` times the moments of its derivative."""
        residual, count, find = self._find(packed)
        rows, view = len(residual), self.view
        squares = np.empty(rows)
        target = np.empty(self.rays.shape, np.float32) if self._target is None else self._target

        def strips(first: int, end: int) -> None:
            find(first, end)
            i0, i1 = STRIP_ROWS * first, min(STRIP_ROWS * end, rows)
            if self._volume is not None:
                self._volume.sample(self.rays, self.depth, target, i0, i1)
            ray_kernels.subtract(
                residual, target, self._offset, view.near, view.far, squares, i0, i1
            )

        run_pieces(strips, count)
        moments = self._gathered(len(packed), residual)
        moments *= np.float32(2.0 * weight / self._count)
        return float(squares.sum()) / self._count, moments


class SoftMipEvaluation:
    """Each pixel's softmax-weighted mean of the Gaussians' own peaks along `Rays`."""

    def __init__(self, rays: Rays, temperature: float) -> None:
        self.rays, self.view = rays, view_of(rays)
        self.sharpness = np.float32(1.0 / (math.log(2.0) * temperature))

    def forward(self, packed: Array) -> Tensor:
        rows = self.rays.shape[0]
        self.footprints = footprints_of(packed, self.rays)
        self.blend = np.empty((ray_kernels.BLEND, *self.rays.shape), np.float32)

        def strip(first: int, end: int) -> None:
            ray_kernels.blend_strip(
                self.footprints,
                first,
                end,
                self.view.near,
                self.view.far,
                self.sharpness,
                self.blend,
            )

        run_pieces(strip, rows)
        value = torch.from_numpy(self.blend[ray_kernels.VALUE])
        return torch.where(self.view.hit, value, 0.0)

    def backward(self, packed: Array, weights: Tensor) -> Array:
        masked = torch.where(self.view.hit, weights, 0.0).numpy()
        moments = np.empty((len(packed), MOMENTS), np.float32)

        def gather(first: int, end: int) -> None:
            ray_kernels.gather_blend_moments(
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
            ray_kernels.integrate_strip(
                self.footprints, first, end, self.view.near, self.view.far, values
            )

        run_pieces(strip, rows)
        return torch.from_numpy(values) * self.speed

    def backward(self, packed: Array, weights: Tensor) -> Array:
        scaled = (weights * self.speed).numpy()
        moments = np.empty((len(packed), MOMENTS), np.float32)

        def gather(first: int, end: int) -> None:
            ray_kernels.gather_line_moments(
                self.footprints, self.view.near, self.view.far, scaled, moments, first, end
            )

        run_pieces(gather, len(packed))
        return moments
