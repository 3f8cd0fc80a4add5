"""Spots of a recording: found time after time, linked, shown with its axis of time, saved."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, Signal

from napari_gaussfit._napari.layers.live_times import MOST_POINTS
from napari_gaussfit._napari.layers.put import put_layer
from napari_gaussfit._napari.layers.source import mark
from napari_gaussfit._napari.layers.spots import rings_coming, rings_over_time
from napari_gaussfit._napari.layers.times import bring_into_view
from napari_gaussfit._napari.panel.asking import Asking
from napari_gaussfit.errors import OutputError
from napari_gaussfit.jobs.spot_times import (
    found_spots_over_time,
    save_spot_times,
    tracks_of_spots,
)

if TYPE_CHECKING:
    import pandas as pd
    from napari.layers import Layer
    from napari.viewer import Viewer
    from numpy.typing import NDArray

    from napari_gaussfit._napari.layers.gaussians import LayerData
    from napari_gaussfit._napari.layers.source import Source
    from napari_gaussfit._napari.layers.times import Recording
    from napari_gaussfit._napari.panel.spot_parts import SpotTable
    from napari_gaussfit.jobs.objects import SpotsAsked
    from napari_gaussfit.jobs.spot_times import SpotFrame
    from napari_gaussfit.objects.tracks import Tracks

__all__ = ["STOPPED", "SpotsOverTime", "TimesFound"]

SPOTS, TRACKS = "spots", "tracks"
"""What follows the recording's name in those of the layers."""

STOPPED = "stopped"
"""Why a search ended that a person has stopped."""

_SEEN = ["z", "y", "x", "fwhm_2"]
"""What is shown of a spot while others are still to come."""


@dataclass(frozen=True, eq=False)
class TimesFound:
    """The spots of the times that are done.

    Parameters
    ----------
    recording : Recording
        The times that were asked for.
    asked : SpotsAsked
        What was looked for.
    frames : tuple of SpotFrame
        The times that are done, one at least.
    tracks : Tracks
        Which of their spots are one.
    """

    recording: Recording
    asked: SpotsAsked
    frames: tuple[SpotFrame, ...]
    tracks: Tracks

    @cached_property
    def table(self) -> pd.DataFrame:
        """Of all times, as the command line has it."""
        from napari_gaussfit.objects.tracks import joined_tables

        return joined_tables([frame.table for frame in self.frames], self.tracks)

    @property
    def words(self) -> str:
        """How many there are."""
        spots, tracks, times = len(self.table), len(self.tracks), len(self.frames)
        return (
            f"{spots:,} spot{'s' * (spots != 1)} at {times} time{'s' * (times != 1)} in "
            f"{tracks:,} track{'s' * (tracks != 1)}"
        )

    def has(self, source: Source) -> bool:
        """Tell whether a stack is one of the times that are done."""
        return any(
            source.is_of_same_place(self.recording.at(frame.time))
            for frame in self.frames
            if frame.time == source.place[self.recording.axis]
        )


class SpotsOverTime(QObject):
    """Finds the spots of one time after another in a process, and shows what is done.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Where points and tracks go.
    table : SpotTable
        Where the rows of all times go.
    parent : QObject
        With it the process ends.
    """

    told = Signal()
    """Another time is done."""

    ended = Signal(str)
    """All that was found is shown; why it ended early, empty where it did not."""

    saved = Signal(object, str)
    """Where the folder is; or None, and why it was not saved."""

    _heard = Signal(object)

    def __init__(self, viewer: Viewer, table: SpotTable, parent: QObject) -> None:
        super().__init__(parent)
        self._viewer, self._table = viewer, table
        self.found: TimesFound | None = None
        """What is shown, None where it is not of several times."""

        self._finding, self._linking, self._saving = Asking(self), Asking(self), Asking(self)
        self._asked: tuple[Recording, SpotsAsked] | None = None
        self._coming: list[SpotFrame] = []
        self._seen: deque[NDArray[np.float64]] = deque()
        self._run: object = None
        self._why = ""
        self._layers: dict[str, Layer] = {}
        self._busy = False
        self._heard.connect(self._take_frame)
        self._finding.ended.connect(lambda _, error: self._link(error))
        self._linking.ended.connect(self._take_linked)
        self._saving.ended.connect(self.saved)

    @property
    def active(self) -> bool:
        """Whether times are still to come."""
        return self._finding.active or self._linking.active

    @property
    def done(self) -> int:
        """How many times the search that runs, or ran last, has done."""
        return len(self._coming)

    @property
    def words(self) -> str:
        """Which time is searched, of how many, and what there was at the last one."""
        if self._asked is None:
            return ""
        times = self._asked[0].times
        at = min(self.done, len(times) - 1)
        found = f"; {len(self._coming[-1].table):,} spots at the last" if self.done else ""
        return f"time {times[at]}, {at + 1} of {len(times)}{found}"

    def start(self, recording: Recording, asked: SpotsAsked) -> None:
        """Find the spots of all times; none must be under way."""
        self._asked, self._coming = (recording, asked), []
        self._seen.clear()
        self._run = run = object()
        series, tell = recording.series, self._heard.emit
        self._finding.ask(
            lambda renderer: found_spots_over_time(
                renderer.ask, asked, series, lambda frame: tell((run, frame))
            )
        )

    def stop(self) -> None:
        """End the search; the times that are done stay."""
        if self._finding.active:
            self._finding.give_up()
            self._link(STOPPED)

    def leave(self) -> None:
        """Show these times no more in table and plot: one time is shown; the layers stay."""
        self.found = None
        self._table.tracks.show_points(None)
        self._forget_layers()

    def give_up(self) -> None:
        """End the search, and tell nobody."""
        self._run = None
        for asking in (self._finding, self._linking):
            asking.give_up()

    def close_down(self) -> None:
        """End all processes, and follow no layer any more."""
        self.give_up()
        self._saving.give_up()
        self.leave()

    def _take_frame(self, heard: tuple[object, SpotFrame]) -> None:
        run, frame = heard
        if run is self._run and self._finding.active and self._asked is not None:
            self._coming.append(frame)
            self._seen.append(frame.table[_SEEN].assign(time=frame.time).to_numpy(np.float64))
            self._show_coming(self._asked[0])
            self.told.emit()

    def _show_coming(self, recording: Recording) -> None:
        """Show the spots of the times that are done so far; rows and tracks come at the end."""
        self._table.tracks.show_points(None)
        while sum(map(len, self._seen)) > MOST_POINTS and len(self._seen) > 1:
            self._seen.popleft()
        self._put(SPOTS, rings_coming(np.concatenate(self._seen), recording), recording)

    def _link(self, why: str) -> None:
        """Find the tracks of what is done, in a thread: it loads scipy and laptrack."""
        self._why = why
        if not self._coming or self._asked is None:
            self.ended.emit(why)
            return
        recording, asked = self._asked
        frames, unit = tuple(self._coming), recording.first.stack.unit
        self._linking.ask(
            lambda _: TimesFound(recording, asked, frames, tracks_of_spots(frames, unit))
        )

    def _take_linked(self, found: TimesFound | None, error: str) -> None:
        if found is not None:
            self.show(found)
        self.ended.emit(error or self._why)

    def show(self, found: TimesFound, *, anew: bool = True) -> None:
        """Show points, tracks and rows of the times that are done.

        Layers that a person has deleted come back if they are to be made `anew`.
        """
        self.found = found
        recording, table = found.recording, found.table
        self._put(SPOTS, rings_over_time(table, recording), recording, anew=anew)
        if recording.has_tracks and len(table):
            self._put(TRACKS, recording.tracks_layer(table), recording, anew=anew)
        self._table.show_spots(table, recording.first.stack.unit)
        self._table.tracks.show_points(self._layers[SPOTS], recording.first.stack.unit)
        unit = f"{recording.first.stack.unit}s"
        self._table.show_words(
            f"{recording.name}: {found.words}; lengths in {unit}, ± one standard deviation."
        )

    def _put(self, role: str, made: LayerData, recording: Recording, *, anew: bool = True) -> None:
        """Show points or tracks in the layer of a role; make it where there is none."""
        from napari.layers import Layer

        _, keywords, _ = made
        keywords["name"] = f"{recording.name} {role}"
        mark(keywords, recording.marked)
        before = self._layers.get(role)
        # Rows and plot go with points that the viewer shows no more, as they do once deleted.
        layer: Any = put_layer(self._viewer, made, role, anew=anew) or Layer.create(*made)
        if layer is not before:
            self._let_go(role)
            self._layers[role] = layer
            if role == SPOTS:
                layer.selected_data.events.items_changed.connect(self._select_rows)
        layer.visible = layer.visible or anew
        layer.editable = False  # what is found at several times is not edited by hand

    def _let_go(self, role: str) -> None:
        layer: Any = self._layers.pop(role, None)
        if layer is not None and role == SPOTS:
            layer.selected_data.events.items_changed.disconnect(self._select_rows)

    def _forget_layers(self) -> None:
        for role in [*self._layers]:
            self._let_go(role)

    # Rows and points: one of each a spot and time, in the same order

    def select_points(self) -> None:
        """Select the points of the selected rows, and have the viewer show the last of them."""
        layer: Any = self._layers.get(SPOTS)
        if layer is None or self._busy or self.active:
            return
        chosen = sorted(n for n in self._table.view.items if n < len(layer.data))
        self._busy = True
        layer.selected_data = set(chosen)
        if chosen:
            self._go_to(chosen[-1])
        self._busy = False

    def _select_rows(self, _event: object = None) -> None:
        layer: Any = self._layers.get(SPOTS)
        shown = layer is not None and self.found is not None and not self.active
        if shown and not self._busy:
            self._table.view.choose({int(n) for n in layer.selected_data})

    def _go_to(self, number: int) -> None:
        """Have the viewer show a spot's time, and in 2D its plane."""
        layer: Any = self._layers.get(SPOTS)
        if self.found is None or layer is None:
            return
        recording, dims = self.found.recording, self._viewer.dims
        axes = [recording.axis, layer.ndim - 3][: 1 + (dims.ndisplay == 2)]
        for axis in axes:
            at = round(float(layer.data[number][axis]))
            bring_into_view(recording.layer, axis, at, dims)

    # Files

    def save_folder(self, folder: str) -> None:
        """Write what ``napari-gaussfit spots --time`` writes, in a thread."""
        found = self.found
        if found is None:
            return
        series = found.recording.series

        def save(_renderer: object) -> str:
            try:
                save_spot_times(Path(folder), series, found.frames, found.tracks, found.asked)
            except OSError as error:
                raise OutputError(f"{folder}: cannot be written: {error}") from error
            return folder

        self._saving.ask(save)
