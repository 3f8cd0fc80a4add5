"""What a file says about its stack before any voxel is read: axes, sizes, spacing, unit.

Knows no file format. A format's reader hands over what the file names, and this module decides
what that means: which axis is z, which choices are open, whether the spacing is known.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import isfinite, prod
from typing import TYPE_CHECKING

from napari_gaussfit._limits import SPACINGS
from napari_gaussfit.errors import SettingsError, StackError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np

__all__ = [
    "PIXEL_SPACING",
    "Spacing",
    "StackLayout",
    "VoxelSize",
    "checked_spacing",
    "choices_of",
    "interpret_axes",
    "known_proportions",
    "origin_of",
    "refuse_what_memory_cannot_hold",
    "refused_shape",
    "spacing_doubt",
    "spacing_doubts",
    "spacing_notes",
]

Spacing = tuple[float, float, float]
"""(dz, dy, dx), the distances between the centres of neighbouring voxels."""

VoxelSize = tuple[float | None, float | None, float | None]
"""(dz, dy, dx), None for what is not known."""

PIXEL_SPACING: Spacing = (1.0, 1.0, 1.0)
"""What the spacing is when none is known: lengths are then in pixels."""

_UNNAMED = "QI"
"""Axis letters that say nothing about their meaning: tifffile's `other` and `image`."""

_SMALLEST_VOXEL, _LARGEST_VOXEL = 1e-3, 1e3
"""Micrometres. Beyond these a unit was mistaken more likely than a specimen was recorded: the
finest localisations are sampled at a few nanometres, the coarsest mesoscopes at tens of
micrometres."""

_LARGEST_RATIO = 100
"""Between the sides of a voxel. Light-sheet stacks reach 20, a mistaken unit makes 1,000."""

_WORKING_ITEMSIZE = 4
"""Bytes a voxel of the float32 copy that a fit works on, beside the stack itself."""


@dataclass(frozen=True)
class StackLayout:
    """What a file holds, without its voxels.

    Parameters
    ----------
    path : Path
        Path of the file or OME-Zarr folder.
    container : str
        Its format, in words: "ImageJ TIFF".
    image : int
        Which of the images in the file this is.
    stored_axes : str
        The axes as the file names them, in the file's order, without those of length 1.
    axes : str
        The same axes as they are understood here: "Z", "Y", "X", and maybe "C" and "T".
    shape : tuple of int
        The length of each of these axes.
    dtype : numpy.dtype
        Number type of the stored voxels.
    voxel_size : tuple of (float or None)
        (dz, dy, dx) in micrometres, None where the file gives none.
    channel_names : tuple of str
        One for each channel, or empty when the file names none.
    axis_notes : tuple of str
        What was assumed about axes and images.
    spacing_notes : tuple of str
        What was assumed about the spacing, with the option that settles it.
    proportions : tuple of float, optional
        (dz, dy, dx) where the file gives them without a unit of length.
    origin : tuple of float
        Where the file says that the centre of the first voxel lies (z, y, x), in `unit`.
    positions : tuple of int
        The images of the file that are stacks, each of which can be asked for as `position`.
    """

    path: Path
    container: str
    image: int
    stored_axes: str
    axes: str
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    voxel_size: VoxelSize
    channel_names: tuple[str, ...]
    axis_notes: tuple[str, ...]
    spacing_notes: tuple[str, ...]
    proportions: Spacing | None = None
    positions: tuple[int, ...] = (0,)
    origin: Spacing = (0.0, 0.0, 0.0)

    @property
    def sizes(self) -> dict[str, int]:
        """The length of each axis, in the file's order."""
        return dict(zip(self.axes, self.shape, strict=True))

    @property
    def channels(self) -> int:
        """The number of channels."""
        return self.sizes.get("C", 1)

    @property
    def times(self) -> int:
        """The number of time points."""
        return self.sizes.get("T", 1)

    @property
    def stack_shape(self) -> tuple[int, int, int]:
        """The lengths of z, y and x."""
        sizes = self.sizes
        return sizes["Z"], sizes["Y"], sizes["X"]

    @property
    def stack_nbytes(self) -> int:
        """The size in bytes of one channel at one time."""
        return prod(self.stack_shape) * self.dtype.itemsize

    @property
    def spacing(self) -> Spacing | None:
        """(dz, dy, dx) in micrometres, or None unless the file gives all three."""
        dz, dy, dx = self.voxel_size
        return None if dz is None or dy is None or dx is None else self._usable((dz, dy, dx))

    @property
    def scale(self) -> Spacing:
        """(dz, dy, dx) in `unit`: the spacing, else the proportions, else 1, 1, 1."""
        proportions = None if self.proportions is None else self._usable(self.proportions)
        return self.spacing or proportions or PIXEL_SPACING

    def _usable(self, sizes: Spacing) -> Spacing:
        """Return a voxel's sizes, or say that the file's cannot be used.

        Asked for when they are, so that a spacing that is given takes their place.
        """
        try:
            return checked_spacing(sizes)
        except SettingsError as error:
            raise StackError(f"{self.path}: its voxel size cannot be used: {error}") from error

    @property
    def unit(self) -> str:
        """The unit of lengths: "micrometer" where the spacing is known, else "pixel"."""
        return "pixel" if self.spacing is None else "micrometer"

    @property
    def notes(self) -> tuple[str, ...]:
        """All that was assumed."""
        return self.axis_notes + self.spacing_notes

    def choose(self, channel: int | str | None, time: int | None) -> tuple[int | None, int | None]:
        """Return the channel and the time to read, None for an axis that the file does not have.

        A channel may be given by its name.

        Raises
        ------
        StackError
            If there is a choice and none was made, or one that the file does not offer.
        """
        open_choices = [
            choice
            for name, index, names in (
                ("channel", channel, self.channel_names),
                ("time", time, ()),
            )
            if index is None and (choice := _open_choice(name, self._count(name), names))
        ]
        if open_choices:
            has = " and ".join(found for found, _ in open_choices)
            options = ", and ".join(option for _, option in open_choices)
            raise StackError(f"{self.path}: has {has}; choose {options}")
        return self._chosen("channel", self._named(channel)), self._chosen("time", time)

    def _named(self, channel: int | str | None) -> int | None:
        """Return the index of a channel that may be given by its name, in any case."""
        if not isinstance(channel, str):
            return channel
        names = [name.casefold() for name in self.channel_names]
        if names.count(channel.casefold()) != 1:
            told = ", ".join(f"{n} {name}" for n, name in enumerate(self.channel_names))
            known = f"its channels are {told}" if told else "it names no channels"
            several = channel.casefold() in names
            raise StackError(
                f"{self.path}: channel={channel!r} is {'several' if several else 'none'} of its "
                f"channels; {known}: choose by number, from 0"
            )
        return names.index(channel.casefold())

    def _count(self, name: str) -> int:
        return self.channels if name == "channel" else self.times

    def _chosen(self, name: str, index: int | None) -> int | None:
        count = self._count(name)
        if index is not None and not 0 <= index < count:
            allowed = choices_of(name, count) if count > 1 else f"{name}=0, or leave it out"
            raise StackError(
                f"{self.path}: {name}={index} (--{name} {index}) is not in the file, "
                f"which has {_counted(name, count)}; choose {allowed}"
            )
        return index if count > 1 else None


def _open_choice(name: str, count: int, names: Sequence[str]) -> tuple[str, str] | None:
    if count == 1:
        return None
    found = _counted(name, count)
    if names:
        found += " (" + ", ".join(f"{index} {label}" for index, label in enumerate(names)) + ")"
    return found, choices_of(name, count)


def choices_of(name: str, count: int) -> str:
    """Say how one of several is chosen, in Python and at the prompt.

    Parameters
    ----------
    name : str
        Of the parameter and of the option.
    count : int
        How many there are to choose from.
    """
    return f"{name}=N (--{name} N), N from 0 to {count - 1}"


def _counted(name: str, count: int) -> str:
    noun = "time point" if name == "time" else name
    return f"{count} {noun}" + ("s" if count != 1 else "")


def interpret_axes(label: str, axes: str, shape: Sequence[int]) -> tuple[str, tuple[str, ...]]:
    """Return what the axes of a file mean, and what had to be assumed.

    Parameters
    ----------
    label : str
        The file, for messages.
    axes : str
        tifffile's letters, without axes of length 1 other than y and x.
    shape : sequence of int
        The length of each axis.

    Returns
    -------
    axes : str
        The letters with z found: an unnamed axis is z when nothing else is.
    notes : tuple of str
        What was assumed.

    Raises
    ------
    StackError
        If there is no z axis, or an axis that is neither z, y, x, channel nor time.
    """
    described = f"axes {axes}, {' x '.join(map(str, shape))}"
    lengths = dict(zip(axes, shape, strict=True))
    if "S" in axes:
        raise StackError(
            f"{label}: is a colour (RGB) image ({described}); a stack has one intensity a voxel; "
            "split its colours and save one as a greyscale stack "
            "(in ImageJ: Image > Color > Split Channels)"
        )
    unnamed = [axis for axis in axes if axis in _UNNAMED]
    foreign = [axis for axis in axes if axis not in _UNNAMED + "TCZYX"]
    if foreign or not {"Y", "X"} <= lengths.keys():
        raise StackError(
            f"{label}: has axes that are not understood ({described}); expected z, y, x, and maybe "
            "channel and time; save the wanted part as an ImageJ hyperstack or OME-TIFF"
        )
    if len(unnamed) + ("Z" in axes) > 1:
        raise StackError(
            f"{label}: cannot tell which axis is which ({described}: Q and I are no names); "
            "save it with named axes, e.g. tifffile.imwrite(new, voxels, metadata={'axes': 'CZYX'})"
        )
    if unnamed:
        [axis] = unnamed
        note = f"the {lengths[axis]} pages have no axis name; they are taken for z-planes"
        return axes.replace(axis, "Z"), (note,)
    if "Z" not in axes:
        others = " and ".join(
            _counted(name, lengths[axis])
            for axis, name in (("C", "channel"), ("T", "time"))
            if axis in axes
        )
        if not others:
            raise StackError(
                f"{label}: is a single 2D image ({described}); a stack needs z, y and x"
            )
        raise StackError(
            f"{label}: is a 2D image with {others} but no z axis ({described}); a stack needs z, y "
            f"and x; if its z-planes were saved as {others}, put that right in ImageJ (Image > "
            "Hyperstacks > Re-order Hyperstack)"
        )
    return axes, ()


def refused_shape(refusal: StackError) -> tuple[int, ...] | None:
    """Return the shape of a file that is whole, but refused for its axes; None of other refusals.

    Goes by the message, where `interpret_axes` describes them.
    """
    described = re.search(r"\(axes \w+, (\d+(?: x \d+)*)", str(refusal))
    return tuple(map(int, described[1].split(" x "))) if described else None


def checked_spacing(spacing: Sequence[float]) -> Spacing:
    """Return `spacing` as three floats.

    Raises
    ------
    SettingsError
        Unless it is three positive finite numbers, neither tiny nor huge.
    """
    what_would_do = (
        "give three positive numbers dz, dy, dx, "
        "e.g. spacing=(0.2, 0.1, 0.1) (--spacing 0.2 0.1 0.1)"
    )
    try:
        values = tuple(float(value) for value in spacing)
    except (TypeError, ValueError):
        raise SettingsError(f"spacing={spacing!r} is not three numbers; {what_would_do}") from None
    if len(values) != 3:
        raise SettingsError(
            f"spacing={spacing!r} has {len(values)} numbers, not three; {what_would_do}"
        )
    least, most = SPACINGS
    for name, value in zip(("dz", "dy", "dx"), values, strict=True):
        if not (isfinite(value) and value > 0):
            raise SettingsError(f"spacing: {name} is {value:g}; {what_would_do}")
        if not least <= value <= most:
            raise SettingsError(
                f"spacing: {name} is {value:g}; expected {least:g} to {most:g}, which single "
                f"precision can work with; {what_would_do}"
            )
    return values


def known_proportions(sizes: VoxelSize) -> Spacing | None:
    """Return (dz, dy, dx) of an unknown unit, unless one is missing or all are 1.

    Parameters
    ----------
    sizes : tuple of (float or None)
        What the file gives as voxel size, without a unit of length.
    """
    dz, dy, dx = sizes
    if dz is None or dy is None or dx is None or (dz, dy, dx) == PIXEL_SPACING:
        return None
    return dz, dy, dx


def spacing_doubt(sizes: Sequence[float | None], unit: str = "micrometer") -> str | None:
    """Say why sizes can hardly be those of a voxel, None where they can.

    Parameters
    ----------
    sizes : sequence of (float or None)
        Of a voxel's sides, those that are known.
    unit : str
        "micrometer", or "pixel", of which only the ratio of the sides is judged.
    """
    known = [size for size in sizes if size is not None]
    if not known:
        return None
    smallest, largest = min(known), max(known)
    if unit == "micrometer" and smallest < _SMALLEST_VOXEL:
        return f"{smallest:.3g} micrometer is less than a nanometer"
    if unit == "micrometer" and largest > _LARGEST_VOXEL:
        return f"{largest:.3g} micrometer is more than a millimeter"
    if largest > _LARGEST_RATIO * smallest:
        return f"one side is {largest / smallest:,.0f} times another"
    return None


def spacing_doubts(spacing: Spacing, unit: str = "micrometer") -> tuple[str, ...]:
    """Return a note where a spacing that was given can hardly be that of a voxel.

    Parameters
    ----------
    spacing : tuple of float
        (dz, dy, dx) in `unit`.
    unit : str
        The unit of all lengths: "micrometer" or "pixel".

    Returns
    -------
    tuple of str
        None or one.
    """
    doubt = spacing_doubt(spacing, unit)
    return () if doubt is None else (f"the spacing given is doubtful: {doubt}; check its unit",)


def spacing_notes(
    voxel_size: VoxelSize, *, hint: str = "", proportions: Spacing | None = None
) -> tuple[str, ...]:
    """Say what is not known about the spacing or is doubtful, and which option settles it.

    Parameters
    ----------
    voxel_size : tuple of (float or None)
        (dz, dy, dx) in micrometres, None where the file gives none.
    hint : str
        What a reader knows about why something is missing.
    proportions : tuple of float, optional
        (dz, dy, dx) where the file gives them without a unit of length.
    """
    found = {
        name: size
        for name, size in zip(("dz", "dy", "dx"), voxel_size, strict=True)
        if size is not None
    }
    notes = [] if len(found) == 3 else [_unknown_spacing(found, hint, proportions)]
    if len(found) == 3 and set(found.values()) == {1.0}:
        notes.append(
            "the file gives a voxel of 1 x 1 x 1 micrometer, which some programs write when "
            "they know none; spacing=(dz, dy, dx) (--spacing DZ DY DX) overrides it"
        )
    doubt = spacing_doubt(voxel_size)
    if doubt is None and not found and proportions is not None:
        doubt = spacing_doubt(proportions, "pixel")
    if doubt:
        notes.append(
            f"the voxel size in the file is doubtful: {doubt}; check it, and give "
            "spacing=(dz, dy, dx) in micrometers (--spacing DZ DY DX) if it is wrong"
        )
    return tuple(notes)


def _unknown_spacing(found: dict[str, float], hint: str, proportions: Spacing | None) -> str:
    """Say what is missing to a spacing of which some, or nothing, was found."""
    hint = f" ({hint})" if hint else ""
    if not found and proportions is not None:
        values = [f"{size:.6g}" for size in proportions]
        return (
            f"the file gives a voxel of {' x '.join(values)} without a unit of length{hint}; the "
            "proportions are kept, and lengths are in pixels; if these are micrometers, give "
            f"spacing=({', '.join(values)}) (--spacing {' '.join(values)})"
        )
    if not found:
        return (
            f"the file gives no voxel size{hint}, so lengths are in pixels; "
            "give spacing=(dz, dy, dx) in micrometers (--spacing DZ DY DX)"
        )
    known = ", ".join(f"{name}={size:.6g}" for name, size in found.items())
    missing = ", ".join(name for name in ("dz", "dy", "dx") if name not in found)
    values = [f"{found[name]:.6g}" if name in found else name for name in ("dz", "dy", "dx")]
    return (
        f"the file gives {known} micrometer but no {missing}{hint}, so lengths are in pixels; "
        f"give spacing=({', '.join(values)}) (--spacing {' '.join(values).upper()})"
    )


def origin_of(layout: StackLayout, given: Spacing | None) -> Spacing:
    """Return where the first voxel lies; a spacing that gives proportions a unit gives it one.

    Parameters
    ----------
    layout : StackLayout
        What the file says.
    given : tuple of float or None
        The spacing in place of the file's.

    Returns
    -------
    tuple of float
        (z, y, x) of its centre, in the unit of the spacing.
    """
    # The file's own spacing is not asked for: it may be why one is given.
    if given is None or None not in layout.voxel_size or not any(layout.origin):
        return layout.origin
    z, y, x = (
        position * step / proportion
        for position, step, proportion in zip(layout.origin, given, layout.scale, strict=True)
    )
    return z, y, x


def refuse_what_memory_cannot_hold(label: str, nbytes_read: int, voxels: int) -> None:
    """Check, before anything is decoded, that the stack and the copy that a fit works on have room.

    Parameters
    ----------
    label : str
        The file, for the message.
    nbytes_read : int
        The bytes that reading takes.
    voxels : int
        The number of voxels of the stack.

    Raises
    ------
    StackError
        If they have not.
    """
    import psutil

    needed = nbytes_read + voxels * _WORKING_ITEMSIZE
    available = int(psutil.virtual_memory().available)
    if needed > available:
        raise StackError(
            f"{label}: needs {needed / 1e9:.3g} GB of memory, {available / 1e9:.3g} GB are free; "
            "crop or bin the stack, or close other programs"
        )
