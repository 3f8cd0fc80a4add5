"""Files as microscopes write them, made byte by byte: Micro-Manager, MetaMorph, Zeiss, ScanImage.

Written from the formats' published descriptions; each holds only what a reader goes by.
"""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["ome_xml", "write_lsm", "write_micromanager", "write_scanimage", "write_stk"]

Plane = tuple[tuple[int, int, int, int], "NDArray[np.uint16]"]
"""Channel, slice, frame and position of a plane, and its voxels."""


def ome_xml(sizes: Mapping[str, int], *, order: str = "XYZCT", more: str = "") -> str:
    """Return OME-XML of an image of `sizes`, spacing 0.5, 0.26, 0.13, with `more` in its pixels."""
    lengths = " ".join(f'Size{axis}="{sizes.get(axis, 1)}"' for axis in "XYZCT")
    spacing = 'PhysicalSizeX="0.13" PhysicalSizeY="0.26" PhysicalSizeZ="0.5"'
    channels = "".join(
        f'<Channel ID="Channel:0:{n}" SamplesPerPixel="1"/>' for n in range(sizes.get("C", 1))
    )
    return (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">'
        f'<Pixels ID="Pixels:0" DimensionOrder="{order}" Type="uint16" {lengths} {spacing}>'
        f"{channels}{more}</Pixels></Image></OME>"
    )


def write_micromanager(
    path: Path,
    planes: Sequence[Plane],
    promised: Mapping[str, Any],
    *,
    xml: str = "",
    imagej: str = "",
) -> Path:
    """Write an image stack of Micro-Manager: planes, each after its directory, and their index.

    Resolution tags are in centimetres, 0.13 micrometres a pixel.
    """
    summary = {"MicroManagerVersion": "2.0.0", "Prefix": "run", "Frames": 1, **promised}
    header = json.dumps(summary).encode()
    buffer = bytearray(struct.pack("<2sHI", b"II", 42, 0))
    buffer += struct.pack("<8I", 54773648, 0, 483765892, 0, 99384722, 0, 2355492, len(header))
    buffer += header + bytes(len(header) % 2)
    next_at, index = 4, []
    descriptions = [text.encode() + b"\0" for text in (xml, imagej) if text]
    for number, (place, plane) in enumerate(planes):
        rows, columns = plane.shape
        texts = descriptions if number == 0 else []
        start = len(buffer)
        struct.pack_into("<I", buffer, next_at, start)
        pixels = start + 2 + 12 * (13 + len(texts)) + 4
        resolution = pixels + plane.nbytes
        text_at = resolution + 18
        entries = [(256, 3, 1, columns), (257, 3, 1, rows), (258, 3, 1, 16), (259, 3, 1, 1)]
        entries.append((262, 3, 1, 1))
        for text in texts:
            entries.append((270, 2, len(text), text_at))
            text_at += len(text)
        entries += [(273, 4, 1, pixels), (277, 3, 1, 1), (278, 3, 1, rows)]
        entries += [(279, 4, 1, plane.nbytes), (282, 5, 1, resolution), (283, 5, 1, resolution + 8)]
        entries += [(296, 3, 1, 3), (51123, 2, 2, resolution + 16)]
        buffer += struct.pack("<H", len(entries))
        buffer += b"".join(struct.pack("<HHII", *entry) for entry in entries)
        next_at = len(buffer)
        buffer += bytes(4) + plane.tobytes() + struct.pack("<IIII", 76923, 1, 76923, 1) + b"{}"
        buffer += b"".join(texts)
        buffer += bytes(len(buffer) % 2)
        index.append((*place, start))
    struct.pack_into("<I", buffer, 12, len(buffer))
    buffer += struct.pack("<II", 3453623, len(index))
    buffer += b"".join(struct.pack("<IIIII", *entry) for entry in index)
    for at, code in ((20, 347834724), (28, 84720485)):
        struct.pack_into("<I", buffer, at, len(buffer))
        buffer += struct.pack("<II", code, 2) + b"{}"
    path.write_bytes(buffer)
    return path


def write_stk(
    path: Path, voxels: NDArray[np.uint16], *, distances: Iterable[float], unit: bytes = b"um\0"
) -> Path:
    """Write a MetaMorph stack, 0.13 by 0.26 of `unit` a pixel, a distance before each plane."""
    count, rows, columns = voxels.shape
    buffer = bytearray(struct.pack("<2sHI", b"II", 42, 0)) + voxels.tobytes()

    def put(content: bytes) -> int:
        buffer.extend(content + bytes(len(content) % 2))
        return len(buffer) - len(content) - len(content) % 2

    def rational(value: float) -> bytes:
        return struct.pack("<II", round(value * 10000), 10000)

    sizes = [put(rational(0.13)), put(rational(0.26)), put(struct.pack("<I", len(unit)) + unit)]
    first = put(struct.pack("<8I", 3, 1, 4, sizes[0], 5, sizes[1], 6, sizes[2]))
    times = [struct.pack("<4I", 2460000, 1000 * n, 2460000, 1000 * n) for n in range(count)]
    steps = (rational(step) + time for step, time in zip(distances, times, strict=True))
    second = put(b"".join(steps))
    screen = put(struct.pack("<II", 72, 1))
    entries = [(254, 4, 1, 0), (256, 4, 1, columns), (257, 4, 1, rows), (258, 3, 1, 16)]
    entries += [(259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8), (277, 3, 1, 1), (278, 4, 1, rows)]
    entries += [(279, 4, 1, 2 * rows * columns), (282, 5, 1, screen), (283, 5, 1, screen)]
    entries += [(296, 3, 1, 2), (33628, 4, 4, first), (33629, 5, count, second)]
    struct.pack_into("<I", buffer, 4, len(buffer))
    buffer += struct.pack("<H", len(entries))
    buffer += b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    path.write_bytes(buffer)
    return path


def write_lsm(path: Path, voxels: NDArray[np.uint16]) -> Path:
    """Write a Zeiss stack of 0.5, 0.26, 0.13 micrometres, a thumbnail after each plane."""
    depth, rows, columns = voxels.shape
    about = np.zeros(1, np.dtype(tifffile.TIFF.CZ_LSMINFO[:38]))
    about["MagicNumber"], about["StructureSize"] = 67127628, about.nbytes
    for name, size in {"X": columns, "Y": rows, "Z": depth, "Channels": 1, "Time": 1}.items():
        about[f"Dimension{name}"] = size
    for axis, size in {"X": 0.13e-6, "Y": 0.26e-6, "Z": 0.5e-6}.items():
        about[f"VoxelSize{axis}"] = size
    tag = (34412, "B", about.nbytes, about.tobytes(), True)
    with tifffile.TiffWriter(path) as tif:
        for number, plane in enumerate(voxels):
            tags = [tag] if number == 0 else []
            tif.write(plane, photometric="minisblack", metadata=None, extratags=tags)
            tif.write(plane[::2, ::2], photometric="minisblack", metadata=None, subfiletype=1)
    return path


def write_scanimage(path: Path, pages: NDArray[np.int16], settings: Mapping[str, Any]) -> Path:
    """Write pages in the order in which ScanImage records them, with its settings."""
    lines = (f"SI.{name} = {value}" for name, value in settings.items())
    tifffile.imwrite(
        path,
        pages,
        bigtiff=True,
        photometric="minisblack",
        metadata=None,
        software="\n".join(("SI.VERSION_MAJOR = 2021", *lines)) + "\n",
        description="frameNumbers = 1\n",
    )
    return path
