"""Labels: an object's voxels, and what there is to measure of it.

A voxel is in the basin of the mode whose Gaussians add most there, where f is bright enough, and
in the object that this basin is part of.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

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

__all__ = ["Objects", "Painter", "level_of", "measure_objects", "named", "owners_of", "paint"]

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

    A voxel is in the basin of the mode whose Gaussians add most there. That takes long and is done
    once; of objects that are made of whole basins, a voxel's label is looked up by its basin.

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
    first : tuple of int
        The first voxel (z, y, x) that is painted, where these are a part of a stack.
    """

    def __init__(
        self,
        field: GaussianField,
        shape: Shape,
        spacing: Triple,
        level: float | None = None,
        first: Shape = (0, 0, 0),
    ) -> None:
        self._field, self._shape, self._spacing, self._first = field, shape, spacing, first
        light = light_of(field, shape, spacing, first)
        if level is None:
            level = _otsu(light) if np.ptp(light) > 0 else np.inf
        self._dark = light < level
        self._modes: Indices | None = None
        self._basins, self._sizes = np.zeros(shape, np.int32), np.zeros(1, np.intp)

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
        parts, sizes = self.basins(groups.basins)
        owner, pairs = owners_of(groups, len(sizes))
        if pairs.size:
            parts = self._contested(groups, pairs)
            owner = np.concatenate([owner, np.arange(1, len(groups) + 1)])
            sizes = np.bincount(parts.reshape(-1), minlength=len(owner))
        names, groups = named(groups, owner, sizes, self._spacing)
        return names[parts], groups

    def basins(self, modes: Indices) -> tuple[Labels, Indices]:
        """Return the basin that each voxel is in.

        Parameters
        ----------
        modes : ndarray of int, shape [K]
            The mode of each Gaussian, from 0; -1 of none.

        Returns
        -------
        basins : ndarray of int32, shape [Z, Y, X]
            From 1, by the number of their mode; 0 where it is dark.
        sizes : ndarray of int
            Voxels of each.
        """
        if self._modes is None or not np.array_equal(self._modes, modes):
            self._divide(modes)
        return self._basins, self._sizes

    def _divide(self, modes: Indices) -> None:
        """Give each voxel that is bright enough the number of its mode's basin, from 1."""
        brightest = np.zeros(self._shape, np.float32)
        basins = np.zeros(self._shape, np.int32)
        for mode in np.unique(modes[modes >= 0]):
            self._take(np.flatnonzero(modes == mode), int(mode) + 1, basins, brightest)
        basins[self._dark] = 0
        self._modes, self._basins = modes, basins
        self._sizes = np.bincount(basins.reshape(-1), minlength=int(modes.max(initial=-1)) + 2)
        self._sizes[0] = 0

    def _contested(self, groups: Groups, pairs: Indices) -> Labels:
        """Return the basins, those in several objects divided among these by which adds most.

        Parts of objects are numbered on from the basins, in the order of the objects.
        """
        brightest, parts = np.zeros(self._shape, np.float32), self._basins.copy()
        for number in np.unique(pairs[1]):
            among = np.zeros(len(self._sizes), bool)
            among[pairs[0, pairs[1] == number]] = True
            own = np.flatnonzero(groups.of == number)
            self._take(own, len(self._sizes) - 1 + int(number), parts, brightest, among)
        return parts

    def _take(
        self,
        own: Indices,
        number: int,
        numbers: Labels,
        brightest: NDArray[np.float32],
        among: NDArray[np.bool_] | None = None,
    ) -> None:
        """Set the number of voxels where some Gaussians add most, within some basins if any."""
        found = self._light_of(own)
        if found is None:
            return
        window, values = found
        more = values > brightest[window]
        if among is not None:
            more &= among[self._basins[window]]
        brightest[window][more] = values[more]
        numbers[window][more] = number

    def _light_of(self, own: Indices) -> Painted | None:
        """Return a window of voxels around some Gaussians and what they add; None outside."""
        import torch

        numbers, step = self._field.numpy().select(own), np.array(self._spacing)
        reach = _REACH * np.sqrt(np.einsum("kii->ki", numbers.covariances))
        lower = np.ceil((numbers.means - reach) / step).astype(int).min(axis=0)
        upper = np.floor((numbers.means + reach) / step + 1).astype(int).max(axis=0)
        first, end = (np.clip(one - self._first, 0, self._shape) for one in (lower, upper))
        if (end <= first).any():
            return None
        depth, rows, columns = (int(n) for n in end - first)
        values = self._field.select(torch.as_tensor(own)).voxelise(
            (depth, rows, columns), self._spacing, origin=tuple((first + self._first) * step)
        )
        window = tuple(slice(a, b) for a, b in zip(first, end, strict=True))
        return window, np.asarray(values.numpy() - self._field.background, np.float32)


def light_of(
    field: GaussianField, shape: Shape, spacing: Triple, first: Shape = (0, 0, 0)
) -> NDArray[np.float32]:
    """Return f without its background in voxels, of which the first lies anywhere.

    Parameters
    ----------
    field : GaussianField
        The field that is looked at.
    shape : tuple of int
        Voxels along z, y and x.
    spacing : tuple of float
        (dz, dy, dx) in the field's unit.
    first : tuple of int
        The first of them (z, y, x), counted from the stack's.

    Returns
    -------
    ndarray of float32, shape [Z, Y, X]
        In raw intensity.
    """
    origin = tuple(n * d for n, d in zip(first, spacing, strict=True))
    light: NDArray[np.float32] = field.voxelise(shape, spacing, origin=origin).numpy()
    return light - field.background


def owners_of(groups: Groups, count: int) -> tuple[Indices, Indices]:
    """Return which object each basin is part of, and the basins that are part of several.

    Parameters
    ----------
    groups : Groups
        Which Gaussians make up which object.
    count : int
        Basins, with 0 for none.

    Returns
    -------
    owners : ndarray of int, shape [count]
        0 of those that are part of none.
    shared : ndarray of int, shape [2, P]
        Pairs of a basin and an object, of basins that are part of several.
    """
    owner = np.zeros(count, np.intp)
    of_some = groups.of > 0
    pairs = np.unique(np.stack([groups.basins[of_some] + 1, groups.of[of_some]]), axis=1)
    owner[pairs[0]] = pairs[1]
    shared = np.bincount(pairs[0], minlength=count) > 1
    return owner, pairs[:, shared[pairs[0]]]


def named(groups: Groups, owner: Indices, sizes: Indices, spacing: Triple) -> tuple[Labels, Groups]:
    """Return the label of each basin, and the objects that are large enough to have one.

    Parameters
    ----------
    groups : Groups
        Which Gaussians make up which object.
    owner, sizes : ndarray of int
        Of each basin its object, and its voxels.
    spacing : tuple of float
        (dz, dy, dx) in the field's unit.

    Returns
    -------
    labels : ndarray of int32
        Of each basin; 0 of those of no object.
    groups : Groups
        Without the objects that are too small, numbered as labels are.
    """
    least = SMALLEST * 4 / 3 * np.pi * groups.radius**3 / float(np.prod(spacing))
    kept = np.bincount(owner, sizes, len(groups) + 1) >= max(1.0, float(least))
    kept[0] = False
    names = np.where(kept, np.cumsum(kept), 0)
    return names[owner].astype(np.int32), replace(groups, of=names[groups.of].astype(np.intp))


def level_of(counts: NDArray[np.int64], lowest: np.float32, highest: np.float32) -> float:
    """Return Otsu's threshold of a histogram, as that of the values themselves.

    Parameters
    ----------
    counts : ndarray of int
        Values in even bins.
    lowest, highest : float32
        Where the first bin begins and the last one ends.

    Returns
    -------
    float
        In the values' unit.
    """
    from skimage import filters

    edges = np.histogram_bin_edges(np.array([lowest, highest]), len(counts))
    hist = counts.astype(np.float32), (edges[:-1] + edges[1:]) / 2
    return float(_untyped(filters.threshold_otsu)(hist=hist))


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
    count = len(groups)
    corners = mixed_cells(np.pad(labels, 1))
    return objects_of(
        field,
        groups,
        spacing,
        moments_of(labels, count),
        (surfaces(corners, count, spacing), at_border(labels, count), touching(corners, count)),
    )


def objects_of(
    field: GaussianField,
    groups: Groups,
    spacing: Triple,
    moments: tuple[Floats, Floats, Floats],
    faces: tuple[Floats, NDArray[np.bool_], Indices],
) -> Objects:
    """Return a table of objects, of what was summed over their voxels.

    Parameters
    ----------
    field : GaussianField
        The field whose Gaussians were grouped.
    groups : Groups
        The objects, numbered as the labels are.
    spacing : tuple of float
        (dz, dy, dx) in the field's unit.
    moments : tuple of ndarray
        Moments of each label, as `moments_of` gives them.
    faces : tuple of ndarray
        As of `surfaces`, `at_border` and `touching`.

    Returns
    -------
    Objects
        A row for each.
    """
    count, step = len(groups), np.array(spacing)
    volume, centre, spread = moments
    values, vectors = np.linalg.eigh(spread * np.outer(step, step) + np.diag(step**2 / 12))
    light = np.bincount(groups.of, field.numpy().integrated_intensities(), count + 1)
    surface, border, pairs = faces
    return Objects(
        centre * step,
        volume * step.prod(),
        surface,
        np.asarray(light[1:], np.float64),
        SEMIAXIS * np.sqrt(values[:, ::-1]),
        vectors.swapaxes(1, 2)[:, ::-1],
        np.bincount(groups.of, minlength=count + 1)[1:],
        border,
        _neighbours(pairs, count),
    )


def moments_of(labels: Labels, count: int) -> tuple[Floats, Floats, Floats]:
    """Return how many voxels each label has [M], their mean [M, 3] and covariance [M, 3, 3].

    Parameters
    ----------
    labels : ndarray of int32, shape [Z, Y, X]
        0 where there is no object.
    count : int
        How many labels there are.

    Returns
    -------
    tuple of ndarray
        In voxels.
    """
    inside = np.flatnonzero(labels)
    own = labels.reshape(-1)[inside]
    places = [part.astype(np.float64) for part in np.unravel_index(inside, labels.shape)]
    voxels = np.bincount(own, minlength=count + 1)[1:].astype(np.float64)
    centre = np.stack([np.bincount(own, at, count + 1)[1:] / voxels for at in places], axis=1)
    # About the centres, of which the squares of a large stack's places would leave little.
    away = [at - np.append(0.0, centre[:, n])[own] for n, at in enumerate(places)]
    moments = np.empty((count, 3, 3))
    for a in range(3):
        for b in range(a + 1):
            product = np.bincount(own, away[a] * away[b], count + 1)[1:] / voxels
            moments[:, a, b] = moments[:, b, a] = product
    return voxels, centre, moments


def mixed_cells(padded: Labels) -> Labels:
    """Return the labels at the corners [8, B] of those cells between voxels that have several.

    The corner at (dz, dy, dx) is number 4 dz + 2 dy + dx.

    Parameters
    ----------
    padded : ndarray of int32
        Labels, with a voxel of no object beyond the faces of the stack.

    Returns
    -------
    ndarray of int32, shape [8, B]
        A column for each such cell.
    """
    along_x = padded[:, :, 1:] != padded[:, :, :-1]
    along_y = padded[:, 1:, :-1] != padded[:, :-1, :-1]
    mixed = padded[1:, :-1, :-1] != padded[:-1, :-1, :-1]
    # Seven edges that reach all corners.
    for edges in (along_x[:, 1:], along_x[:, :-1], along_y):
        mixed |= edges[1:]
        mixed |= edges[:-1]
    at = np.flatnonzero(mixed)
    z, y, x = np.unravel_index(at, mixed.shape)
    _, rows, columns = padded.shape
    first = (z * rows + y) * columns + x
    flat = padded.reshape(-1)
    return np.stack(
        [flat[first + (dz * rows + dy) * columns + dx] for dz, dy, dx in np.ndindex(2, 2, 2)]
    )


def surfaces(corners: Labels, count: int, spacing: Triple) -> Floats:
    """Return the area of each label's mesh: a cell's part follows from which corners are inside.

    Parameters
    ----------
    corners : ndarray of int32, shape [8, B]
        Cells at surfaces, as `mixed_cells` gives them.
    count : int
        How many labels there are.
    spacing : tuple of float
        (dz, dy, dx) in the field's unit.

    Returns
    -------
    ndarray, shape [count]
        In the unit squared.
    """
    areas = _cell_areas(spacing)
    found = np.zeros(count + 1)
    for own in corners:
        inside = np.zeros(len(own), np.uint8)
        for n, other in enumerate(corners):
            inside |= (other == own).astype(np.uint8) << n
        found += np.bincount(own, areas[inside], count + 1)
    return found[1:]


@functools.lru_cache(maxsize=16)
def _cell_areas(spacing: Triple) -> Floats:
    """Return the area in a cell, by the bits of its corners inside, over their number [256]."""
    from skimage import measure

    areas = np.zeros(256)
    for bits in range(1, 255):
        inside = (bits >> np.arange(8) & 1).astype(np.float32)
        cell = inside.reshape(2, 2, 2)
        points, faces, _, _ = _untyped(measure.marching_cubes)(cell, 0.5, spacing=spacing)
        areas[bits] = _untyped(measure.mesh_surface_area)(points, faces) / inside.sum()
    return areas


def at_border(labels: Labels, count: int) -> NDArray[np.bool_]:
    """Tell which labels have voxels at a face of the stack.

    Parameters
    ----------
    labels : ndarray of int32, shape [Z, Y, X]
        0 where there is no object.
    count : int
        How many labels there are.

    Returns
    -------
    ndarray of bool, shape [count]
        Whether each does.
    """
    found = np.zeros(count + 1, bool)
    for axis in range(3):
        for at in (0, -1):
            found[np.take(labels, at, axis)] = True
    return found[1:]


def _otsu(values: NDArray[Any]) -> float:
    from skimage import filters

    return float(_untyped(filters.threshold_otsu)(values))


def _untyped(function: Any) -> Any:
    """Return what has no types, for a checker that wants them."""
    return function


def touching(corners: Labels, count: int) -> Indices:
    """Return which labels share a face of a voxel: one times (count + 1) plus the other.

    Parameters
    ----------
    corners : ndarray of int32, shape [8, B]
        Cells at surfaces, as `mixed_cells` gives them.
    count : int
        How many labels there are.

    Returns
    -------
    ndarray of int
        Each pair once, both ways round.
    """
    pairs = [np.empty(0, np.int64)]
    for step in (1, 2, 4):
        for n in range(8):
            if n & step:
                continue
            one, other = corners[n].astype(np.int64), corners[n | step]
            touch = (one != other) & (one > 0) & (other > 0)
            pairs.append(one[touch] * (count + 1) + other[touch])
    return np.unique(np.concatenate(pairs))


def _neighbours(pairs: Indices, count: int) -> tuple[tuple[int, ...], ...]:
    """Return for each label those that touch it."""
    found: list[set[int]] = [set() for _ in range(count + 1)]
    for one, other in zip(*np.divmod(pairs, count + 1), strict=True):
        found[one].add(int(other))
        found[other].add(int(one))
    return tuple(tuple(sorted(touched)) for touched in found[1:])
