"""What a search for objects leaves in its folder, from the command line as from the window."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from napari_gaussfit.files import write_each, write_json, write_table
from napari_gaussfit.plots.saving import draw, write_picture

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from napari_gaussfit.fitting.result import FitResult
    from napari_gaussfit.jobs.drawing import Drawer
    from napari_gaussfit.model.gaussians import Gaussians
    from napari_gaussfit.objects.grouping import Groups
    from napari_gaussfit.objects.labels import Objects
    from napari_gaussfit.objects.neurites import Trace
    from napari_gaussfit.objects.spots import Spots, SpotSettings
    from napari_gaussfit.stacks.stack import Stack

__all__ = [
    "CELLS_OUTPUTS",
    "LARGE_CELLS_OUTPUTS",
    "SPOTS_OUTPUTS",
    "TRACE_OUTPUTS",
    "spots_report",
    "write_cells",
    "write_large_cells",
    "write_spots",
    "write_trace",
]

OBJECTS_NAME, SPOTS_REPORT_NAME, SPOTS_PICTURE_NAME = "objects.csv", "report.json", "spots.png"

SPOTS_OUTPUTS = (OBJECTS_NAME, SPOTS_REPORT_NAME, SPOTS_PICTURE_NAME)
"""What spots leave in their folder."""

SWC_NAME, BRANCHES_NAME, TRACE_PICTURE_NAME = "trace.swc", "branches.csv", "trace.png"

TRACE_OUTPUTS = (SWC_NAME, BRANCHES_NAME, TRACE_PICTURE_NAME)
"""What a trace leaves in its folder."""

LABELS_NAME, CELLS_PICTURE_NAME = "labels.ome.tif", "objects.png"

CELLS_OUTPUTS = (OBJECTS_NAME, LABELS_NAME, CELLS_PICTURE_NAME)
"""What grouping leaves in its folder."""

LARGE_LABELS_NAME = "labels.ome.zarr"

LARGE_CELLS_OUTPUTS = (OBJECTS_NAME, LARGE_LABELS_NAME, CELLS_PICTURE_NAME)
"""The same of a large stack."""


def write_spots(
    folder: Path,
    stack: Stack,
    table: pd.DataFrame,
    gaussians: Gaussians,
    report: dict[str, Any],
    *,
    drawer: Drawer | None = None,
) -> None:
    """Write a table, a picture and a report of spots.

    Parameters
    ----------
    folder : Path
        Which exists; files that are there are replaced.
    stack : Stack
        Whose spots they are.
    table : DataFrame, K rows
        A row a spot, as `spots_table` makes it.
    gaussians : Gaussians
        The Gaussians of the same spots, in the same order.
    report : dict
        What was asked, assumed and found, as `spots_report` returns it.
    drawer : Drawer or None
        The process that draws the picture; None draws it here.

    Raises
    ------
    IncompleteError
        In the end, if a file could not be written; the others are.
    """
    from napari_gaussfit.jobs.drawings import drawn, spots_drawing

    drawing = spots_drawing(stack, gaussians)
    picture = partial(drawn, drawing) if drawer is None else drawer.begin(drawing)
    write_each(
        lambda: write_table(folder / OBJECTS_NAME, table),
        lambda: write_json(folder / SPOTS_REPORT_NAME, report),
        lambda: write_picture(folder / SPOTS_PICTURE_NAME, picture()),
    )


def spots_report(stack: Stack, spots: Spots, settings: SpotSettings) -> dict[str, Any]:
    """Return what was asked, assumed and found, as report.json has it.

    Parameters
    ----------
    stack : Stack
        Whose spots they are.
    spots : Spots
        The spots, and what was assumed to find them.
    settings : SpotSettings
        What was asked for.

    Returns
    -------
    dict
        JSON types.
    """
    from napari_gaussfit import __version__

    return {
        "stack": stack.name,
        "shape": stack.shape,
        "spacing": stack.spacing,
        "unit": stack.unit,
        "spots": len(spots),
        "flagged": sum(1 for words in spots.measurement.flags if words),
        "least_size": spots.sizes.least,
        "largest_size": spots.sizes.largest,
        "false_discoveries": settings.false_discoveries,
        "threshold": spots.threshold,
        "likelihood": settings.likelihood,
        "psf": "" if settings.psf is None else settings.psf.words,
        "noise": asdict(spots.noise),
        "noise_given": settings.noise is not None,
        "rounds": spots.rounds,
        "notes": [*stack.notes, *spots.notes],
        "version": __version__,
    }


def write_cells(
    folder: Path,
    result: FitResult,
    labels: NDArray[np.int32],
    objects: Objects,
    *,
    also: Sequence[Path] = (),
) -> None:
    """Write labels, a table and a picture of the objects in a fit.

    Parameters
    ----------
    folder : Path
        Which exists; files that are there are replaced.
    result : FitResult
        The fit whose Gaussians were grouped into objects.
    labels : ndarray of int32, shape [Z, Y, X]
        As `paint` gave them.
    objects : Objects
        As `measure_objects` gave them.
    also : sequence of Path
        Further files of the labels, whose suffixes say their format.

    Raises
    ------
    IncompleteError
        In the end, if a file could not be written; the others are.
    """
    from napari_gaussfit.formats.columns import write_columns
    from napari_gaussfit.formats.registry import LABEL_WRITERS, writer_of
    from napari_gaussfit.plots.objects import draw_objects, first_labels

    stack = result.stack
    columns = objects.columns() | {"unit": stack.unit}
    first = partial(first_labels, labels)
    write_each(
        partial(write_columns, folder / OBJECTS_NAME, columns),
        *(
            partial(writer_of(path, LABEL_WRITERS), path, labels, result.fields, stack)
            for path in (folder / LABELS_NAME, *also)
        ),
        lambda: draw(folder / CELLS_PICTURE_NAME, draw_objects(first, len(objects), result)),
    )


def write_large_cells(
    folder: Path, result: FitResult, groups: Groups, level: float | None = None
) -> Objects:
    """Label the objects in a fit of a large stack, and write what `write_cells` does, by boxes.

    Labels are an OME-Zarr in several resolutions. What is in memory is a box, and what is known of
    each Gaussian and object.

    Parameters
    ----------
    folder : Path
        Which exists; files that are there are replaced.
    result : FitResult
        The fit whose Gaussians were grouped.
    groups : Groups
        As `group` returned them.
    level : float or None
        The least f of a voxel in an object, as for `objects.labels.paint`.

    Returns
    -------
    Objects
        A row for each.

    Raises
    ------
    OutputError
        If a file cannot be written.
    """
    import numpy as np

    from napari_gaussfit.formats.columns import write_columns
    from napari_gaussfit.objects.boxed_labels import BoxedLabels
    from napari_gaussfit.plots.objects import draw_objects
    from napari_gaussfit.stacks.ome_zarr import CHUNK, written_by_boxes

    stack = result.stack
    with written_by_boxes(
        folder / LARGE_LABELS_NAME, stack.shape, dtype=np.int32, spacing=stack.spacing,
        unit=stack.unit, name=stack.name, origin=stack.origin, labels=True,
    ) as array:  # fmt: skip
        boxed = BoxedLabels(result.field, groups, array, stack.spacing, 2 * CHUNK)
        boxed.paint(level)
        objects = boxed.measure()
        picture = draw_objects(boxed.first_along, len(objects), result)
    write_columns(folder / OBJECTS_NAME, objects.columns() | {"unit": stack.unit})
    draw(folder / CELLS_PICTURE_NAME, picture)
    return objects


def write_trace(
    folder: Path, result: FitResult, found: Trace, *, also: Sequence[Path] = ()
) -> None:
    """Write the neurites in a fit: nodes, branches, and a picture.

    Parameters
    ----------
    folder : Path
        Which exists; files that are there are replaced.
    result : FitResult
        The fit whose field is traced.
    found : Trace
        The tree of nodes with its branches and radii.
    also : sequence of Path
        Further files of the trees, whose suffixes say their format.

    Raises
    ------
    IncompleteError
        In the end, if a file could not be written; the others are.
    """
    from napari_gaussfit.formats.columns import write_columns
    from napari_gaussfit.formats.registry import TREE_WRITERS, writer_of
    from napari_gaussfit.plots.objects import draw_trace

    stack = result.stack
    columns = found.branches.columns() | {"unit": found.unit}
    write_each(
        *(
            partial(writer_of(path, TREE_WRITERS), path, found, stack)
            for path in (folder / SWC_NAME, *also)
        ),
        partial(write_columns, folder / BRANCHES_NAME, columns),
        lambda: draw(folder / TRACE_PICTURE_NAME, draw_trace(found, result)),
    )
