"""The image in Zarr that a path means: an array, and what is said about it.

A folder or a zip file is what its metadata say that it is, whatever it is called: an image of a
plate, labels, one resolution, a plain array. Of several resolutions the finest counts. What is no
image says which paths to give instead.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from napari_gaussfit.errors import StackError, StackNotFoundError
from napari_gaussfit.stacks.ome_metadata import (
    Axis,
    Level,
    Multiscale,
    axes_named,
    ome_attributes,
    read_multiscale,
)
from napari_gaussfit.stacks.zarr_paths import located

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import zarr

__all__ = ["ZarrImage", "kept_open", "one_line", "opened"]

_SHOWN = 6
"""How many images an error lists before it says that there are more."""


@dataclass(frozen=True)
class ZarrImage:
    """An array, and what is said about it; `coarser` are the image's other resolutions."""

    array: zarr.Array[Any]
    container: str
    axes: tuple[Axis, ...]
    level: Level
    channel_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    position: int = 0
    positions: tuple[int, ...] = (0,)
    coarser: tuple[zarr.Array[Any], ...] = ()

    @property
    def has_planes(self) -> bool:
        """Whether there is more than one plane."""
        lengths = zip(self.axes, self.array.shape, strict=True)
        return any(axis.letter == "Z" and n > 1 for axis, n in lengths)


@contextmanager
def opened(path: Path, position: int | None) -> Iterator[ZarrImage]:
    """Open the image that a path means; whatever is wrong with it is a StackError."""
    import zarr

    image, store = _opened(path, position)
    try:
        yield image
    finally:
        if isinstance(store, zarr.storage.ZipStore):
            store.close()


def kept_open(path: Path, position: int | None) -> ZarrImage:
    """Return the image that a path means, open until nobody has it; the next to ask finds it so.

    Metadata, and in a zip file the list of what is in it, take longer to read than a chunk does.
    """
    outer = next(part for part in (path, *path.parents) if part.exists())
    known = outer.stat()
    return _kept_open(path, position, (known.st_ino, known.st_mtime_ns))


@lru_cache(maxsize=8)
def _kept_open(path: Path, position: int | None, _version: tuple[int, int]) -> ZarrImage:
    return _opened(path, position)[0]


def _opened(path: Path, position: int | None) -> tuple[ZarrImage, Any]:
    """Return the image that a path means, and what its chunks are read from."""
    import zarr

    root, inner = located(path)
    if not root.exists():
        raise StackNotFoundError(f"{path}: there is no such file or folder; check the path")
    store: Any = root
    try:
        if root.is_file():
            store = zarr.storage.ZipStore(root, mode="r")
        return _image_at(path, store, inner, position), store
    except (StackError, MemoryError):
        raise
    except Exception as error:
        raise StackError(
            f"{path}: cannot be read as Zarr ({one_line(error)}); expected a folder or a zip file "
            "that holds a Zarr image, whole"
        ) from error


def _image_at(path: Path, store: Any, inner: str, position: int | None) -> ZarrImage:
    import zarr

    node = zarr.open(store=store, path=inner, mode="r")
    if isinstance(node, zarr.Array):
        if position:
            raise StackError(f"{path}: is one array; leave out position={position} (--position)")
        return _image_of_array(path, node, _parent_of(store, inner))
    metadata = ome_attributes(dict(node.attrs))
    if "multiscales" not in metadata and "bioformats2raw.layout" in metadata:
        series = _series_in(node)
        if series:
            return _image_of_series(path, node, series, position)
    if position:
        raise StackError(
            f"{path}: position={position} (--position {position}) is not in the file, which "
            "holds one image; leave it out"
        )
    return _image_of_group(path, node, metadata)


def _image_of_series(
    path: Path, group: zarr.Group, series: tuple[str, ...], position: int | None
) -> ZarrImage:
    """Return one of several images: the first with a z axis, unless another is asked for."""
    import zarr

    found: dict[int, ZarrImage] = {}
    refusal = StackError(f"{path}: its images {', '.join(series)[:80]} are not there")
    for n, name in enumerate(series):
        part = group.get(name)
        if not isinstance(part, zarr.Group):
            continue
        try:
            found[n] = _image_of_group(path / name, part, ome_attributes(dict(part.attrs)))
        except StackError as error:
            refusal = error
            if n == position:
                raise
    if not found:
        raise refusal
    stacks = tuple(n for n, image in found.items() if image.has_planes) or tuple(found)
    chosen = stacks[0] if position is None else position
    options = ", ".join(map(str, stacks[:_SHOWN])) + ", .." * (len(stacks) > _SHOWN)
    if chosen not in found:
        raise StackError(
            f"{path}: position={chosen} (--position {chosen}) is not in the file, which has "
            f"{len(series)} images; choose position={options}"
        )
    note = (
        f"the file holds {len(series)} images, of which {chosen} is taken; "
        f"position={options} (--position) chooses another"
    )
    notes = (note,) if len(stacks) > 1 and position is None else ()
    return replace(
        found[chosen], notes=(*notes, *found[chosen].notes), position=chosen, positions=stacks
    )


def _image_of_group(path: Path, group: zarr.Group, metadata: dict[str, Any]) -> ZarrImage:
    """Return the finest resolution of a group, by what its metadata say."""
    if "multiscales" not in metadata:
        raise StackError(f"{path}: {_what_it_holds(path, group, metadata)}")
    described = _described(path, metadata)
    arrays = [_array_in(path, group, level) for level in described.levels]
    order = sorted(range(len(arrays)), key=lambda n: -prod(arrays[n].shape))
    image = _image_of(path, arrays[order[0]], described, described.levels[order[0]])
    return replace(image, coarser=tuple(arrays[n] for n in order[1:]))


def _image_of_array(path: Path, array: zarr.Array[Any], parent: zarr.Group | None) -> ZarrImage:
    """Return an array: a resolution of the image that its group describes, or a plain one."""
    metadata = {} if parent is None else ome_attributes(dict(parent.attrs))
    if "multiscales" in metadata:
        described = _described(path, metadata)
        for level in described.levels:
            if PurePosixPath(level.path).name == path.name:
                return _image_of(path, array, described, level)
    _refuse_other_types(path, array)
    names = getattr(array.metadata, "dimension_names", None) or (None,) * array.ndim
    axes = axes_named(names)
    if "?" in {axis.letter for axis in axes}:
        # `layout` takes one unnamed axis for z, and says so.
        planes = [Axis("Q" if n != 1 else "?") for n in array.shape[:-2]]
        axes = (*planes, Axis("Y"), Axis("X"))
    if len(axes) != array.ndim:
        raise StackError(f"{path}: is an array of {array.ndim} axes; expected z, y and x")
    level = Level("", (1.0,) * array.ndim, (0.0,) * array.ndim)
    note = "it is a plain Zarr array, without the metadata of OME-Zarr"
    return ZarrImage(array, "Zarr array", axes, level, notes=(note,))


def _image_of(path: Path, array: zarr.Array[Any], described: Multiscale, level: Level) -> ZarrImage:
    _refuse_other_types(path, array)
    if array.ndim != len(described.axes):
        raise StackError(
            f"{path}: its array {level.path} has {array.ndim} axes, its metadata "
            f"{len(described.axes)}; write it again with the program that made it"
        )
    return ZarrImage(
        array, f"OME-Zarr {described.version:.10}", described.axes, level,
        described.channel_names, described.notes,
    )  # fmt: skip


def _described(path: Path, metadata: dict[str, Any]) -> Multiscale:
    try:
        return read_multiscale(metadata)
    except StackError as error:
        raise StackError(f"{path}: its OME metadata cannot be read: {error}") from error


def _array_in(path: Path, group: zarr.Group, level: Level) -> zarr.Array[Any]:
    import zarr

    found = group.get(level.path)
    if not isinstance(found, zarr.Array):
        kind = "is missing" if found is None else "is a group"
        raise StackError(
            f"{path}: its resolution {level.path:.60} {kind}; expected an array: copy it again"
        )
    return found


def _refuse_other_types(path: Path, array: zarr.Array[Any]) -> None:
    if array.dtype.kind not in "buif":
        raise StackError(
            f"{path}: has voxels of type {array.dtype}; expected integers or real numbers"
        )


def _what_it_holds(path: Path, group: zarr.Group, metadata: dict[str, Any]) -> str:
    """Say what a group without an image has instead, and what to give in its place."""
    kind, inside = _images_inside(group, metadata)
    if not inside:
        found = ", ".join(map(str, metadata))[:80] or "nothing"
        return (
            f"is a Zarr group without an image (its metadata have {found}); give that of an image"
        )
    shown = ", ".join(str(path / one) for one in inside[:_SHOWN])
    more = f" or one of {len(inside) - _SHOWN} more" if len(inside) > _SHOWN else ""
    return f"is {kind}, not an image; give one of its images: {shown}{more}"


def _images_inside(group: zarr.Group, metadata: dict[str, Any]) -> tuple[str, list[str]]:
    """Return what a group is, and the paths of the images in it."""
    if "plate" in metadata:
        wells = _paths(metadata["plate"], "wells")
        return f"a plate of {len(wells)} well{'s' * (len(wells) != 1)}", [
            f"{well}/{field}" for well in wells[: _SHOWN + 1] for field in _fields_of(group, well)
        ]
    if "well" in metadata:
        return "a well", _paths(metadata["well"], "images")
    if isinstance(metadata.get("labels"), list):
        return "a group of labels", [str(name) for name in metadata["labels"]]
    return "a group", sorted(group.keys())


def _fields_of(plate: zarr.Group, well: str) -> list[str]:
    import zarr

    node = plate.get(well)
    metadata = ome_attributes(dict(node.attrs)) if isinstance(node, zarr.Group) else {}
    return _paths(metadata.get("well"), "images")


def _paths(holder: Any, key: str) -> list[str]:
    listed = holder.get(key) if isinstance(holder, dict) else None
    found = listed if isinstance(listed, list) else []
    return [str(one["path"]) for one in found if isinstance(one, dict) and "path" in one]


def _series_in(group: zarr.Group) -> tuple[str, ...]:
    """Return the images that bioformats2raw wrote: as it lists them, else those with numbers."""
    import zarr

    listing = group.get("OME")
    series = dict(listing.attrs) if isinstance(listing, zarr.Group) else {}
    listed = ome_attributes(series).get("series")
    if isinstance(listed, list) and listed:
        return tuple(map(str, listed))
    return tuple(sorted((name for name in group.group_keys() if name.isdecimal()), key=int))


def _parent_of(store: Any, inner: str) -> zarr.Group | None:
    """Return the group that an array lies in, if it lies in one."""
    import zarr

    if not inner:
        return None
    above = PurePosixPath(inner).parent.as_posix()
    found = zarr.open(store=store, path="" if above == "." else above, mode="r")
    return found if isinstance(found, zarr.Group) else None


def one_line(error: Exception) -> str:
    """Return what an error of another library says, in one line."""
    return " ".join(str(error).split())[:200] or type(error).__name__
