"""The spots of several times of a recording, and their tracks: ``spots --time all``."""

from __future__ import annotations

import json
import time as clock
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_gaussfit.cli.times import (
    TimesFolder,
    read_table,
    say_tracks,
    tell,
    time_bar,
)
from napari_gaussfit.errors import SettingsError
from napari_gaussfit.files import write_json, write_table
from napari_gaussfit.jobs.fit_folder import FitFolder
from napari_gaussfit.jobs.time_folder import DRIFT, Seen

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from numpy.typing import NDArray

    from napari_gaussfit.cli.times import Target
    from napari_gaussfit.objects.spot_settings import SpotSettings
    from napari_gaussfit.objects.spots import Spots
    from napari_gaussfit.stacks.stack import Stack
    from napari_gaussfit.stacks.time_series import TimeSeries

    Floats = NDArray[np.float64]

__all__ = ["spots_of_times"]

SPOTS_NAME, STATE_NAME = "objects.csv", "state.json"


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
    from napari_gaussfit import __version__
    from napari_gaussfit.measure.table import gaussians_of
    from napari_gaussfit.objects.sequence import joined_tables, tracks_of

    seen = Seen()
    tables: list[pd.DataFrame] = []
    states: list[dict[str, Any]] = []
    asked = {
        **asdict(settings),
        "psf": None if settings.psf is None else settings.psf.words,
        "points": None if points is None else points.tolist(),
    }
    with time_bar(len(series)) as bar:
        for n, time in enumerate(series.times):
            began, place = clock.perf_counter(), folder.of(time)
            before = seen.take(series.read(n))
            digest = FitFolder(place, seen.stacks).digest.tobytes().hex()
            words = "was done before"
            if not (place / STATE_NAME).is_file():
                place.mkdir(parents=True, exist_ok=True)
                last = (tables[-1], states[-1]) if n else None
                table, state = _spots_at(seen.stack, settings, points, before, last)
                write_table(place / SPOTS_NAME, table)
                write_json(place / STATE_NAME, {"digest": digest, "asked": asked} | state)
                words = f"{clock.perf_counter() - began:.1f} s"
            states.append(_checked_state(place / STATE_NAME, digest, asked))
            tables.append(read_table(place / SPOTS_NAME))
            tell(bar, f"time {time}: {len(tables[-1]):,} spots, {words}")
            bar.update()
    gaussians = [gaussians_of(table, seen.stack.unit) for table in tables]
    drifts = [np.array(state[DRIFT]) for state in states]
    tracks = tracks_of(gaussians, drifts, series.times, reach=reach)
    table = joined_tables(tables, tracks)
    kept = [
        {"time": time, "spots": len(rows)} | {k: state[k] for k in (DRIFT, "threshold", "notes")}
        for time, rows, state in zip(series.times, tables, states, strict=True)
    ]
    report = {
        "stack": seen.stack.name,
        "false_discoveries": settings.false_discoveries,
        "likelihood": settings.likelihood,
        "noise": states[0]["noise"],
        "reach": reach,
        "times": kept,
        "version": __version__,
    }
    folder.write(table, tracks, report, seen)
    say_tracks(folder.path, "spots", table, tracks)


def _spots_at(
    stack: Stack,
    settings: SpotSettings,
    points: Floats | None,
    before: tuple[Stack, ...],
    last: tuple[pd.DataFrame, dict[str, Any]] | None,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return the table of a time, and what the next one goes on from."""
    from napari_gaussfit.measure.noise import Noise
    from napari_gaussfit.measure.table import gaussians_of
    from napari_gaussfit.objects.sequence import next_spots
    from napari_gaussfit.objects.spots import fit_spots, spots_table

    spots: Spots
    drift = np.zeros(3)
    if last is None:
        spots = fit_spots(stack, settings, points=points)
    else:
        table, state = last
        known = replace(settings, noise=Noise(**state["noise"]))
        gaussians = gaussians_of(table, stack.unit)
        spots, drift = next_spots(before[0], stack, known, gaussians, state["threshold"])
    noise = {name: value for name, value in asdict(spots.noise).items() if value != float("inf")}
    state = {
        "threshold": spots.threshold,
        "noise": noise,
        DRIFT: drift.tolist(),
        "notes": list(spots.notes),
    }
    return spots_table(spots, stack.spacing), state


def _checked_state(path: Path, digest: str, asked: dict[str, Any]) -> dict[str, Any]:
    """Return what is known of a time that was done; refuse that of another stack or settings."""
    state: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    for name, found in (("digest", digest), ("asked", asked)):
        if state.get(name) != found:
            what = "other voxels" if name == "digest" else "other settings"
            raise SettingsError(
                f"{path}: is of {what} than these; give those again, or another folder"
            )
    return state
