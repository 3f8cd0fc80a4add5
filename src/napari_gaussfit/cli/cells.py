"""`napari-gaussfit cells`: the cells or nuclei in a fit, as labels, a table and a picture."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from napari_gaussfit.errors import SettingsError
from napari_gaussfit.jobs.folders import (
    CELLS_OUTPUTS,
    LARGE_CELLS_OUTPUTS,
    write_cells,
    write_large_cells,
)

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from napari_gaussfit.fitting.result import FitResult
    from napari_gaussfit.stacks.stack import Stack

__all__ = ["ALSO", "GAUSSIANS", "WRITERS", "add_options", "gaussians_for", "outputs", "write"]

FEWER = 10
"""Times as many Gaussians as group well tell a nucleus's texture: 1,000 to 2,500 give the same F1
of nuclei whose stack suggests 20,000."""

ALSO, WRITERS = "labels.ome.tif, or .ome.zarr with the fitted volume", "LABEL_WRITERS"
"""What else can be written, in words, and the table of formats that says so."""


GAUSSIANS = "exactly a tenth of those that the size of the signal suggests"
"""How many there are if nothing is said: see `FEWER`."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what is asked of a grouping."""
    parser.add_argument(
        "--saddle", type=float, metavar="SHARE",
        help="brightness between two peaks, in shares of the lower, that makes them one (0.97)",
    )  # fmt: skip
    parser.add_argument(
        "--radius", type=float, metavar="LENGTH",
        help="about that of a cell, micrometers (the stack's own)",
    )  # fmt: skip
    parser.add_argument(
        "--level", type=float, metavar="LEVEL",
        help="least brightness of a cell's voxels above the background (Otsu's)",
    )  # fmt: skip


def outputs(arguments: argparse.Namespace) -> tuple[str, ...]:
    """Return what grouping leaves in its folder.

    Parameters
    ----------
    arguments : Namespace
        What was given to the command.
    """
    return LARGE_CELLS_OUTPUTS if _by_boxes(arguments) else CELLS_OUTPUTS


def _by_boxes(arguments: argparse.Namespace) -> bool:
    """Tell whether labels are of all of a fit by tiles, and so are not made in memory."""
    from napari_gaussfit.formats.tiled import holds_tiles

    return arguments.region is None and holds_tiles(arguments.stack)


def gaussians_for(stack: Stack) -> int:
    """Return how many Gaussians tell the cells of a stack.

    Parameters
    ----------
    stack : Stack
        The stack that is fitted.

    Returns
    -------
    int
        A tenth of what the stack suggests.
    """
    from napari_gaussfit.stacks.statistics import suggested_count

    return max(1, suggested_count(stack.voxels) // FEWER)


def write(result: FitResult, arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Group a fit into objects, write what was found into a folder, and say it.

    Parameters
    ----------
    result : FitResult
        The fit whose Gaussians are looked into; of one channel.
    arguments : Namespace
        With the options of `add_options`.
    folder : Path
        An existing folder, into which the files are written.

    Returns
    -------
    dict
        How many there are of what, as JSON types.
    """
    from napari_gaussfit.objects.grouping import GroupSettings, group
    from napari_gaussfit.objects.labels import measure_objects, paint

    stack, by_boxes = result.stack, _by_boxes(arguments)
    if by_boxes and arguments.also:
        raise SettingsError(
            f"--also {arguments.also[0]}: of all of a fit by tiles, labels are written as "
            f"{LARGE_CELLS_OUTPUTS[1]} alone, box by box; leave it out, or give a --region"
        )
    given = {"saddle": arguments.saddle, "radius": arguments.radius}
    settings = GroupSettings(**{name: value for name, value in given.items() if value is not None})
    groups = group(result.field.numpy(), settings)
    if by_boxes:
        found = write_large_cells(folder, result, groups, arguments.level)
    else:
        labels, groups = paint(result.field, groups, stack.shape, stack.spacing, arguments.level)
        found = measure_objects(result.field, groups, labels, stack.spacing)
        write_cells(folder, result, labels, found, also=arguments.also)
    unit = "um" if stack.unit == "micrometer" else "pixels"
    sys.stdout.write(
        f"{folder}: {len(found)} object{'s' * (len(found) != 1)} of about "
        f"{groups.radius:.2f} {unit} radius, "
        f"{int(found.at_border.sum())} of them at the border of the stack\n"
    )
    sys.stdout.write(f"{folder}: wrote {', '.join(outputs(arguments))}\n")
    return {"cells": len(found), "radius": float(groups.radius), "unit": stack.unit}
