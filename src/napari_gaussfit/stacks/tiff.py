"""TIFF: stacks from plain files, BigTIFF, ImageJ hyperstacks, OME-TIFF and microscopes' own kinds.

Opens files, chooses an image, checks that it is whole, and reads it; writes volumes as OME-TIFF.
Which images there are is for `tiff_images`, their voxels' size for `tiff_metadata`.
"""

from __future__ import annotations

import logging
import re
import struct
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile

from napari_gaussfit.errors import StackError, StackNotFoundError
from napari_gaussfit.files import replacing
from napari_gaussfit.stacks.layout import (
    StackLayout,
    choices_of,
    interpret_axes,
    refuse_what_memory_cannot_hold,
    spacing_notes,
)
from napari_gaussfit.stacks.ome_xml import xml_to_read_by
from napari_gaussfit.stacks.tiff_images import TiffImage, images_of
from napari_gaussfit.stacks.tiff_metadata import calibration, channel_names

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import DTypeLike, NDArray

__all__ = ["read_box", "read_layout", "read_voxels", "write_ome_tiff"]

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""First four bytes of a TIFF and of a BigTIFF, little- and big-endian."""

_CONTAINERS = {
    "imagej": "ImageJ TIFF",
    "ome": "OME-TIFF",
    "mmstack": "Micro-Manager TIFF",
    "scanimage": "ScanImage TIFF",
    "stk": "MetaMorph STK",
    "lsm": "Zeiss LSM",
}

_FOLLOWS_OME = ("ome", "mmstack")
"""Kinds of series whose axes are those that OME-XML gives."""

_KINDS_WITHOUT_A_COUNT = ("generic", "uniform")
"""Kinds of series that say nowhere how many planes there should be."""

_BROKEN_CHAIN = ("invalid page offset", "invalid offset to page", "corrupted tag list")
"""What tifffile logs when a page names a next one that is not, or not wholly, in the file."""

_CUT_SHORT = "the file was cut short when it was written or copied; copy or save it again"

_LOST_METADATA = re.compile("TiffTag (270|282|283) .*invalid value offset")
"""What it logs when the description or a resolution lies beyond the end of the file."""

_MISSING_FILE = re.compile(r"OME series failed to read '([^']*)'")
"""What it logs when a file of an OME-TIFF set is not there."""

_OME_UNITS = {"micrometer": "µm", "pixel": "pixel"}
"""OME's symbols for the units that stacks have here."""


@dataclass(frozen=True)
class _File:
    """An open TIFF file."""

    path: Path
    tif: tifffile.TiffFile
    log: list[str]
    """What tifffile has said about it."""

    notes: tuple[str, ...]
    """What was done about its OME-XML."""


def read_layout(path: Path, *, position: int | None = None) -> StackLayout:
    """Read what a TIFF file says about its stack, without its voxels.

    Parameters
    ----------
    path : Path
        Path of the TIFF file.
    position : int, optional
        Which image, where the file holds several; by default the first with a z axis.

    Returns
    -------
    StackLayout
        Axes, sizes, spacing, unit, channels and times.

    Raises
    ------
    StackNotFoundError
        If there is no such file.
    StackError
        If it is no TIFF, is cut short, or holds no 3D stack of real numbers.
    """
    with _opened(path) as file:
        images = _images(file)
        place, positions, notes = _chosen(file, images, position)
        image = images[place]
        series = image.series
        _refuse_cut_short(file, image)
        notes = _refuse_ome_not_followed(file, image) + notes
        stored_axes, shape = image.visible
        axes, axis_notes = interpret_axes(str(path), stored_axes, shape)
        if series.dtype.kind not in "buif":
            raise StackError(
                f"{path}: has voxels of type {series.dtype}; expected integers or real numbers; "
                "convert it first, e.g. to its magnitude"
            )
        voxel_size, proportions, size_notes, hint = calibration(file.tif, image)
        names = channel_names(file.tif, image)
        container = _CONTAINERS.get(series.kind, "TIFF")
        return StackLayout(
            path=path,
            container=container.replace("TIFF", "BigTIFF") if file.tif.is_bigtiff else container,
            image=place,
            stored_axes=stored_axes,
            axes=axes,
            shape=shape,
            dtype=series.dtype,
            voxel_size=voxel_size,
            channel_names=names if ("C", len(names)) in zip(axes, shape, strict=True) else (),
            axis_notes=(*file.notes, *axis_notes, *image.notes, *notes),
            spacing_notes=size_notes
            + spacing_notes(voxel_size, hint=hint, proportions=proportions),
            proportions=proportions,
            positions=positions,
        )


def read_voxels(
    layout: StackLayout, *, channel: int | None = None, time: int | None = None
) -> NDArray[Any]:
    """Read one channel at one time point.

    Parameters
    ----------
    layout : StackLayout
        Shape, axes and spacing, as `read_layout` returned them.
    channel, time : int, optional
        Which one; must be given where the file has several.

    Returns
    -------
    array, shape [Z, Y, X]
        The voxels, in the file's type and this machine's byte order.

    Raises
    ------
    StackError
        If a choice is missing or not on offer, there is not enough memory, or the data cannot be
        decoded.
    """
    channel, time = layout.choose(channel, time)
    remaining = [axis for axis in layout.axes if axis in "ZYX"]
    with _opened(layout.path) as file:
        voxels = _read_selection(layout, _images(file)[layout.image], {"C": channel, "T": time})
    zyx = voxels.transpose([remaining.index(axis) for axis in "ZYX"])
    return np.ascontiguousarray(zyx, dtype=voxels.dtype.newbyteorder("="))


def read_box(layout: StackLayout, chosen: Mapping[str, int | slice]) -> NDArray[Any]:
    """Read a box of one channel at one time point: no more of the file than its planes.

    Parameters
    ----------
    layout : StackLayout
        Shape, axes and spacing, as `read_layout` returned them.
    chosen : mapping
        By axis, "C", "T", "Z", "Y", "X": the index to take, or the part; all of it by default.

    Returns
    -------
    array, shape [Z, Y, X]
        The voxels, in the file's type and this machine's byte order.

    Raises
    ------
    StackError
        If its planes cannot be read one by one, or decoded.
    """
    named = dict(zip(layout.axes, layout.stored_axes, strict=True))
    stored = {named[axis]: taken for axis, taken in chosen.items() if axis in named}

    def selection(axes: str, base: tuple[int | slice, ...]) -> tuple[int | slice, ...]:
        return tuple(
            stored.get(axis, taken) if isinstance(taken, slice) else taken
            for axis, taken in zip(axes, base, strict=True)
        )

    _refuse_what_is_no_tiff(layout.path)
    known = layout.path.stat()
    plain = _plain(layout, (known.st_ino, known.st_mtime_ns, known.st_size))
    if plain is not None:
        voxels = np.array(plain.array[selection(plain.axes, plain.selection)])
    else:
        voxels = _read_planes(layout, selection)
    remaining = [axis for axis in layout.axes if axis in "ZYX"]
    zyx = voxels.transpose([remaining.index(axis) for axis in "ZYX"])
    return np.ascontiguousarray(zyx, dtype=voxels.dtype.newbyteorder("="))


def write_ome_tiff(
    path: str | os.PathLike[str],
    volume: NDArray[Any],
    *,
    spacing: Sequence[float],
    unit: str,
    name: str,
    dtype: DTypeLike = np.float32,
) -> None:
    """Write a volume as an OME-TIFF, of 32-bit reals unless asked for others.

    Parameters
    ----------
    path : path-like
        The file to write; replaced only once all is written.
    volume : array, shape [Z, Y, X], or of several channels [C, Z, Y, X]
        Voxel intensities; the type of the array is the type of the file unless `dtype` says
        otherwise.
    spacing : sequence of float
        (dz, dy, dx) in `unit`.
    unit : str
        Unit of length of the spacing: "micrometer" or "pixel".
    name : str
        The image's name in the file.
    dtype : dtype-like
        Number type of the voxels in the file.

    Raises
    ------
    OutputError
        If the folder does not exist.
    """
    metadata: dict[str, Any] = {"axes": "CZYX"[-volume.ndim :], "Name": name}
    for axis, size in zip("ZYX", spacing, strict=True):
        metadata[f"PhysicalSize{axis}"] = float(size)
        metadata[f"PhysicalSize{axis}Unit"] = _OME_UNITS[unit]
    with replacing(path) as temporary:
        tifffile.imwrite(
            temporary,
            np.asarray(volume, dtype=dtype),
            ome=True,
            photometric="minisblack",
            metadata=metadata,
        )


def _read_selection(
    layout: StackLayout, image: TiffImage, chosen: dict[str, int | None]
) -> NDArray[Any]:
    """Read as few pages as the selection allows."""
    series, selection = image.series, image.selection(chosen)
    nbytes, voxels = layout.stack_nbytes, prod(layout.stack_shape)
    mapped, pages = _mapped(layout, image), image.pages_of(selection)
    if mapped is not None:
        refuse_what_memory_cannot_hold(str(layout.path), nbytes, voxels)
        return np.array(mapped[selection])
    if pages is not None:
        refuse_what_memory_cannot_hold(str(layout.path), nbytes, voxels)
        planes = series.asarray(key=pages.ravel().tolist())
        return planes.reshape(*pages.shape, *series.keyframe.shape)
    refuse_what_memory_cannot_hold(
        str(layout.path), prod(image.shape) * layout.dtype.itemsize, voxels
    )
    return series.asarray().reshape(image.shape)[selection]


@dataclass(frozen=True, eq=False)
class _Plain:
    """An image whose voxels lie in its file as plain numbers, mapped, and what is taken of it."""

    axes: str
    selection: tuple[int | slice, ...]
    array: NDArray[Any]


@lru_cache(maxsize=8)
def _plain(layout: StackLayout, _version: tuple[int, int, int]) -> _Plain | None:
    """Map an image, None where it is not plain; the next box of the same file finds it mapped.

    A file of many planes takes longer to parse than a box of it takes to read.
    """
    with _opened(layout.path) as file:
        image = _images(file)[layout.image]
        mapped = _mapped(layout, image)
        return None if mapped is None else _Plain(image.axes, image.selection({}), mapped)


def _read_planes(
    layout: StackLayout,
    selection: Callable[[str, tuple[int | slice, ...]], tuple[int | slice, ...]],
) -> NDArray[Any]:
    """Decode the planes of a box, and cut it out of them."""
    with _opened(layout.path) as file:
        image = _images(file)[layout.image]
        chosen = selection(image.axes, image.selection({}))
        pages = image.pages_of(chosen)
        if pages is None:
            raise StackError(
                f"{layout.path}: its planes cannot be read one by one; convert it to OME-Zarr"
            )
        planes = image.series.asarray(key=pages.ravel().tolist())
        cut = planes.reshape(-1, *image.shape[-2:])[:, *chosen[-2:]]
        return np.asarray(cut.reshape(*pages.shape, *cut.shape[1:]))


def _mapped(layout: StackLayout, image: TiffImage) -> NDArray[Any] | None:
    """Return all of an image as the file has it, unread; None where it is not plain numbers."""
    series = image.series
    tif, mappable = series.parent, series.keyframe.is_memmappable and not series.is_multifile
    if tif is None or series.dataoffset is None or not mappable:
        return None
    stored = np.dtype(series.dtype).newbyteorder(tif.byteorder)
    return np.memmap(layout.path, stored, mode="r", offset=series.dataoffset, shape=image.shape)


@contextmanager
def _opened(path: Path) -> Iterator[_File]:
    """Open a TIFF file, with what tifffile logs about it kept off the terminal and handed over.

    Whatever goes wrong while it is open, in tifffile or in a codec, is raised as a StackError.
    """
    _refuse_what_is_no_tiff(path)
    with _captured_log() as log:
        try:
            with ExitStack() as files:
                tif = files.enter_context(tifffile.TiffFile(path))
                xml, notes = xml_to_read_by(path, tif)
                if xml is not None:
                    tif = files.enter_context(tifffile.TiffFile(path, omexml=xml))
                yield _File(path, tif, log, notes)
        except StackError:
            raise
        except MemoryError as error:
            raise StackError(
                f"{path}: needs more memory than there is; crop or bin the stack"
            ) from error
        except Exception as error:
            # A broken structure shows as an index or a buffer out of range: no news to a user.
            said = "" if isinstance(error, (LookupError, struct.error)) else str(error)
            reason = " ".join(said.split())[:160] or "its structure is broken"
            raise StackError(
                f"{path}: cannot be read as a TIFF ({reason}); it is damaged, cut short or of "
                "an unknown kind; save it again, e.g. from ImageJ"
            ) from error


@contextmanager
def _captured_log() -> Iterator[list[str]]:
    messages: list[str] = []

    def capture(record: logging.LogRecord) -> bool:
        messages.append(record.getMessage())
        return False

    logger = logging.getLogger("tifffile")
    logger.addFilter(capture)
    try:
        yield messages
    finally:
        logger.removeFilter(capture)


def _refuse_what_is_no_tiff(path: Path) -> None:
    # Asked first, since opening a folder is a matter of permissions on Windows.
    if path.is_dir():
        raise StackError(f"{path}: is a folder; expected one TIFF file")
    try:
        with path.open("rb") as file:
            start = file.read(8)
    except FileNotFoundError:
        raise StackNotFoundError(f"{path}: there is no such file; check the path") from None
    except PermissionError:
        raise StackError(f"{path}: may not be read by this user; change its permissions") from None
    if not start:
        raise StackError(f"{path}: is an empty file (0 bytes); copy or save it again")
    if start[:4] not in _MAGIC:
        raise StackError(
            f"{path}: is not a TIFF: it begins with {start!r}; expected a TIFF or OME-TIFF; "
            "convert it first, e.g. in ImageJ"
        )


def _images(file: _File) -> list[TiffImage]:
    """Return the images of a file, of which there is one at least."""
    if not len(file.tif.pages) or not file.tif.series:
        size = file.tif.filehandle.size
        raise StackError(
            f"{file.path}: has a TIFF header but no image in its {size} bytes; {_CUT_SHORT}"
        )
    return images_of(file.tif)


def _chosen(
    file: _File, images: list[TiffImage], position: int | None
) -> tuple[int, tuple[int, ...], tuple[str, ...]]:
    """Return which image to read, which others are stacks, and a note if none was asked for."""
    count = len(images)
    allowed = choices_of("position", count)
    if position is not None and not 0 <= position < count:
        has = f"{count} images; choose {allowed}" if count > 1 else "one image; leave it out"
        raise StackError(
            f"{file.path}: position={position} (--position {position}) is not in the file, "
            f"which has {has}"
        )
    refusals: list[StackError] = []
    stacks = []
    for place, image in enumerate(images):
        try:
            interpret_axes(str(file.path), *image.visible)
        except StackError as refusal:
            refusals.append(refusal)
        else:
            stacks.append(place)
    if position is not None:
        return position, tuple(stacks), ()
    if not stacks:
        # Cut short, a stack may look like a single plane: then that is what is wrong with it.
        _refuse_cut_short(file, images[0])
        if count == 1:
            raise refusals[0]
        said = str(refusals[0]).removeprefix(f"{file.path}: ")
        raise StackError(f"{file.path}: holds {count} images and no stack; the first {said}")
    if count == 1:
        return 0, (0,), ()
    own = [place for place in stacks if images[place].lies_in(file.tif.filename)]
    place = (own or stacks)[0]
    why = "the first with a z axis" if place == stacks[0] else "whose planes this file has"
    called = images[place].series.name
    name = f" ({called[:60]})" if called else ""
    note = f"the file holds {count} images; position {place}{name} is taken, {why}"
    if len(stacks) > 1:
        note += f"; {allowed}, chooses another"
    return place, tuple(stacks), (note,)


def _refuse_ome_not_followed(file: _File, image: TiffImage) -> tuple[str, ...]:
    """Refuse pages that OME-XML describes in a way that cannot be followed.

    Returns a note where another description says as much, or cannot be followed itself.
    """
    tif, kind = file.tif, image.series.kind
    if not tif.is_ome or kind in _FOLLOWS_OME:
        given_up = tif.is_imagej and kind in _KINDS_WITHOUT_A_COUNT
        note = "ImageJ's description cannot be followed; channels and times may be mixed in"
        return (note,) if given_up else ()
    said = next((message for message in file.log if "OME series" in message), "")
    reason = " ".join(said.partition("> ")[2].split())[:160] or "it does not fit the pages"
    if kind == "imagej":
        return (f"its OME-XML cannot be followed ({reason}); ImageJ's description was read",)
    raise StackError(
        f"{file.path}: its OME-XML cannot be followed ({reason}), so which page is which channel, "
        "time and plane is not known; mend it, or save the stack again with named axes"
    )


def _refuse_cut_short(file: _File, image: TiffImage) -> None:
    """Refuse a file that lacks data; tifffile leaves planes out, or fills them with zeros."""
    path, tif, series, log = file.path, file.tif, image.series, file.log
    plane = series.keyframe
    needed = None if _is_contiguous(tif, series) else image.pages()
    found = max(prod(series.shape) // prod(plane.shape), 1) if needed is None else needed.size
    described = _planes_described(tif, series)
    promised = max(found, described)
    held = _planes_held(tif, series, needed)
    uncounted = series.kind in _KINDS_WITHOUT_A_COUNT and not described
    if held < promised and uncounted:
        raise StackError(f"{path}: ends inside plane {held + 1}; {_CUT_SHORT}")
    if held < promised:
        size = " x ".join(map(str, plane.shape))
        author = "ImageJ metadata" if tif.is_imagej else "metadata"
        missing = next(filter(None, map(_MISSING_FILE.search, log)), None)
        remedy = f"{missing[1]} is missing; copy it beside this file" if missing else _CUT_SHORT
        raise StackError(
            f"{path}: its {author} promises {promised} planes of {size} {plane.dtype}, "
            f"the file holds {held}; {remedy}"
        )
    if any(_LOST_METADATA.search(message) for message in log):
        raise StackError(f"{path}: ends before its metadata; {_CUT_SHORT}")
    if uncounted and any(sign in message for sign in _BROKEN_CHAIN for message in log):
        raise StackError(f"{path}: ends where plane {found + 1} was to begin; {_CUT_SHORT}")


def _is_contiguous(tif: tifffile.TiffFile, series: tifffile.TiffPageSeries) -> bool:
    """Tell whether all planes follow upon each other, as ImageJ and tifffile write them."""
    return series.dataoffset is not None or (series.keyframe.is_final and len(tif.pages) == 1)


def _planes_held(
    tif: tifffile.TiffFile, series: tifffile.TiffPageSeries, needed: NDArray[np.intp] | None
) -> int:
    """Count the planes, of those needed, whose data lie wholly inside a file; reads none."""
    plane = series.keyframe
    if _is_contiguous(tif, series):
        return max(tif.filehandle.size - plane.dataoffsets[0], 0) // plane.nbytes
    pages = series if needed is None else (series[int(page)] for page in needed.ravel())
    return sum(page is not None and _is_whole(page) for page in pages)


def _is_whole(page: tifffile.TiffPage | tifffile.TiffFrame) -> bool:
    """Tell whether the data of a page lie wholly inside its file."""
    offsets, counts = page.dataoffsets, page.databytecounts
    ends = (offset + count for offset, count in zip(offsets, counts, strict=False))
    return len(offsets) == len(counts) and max(ends, default=0) <= page.parent.filehandle.size


def _planes_described(tif: tifffile.TiffFile, series: tifffile.TiffPageSeries) -> int:
    """Return how many planes the description promises, where tifffile gave up on it."""
    if tif.is_imagej and series.kind != "imagej":
        return int((tif.imagej_metadata or {}).get("images", 0))
    return 0
