"""Moving spots with a known truth: links, centres against the bound, and what a time costs."""

from __future__ import annotations

import time
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from scipy.spatial import cKDTree

from benchmarks.tables import Table
from napari_gaussfit.fitting.fit import fit
from napari_gaussfit.objects.sequence import fit_sequence, next_fit, next_spots, spot_sequence
from napari_gaussfit.objects.spot_settings import SpotSettings
from napari_gaussfit.objects.spots import fit_spots
from napari_gaussfit.settings import FitSettings
from napari_gaussfit.stacks.time_series import TimeSeries
from napari_gaussfit.synthetic.phantoms import moving_spots

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd
    from numpy.typing import NDArray

    from benchmarks.options import Options
    from napari_gaussfit.fitting.result import FitResult
    from napari_gaussfit.objects.spots import Spots
    from napari_gaussfit.synthetic.phantoms import MovingPhantom

    Floats = NDArray[np.float64]

T = TypeVar("T")

TURNS = 6
"""Times, each found anew and then as one that follows."""

SIGMAS = np.array([0.4, 0.15, 0.15])
PLACE, BARS = ["z", "y", "x"], ["sd_z", "sd_y", "sd_x"]


def right_links(phantom: MovingPhantom, table: pd.DataFrame) -> tuple[int, int, float]:
    """Links that are right, those that there are, and RMS error of centres over their bars."""
    right = there = 0
    known: dict[int, int] = {}
    errors = []
    for n, truth in enumerate(phantom.truths):
        rows = table[table["time"] == n]
        means = truth.numpy().means
        apart, near = cKDTree(means / SIGMAS).query(rows[PLACE] / SIGMAS)
        ours = np.flatnonzero(apart < 1)
        off = (rows[PLACE].to_numpy() - means[near]) / rows[BARS].to_numpy()
        errors.append(off[ours])
        names = phantom.tracks[n][near[ours]].tolist()
        now = dict(zip(names, rows["track"].to_numpy()[ours].tolist(), strict=True))
        if n:
            both = set(phantom.tracks[n].tolist()) & set(phantom.tracks[n - 1].tolist())
            there += len(both)
            right += sum(name in now and now[name] == known.get(name) for name in both)
        known = now
    return right, there, float(np.sqrt(np.mean(np.square(np.concatenate(errors)))))


def f1(places: Floats, means: Floats) -> float:
    """Twice the true spots that are found over those that are found and those that there are."""
    if not len(places):
        return 0.0
    apart, near = cKDTree(means / SIGMAS).query(places / SIGMAS)
    return 2 * len(np.unique(near[apart < 1])) / (len(places) + len(means))


def as_sure(phantom: MovingPhantom) -> tuple[float, float, int]:
    """F1 of spots found anew at each time and of those that follow, and at how many it is less."""
    found = spot_sequence(TimeSeries.from_stacks(phantom.stacks))
    both = []
    for stack, truth, followed in zip(phantom.stacks, phantom.truths, found.spots, strict=True):
        means = truth.numpy().means
        both.append([f1(one.gaussians.means, means) for one in (fit_spots(stack), followed)])
    anew, follow = np.array(both).T
    return float(anew.mean()), float(follow.mean()), int((follow < anew).sum())


def _first_fit(phantom: MovingPhantom, n: int) -> FitResult:
    return fit(phantom.stacks[n], FitSettings())


def _next_fit(phantom: MovingPhantom, n: int, last: FitResult) -> FitResult:
    before, after = phantom.stacks[n - 1], phantom.stacks[n]
    running, _ = next_fit((before,), (after,), last, FitSettings(), None)
    for _ in running:
        pass
    return running.result()


def _first_spots(phantom: MovingPhantom, n: int) -> Spots:
    return fit_spots(phantom.stacks[n])


def _next_spots(phantom: MovingPhantom, n: int, last: Spots) -> Spots:
    before, after = phantom.stacks[n - 1], phantom.stacks[n]
    settings = SpotSettings(noise=last.noise)
    return next_spots(before, after, settings, last.gaussians, last.least)[0]


def _in_turns(
    phantom: MovingPhantom,
    first: Callable[[MovingPhantom, int], T],
    later: Callable[[MovingPhantom, int, T], T],
) -> tuple[list[float], list[float]]:
    """Seconds of processor time of a time that is a first, and of the same one that follows."""
    last, alone, following = first(phantom, 0), [], []
    for n in range(1, min(len(phantom.stacks), TURNS + 1)):
        began = time.process_time()
        first(phantom, n)
        alone.append(time.process_time() - began)
        began = time.process_time()
        last = later(phantom, n, last)
        following.append(time.process_time() - began)
    return alone, following


def measure(options: Options) -> list[Table]:
    """Links and centres; then the time of a first fit beside that of those that follow."""
    small = {"count": 6, "times": 3, "crossings": 0, "shape": (16, 48, 48)}
    made = partial(moving_spots, **small) if options.small else moving_spots  # type: ignore[arg-type]
    phantom = made()
    series = TimeSeries.from_stacks(phantom.stacks)
    spots, fits = spot_sequence(series), fit_sequence(series, FitSettings())
    rows = []
    for name, table in (("spots", spots.to_dataframe()), ("fit", fits.to_dataframe())):
        right, there, error = right_links(phantom, table)
        rows.append((name, there, right, right / there, error if name == "spots" else None))
    costs = [
        (name, median(first), median(later), median(later) / median(first))
        for name, (first, later) in (
            ("fit", _in_turns(phantom, _first_fit, _next_fit)),
            ("spots", _in_turns(phantom, _first_spots, _next_spots)),
        )
    ]
    dim = made(peaks=(20.0, 20.0))
    sure = [(name, *as_sure(one)) for name, one in (("60 to 150", phantom), ("20", dim))]
    return [
        Table(
            "Moving spots", ("by", "true links", "right", "share", "error over bound"), tuple(rows)
        ),
        Table(
            "Spots of each time",
            (
                "photons at the peak",
                "F1, each time anew",
                "F1, followed",
                "times at which it is less",
            ),
            tuple(sure),
        ),
        Table("What a time costs", ("by", "first, s", "following, s", "share"), tuple(costs)),
    ]
