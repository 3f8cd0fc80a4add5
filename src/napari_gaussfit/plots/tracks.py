"""tracks.png: the projection of all times, and the tracks on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from napari_gaussfit.plots.projections import DPI, UNIT_SYMBOLS
from napari_gaussfit.plots.spots import BRIGHTEST

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import NDArray

__all__ = ["draw_tracks"]

HEIGHT = 5.0


def draw_tracks(
    projection: NDArray[np.number],
    table: pd.DataFrame,
    spacing: Sequence[float],
    unit: str = "micrometer",
) -> Figure:
    """Draw the tracks of objects over a projection, and when there were how many.

    Parameters
    ----------
    projection : ndarray, shape [Y, X]
        Maximum along z and over the times.
    table : DataFrame
        With columns z, y, x, time and track, as `fit_sequence` and `spot_sequence` give it.
    spacing : sequence of float
        (dz, dy, dx) in `unit`.
    unit : str
        The unit of all lengths: "micrometer" or "pixel".

    Returns
    -------
    Figure
        Its ``savefig`` writes it.
    """
    dy, dx = spacing[1:]
    rows, columns = projection.shape
    width = float(np.clip(HEIGHT * columns * dx / (rows * dy), 2.5, 2 * HEIGHT))
    figure = Figure((width + HEIGHT, HEIGHT), DPI, layout=ConstrainedLayoutEngine())
    FigureCanvasAgg(figure)
    picture, counts = figure.subplots(1, 2, width_ratios=(width, HEIGHT * 0.8))
    low, high = np.percentile(projection, (1, BRIGHTEST))
    picture.imshow(
        projection, cmap="gray", vmin=low, vmax=max(high, low + 1e-6), interpolation="nearest",
        extent=(-dx / 2, (columns - 0.5) * dx, (rows - 0.5) * dy, -dy / 2),
    )  # fmt: skip
    symbol = UNIT_SYMBOLS[unit]
    picture.set(xlabel=f"x ({symbol})", ylabel=f"y ({symbol})")
    ordered = table.sort_values(["track", "time"], kind="stable")
    at = ordered[["x", "y"]].to_numpy()
    same = ordered["track"].to_numpy()[1:] == ordered["track"].to_numpy()[:-1]
    pieces = np.stack([at[:-1], at[1:]], axis=1)[same] if len(at) > 1 else np.zeros((0, 2, 2))
    lines = LineCollection(list(pieces), cmap="viridis", linewidths=1.0)
    lines.set_array(ordered["time"].to_numpy()[1:][same].astype(float))
    picture.add_collection(lines)
    picture.set(title=f"{table['track'].nunique():,} tracks")
    if len(pieces):
        figure.colorbar(lines, ax=picture, label="time", shrink=0.8)
    number = table.groupby("time").size()
    counts.plot(number.index, number.to_numpy(), marker=".", color="#2060c0")
    counts.set(xlabel="time", ylabel="objects", ylim=(0, None), title="how many there are")
    return figure
