"""What a fit by tiles is exported as, a part after another: no more of it in memory than a box."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np

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

__all__ = ["EXPORTS", "export_table", "export_volume"]

BOX = 2 * CHUNK
"""Voxels along a side of what is rendered at once."""


def export_table(folder: Pathlike, path: Pathlike) -> None:
    """Write the Gaussians of a fit by tiles as a CSV.

    Parameters
    ----------
    folder : path-like
        The folder that holds the result's tables and index.
    path : path-like
        The file to write or to replace.
    """
    count = 0
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        for table in read_tables(folder):
            numbered = table.assign(index=np.arange(count, count + len(table)))
            numbered.to_csv(file, index=False, header=not count, lineterminator="\n")
            count += len(table)
        if not count:
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

    Parameters
    ----------
    folder : path-like
        Of the fit; several channels make an axis of channels.
    path : path-like
        The folder to write; see `stacks.ome_zarr.write_ome_zarr`.
    residual_of : sequence of LazyStack, optional
        The channels that were fitted: writes them minus the fit.
    progress : callable, optional
        Called with how many boxes are done, and how many there are.

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
        corners = [*product(*(range(0, size, BOX) for size in stack.shape))]
        for n, corner in enumerate(corners):
            end = _triple(min(a + BOX, n) for a, n in zip(corner, stack.shape, strict=True))
            # A region has two voxels at least along each axis: of what is left over, one is cut.
            low = _triple(min(a, b - 2) for a, b in zip(corner, end, strict=True))
            cut = tuple(slice(a - b, None) for a, b in zip(corner, low, strict=True))
            box = tuple(slice(a, b) for a, b in zip(corner, end, strict=True))
            contents = read_region(folder, (low, end))
            part = contents["stack"]
            for channel, field in enumerate(contents["fields"]):
                voxels = field.voxelise(part.shape, part.spacing).numpy()
                if residual_of:
                    voxels = residual_of[channel].read(low, end).astype(np.float32) - voxels
                array[(channel, *box) if channels > 1 else box] = voxels[cut]
            if progress is not None:
                progress(n + 1, len(corners))


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
