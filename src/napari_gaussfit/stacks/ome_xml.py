"""OME-XML of TIFF files: found in the file or beside it, mended where that is safe, and read.

Knows nothing of voxels: which plane is which, tifffile makes of the XML that it is given.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import tifffile

from napari_gaussfit.errors import StackError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["described_pixels", "xml_to_read_by"]

_LONE_AMPERSAND = re.compile(r"&(?!#?\w+;)")
"""What programs write that put a name such as "DAPI & GFP" into XML as it is."""


def xml_to_read_by(path: Path, tif: tifffile.TiffFile) -> tuple[str | None, tuple[str, ...]]:
    """Return the OME-XML to read a file by in place of its own, if any, and notes on that.

    Parameters
    ----------
    path : Path
        Path of the file, for messages.
    tif : tifffile.TiffFile
        The same file, opened by tifffile.

    Raises
    ------
    StackError
        If the XML is cut off, or lies in a file that is not there or cannot be read.
    """
    xml = tif.ome_metadata
    if xml is None:
        if len(tif.pages) and "<OME " in tif.pages.first.description[:2000]:
            raise StackError(
                f"{path}: its OME-XML is cut off, so which plane is which is not known; "
                "save the file again with the program that made it"
            )
        return None, ()
    root, notes = _parsed(xml)
    if root is None:
        return None, ()
    apart = _children(root, "BinaryOnly")
    if apart:
        root, more = _companion(path, apart[0].get("MetadataFile", ""))
        notes += more
    unplaced = [
        pixels
        for image in _children(root, "Image")
        for pixels in _children(image, "Pixels")
        if not _children(pixels, "TiffData")
    ]
    # Micro-Manager has an index of its own.
    if len(unplaced) == 1 == len(_children(root, "Image")) and not tif.is_mmstack:
        count = str(len(tif.pages))
        ET.SubElement(unplaced[0], "TiffData", IFD="0", PlaneCount=count)
        order = unplaced[0].get("DimensionOrder", "")
        notes += (f"its OME-XML places no plane; they are taken in its order, {order}",)
    return (ET.tostring(root, encoding="unicode") if notes or apart else None), notes


def described_pixels(tif: tifffile.TiffFile, series: int) -> ET.Element | None:
    """Return the element Pixels of OME-XML that describes a series, None if none does.

    Parameters
    ----------
    tif : tifffile.TiffFile
        The file, opened by tifffile.
    series : int
        Which of its series.
    """
    root = _parsed(tif.ome_metadata)[0] if tif.ome_metadata else None
    if root is None:
        return None
    described = [
        (image.get("Name", ""), pixels)
        for image in _children(root, "Image")
        for pixels in _children(image, "Pixels")
    ]
    one = tif.series[series]
    if one.kind == "ome":
        if len(described) == len(tif.series):
            return described[series][1]
        # tifffile leaves out images without data: the name tells which are left.
        return next((pixels for name, pixels in described if name == one.name), None)
    # Micro-Manager's own index names the planes; an image of the same size is of the same stack.
    sizes = dict(zip(one.axes, one.shape, strict=True))
    return next(
        (
            pixels
            for _, pixels in described
            if all(pixels.get(f"Size{axis}") == str(sizes.get(axis)) for axis in "XY")
        ),
        None,
    )


def _parsed(xml: str) -> tuple[ET.Element | None, tuple[str, ...]]:
    """Return the root of OME-XML, and a note if an ampersand had to be escaped."""
    try:
        return ET.fromstring(xml), ()
    except ET.ParseError:
        pass
    try:
        root = ET.fromstring(_LONE_AMPERSAND.sub("&amp;", xml))
    except ET.ParseError:
        return None, ()
    return root, ("its OME-XML is not well-formed (an & stands alone); it was read as meant",)


def _companion(path: Path, named: str) -> tuple[ET.Element, tuple[str, ...]]:
    """Return the root of the OME-XML that describes a set of files, from the file that holds it."""
    name = re.split(r"[\\/]", named)[-1]
    companion = path.with_name(name) if name else path
    if not name or not companion.is_file():
        raise StackError(
            f"{path}: is one file of an OME-TIFF set, described in {name or 'a file not named'}, "
            "which is not there; copy it beside this file"
        )
    try:
        if companion.suffix.lower() in (".tif", ".tiff"):
            with tifffile.TiffFile(companion) as tif:
                xml = tif.ome_metadata or ""
        else:
            xml = companion.read_text("utf-8")
    except (OSError, ValueError) as error:
        raise StackError(f"{path}: {name}, which describes it, cannot be read: {error}") from error
    root, notes = _parsed(xml)
    if root is None or _children(root, "BinaryOnly"):
        raise StackError(
            f"{path}: {name}, which should describe its planes, holds no OME-XML that can be read; "
            "save the set again with the program that made it"
        )
    return root, notes


def _children(element: ET.Element, name: str) -> list[ET.Element]:
    return [child for child in element if child.tag.endswith(name)]
