"""Labels of a stack that is larger than memory: painted, measured and looked at box by box.

The same as `labels` makes of all voxels at once. What is in memory is a box a thread, and what is
known of each Gaussian and object.
"""

from __future__ import annotations

import threading
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_gaussfit._threads import run_pieces
from napari_gaussfit.objects.labels import (
    Painter,
    level_of,
    light_of,
    mixed_cells,
    moments_of,
    named,
    objects_of,
    owners_of,
    surfaces,
    touching,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from napari_gaussfit.model.field import GaussianField
    from napari_gaussfit.objects.grouping import Groups
    from napari_gaussfit.objects.labels import Objects

    Floats = NDArray[np.float64]
    Labels = NDArray[np.int32]
    Shape = tuple[int, int, int]
    Triple = tuple[float, float, float]
    Box = tuple[Shape, Shape]

__all__ = ["BoxedLabels"]

BINS = 256
"""Of the histogram by which the level of light is chosen: as many as Otsu's threshold has."""

REACH = 5.0
"""Sigmas beyond which a Gaussian is of no account to a box."""


class BoxedLabels:
    """Labels of a stack in an array that is written and read by boxes.

    Parameters
    ----------
    field : GaussianField
        The field whose Gaussians were grouped.
    groups : Groups
        The objects, as `group` returned them; none of them shares a mode with another.
    array : array-like of int32, shape [Z, Y, X]
        Of zarr, in chunks of which a box holds whole ones, or any that takes and gives boxes.
    spacing : tuple of float
        (dz, dy, dx) in the field's unit.
    box : int
        Voxels along a side of a box.
    """

    def __init__(
        self, field: GaussianField, groups: Groups, array: Any, spacing: Triple, box: int
    ) -> None:
        self._field, self.groups, self._array, self._spacing = field, groups, array, spacing
        z, y, x = map(int, array.shape)
        self._shape = z, y, x
        self._boxes = [_box(corner, box, self._shape) for corner in _corners(self._shape, box)]
        numbers, step = field.numpy(), np.array(spacing)
        deviations = np.sqrt(np.einsum("kii->ki", numbers.covariances))
        low, high = ((numbers.means + sign * REACH * deviations) / step for sign in (-1.0, 1.0))
        # A mode labels voxels of the smallest box that holds its Gaussians, so all of these count.
        mode = groups.basins
        for bounds, furthest in ((low, np.minimum), (high, np.maximum)):
            of_modes = np.full((mode.max(initial=-1) + 1, 3), np.inf if bounds is low else -np.inf)
            furthest.at(of_modes, mode[mode >= 0], bounds[mode >= 0])
            bounds[mode >= 0] = of_modes[mode[mode >= 0]]
        self._low, self._high = low, high

    def paint(self, level: float | None = None) -> None:
        """Label all voxels; see `labels.paint`.

        Parameters
        ----------
        level : float or None
            The least f of a voxel in an object, as for `labels.paint`.
        """
        least = self._level() if level is None else level
        modes = self.groups.basins
        sizes = np.zeros(modes.max(initial=-1) + 2, np.intp)
        counting = threading.Lock()

        def paint(first: int, _end: int) -> None:
            low, high = self._boxes[first]
            which = self._reaching(low, high)
            painter = Painter(
                self._field.select(_tensor(which)), _size(low, high), self._spacing, least, low
            )
            basins, own = painter.basins(modes[which])
            with counting:
                sizes[: len(own)] += own
            self._array[_slices(low, high)] = basins

        run_pieces(paint, len(self._boxes), most=1)
        owner, _ = owners_of(self.groups, len(sizes))
        names, self.groups = named(self.groups, owner, sizes, self._spacing)

        def name(first: int, _end: int) -> None:
            low, high = self._boxes[first]
            self._array[_slices(low, high)] = names[self._read(low, high)]

        run_pieces(name, len(self._boxes), most=1)

    def measure(self) -> Objects:
        """Measure the labelled objects; see `labels.measure_objects`."""
        count = len(self.groups)
        voxels, centres, moments = np.zeros(count), np.zeros((count, 3)), np.zeros((count, 3, 3))
        surface, border = np.zeros(count), np.zeros(count, np.bool_)
        pairs = [np.empty(0, np.intp)]
        for low, high in self._boxes:
            labels = self._read(low, high)
            own = np.unique(labels[labels > 0]).astype(np.intp)
            if len(own):
                compact = np.searchsorted(own, labels) + 1
                compact[labels == 0] = 0
                found = moments_of(compact.astype(np.int32), len(own))
                _add(voxels, centres, moments, own - 1, found, low)
                border[own - 1] |= self._at_border(compact, len(own), low, high)
            corners = mixed_cells(self._padded(low, high))
            surface += surfaces(corners, count, self._spacing)
            pairs.append(touching(corners, count))
        together = np.unique(np.concatenate(pairs))
        return objects_of(
            self._field, self.groups, self._spacing, (voxels, centres, moments),
            (surface, border, together),
        )  # fmt: skip

    def first_along(self, axis: int) -> Labels:
        """Return the first label of each ray along an axis, which is left out.

        Parameters
        ----------
        axis : int
            0, 1 or 2, for z, y, x.
        """
        seen = np.zeros([n for a, n in enumerate(self._shape) if a != axis], np.int32)
        # Boxes come in the order of their corners, so that those that are nearer come first.
        for low, high in self._boxes:
            labels = self._read(low, high)
            first = np.argmax(labels > 0, axis, keepdims=True)
            own = np.take_along_axis(labels, first, axis).squeeze(axis)
            part = tuple(one for a, one in enumerate(_slices(low, high)) if a != axis)
            seen[part] = np.where(seen[part] > 0, seen[part], own)
        return seen

    def _level(self) -> float:
        """Return Otsu's threshold of f, infinite where f is the same everywhere."""
        ranges = [(light.min(), light.max()) for light in self._lights()]
        lowest, highest = min(a for a, _ in ranges), max(b for _, b in ranges)
        if not highest > lowest:
            return np.inf
        counts = np.zeros(BINS, np.int64)
        for light in self._lights():
            counts += np.histogram(light, BINS, (lowest, highest))[0]
        return level_of(counts, lowest, highest)

    def _lights(self) -> Iterator[NDArray[np.float32]]:
        for low, high in self._boxes:
            field = self._field.select(_tensor(self._reaching(low, high)))
            yield light_of(field, _size(low, high), self._spacing, low)

    def _reaching(self, low: Shape, high: Shape) -> NDArray[np.intp]:
        """Return the Gaussians that a box must know of."""
        inside = (self._high >= np.array(low) - 1) & (self._low <= np.array(high))
        return np.flatnonzero(inside.all(1))

    def _read(self, low: Shape, high: Shape) -> Labels:
        return np.asarray(self._array[_slices(low, high)])

    def _padded(self, low: Shape, high: Shape) -> Labels:
        """Return the labels of a box, and those one voxel before; beyond the stack there are none.

        So each cell between voxels is in one box: the one that holds its last voxel, or the last.
        """
        first = tuple(max(0, n - 1) for n in low)
        before = [int(n == 0) for n in low]
        after = [int(n == size) for n, size in zip(high, self._shape, strict=True)]
        labels = self._read((first[0], first[1], first[2]), high)
        return np.pad(labels, [*zip(before, after, strict=True)])

    def _at_border(
        self, compact: NDArray[np.intp], count: int, low: Shape, high: Shape
    ) -> NDArray[np.bool_]:
        found = np.zeros(count + 1, np.bool_)
        for axis, size in enumerate(self._shape):
            for at, there in ((0, low[axis] == 0), (-1, high[axis] == size)):
                if there:
                    found[np.take(compact, at, axis)] = True
        return found[1:]


def _add(
    voxels: Floats,
    centres: Floats,
    moments: NDArray[np.float64],
    own: NDArray[np.intp],
    found: tuple[Floats, Floats, Floats],
    first: Shape,
) -> None:
    """Add what a box holds of some objects to what is known of them, about their new centres."""
    more, at, spread = found
    at = at + np.array(first)
    total = voxels[own] + more
    share = (more / total)[:, None]
    apart = at - centres[own]
    parted = (share * (1 - share))[:, :, None] * apart[:, :, None] * apart[:, None, :]
    moments[own] = (1 - share)[:, :, None] * moments[own] + share[:, :, None] * spread + parted
    centres[own] += share * apart
    voxels[own] = total


def _corners(shape: Shape, box: int) -> Iterator[Shape]:
    z, y, x = (range(0, size, box) for size in shape)
    yield from product(z, y, x)


def _box(corner: Shape, box: int, shape: Shape) -> Box:
    z, y, x = (min(a + box, n) for a, n in zip(corner, shape, strict=True))
    return corner, (z, y, x)


def _size(low: Shape, high: Shape) -> Shape:
    z, y, x = (b - a for a, b in zip(low, high, strict=True))
    return z, y, x


def _slices(low: Shape, high: Shape) -> tuple[slice, ...]:
    return tuple(slice(a, b) for a, b in zip(low, high, strict=True))


def _tensor(which: NDArray[np.intp]) -> Any:
    import torch

    return torch.as_tensor(which)
