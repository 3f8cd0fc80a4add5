"""Several times of a recording, fitted one after another: ``fit --time all``."""

from __future__ import annotations

import time as clock
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_gaussfit.cli.times import TimesFolder, read_table, say_tracks, tell, time_bar
from napari_gaussfit.files import write_table
from napari_gaussfit.fitting.result import POINTS
from napari_gaussfit.jobs.fit_folder import (
    TABLE_NAME,
    FitFolder,
    check_points,
    holds_fit,
    resumed_settings,
)
from napari_gaussfit.jobs.time_folder import (
    DRIFT,
    ORIGINS,
    Seen,
    report_of_times,
)
from napari_gaussfit.model.gaussians import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import NDArray
    from tqdm import tqdm

    from napari_gaussfit.cli.times import Target
    from napari_gaussfit.fitting.fit import Fit
    from napari_gaussfit.fitting.result import FitResult
    from napari_gaussfit.measure.psf import Psf
    from napari_gaussfit.model.field import GaussianField
    from napari_gaussfit.stacks.time_series import TimeSeries

    Floats = NDArray[np.float64]
    Fields = Sequence[GaussianField] | None

__all__ = ["fit_times"]


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
        The stacks of all times that are fitted.
    target : Target
        The folder that is written, and what may be replaced there.
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

    folder = TimesFolder(target, TABLE_NAME)
    running = _FitTimes(series, folder, given, points)
    first = Fit(series.read(0), running.settings, start=start, points=points, psf=psf)
    with folder.claimed():
        running.run(first)


class _FitTimes:
    """Fits time after time; those that are in the folder are taken from there."""

    def __init__(
        self,
        series: TimeSeries,
        folder: TimesFolder,
        given: dict[str, Any],
        points: Floats | None,
    ) -> None:
        from napari_gaussfit.settings import FitSettings

        self.series, self.folder, self.given = series, folder, given
        self.points = points
        self.settings = FitSettings(**given)
        self.seen = Seen()
        self.results: list[FitResult] = []
        self.tables: list[pd.DataFrame] = []

    def run(self, first: Fit) -> None:
        """Fit them, and write what all of them make."""
        from napari_gaussfit.objects.sequence import joined_tables, next_fit, tracks_of

        with time_bar(len(self.series)) as bar:
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
                self.tables.append(read_table(place.path / TABLE_NAME))
                tell(bar, f"time {time}: {counted(len(result.field))}, {words}")
                bar.update()
        fields = [result.field.numpy() for result in self.results]
        drifts = [result.state[DRIFT] for result in self.results]
        origins = [result.state[ORIGINS] for result in self.results]
        tracks = tracks_of(fields, drifts, self.series.times, follows=origins)
        table = joined_tables(self.tables, tracks)
        dated = zip(self.series.times, drifts, self.results, strict=True)
        report = report_of_times(self.seen.stack.name, self.settings, dated)
        self.folder.write(table, tracks, report, self.seen)
        say_tracks(self.folder.path, "Gaussians", table, tracks)

    def _saved(self, place: FitFolder, *, first: bool) -> FitResult | None:
        """Return a time that is in the folder, and go on by its settings."""
        result = place.saved()
        if ORIGINS not in result.state or not (place.path / TABLE_NAME).is_file():
            return None
        if first:
            self.settings = resumed_settings(result, self.given)
            check_points(result, self.points)
            self.points = result.state.get(POINTS)
        return result

    def _fitted(self, fit: Fit, drift: Floats, place: FitFolder, bar: tqdm[Any]) -> FitResult:
        _run(fit, bar)
        result = fit.result()
        state = {ORIGINS: fit.origins, DRIFT: drift}
        if self.points is not None:
            state[POINTS] = np.asarray(self.points)
        result = place.judged(replace(result, state=state, settings=self.settings))
        place.path.mkdir(parents=True, exist_ok=True)
        write_table(place.path / TABLE_NAME, result.to_dataframe())
        place.save(result)  # at last: where it is, the time is done
        return result


def _run(fit: Fit, bar: tqdm[Any]) -> None:
    """Run a fit, and show how far it is."""
    for snapshot in fit:
        steps = f"step {snapshot.iteration} of {snapshot.iterations}"
        bar.set_postfix_str(f"{steps}, {counted(len(snapshot.field))}")
