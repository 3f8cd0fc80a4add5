"""The CPU backend's exact MIP, and what all that looks along `Rays` shares."""

from __future__ import annotations

import functools
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_gaussfit._kernels.cpu import mip_kernels, ray_kernels
from napari_gaussfit._kernels.cpu.grids import array_of
from napari_gaussfit._kernels.cpu.simd import CHUNK
from napari_gaussfit._kernels.geometry import Rays
from napari_gaussfit._kernels.shared.footprint import FOOTPRINT
from napari_gaussfit._kernels.shared.gaussian import MOMENTS, Array
from napari_gaussfit._threads import run_pieces

if TYPE_CHECKING:
    from napari_gaussfit._kernels import Volume

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
        As of `MipEvaluation`.
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
