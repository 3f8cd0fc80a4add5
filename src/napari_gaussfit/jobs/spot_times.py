"""The spots of several times, one after the other, from a prompt as from a window.

Of a time that is done its table is kept, and what the next one goes on from.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_gaussfit.errors import FitError, GaussfitError
from napari_gaussfit.files import write_json, write_table
from napari_gaussfit.jobs.encoding import stacks_from, stacks_message
from napari_gaussfit.jobs.fit_folder import FitFolder
from napari_gaussfit.jobs.messages import Message
from napari_gaussfit.jobs.objects import settings_words, table_from, table_message
from napari_gaussfit.jobs.overwriting import claimed
from napari_gaussfit.jobs.time_folder import (
    DRIFT,
    TIMES_NAME,
    Seen,
    refuse_other_times,
    write_times,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import pandas as pd
    from numpy.typing import NDArray

    from napari_gaussfit.jobs.objects import Asked, SpotsAsked
    from napari_gaussfit.objects.spot_settings import SpotSettings
    from napari_gaussfit.objects.tracks import Tracks
    from napari_gaussfit.stacks.stack import Stack
    from napari_gaussfit.stacks.time_series import TimeSeries

    Floats = NDArray[np.float64]

__all__ = [
    "LEAST",
    "SPOTS_NAME",
    "STATE_NAME",
    "SpotFrame",
    "SpotTimes",
    "asked_words",
    "found_spots_over_time",
    "report_of_spots",
    "save_spot_times",
    "spots_at",
    "tracks_of_spots",
    "write_frame",
]

LEAST = "least"
"""In a time's state, the threshold that the next one begins with."""

SPOTS_NAME, STATE_NAME = "objects.csv", "state.json"


@dataclass(frozen=True, eq=False)
class SpotFrame:
    """A time that is done.

    Parameters
    ----------
    time : int
        The number of the time in the recording.
    table : DataFrame, K rows
        A row a spot, as `objects.spots.spots_table` makes it.
    state : dict
        What the next time goes on from, and what the report says of this one; JSON types.
    """

    time: int
    table: pd.DataFrame
    state: dict[str, Any]


def spots_at(
    stack: Stack,
    settings: SpotSettings,
    last: tuple[Stack, SpotFrame] | None,
    *,
    points: Floats | None = None,
    excluded: Floats | None = None,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return the table of a time, and what the next one goes on from.

    Parameters
    ----------
    stack : Stack
        The stack at this time.
    settings : SpotSettings
        What is looked for.
    last : (Stack, SpotFrame) or None
        The time before, from whose spots this one begins; None at the first.
    points, excluded : ndarray, shape [P, 3], optional
        Where spots are, and where none is, at the first time in any case.
    """
    from napari_gaussfit.measure.noise import Noise
    from napari_gaussfit.measure.table import gaussians_of
    from napari_gaussfit.objects.sequence import next_spots
    from napari_gaussfit.objects.spots import fit_spots, spots_table

    drift = np.zeros(3)
    if last is None:
        spots = fit_spots(stack, settings, points=points, excluded=excluded)
    else:
        before, frame = last
        known = replace(settings, noise=Noise(**frame.state["noise"]))
        gaussians = gaussians_of(frame.table, stack.unit)
        spots, drift = next_spots(before, stack, known, gaussians, frame.state[LEAST])
    noise = {name: value for name, value in asdict(spots.noise).items() if value != float("inf")}
    state = {
        "threshold": spots.threshold,
        LEAST: spots.least,
        "noise": noise,
        DRIFT: drift.tolist(),
        "notes": list(spots.notes),
    }
    return spots_table(spots, stack.spacing), state


def asked_words(
    settings: SpotSettings, points: Floats | None, excluded: Floats | None = None
) -> dict[str, Any]:
    """Return what was asked for, by which a run that goes on tells whether it is the same.

    Parameters
    ----------
    settings : SpotSettings
        What is looked for.
    points, excluded : ndarray, shape [P, 3], or None
        Where spots are, and where none is, at the first time in any case.
    """
    given = points is not None and len(points)
    left_out = {} if excluded is None or not len(excluded) else {"excluded": excluded.tolist()}
    return {
        **asdict(settings),
        "psf": None if settings.psf is None else settings.psf.words,
        "points": points.tolist() if given and points is not None else None,
        **left_out,
    }


def write_frame(
    folder: Path, frame: SpotFrame, stacks: tuple[Stack, ...], asked: dict[str, Any]
) -> None:
    """Write a time that is done; its state comes last, and says that all is there.

    Parameters
    ----------
    folder : Path
        Of this time, made where it is not there.
    frame : SpotFrame
        The spots that were found at this time.
    stacks : tuple of Stack
        The stack, by whose voxels a run that goes on knows it.
    asked : dict
        What was asked for, see `asked_words`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    digest = FitFolder(folder, stacks).digest.tobytes().hex()
    write_table(folder / SPOTS_NAME, frame.table)
    write_json(folder / STATE_NAME, {"digest": digest, "asked": asked} | frame.state)


def tracks_of_spots(
    frames: Sequence[SpotFrame], unit: str, *, reach: float | None = None
) -> Tracks:
    """Return which spots of several times are one.

    Parameters
    ----------
    frames : sequence of SpotFrame
        The times that are done.
    unit : str
        The unit of their lengths.
    reach : float, optional
        How far a spot may move from a time to the next; the spots tell if None.
    """
    from napari_gaussfit.measure.table import gaussians_of
    from napari_gaussfit.objects.tracks import tracks_of

    return tracks_of(
        [gaussians_of(frame.table, unit) for frame in frames],
        [np.array(frame.state[DRIFT]) for frame in frames],
        [frame.time for frame in frames],
        reach=reach,
    )


def report_of_spots(
    name: str, asked: dict[str, Any], frames: Sequence[SpotFrame], reach: float | None = None
) -> dict[str, Any]:
    """Return the report of the spots of several times.

    Parameters
    ----------
    name : str
        The name of the recording.
    asked : dict
        What was asked for, see `asked_words`.
    frames : sequence of SpotFrame
        The times that are done, one at least.
    reach : float, optional
        How far a spot was allowed to move from a time to the next.
    """
    from napari_gaussfit import __version__

    kept = (DRIFT, "threshold", "notes")
    return {
        "stack": name,
        "false_discoveries": asked["false_discoveries"],
        "likelihood": asked["likelihood"],
        "noise": frames[0].state["noise"],
        "reach": reach,
        "times": [
            {"time": frame.time, "spots": len(frame.table)}
            | {key: frame.state[key] for key in kept}
            for frame in frames
        ],
        "version": __version__,
    }


# From a window


def found_spots_over_time(
    ask: Asked, asked: SpotsAsked, series: TimeSeries, told: Callable[[SpotFrame], None]
) -> None:
    """Find the spots of all times of a recording, each time from those of the one before.

    Parameters
    ----------
    ask : callable
        Sends a question to the process that computes, and returns the answer.
    asked : SpotsAsked
        What is looked for; its points are of the first time.
    series : TimeSeries
        The times, each of which is read when its turn comes.
    told : callable
        Hears each time that is done; these are what there is, whatever becomes of the rest.

    Raises
    ------
    FitError
        If a time cannot be read or searched, or the process was closed meanwhile.
    """
    settings = settings_words(asked)
    marked = {"points": asked.points, "excluded": asked.excluded}
    for n, time in enumerate(series.times):
        words = {"settings": settings, "first": n == 0, "time": time}
        try:
            stack = stacks_message("spots_at", series.read(n))
            answer = ask(Message("spots_at", stack.words | words, stack.arrays | marked))
        except GaussfitError as error:
            raise FitError(f"time {time}: {error}") from error
        told(SpotFrame(time, table_from(answer), answer.words["state"]))


class SpotTimes:
    """What the process answers on the spots of several times; it remembers the last one."""

    def __init__(self) -> None:
        self._last: tuple[Stack, SpotFrame] | None = None

    def answer(self, question: Message) -> Message:
        """Return the spots of a time that follows the one that was asked for last."""
        from napari_gaussfit.objects.spot_settings import SpotSettings

        words, marked = question.words, question.arrays
        [stack] = stacks_from(question)
        settings = SpotSettings(**words["settings"])
        table, state = spots_at(
            stack,
            settings,
            None if words["first"] else self._last,
            points=marked["points"],
            excluded=marked["excluded"],
        )
        self._last = stack, SpotFrame(words["time"], table, state)
        message = table_message(table)
        return Message("spots_at", message.words | {"state": state}, message.arrays)


def save_spot_times(
    folder: Path,
    series: TimeSeries,
    frames: Sequence[SpotFrame],
    tracks: Tracks,
    asked: SpotsAsked,
) -> None:
    """Write what ``napari-gaussfit spots --time`` writes, of times that are done.

    Parameters
    ----------
    folder : Path
        Which is made where it is not there.
    series : TimeSeries
        The times that were asked for.
    frames : sequence of SpotFrame
        The times that are done, the first of these.
    tracks : Tracks
        Which of their spots are one.
    asked : SpotsAsked
        What was looked for.

    Raises
    ------
    OutputError
        If there is a result already, or a file cannot be written.
    """
    from napari_gaussfit.objects.spot_settings import SpotSettings
    from napari_gaussfit.objects.tracks import joined_tables

    refuse_other_times(folder, SPOTS_NAME)
    words = asked_words(SpotSettings(**settings_words(asked)), asked.points, asked.excluded)
    seen = Seen()
    with claimed(folder):
        for n, frame in enumerate(frames):
            seen.take(series.read(n))
            place = folder / TIMES_NAME / f"{frame.time:04d}"
            write_frame(place, frame, seen.stacks, words)
        table = joined_tables([frame.table for frame in frames], tracks)
        report = report_of_spots(seen.stack.name, words, frames)
        picture = seen.projection, seen.stack.facts
        write_times(folder, SPOTS_NAME, table, tracks, report, picture)
