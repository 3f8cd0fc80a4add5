"""OME-Zarr 0.4 and 0.5: stacks from it, volumes to it.

Knows how OME-Zarr says things, and lets `yaozarrs` check that they are said rightly. What they
mean is for `layout`. Of several resolutions the finest counts, of several images the first.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_gaussfit.errors import OutputError, StackError, StackNotFoundError
from napari_gaussfit.io.atomic import replacing
from napari_gaussfit.io.layout import (
    StackLayout,
    interpret_axes,
    refuse_what_memory_cannot_hold,
    spacing_notes,
)
from napari_gaussfit.io.units import micrometers_per

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    import zarr
    from numpy.typing import NDArray

__all__ = ["read_layout", "read_voxels", "write_ome_zarr"]

_LETTERS = {"channel": "C", "time": "T"}
"""What axes are called here by their type; those of space by their name."""

_GROUP_FILES = ("zarr.json", ".zgroup")
"""What makes a folder a Zarr group, of version 3 and of version 2."""


@dataclass(frozen=True)
class _Image:
    """The finest array of an OME-Zarr image, and what the metadata says about it."""

    array: zarr.Array[Any]
    version: str
    axes: str
    voxel_size: tuple[float | None, float | None, float | None]
    channel_names: tuple[str, ...]
    notes: tuple[str, ...]


def read_layout(path: Path, *, position: int | None = None) -> StackLayout:
    """Read what an OME-Zarr says about its stack, without its voxels.

    Parameters
    ----------
    path : Path
        The folder.
    position : int, optional
        Only 0: of several images, each is a folder of its own.

    Returns
    -------
    StackLayout
        Axes, sizes, spacing, unit, channels and times.

    Raises
    ------
    StackNotFoundError
        If there is no such folder.
    StackError
        If it is no OME-Zarr of an image, its metadata are not valid, or it is no 3D stack of real
        numbers.
    """
    if position:
        raise StackError(
            f"{path}: position={position} (--position {position}) cannot be chosen in an OME-Zarr; "
            "give the folder of that image"
        )
    image = _opened(path)
    kept = [
        (axis, length)
        for axis, length in zip(image.axes, image.array.shape, strict=True)
        if length > 1 or axis in "YX"
    ]
    stored = "".join(axis for axis, _ in kept)
    shape = tuple(length for _, length in kept)
    axes, notes = interpret_axes(str(path), stored, shape)
    names = image.channel_names
    return StackLayout(
        path=path,
        container=f"OME-Zarr {image.version}",
        image=0,
        stored_axes=stored,
        axes=axes,
        shape=shape,
        dtype=np.dtype(image.array.dtype),
        voxel_size=image.voxel_size,
        channel_names=names if ("C", len(names)) in kept else (),
        axis_notes=(*notes, *image.notes),
        spacing_notes=spacing_notes(image.voxel_size, hint="an axis of space has no unit"),
    )


def read_voxels(
    layout: StackLayout, *, channel: int | None = None, time: int | None = None
) -> NDArray[Any]:
    """Read one channel at one time point; no chunk of another is touched.

    Parameters
    ----------
    layout : StackLayout
        What `read_layout` found.
    channel, time : int, optional
        Which one; must be given where the file has several.

    Returns
    -------
    array, shape [Z, Y, X]
        The voxels, in the file's type and this machine's byte order.

    Raises
    ------
    StackError
        If a choice is missing or not on offer, there is not enough memory, or a chunk cannot be
        decoded.
    """
    channel, time = layout.choose(channel, time)
    refuse_what_memory_cannot_hold(str(layout.path), layout.stack_nbytes, prod(layout.stack_shape))
    image = _opened(layout.path)
    chosen = {"C": channel or 0, "T": time or 0}
    selection = tuple(chosen.get(axis, slice(None)) for axis in image.axes)
    try:
        voxels = np.asarray(image.array[selection])
    except Exception as error:
        raise StackError(f"{layout.path}: cannot be decoded: {_one_line(error)}") from error
    remaining = [axis for axis in image.axes if axis in "ZYX"]
    zyx = voxels.transpose([remaining.index(axis) for axis in "ZYX"])
    return np.ascontiguousarray(zyx, dtype=voxels.dtype.newbyteorder("="))


def write_ome_zarr(
    path: str | os.PathLike[str],
    volume: NDArray[Any],
    *,
    spacing: Sequence[float],
    unit: str,
    name: str,
) -> None:
    """Write a volume as an OME-Zarr 0.5 of 32-bit reals, in one resolution.

    Parameters
    ----------
    path : path-like
        The folder to write, by convention named ``*.ome.zarr``; an OME-Zarr of that name is
        replaced only once all is written.
    volume : array, shape [Z, Y, X], or of several channels [C, Z, Y, X]
        Intensities.
    spacing : sequence of float
        (dz, dy, dx) in `unit`.
    unit : str
        "micrometer" or "pixel".
    name : str
        The image's name in the file.

    Raises
    ------
    OutputError
        If the folder to write into does not exist, or something else has that name.
    """
    from yaozarrs import v05
    from yaozarrs.write.v05 import write_image

    target = Path(path)
    if target.exists() and not any((target / file).is_file() for file in _GROUP_FILES):
        raise OutputError(f"{target}: is there and is no Zarr group; give another name")
    of_space = None if unit == "pixel" else unit
    channels = [v05.ChannelAxis(name="c")] if volume.ndim == 4 else []
    steps = [*[1.0] * len(channels), *map(float, spacing)]
    scale = v05.ScaleTransformation(scale=steps)
    multiscale = v05.Multiscale(
        name=name,
        axes=[*channels, *(v05.SpaceAxis(name=axis, unit=of_space) for axis in "zyx")],
        datasets=[v05.Dataset(path="0", coordinateTransformations=[scale])],
    )
    image = v05.Image(multiscales=[multiscale])
    with replacing(target) as temporary:
        write_image(temporary, image, np.asarray(volume, dtype=np.float32), writer="zarr")


def _opened(path: Path) -> _Image:
    """Open the first image of an OME-Zarr; whatever is wrong with it is a StackError."""
    import zarr
    from pydantic import ValidationError
    from yaozarrs import validate_ome_object

    if not path.exists():
        raise StackNotFoundError(f"{path}: there is no such folder; check the path")
    try:
        group = zarr.open_group(path, mode="r")
        notes: tuple[str, ...] = ()
        if _metadata_of(group).get("bioformats2raw.layout") is not None:
            inner = group["0"]
            if isinstance(inner, zarr.Group):
                group = inner
                notes = ("the file may hold several images; the first is taken",)
        metadata = _metadata_of(group)
        if "multiscales" not in metadata:
            found = ", ".join(metadata) or "none"
            raise StackError(
                f"{path}: its OME metadata has {found}; expected multiscales; of a plate, or of "
                "labels, give the folder of one image"
            )
        valid: Any = validate_ome_object(metadata)
        array = group[valid.multiscales[0].datasets[0].path]
    except StackError:
        raise
    except ValidationError as error:
        reason = " ".join(error.errors()[0]["msg"].split())
        raise StackError(
            f"{path}: its OME metadata are not valid: {reason}; expected OME-Zarr 0.4 or 0.5; "
            "write it again with the program that made it"
        ) from error
    except Exception as error:
        raise StackError(
            f"{path}: cannot be read as an OME-Zarr ({_one_line(error)}); expected a folder that "
            "holds a Zarr group, whole"
        ) from error
    if not isinstance(array, zarr.Array) or array.dtype.kind not in "buif":
        raise StackError(f"{path}: its finest resolution is no array of integers or real numbers")
    return _described(array, metadata, valid, notes)


def _described(
    array: zarr.Array[Any], metadata: dict[str, Any], valid: Any, notes: tuple[str, ...]
) -> _Image:
    multiscale = valid.multiscales[0]
    letters = "".join(
        _LETTERS.get(axis.type, axis.name.upper() if axis.name in ("z", "y", "x") else "?")
        for axis in multiscale.axes
    )
    transforms = [
        *multiscale.datasets[0].coordinateTransformations,
        *(multiscale.coordinateTransformations or ()),
    ]
    scale = np.prod([one.scale for one in transforms if one.type == "scale"], axis=0)
    size: dict[str, float] = {}
    for letter, axis, step in zip(letters, multiscale.axes, scale, strict=True):
        micrometers = micrometers_per(axis.unit) if getattr(axis, "unit", None) else None
        if letter in "ZYX" and micrometers is not None:
            size[letter] = float(step) * micrometers
    channels = metadata.get("omero", {}).get("channels", [])
    return _Image(
        array=array,
        version="0.5" if "version" in metadata else "0.4",
        axes=letters,
        voxel_size=(size.get("Z"), size.get("Y"), size.get("X")),
        channel_names=tuple(str(channel.get("label", "")) for channel in channels),
        notes=notes,
    )


def _metadata_of(group: zarr.Group) -> dict[str, Any]:
    """Return the OME metadata: in version 0.5 under a name of their own."""
    attributes: dict[str, Any] = dict(group.attrs)
    return dict(attributes.get("ome", attributes))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
