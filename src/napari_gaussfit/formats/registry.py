"""Which format a file's name asks for: the one table that the command line and the plugin share."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from napari_gaussfit.errors import FormatError, OutputError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from napari_gaussfit.model.result import SavedFit, StackFacts

    Pathlike = str | os.PathLike[str]
    Writer = Callable[[Pathlike, SavedFit], None]
    VolumeWriter = Callable[..., None]
    Reader = Callable[[Pathlike, StackFacts | None], SavedFit]

__all__ = [
    "FIT_READERS",
    "FIT_WRITERS",
    "VOLUME_SUFFIXES",
    "read_fit",
    "rendered",
    "write_fit",
    "write_volume",
    "writer_of",
]

VOLUME_SUFFIXES = (".tif", ".tiff", ".zarr")
"""What a rendered volume can be written as: OME-TIFF and OME-Zarr."""


def _write_native(path: Pathlike, saved: SavedFit) -> None:
    from napari_gaussfit.formats.native import save_fit

    save_fit(path, saved)


def _write_table(path: Pathlike, saved: SavedFit) -> None:
    from napari_gaussfit.formats.csv import write_csv

    write_csv(path, saved.field, saved.spacing, saved.others, saved.place)


def _write_ply(path: Pathlike, saved: SavedFit) -> None:
    from napari_gaussfit.formats.ply import write_ply

    write_ply(path, saved)


def _write_rendered(path: Pathlike, saved: SavedFit) -> None:
    write_volume(path, rendered(saved), saved)


def rendered(saved: SavedFit) -> NDArray[np.float32]:
    """Return the voxels of a fit.

    Parameters
    ----------
    saved : SavedFit
        The fit, with its stack's shape and spacing.

    Returns
    -------
    ndarray, shape [Z, Y, X], or of several channels [C, Z, Y, X]
        In raw intensity.
    """
    import numpy as np

    from napari_gaussfit.stacks.layout import refuse_what_memory_cannot_hold

    voxels = math.prod(saved.shape) * len(saved.channels)
    # The kernels' own volume and the sum with the background, beside what is returned.
    refuse_what_memory_cannot_hold(f"the volume of {saved.stack}", 2 * 4 * voxels, voxels)
    volumes = [one.voxelise(saved.shape, saved.spacing).numpy() for one in saved.channels]
    return np.stack(volumes) if len(volumes) > 1 else volumes[0]


FIT_WRITERS: dict[str, tuple[str, Writer]] = {
    ".safetensors": ("the fit itself", _write_native),
    ".csv": ("a table of the Gaussians", _write_table),
    ".ply": ("Gaussians for 3D Gaussian splatting programs", _write_ply),
    ".tif": ("the fitted volume, as OME-TIFF", _write_rendered),
    ".tiff": ("the fitted volume, as OME-TIFF", _write_rendered),
    ".zarr": ("the fitted volume, as OME-Zarr", _write_rendered),
}
"""What a fit can be written as: by suffix, what that is and what writes it."""


def _read_native(path: Pathlike, _: StackFacts | None) -> SavedFit:
    from napari_gaussfit.formats.native import load_fit

    return load_fit(path)


def _read_ply(path: Pathlike, _: StackFacts | None) -> SavedFit:
    from napari_gaussfit.formats.ply import read_ply

    return read_ply(path)


def _read_table(path: Pathlike, stack: StackFacts | None) -> SavedFit:
    from napari_gaussfit.formats.csv import read_channels
    from napari_gaussfit.model.result import SavedFit, StackBox

    known = _needed(path, stack)
    level = known.value_range[0]
    field, *others = read_channels(path, backgrounds=[level])
    of_stack = "" if isinstance(known, StackBox) else ", the smallest intensity of its stack,"
    note = f"a table has no background; {level:g}{of_stack} is taken"
    return SavedFit(
        field, known.name, known.shape, known.spacing, known.unit,
        others=tuple(others), notes=(note,),
    )  # fmt: skip


def _read_checkpoint(path: Pathlike, stack: StackFacts | None) -> SavedFit:
    from napari_gaussfit.formats.checkpoint import read_checkpoint

    return read_checkpoint(path, _needed(path, stack))


FIT_READERS: dict[str, tuple[str, Reader]] = {
    ".safetensors": ("a fit", _read_native),
    ".ply": ("Gaussians of 3D Gaussian splatting", _read_ply),
    ".csv": ("a table of Gaussians, with its stack", _read_table),
    ".pt": ("a checkpoint of the notebook, with its stack", _read_checkpoint),
    ".pth": ("a checkpoint of the notebook, with its stack", _read_checkpoint),
}
"""What a fit can be read from: by suffix, what that is and what reads it."""


def writer_of(path: Pathlike) -> Writer:
    """Return what writes a fit under a name.

    Parameters
    ----------
    path : path-like
        The name.

    Returns
    -------
    callable
        Takes a path and a `SavedFit`.

    Raises
    ------
    OutputError
        If no format has the name's suffix.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in FIT_WRITERS:
        raise OutputError(f"{path}: has the suffix {suffix!r}; expected {_listed(FIT_WRITERS)}")
    return FIT_WRITERS[suffix][1]


def write_fit(path: Pathlike, saved: SavedFit) -> None:
    """Write a fit in the format that the name's suffix asks for.

    Parameters
    ----------
    path : path-like
        The file to write or to replace.
    saved : SavedFit
        What to write.

    Raises
    ------
    OutputError
        If there is no such format, or no such folder.
    """
    writer_of(path)(path, saved)


def read_fit(path: Pathlike, stack: StackFacts | None = None) -> SavedFit:
    """Read a fit in the format that the name's suffix says.

    Parameters
    ----------
    path : path-like
        The file.
    stack : Stack, optional
        The stack that was fitted, or a `StackBox`; needed by formats that do not tell: CSV (which
        lacks the background too; it has the stack's smallest intensity for it) and checkpoints.

    Returns
    -------
    SavedFit
        With what the format tells; the rest is empty.

    Raises
    ------
    FormatError
        If there is no such format, or the file does not hold what its format says.
    """
    suffix = Path(path).suffix.lower()
    if not Path(path).exists():
        raise FormatError(f"{path}: there is no such file; check the path")
    if suffix not in FIT_READERS:
        raise FormatError(f"{path}: has the suffix {suffix!r}; expected {_listed(FIT_READERS)}")
    return FIT_READERS[suffix][1](path, stack)


def write_volume(path: Pathlike, volume: NDArray[np.float32], saved: SavedFit) -> None:
    """Write voxels [Z, Y, X] or [C, Z, Y, X] of a fit's stack, as OME-TIFF or OME-Zarr.

    Parameters
    ----------
    path : path-like
        The file to write or to replace.
    volume : ndarray, shape [Z, Y, X]
        In raw intensity.
    saved : SavedFit
        Whose spacing, unit and name go with it.

    Raises
    ------
    OutputError
        If the suffix is that of neither, or there is no such folder.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in VOLUME_SUFFIXES:
        expected = ", ".join(VOLUME_SUFFIXES)
        raise OutputError(f"{path}: has the suffix {suffix!r}; a volume is one of {expected}")
    write: VolumeWriter
    if suffix == ".zarr":
        from napari_gaussfit.stacks.ome_zarr import write_ome_zarr

        write = partial(write_ome_zarr, origin=saved.origin)
    else:
        from napari_gaussfit.stacks.tiff import write_ome_tiff as write
    write(path, volume, spacing=saved.spacing, unit=saved.unit, name=saved.stack)


def _needed(path: Pathlike, stack: StackFacts | None) -> StackFacts:
    if stack is None:
        raise FormatError(
            f"{path}: does not tell which stack its Gaussians fit; give the stack too (--stack), "
            "or its size and spacing in micrometers (--box Z Y X --spacing DZ DY DX): "
            "napari-gaussfit export makes a .safetensors of both, which needs neither"
        )
    return stack


def _listed(table: dict[str, tuple[str, Writer]] | dict[str, tuple[str, Reader]]) -> str:
    return "one of " + ", ".join(f"{end} ({what})" for end, (what, _) in table.items())
