"""Moving spots with a known truth: links, centres against the bound, and what a time costs."""

from __future__ import annotations

import time
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree

from benchmarks.tables import Table
from napari_gaussfit.fitting.fit import fit
from napari_gaussfit.objects.sequence import fit_sequence, spot_sequence
from napari_gaussfit.objects.spots import fit_spots
from napari_gaussfit.settings import FitSettings
from napari_gaussfit.stacks.time_series import TimeSeries
from napari_gaussfit.synthetic.phantoms import moving_spots

if TYPE_CHECKING:
    import pandas as pd

    from benchmarks.options import Options
    from napari_gaussfit.synthetic.phantoms import MovingPhantom

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


def measure(options: Options) -> list[Table]:
    """Links and centres; then the time of a first fit beside that of those that follow."""
    small = {"count": 6, "times": 3, "crossings": 0, "shape": (16, 48, 48)}
    phantom = moving_spots(**small) if options.small else moving_spots()  # type: ignore[arg-type]
    series = TimeSeries.from_stacks(phantom.stacks)
    spots, fits = spot_sequence(series), fit_sequence(series, FitSettings())
    rows = []
    for name, table in (("spots", spots.to_dataframe()), ("fit", fits.to_dataframe())):
        right, there, error = right_links(phantom, table)
        rows.append((name, there, right, right / there, error if name == "spots" else None))
    settings, first, later = FitSettings(), [], []
    for n in range(min(3, len(series))):
        began = time.process_time()
        fit(phantom.stacks[n], settings)
        first.append(time.process_time() - began)
        pair = TimeSeries.from_stacks(phantom.stacks[: n + 2][-2:])
        began = time.process_time()
        fit_sequence(pair, settings)
        later.append(time.process_time() - began - first[-1])
    began = time.process_time()
    fit_spots(phantom.stacks[0])
    alone = time.process_time() - began
    began = time.process_time()
    spot_sequence(series)
    each = (time.process_time() - began - alone) / (len(series) - 1)
    costs = (
        ("fit", median(first), median(later), median(later) / median(first)),
        ("spots", alone, each, each / alone),
    )
    return [
        Table(
            "Moving spots", ("by", "true links", "right", "share", "error over bound"), tuple(rows)
        ),
        Table("What a time costs", ("by", "first, s", "following, s", "share"), costs),
    ]
