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


def export_volume(folder: Pathlike, path: Pathlike, residual_of: LazyStack | None = None) -> None:
    """Write the rendered volume of a fit by tiles as an OME-Zarr of several resolutions.

    Parameters
    ----------
    folder : path-like
        Of the fit, of one channel.
    path : path-like
        The folder to write; see `stacks.ome_zarr.write_ome_zarr`.
    residual_of : LazyStack, optional
        The stack that was fitted: writes it minus the fit.

    Raises
    ------
    SettingsError
        If it is another stack.
    """
    stack, _, _ = read_index(folder)
    if residual_of is not None:
        for name in ("shape", "spacing", "unit"):
            found, expected = getattr(residual_of.facts, name), getattr(stack, name)
            if found != expected:
                raise SettingsError(
                    f"{residual_of.facts.name}: has {name} {found}, the fit is of {expected}; give "
                    "the stack that was fitted (--stack, --channel)"
                )
    with written_by_boxes(
        path,
        stack.shape,
        dtype=np.float32,
        spacing=stack.spacing,
        unit=stack.unit,
        name=stack.name,
        origin=stack.origin,
    ) as array:
        for z, y, x in product(*(range(0, size, BOX) for size in stack.shape)):
            end = tuple(min(a + BOX, n) for a, n in zip((z, y, x), stack.shape, strict=True))
            # A region has two voxels at least along each axis: of what is left over, one is cut.
            low = tuple(min(a, b - 2) for a, b in zip((z, y, x), end, strict=True))
            contents = read_region(folder, (_triple(low), _triple(end)))
            [field], part = contents["fields"], contents["stack"]
            voxels = field.voxelise(part.shape, part.spacing).numpy()
            if residual_of is not None:
                own = residual_of.read(_triple(low), _triple(end))
                voxels = own.astype(np.float32) - voxels
            cut = tuple(slice(a - b, None) for a, b in zip((z, y, x), low, strict=True))
            array[tuple(slice(a, b) for a, b in zip((z, y, x), end, strict=True))] = voxels[cut]


def _triple(values: tuple[int, ...]) -> tuple[int, int, int]:
    z, y, x = values
    return z, y, x


EXPORTS = {".csv": export_table, ".zarr": export_volume}
"""What writes a fit by tiles box by box, by the suffix of what is written."""
