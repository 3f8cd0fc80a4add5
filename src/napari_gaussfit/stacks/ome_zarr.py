"""OME-Zarr: stacks from it, volumes to it.

Which array a path means is for `zarr_image`, what its metadata say for `ome_metadata`, and what
a stack is for `layout`.
"""

from __future__ import annotations

from contextlib import contextmanager
from itertools import pairwise, product
from math import isfinite, prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_gaussfit._threads import run_pieces
from napari_gaussfit.errors import OutputError, StackError
from napari_gaussfit.files import replacing
from napari_gaussfit.stacks.layout import (
    StackLayout,
    interpret_axes,
    known_proportions,
    refuse_what_memory_cannot_hold,
    spacing_notes,
)
from napari_gaussfit.stacks.zarr_image import kept_open, one_line, opened
from napari_gaussfit.stacks.zarr_paths import OWN_MARK, is_own_volume

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import DTypeLike, NDArray

    from napari_gaussfit.stacks.layout import Spacing, VoxelSize
    from napari_gaussfit.stacks.zarr_image import ZarrImage

__all__ = [
    "read_box",
    "read_layout",
    "read_voxels",
    "refuse_foreign_folder",
    "resolutions",
    "write_ome_zarr",
    "written_by_boxes",
]

CHUNK = 64
"""Voxels along a side of a chunk of what is written by boxes: half a megabyte in 16 bits."""

LABELS = "objects"
"""The name of the label image beside a volume."""


def read_layout(path: Path, *, position: int | None = None) -> StackLayout:
    """Read what an OME-Zarr says about its stack, without its voxels.

    Parameters
    ----------
    path : Path
        The folder of an image, or of a file that holds several; or a zip file of one.
    position : int, optional
        Which image of those that bioformats2raw has put into one file; the first by default.

    Returns
    -------
    StackLayout
        Axes, sizes, spacing, unit, channels and times.

    Raises
    ------
    StackNotFoundError
        If there is no such folder.
    StackError
        If it holds no image, its metadata leave a doubt, or it is no 3D stack of real numbers.
    """
    with opened(path, position) as image:
        return _layout_of(path, image)


def read_voxels(
    layout: StackLayout, *, channel: int | None = None, time: int | None = None
) -> NDArray[Any]:
    """Read one channel at one time point; no chunk of another is touched.

    Parameters
    ----------
    layout : StackLayout
        Shape, axes and spacing, as `read_layout` returned them.
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
    with opened(layout.path, layout.image) as image:
        return read_box(layout, image, {"C": channel or 0, "T": time or 0})


def read_box(
    layout: StackLayout, image: ZarrImage, chosen: Mapping[str, int | slice]
) -> NDArray[Any]:
    """Read a box of one channel at one time point; no chunk beside it is touched.

    Parameters
    ----------
    layout : StackLayout
        Shape, axes and spacing, as `read_layout` returned them.
    image : ZarrImage
        The same image, open.
    chosen : mapping
        By axis, "C", "T", "Z", "Y", "X": the index to take, or the part; all of it by default.

    Returns
    -------
    array, shape [Z, Y, X]
        The voxels, in the file's type and this machine's byte order.

    Raises
    ------
    StackError
        If a chunk cannot be decoded.
    """
    selection, order = _selected(layout, image, chosen)
    try:
        voxels = np.asarray(image.array[selection])
    except MemoryError:
        raise
    except Exception as error:
        raise StackError(f"{layout.path}: cannot be decoded: {one_line(error)}") from error
    return np.ascontiguousarray(voxels.transpose(order), dtype=voxels.dtype.newbyteorder("="))


def resolutions(layout: StackLayout, channel: int) -> list[Any]:
    """Return a channel in all resolutions of a file, the finest first, unread.

    Parameters
    ----------
    layout : StackLayout
        Shape, axes and spacing, as `read_layout` returned them.
    channel : int
        Which one; 0 where there is no choice.

    Returns
    -------
    list of dask.array.Array, shape [Z, Y, X], or [T, Z, Y, X] of several times
        Whose chunks are those of the file.

    Raises
    ------
    StackError
        If it is not there, or no image any more.
    """
    import dask.array

    unread: Any = dask.array.from_array
    image = kept_open(layout.path, layout.image)
    selection, order = _selected(layout, image, {"C": channel})
    return [
        unread(array, chunks=array.chunks, name=False)[selection].transpose(order)
        for array in (image.array, *image.coarser)
    ]


def _selected(
    layout: StackLayout, image: ZarrImage, chosen: Mapping[str, int | slice]
) -> tuple[tuple[int | slice, ...], list[int]]:
    """Return the indices that take a part of an image's array, and its axes in our order then."""
    shape, kept = image.array.shape, iter(layout.axes)
    axes = [
        next(kept) if _counts(axis.letter, n) else None
        for axis, n in zip(image.axes, shape, strict=True)
    ]
    selection = tuple(0 if axis is None else chosen.get(axis, slice(None)) for axis in axes)
    left = [a for a, part in zip(axes, selection, strict=True) if isinstance(part, slice)]
    return selection, [left.index(axis) for axis in "TZYX" if axis in left]


def refuse_foreign_folder(path: Path) -> None:
    """Check that a folder that would be replaced is a volume written here, and no more than that.

    Parameters
    ----------
    path : Path
        A name to write to, of a folder or not.

    Raises
    ------
    OutputError
        If it is a folder that holds anything else.
    """
    if path.is_dir() and not is_own_volume(path):
        raise OutputError(
            f"{path}: is a folder with more in it than a volume that napari-gaussfit wrote, and is "
            "never removed; give another name"
        )


def write_ome_zarr(
    path: str | os.PathLike[str],
    volume: NDArray[Any],
    *,
    spacing: Sequence[float],
    unit: str,
    name: str,
    origin: Sequence[float] = (0.0, 0.0, 0.0),
    labels: NDArray[np.integer] | None = None,
) -> None:
    """Write a volume as an OME-Zarr 0.5 of 32-bit reals, in one resolution.

    Parameters
    ----------
    path : path-like
        The folder to write, by convention named ``*.ome.zarr``; one that was written here is
        replaced, once all is written, any other never.
    volume : array, shape [Z, Y, X], or of several channels [C, Z, Y, X]
        Voxel intensities; the type of the array is the type of the file.
    spacing : sequence of float
        (dz, dy, dx) in `unit`.
    unit : str
        Unit of length of the spacing: "micrometer" or "pixel".
    name : str
        The image's name in the file.
    origin : sequence of float
        Where the centre of the first voxel lies (z, y, x), in `unit`.
    labels : ndarray of int, shape [Z, Y, X], optional
        Objects of the volume, 0 for none; they stand in it as the OME-Zarr label image `LABELS`.

    Raises
    ------
    OutputError
        If the folder to write into does not exist, or something else has that name.
    """
    lengths = [*[1.0] * (volume.ndim - 3), *map(float, spacing)]
    contents = () if labels is None else ("labels", "labels/zarr.json", f"labels/{LABELS}")
    with _replaced(path, name, 1, contents) as temporary:
        from yaozarrs import v05
        from yaozarrs.write.v05 import write_image

        image = _image_of_levels(lengths, [*[0.0] * (volume.ndim - 3), *origin], unit, name, 1)
        beside = {}
        if labels is not None:
            of_labels = _image_of_levels([*map(float, spacing)], origin, unit, LABELS, 1)
            about = {"multiscales": of_labels.multiscales, "image-label": {}}
            beside[LABELS] = (v05.LabelImage.model_validate(about), np.asarray(labels))
        voxels = np.asarray(volume, dtype=np.float32)
        write_image(temporary, image, voxels, writer="zarr", labels=beside)


@contextmanager
def written_by_boxes(  # noqa: PLR0913 - a name for each thing that metadata have
    path: str | os.PathLike[str],
    shape: tuple[int, ...],
    *,
    dtype: DTypeLike,
    spacing: Sequence[float],
    unit: str,
    name: str,
    origin: Sequence[float] = (0.0, 0.0, 0.0),
    labels: bool = False,
) -> Iterator[Any]:
    """Give an array to write a volume into, box by box; in the end it is an OME-Zarr 0.5.

    Resolutions are added, each half of the one before, until one is no larger than a chunk.

    Parameters
    ----------
    path : path-like
        The image to write, as for `write_ome_zarr`.
    shape : tuple of int
        Voxels along z, y and x; before these, the number of channels where there are several.
    dtype : dtype-like
        Number type of the voxels.
    spacing : sequence of float
        (dz, dy, dx) in `unit`.
    unit : str
        Unit of length of the spacing: "micrometer" or "pixel".
    name : str
        Name of the image in its metadata.
    origin : sequence of float
        Position of the first voxel's centre, (z, y, x) in `unit`.
    labels : bool
        Whether voxels are numbers of objects, of which a coarser one has one, and no mean.

    Yields
    ------
    zarr.Array, shape [Z, Y, X] or [C, Z, Y, X]
        In chunks of `CHUNK` voxels a side; whoever writes whole ones may do so in parallel.

    Raises
    ------
    OutputError
        As for `write_ome_zarr`.
    """
    channels, sizes = shape[:-3], [shape]
    while max(sizes[-1][-3:]) > CHUNK:
        sizes.append((*channels, *(max(1, -(-n // 2)) for n in sizes[-1][-3:])))
    with _replaced(path, name, len(sizes)) as temporary:
        import zarr
        from yaozarrs.write.v05 import prepare_image

        lengths = [*[1.0] * len(channels), *map(float, spacing)]
        image = _image_of_levels(lengths, [0.0, *origin][-len(shape) :], unit, name, len(sizes))
        _, arrays = prepare_image(
            temporary, image, [(size, np.dtype(dtype)) for size in sizes],
            chunks=(*[1] * len(channels), CHUNK, CHUNK, CHUNK), writer="zarr",
        )  # fmt: skip
        levels = [arrays[str(n)] for n in range(len(sizes))]
        yield levels[0]
        for finer, coarser in pairwise(levels):
            _halve(finer, coarser, labels=labels)
        if labels:
            attributes = zarr.open_group(temporary, mode="r+").attrs
            ome: Any = attributes["ome"]
            attributes["ome"] = ome | {"image-label": {}}


def _halve(finer: Any, coarser: Any, *, labels: bool) -> None:
    """Write the means of 2 x 2 x 2 voxels, of fewer at the ends, or the first, chunk by chunk."""
    channels, shape = map(range, coarser.shape[:-3]), coarser.shape[-3:]
    corners = product(*(range(0, size, CHUNK) for size in shape))
    chunks = [*product(product(*channels), corners)]

    def halve(first: int, _end: int) -> None:
        channel, corner = chunks[first]
        end = [min(a + CHUNK, n) for a, n in zip(corner, shape, strict=True)]
        fine = tuple(slice(2 * a, 2 * b) for a, b in zip(corner, end, strict=True))
        box = tuple(slice(a, b) for a, b in zip(corner, end, strict=True))
        if labels:
            coarser[box] = np.asarray(finer[fine])[::2, ::2, ::2]
            return
        means = np.asarray(finer[(*channel, *fine)], np.float64)
        for axis in range(3):
            lines = np.moveaxis(means, axis, 0)
            if len(lines) % 2:
                lines = np.concatenate([lines, lines[-1:]])
            means = np.moveaxis((lines[0::2] + lines[1::2]) / 2, 0, axis)
        if coarser.dtype.kind in "iu":
            means = np.rint(means)
        coarser[(*channel, *box)] = means.astype(coarser.dtype)

    run_pieces(halve, len(chunks), most=1)


@contextmanager
def _replaced(
    path: str | os.PathLike[str], name: str, levels: int, contents: Sequence[str] = ()
) -> Iterator[Path]:
    """Give a name for a folder that replaces a volume which was written here, if any."""
    import zarr

    target = Path(path)
    if target.is_file():
        raise OutputError(f"{target}: is a file; expected a name for a folder: give another")
    refuse_foreign_folder(target)
    with replacing(target) as temporary:
        yield temporary
        mark: Any = {"volume": name, "levels": levels}
        mark |= {"contents": [*contents]} if contents else {}
        zarr.open_group(temporary, mode="r+").attrs[OWN_MARK] = mark


def _image_of_levels(
    lengths: Sequence[float], origin: Sequence[float], unit: str, name: str, levels: int
) -> Any:
    """Return the metadata of resolutions, each half of the one before."""
    from yaozarrs import v05

    channels = [v05.ChannelAxis(name="c")] if len(lengths) == 4 else []
    of_space, datasets = None if unit == "pixel" else unit, []
    for n in range(levels):
        factors = [*[1] * len(channels), *[2**n] * 3]
        scale = [length * factor for length, factor in zip(lengths, factors, strict=True)]
        # The first voxel of a coarser resolution lies in the middle of those it is made of.
        places = [
            place + 0.5 * (factor - 1) * length
            for place, factor, length in zip(origin, factors, lengths, strict=True)
        ]
        transforms: list[Any] = [v05.ScaleTransformation(scale=scale)]
        if any(places):
            transforms.append(v05.TranslationTransformation(translation=places))
        datasets.append(v05.Dataset(path=str(n), coordinateTransformations=transforms))
    multiscale = v05.Multiscale(
        name=name,
        axes=[*channels, *(v05.SpaceAxis(name=axis, unit=of_space) for axis in "zyx")],
        datasets=datasets,
    )
    return v05.Image(multiscales=[multiscale])


def _counts(letter: str, length: int) -> bool:
    """Tell whether an axis is one of the stack's, or of a choice that there is."""
    return length != 1 or letter in ("Y", "X")


def _layout_of(path: Path, image: ZarrImage) -> StackLayout:
    shape = image.array.shape
    kept = [
        (axis.letter, n)
        for axis, n in zip(image.axes, shape, strict=True)
        if _counts(axis.letter, n)
    ]
    stored = "".join(letter for letter, _ in kept)
    lengths = tuple(n for _, n in kept)
    _refuse_axes_of_one_name(path, stored)
    axes, axis_notes = interpret_axes(str(path), stored, lengths)
    sizes, size_notes, hint = _sizes_of(image)
    units = {axis.letter: axis.micrometers for axis in image.axes}
    proportions = None if any(units.get(axis) for axis in "ZYX") else known_proportions(sizes)
    dz, dy, dx = (
        None if size is None or (unit := units.get(axis)) is None else size * unit
        for axis, size in zip("ZYX", sizes, strict=True)
    )
    voxel_size = (dz, dy, dx)
    names = image.channel_names
    return StackLayout(
        path=path,
        container=image.container,
        image=image.position,
        stored_axes=stored,
        axes=axes,
        shape=lengths,
        dtype=np.dtype(image.array.dtype),
        voxel_size=voxel_size,
        channel_names=names if ("C", len(names)) in kept else (),
        axis_notes=(*image.notes, *axis_notes),
        spacing_notes=(
            *size_notes,
            *spacing_notes(voxel_size, hint=hint, proportions=proportions),
        ),
        proportions=proportions,
        origin=_origin_of(image, in_lengths=None not in voxel_size or proportions is not None),
        positions=image.positions,
    )


def _sizes_of(image: ZarrImage) -> tuple[VoxelSize, tuple[str, ...], str]:
    """Return (dz, dy, dx) in the axes' units, notes, and why one is not known."""
    found: dict[str, float] = {}
    negative, unusable, bare = [], [], False
    for axis, scale in zip(image.axes, image.level.scale, strict=True):
        if axis.letter not in ("Z", "Y", "X"):
            continue
        along = f"{scale:g} along {axis.letter.lower()}"
        if scale < 0:
            negative.append(along)
        if isfinite(scale) and scale != 0:
            found[axis.letter] = abs(scale)
        else:
            unusable.append(f"its scale is {along}")
        bare = bare or axis.micrometers is None
    if bare:
        unusable.append("an axis of space has no unit")
    notes = [
        f"the file's translation is {place:g} along {axis.letter.lower()}; it is taken for 0"
        for axis, scale, place in zip(
            image.axes, image.level.scale, image.level.translation, strict=True
        )
        if axis.letter in ("Z", "Y", "X") and isfinite(scale) and not isfinite(place)
    ]
    note = (
        f"the file's scale is {' and '.join(negative)}; its absolute value is taken, and the stack "
        "is not turned round"
    )
    sizes = (found.get("Z"), found.get("Y"), found.get("X"))
    return sizes, (*([note] if negative else []), *notes), ", ".join(unusable)


def _origin_of(image: ZarrImage, *, in_lengths: bool) -> Spacing:
    """Return where the first voxel lies; without lengths, positions have no place in the world."""
    found = {
        axis.letter: translation * (axis.micrometers or 1.0)
        for axis, translation in zip(image.axes, image.level.translation, strict=True)
        if in_lengths and isfinite(translation)
    }
    return found.get("Z", 0.0), found.get("Y", 0.0), found.get("X", 0.0)


def _refuse_axes_of_one_name(path: Path, letters: str) -> None:
    twice = sorted(
        {letter.lower() for letter in letters if letters.count(letter) > 1 and letter in "TCZYX"}
    )
    if twice:
        raise StackError(
            f"{path}: has several axes called {' and '.join(twice)}; expected z, y, x, and maybe "
            "channel and time, each once"
        )
