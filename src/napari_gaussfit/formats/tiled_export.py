"""What a fit by tiles is exported as, by parts: no more of it in memory than a box a thread."""

from __future__ import annotations

import threading
from itertools import count, product
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_gaussfit._threads import in_one_torch_thread, run_pieces
from napari_gaussfit.errors import SettingsError
from napari_gaussfit.files import replacing
from napari_gaussfit.formats.tiled import read_index, read_region, read_tables
from napari_gaussfit.measure.table import measurements
from napari_gaussfit.stacks.ome_zarr import CHUNK, written_by_boxes

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Sequence

    from napari_gaussfit.stacks.facts import StackFacts
    from napari_gaussfit.stacks.lazy import LazyStack

    Pathlike = str | os.PathLike[str]
    Shape = tuple[int, int, int]
    Box = tuple[Shape, Shape]

__all__ = ["EXPORTS", "export_table", "export_volume"]

BOX = 2 * CHUNK
"""Voxels along a side of what a thread renders at once: whole chunks."""


def export_table(folder: Pathlike, path: Pathlike) -> None:
    """Write the Gaussians of a fit by tiles as a CSV.

    Parameters
    ----------
    folder : path-like
        The folder that holds the result's tables and index.
    path : path-like
        The file to write or to replace.
    """
    total = 0
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        for table in read_tables(folder):
            numbered = table.assign(index=np.arange(total, total + len(table)))
            numbered.to_csv(file, index=False, header=not total, lineterminator="\n")
            total += len(table)
        if not total:
            measurements(read_region(folder)["fields"], (1.0, 1.0, 1.0)).to_csv(
                file, index=False, lineterminator="\n"
            )


def export_volume(
    folder: Pathlike,
    path: Pathlike,
    residual_of: Sequence[LazyStack] = (),
    progress: Callable[[int, int], object] | None = None,
) -> None:
    """Write the rendered volume of a fit by tiles as an OME-Zarr of several resolutions.

    Boxes are written by as many threads as there are cores; the bytes are the same by one. What is
    there already is replaced in the end, by a whole volume.

    Parameters
    ----------
    folder : path-like
        Of the fit; several channels make an axis of channels.
    path : path-like
        The folder to write; see `stacks.ome_zarr.write_ome_zarr`.
    residual_of : sequence of LazyStack, optional
        The channels that were fitted: writes them minus the fit.
    progress : callable, optional
        Called with how many boxes are done, and how many there are, by the thread that did one.

    Raises
    ------
    SettingsError
        If it is another stack, or other channels.
    """
    stack, _, report = read_index(folder)
    channels = 1 + len(report.get("other_channels", ()))
    _refuse_others(residual_of, stack, channels)
    with written_by_boxes(
        path,
        (*([channels] if channels > 1 else []), *stack.shape),
        dtype=np.float32,
        spacing=stack.spacing,
        unit=stack.unit,
        name=stack.name,
        origin=stack.origin,
    ) as array:
        boxes = _boxes(stack.shape)
        done, telling, reading = count(1), threading.Lock(), threading.Lock()

        def write(first: int, _end: int) -> None:
            _write_box(folder, array, boxes[first], residual_of, reading)
            if progress is not None:
                with telling:
                    progress(next(done), len(boxes))

        # A box is whole chunks, so that no two threads write into one.
        with in_one_torch_thread():
            run_pieces(write, len(boxes), most=1)


def _boxes(shape: Shape) -> list[Box]:
    """Return the first voxel of each box, and the one behind its last."""
    corners = product(*(range(0, size, BOX) for size in shape))
    return [
        (_triple(corner), _triple(min(a + BOX, n) for a, n in zip(corner, shape, strict=True)))
        for corner in corners
    ]


def _write_box(
    folder: Pathlike,
    array: Any,
    box: Box,
    residual_of: Sequence[LazyStack],
    reading: threading.Lock,
) -> None:
    """Write a box of each channel: the fit, or the stack minus the fit.

    One thread at a time reads the stack: of a compressed TIFF, whole planes are in memory then.
    """
    first, end = box
    # A region has two voxels at least along each axis: of what is left over, one is cut.
    low = _triple(min(a, b - 2) for a, b in zip(first, end, strict=True))
    cut = tuple(slice(a - b, None) for a, b in zip(first, low, strict=True))
    place = tuple(slice(a, b) for a, b in zip(first, end, strict=True))
    contents = read_region(folder, (low, end))
    part = contents["stack"]
    for channel, field in enumerate(contents["fields"]):
        voxels = field.voxelise(part.shape, part.spacing).numpy()
        if residual_of:
            with reading:
                recorded = residual_of[channel].read(low, end)
            voxels = recorded.astype(np.float32) - voxels
        array[(channel, *place) if array.ndim > 3 else place] = voxels[cut]


def _refuse_others(given: Sequence[LazyStack], stack: StackFacts, channels: int) -> None:
    """Refuse other stacks than were fitted, if any are given."""
    if given and len(given) != channels:
        raise SettingsError(
            f"{given[0].facts.name}: {len(given)} of its channels are given, the fit is of "
            f"{channels}; give those that were fitted, in their order (--channel)"
        )
    for one in given:
        for name in ("shape", "spacing", "unit"):
            found, expected = getattr(one.facts, name), getattr(stack, name)
            if found != expected:
                raise SettingsError(
                    f"{one.facts.name}: has {name} {found}, the fit is of {expected}; give the "
                    "stack that was fitted (--stack, --channel)"
                )


def _triple(values: Iterable[int]) -> tuple[int, int, int]:
    z, y, x = values
    return z, y, x


EXPORTS = {".csv": export_table, ".zarr": export_volume}
"""What writes a fit by tiles box by box, by the suffix of what is written."""
