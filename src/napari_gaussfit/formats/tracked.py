"""Gaussians of one time or of several, with their tracks: what files for other programs are of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from napari_gaussfit.model.gaussians import Gaussians

    Floats = NDArray[np.float64]
    Indices = NDArray[np.int64]

__all__ = ["Tracked"]


@dataclass(frozen=True, eq=False)
class Tracked:
    """Gaussians of all times, one after another.

    Parameters
    ----------
    gaussians : Gaussians
        The N objects of all times, a Gaussian each.
    times : ndarray of int, shape [N]
        When each was seen.
    tracks : ndarray of int, shape [N]
        The track of each; -1 where nothing was linked.
    quality : ndarray, shape [N]
        How sure each is.
    """

    gaussians: Gaussians
    times: Indices
    tracks: Indices
    quality: Floats

    @classmethod
    def of_one(cls, gaussians: Gaussians, time: int | None, quality: Floats | None) -> Tracked:
        """Return those of one time, without tracks.

        Parameters
        ----------
        gaussians : Gaussians
            The K objects of one time, a Gaussian each.
        time : int or None
            Its number; None counts as 0.
        quality : ndarray, shape [K], optional
            The amplitudes if None.
        """
        count = len(gaussians)
        sure = gaussians.amplitudes if quality is None else quality
        none = np.full(count, -1, np.int64)
        return cls(gaussians, np.full(count, time or 0), none, np.asarray(sure, np.float64))

    @classmethod
    def of_table(cls, table: pd.DataFrame, unit: str) -> Tracked:
        """Return those of a table of several times.

        Parameters
        ----------
        table : DataFrame
            With columns time and track beside those of `measure.table.measurements`.
        unit : str
            The unit of length of the table.
        """
        from napari_gaussfit.measure.table import gaussians_of

        name = "signal_to_noise" if "signal_to_noise" in table else "amplitude"
        columns: Any = (table[column].to_numpy() for column in ("time", "track", name))
        times, tracks, quality = columns
        return cls(
            gaussians_of(table, unit),
            times.astype(np.int64),
            tracks.astype(np.int64),
            quality.astype(np.float64),
        )

    @property
    def edges(self) -> Indices:
        """Rows [E, 2] of each and of the next of its track, in the order of tracks and times."""
        order = np.lexsort((self.times, self.tracks))
        before, after = order[:-1], order[1:]
        same = (self.tracks[before] == self.tracks[after]) & (self.tracks[before] >= 0)
        return np.stack([before[same], after[same]], axis=1)
