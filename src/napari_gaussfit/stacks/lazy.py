"""Stacks that are too large for memory: read box by box, and known beforehand from a sample.

OME-Zarr is read by chunks, a TIFF by planes, and any array that gives its parts when they are asked
for (zarr, dask, numpy) as it is.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from math import ceil, prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from napari_gaussfit.errors import SettingsError, StackError
from napari_gaussfit.stacks.facts import StackFacts
from napari_gaussfit.stacks.layout import (
    PIXEL_SPACING,
    Spacing,
    checked_spacing,
    origin_of,
    spacing_doubts,
)
from napari_gaussfit.stacks.readers import read_layout, stack_name
from napari_gaussfit.stacks.reading import refusing
from napari_gaussfit.stacks.stack import Stack
from napari_gaussfit.stacks.statistics import smoothed
from napari_gaussfit.stacks.units import standard_unit
from napari_gaussfit.stacks.voxels import finite_voxels, native_type
from napari_gaussfit.stacks.zarr_paths import is_zarr

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from napari_gaussfit.stacks.layout import StackLayout

    Place = tuple[int, int, int]

__all__ = ["LazyStack", "Sample"]

SAMPLE_BOXES = 4
"""Boxes of a sample along each axis at most: 64 of them see what differs from place to place."""

SAMPLE_BOX = 48
"""Voxels along a side of such a box: 7 million in 64 of them, which is read in a second."""


class _Boxes(Protocol):
    """What gives the voxels of boxes."""

    def read(self, box: tuple[slice, slice, slice]) -> NDArray[Any]: ...


@dataclass(frozen=True, eq=False)
class Sample:
    """Boxes of a stack, spread evenly over it, that stand for what was not read.

    Parameters
    ----------
    boxes : tuple of ndarray, each of shape [Z, Y, X]
        Voxels in raw intensity.
    words : str
        How they were drawn.
    """

    boxes: tuple[NDArray[Any], ...]
    words: str

    @property
    def value_range(self) -> tuple[float, float]:
        """The smallest and the largest intensity among them."""
        lowest = min(box.min().item() for box in self.boxes)
        return float(lowest), float(max(box.max().item() for box in self.boxes))

    @cached_property
    def digest(self) -> str:
        """A checksum of the voxels."""
        digest = hashlib.blake2b(digest_size=16)
        for box in self.boxes:
            digest.update(box.tobytes())
        return digest.hexdigest()

    def smoothed(self) -> NDArray[np.float32]:
        """Return all voxels, each box smoothed as `statistics.smoothed` does, in one row."""
        return np.concatenate([smoothed(box.astype(np.float32)).reshape(-1) for box in self.boxes])


@dataclass(frozen=True, eq=False)
class LazyStack:
    """One channel of a stack at one time, whose voxels are read when they are asked for.

    Made by `LazyStack.open` or `LazyStack.from_array`. Where it was opened from a file, another
    process gets the path, not the voxels.

    Parameters
    ----------
    boxes : object
        Reads the voxels of a box.
    facts : StackFacts
        Name, shape, spacing and place; no range, which is known only when all was read.
    dtype : numpy.dtype
        Type of the voxels.
    notes : tuple of str
        Sentences on what was assumed, for the user to read.
    fill_nan : float or None
        The value to put in place of NaN and infinities; without it, they are refused when read.
    source : Path or None
        The file that it came from.
    """

    boxes: _Boxes
    facts: StackFacts
    dtype: np.dtype[Any]
    notes: tuple[str, ...] = ()
    fill_nan: float | None = None
    source: Path | None = None

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        channel: int | None = None,
        time: int | None = None,
        position: int | None = None,
        spacing: Sequence[float] | None = None,
        fill_nan: float | None = None,
    ) -> LazyStack:
        """Open a file without reading its voxels.

        Parameters
        ----------
        path : path-like
            An OME-Zarr (of several resolutions the finest; ``BIG.ome.zarr/1`` is the second), or a
            TIFF whose planes can be read one by one.
        channel, time, position : int, optional
            Which channel, time and image of the file, as for `Stack.open`.
        spacing : sequence of float, optional
            (dz, dy, dx) in micrometres, in place of what the file says.
        fill_nan : float, optional
            The value to put in place of NaN and infinities.

        Raises
        ------
        StackError, StackNotFoundError, SettingsError
            As for `Stack.open`.
        """
        source = Path(path)
        given = None if spacing is None else checked_spacing(spacing)
        layout = read_layout(source, position=position)
        channel, time = layout.choose(channel, time)
        boxes: _Boxes = _ZarrBoxes(layout, channel, time)
        if not is_zarr(source):
            boxes = _TiffPlanes(layout, channel, time)
        facts = StackFacts(
            stack_name(source),
            layout.stack_shape,
            given or layout.scale,
            "micrometer" if given else layout.unit,
            origin_of(layout, given),
            channel,
            time,
        )
        spacing_notes = layout.spacing_notes if given is None else spacing_doubts(given)
        notes = layout.axis_notes + spacing_notes
        return cls(boxes, facts, np.dtype(layout.dtype), notes, fill_nan, source)

    @classmethod
    def from_array(
        cls,
        array: Any,
        *,
        spacing: Sequence[float] | None = None,
        unit: str = "micrometer",
        name: str = "stack",
        fill_nan: float | None = None,
    ) -> LazyStack:
        """Take an array that gives its parts when they are asked for.

        Parameters
        ----------
        array : array-like, shape [Z, Y, X]
            Of zarr, dask or numpy: with ``shape``, ``dtype`` and parts by slices.
        spacing : sequence of float, optional
            (dz, dy, dx) in `unit`. Without it, lengths are in pixels.
        unit : str
            A unit of length, converted to micrometres, or "pixel".
        name : str
            What to call it.
        fill_nan : float, optional
            The value to put in place of NaN and infinities.

        Raises
        ------
        StackError
            If it has not three axes of two voxels or more, or no real numbers.
        SettingsError
            If the spacing or the unit is not one.
        """
        shape, dtype = tuple(map(int, array.shape)), np.dtype(array.dtype)
        if len(shape) != 3 or min(shape) < 2:
            raise StackError(
                f"{name}: has shape {' x '.join(map(str, shape))}; expected three axes z, y, x "
                "with two voxels or more along each; choose one channel and one time first"
            )
        native_type(np.empty(0, dtype), name)
        known, step = "pixel", PIXEL_SPACING
        if spacing is not None:
            known, factor = standard_unit(unit)
            dz, dy, dx = (factor * length for length in checked_spacing(spacing))
            step = (dz, dy, dx)
        facts = StackFacts(name, (shape[0], shape[1], shape[2]), step, known)
        return cls(_ArrayBoxes(array), facts, dtype, fill_nan=fill_nan)

    @classmethod
    def of_stack(cls, stack: Stack) -> LazyStack:
        """Return a stack whose voxels are in memory already.

        Parameters
        ----------
        stack : Stack
            The stack that is searched: one channel at one time.
        """
        facts = replace(stack.facts, value_range=None)
        boxes = _ArrayBoxes(stack.voxels)
        return cls(boxes, facts, stack.voxels.dtype, stack.notes, source=stack.source)

    @property
    def shape(self) -> tuple[int, int, int]:
        """The number of voxels along z, y and x."""
        return self.facts.shape

    @property
    def spacing(self) -> Spacing:
        """(dz, dy, dx) in the stack's unit."""
        return self.facts.spacing

    @property
    def nbytes(self) -> int:
        """The size of all voxels in bytes."""
        return prod(self.shape) * self.dtype.itemsize

    def read(self, first: Place, end: Place) -> NDArray[Any]:
        """Read the voxels of a box, and no others but for those of the same chunks or planes.

        Parameters
        ----------
        first, end : tuple of int
            Its first voxel (z, y, x), and the one behind its last.

        Returns
        -------
        ndarray, shape [Z, Y, X]
            In this machine's byte order, finite.

        Raises
        ------
        StackError
            If it cannot be read, or is not finite and there is nothing to fill it with.
        """
        z, y, x = (slice(a, b) for a, b in zip(first, end, strict=True))
        label = f"{self.source or self.facts.name} at voxel {first[0]}, {first[1]}, {first[2]}"
        with refusing(Path(label), "voxels", StackError):
            voxels = np.asarray(self.boxes.read((z, y, x)))
        return finite_voxels(native_type(voxels, label), label, self.fill_nan)[0]

    def part(self, first: Place, end: Place) -> LazyStack:
        """Return a box of this stack as one of its own, whose origin is where it lies.

        Parameters
        ----------
        first, end : tuple of int
            Its first voxel (z, y, x), and the one behind its last.

        Returns
        -------
        LazyStack
            Of which nothing is read yet.

        Raises
        ------
        SettingsError
            If it is no box of two voxels or more along each axis, inside of the stack.
        """
        if not all(
            0 <= a < b - 1 and b <= n for a, b, n in zip(first, end, self.shape, strict=True)
        ):
            raise SettingsError(
                f"part {first} to {end}: expected the first voxel (z, y, x) and the one behind the "
                f"last, two or more along each axis, in a stack of "
                f"{' x '.join(map(str, self.shape))}"
            )
        z, y, x = (b - a for a, b in zip(first, end, strict=True))
        moved = np.add(self.facts.origin, np.multiply(first, self.spacing)).tolist()
        facts = replace(self.facts, shape=(z, y, x), origin=(moved[0], moved[1], moved[2]))
        return replace(self, boxes=_PartBoxes(self.boxes, first), facts=facts)

    def sample(self) -> Sample:
        """Read boxes that are spread evenly over the stack; all of one that is no larger.

        Returns
        -------
        Sample
            The same each time.
        """
        if prod(self.shape) <= SAMPLE_BOXES**3 * SAMPLE_BOX**3:
            return Sample((self.read((0, 0, 0), self.shape),), "all of its voxels")
        boxes = tuple(self.read(first, end) for first, end in _spread(self.shape))
        voxels = sum(box.size for box in boxes)
        words = (
            f"a sample of {voxels:,} of its {prod(self.shape):,} voxels: {len(boxes)} boxes of "
            f"{' x '.join(map(str, boxes[0].shape))}, spread evenly"
        )
        return Sample(boxes, words)


def _spread(shape: Place) -> Iterator[tuple[Place, Place]]:
    """Yield the corners of boxes in the middles of even parts of a stack."""
    starts = []
    sides = [min(size, SAMPLE_BOX) for size in shape]
    for size, side in zip(shape, sides, strict=True):
        count = min(SAMPLE_BOXES, ceil(size / side))
        middles = (np.arange(count) + 0.5) * size / count
        starts.append([int(min(max(0, m - side // 2), size - side)) for m in middles])
    for z, y, x in product(*starts):
        yield (z, y, x), (z + sides[0], y + sides[1], x + sides[2])


class _ArrayBoxes:
    """Boxes of an array that gives its parts."""

    def __init__(self, array: Any) -> None:
        self._array = array

    def read(self, box: tuple[slice, slice, slice]) -> NDArray[Any]:
        return np.asarray(self._array[box])


class _PartBoxes:
    """Boxes of a part, counted from its first voxel."""

    def __init__(self, whole: _Boxes, first: Place) -> None:
        self._whole, self._first = whole, first

    def read(self, box: tuple[slice, slice, slice]) -> NDArray[Any]:
        z, y, x = (slice(a.start + n, a.stop + n) for a, n in zip(box, self._first, strict=True))
        return self._whole.read((z, y, x))


class _FileBoxes:
    """Boxes of one channel of a file at one time."""

    def __init__(self, layout: StackLayout, channel: int | None, time: int | None) -> None:
        self._layout = layout
        self._chosen = {"C": channel or 0, "T": time or 0}

    def _selection(self, box: tuple[slice, slice, slice]) -> Mapping[str, int | slice]:
        z, y, x = box
        return {**self._chosen, "Z": z, "Y": y, "X": x}


class _TiffPlanes(_FileBoxes):
    def read(self, box: tuple[slice, slice, slice]) -> NDArray[Any]:
        from napari_gaussfit.stacks.tiff import read_box

        return read_box(self._layout, self._selection(box))


class _ZarrBoxes(_FileBoxes):
    def read(self, box: tuple[slice, slice, slice]) -> NDArray[Any]:
        from napari_gaussfit.stacks.ome_zarr import read_box
        from napari_gaussfit.stacks.zarr_image import kept_open

        image = kept_open(self._layout.path, self._layout.image)
        return read_box(self._layout, image, self._selection(box))
