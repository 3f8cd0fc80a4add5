"""A stack: the voxels of one channel at one time, with their spacing and unit.

Knows no file format; `Stack.open` asks `readers` for the module that reads the file.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_gaussfit.errors import SettingsError, StackError
from napari_gaussfit.stacks.facts import StackFacts, box_of
from napari_gaussfit.stacks.labelled import is_labelled, read_labelled
from napari_gaussfit.stacks.layout import (
    PIXEL_SPACING,
    Spacing,
    checked_spacing,
    origin_of,
    spacing_doubts,
)
from napari_gaussfit.stacks.readers import read_layout, read_voxels, stack_name
from napari_gaussfit.stacks.units import standard_unit
from napari_gaussfit.stacks.voxels import checked_voxels

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

__all__ = ["Stack"]


@dataclass(frozen=True, eq=False)
class Stack:
    """One channel of a microscopy stack at one time.

    Made by `Stack.open` or `Stack.from_array`, which see to it that what the fields promise holds.

    Parameters
    ----------
    voxels : array, shape [Z, Y, X]
        Intensities as they were recorded, any integer or real type; finite, not all the same,
        at least two along each axis.
    spacing : tuple of float
        (dz, dy, dx), the distances between voxel centres in `unit`. Voxel (i, j, k) is centred
        at (i dz, j dy, k dx).
    unit : str
        "micrometer" where the spacing is known, else "pixel".
    name : str
        What to call it.
    source : Path or None
        The file that it came from.
    channel, time : int or None
        Which channel and time of the file, None where the file has but one.
    notes : tuple of str
        What was assumed, each with the option that settles it.
    position : int or None
        Which image of the file, None where the file has but one.
    origin : tuple of float
        Where the file says that the first voxel's centre lies (z, y, x), in `unit`. All positions
        count from that voxel; this says where it is, so that layers lie upon each other.
    """

    voxels: NDArray[Any]
    spacing: Spacing
    unit: str
    name: str
    source: Path | None = None
    channel: int | None = None
    time: int | None = None
    notes: tuple[str, ...] = ()
    position: int | None = None
    origin: Spacing = (0.0, 0.0, 0.0)

    @classmethod
    def from_array(
        cls,
        voxels: ArrayLike,
        *,
        spacing: Sequence[float] | None = None,
        unit: str = "micrometer",
        name: str | None = None,
        fill_nan: float | None = None,
        channel: int | str | None = None,
        time: int | str | None = None,
    ) -> Stack:
        """Make a stack of an array.

        Parameters
        ----------
        voxels : array-like, shape [Z, Y, X]
            Integers, reals or booleans. Not copied if it can be helped. One of xarray's tells its
            axes, spacing and origin by dims, coordinates and their units.
        spacing : sequence of float, optional
            (dz, dy, dx) in `unit`. Without it, lengths are in pixels.
        unit : str
            A unit of length, converted to micrometres, or "pixel".
        name : str, optional
            What to call it, in messages too.
        fill_nan : float, optional
            The value to put in place of NaN and infinities. Without it, they are refused.
        channel, time : int or str, optional
            Which one of an array of xarray's that has several, from 0 or by its coordinate.

        Raises
        ------
        StackError
            If the voxels are no 3D stack that can be fitted.
        SettingsError
            If the spacing, the unit or the filling value is not one.
        """
        if is_labelled(voxels):
            told = read_labelled(voxels, channel=channel, time=time)
            origin: Spacing = (0.0, 0.0, 0.0)
            if spacing is None and told.spacing is not None:
                spacing, unit, origin = told.spacing, "micrometer", told.origin
            plain = cls.from_array(
                told.voxels, spacing=spacing, unit=unit, name=name or told.name, fill_nan=fill_nan
            )
            return replace(plain, channel=told.channel, time=told.time, origin=origin)
        if (channel, time) != (None, None):
            raise SettingsError(
                "channel and time are of files and of xarray's arrays, whose axes have names; take "
                "array[channel] first"
            )
        name = name or "stack"
        checked, notes = checked_voxels(np.asarray(voxels), name, fill_nan)
        if spacing is None:
            note = (
                "no spacing is given, so lengths are in pixels; "
                "give spacing=(dz, dy, dx) in micrometers (--spacing DZ DY DX)"
            )
            return cls(checked, PIXEL_SPACING, "pixel", name, notes=(*notes, note))
        known, factor = standard_unit(unit)
        dz, dy, dx = checked_spacing(spacing)
        given = (dz * factor, dy * factor, dx * factor)
        return cls(checked, given, known, name, notes=notes + spacing_doubts(given, known))

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        channel: int | str | None = None,
        time: int | None = None,
        position: int | None = None,
        spacing: Sequence[float] | None = None,
        fill_nan: float | None = None,
    ) -> Stack:
        """Read a stack from a file.

        Parameters
        ----------
        path : path-like
            A TIFF, BigTIFF, ImageJ hyperstack or OME-TIFF, or the folder of an OME-Zarr.
        channel, time : int, optional
            Which one to read; must be given where the file has several. A channel also by the name
            that the file gives it.
        position : int, optional
            Which image to read of a file that holds several, such as positions of a stage. By
            default the first with a z axis; a note says so.
        spacing : sequence of float, optional
            (dz, dy, dx) in micrometres, in place of what the file says.
        fill_nan : float, optional
            The value to put in place of NaN and infinities. Without it, they are refused.

        Raises
        ------
        StackNotFoundError
            If there is no such file.
        StackError
            If the file holds no 3D stack that can be fitted, or leaves open which channel or time
            to take.
        SettingsError
            If the spacing or the filling value is not one.
        """
        source = Path(path)
        given = None if spacing is None else checked_spacing(spacing)
        layout = read_layout(source, position=position)
        channel, time = layout.choose(channel, time)
        voxels, fill_notes = checked_voxels(
            read_voxels(layout, channel=channel, time=time), str(source), fill_nan
        )
        spacing_notes = layout.spacing_notes if given is None else spacing_doubts(given)
        return cls(
            voxels=voxels,
            spacing=given or layout.scale,
            unit="micrometer" if given else layout.unit,
            name=stack_name(source),
            source=source,
            channel=channel,
            time=time,
            notes=layout.axis_notes + spacing_notes + fill_notes,
            position=layout.image if len(layout.positions) > 1 else None,
            origin=origin_of(layout, given),
        )

    @classmethod
    def open_channels(
        cls,
        path: str | os.PathLike[str],
        channels: Sequence[int | str] | None = None,
        *,
        time: int | None = None,
        position: int | None = None,
        spacing: Sequence[float] | None = None,
        fill_nan: float | None = None,
    ) -> tuple[Stack, ...]:
        """Read several channels of a file, a stack each, all of one shape and spacing.

        Parameters
        ----------
        path : path-like
            The file or folder, as `Stack.open` takes it.
        channels : sequence of int or str, optional
            Which ones, from 0 or by their names in the file; all by default.
        time : int, optional
            Which one; must be given where the file has several.
        position : int, optional
            Which image of the file, as for `open`.
        spacing : sequence of float, optional
            (dz, dy, dx) in micrometres, in place of what the file says.
        fill_nan : float, optional
            The value to put in place of NaN and infinities.

        Returns
        -------
        tuple of Stack
            In the order asked for.

        Raises
        ------
        StackError, StackNotFoundError, SettingsError
            As for `open`.
        """
        layout = read_layout(path, position=position)
        return tuple(
            cls.open(
                path,
                channel=channel,
                time=time,
                position=position,
                spacing=spacing,
                fill_nan=fill_nan,
            )
            for channel in (range(layout.channels) if channels is None else channels)
        )

    def __repr__(self) -> str:
        """Say in a line which stack it is."""
        return f"Stack({self.name!r}: {self._size}, {self.voxels.dtype})"

    def _repr_html_(self) -> str:
        """Show it in a notebook: its MIP along z, and what is known of it."""
        from napari_gaussfit.stacks.html import picture, shown_together, table

        low, high = self.value_range
        rows = [("stack", self.name), ("size", self._size), ("intensity", f"{low:g} to {high:g}")]
        rows += [("note", note) for note in self.notes]
        mip = picture(self.voxels.max(0), self.spacing[1:], f"{self.name}, MIP along z")
        return shown_together(mip, table(rows))

    @property
    def _size(self) -> str:
        spacing = " x ".join(f"{step:g}" for step in self.spacing)
        return f"{' x '.join(map(str, self.shape))} voxels (z, y, x) of {spacing} {self.unit}"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:  # noqa: FBT001
        """Return the voxels [Z, Y, X], which NumPy asks for."""
        return np.array(self.voxels, dtype=dtype, copy=copy)

    def __getitem__(self, box: Any) -> Stack:
        """Return a part of the stack, as in ``stack[0:10, 20:80]``; its origin tells where it is.

        Parameters
        ----------
        box : slice or tuple of slice
            Along z, y and x; steps of more than one take every second, third, .. voxel.

        Raises
        ------
        StackError
            If the part is no stack: fewer than two voxels along an axis, or backwards.
        """
        cuts = box if isinstance(box, tuple) else (box,)
        whole = [cut for cut in cuts if isinstance(cut, slice)]
        if len(whole) != len(cuts) or len(cuts) > 3:
            raise StackError(
                f"{self.name}: a part of a stack is stack[0:10] or stack[0:10, 20:80, :]; planes "
                "and voxels are those of stack.voxels"
            )
        ranges = [range(n)[cut] for n, cut in zip(self.shape, whole, strict=False)]
        ranges += [range(n) for n in self.shape[len(ranges) :]]
        if any(len(part) < 2 or part.step < 1 for part in ranges):
            found = " x ".join(str(len(part)) for part in ranges)
            raise StackError(
                f"{self.name}: that part of it has {found} voxels; expected two or more along each "
                "axis, in order"
            )
        first = (self.origin[n] + self.spacing[n] * ranges[n].start for n in range(3))
        steps = (self.spacing[n] * ranges[n].step for n in range(3))
        voxels = self.voxels[tuple(slice(part[0], part[-1] + 1, part.step) for part in ranges)]
        (z, y, x), (dz, dy, dx) = first, steps
        return replace(
            self, voxels=np.ascontiguousarray(voxels), origin=(z, y, x), spacing=(dz, dy, dx)
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """The number of voxels along z, y and x."""
        z, y, x = self.voxels.shape
        return z, y, x

    @property
    def spacing_known(self) -> bool:
        """Whether lengths are in micrometres rather than pixels."""
        return self.unit != "pixel"

    @property
    def nbytes(self) -> int:
        """The size of the voxels in bytes."""
        return int(self.voxels.nbytes)

    @cached_property
    def value_range(self) -> tuple[float, float]:
        """The smallest and the largest intensity."""
        return float(self.voxels.min()), float(self.voxels.max())

    @property
    def facts(self) -> StackFacts:
        """What is known of the stack beside its voxels."""
        return StackFacts(
            self.name,
            self.shape,
            self.spacing,
            self.unit,
            self.origin,
            self.channel,
            self.time,
            self.value_range,
        )

    @property
    def box(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The lower and upper corner, each [3] zyx in `unit`, half a voxel beyond the centres."""
        return box_of(self.shape, self.spacing)
