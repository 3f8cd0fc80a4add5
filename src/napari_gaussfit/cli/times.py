"""Several times at the prompt: `--time all` and `--time 0:30:2` of ``fit`` and ``spots``.

Each time is written as it is done, into a folder of its own, from which a run that was killed goes
on; the table of all times, with their tracks, comes at the end.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
import time as clock
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_gaussfit.cli.folder import (
    FIT_NAME,
    REPORT_NAME,
    TABLE_NAME,
    FitFolder,
    check_points,
    holds_fit,
    resumed_settings,
)
from napari_gaussfit.cli.overwriting import claimed, refuse_to_replace
from napari_gaussfit.errors import OutputError, SettingsError
from napari_gaussfit.files import replacing, write_json
from napari_gaussfit.fitting.result import POINTS
from napari_gaussfit.stacks.time_series import TimeSeries

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import pandas as pd
    from numpy.typing import NDArray
    from tqdm import tqdm

    from napari_gaussfit.fitting.fit import Fit
    from napari_gaussfit.fitting.result import FitResult
    from napari_gaussfit.measure.psf import Psf
    from napari_gaussfit.model.field import GaussianField
    from napari_gaussfit.objects.search import SpotSettings
    from napari_gaussfit.objects.spots import Spots
    from napari_gaussfit.objects.tracks import Tracks
    from napari_gaussfit.stacks.stack import Stack

    Floats = NDArray[np.float64]
    Fields = Sequence[GaussianField] | None

__all__ = ["Target", "fit_times", "series_of", "spots_of_times"]

TIMES_NAME, TRACKS_NAME, PICTURE_NAME = "times", "tracks.csv", "tracks.png"
SPOTS_NAME, STATE_NAME = "objects.csv", "state.json"

_TEXT, _WHOLE = ("flags", "unit"), ("index", "neighbours", "channel", "time")
"""Columns of tables that are no real numbers."""

_ORIGINS, _DRIFT = "origins", "drift"
"""Arrays in the saved state of a time: which Gaussians of the time before these are, and by how
much all has moved since."""


def series_of(arguments: argparse.Namespace) -> TimeSeries:
    """Return the times that were asked for, and say what was assumed.

    Parameters
    ----------
    arguments : Namespace
        Of the command line.
    """
    series = TimeSeries.open(
        arguments.stack,
        arguments.time,
        channels=arguments.channel,
        position=arguments.position,
        spacing=arguments.spacing,
        fill_nan=arguments.fill_nan,
    )
    notes = (note for stack in series.read(0) for note in stack.notes)
    for note in dict.fromkeys((*series.notes, *notes)):
        sys.stderr.write(f"note: {note}\n")
    return series


@dataclass(frozen=True)
class Target:
    """Where results go.

    Parameters
    ----------
    path : Path
        The folder, which may hold the times that were done before a kill.
    inputs : sequence of Path
        Files that are read, and never written over.
    force, resume : bool
        Whether what is there is replaced, or gone on from.
    """

    path: Path
    inputs: Sequence[Path]
    force: bool
    resume: bool


@dataclass(frozen=True)
class _Folder:
    """OUT of several times."""

    target: Target
    table: str

    @property
    def path(self) -> Path:
        """The folder."""
        return self.target.path

    @property
    def outputs(self) -> tuple[Path, ...]:
        """What is there in the end."""
        names = (self.table, REPORT_NAME, TRACKS_NAME, PICTURE_NAME)
        return tuple(self.path / name for name in names)

    def of(self, time: int) -> Path:
        """Return the folder of a time."""
        return self.path / TIMES_NAME / f"{time:04d}"

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Keep others from writing into it; refuse to write over what is there."""
        self._refuse()
        with claimed(self.path):
            self._refuse()  # once more: another run may have ended there since
            if not self.target.resume:
                self.clear()
            yield

    def _refuse(self) -> None:
        instead = ", --resume goes on with it" * (self.path / TIMES_NAME).is_dir()
        targets = [*self.outputs, self.path / TIMES_NAME, self.path / FIT_NAME]
        force = self.target.force or self.target.resume
        refuse_to_replace(targets, inputs=self.target.inputs, force=force, instead=instead)

    def clear(self) -> None:
        """Remove what an earlier run has left, which the new one replaces."""
        with suppress(FileNotFoundError):
            shutil.rmtree(self.path / TIMES_NAME)
        for path in (*self.outputs, self.path / FIT_NAME):
            path.unlink(missing_ok=True)

    def write(
        self, table: pd.DataFrame, tracks: Tracks, report: dict[str, Any], seen: _Seen
    ) -> None:
        """Write the tables, the report and the picture of all times."""
        from napari_gaussfit.plots.saving import draw
        from napari_gaussfit.plots.tracks import draw_tracks

        _write_table(self.path / self.table, table)
        _write_table(self.path / TRACKS_NAME, tracks.table())
        facts = seen.stack.facts
        draw(
            self.path / PICTURE_NAME,
            draw_tracks(seen.projection, table, facts.spacing, facts.unit),
        )
        write_json(self.path / REPORT_NAME, report | _of_tracks(tracks))


class _Seen:
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


def fit_times(
    series: TimeSeries,
    target: Target,
    given: dict[str, Any],
    *,
    start: Fields,
    points: Floats | None,
    psf: Psf | None,
) -> None:
    """Fit all times into a folder.

    Parameters
    ----------
    series : TimeSeries
        The times.
    target : Target
        The folder.
    given : dict
        Settings that were given.
    start : sequence of GaussianField or None
        Gaussians with which the first time begins.
    points : ndarray, shape [P, 3], or None
        Where Gaussians of the first time begin.
    psf : Psf or None
        What light makes of a point.
    """
    from napari_gaussfit.fitting.fit import Fit

    folder = _Folder(target, TABLE_NAME)
    running = _FitTimes(series, folder, given, points)
    first = Fit(series.read(0), running.settings, start=start, points=points, psf=psf)
    with folder.claimed():
        running.run(first)


class _FitTimes:
    """Fits time after time; those that are in the folder are taken from there."""

    def __init__(
        self,
        series: TimeSeries,
        folder: _Folder,
        given: dict[str, Any],
        points: Floats | None,
    ) -> None:
        from napari_gaussfit.settings import FitSettings

        self.series, self.folder, self.given = series, folder, given
        self.points = points
        self.settings = FitSettings(**given)
        self.seen = _Seen()
        self.results: list[FitResult] = []
        self.tables: list[pd.DataFrame] = []

    def run(self, first: Fit) -> None:
        """Fit them, and write what all of them make."""
        from napari_gaussfit.objects.sequence import joined_tables, next_fit, tracks_of

        with _bar(len(self.series)) as bar:
            for n, time in enumerate(self.series.times):
                began = clock.perf_counter()
                before = self.seen.take(self.series.read(n))
                place = FitFolder(self.folder.of(time), self.seen.stacks)
                result = self._saved(place, first=not n) if holds_fit(place.path) else None
                words = "was done before"
                if result is None:
                    fit, drift = first, np.zeros(3)
                    if n:
                        stacks, last = self.seen.stacks, self.results[-1]
                        fit, drift = next_fit(before, stacks, last, self.settings, self.points)
                    result = self._fitted(fit, drift, place, bar)
                    words = f"{clock.perf_counter() - began:.1f} s"
                self.results.append(result)
                self.tables.append(_read_table(place.path / TABLE_NAME))
                _tell(bar, f"time {time}: {len(result.field):,} Gaussians, {words}")
                bar.update()
        fields = [result.field.numpy() for result in self.results]
        drifts = [result.state[_DRIFT] for result in self.results]
        origins = [result.state[_ORIGINS] for result in self.results]
        tracks = tracks_of(fields, drifts, self.series.times, follows=origins)
        table = joined_tables(self.tables, tracks)
        self.folder.write(table, tracks, self._report(drifts), self.seen)
        _say_tracks(self.folder.path, "Gaussians", table, tracks)

    def _saved(self, place: FitFolder, *, first: bool) -> FitResult | None:
        """Return a time that is in the folder, and go on by its settings."""
        result = place.saved()
        if _ORIGINS not in result.state or not (place.path / TABLE_NAME).is_file():
            return None
        if first:
            self.settings = resumed_settings(result, self.given)
            check_points(result, self.points)
            self.points = result.state.get(POINTS)
        return result

    def _fitted(self, fit: Fit, drift: Floats, place: FitFolder, bar: tqdm[Any]) -> FitResult:
        _run(fit, bar)
        result = fit.result()
        state = {_ORIGINS: fit.origins, _DRIFT: drift}
        if self.points is not None:
            state[POINTS] = np.asarray(self.points)
        result = place.judged(replace(result, state=state, settings=self.settings))
        place.path.mkdir(parents=True, exist_ok=True)
        _write_table(place.path / TABLE_NAME, result.to_dataframe())
        place.save(result)  # at last: where it is, the time is done
        return result

    def _report(self, drifts: list[Floats]) -> dict[str, Any]:
        from napari_gaussfit import __version__

        reports = []
        for time, result, drift in zip(self.series.times, self.results, drifts, strict=True):
            first, *others = (report.to_dict() for report in result.reports)
            more = {"other_channels": others} if others else {}
            reports.append({"time": time, "drift": drift.tolist()} | first | more)
        return {
            "stack": self.seen.stack.name,
            "settings": self.settings.to_dict(),
            "times": reports,
            "version": __version__,
        }


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
        The folder.
    settings : SpotSettings
        What is looked for.
    points : ndarray, shape [P, 3], or None
        Spots that are there at the first time in any case.
    reach : float or None
        How far a spot may move from a time to the next.
    """
    folder = _Folder(target, SPOTS_NAME)
    with folder.claimed():
        _spots_into(folder, series, settings, points, reach)


def _spots_into(
    folder: _Folder,
    series: TimeSeries,
    settings: SpotSettings,
    points: Floats | None,
    reach: float | None,
) -> None:
    from napari_gaussfit import __version__
    from napari_gaussfit.objects.sequence import joined_tables, tracks_of

    seen = _Seen()
    tables: list[pd.DataFrame] = []
    states: list[dict[str, Any]] = []
    asked = {
        **asdict(settings),
        "psf": None if settings.psf is None else settings.psf.words,
        "points": None if points is None else points.tolist(),
    }
    with _bar(len(series)) as bar:
        for n, time in enumerate(series.times):
            began, place = clock.perf_counter(), folder.of(time)
            before = seen.take(series.read(n))
            digest = FitFolder(place, seen.stacks).digest.tobytes().hex()
            words = "was done before"
            if not (place / STATE_NAME).is_file():
                place.mkdir(parents=True, exist_ok=True)
                last = (tables[-1], states[-1]) if n else None
                table, state = _spots_at(seen.stack, settings, points, before, last)
                _write_table(place / SPOTS_NAME, table)
                write_json(place / STATE_NAME, {"digest": digest, "asked": asked} | state)
                words = f"{clock.perf_counter() - began:.1f} s"
            states.append(_checked_state(place / STATE_NAME, digest, asked))
            tables.append(_read_table(place / SPOTS_NAME))
            _tell(bar, f"time {time}: {len(tables[-1]):,} spots, {words}")
            bar.update()
    gaussians = [_gaussians_of(table, seen.stack.unit) for table in tables]
    drifts = [np.array(state[_DRIFT]) for state in states]
    tracks = tracks_of(gaussians, drifts, series.times, reach=reach)
    table = joined_tables(tables, tracks)
    kept = [
        {"time": time, "spots": len(rows)} | {k: state[k] for k in (_DRIFT, "threshold", "notes")}
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
    _say_tracks(folder.path, "spots", table, tracks)


def _spots_at(
    stack: Stack,
    settings: SpotSettings,
    points: Floats | None,
    before: tuple[Stack, ...],
    last: tuple[pd.DataFrame, dict[str, Any]] | None,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return the table of a time, and what the next one goes on from."""
    from napari_gaussfit.measure.noise import Noise
    from napari_gaussfit.objects.sequence import next_spots
    from napari_gaussfit.objects.spots import fit_spots, spots_table

    spots: Spots
    drift = np.zeros(3)
    if last is None:
        spots = fit_spots(stack, settings, points=points)
    else:
        table, state = last
        known = replace(settings, noise=Noise(**state["noise"]))
        gaussians = _gaussians_of(table, stack.unit)
        spots, drift = next_spots(before[0], stack, known, gaussians, state["threshold"])
    noise = {name: value for name, value in asdict(spots.noise).items() if value != float("inf")}
    state = {
        "threshold": spots.threshold,
        "noise": noise,
        _DRIFT: drift.tolist(),
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


def _gaussians_of(table: pd.DataFrame, unit: str) -> Any:
    from napari_gaussfit.measure.table import AXES, COVARIANCES
    from napari_gaussfit.model.gaussians import Gaussians

    covariances = np.zeros((len(table), 3, 3))
    for name, (i, j) in COVARIANCES.items():
        covariances[:, i, j] = covariances[:, j, i] = table[name]
    return Gaussians.from_covariances(
        table[list(AXES)].to_numpy(np.float64), covariances, table["amplitude"], unit=unit
    )


def _run(fit: Fit, bar: tqdm[Any]) -> None:
    """Run a fit, and show how far it is."""
    for snapshot in fit:
        steps = f"step {snapshot.iteration} of {snapshot.iterations}"
        bar.set_postfix_str(f"{steps}, {len(snapshot.field):,} Gaussians")


def _bar(times: int) -> tqdm[Any]:
    from tqdm import tqdm

    # disable=None: silent where stderr is no terminal.
    return tqdm(total=times, unit="time", file=sys.stderr, disable=None, dynamic_ncols=True)


def _tell(bar: tqdm[Any], line: str) -> None:
    bar.clear()
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _say_tracks(path: Path, what: str, table: pd.DataFrame, tracks: Tracks) -> None:
    found = _of_tracks(tracks)
    sys.stdout.write(
        f"{path}: {len(table):,} {what} at {len(tracks.times)} times in {found['tracks']:,} "
        f"tracks; {found['born']:,} began and {found['died']:,} ended on the way\n"
    )


def _of_tracks(tracks: Tracks) -> dict[str, Any]:
    table = tracks.table()
    return {
        "tracks": len(tracks),
        "links": tracks.links,
        "born": int(table["born"].sum()),
        "died": int(table["died"].sum()),
        "steps": tracks.steps.tolist(),
    }


def _write_table(path: Path, table: pd.DataFrame) -> None:
    with replacing(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")


def _read_table(path: Path) -> pd.DataFrame:
    """Read a table that `_write_table` wrote, to the bit."""
    import pandas as pd

    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise OutputError(f"{path}: cannot be read again: {error}") from error
    # One by one: pandas' own parser may be off by the last bit.
    kinds: dict[str, Any] = dict.fromkeys(_TEXT, str) | dict.fromkeys(_WHOLE, int)
    return pd.DataFrame(
        {
            name: [kinds.get(name, _number)(text) for text in column]
            for name, column in zip(table.columns.astype(str), table.to_numpy().T, strict=True)
        }
    )


def _number(text: str) -> float:
    return float(text) if text else math.nan
