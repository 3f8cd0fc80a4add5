"""Views on a CUDA device, and projections of f along their rays: MIP, soft MIP, line integral."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from napari_gaussfit._kernels.cpu.backend import LARGEST_BIN_COUNT, speeds, view_of
from napari_gaussfit._kernels.cuda import mip_kernels, mode_kernels, ray_kernels
from napari_gaussfit._kernels.cuda.device import (
    GATHERING_THREADS,
    LISTING_THREADS,
    Lists,
    blocks_of,
    floats,
    launch,
    whole_numbers,
)
from napari_gaussfit._kernels.geometry import Rays
from napari_gaussfit._kernels.shared.footprint import FOOTPRINT
from napari_gaussfit._kernels.shared.gaussian import MOMENTS
from napari_gaussfit._kernels.shared.profile import PROFILE

if TYPE_CHECKING:
    from napari_gaussfit._kernels.cpu.spline import SplineVolume

TABLES = 256  # views whose tables are kept
FEW_TILES = 4096  # tiles below which a device has more cores than one thread a pixel keeps busy


class Views:
    """Tables of several views, on a device, padded to the largest.

    Attributes
    ----------
    frames, solves : Tensor, shape [V, 6, 3] and [V, 3, 3]
        As `Rays.frame`, and what `footprint` solves with.
    sizes : Tensor, shape [V, 3]
        Whether it is a pinhole camera's; rows and columns.
    near, far : Tensor, shape [V, H, W]
        Where rays enter and leave the box; equal where they miss it.
    searches : Tensor, shape [V, 3]
        Centre of the first depth bin, distance of bins, their number.
    """

    def __init__(
        self,
        frames: Tensor,
        solves: Tensor,
        sizes: Tensor,
        ends: tuple[Tensor, Tensor],
        searches: Tensor,
    ) -> None:
        self.frames, self.solves, self.sizes, self.searches = frames, solves, sizes, searches
        self.near, self.far = ends

    @classmethod
    def of(cls, rays: Sequence[Rays], bin_step: float, device: torch.device) -> Views:
        """Make the tables of some views, to be searched every `bin_step` in t."""
        rows, width = (max(r.shape[axis] for r in rays) for axis in range(2))
        ends = np.zeros((2, len(rays), rows, width), np.float32)
        searches = np.zeros((len(rays), 3), np.float32)
        for n, r in enumerate(rays):
            view, (height, across) = view_of(r), r.shape
            near, far = view.near[:, :across], view.far[:, :across]
            ends[0, n, :height, :across], ends[1, n, :height, :across] = near, far
            hit = near < far
            start, stop = (float(near[hit].min()), float(far[hit].max())) if hit.any() else (0, 1)
            count = min(LARGEST_BIN_COUNT, max(1, math.ceil((stop - start) / bin_step)))
            step = (stop - start) / count
            searches[n] = start + 0.5 * step, step, count
        sizes = np.asarray([(r.perspective, *r.shape) for r in rays], np.int32)
        arrays = (
            np.stack([r.frame for r in rays]),
            np.stack([view_of(r).solve for r in rays]),
            sizes,
            *ends,
            searches,
        )
        frames, solves, table, entry, leave, bins = (torch.from_numpy(a).to(device) for a in arrays)
        return cls(frames, solves, table, (entry, leave), bins)

    def select(self, which: Tensor) -> Views:
        """Return the tables of the views that indices choose, on the device."""
        ends = (self.near[which], self.far[which])
        return Views(
            self.frames[which], self.solves[which], self.sizes[which], ends, self.searches[which]
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of views; rows and columns of the largest."""
        views, rows, width = self.near.shape
        return views, rows, width


class Volume:
    """A stack's spline on a device.

    Parameters
    ----------
    spline : SplineVolume
        The stack's intensities between its voxels.
    device : torch.device
        Where to put it.
    """

    def __init__(self, spline: SplineVolume, device: torch.device) -> None:
        self.coefficients = torch.from_numpy(spline.coefficients).to(device)
        self.spacing = torch.from_numpy(spline.spacing).to(device)


@functools.lru_cache(maxsize=TABLES)
def _table(rays: Rays, bin_step: float, device: torch.device) -> Views:
    """Return the table of one view, kept between calls."""
    return Views.of([rays], bin_step, device)


class _Projection:
    """What MIP, soft MIP and line integral have in common: where Gaussians lie in images.

    Image n shows channel n // V in view n % V.
    """

    def __init__(self, rays: Rays | Views, bin_step: float = 1.0) -> None:
        self.rays, self.bin_step = rays, bin_step

    def _project(self, packed: Tensor) -> None:
        device, (channels, count, _) = packed.device, packed.shape
        rays = self.rays
        self.views = rays if isinstance(rays, Views) else _table(rays, self.bin_step, device)
        views, rows, width = self.views.shape
        self.images = channels * views
        self._footprints = floats(device, self.images, count, FOOTPRINT)
        self._profiles = floats(device, self.images, count, PROFILE)
        self._boxes = whole_numbers(device, self.images, count, 6)
        launch(
            mip_kernels.project,
            (blocks_of(count, mip_kernels.MAKING), self.images),
            mip_kernels.MAKING,
            packed,
            self.views.frames,
            self.views.solves,
            self.views.sizes,
            self.views.searches,
            self._footprints,
            self._profiles,
            self._boxes,
        )
        cell = (mip_kernels.FAR_BIN, mip_kernels.CELL, mip_kernels.CELL)
        self._lists = Lists(self._boxes, cell, (1, rows, width))

    def _blank(self, device: torch.device) -> Tensor:
        return torch.zeros((self.images, *self.views.shape[1:]), dtype=torch.float32, device=device)

    def _forward(self, kernel: object, *given: object) -> None:
        """Launch a kernel that has a thread a pixel."""
        _, rows, width = self.views.shape
        tile = mip_kernels.TILE
        launch(
            kernel,
            (blocks_of(width, tile), blocks_of(rows, tile), self.images),
            mip_kernels.THREADS,
            self._footprints,
            self._boxes,
            self._lists.lists,
            self._lists.counts,
            self.views.sizes,
            self.views.near,
            self.views.far,
            *given,
        )

    def _gathered(self, packed: Tensor, kernel: object, weights: Tensor, *given: object) -> Tensor:
        """Return the moments that a kernel with a block a Gaussian gathers."""
        channels, count, _ = packed.shape
        moments = floats(packed.device, channels, count, MOMENTS)
        launch(
            kernel,
            (count, channels),
            GATHERING_THREADS,
            self._footprints,
            self._boxes,
            self.views.sizes,
            self.views.near,
            self.views.far,
            *given,
            weights.reshape(-1, *self.views.shape[1:]).contiguous(),
            moments,
        )
        return moments

    def _shaped(self, images: Tensor) -> Tensor:
        return images[0] if isinstance(self.rays, Rays) and len(images) == 1 else images


class MipEvaluation(_Projection):
    """The exact MIP of f along `Rays` or `Views`: where f is largest, then f there.

    Parameters
    ----------
    rays : Rays or Views
        The rays through the pixels, cut to the stack's box.
    bin_step : float
        Distance in t of the places where the search for the maximum looks; that of `Views` is
        theirs.
    start : Tensor, shape [H, W] or [N, H, W], optional
        Where the climb to the maximum begins, instead of where a search finds f largest.
    """

    def __init__(
        self, rays: Rays | Views, bin_step: float = 1.0, start: Tensor | None = None
    ) -> None:
        super().__init__(rays, bin_step)
        self._start = start

    def forward(self, packed: Tensor) -> Tensor:
        """Return f of packed Gaussians where it is largest."""
        self._project(packed)
        self.depth, peaks = self._blank(packed.device), self._blank(packed.device)
        if not packed.shape[1]:
            return self._shaped(peaks)
        if self._start is None:
            kernels = mode_kernels.find_modes, mode_kernels.find_modes_split
        else:
            self.depth.copy_(self._start.reshape(-1, *self.depth.shape[1:]))
            kernels = mode_kernels.climb, mode_kernels.climb_split
        self._along_rays(*kernels, self.depth, peaks)
        return self._shaped(peaks)

    def _project(self, packed: Tensor) -> None:
        super()._project(packed)
        _, rows, width = self.views.shape
        side, count = mip_kernels.SMALL, packed.shape[1]
        cells = blocks_of(rows, side), blocks_of(width, side)
        room = max(min(count, mip_kernels.LEAST_ROOM), count // mip_kernels.ROOM)
        self._small_lists = whole_numbers(packed.device, self.images, *cells, max(room, 1))
        self._small_tiles = torch.empty_like(self._small_lists, dtype=torch.int16)
        self._small_counts = whole_numbers(packed.device, self.images, *cells)
        launch(
            mip_kernels.list_small_cells,
            (math.prod(cells) if count else 0, self.images),
            LISTING_THREADS,
            self._boxes,
            self._lists.lists,
            self._lists.counts,
            self._small_lists,
            self._small_tiles,
            self._small_counts,
        )

    def _along_rays(self, kernel: object, split_kernel: object, *changed: Tensor) -> None:
        """Launch the kernel that sums profiles along rays, or that with several threads a pixel."""
        _, rows, width = self.views.shape
        tile = mip_kernels.TILE
        blocks = blocks_of(width, tile), blocks_of(rows, tile), self.images
        split = math.prod(blocks) < FEW_TILES
        launch(
            split_kernel if split else kernel,
            blocks,
            mode_kernels.TILE_PIXELS * (mode_kernels.SPLIT if split else 1),
            self._profiles,
            self._boxes,
            self._small_lists,
            self._small_tiles,
            self._small_counts,
            self._lists.lists,
            self._lists.counts,
            self.views.sizes,
            self.views.near,
            self.views.far,
            self.views.searches,
            *changed,
        )

    def target_of(self, volumes: Sequence[Volume]) -> Tensor:
        """Return the values [N, H, W] of a volume a channel where f was largest, 0 off the box."""
        image, views = self._blank(self.depth.device), self.views
        count, rows, width = views.shape
        across, down = ray_kernels.SAMPLING_THREADS
        for channel, volume in enumerate(volumes):
            own = slice(channel * count, (channel + 1) * count)
            launch(
                ray_kernels.sample_rays,
                (blocks_of(width, across), blocks_of(rows, down), count),
                ray_kernels.SAMPLING_THREADS,
                volume.coefficients,
                volume.spacing,
                views.frames,
                views.sizes,
                views.near,
                views.far,
                self.depth[own],
                image[own],
            )
        return self._shaped(image)

    def backward(self, packed: Tensor, weights: Tensor) -> Tensor:
        """Return the moments [C, K, 10] of Gaussians under `weights`."""
        channels, count, _ = packed.shape
        views, rows, width = self.views.shape
        moments = floats(packed.device, channels, count, MOMENTS)
        # Here, as gathering it would ask for two numbers more a pixel, as often as it is reached.
        hit = self.views.near < self.views.far
        weights = torch.where(hit, weights.reshape(channels, views, rows, width), 0.0)
        pairs = torch.stack([self.depth, weights.reshape(self.depth.shape)], -1)
        launch(
            mip_kernels.gather_moments,
            (count, channels),
            GATHERING_THREADS,
            self._footprints,
            self.views.sizes,
            pairs.view(torch.int64).reshape(-1, rows * width),
            np.int32(width),
            moments,
        )
        return moments


class SoftMipEvaluation(_Projection):
    """Each pixel's softmax-weighted mean of the Gaussians' own peaks along `Rays`."""

    def __init__(self, rays: Rays | Views, temperature: float) -> None:
        super().__init__(rays)
        self._sharpness = np.float32(1.0 / (math.log(2.0) * temperature))

    def forward(self, packed: Tensor) -> Tensor:
        """Return the soft MIP of packed Gaussians."""
        self._project(packed)
        shape = (self.images, ray_kernels.BLEND, *self.views.shape[1:])
        self._blends = torch.zeros(shape, dtype=torch.float32, device=packed.device)
        if packed.shape[1]:
            self._forward(ray_kernels.blend, self._sharpness, self._blends)
        return self._shaped(self._blends[:, ray_kernels.VALUE])

    def backward(self, packed: Tensor, weights: Tensor) -> Tensor:
        """Return the moments [C, K, 10] of Gaussians under `weights`."""
        kernel = ray_kernels.gather_blend_moments
        return self._gathered(packed, kernel, weights, self._sharpness, self._blends)


class LineIntegralEvaluation(_Projection):
    """The integral of f over the length of each of `Rays` inside the box."""

    def __init__(self, rays: Rays) -> None:
        super().__init__(rays)
        # The kernels integrate over t; a ray that misses the box has no length.
        self._speed = torch.where(view_of(rays).hit, torch.from_numpy(speeds(rays)), 0.0)

    def forward(self, packed: Tensor) -> Tensor:
        """Return the line integrals of packed Gaussians."""
        self._project(packed)
        self._speed = self._speed.to(packed.device)
        values = self._blank(packed.device)
        if packed.shape[1]:
            self._forward(ray_kernels.integrate, values)
        return self._shaped(values) * self._speed

    def backward(self, packed: Tensor, weights: Tensor) -> Tensor:
        """Return the moments [C, K, 10] of Gaussians under `weights`."""
        kernel = ray_kernels.gather_line_moments
        return self._gathered(packed, kernel, weights * self._speed)


def maxima(volume: Volume, views: Views) -> Tensor:
    """Return the largest values [V, H, W] of a stack on the rays of views, 0 off the box."""
    image = torch.zeros_like(views.near)
    count, rows, width = image.shape
    across, down = ray_kernels.SAMPLING_THREADS
    launch(
        ray_kernels.march_maximum,
        (blocks_of(width, across), blocks_of(rows, down), count),
        ray_kernels.SAMPLING_THREADS,
        volume.coefficients,
        volume.spacing,
        views.frames,
        views.sizes,
        views.near,
        views.far,
        image,
    )
    return image
