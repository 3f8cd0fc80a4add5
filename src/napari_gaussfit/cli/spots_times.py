"""The spots of several times of a recording, and their tracks: ``spots --time all``."""

from __future__ import annotations

import json
import time as clock
from typing import TYPE_CHECKING, Any

from napari_gaussfit.cli.times import (
    TimesFolder,
    read_table,
    say_tracks,
    tell,
    time_bar,
)
from napari_gaussfit.errors import SettingsError
from napari_gaussfit.jobs.fit_folder import FitFolder
from napari_gaussfit.jobs.spot_times import (
    LEAST,
    SPOTS_NAME,
    STATE_NAME,
    SpotFrame,
    asked_words,
    report_of_spots,
    spots_at,
    tracks_of_spots,
    write_frame,
)
from napari_gaussfit.jobs.time_folder import Seen

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from napari_gaussfit.cli.times import Target
    from napari_gaussfit.objects.spot_settings import SpotSettings
    from napari_gaussfit.stacks.stack import Stack
    from napari_gaussfit.stacks.time_series import TimeSeries

    Floats = NDArray[np.float64]

__all__ = ["spots_of_times"]


def spots_of_times(
    series: TimeSeries,
    target: Target,
    settings: SpotSettings,
    *,
    points: Floats | None,
    reach: float | None,
) -> None:
    """Find the spots of all times into a folder.

    Parameters
    ----------
    series : TimeSeries
        The times, of one channel.
    target : Target
        The folder that is written, and what may be replaced there.
    settings : SpotSettings
        What is looked for.
    points : ndarray, shape [P, 3], or None
        Spots that are there at the first time in any case.
    reach : float or None
        How far a spot may move from a time to the next.
    """
    folder = TimesFolder(target, SPOTS_NAME)
    with folder.claimed():
        _spots_into(folder, series, settings, points, reach)


def _spots_into(
    folder: TimesFolder,
    series: TimeSeries,
    settings: SpotSettings,
    points: Floats | None,
    reach: float | None,
) -> None:
    from napari_gaussfit.objects.tracks import joined_tables

    seen = Seen()
    frames: list[SpotFrame] = []
    asked = asked_words(settings, points)
    with time_bar(len(series)) as bar:
        for n, time in enumerate(series.times):
            began, place = clock.perf_counter(), folder.of(time)
            before = seen.take(series.read(n))
            words = "was done before"
            if not (place / STATE_NAME).is_file():
                last = (before[0], frames[-1]) if n else None
                table, state = spots_at(seen.stack, settings, last, points=points)
                write_frame(place, SpotFrame(time, table, state), seen.stacks, asked)
                words = f"{clock.perf_counter() - began:.1f} s"
            frames.append(_frame_in(place, time, seen.stacks, asked))
            tell(bar, f"time {time}: {len(frames[-1].table):,} spots, {words}")
            bar.update()
    tracks = tracks_of_spots(frames, seen.stack.unit, reach=reach)
    table = joined_tables([frame.table for frame in frames], tracks)
    folder.write(table, tracks, report_of_spots(seen.stack.name, asked, frames, reach), seen)
    say_tracks(folder.path, "spots", table, tracks)


def _frame_in(
    place: Path, time: int, stacks: tuple[Stack, ...], asked: dict[str, Any]
) -> SpotFrame:
    """Return what is known of a time that was done; refuse that of another stack or settings."""
    path = place / STATE_NAME
    state: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    digest = FitFolder(place, stacks).digest.tobytes().hex()
    for name, found in (("digest", digest), ("asked", asked)):
        if state.get(name) != found:
            what = "other voxels" if name == "digest" else "other settings"
            raise SettingsError(
                f"{path}: is of {what} than these; give those again, or another folder"
            )
    if LEAST not in state:
        raise SettingsError(f"{path}: is of an earlier version; give another folder, or --force")
    return SpotFrame(time, read_table(place / SPOTS_NAME), state)
