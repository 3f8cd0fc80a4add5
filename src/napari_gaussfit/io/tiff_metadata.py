"""Voxel size and channel names in TIFF: ImageJ's description, OME-XML, resolution tags."""

from __future__ import annotations

from math import isclose, isfinite
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

from napari_gaussfit.io.layout import spacing_notes
from napari_gaussfit.io.units import micrometers_per

if TYPE_CHECKING:
    from collections.abc import Mapping

    import tifffile

__all__ = ["calibration", "channel_names"]

VoxelSize = tuple[float | None, float | None, float | None]
"""(dz, dy, dx) in micrometres, None where the file gives none."""

Measure = tuple[float | None, str]
"""A length, None where the file gives none, and its unit as the file spells it."""

_PRINT_DPI = (72, 96, 150, 300, 600)
"""Resolutions that programs write for paper and screen; they say nothing about a specimen."""

_RESOLUTION_UNITS = {2: "inch", 3: "cm", 4: "mm", 5: "um"}
"""Values of the tag ResolutionUnit; 1 is none."""

_NO_UNIT = ("", "pixel", "pixels", "px", "reference frame")


def calibration(tif: tifffile.TiffFile, image: int) -> tuple[VoxelSize, tuple[str, ...]]:
    """Return the voxel size in micrometres, and notes on what of it is not known.

    Parameters
    ----------
    tif : tifffile.TiffFile
        The open file.
    image : int
        Which of its series.
    """
    pixels = _ome_pixels(tif, image)
    if pixels is not None:
        return _in_micrometers(
            [
                (
                    _positive(pixels.get(f"PhysicalSize{axis}")),
                    pixels.get(f"PhysicalSize{axis}Unit", "um"),
                )
                for axis in "ZYX"
            ]
        )
    series = tif.series[image]
    if tif.is_imagej:
        measures = _described_and_tagged(series.keyframe, tif.imagej_metadata or {})
        (dz, _), (_, _), (dx, unit) = measures
        if dz is None and dx is not None:
            return _in_micrometers(measures, hint=f"ImageJ leaves out a z step of exactly 1 {unit}")
        return _in_micrometers(measures)
    shaped = tif.shaped_metadata if series.kind == "shaped" else None
    return _in_micrometers(_described_and_tagged(series.keyframe, shaped[image] if shaped else {}))


def channel_names(tif: tifffile.TiffFile, image: int) -> tuple[str, ...]:
    """Return the names that OME-XML gives to the channels of an image, if it names all of them."""
    pixels = _ome_pixels(tif, image)
    if pixels is None:
        return ()
    names = [element.get("Name", "") for element in pixels if element.tag.endswith("Channel")]
    return tuple(names) if all(names) else ()


def _ome_pixels(tif: tifffile.TiffFile, image: int) -> ET.Element | None:
    """Return the element Pixels of OME-XML that describes an image."""
    series = tif.series[image]
    if series.kind != "ome" or not tif.ome_metadata:
        return None
    described = [
        (element.get("Name", ""), pixels)
        for element in ET.fromstring(tif.ome_metadata)
        if element.tag.endswith("Image")
        for pixels in element
        if pixels.tag.endswith("Pixels")
    ]
    if len(described) == len(tif.series):
        return described[image][1]
    # tifffile leaves out images without data: the name tells which are left.
    return next((pixels for name, pixels in described if name == series.name), None)


def _described_and_tagged(page: tifffile.TiffPage, description: Mapping[str, Any]) -> list[Measure]:
    """Return dz from ImageJ's (or tifffile's) description, dy and dx from the resolution tags."""
    unit = description.get("unit")
    tag_unit = _RESOLUTION_UNITS.get(page.resolutionunit, "")
    dz = _positive(description.get("spacing"))
    dy, dx = _pixel_size(page, micrometers_per(str(unit or tag_unit)))
    return [
        # A step without a unit is none: the tag's unit is that of the printed page.
        (dz, str(description.get("zunit") or unit or "")),
        (dy, str(description.get("yunit") or unit or tag_unit)),
        (dx, str(unit or tag_unit)),
    ]


def _pixel_size(
    page: tifffile.TiffPage, micrometers: float | None
) -> tuple[float | None, float | None]:
    """Return 1 / YResolution and 1 / XResolution, unless they are 1 or those of a printed page."""
    across, down = page.resolution
    if (across, down) == (1, 1) or not (across > 0 and down > 0):
        return None, None
    dpi = 25400 * across / micrometers if micrometers else 0.0
    if any(isclose(dpi, printed, rel_tol=1e-3) for printed in _PRINT_DPI):
        return None, None
    return _rounded(1 / down), _rounded(1 / across)


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


def _in_micrometers(
    measures: list[Measure], *, hint: str = ""
) -> tuple[VoxelSize, tuple[str, ...]]:
    dz, dy, dx = (_one_in_micrometers(*measure) for measure in measures)
    foreign = {
        unit
        for value, unit in measures
        if value is not None
        and micrometers_per(unit) is None
        and unit.strip().casefold() not in _NO_UNIT
    }
    if foreign:
        hint = f"its unit, {' and '.join(sorted(map(repr, foreign)))}, is no length known here"
    return (dz, dy, dx), spacing_notes((dz, dy, dx), hint=hint)


def _one_in_micrometers(value: float | None, unit: str) -> float | None:
    micrometers = micrometers_per(unit)
    return None if value is None or micrometers is None else value * micrometers
