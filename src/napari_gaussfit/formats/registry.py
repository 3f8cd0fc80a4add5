"""Which format a file's name asks for: the one table that the command line and the plugin share."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from napari_gaussfit.errors import FormatError, OutputError, SettingsError
from napari_gaussfit.stacks.stack import Stack

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from napari_gaussfit.formats.tracked import Tracked
    from napari_gaussfit.measure.measurement import Measurement
    from napari_gaussfit.model.field import GaussianField
    from napari_gaussfit.stacks.facts import StackFacts

    Pathlike = str | os.PathLike[str]
    Fields = Sequence[GaussianField]
    Writer = Callable[..., None]
    Reader = Callable[..., dict[str, Any]]

__all__ = [
    "FIT_NAME",
    "FIT_READERS",
    "FIT_WRITERS",
    "LABEL_WRITERS",
    "TREE_WRITERS",
    "VOLUME_SUFFIXES",
    "fit_path",
    "read_fit",
    "rendered",
    "suffix_of",
    "write_fit",
    "write_volume",
    "writer_of",
]

FIT_NAME = "fit.safetensors"
"""The fit itself in the folder that the command line leaves."""

VOLUME_SUFFIXES = (".tif", ".tiff", ".zarr")
"""What a rendered volume can be written as: OME-TIFF and OME-Zarr."""


def _write_native(path: Pathlike, fields: Fields, stack: StackFacts, **more: Any) -> None:
    from napari_gaussfit.formats.native import save_fit

    more.pop("quality", None)  # which `spots` makes again
    save_fit(path, fields, stack, **more)


def _as_measured(fields: Fields, more: dict[str, Any]) -> Fields:
    """Return what a table is of: Gaussians as they were measured, where they were."""
    found: Measurement | None = more.get("measurement")
    return fields if found is None else found.fields


def _write_table(path: Pathlike, fields: Fields, stack: StackFacts, **more: Any) -> None:
    from napari_gaussfit.formats.csv import write_csv
    from napari_gaussfit.measure.psf import Psf

    psf = None if more.get("psf") is None else Psf.from_dict(more["psf"])
    found: Measurement | None = more.get("measurement")
    write_csv(path, _as_measured(fields, more), stack.spacing, stack.place, found, psf)


def _write_ply(path: Pathlike, fields: Fields, stack: StackFacts, **_: Any) -> None:
    from napari_gaussfit.formats.ply import write_ply

    write_ply(path, fields, stack)


def _write_rendered(path: Pathlike, fields: Fields, stack: StackFacts, **_: Any) -> None:
    write_volume(path, rendered(fields, stack), stack)


def _as_spots(fields: Fields, stack: StackFacts, more: dict[str, Any]) -> Tracked:
    """Return what TrackMate's files are of; of several channels, the first's brightness."""
    from napari_gaussfit.formats.tracked import Tracked

    gaussians = _as_measured(fields, more)[0].numpy()
    return Tracked.of_one(gaussians, stack.time, more.get("quality"))


def _write_trackmate_xml(path: Pathlike, fields: Fields, stack: StackFacts, **more: Any) -> None:
    _tracks_as_xml(path, _as_spots(fields, stack, more), stack)


def _write_trackmate_csv(path: Pathlike, fields: Fields, stack: StackFacts, **more: Any) -> None:
    _tracks_as_csv(path, _as_spots(fields, stack, more), stack)


def _tracks_as_xml(path: Pathlike, tracked: Tracked, stack: StackFacts) -> None:
    from napari_gaussfit.formats.trackmate import write_trackmate_xml

    write_trackmate_xml(path, tracked, stack)


def _tracks_as_csv(path: Pathlike, tracked: Tracked, stack: StackFacts) -> None:
    from napari_gaussfit.formats.trackmate import write_trackmate_csv

    write_trackmate_csv(path, tracked, stack)


def _tracks_as_graph(path: Pathlike, tracked: Tracked, stack: StackFacts) -> None:
    from napari_gaussfit.formats.geff import write_tracks

    write_tracks(path, tracked, stack)


def _write_geff(path: Pathlike, fields: Fields, stack: StackFacts, **more: Any) -> None:
    from napari_gaussfit.formats.geff import write_gaussians

    write_gaussians(path, _as_measured(fields, more), stack, quality=more.get("quality"))


def rendered(fields: Fields, stack: StackFacts) -> NDArray[np.float32]:
    """Return the voxels of a fit.

    Parameters
    ----------
    fields : sequence of GaussianField
        The Gaussians of each channel.
    stack : StackFacts
        The stack whose shape and spacing the voxels have.

    Returns
    -------
    ndarray, shape [Z, Y, X], or of several channels [C, Z, Y, X]
        In raw intensity.
    """
    import numpy as np

    from napari_gaussfit.stacks.layout import refuse_what_memory_cannot_hold

    voxels = math.prod(stack.shape) * len(fields)
    # The kernels' own volume and the sum with the background, beside what is returned.
    refuse_what_memory_cannot_hold(f"the volume of {stack.name}", 2 * 4 * voxels, voxels)
    volumes = [field.voxelise(stack.shape, stack.spacing).numpy() for field in fields]
    return np.stack(volumes) if len(volumes) > 1 else volumes[0]


FIT_WRITERS: dict[str, tuple[str, Writer]] = {
    ".safetensors": ("the fit itself", _write_native),
    ".csv": ("a table of the Gaussians", _write_table),
    ".ply": ("Gaussians for 3D Gaussian splatting programs", _write_ply),
    ".xml": ("spots for TrackMate", _write_trackmate_xml),
    ".trackmate.csv": ("spots as TrackMate's table", _write_trackmate_csv),
    ".geff": ("a GEFF graph whose nodes are the Gaussians", _write_geff),
    ".tif": ("the fitted volume, as OME-TIFF", _write_rendered),
    ".tiff": ("the fitted volume, as OME-TIFF", _write_rendered),
    ".zarr": ("the fitted volume, as OME-Zarr", _write_rendered),
}
"""What a fit can be written as: by suffix, what that is and what writes it."""


TRACK_WRITERS: dict[str, tuple[str, Writer]] = {
    ".xml": ("spots and tracks for TrackMate", _tracks_as_xml),
    ".trackmate.csv": ("spots as TrackMate's table, with their tracks", _tracks_as_csv),
    ".geff": ("a GEFF graph whose edges are the tracks", _tracks_as_graph),
}
"""What Gaussians of several times can be written as: takes a `Tracked` and its stack's facts."""


class Tree(Protocol):
    """A trace, as `objects.neurites.Trace` has it."""

    points: NDArray[np.float64]
    radii: NDArray[np.float64]
    parents: NDArray[np.intp]
    kinds: NDArray[np.intp]
    branch: NDArray[np.intp]
    unit: str


def _write_swc(path: Pathlike, tree: Tree, stack: StackFacts) -> None:
    from napari_gaussfit.formats.swc import write_swc

    about = [f"neurites in {stack.name}, traced by napari-gaussfit", f"lengths in {tree.unit}"]
    write_swc(path, tree.points, tree.radii, tree.parents, tree.kinds, comments=about)


def _write_tree(path: Pathlike, tree: Tree, _: StackFacts) -> None:
    from napari_gaussfit.formats.geff import write_tree

    more = {"radius": tree.radii, "kind": tree.kinds, "branch": tree.branch}
    write_tree(path, tree.points, tree.parents, more, tree.unit)


TREE_WRITERS: dict[str, tuple[str, Writer]] = {
    ".swc": ("a tree, for programs for neurons", _write_swc),
    ".geff": ("a tree, as a GEFF graph", _write_tree),
}
"""What a trace can be written as: takes a `Tree` and its stack's facts."""


def _write_label_tiff(
    path: Pathlike, labels: NDArray[np.integer], fields: Fields, stack: StackFacts
) -> None:
    import numpy as np

    from napari_gaussfit.stacks.tiff import write_ome_tiff

    del fields
    smallest = np.uint16 if labels.max(initial=0) < 2**16 else np.int32
    write_ome_tiff(
        path, labels, spacing=stack.spacing, unit=stack.unit, name=stack.name, dtype=smallest
    )


def _write_label_zarr(
    path: Pathlike, labels: NDArray[np.integer], fields: Fields, stack: StackFacts
) -> None:
    from napari_gaussfit.stacks.ome_zarr import write_ome_zarr

    write_ome_zarr(
        path, rendered(fields, stack), spacing=stack.spacing, unit=stack.unit, name=stack.name,
        origin=stack.origin, labels=labels,
    )  # fmt: skip


LABEL_WRITERS: dict[str, tuple[str, Writer]] = {
    ".tif": ("labels, as OME-TIFF", _write_label_tiff),
    ".tiff": ("labels, as OME-TIFF", _write_label_tiff),
    ".zarr": ("the fitted volume with its labels, as OME-Zarr", _write_label_zarr),
}
"""What objects can be written as: takes labels [Z, Y, X], the fields and their stack's facts."""


def _read_native(path: Pathlike, _: StackFacts | None) -> dict[str, Any]:
    from napari_gaussfit.formats.native import load_fit

    return load_fit(path)


def _read_ply(path: Pathlike, _: StackFacts | None) -> dict[str, Any]:
    from napari_gaussfit.formats.ply import read_ply

    return read_ply(path)


def _read_table(path: Pathlike, stack: StackFacts | None) -> dict[str, Any]:
    from napari_gaussfit.formats.csv import read_channels

    known = _needed(path, stack)
    level = 0.0 if known.value_range is None else known.value_range[0]
    of_stack = "" if known.value_range is None else ", the smallest intensity of its stack,"
    note = f"a table has no background; {level:g}{of_stack} is taken"
    return _of_stack(known, read_channels(path, backgrounds=[level]), (note,))


def _read_checkpoint(path: Pathlike, stack: StackFacts | None, **options: Any) -> dict[str, Any]:
    from napari_gaussfit.formats.checkpoint import read_checkpoint

    known = _needed(path, stack)
    return _of_stack(known, *read_checkpoint(path, known, **options))


def _of_stack(stack: StackFacts, fields: Fields, notes: tuple[str, ...]) -> dict[str, Any]:
    """Return Gaussians with the stack that they are said to be of; several channels are of all."""
    facts = stack if len(fields) == 1 else replace(stack, channel=None)
    return {"fields": fields, "stack": facts, "notes": notes}


FIT_READERS: dict[str, tuple[str, Reader]] = {
    ".safetensors": ("a fit", _read_native),
    ".ply": ("Gaussians of 3D Gaussian splatting", _read_ply),
    ".csv": ("a table of Gaussians, with its stack", _read_table),
    ".pt": ("a checkpoint of the notebook, with its stack", _read_checkpoint),
    ".pth": ("a checkpoint of the notebook, with its stack", _read_checkpoint),
}
"""What a fit can be read from: by suffix, what that is and what reads it."""


def writer_of(path: Pathlike, table: dict[str, tuple[str, Writer]] = FIT_WRITERS) -> Writer:
    """Return what writes under a name.

    Parameters
    ----------
    path : path-like
        The name of the file.
    table : dict
        `FIT_WRITERS`, `TRACK_WRITERS`, `TREE_WRITERS` or `LABEL_WRITERS`.

    Returns
    -------
    callable
        Takes what `write_fit` takes, or as its table says.

    Raises
    ------
    OutputError
        If no format has the name's suffix.
    """
    suffix = suffix_of(path)
    if suffix not in table:
        raise OutputError(f"{path}: has the suffix {suffix!r}; expected {_listed(table)}")
    return table[suffix][1]


def suffix_of(path: Pathlike) -> str:
    """Return the suffix by which a name chooses its format.

    Parameters
    ----------
    path : path-like
        The name of a file.

    Returns
    -------
    str
        The longest of the table's that the name ends with, else its last.
    """
    name = Path(path).name.lower()
    known = [suffix for suffix in FIT_WRITERS if name.endswith(suffix)]
    return max(known, key=len, default=Path(path).suffix.lower())


def write_fit(path: Pathlike, fields: Fields, stack: StackFacts, **more: Any) -> None:
    """Write a fit in the format that the name's suffix asks for.

    Parameters
    ----------
    path : path-like
        The file to write or to replace.
    fields : sequence of GaussianField
        The Gaussians of each channel.
    stack : StackFacts
        The stack that was fitted.
    **more
        Settings, history, report and state, for the formats that hold them; see `native.save_fit`.
        With a ``measurement``, tables are of the Gaussians as they were measured.

    Raises
    ------
    OutputError
        If there is no such format, or no such folder.
    """
    writer_of(path)(path, fields, stack, **more)


def fit_path(path: Pathlike) -> Path:
    """Return the file that a path means: itself, or the fit in the folder that it is.

    Parameters
    ----------
    path : path-like
        A file, or a folder that the command line has left.

    Returns
    -------
    Path
        The file; the folder itself of a fit by tiles.

    Raises
    ------
    FormatError
        If it is a folder without a fit.
    """
    given = Path(path)
    if not given.is_dir() or _holds_tiles(given):
        return given
    if not (given / FIT_NAME).is_file():
        raise FormatError(
            f"{given}: is a folder that holds no {FIT_NAME}; give the folder of a fit, or a file"
        )
    return given / FIT_NAME


def read_fit(
    path: Pathlike, stack: Stack | StackFacts | None = None, **options: Any
) -> dict[str, Any]:
    """Read a fit in the format that the name's suffix says.

    Parameters
    ----------
    path : path-like
        The file, or the folder that the command line has left.
    stack : Stack or StackFacts, optional
        The stack that was fitted; needed by formats that do not tell: CSV (which lacks the
        background too; it has the stack's smallest intensity for it) and checkpoints.
    **options
        Of checkpoints: ``box``, ``value_range``, ``channel``; see `checkpoint.read_checkpoint`.
        Of fits by tiles: ``region``, see `tiled.read_region`.

    Returns
    -------
    dict
        ``fields``, ``stack`` and, as far as the format tells, what else `native.save_fit` takes
        and ``notes``.

    Raises
    ------
    FormatError
        If there is no such format, or the file does not hold what its format says.
    SettingsError
        If a format is given options that it does not have.
    """
    source = fit_path(path)
    if source.is_dir():
        from napari_gaussfit.formats.tiled import read_region

        if set(options) - {"region"}:
            raise SettingsError(f"{source}: {', '.join(options)}: a fit by tiles has region alone")
        return read_region(source, **options)
    suffix = source.suffix.lower()
    if not source.exists():
        raise FormatError(f"{source}: there is no such file; check the path")
    if suffix not in FIT_READERS:
        raise FormatError(f"{source}: has the suffix {suffix!r}; expected {_listed(FIT_READERS)}")
    if options and suffix not in (".pt", ".pth"):
        raise SettingsError(f"{source}: {', '.join(options)}: only checkpoints (.pt) have options")
    facts = stack.facts if isinstance(stack, Stack) else stack
    return FIT_READERS[suffix][1](source, facts, **options)


def write_volume(path: Pathlike, volume: NDArray[np.float32], stack: StackFacts) -> None:
    """Write voxels [Z, Y, X] or [C, Z, Y, X] of a fit's stack, as OME-TIFF or OME-Zarr.

    Parameters
    ----------
    path : path-like
        The file to write or to replace.
    volume : ndarray, shape [Z, Y, X] or [C, Z, Y, X]
        The intensities that are written, in the stack's own scale.
    stack : StackFacts
        The stack whose spacing, unit and name go with it.

    Raises
    ------
    OutputError
        If the suffix is that of neither, or there is no such folder.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in VOLUME_SUFFIXES:
        expected = ", ".join(VOLUME_SUFFIXES)
        raise OutputError(f"{path}: has the suffix {suffix!r}; a volume is one of {expected}")
    write: Callable[..., None]
    if suffix == ".zarr":
        from napari_gaussfit.stacks.ome_zarr import write_ome_zarr

        write = partial(write_ome_zarr, origin=stack.origin)
    else:
        from napari_gaussfit.stacks.tiff import write_ome_tiff as write
    write(path, volume, spacing=stack.spacing, unit=stack.unit, name=stack.name)


def _needed(path: Pathlike, stack: StackFacts | None) -> StackFacts:
    if stack is None:
        raise FormatError(
            f"{path}: does not tell which stack its Gaussians fit; make a file that does: "
            f"napari-gaussfit export {path} -o fit.safetensors --stack STACK (or, in place of the "
            "stack, its size and spacing in micrometers: --box Z Y X --spacing DZ DY DX)"
        )
    return stack


def _holds_tiles(folder: Path) -> bool:
    from napari_gaussfit.formats.tiled import holds_tiles

    return holds_tiles(folder)


def _listed(table: dict[str, tuple[str, Writer]] | dict[str, tuple[str, Reader]]) -> str:
    return "one of " + ", ".join(f"{end} ({what})" for end, (what, _) in table.items())
