"""What a search for objects leaves in its folder, from the command line as from the window."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from napari_gaussfit.files import replacing, write_json
from napari_gaussfit.plots.saving import draw

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from napari_gaussfit.model.gaussians import Gaussians
    from napari_gaussfit.objects.spots import Spots, SpotSettings
    from napari_gaussfit.stacks.stack import Stack

__all__ = ["SPOTS_OUTPUTS", "spots_report", "write_spots"]

OBJECTS_NAME, SPOTS_REPORT_NAME, SPOTS_PICTURE_NAME = "objects.csv", "report.json", "spots.png"

SPOTS_OUTPUTS = (OBJECTS_NAME, SPOTS_REPORT_NAME, SPOTS_PICTURE_NAME)
"""What spots leave in their folder."""


def write_spots(
    folder: Path, stack: Stack, table: pd.DataFrame, gaussians: Gaussians, report: dict[str, Any]
) -> None:
    """Write a table, a picture and a report of spots.

    Parameters
    ----------
    folder : Path
        Which exists; files that are there are replaced.
    stack : Stack
        Whose spots they are.
    table : DataFrame, K rows
        That of `spots_table`.
    gaussians : Gaussians
        The same spots.
    report : dict
        That of `spots_report`.

    Raises
    ------
    OutputError
        If a file cannot be written.
    """
    from napari_gaussfit.plots.spots import draw_spots

    with replacing(folder / OBJECTS_NAME) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")
    draw(folder / SPOTS_PICTURE_NAME, draw_spots(stack, gaussians))
    write_json(folder / SPOTS_REPORT_NAME, report)


def spots_report(stack: Stack, spots: Spots, settings: SpotSettings) -> dict[str, Any]:
    """Return what was asked, assumed and found, as report.json has it.

    Parameters
    ----------
    stack : Stack
        Whose spots they are.
    spots : Spots
        What was found.
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
