"""Voxel size and channel names in TIFF: OME-XML, Micro-Manager, ImageJ, MetaMorph, tags and others.

Where a file says it twice, the first of these counts. Lengths leave here in micrometres.
"""

from __future__ import annotations

from math import isclose, isfinite
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_gaussfit.stacks.layout import known_proportions, spacing_doubt
from napari_gaussfit.stacks.ome_xml import described_pixels
from napari_gaussfit.stacks.tiff_images import scanimage_settings
from napari_gaussfit.stacks.units import micrometers_per

if TYPE_CHECKING:
    from collections.abc import Mapping

    import tifffile

    from napari_gaussfit.stacks.layout import Spacing, VoxelSize
    from napari_gaussfit.stacks.tiff_images import TiffImage

__all__ = ["calibration", "channel_names"]

Measure = tuple[float | None, str]
"""A length, None where the file gives none, and its unit as the file spells it."""

_PRINT_DPI = (72, 96, 150, 300, 600)
"""Resolutions that programs write for paper and screen; they say nothing about a specimen."""

_RESOLUTION_UNITS = {2: "inch", 3: "cm", 4: "mm", 5: "um"}
"""Values of the tag ResolutionUnit; 1 is none."""

_NO_UNIT = ("", "pixel", "pixels", "px", "reference frame")

_NOTHING: list[Measure] = [(None, "")] * 3


def calibration(
    tif: tifffile.TiffFile, image: TiffImage
) -> tuple[VoxelSize, Spacing | None, tuple[str, ...], str]:
    """Return what a file says of its voxels' size.

    Parameters
    ----------
    tif : tifffile.TiffFile
        The file, opened by tifffile.
    image : TiffImage
        Which of its images.

    Returns
    -------
    voxel_size : tuple of (float or None)
        (dz, dy, dx) in micrometres, None for what is not known.
    proportions : tuple of float, or None
        The same without a unit, where the file gives none.
    notes : tuple of str
        On what disagrees.
    hint : str
        Why something is missing.
    """
    measures, notes, hint = _measures(tif, image)
    dz, dy, dx = (_in_micrometers(*measure) for measure in measures)
    given = {unit for value, unit in measures if value is not None}
    foreign = {
        unit
        for unit in given
        if micrometers_per(unit) is None and unit.strip().casefold() not in _NO_UNIT
    }
    if foreign:
        spelt = " and ".join(sorted(repr(unit[:40]) for unit in foreign))
        hint = f"its unit, {spelt}, is no length known here"
    proportions = None
    if all(micrometers_per(unit) is None for unit in given):
        depth, height, width = (value for value, _ in measures)
        if tif.is_imagej and depth is not None:
            # Resolution tags of 1, or of a printed page: what ImageJ calls a pixel.
            height, width = height or 1.0, width or 1.0
        proportions = known_proportions((depth, height, width))
    return (dz, dy, dx), proportions, notes, hint


def channel_names(tif: tifffile.TiffFile, image: TiffImage) -> tuple[str, ...]:
    """Return the names that a file gives to the channels of an image, if it names all of them."""
    pixels = described_pixels(tif, image.number)
    if pixels is not None:
        names = [element.get("Name", "") for element in pixels if element.tag.endswith("Channel")]
    else:
        names = [str(name) for name in _summary(tif).get("ChNames") or ()]
    return tuple(names) if all(names) else ()


def _measures(
    tif: tifffile.TiffFile, image: TiffImage
) -> tuple[list[Measure], tuple[str, ...], str]:
    """Return dz, dy and dx as the file has them, notes on them, and why one is missing."""
    series = image.series
    if series.kind == "stk":
        return _metamorph(tif), (), ""
    if series.kind == "lsm":
        return _zeiss(tif), (), ""
    pixels = described_pixels(tif, image.number)
    summary = _summary(tif)
    described = _NOTHING
    if pixels is not None:
        sizes = [
            (pixels.get(f"PhysicalSize{axis}"), pixels.get(f"PhysicalSize{axis}Unit", "um"))
            for axis in "ZYX"
        ]
        described = [(_positive(size), unit) for size, unit in sizes]
        if not summary:
            return described, (), ""
    if summary:
        pixel = _positive(summary.get("PixelSize_um"))
        step = _positive(summary.get("z-step_um"))
        described = _completed(described, [(step, "um"), (pixel, "um"), (pixel, "um")])
    words, hint = _description(tif, image)
    tagged, notes = _described_and_tagged(series.keyframe, words)
    measures = _completed(described, tagged)
    (dz, _), _, (dx, unit) = measures
    if hint and dz is None and dx is not None and micrometers_per(unit) is not None:
        return measures, notes, f"{hint} {unit}"
    return measures, notes if measures[1:] == tagged[1:] else (), ""


def _completed(first: list[Measure], second: list[Measure]) -> list[Measure]:
    """Return the first's measures, and the second's where the first has none."""
    return [one if one[0] is not None else other for one, other in zip(first, second, strict=True)]


def _description(tif: tifffile.TiffFile, image: TiffImage) -> tuple[Mapping[str, Any], str]:
    """Return spacing and unit as a description has them, and what an absent spacing means."""
    if image.series.kind == "scanimage":
        settings = scanimage_settings(tif)
        return {"spacing": settings.get("SI.hStackManager.stackZStepSize"), "zunit": "um"}, ""
    if tif.is_imagej:
        return tif.imagej_metadata or {}, "ImageJ leaves out a z step of exactly 1"
    shaped = tif.shaped_metadata if image.series.kind == "shaped" else None
    return (shaped[image.number] if shaped else {}), ""


def _described_and_tagged(
    page: tifffile.TiffPage, description: Mapping[str, Any]
) -> tuple[list[Measure], tuple[str, ...]]:
    """Return dz from the description, dy and dx from the resolution tags, and notes on these."""
    unit = str(description.get("unit") or "")
    tag = _RESOLUTION_UNITS.get(page.resolutionunit, "")
    # ImageJ takes the sign, which tells the direction of the stage, off.
    spacing = _positive(str(description.get("spacing")).removeprefix("-"))
    # A step without a unit is none: the tag's unit is that of the printed page.
    step = (spacing, str(description.get("zunit") or unit))
    across, down = (_resolution(page.tags.valueof(code)) for code in (282, 283))
    if (across, down) == (1, 1) or not (across > 0 and down > 0) or _is_printed(across, unit, tag):
        return [step, (None, unit), (None, unit)], ()
    dy, _ = _tagged(down, str(description.get("yunit") or unit), tag)
    dx, note = _tagged(across, unit, tag)
    return [step, dy, dx], (note,) if note else ()


def _resolution(value: object) -> float:
    """Return a resolution tag's value, 1 if absent: a fraction, or what some write, one number."""
    if value is None:
        return 1.0
    numbers = value if isinstance(value, tuple) else (value,)
    numerator, denominator = (*map(float, numbers), 1.0)[:2]
    return numerator / denominator if denominator else 0.0


def _tagged(resolution: float, unit: str, tag: str) -> tuple[Measure, str]:
    """Return 1 / resolution in the unit that it is in, and a note if that had to be judged.

    ImageJ lets its own unit count where it knows one, but takes centimetres beside it for what
    they are: it writes that tag with no other unit.
    """
    units = [one for one in (unit, tag) if micrometers_per(one) is not None]
    if tag != "inch":
        units.reverse()
    size = _rounded(1 / resolution)
    if not units:
        return (size, unit), ""
    first, last = units[0], units[-1]
    if _is_doubtful(size, first) and not _is_doubtful(size, last):
        note = (
            f"the file gives its pixels in {unit[:40]} by its description, in {tag} by its tags; "
            f"{last[:40]} was taken, which alone makes sense"
        )
        return (size, last), note
    return (size, first), ""


def _is_doubtful(size: float, unit: str) -> bool:
    return spacing_doubt([_in_micrometers(size, unit)]) is not None


def _is_printed(across: float, unit: str, tag: str) -> bool:
    """Tell whether a resolution is one for paper or screen."""
    micrometers = micrometers_per(tag or unit)
    dpi = 25400 * across / micrometers if micrometers else 0.0
    return any(isclose(dpi, printed, rel_tol=1e-3) for printed in _PRINT_DPI)


def _metamorph(tif: tifffile.TiffFile) -> list[Measure]:
    """Return the sizes in a STK's UIC tags."""
    found = tif.stk_metadata or {}
    # tifffile takes off a last character, MetaMorph's NUL; where there was none, "um" lost its m.
    unit = str(found.get("CalibrationUnits", ""))
    unit = "um" if unit == "u" else unit
    down, across = (
        _positive(found.get(name)) if found.get("SpatialCalibration") else None
        for name in ("YCalibration", "XCalibration")
    )
    distances = np.abs(np.asarray(found.get("ZDistance", ()), dtype=float))
    steps = distances[distances > 0]
    step = _positive(np.median(steps)) if len(steps) else None
    # MetaMorph drives its stages in micrometres, whatever its pixels are in.
    return [(step, unit if micrometers_per(unit) else "um"), (down, unit), (across, unit)]


def _zeiss(tif: tifffile.TiffFile) -> list[Measure]:
    """Return the sizes in an LSM's own tag."""
    found = tif.lsm_metadata or {}
    return [(_positive(found.get(f"VoxelSize{axis}")), "m") for axis in "ZYX"]


def _summary(tif: tifffile.TiffFile) -> Mapping[str, Any]:
    """Return Micro-Manager's summary, empty where there is none."""
    if not tif.is_micromanager:
        return {}
    found: dict[str, Any] = (tif.micromanager_metadata or {}).get("Summary") or {}
    return found


def _rounded(size: float) -> float:
    # The tags hold a fraction of integers that rarely has more digits than these.
    return float(f"{size:.7g}")


def _positive(value: object) -> float | None:
    """Return a positive finite number, or None for anything else."""
    try:
        number = float(str(value))
    except ValueError:
        return None
    return number if isfinite(number) and number > 0 else None


def _in_micrometers(value: float | None, unit: str) -> float | None:
    micrometers = micrometers_per(unit)
    return None if value is None or micrometers is None else value * micrometers
