"""Where something in Zarr lies: in a folder, in a zip file, or inside one. Opens no array."""

from __future__ import annotations

import json
import os
from pathlib import Path, PurePosixPath
from typing import Any

__all__ = [
    "ARCHIVES",
    "OWN_MARK",
    "is_own_volume",
    "is_zarr",
    "is_zarr_folder",
    "located",
    "zarr_name",
]

ARCHIVES = (".ozx", ".zip")
"""Suffixes of zip files, OME's own first."""

OWN_MARK = "napari-gaussfit"
"""The attribute of a group that says that it was written here."""

_ENDINGS = (".ome.zarr.zip", ".zarr.zip", ".ome.zarr", ".zarr", ".ome.ozx", ".ozx", ".zip")
"""What a Zarr's name ends in, if it is called by what it is."""

_METADATA_FILES = ("zarr.json", ".zgroup", ".zarray")
"""What makes a folder a Zarr group or array, of version 3 and of version 2."""


def is_zarr(path: Path) -> bool:
    """Tell whether a path is, or is named as, something in Zarr: a folder, a zip, a part of one."""
    if path.suffix.lower() in (".zarr", ".ozx") or path.name.lower().endswith(".zarr.zip"):
        return True
    if is_zarr_folder(path):
        return True
    archive = _archive_of(path)
    return archive is not None and _root_in(archive) is not None


def is_zarr_folder(path: Path) -> bool:
    """Tell whether a folder is a Zarr group or array."""
    return any((path / name).is_file() for name in _METADATA_FILES)


def is_own_volume(path: Path) -> bool:
    """Tell whether a folder is one that was written here, to which nobody has added.

    Beside a volume, its mark names what else was written into it: labels, or a graph.
    """
    try:
        mark = _attributes(path)[OWN_MARK]
        # Volumes of one resolution did not say so at first.
        levels, further = int(mark.get("levels", 1)), set(mark.get("contents", ()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    found = {part.relative_to(path).as_posix() for part in path.iterdir()}
    if (path / "labels").is_dir():
        found |= {part.relative_to(path).as_posix() for part in (path / "labels").iterdir()}
    return found <= {"zarr.json", *(str(n) for n in range(levels))} | further


def _attributes(path: Path) -> dict[str, Any]:
    """Return the attributes of a Zarr group of version 3 or 2."""
    if (path / "zarr.json").exists():
        metadata = json.loads((path / "zarr.json").read_text(encoding="utf-8"))
        attributes: dict[str, Any] = metadata["attributes"]
    else:
        attributes = json.loads((path / ".zattrs").read_text(encoding="utf-8"))
    return attributes


def zarr_name(path: Path) -> str:
    """Return a name for something in Zarr: "plate A 1 0" for plate.zarr/A/1/0."""
    place: list[str] = []
    whole = Path(os.path.normpath(path.absolute()))
    for part in (whole, *whole.parents):
        for ending in _ENDINGS:
            if part.name.lower().endswith(ending):
                return " ".join([part.name[: -len(ending)], *reversed(place)])
        place.append(part.name)
    return whole.name


def located(path: Path) -> tuple[Path, str]:
    """Return the outermost Zarr folder, or the zip file, that a path lies in, and where in it."""
    archive = _archive_of(path)
    if archive is not None:
        inner = path.relative_to(archive).as_posix()
        found = PurePosixPath(_root_in(archive) or "") / inner
        return archive, "" if found == PurePosixPath() else found.as_posix()
    whole = path.resolve()
    root = whole
    while root != root.parent and is_zarr_folder(root.parent):
        root = root.parent
    inner = whole.relative_to(root).as_posix()
    return root, "" if inner == "." else inner


def _archive_of(path: Path) -> Path | None:
    """Return the zip file that a path is, or leads into."""
    for part in (path, *path.parents):
        if part.exists():
            return part if part.is_file() and part.suffix.lower() in ARCHIVES else None
    return None


def _root_in(archive: Path) -> str | None:
    """Return where in a zip file its outermost Zarr node is: often in a folder of its own."""
    from zipfile import BadZipFile, ZipFile

    try:
        with ZipFile(archive) as contents:
            names = [PurePosixPath(name) for name in contents.namelist()]
    except (BadZipFile, OSError):
        return None
    roots = [name.parent for name in names if name.name in _METADATA_FILES]
    return min(roots, key=lambda root: len(root.parts)).as_posix() if roots else None
