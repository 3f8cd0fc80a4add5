"""What the fits or spots of several times leave in their folder, from a prompt as from a window."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_gaussfit.errors import OutputError
from napari_gaussfit.files import write_json, write_table
from napari_gaussfit.jobs.fit_folder import FIT_NAME, REPORT_NAME, TABLE_NAME, FitFolder
from napari_gaussfit.jobs.overwriting import claimed

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    import pandas as pd
    from numpy.typing import NDArray

    from napari_gaussfit.fitting.result import FitResult
    from napari_gaussfit.jobs.sequence import Frame
    from napari_gaussfit.objects.tracks import Tracks
    from napari_gaussfit.settings import FitSettings
    from napari_gaussfit.stacks.facts import StackFacts
    from napari_gaussfit.stacks.stack import Stack
    from napari_gaussfit.stacks.time_series import TimeSeries

    Dated = tuple[int, NDArray[np.float64], FitResult]
    """A time, the drift since the one before, and what was found."""

__all__ = [
    "DRIFT",
    "ORIGINS",
    "PICTURE_NAME",
    "TIMES_NAME",
    "TRACKS_NAME",
    "Seen",
    "refuse_other_times",
    "report_of_times",
    "save_times",
    "tracks_report",
    "write_times",
]

TIMES_NAME, TRACKS_NAME, PICTURE_NAME = "times", "tracks.csv", "tracks.png"

ORIGINS, DRIFT = "origins", "drift"
"""Arrays in the saved state of a time: which Gaussians of the time before these are, and by how
much all has moved since."""


class Seen:
    """The stacks of a series as they go by: the last of them, and the projection of all."""

    def __init__(self) -> None:
        self.stacks: tuple[Stack, ...] = ()
        self.projection: NDArray[Any] = np.zeros(0)

    @property
    def stack(self) -> Stack:
        """The first channel of the last time."""
        return self.stacks[0]

    def take(self, stacks: tuple[Stack, ...]) -> tuple[Stack, ...]:
        """Take the next; return the ones before."""
        before, self.stacks = self.stacks, stacks
        top = stacks[0].voxels.max(0)
        self.projection = np.maximum(self.projection, top) if before else top
        return before


def tracks_report(tracks: Tracks) -> dict[str, Any]:
    """Return what a report says of tracks."""
    table = tracks.table()
    return {
        "tracks": len(tracks),
        "links": tracks.links,
        "born": int(table["born"].sum()),
        "died": int(table["died"].sum()),
        "steps": tracks.steps.tolist(),
    }


def report_of_times(name: str, settings: FitSettings, found: Iterable[Dated]) -> dict[str, Any]:
    """Return the report of the fits of several times.

    Parameters
    ----------
    name : str
        The name of the recording.
    settings : FitSettings
        Of the first time.
    found : iterable of (int, ndarray, FitResult)
        Each time, the drift since the one before, and what was found.
    """
    from napari_gaussfit import __version__

    reports = []
    for time, drift, result in found:
        first, *others = (report.to_dict() for report in result.reports)
        more = {"other_channels": others} if others else {}
        reports.append({"time": time, "drift": drift.tolist()} | first | more)
    return {
        "stack": name,
        "settings": settings.to_dict(),
        "times": reports,
        "version": __version__,
    }


def write_times(
    folder: Path,
    name: str,
    table: pd.DataFrame,
    tracks: Tracks,
    report: dict[str, Any],
    picture: tuple[NDArray[Any], StackFacts],
) -> None:
    """Write the tables, the report and the picture of all times.

    Parameters
    ----------
    folder : Path
        Which exists; files that are there are replaced.
    name : str
        Of the table's file.
    table : DataFrame
        The rows of all times, as `joined_tables` makes them.
    tracks : Tracks
        Which rows are the same object.
    report : dict
        Of what was done; that of the tracks is added.
    picture : (ndarray, StackFacts)
        The projection of all times, under which the tracks are drawn, and its stack's facts.
    """
    from napari_gaussfit.plots.saving import draw
    from napari_gaussfit.plots.tracks import draw_tracks

    projection, facts = picture
    write_table(folder / name, table)
    write_table(folder / TRACKS_NAME, tracks.table())
    drawn = draw_tracks(projection, table, facts.spacing, facts.unit)
    draw(folder / PICTURE_NAME, drawn)
    write_json(folder / REPORT_NAME, report | tracks_report(tracks))


def refuse_other_times(folder: Path, name: str) -> None:
    """Refuse a folder that holds a result already.

    Parameters
    ----------
    folder : Path
        Which may not be there at all.
    name : str
        Of the table's file.

    Raises
    ------
    OutputError
        If it does.
    """
    names = (name, REPORT_NAME, TRACKS_NAME, PICTURE_NAME, TIMES_NAME, FIT_NAME)
    there = [found for found in names if (folder / found).exists()]
    if there:
        raise OutputError(f"{folder}: holds {there[0]} already; choose another folder")


def save_times(
    folder: Path,
    series: TimeSeries,
    frames: Sequence[Frame],
    table: pd.DataFrame,
    tracks: Tracks,
    settings: FitSettings,
) -> None:
    """Write what ``napari-gaussfit fit --time`` writes, of times that are done.

    Parameters
    ----------
    folder : Path
        Which is made where it is not there.
    series : TimeSeries
        The times that were asked for.
    frames : sequence of Frame
        The times that are done.
    table : DataFrame
        Of all of them.
    tracks : Tracks
        Which Gaussians of these times are the same object.
    settings : FitSettings
        Of the first time.

    Raises
    ------
    OutputError
        If there is a result already, or a file cannot be written.
    """
    refuse_other_times(folder, TABLE_NAME)
    seen = Seen()
    with claimed(folder):
        for n, frame in enumerate(frames):
            seen.take(series.read(n))
            place = FitFolder(folder / TIMES_NAME / f"{frame.time:04d}", seen.stacks)
            place.path.mkdir(parents=True, exist_ok=True)
            state = {ORIGINS: frame.origins, DRIFT: frame.drift}
            write_table(place.path / TABLE_NAME, frame.result.to_dataframe())
            place.save(replace(frame.result, state=state, settings=settings))
        dated = [(frame.time, frame.drift, frame.result) for frame in frames]
        report = report_of_times(seen.stack.name, settings, dated)
        picture = seen.projection, seen.stack.facts
        write_times(folder, TABLE_NAME, table, tracks, report, picture)
