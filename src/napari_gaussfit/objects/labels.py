"""Labels: an object's voxels, and what there is to measure of it.

A voxel is the object's whose Gaussians add most there, where f is bright enough.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.ndimage import find_objects

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_gaussfit.model.field import GaussianField
    from napari_gaussfit.objects.grouping import Groups

    Floats = NDArray[np.float64]
    Indices = NDArray[np.intp]
    Shape = tuple[int, int, int]
    Triple = tuple[float, float, float]
    Labels = NDArray[np.int32]
    Painted = tuple[tuple[slice, ...], NDArray[np.float32]]

__all__ = ["Objects", "Painter", "measure_objects", "paint"]

SMALLEST = 0.05
"""The least volume of an object, in balls of the typical radius: less is debris, or haze."""

_REACH = 4.0
"""Sigmas beyond which a Gaussian labels no voxel."""

SEMIAXIS = float(np.sqrt(5.0))
"""Of an even ellipsoid, in standard deviations."""


@dataclass(frozen=True, eq=False)
class Objects:
    """A table of objects: a row each, in the order of their labels, which begin at 1.

    Parameters
    ----------
    centre : ndarray, shape [M, 3]
        Of the voxels, in the field's unit, axis order z, y, x.
    volume : ndarray, shape [M]
        In the unit cubed.
    surface : ndarray, shape [M]
        Of a mesh half way between voxels inside and outside (marching cubes), in the unit squared.
    intensity : ndarray, shape [M]
        Integrated, of its Gaussians: raw intensity times the unit cubed, without the background.
    semiaxes : ndarray, shape [M, 3]
        Of the ellipsoid that has the voxels' moments, descending, in the unit.
    axes : ndarray, shape [M, 3, 3]
        ``axes[m, n]`` is the unit vector (z, y, x) of ``semiaxes[m, n]``.
    gaussians : ndarray of int, shape [M]
        Number of Gaussians of each object.
    at_border : ndarray of bool, shape [M]
        Whether it touches a face of the stack, and may go on beyond.
    neighbours : tuple of tuple of int
        The labels of those that it touches.
    """

    centre: Floats
    volume: Floats
    surface: Floats
    intensity: Floats
    semiaxes: Floats
    axes: Floats
    gaussians: Indices
    at_border: NDArray[np.bool_]
    neighbours: tuple[tuple[int, ...], ...]

    def __len__(self) -> int:
        """Return the number of objects."""
        return len(self.volume)

    def columns(self) -> dict[str, Any]:
        """Return the columns of a file, by name: those of the table, vectors by their axes."""
        named = list(enumerate("zyx"))
        return {
            "label": np.arange(1, len(self) + 1),
            **{axis: self.centre[:, n] for n, axis in named},
            "volume": self.volume,
            "surface": self.surface,
            "integrated_intensity": self.intensity,
            **{f"semiaxis_{m + 1}": self.semiaxes[:, m] for m in range(3)},
            **{f"axis_{m + 1}_{axis}": self.axes[:, m, n] for m in range(3) for n, axis in named},
            "gaussians": self.gaussians,
            "at_border": self.at_border,
            "neighbours": [" ".join(map(str, touched)) for touched in self.neighbours],
        }


def paint(
    field: GaussianField,
    groups: Groups,
    shape: Shape,
    spacing: Triple,
    level: float | None = None,
) -> tuple[Labels, Groups]:
    """Label the voxels of a stack by the objects that they are in.

    Parameters
    ----------
    field : GaussianField
        The field whose Gaussians were grouped.
    groups : Groups
        The objects, as `group` returned them.
    shape : tuple of int
        Voxels along z, y and x.
    spacing : tuple of float
        (dz, dy, dx) in the field's unit.
    level : float or None
        The least f of a voxel in an object, above the background, in raw intensity; None has
        Otsu's threshold of the stack's f.

    Returns
    -------
    labels : ndarray of int32, shape [Z, Y, X]
        0 where there is no object.
    groups : Groups
        Without objects that are too small, numbered as the labels are.
    """
    return Painter(field, shape, spacing, level).paint(groups)


class Painter:
    """Labels the voxels of a stack, one grouping after another; see `paint`.

    What is the same in two groupings is not done again.

    Parameters
    ----------
    field : GaussianField
        The field whose Gaussians were grouped.
    shape : tuple of int
        Voxels along z, y and x.
    spacing : tuple of float
        (dz, dy, dx) in the field's unit.
    level : float or None
        The least brightness of an object's voxel, as for `paint`.
    """

    def __init__(
        self, field: GaussianField, shape: Shape, spacing: Triple, level: float | None = None
    ) -> None:
        self._field, self._shape, self._spacing = field, shape, spacing
        light = field.voxelise(shape, spacing).numpy() - field.background
        if level is None:
            level = _otsu(light) if np.ptp(light) > 0 else np.inf
        self._dark = light < level
        self._painted: dict[bytes, Painted | None] = {}

    def paint(self, groups: Groups) -> tuple[Labels, Groups]:
        """Label the voxels by the objects that they are in.

        Parameters
        ----------
        groups : Groups
            Which Gaussians make up which object.

        Returns
        -------
        labels : ndarray of int32, shape [Z, Y, X]
            0 where there is no object.
        groups : Groups
            Without objects that are too small, numbered as the labels are.
        """
        shape = self._shape
        brightest, labels = np.zeros(shape, np.float32), np.zeros(shape, np.int32)
        owns = [np.flatnonzero(groups.of == number) for number in range(1, len(groups) + 1)]
        known = self._painted
        self._painted = {}
        for number, own in enumerate(owns, 1):
            key = own.tobytes()
            found = known[key] if key in known else self._light_of(own)
            self._painted[key] = found
            if found is None:
                continue
            window, values = found
            more = values > brightest[window]
            brightest[window][more] = values[more]
            labels[window][more] = number
        labels[self._dark] = 0
        least = SMALLEST * 4 / 3 * np.pi * groups.radius**3 / float(np.prod(self._spacing))
        sizes = np.bincount(labels.reshape(-1), minlength=len(groups) + 1)
        kept = sizes >= max(1.0, float(least))
        kept[0] = False
        names = np.where(kept, np.cumsum(kept), 0)
        return names[labels].astype(np.int32), replace(groups, of=names[groups.of].astype(np.intp))

    def _light_of(self, own: Indices) -> Painted | None:
        """Return a window of voxels around some Gaussians and what they add; None outside."""
        import torch

        numbers, step = self._field.numpy().select(own), np.array(self._spacing)
        reach = _REACH * np.sqrt(np.einsum("kii->ki", numbers.covariances))
        lower = np.ceil((numbers.means - reach) / step).astype(int).clip(0, self._shape)
        upper = np.floor((numbers.means + reach) / step + 1).astype(int).clip(0, self._shape)
        first, end = lower.min(axis=0), upper.max(axis=0)
        if (end <= first).any():
            return None
        depth, rows, columns = (int(n) for n in end - first)
        values = self._field.select(torch.as_tensor(own)).voxelise(
            (depth, rows, columns), self._spacing, origin=tuple(first * step)
        )
        window = tuple(slice(a, b) for a, b in zip(first, end, strict=True))
        return window, np.asarray(values.numpy() - self._field.background, np.float32)


def measure_objects(
    field: GaussianField, groups: Groups, labels: Labels, spacing: Triple
) -> Objects:
    """Measure labelled objects.

    Parameters
    ----------
    field : GaussianField
        The field whose Gaussians were grouped.
    groups : Groups
        As `paint` gave them.
    labels : ndarray of int32, shape [Z, Y, X]
        As `paint` gave them.
    spacing : tuple of float
        (dz, dy, dx) in the field's unit.

    Returns
    -------
    Objects
        A row for each.
    """
    count, step = len(groups), np.array(spacing)
    centre, volume, surface = np.zeros((count, 3)), np.zeros(count), np.zeros(count)
    semiaxes, axes = np.zeros((count, 3)), np.zeros((count, 3, 3))
    border = np.zeros(count, bool)
    for n, window in enumerate(find_objects(labels, count)):
        inside = labels[window] == n + 1
        places = (np.argwhere(inside) + [part.start for part in window]) * step
        centre[n], volume[n] = places.mean(axis=0), len(places) * step.prod()
        # A voxel is itself a box, of variance step^2 / 12.
        moments = np.cov(places.T, bias=True) + np.diag(step**2 / 12)
        values, vectors = np.linalg.eigh(moments)
        semiaxes[n], axes[n] = SEMIAXIS * np.sqrt(values[::-1]), vectors.T[::-1]
        surface[n] = _surface(inside, spacing)
        border[n] = any(
            part.start == 0 or part.stop == side
            for part, side in zip(window, labels.shape, strict=True)
        )
    light = np.bincount(groups.of, field.numpy().integrated_intensities(), count + 1)
    return Objects(
        centre, volume, surface, np.asarray(light[1:], np.float64), semiaxes, axes,
        np.bincount(groups.of, minlength=count + 1)[1:], border, _touching(labels, count),
    )  # fmt: skip


def _surface(inside: NDArray[np.bool_], spacing: Triple) -> float:
    from skimage import measure

    solid = np.pad(inside, 1).astype(np.float32)
    corners, faces, _, _ = _untyped(measure.marching_cubes)(solid, 0.5, spacing=spacing)
    return float(_untyped(measure.mesh_surface_area)(corners, faces))


def _otsu(values: NDArray[Any]) -> float:
    from skimage import filters

    return float(_untyped(filters.threshold_otsu)(values))


def _untyped(function: Any) -> Any:
    """Return what has no types, for a checker that wants them."""
    return function


def _touching(labels: Labels, count: int) -> tuple[tuple[int, ...], ...]:
    """Return for each label those that share a face of a voxel with it."""
    found: list[set[int]] = [set() for _ in range(count + 1)]
    for axis in range(3):
        a = np.take(labels, range(labels.shape[axis] - 1), axis)
        b = np.take(labels, range(1, labels.shape[axis]), axis)
        between = (a != b) & (a > 0) & (b > 0)
        for one, other in np.unique(np.stack([a[between], b[between]], axis=1), axis=0):
            found[one].add(int(other))
            found[other].add(int(one))
    return tuple(tuple(sorted(touched)) for touched in found[1:])
