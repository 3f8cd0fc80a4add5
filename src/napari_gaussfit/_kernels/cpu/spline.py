"""Projecting stacks on the CPU: a stack as a cubic B-spline, seen along rays."""

from __future__ import annotations

import math
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from napari_gaussfit._kernels.cpu import spline_kernels
from napari_gaussfit._kernels.cpu.mip import lengths, view_of
from napari_gaussfit._kernels.geometry import Rays
from napari_gaussfit._kernels.shared.spline import MARGIN, STEP
from napari_gaussfit._limits import BRIGHTEST, MOST_HALVED
from napari_gaussfit._threads import run_pieces
from napari_gaussfit.errors import StackError

Array = NDArray[np.float32]

SLACK = 1e-4
"""Part of the stack's range that a projected maximum may fall short: less than 80 dB shows."""

TABLE = 2**14
"""Values, evenly spaced, whose codes are kept in a table."""

OVERSHOOT = 27.0
"""How far a cubic spline's coefficients may lie beyond the voxels: 3 along each axis."""

SAMPLED = 200_000
"""Coefficients that say where codes should be dense."""


def _levels(coefficients: Array) -> Array:
    """Return what the codes 0 to 255 stand for: bounds, the last one above all.

    They are denser where a ray's maximum decides: each level has the same part fewer above it.
    """
    step = max(1, coefficients.size // SAMPLED)
    ordered = np.sort(coefficients.reshape(-1)[::step])
    above = np.geomspace(ordered.size, 1, 255)
    levels = ordered[(ordered.size - above).astype(np.intp)]
    return np.append(levels, np.float32(np.finfo(np.float32).max))


def _coefficients(voxels: Array) -> Array:
    """Return a stack's cubic B-spline coefficients, with `MARGIN` more on every side."""
    padded = np.empty([size + 2 * MARGIN for size in voxels.shape], np.float32)
    padded[MARGIN:-MARGIN, MARGIN:-MARGIN, MARGIN:-MARGIN] = voxels
    depth, rows, columns = voxels.shape
    # Of one voxel along an axis the coefficient is that voxel.
    if depth > 1:
        run_pieces(partial(spline_kernels.filter_rows, padded, 0), rows)
    if rows > 1:
        run_pieces(partial(spline_kernels.filter_rows, padded, 1), depth)
    if columns > 1:
        run_pieces(partial(spline_kernels.filter_columns, padded), depth)
    for axis, size in enumerate(voxels.shape):
        slices = np.moveaxis(padded, axis, 0)
        mirrored = np.pad(np.arange(MARGIN, MARGIN + size), MARGIN, mode="reflect")
        for n in (*range(MARGIN), *range(-MARGIN, 0)):
            slices[n] = slices[mirrored[n]]
    return padded


class SplineVolume:
    """A stack as cubic B-spline coefficients, mirrored at its outer voxel centres.

    Parameters
    ----------
    voxels : ndarray, shape [Z, Y, X]
        Intensities.
    spacing : ndarray, shape (3,)
        (dz, dy, dx).

    Attributes
    ----------
    coefficients : ndarray, shape [Z + 4, Y + 4, X + 4]
        With `spline.MARGIN` more on every side.
    spacing : ndarray, shape (3,)
        As given.
    """

    def __init__(self, voxels: Array, spacing: Array) -> None:
        self.spacing = np.asarray(spacing, np.float32)
        self._slack = np.float32(SLACK * float(np.ptp(voxels)))
        self.coefficients = _coefficients(voxels)
        low, high = np.float32(self.coefficients.min()), np.float32(self.coefficients.max())
        if not max(abs(low), abs(high)) <= BRIGHTEST * OVERSHOOT:
            message = f"voxels: reach from {low:g} to {high:g}; expected finite ones below 1e36"
            raise StackError(message)
        self._ends = low, high

    @cached_property
    def _bounds(self) -> tuple[Array, spline_kernels.Codes]:
        """What codes of 8 bits stand for, and those that bound the spline from above.

        Made for the first projection: a fit on a GPU needs none.
        """
        coefficients, (low, high) = self.coefficients, self._ends
        levels = _levels(coefficients)
        edges = np.linspace(low, high, TABLE + 1, dtype=np.float32)
        table = np.searchsorted(levels, edges[1:]).clip(0, 255).astype(np.uint8)
        scale = np.float32(TABLE) / max(high - low, np.float32(1e-30))
        cells = [size - 3 for size in coefficients.shape]
        parts = 2 if math.prod(cells) <= MOST_HALVED else 1
        codes = np.empty([parts * size for size in cells], np.uint8)

        def bound(first: int, end: int) -> None:
            spline_kernels.bound_planes(coefficients, low, scale, table, codes, first, end)

        run_pieces(bound, cells[0])
        return levels, codes

    def mip(self, rays: Rays) -> tuple[Array, Array]:
        """Return the largest value [H, W] on each ray and its t; 0 where a ray misses the box."""
        view, width = view_of(rays), rays.shape[1]
        near, far = (np.ascontiguousarray(t[:, :width]) for t in (view.near, view.far))
        image, depth = np.zeros((2, *rays.shape), np.float32)
        levels, codes = self._bounds

        def march(first: int, end: int) -> None:
            spline_kernels.march_maximum(
                self.coefficients,
                codes,
                levels,
                rays.frame,
                self.spacing,
                near,
                far,
                STEP,
                self._slack,
                image,
                depth,
                first,
                end,
            )

        run_pieces(march, rays.shape[0])
        return image, depth

    def sample(self, rays: Rays, depth: Array, image: Array, first: int, end: int) -> None:
        """Set rows [first, end) of `image` [H, W] to the values at t = `depth` [H, >= W] on rays.

        0 where a ray misses the box.
        """
        view = view_of(rays)
        spline_kernels.sample_rays(
            self.coefficients,
            rays.frame,
            self.spacing,
            view.near,
            view.far,
            depth,
            image,
            first,
            end,
        )

    def integral(self, rays: Rays) -> Array:
        """Return the integral [H, W] over each ray's length in the box, 0 where it misses."""
        from scipy.ndimage import map_coordinates

        view, (rows, width) = view_of(rays), rays.shape
        inside = lengths(rays)
        samples = int(np.ceil(inside.max() / (float(STEP) * self.spacing.min()))) + 1
        fractions = (np.arange(samples) + 0.5) / samples
        column = np.arange(width)[:, None]
        image = np.zeros(rays.shape, np.float32)
        for i in range(rows):
            origin = rays.frame[0] + i * rays.frame[1] + column * rays.frame[2]
            direction = rays.frame[3] + i * rays.frame[4] + column * rays.frame[5]
            near, far = view.near[i, :width, None], view.far[i, :width, None]
            t = near + (far - near) * fractions
            points = (origin[:, None] + t[..., None] * direction[:, None]) / self.spacing
            values = map_coordinates(
                self.coefficients,
                points.reshape(-1, 3).T + MARGIN,
                order=3,
                prefilter=False,
                mode="nearest",
            )
            image[i] = values.reshape(width, samples).mean(1) * inside[i]
        return image
