"""Fits and spots of all times of a recording, and the tracks that they make."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from napari_gaussfit.fitting.fit import Fit
from napari_gaussfit.fitting.sequence import following
from napari_gaussfit.objects.spot_settings import SpotSettings
from napari_gaussfit.objects.spots import Spots, fit_spots, follow_spots, spots_table
from napari_gaussfit.objects.tracks import Tracks, joined_tables, tracks_of
from napari_gaussfit.settings import FitSettings
from napari_gaussfit.stacks.drift import drift_between

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike, NDArray

    from napari_gaussfit.fitting.result import FitResult
    from napari_gaussfit.fitting.snapshot import Snapshot
    from napari_gaussfit.fitting.starting import Follows
    from napari_gaussfit.measure.psf import Psf
    from napari_gaussfit.model.gaussians import Gaussians
    from napari_gaussfit.stacks.stack import Stack
    from napari_gaussfit.stacks.time_series import TimeSeries

    Floats = NDArray[np.float64]
    Indices = NDArray[np.int64]

__all__ = [
    "FitSequence",
    "SpotSequence",
    "fit_sequence",
    "joined_tables",
    "next_fit",
    "next_spots",
    "spot_sequence",
    "tracks_of",
]


@dataclass(frozen=True, eq=False)
class FitSequence:
    """Fits of several times, one after the other.

    Parameters
    ----------
    results : tuple of FitResult
        The fit of each time.
    tracks : Tracks
        Of the Gaussians: one that stays is the same; one that ends where another begins is linked.
    drifts : ndarray, shape [T, 3]
        z, y, x by which all had moved since the time before, in the stacks' unit; 0 at the first.
    """

    results: tuple[FitResult, ...]
    tracks: Tracks
    drifts: Floats

    def to_dataframe(self) -> pd.DataFrame:
        """Return the table of the Gaussians of all times, with columns time and track at the end.

        Returns
        -------
        DataFrame
            The columns of `FitResult.to_dataframe` beside.
        """
        return joined_tables([result.to_dataframe() for result in self.results], self.tracks)


@dataclass(frozen=True, eq=False)
class SpotSequence:
    """Spots of several times, and their tracks.

    Parameters
    ----------
    spots : tuple of Spots
        The spots of each time.
    tracks : Tracks
        Which of them are one.
    drifts : ndarray, shape [T, 3]
        How far all has moved since the time before, as for `FitSequence`.
    spacing : tuple of float
        (dz, dy, dx) of the stacks.
    """

    spots: tuple[Spots, ...]
    tracks: Tracks
    drifts: Floats
    spacing: tuple[float, float, float]

    def to_dataframe(self) -> pd.DataFrame:
        """Return the table of the spots of all times, with columns time and track at the end.

        Returns
        -------
        DataFrame
            The columns of `spots_table` beside.
        """
        return joined_tables([spots_table(one, self.spacing) for one in self.spots], self.tracks)


def fit_sequence(
    series: TimeSeries,
    settings: FitSettings | None = None,
    *,
    points: NDArray[np.float64] | None = None,
    psf: Psf | None = None,
    watch: Callable[[int, Snapshot], None] | None = None,
) -> FitSequence:
    """Fit all times of a recording, each from the Gaussians of the one before.

    Parameters
    ----------
    series : TimeSeries
        The times; of several channels, which share their Gaussians.
    settings : FitSettings, optional
        Of the first time; the defaults if None. Those that follow take a quarter of the steps.
    points : ndarray, shape [P, 3], optional
        Positions (z, y, x in the stacks' unit) at which Gaussians begin at the first time.
    psf : Psf, optional
        What light makes of a point, as for `fit`.
    watch : callable, optional
        Called with the number of the time and each `Snapshot`.

    Returns
    -------
    FitSequence
        Without what the fits would need to go on.

    Examples
    --------
    >>> from napari_gaussfit import FitSettings, TimeSeries, fit_sequence
    >>> from napari_gaussfit.synthetic.phantoms import moving_spots
    >>> series = TimeSeries.from_stacks(
    ...     moving_spots(count=5, times=2, crossings=0, shape=(16, 40, 40)).stacks
    ... )
    >>> found = fit_sequence(series, FitSettings(quality="preview"))
    >>> sorted(found.to_dataframe()["time"].unique().tolist())
    [0, 1]
    """
    settings = settings or FitSettings()
    results: list[FitResult] = []
    origins: list[Indices] = []
    drifts: list[Floats] = []
    stacks: tuple[Stack, ...] = ()
    for n, time in enumerate(series.times):
        before, stacks = stacks, series.read(n)
        if n:
            running, drift = next_fit(before, stacks, results[-1], settings, points)
        else:
            running, drift = Fit(stacks, settings, points=points, psf=psf), np.zeros(3)
        for snapshot in running:
            if watch is not None:
                watch(time, snapshot)
        drifts.append(drift)
        origins.append(running.origins)
        results.append(replace(running.result(), state={}))
    gaussians = [result.field.numpy() for result in results]
    tracks = tracks_of(gaussians, drifts, series.times, follows=origins)
    return FitSequence(tuple(results), tracks, np.array(drifts))


def next_fit(
    before: Sequence[Stack],
    stacks: Sequence[Stack],
    result: FitResult,
    settings: FitSettings,
    points: NDArray[np.float64] | None,
    follows: Follows | None = None,
) -> tuple[Fit, Floats]:
    """Return the fit of the next time, to be run, and the drift until then.

    Parameters
    ----------
    before, stacks : sequence of Stack
        The channels at the time before and at this one.
    result : FitResult
        Of the time before.
    settings : FitSettings
        Of the first time.
    points : ndarray, shape [P, 3], or None
        At which Gaussians began at the first time.
    follows : Follows, optional
        What else is known of the time before; what `result` tells if None.

    Returns
    -------
    Fit
        Idle.
    ndarray, shape [3]
        The drift.
    """
    drift = drift_between(before, stacks)
    count = 0 if points is None else len(points)
    fit = following(stacks, result, settings, drift, points=count, follows=follows)
    return fit, drift


def spot_sequence(
    series: TimeSeries,
    settings: SpotSettings | None = None,
    *,
    points: ArrayLike | None = None,
    reach: float | None = None,
    watch: Callable[[int, Spots], None] | None = None,
) -> SpotSequence:
    """Find the spots of all times of a recording, each time from those of the one before.

    Parameters
    ----------
    series : TimeSeries
        The times, of one channel.
    settings : SpotSettings, optional
        The defaults if None.
    points : array-like, shape [P, 3], optional
        z, y, x in the stacks' unit of spots that are there at the first time in any case.
    reach : float, optional
        How far a spot may move from a time to the next, in the stacks' unit; if None, by what all
        of them move by.
    watch : callable, optional
        Called with the number of each time and its spots.

    Returns
    -------
    SpotSequence
        The same each time.

    Examples
    --------
    >>> from napari_gaussfit import TimeSeries, spot_sequence
    >>> from napari_gaussfit.synthetic.phantoms import moving_spots
    >>> series = TimeSeries.from_stacks(
    ...     moving_spots(count=5, times=3, crossings=0, shape=(16, 48, 48)).stacks
    ... )
    >>> found = spot_sequence(series)
    >>> len(found.tracks) >= 5
    True
    """
    settings = settings or SpotSettings()
    spots: list[Spots] = []
    drifts: list[Floats] = []
    [stack] = series.read(0)
    for n, time in enumerate(series.times):
        if n:
            previous, [stack] = stack, series.read(n)
            known, last = replace(settings, noise=spots[-1].noise), spots[-1]
            found, drift = next_spots(previous, stack, known, last.gaussians, last.least)
        else:
            found, drift = fit_spots(stack, settings, points=points), np.zeros(3)
        spots.append(found)
        drifts.append(drift)
        if watch is not None:
            watch(time, found)
    gaussians = [one.gaussians for one in spots]
    tracks = tracks_of(gaussians, drifts, series.times, reach=reach)
    return SpotSequence(tuple(spots), tracks, np.array(drifts), stack.spacing)


def next_spots(
    before: Stack, stack: Stack, settings: SpotSettings, gaussians: Gaussians, threshold: float
) -> tuple[Spots, Floats]:
    """Return the spots of the next time, and the drift until then.

    Parameters
    ----------
    before, stack : Stack
        At the time before and at this one.
    settings : SpotSettings
        With the noise that is known.
    gaussians : Gaussians
        Spots of the time before.
    threshold : float
        Standard deviations from which the filters' answers were spots there: `Spots.least`.

    Returns
    -------
    Spots
        At this time.
    ndarray, shape [3]
        The drift.
    """
    drift = drift_between([before], [stack])
    moved = replace(gaussians, means=gaussians.means + drift)
    return follow_spots(stack, settings, moved, threshold), drift
