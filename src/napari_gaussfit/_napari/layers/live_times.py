"""Layers that follow the fits of a recording: points and tracks with its axis of time.

The pictures are those of one time: of the one that is fitted, then of the one in view. Knows no
worker and no panel.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_gaussfit._napari.layers.live import CENTRES, LiveLayers

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from napari.layers import Points
    from napari.viewer import Viewer
    from qtpy.QtCore import QObject

    from napari_gaussfit._napari.layers.source import Source
    from napari_gaussfit._napari.layers.times import Recording
    from napari_gaussfit.fitting.result import FitResult
    from napari_gaussfit.jobs.sequence import Frame
    from napari_gaussfit.model.field import GaussianField

    Fields = tuple[GaussianField, ...]

__all__ = ["LiveTimes"]

TRACKS = "tracks"

MOST_POINTS = 50_000
"""Of all times together, that are moved while a fit runs; beyond, only those that it moves."""


class LiveTimes(LiveLayers):
    """The layers of the fits of a recording.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer to which the layers are added.
    recording : Recording
        The times and channels that are fitted.
    keeper : QObject
        Whose end is the layers' end, as for `LiveLayers`.
    """

    def __init__(self, viewer: Viewer, recording: Recording, keeper: QObject) -> None:
        self.recording = recording
        self._time = recording.times[0]
        self._past: list[tuple[int, Fields]] = []
        self._tracks_seen = False
        """Whether a person saw the tracks that are hidden until there are others."""

        super().__init__(viewer, recording.at(self._time), keeper)

    @property
    def centres(self) -> Points | None:
        """None: what of these points is deleted or moved makes no other fit."""
        return None

    @property
    def points(self) -> Points | None:
        """The points of all times, None while there is no layer of them."""
        return self._layers.get(CENTRES)

    @property
    def _marked(self) -> Source:
        return replace(self.source, stack=replace(self.source.stack, time=None))

    def restart_all(self, recording: Recording) -> None:
        """Follow other fits of the same layers, in the layers that are there."""
        self.recording, self._time, self._past = recording, recording.times[0], []
        tracks = self._layers.get(TRACKS)
        if tracks is not None and tracks.visible:
            tracks.visible = False  # of the fits before, until there are others
            self._tracks_seen = True
        self.restart(recording.at(self._time))

    def fit_at(self, time: int, frames: Sequence[Frame]) -> None:
        """Have what comes next be of a time; those before are done."""
        self._time, self._past = time, [(frame.time, frame.result.fields) for frame in frames]

    def look_at(self, time: int) -> None:
        """Have the pictures be of a time."""
        self.source = self.recording.at(time)

    def settle_all(self, frames: Sequence[Frame], table: pd.DataFrame) -> None:
        """Show the Gaussians of all times that are done, and their tracks.

        Parameters
        ----------
        frames : sequence of Frame
            The times that are done, one at least.
        table : DataFrame
            A row a Gaussian and time, with ``time`` and ``track``.
        """
        *self._past, (self._time, last) = [(frame.time, frame.result.fields) for frame in frames]
        self._settle(last, table)
        self._show_tracks(table)

    def settle(self, fit: FitResult) -> None:
        """Show the Gaussians of a first time that was not fitted to its end."""
        self._settle(fit.fields, fit.to_dataframe())

    def _settle(self, last: Fields, table: pd.DataFrame) -> None:
        self._fields, self._shown = (), last
        self._make_soon()
        if self._is_missing(CENTRES):
            self._make_centres(last)
        layer = self._layers.get(CENTRES)
        if layer is not None:
            self._move_at_rest(layer, self._places(last), last)
            # Positions are the data; napari takes more columns of these names for axes.
            layer.features = table.drop(columns=["axis-0", "axis-1", "axis-2"])
            layer.editable = False

    def _show_tracks(self, table: pd.DataFrame) -> None:
        if not self.recording.has_tracks or not len(table) or TRACKS in self._deleted:
            return
        made = self.recording.tracks_layer(table)
        layer = self._layers.get(TRACKS)
        if layer is None:
            self._add(TRACKS, made)
        else:
            layer.data = made[0]
            layer.visible = layer.visible or self._tracks_seen
        self._tracks_seen = False

    def _all(self, fields: Fields) -> list[tuple[int, Fields]]:
        """Return the Gaussians of the times that are shown, the latest last."""
        shown = [*self._past, (self._time, fields)]
        many = sum(len(of_time[0]) for _, of_time in shown) > MOST_POINTS
        return shown[-1:] if many and self._fields else shown

    def _places(self, fields: Fields) -> Any:
        shown = self._all(fields)
        found = [self.recording.places(of[0].numpy().means, time) for time, of in shown]
        return np.concatenate(found)

    def _sizes(self, fields: Fields) -> Any:
        return np.concatenate([super(LiveTimes, self)._sizes(of) for _, of in self._all(fields)])

    def _colours(self, fields: Fields) -> Any:
        return np.concatenate([super(LiveTimes, self)._colours(of) for _, of in self._all(fields)])

    def _transform(self) -> dict[str, Any]:
        return self.recording.keywords()
