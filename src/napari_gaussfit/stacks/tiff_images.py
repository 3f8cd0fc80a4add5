"""The images that a TIFF file holds: what tifffile's series mean, and which pages belong to each.

tifffile names axes; here positions are told apart, planes that were written one by one are put
together, and time points that an acquisition did not come to are left out. What axes mean is for
`layout`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

__all__ = ["TiffImage", "images_of", "scanimage_settings"]

_POSITIONS = "RPM"
"""tifffile's letters for positions of a stage and tiles of a mosaic."""

_INCOMPLETE_KINDS = ("ome", "mmstack")
"""Kinds of series that say of each plane where it is, or that it was not recorded."""

_PROMISED = {"T": "Frames", "Z": "Slices", "C": "Channels", "R": "Positions"}
"""What Micro-Manager calls the number of each when it begins."""

_NOUNS = {"T": "time points", "Z": "z-planes", "C": "channels", "R": "positions"}


@dataclass(frozen=True)
class TiffImage:
    """One image of a file.

    Parameters
    ----------
    series : tifffile.TiffPageSeries
        Where its pages are.
    number : int
        Which of the file's series that is, or is made of.
    axes : str
        The series' axes, in the file's order, without those of length 1 other than y and x.
    shape : tuple of int
        The length of each.
    position : mapping of str to int
        The axis of positions and the place on it, where the series holds several.
    times : int or None
        How many time points are whole, None for all.
    notes : tuple of str
        What was assumed where the metadata say nothing, a sentence each.
    """

    series: tifffile.TiffPageSeries
    number: int
    axes: str
    shape: tuple[int, ...]
    position: Mapping[str, int] = field(default_factory=dict)
    times: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def visible(self) -> tuple[str, tuple[int, ...]]:
        """Axes and shape without positions, and without times that are not whole."""
        kept = [
            (axis, length)
            for axis, full in zip(self.axes, self.shape, strict=True)
            if (length := self._length(axis, full)) > 1 or axis in "YX"
        ]
        return "".join(axis for axis, _ in kept), tuple(length for _, length in kept)

    def selection(self, chosen: Mapping[str, int | None]) -> tuple[int | slice, ...]:
        """Return what to take along each of `axes`, with an index for some."""
        picked = {"T": 0} if self.times == 1 else {}
        picked |= {axis: index for axis, index in chosen.items() if index is not None}
        picked |= self.position
        return tuple(picked.get(axis, slice(None)) for axis in self.axes)

    def pages(self) -> NDArray[np.intp] | None:
        """Return the pages that it is made of, None where a page is no plane."""
        whole = {axis: slice(self.times) for axis in "T" if self.times is not None}
        numbers = self.pages_of(tuple(whole.get(axis, slice(None)) for axis in self.axes))
        return None if numbers is None else np.asarray(numbers[self.selection({})[:-2]])

    def pages_of(self, selection: Sequence[int | slice]) -> NDArray[np.intp] | None:
        """Return the pages of a selection along `axes`, None where a page is no plane."""
        outer = self.shape[:-2]
        if self.series.keyframe.shape != self.shape[-2:] or len(self.series) != prod(outer):
            return None
        return np.asarray(np.arange(len(self.series)).reshape(outer)[tuple(selection[:-2])])

    def lies_in(self, filename: str) -> bool:
        """Tell whether a page of it is in the file of that name, which may be one of a set."""
        pages = self.pages()
        if not self.series.is_multifile or pages is None:
            return True
        found = (self.series[int(page)] for page in pages.ravel())
        return any(page is not None and page.parent.filename == filename for page in found)

    def _length(self, axis: str, full: int) -> int:
        if axis in self.position:
            return 1
        return self.times if axis == "T" and self.times is not None else full


def images_of(tif: tifffile.TiffFile) -> list[TiffImage]:
    """Return the images of a file, in its order.

    Parameters
    ----------
    tif : tifffile.TiffFile
        The open file, with one series at least.
    """
    series = tif.series[:1] if tif.is_lsm else tif.series  # An LSM's second one are thumbnails.
    planes = _planes_as_one(tif)
    if planes is not None:
        return [planes]
    found: list[TiffImage] = []
    for number, one in enumerate(series):
        image = TiffImage(one, number, *_stored(one.axes, one.shape))
        if one.kind == "stk":
            image = _in_depth(tif, image)
        if one.kind == "scanimage":
            image = _as_scanned(tif, image)
        found += [_without_unrecorded(tif, each) for each in _positions(image)]
    return found


def scanimage_settings(tif: tifffile.TiffFile) -> dict[str, Any]:
    """Return ScanImage's settings, from the file's header or its first page, where they are."""
    settings = (tif.scanimage_metadata or {}).get("FrameData") or {}
    if "SI.hChannels.channelSave" in settings:
        return dict(settings)
    page = tif.pages.first
    for text in (page.software, page.description):
        try:
            found = tifffile.matlabstr2py(text)
        except (ValueError, IndexError):
            continue
        if isinstance(found, dict) and found:
            return {name.removeprefix("scanimage."): value for name, value in found.items()}
    return {}


def _stored(axes: str, shape: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
    """Return axes and shape without axes of length 1 other than y and x."""
    kept = [
        (axis, length)
        for axis, length in zip(axes, shape, strict=True)
        if length > 1 or axis in "YX"
    ]
    return "".join(axis for axis, _ in kept), tuple(length for _, length in kept)


def _planes_as_one(tif: tifffile.TiffFile) -> TiffImage | None:
    """Return planes of one size that were written each as an image of its own, as one image."""
    first = tif.series[0]
    alike = all(
        (one.axes, one.shape, one.dtype) == ("YX", first.shape, first.dtype) for one in tif.series
    )
    # OME-XML tells images from planes: there, several images are several.
    if len(tif.series) == 1 or not alike or first.kind == "ome":
        return None
    count = len(tif.series)
    pages = [one[0] for one in tif.series]
    shape = (count, *first.shape)
    joined = tifffile.TiffPageSeries(
        pages, shape, first.dtype, "ZYX", parent=tif, name=first.name, kind=first.kind
    )
    note = f"the file holds {count} images of one plane each; they are taken for z-planes"
    return TiffImage(joined, 0, "ZYX", shape, notes=(note,))


def _in_depth(tif: tifffile.TiffFile, image: TiffImage) -> TiffImage:
    """Call the planes of a STK z-planes where its distances say so, of which the first may be 0."""
    distances = (tif.stk_metadata or {}).get("ZDistance", ())
    if len(distances) > 1 and all(distance != 0 for distance in distances[1:]):
        return replace(image, axes=image.axes.replace("T", "Z").replace("I", "Z"))
    return image


def _as_scanned(tif: tifffile.TiffFile, image: TiffImage) -> TiffImage:
    """Share out ScanImage's pages to volumes, slices, frames and channels by its settings."""
    settings, series = scanimage_settings(tif), image.series
    saved = settings.get("SI.hChannels.channelSave")
    if saved is None:
        note = (
            "ScanImage's settings cannot be read, so that channels, frames and slices may be mixed"
        )
        return replace(image, notes=(note,))
    channels = len(saved) if isinstance(saved, (list, tuple)) else 1
    averaged = _count(settings.get("SI.hScan2D.logAverageFactor"))
    frames = max(_count(settings.get("SI.hStackManager.framesPerSlice")) // averaged, 1)
    planned = _count(
        settings.get("SI.hStackManager.actualNumSlices")
        or settings.get("SI.hStackManager.numSlices")
    )
    if planned == 1:
        frames = len(series) // channels
    scanned = len(series) // (frames * channels)
    slices = min(planned, scanned)
    if slices < 1:
        return image
    volumes = scanned // slices
    # Volumes and frames are both time; where there are both, one is left without a name.
    letters = "TZQC" if volumes > 1 and frames > 1 else "TZTC"
    letters, lengths = letters + series.keyframe.axes, (volumes, slices, frames, channels)
    used = prod(lengths)
    notes = []
    if slices < planned:
        notes.append(f"ScanImage was to record {planned} slices, the file holds {slices}")
    if used < len(series):
        notes.append(f"{len(series) - used} pages after the last whole volume are left out")
    shape = (*lengths, *series.keyframe.shape)
    kept = [series[page] for page in range(used)]
    shared = tifffile.TiffPageSeries(
        kept, shape, series.dtype, letters, parent=tif, kind=series.kind
    )
    return TiffImage(shared, image.number, *_stored(letters, shape), notes=tuple(notes))


def _count(value: Any) -> int:
    """Return a number of settings that is a count, 1 where it is none or infinite."""
    try:
        return max(int(value), 1)
    except (TypeError, ValueError, OverflowError):
        return 1


def _positions(image: TiffImage) -> list[TiffImage]:
    """Return an image for each position of a series that holds several."""
    letters = [axis for axis in image.axes if axis in _POSITIONS]
    if len(letters) != 1:
        return [image]
    [axis] = letters
    return [
        replace(image, position={axis: place})
        for place in range(image.shape[image.axes.index(axis)])
    ]


def _without_unrecorded(tif: tifffile.TiffFile, image: TiffImage) -> TiffImage:
    """Leave out time points that are not whole, and say what else was to be recorded."""
    pages = image.pages()
    if image.series.kind not in _INCOMPLETE_KINDS or pages is None:
        return image
    promised = _promised(tif, image)
    notes = []
    if "T" in image.axes:
        recorded = np.array([_is_recorded(image.series[int(page)]) for page in pages.ravel()])
        axes = "".join(axis for axis in image.axes[:-2] if axis not in image.position)
        by_time = np.moveaxis(recorded.reshape(pages.shape), axes.index("T"), 0)
        whole: list[bool] = [bool(frame.all()) for frame in by_time]
        times = [*whole, False].index(False)
        if 0 < times < promised["T"]:
            notes.append(
                f"of {promised['T']} time points the first {times} are whole, and these are read; "
                "the others were not recorded, or lie in a file that is missing"
            )
            image = replace(image, times=times if times < len(whole) else None)
    lengths = dict(zip(image.axes, image.shape, strict=True))
    for axis, count in promised.items():
        if axis not in ("T", *image.position) and lengths.get(axis, 1) < count:
            notes.append(
                f"{count} {_NOUNS[axis]} were to be recorded, the file holds {lengths.get(axis, 1)}"
            )
    return replace(image, notes=(*image.notes, *notes))


def _promised(tif: tifffile.TiffFile, image: TiffImage) -> dict[str, int]:
    """Return how long each axis was to be, by Micro-Manager's summary where there is one."""
    lengths = {axis: n for axis, n in zip(image.axes, image.shape, strict=True) if axis in "TZC"}
    if image.series.kind != "mmstack":
        return lengths
    summary = (tif.micromanager_metadata or {}).get("Summary", {})
    return {
        axis: max(lengths.get(axis, 1), _count(summary.get(name)))
        for axis, name in _PROMISED.items()
    }


def _is_recorded(page: tifffile.TiffPage | tifffile.TiffFrame | None) -> bool:
    """Tell whether the file says where a plane is; an index leaves out those never written."""
    return page is not None and any(page.databytecounts)
