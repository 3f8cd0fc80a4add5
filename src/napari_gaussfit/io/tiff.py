"""TIFF: stacks from plain files, BigTIFF, ImageJ hyperstacks and OME-TIFF; volumes to OME-TIFF.

Knows how TIFF files say things, and checks that they are whole. What they mean is for `layout`.
"""

from __future__ import annotations

import logging
import re
import struct
from contextlib import contextmanager
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile

from napari_gaussfit.errors import StackError, StackNotFoundError
from napari_gaussfit.io.atomic import replacing
from napari_gaussfit.io.layout import StackLayout, interpret_axes, refuse_what_memory_cannot_hold
from napari_gaussfit.io.tiff_metadata import calibration, channel_names

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["read_layout", "read_voxels", "write_ome_tiff"]

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""First four bytes of a TIFF and of a BigTIFF, little- and big-endian."""

_CONTAINERS = {"imagej": "ImageJ TIFF", "ome": "OME-TIFF"}

_KINDS_WITHOUT_A_COUNT = ("generic", "uniform")
"""Kinds of series that say nowhere how many planes there should be."""

_BROKEN_CHAIN = ("invalid page offset", "invalid offset to page", "corrupted tag list")
"""What tifffile logs when a page names a next one that is not, or not wholly, in the file."""

_CUT_SHORT = "the file was cut short when it was written or copied; copy or save it again"

_LOST_METADATA = re.compile("TiffTag (270|282|283) .*invalid value offset")
"""What it logs when the description or a resolution lies beyond the end of the file."""

_OME_UNITS = {"micrometer": "µm", "pixel": "pixel"}
"""OME's symbols for the units that stacks have here."""


def read_layout(path: Path) -> StackLayout:
    """Read what a TIFF file says about its stack, without its voxels.

    Parameters
    ----------
    path : Path
        The file. Of several images in it, the first with a z axis is taken.

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
    with _opened(path) as (tif, log):
        image, axes, notes = _first_stack(path, tif, log)
        series = tif.series[image]
        _refuse_cut_short(path, tif, series, log)
        if series.dtype.kind not in "buif":
            raise StackError(
                f"{path}: has voxels of type {series.dtype}; expected integers or real numbers; "
                "convert it first, e.g. to its magnitude"
            )
        stored_axes, shape = _stored(series)
        voxel_size, size_notes = calibration(tif, image)
        names = channel_names(tif, image)
        container = _CONTAINERS.get(series.kind, "TIFF")
        return StackLayout(
            path=path,
            container=container.replace("TIFF", "BigTIFF") if tif.is_bigtiff else container,
            image=image,
            stored_axes=stored_axes,
            axes=axes,
            shape=shape,
            dtype=series.dtype,
            voxel_size=voxel_size,
            channel_names=names if ("C", len(names)) in zip(axes, shape, strict=True) else (),
            axis_notes=notes,
            spacing_notes=size_notes,
        )


def read_voxels(
    layout: StackLayout, *, channel: int | None = None, time: int | None = None
) -> NDArray[Any]:
    """Read one channel at one time point.

    Parameters
    ----------
    layout : StackLayout
        What `read_layout` found.
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
    chosen = {"C": channel, "T": time}
    selection = tuple(chosen.get(axis, slice(None)) for axis in layout.axes)
    remaining = [axis for axis in layout.axes if axis in "ZYX"]
    with _opened(layout.path) as (tif, _):
        voxels = _read_selection(layout, tif.series[layout.image], selection)
    zyx = voxels.transpose([remaining.index(axis) for axis in "ZYX"])
    return np.ascontiguousarray(zyx, dtype=voxels.dtype.newbyteorder("="))


def write_ome_tiff(
    path: str | os.PathLike[str],
    volume: NDArray[Any],
    *,
    spacing: Sequence[float],
    unit: str,
    name: str,
) -> None:
    """Write a volume as an OME-TIFF of 32-bit reals.

    Parameters
    ----------
    path : path-like
        The file to write; replaced only once all is written.
    volume : array, shape [Z, Y, X], or of several channels [C, Z, Y, X]
        Intensities.
    spacing : sequence of float
        (dz, dy, dx) in `unit`.
    unit : str
        "micrometer" or "pixel".
    name : str
        The image's name in the file.

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
            np.asarray(volume, dtype=np.float32),
            ome=True,
            photometric="minisblack",
            metadata=metadata,
        )


def _read_selection(
    layout: StackLayout, series: tifffile.TiffPageSeries, selection: tuple[int | slice | None, ...]
) -> NDArray[Any]:
    """Read as few pages as the selection allows."""
    nbytes, voxels = layout.stack_nbytes, prod(layout.stack_shape)
    tif, page_shape = series.parent, series.keyframe.shape
    mappable = series.keyframe.is_memmappable and not series.is_multifile
    if tif is not None and series.dataoffset is not None and mappable:
        refuse_what_memory_cannot_hold(str(layout.path), nbytes, voxels)
        stored = np.dtype(series.dtype).newbyteorder(tif.byteorder)
        mapped = np.memmap(
            layout.path, stored, mode="r", offset=series.dataoffset, shape=layout.shape
        )
        return np.array(mapped[selection])
    outer = layout.shape[:-2]
    if page_shape == layout.shape[-2:] and len(series) == prod(outer):
        refuse_what_memory_cannot_hold(str(layout.path), nbytes, voxels)
        pages = np.arange(len(series)).reshape(outer)[selection[:-2]]
        return series.asarray(key=pages.ravel().tolist()).reshape(*pages.shape, *page_shape)
    refuse_what_memory_cannot_hold(
        str(layout.path), prod(layout.shape) * layout.dtype.itemsize, voxels
    )
    return series.asarray().reshape(layout.shape)[selection]


@contextmanager
def _opened(path: Path) -> Iterator[tuple[tifffile.TiffFile, list[str]]]:
    """Open a TIFF file, with what tifffile logs about it kept off the terminal and handed over.

    Whatever goes wrong while it is open, in tifffile or in a codec, is raised as a StackError.
    """
    _refuse_what_is_no_tiff(path)
    with _captured_log() as log:
        try:
            with tifffile.TiffFile(path) as tif:
                yield tif, log
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


def _first_stack(
    path: Path, tif: tifffile.TiffFile, log: list[str]
) -> tuple[int, str, tuple[str, ...]]:
    """Return which image is the first with a z axis, what its axes mean, and notes on that."""
    if not len(tif.pages) or not tif.series:
        size = tif.filehandle.size
        raise StackError(
            f"{path}: has a TIFF header but no image in its {size} bytes; {_CUT_SHORT}"
        )
    refusals = []
    for image, series in enumerate(tif.series):
        try:
            axes, notes = interpret_axes(str(path), *_stored(series))
        except StackError as refusal:
            refusals.append(refusal)
            continue
        if len(tif.series) > 1:
            name = f" ({series.name})" if series.name else ""
            note = (
                f"the file holds {len(tif.series)} images; number {image + 1}{name} is taken, "
                "the first with a z axis; to fit another one, save it as a file of its own"
            )
            return image, axes, (*notes, note)
        return image, axes, notes
    # Cut short, a stack may look like a single plane: then that is what is wrong with it.
    _refuse_cut_short(path, tif, tif.series[0], log)
    raise refusals[0]


def _stored(series: tifffile.TiffPageSeries) -> tuple[str, tuple[int, ...]]:
    """Return axes and shape without axes of length 1 other than y and x."""
    kept = [
        (axis, length)
        for axis, length in zip(series.axes, series.shape, strict=True)
        if length > 1 or axis in "YX"
    ]
    return "".join(axis for axis, _ in kept), tuple(length for _, length in kept)


def _refuse_cut_short(
    path: Path, tif: tifffile.TiffFile, series: tifffile.TiffPageSeries, log: list[str]
) -> None:
    """Refuse a file that lacks data; tifffile leaves planes out, or fills them with zeros."""
    plane = series.keyframe
    found = max(prod(series.shape) // prod(plane.shape), 1)
    described = _planes_described(tif, series)
    promised = max(found, described)
    held = _planes_held(tif, series)
    uncounted = series.kind in _KINDS_WITHOUT_A_COUNT and not described
    if held < promised and uncounted:
        raise StackError(f"{path}: ends inside plane {held + 1}; {_CUT_SHORT}")
    if held < promised:
        size = " x ".join(map(str, plane.shape))
        author = "ImageJ metadata" if tif.is_imagej else "metadata"
        raise StackError(
            f"{path}: its {author} promises {promised} planes of {size} {plane.dtype}, "
            f"the file holds {held}; {_CUT_SHORT}"
        )
    if any(_LOST_METADATA.search(message) for message in log):
        raise StackError(f"{path}: ends before its metadata; {_CUT_SHORT}")
    if uncounted and any(sign in message for sign in _BROKEN_CHAIN for message in log):
        raise StackError(f"{path}: ends where plane {found + 1} was to begin; {_CUT_SHORT}")


def _planes_held(tif: tifffile.TiffFile, series: tifffile.TiffPageSeries) -> int:
    """Count the planes whose data lie wholly inside the file, without reading them."""
    plane = series.keyframe
    if series.dataoffset is not None or (plane.is_final and len(tif.pages) == 1):
        # All planes follow upon each other, as ImageJ and tifffile write them.
        return max(tif.filehandle.size - plane.dataoffsets[0], 0) // plane.nbytes
    return sum(page is not None and _is_whole(page) for page in series)


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
