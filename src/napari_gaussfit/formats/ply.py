"""PLY with the properties of 3D Gaussian splatting: a field for the programs of that world.

It is for interchange, and says so in its comments: those programs blend Gaussians by opacity where
a field adds them up. x, y, z, log-scales, quaternion (w, x, y, z), logit opacity and grey stand
under the names and in the order of Kerbl et al.'s own program (2023). What they have no
place for is beside them: each Gaussian's ``amplitude`` (of several channels ``amplitude_0``,
``amplitude_1``, ..; the first three are also red, green and blue), and in a comment the unit, the
stack's spacing and shape, and the background, so that a field comes back as it was, to float32.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_gaussfit._limits import LONGEST_SIDE
from napari_gaussfit.errors import FormatError
from napari_gaussfit.files import replacing
from napari_gaussfit.formats.xyz import covariances_in_zyx, covariances_of, scales_and_quaternions
from napari_gaussfit.model.field import GaussianField
from napari_gaussfit.model.gaussians import Gaussians
from napari_gaussfit.stacks.facts import StackFacts
from napari_gaussfit.stacks.reading import is_number, numbers_of, parsed_json, refusing, shown
from napari_gaussfit.stacks.units import standard_unit

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from plyfile import PlyData

    Floats = NDArray[np.float64]

__all__ = ["read_ply", "write_ply"]

VERSION = 1
"""Counts up when a reader of the version before could not read the file rightly."""

_MARK = "napari-gaussfit"
"""What its comments begin with."""

_NOTICE = f"{_MARK} interchange: a sum of Gaussians over a background; not made to be alpha-blended"

_POSITIONS = ("x", "y", "z")
_SCALES = ("scale_0", "scale_1", "scale_2")
_COLOURS = ("f_dc_0", "f_dc_1", "f_dc_2")
_QUATERNION = ("rot_0", "rot_1", "rot_2", "rot_3")
_NEEDED = (*_POSITIONS, "opacity", *_SCALES, *_QUATERNION)
_PROPERTIES = (
    *_POSITIONS,
    *("nx", "ny", "nz"),
    *_COLOURS,
    "opacity",
    *_SCALES,
    *_QUATERNION,
)

_OPACITIES = (1e-6, 0.99)
"""Of what has no brightness, and of the brightest: a logit is finite between."""

_HARMONIC = 0.28209479177387814
"""1 / (2 sqrt(pi)), the spherical harmonic of degree 0: colour = 0.5 + f_dc times this."""


def write_ply(
    path: str | os.PathLike[str], fields: Sequence[GaussianField], stack: StackFacts
) -> None:
    """Write Gaussians as a PLY that programs for 3D Gaussian splatting read.

    Parameters
    ----------
    path : path-like
        The file to write or to replace.
    fields : sequence of GaussianField
        The Gaussians of each channel, with the same means and covariances.
    stack : StackFacts
        The stack that they were fitted to.

    Raises
    ------
    OutputError
        If the folder does not exist.
    """
    from plyfile import PlyData, PlyElement

    gaussians = fields[0].numpy()
    amplitudes = np.stack([field.numpy().amplitudes.astype(np.float64) for field in fields], axis=1)
    scales = np.abs(amplitudes).max(axis=0, initial=0.0) / _OPACITIES[1]
    scales[scales == 0] = 1.0
    relative = np.clip(amplitudes / scales, *_OPACITIES)
    opacities = relative.max(axis=1)
    names = _amplitude_names(len(fields))
    rows = np.zeros(len(gaussians), [(name, "<f4") for name in (*_PROPERTIES, *names)])
    covariances = covariances_in_zyx(gaussians.covariances)
    log_scales, quaternions = scales_and_quaternions(covariances)
    columns = {
        _POSITIONS: gaussians.means[:, ::-1],
        _COLOURS: (_colours(relative) - 0.5) / _HARMONIC,
        ("opacity",): np.log(opacities / (1 - opacities))[:, None],
        _SCALES: log_scales,
        _QUATERNION: quaternions,
        names: amplitudes,
    }
    for of, values in columns.items():
        for name, column in zip(of, values.T, strict=True):
            rows[name] = column
    metadata = {
        "version": VERSION,
        "unit": stack.unit,
        "spacing_zyx": list(stack.spacing),
        "shape_zyx": list(stack.shape),
        "stack": stack.name,
        "origin_zyx": list(stack.origin),
        **stack.place,
        "backgrounds": [field.background for field in fields],
        "amplitude_scale": float(scales[0]),
    }
    comments = [_NOTICE, f"{_MARK} {json.dumps(metadata)}"]
    data = PlyData([PlyElement.describe(rows, "vertex")], byte_order="<", comments=comments)
    with replacing(path) as temporary:
        data.write(str(temporary))


def read_ply(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read Gaussians from a PLY, one that `write_ply` wrote or another program.

    Parameters
    ----------
    path : path-like
        Path of the PLY file.

    Returns
    -------
    dict
        ``fields`` and ``stack``, as `write_ply` takes them, and ``notes`` on what was assumed.
        Of a file of another program: in pixels of a stack that reaches from the origin to the last
        centre, with the opacities for amplitudes, and no background. Colours are left out. Where
        centres lie below the origin, or far from it, all are moved so that the stack holds them,
        and a note says by how much.

    Raises
    ------
    FormatError
        If there is no such file, it is no PLY or a truncated one, lacks a property or a number, or
        holds Gaussians that no stack can have.
    """
    source = Path(path)
    with refusing(source, "a PLY of 3D Gaussian splatting"):
        ply = _parsed(source)
        return _fit_of(source.stem, _checked_rows(source, ply), _metadata(source, ply))


def _fit_of(name: str, rows: NDArray[Any], metadata: dict[str, Any]) -> dict[str, Any]:
    def columns(*names: str) -> Floats:
        return np.stack([np.asarray(rows[name], np.float64) for name in names], axis=1)

    notes: tuple[str, ...] = ()
    means = columns(*_POSITIONS)[:, ::-1]
    if "shape_zyx" not in metadata:
        means, notes = _moved_to_origin(means)
    names = _amplitude_names_in(rows)
    if names:
        amplitudes = columns(*names)
    else:
        [scale] = numbers_of([metadata.get("amplitude_scale", 1.0)], "amplitude_scale")
        amplitudes = scale / (1 + np.exp(-columns("opacity")))
    # Held to what an integer holds; a stack of more voxels than it may have is refused.
    reach = np.ceil(means.max(axis=0, initial=1.0)).clip(max=LONGEST_SIDE).astype(int) + 1
    nz, ny, nx = numbers_of(metadata.get("shape_zyx", reach.tolist()), "shape_zyx", 3)
    spacing = numbers_of(metadata.get("spacing_zyx", [1.0, 1.0, 1.0]), "spacing_zyx", 3)
    none = [0.0] * amplitudes.shape[1]
    backgrounds = numbers_of(metadata.get("backgrounds", none), "backgrounds", len(none))
    unit, factor = standard_unit(str(metadata.get("unit", "pixel")))
    dz, dy, dx = (step * factor for step in spacing)
    covariances = covariances_of(columns(*_SCALES), columns(*_QUATERNION))
    gaussians = Gaussians.from_covariances(
        means * factor,
        covariances_in_zyx(covariances) * factor**2,
        amplitudes[:, 0],
        unit=unit,
    )
    fields = tuple(
        GaussianField.from_numpy(replace(gaussians, amplitudes=channel, background=float(level)))
        for channel, level in zip(amplitudes.T.astype(np.float32), backgrounds, strict=True)
    )
    shape: Any = nz, ny, nx  # whole numbers, or refused
    place = numbers_of(metadata.get("origin_zyx", [0.0, 0.0, 0.0]), "origin_zyx", 3)
    z, y, x = (float(position) for position in place)
    stack = StackFacts(
        str(metadata.get("stack", name)),
        shape,
        (dz, dy, dx),
        unit,
        (z, y, x),
        metadata.get("channel"),
        metadata.get("time"),
    )
    return {"fields": fields, "stack": stack, "notes": notes}


def _moved_to_origin(means: Floats) -> tuple[Floats, tuple[str, ...]]:
    """Return centres [K, 3] that a stack from the origin holds well, and a note if they moved.

    They move where one lies below the origin, or all lie further from it than they reach. By whole
    pixels, so that what lay on a voxel's centre still does.
    """
    if not len(means):
        return means, ()
    lowest, highest = means.min(axis=0), means.max(axis=0)
    corner = np.floor(lowest + 0.5)
    if not (corner > highest - lowest).all():
        corner = np.minimum(corner, 0)
    if not corner.any():
        return means, ()
    ends = (" x ".join(f"{n:.4g}" for n in end) for end in (lowest, highest))
    by = " x ".join(f"{n:g}" for n in 0.0 - corner)
    note = (
        f"its centres lie between {' and '.join(ends)} (z, y, x), which a stack that begins at the "
        f"origin does not hold, or mostly empty; all were moved by {by}"
    )
    return means - corner, (note,)


def _colours(relative: Floats) -> Floats:
    """Return red, green and blue [K, 3] of brightness [K, C]: grey if it is of one channel."""
    colours = np.zeros((len(relative), 3))
    shown = relative.repeat(3, axis=1) if relative.shape[1] == 1 else relative[:, :3]
    colours[:, : shown.shape[1]] = shown
    return colours


def _amplitude_names(channels: int) -> tuple[str, ...]:
    return ("amplitude",) if channels == 1 else tuple(f"amplitude_{n}" for n in range(channels))


def _amplitude_names_in(rows: NDArray[Any]) -> tuple[str, ...]:
    """Return the properties that hold amplitudes, one a channel; none in another program's file."""
    found = {name for name in rows.dtype.names or () if name.startswith("amplitude")}
    return _amplitude_names(len(found)) if found else ()


def _parsed(path: Path) -> PlyData:
    from plyfile import PlyData, PlyParseError

    if not path.is_file():
        found = "is a folder" if path.is_dir() else "there is no such file"
        raise FormatError(f"{path}: {found}; expected a .ply file")
    try:
        # Not mapped, since a file that is still mapped cannot be replaced on Windows.
        return PlyData.read(str(path), mmap=False)
    except PlyParseError as error:
        reason = " ".join(str(error).split())
        raise FormatError(f"{path}: is no PLY, or a truncated one: {reason}") from error


def _checked_rows(path: Path, ply: PlyData) -> NDArray[Any]:
    """Return the vertices, with all that makes a Gaussian, in finite numbers."""
    elements = [element.name for element in ply.elements]
    if "vertex" not in elements:
        found = ", ".join(elements) or "nothing"
        raise FormatError(f"{path}: has the elements {found}; expected vertex")
    rows: NDArray[Any] = ply["vertex"].data
    names = rows.dtype.names or ()
    missing = [name for name in _NEEDED if name not in names]
    if missing:
        raise FormatError(
            f"{path}: lacks the properties {', '.join(missing)}; it has {', '.join(names)}, "
            f"expected those of 3D Gaussian splatting: {', '.join(_NEEDED)}"
        )
    own = _amplitude_names_in(rows)
    missing = [name for name in own if name not in names]
    if missing:
        raise FormatError(f"{path}: lacks the properties {', '.join(missing)} of its channels")
    for name in (*_NEEDED, *own):
        if rows.dtype[name].kind not in "fiu":
            raise FormatError(f"{path}: has lists as {name}; expected a number for each vertex")
        bad = np.flatnonzero(~np.isfinite(rows[name]))
        if len(bad):
            raise FormatError(
                f"{path}: has {rows[name][bad[0]]} as {name} of vertex {bad[0] + 1} of "
                f"{len(rows)}; expected a finite number"
            )
    return rows


def _metadata(path: Path, ply: PlyData) -> dict[str, Any]:
    """Return what the comments tell; nothing where another program wrote the file."""
    mark = f"{_MARK} {{"
    for comment in ply.comments:
        if comment.startswith(mark):
            try:
                metadata = parsed_json(comment.removeprefix(_MARK))
            except ValueError as error:
                raise FormatError(f"{path}: its comment {_MARK!r} is no JSON: {error}") from error
            version = metadata.get("version", 0)
            if not is_number(version) or not version <= VERSION:
                raise FormatError(
                    f"{path}: is of version {shown(version)}, this program reads up to {VERSION}; "
                    "install a newer napari-gaussfit"
                )
            return metadata
    return {}
