"""Any number of the table against time, a line a track."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtWidgets import QComboBox, QLabel, QVBoxLayout, QWidget

from napari_gaussfit._napari.panel.columns import column_named
from napari_gaussfit._napari.panel.plotting import bare_plot
from napari_gaussfit._napari.panel.widgets import Form

if TYPE_CHECKING:
    import pandas as pd
    from napari.layers import Points

__all__ = ["TrackPlot"]

MOST_TRACKS = 30
"""That are drawn at once: more are a tangle."""

_FIRST = ("amplitude", "integrated_intensity", "z", "y", "x", "fwhm_1", "fwhm_2", "fwhm_3")
_NO_NUMBERS = {"index", "time", "track", "channel"}
_NOTHING = "Select points, or rows of the table: their tracks are drawn here."


class TrackPlot(QWidget):
    """Draws the tracks of the points that are selected; hidden where there are none.

    Parameters
    ----------
    name : str
        What the names of its widgets begin with.
    """

    def __init__(self, name: str = "gaussfit_track") -> None:
        super().__init__()
        self._points: Points | None = None
        self._unit = "pixel"
        self._choice = QComboBox()
        self._choice.setObjectName(f"{name}_column")
        self._choice.setToolTip("Which number is drawn against time.")
        self._words = QLabel(_NOTHING)
        self._words.setObjectName(f"{name}_words")
        self._words.setWordWrap(True)
        self._plot: Any = None
        self.lines: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        """What is drawn: of each track its times and numbers."""

        form = Form()
        form.add_row("Over time", self._choice)
        self._box = QVBoxLayout(self)
        self._box.setContentsMargins(0, 0, 0, 0)
        self._box.addWidget(form)
        self._box.addWidget(self._words)
        self._choice.currentIndexChanged.connect(self._draw)
        self.show_points(None)

    def show_points(self, points: Points | None, unit: str = "pixel") -> None:
        """Follow the selection of points that have times and tracks; None follows none."""
        if self._points is not None:
            self._points.selected_data.events.items_changed.disconnect(self._draw)
        self._points, self._unit = points, unit
        if points is not None:
            points.selected_data.events.items_changed.connect(self._draw)
            self._offer(points.features)
        self.setVisible(points is not None)
        self._draw()

    def _offer(self, table: pd.DataFrame) -> None:
        numbers = [
            str(name)
            for name in table.columns
            if table[name].dtype.kind in "iuf" and name not in _NO_NUMBERS
        ]
        known = [name for name in numbers if np.isfinite(table[name].to_numpy(float)).any()]
        listed = [*(name for name in _FIRST if name in known)]
        listed += [name for name in known if name not in listed]
        before = self._choice.currentData()
        self._choice.blockSignals(True)  # noqa: FBT003
        self._choice.clear()
        for name in listed:
            self._choice.addItem(column_named(name).title, name)
        self._choice.setCurrentIndex(max(0, self._choice.findData(before)))
        self._choice.blockSignals(False)  # noqa: FBT003

    def _draw(self, _event: object = None) -> None:
        name, points = self._choice.currentData(), self._points
        self.lines = {}
        words = _NOTHING
        if points is not None and name is not None:
            table = points.features
            rows = sorted(n for n in points.selected_data if n < len(table))
            tracks = list(dict.fromkeys(table["track"].to_numpy()[rows].tolist()))
            for track in tracks[:MOST_TRACKS]:
                own = table[table["track"] == track].sort_values("time")
                self.lines[int(track)] = own["time"].to_numpy(), own[name].to_numpy(float)
            if tracks:
                words = self._said(name, tracks)
        self._words.setText(words)
        self._show_lines()

    def _said(self, name: str, tracks: list[int]) -> str:
        column = column_named(name)
        unit = column.unit(self._unit)
        shown = f"{column.title}{f' ({unit})' if unit else ''}"
        more = (
            f", the first {MOST_TRACKS} of {len(tracks)} tracks"
            if len(tracks) > MOST_TRACKS
            else ""
        )
        named = ", ".join(map(str, tracks[:MOST_TRACKS]))
        return f"{shown} over time{more}; track{'s' * (len(tracks) > 1)} {named}"

    def _show_lines(self) -> None:
        if self._points is None and self._plot is None:
            return
        import pyqtgraph as pg

        if self._plot is None:
            self._plot = bare_plot("")
            self._plot.setMinimumHeight(140)
            self._box.addWidget(self._plot)
        self._plot.setVisible(bool(self.lines))
        self._plot.clear()
        for n, (times, values) in enumerate(self.lines.values()):
            colour = pg.intColor(n, hues=9, minValue=190)
            self._plot.plot(
                times, values, pen=pg.mkPen(colour, width=2), symbol="o", symbolSize=4,
                symbolBrush=colour, symbolPen=None,
            )  # fmt: skip
