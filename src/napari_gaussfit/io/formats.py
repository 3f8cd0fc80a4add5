"""Which format a file's name asks for: the one table that the command line and writers share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from napari_gaussfit.errors import OutputError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from napari_gaussfit.io.native import SavedFit

    Writer = Callable[[str | os.PathLike[str], SavedFit], None]

__all__ = ["FIT_WRITERS", "write_fit", "writer_of"]


def _write_native(path: str | os.PathLike[str], saved: SavedFit) -> None:
    from napari_gaussfit.io.native import save_fit

    save_fit(path, saved)


def _write_table(path: str | os.PathLike[str], saved: SavedFit) -> None:
    from napari_gaussfit.io.csv import write_csv

    write_csv(path, saved.field, saved.spacing)


def _write_volume(path: str | os.PathLike[str], saved: SavedFit) -> None:
    from napari_gaussfit.io.tiff import write_ome_tiff

    volume = saved.field.voxelise(saved.shape, saved.spacing).numpy()
    write_ome_tiff(path, volume, spacing=saved.spacing, unit=saved.unit, name=saved.stack)


FIT_WRITERS: dict[str, tuple[str, Writer]] = {
    ".safetensors": ("the fit itself", _write_native),
    ".csv": ("a table of the Gaussians", _write_table),
    ".tif": ("the fitted volume, as OME-TIFF", _write_volume),
    ".tiff": ("the fitted volume, as OME-TIFF", _write_volume),
}
"""What a fit can be written as: by suffix, what that is and what writes it."""


def writer_of(path: str | os.PathLike[str]) -> Writer:
    """Return what writes a fit under a name.

    Raises
    ------
    OutputError
        If no format has the name's suffix.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in FIT_WRITERS:
        known = ", ".join(f"{end} ({what})" for end, (what, _) in FIT_WRITERS.items())
        raise OutputError(f"{path}: has the suffix {suffix!r}; expected one of {known}")
    return FIT_WRITERS[suffix][1]


def write_fit(path: str | os.PathLike[str], saved: SavedFit) -> None:
    """Write a fit in the format that the name's suffix asks for.

    Raises
    ------
    OutputError
        If there is no such format, or no such folder.
    """
    writer_of(path)(path, saved)
