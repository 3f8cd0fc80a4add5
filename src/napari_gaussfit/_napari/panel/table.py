"""The table of Gaussians: sortable, filtered, its selection that of the points."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QFormLayout, QLabel, QPushButton, QVBoxLayout, QWidget
from superqt import QDoubleRangeSlider

from napari_gaussfit._napari.panel.rows import PLAIN_WIDTH, RowTable, RowView
from napari_gaussfit._napari.panel.widgets import wheel_needs_focus
from napari_gaussfit.measure.table import ERRORS, FLAGS, GOODNESS

if TYPE_CHECKING:
    import pandas as pd
    from napari.layers import Points

    from napari_gaussfit.fitting.result import FitResult

__all__ = ["COLUMNS", "TablePart"]

COLUMNS = (
    "index",
    "amplitude",
    "integrated_intensity",
    "fwhm_1",
    "fwhm_2",
    "fwhm_3",
    "z",
    "y",
    "x",
    GOODNESS,
)
"""Of the table; that of the flags is the last, and shown after the first."""

WIDTH, FLAGS_WIDTH = 112, 100
"""Pixels of a column that has error bars, and of the flags'."""

NOTHING = "No fit at rest: the table comes when one ends or pauses."
_slider_class: Any = QDoubleRangeSlider


class TablePart(QWidget):
    """A table of a fit's Gaussians beside their Points layer, with filters."""

    undo_asked = Signal()
    edited = Signal()
    """The Gaussians as the fit left them, without what was deleted, moved or added since."""

    def __init__(self) -> None:
        super().__init__()
        self.model = RowTable(COLUMNS)
        self.view = RowView(
            self.model, "Select rows to select their points, and the other way round."
        )
        self.selection = self.view.selection
        columns = self.view.horizontalHeader()
        if columns is not None:
            columns.moveSection(len(COLUMNS), 1)
        self.view.sortByColumn(COLUMNS.index("amplitude"), Qt.SortOrder.DescendingOrder)
        self._amplitude = _range_slider("Show only Gaussians of these amplitudes.")
        self._size = _range_slider("Show only Gaussians whose mean width (FWHM) is in this range.")
        self._words = QLabel(NOTHING)
        self._words.setWordWrap(True)
        self.undo = QPushButton("Undo edits")
        self.undo.setToolTip(
            "Show the Gaussians as the fit left them: before they were measured, and without what "
            "was deleted, moved or added in the points since."
        )
        self.undo.setEnabled(False)
        self.undo.clicked.connect(self.undo_asked)
        form = QFormLayout()
        form.addRow("Amplitude", self._amplitude)
        form.addRow("Width", self._size)
        box = QVBoxLayout(self)
        box.addLayout(form)
        box.addWidget(self._words)
        box.addWidget(self.view, 1)
        box.addWidget(self.undo)
        self._points: Points | None = None
        self._busy = False
        self._unit, self._stack = "pixel", ""
        self._spacing = np.ones(3)
        self._amplitude.valueChanged.connect(self._filter)
        self._size.valueChanged.connect(self._filter)
        self.view.chosen.connect(self._select_points)

    def show_fit(self, fit: FitResult, points: Points | None, *, edited: bool = False) -> None:
        """Show a fit's Gaussians, and follow the selection of their points.

        `edited` says that they are no more as their fit left them.
        """
        from napari_gaussfit.measure.table import measurements

        self._follow(points)
        self._unit = self.model.unit = fit.stack.unit
        self._stack = fit.stack.name
        self._spacing = np.asarray(fit.stack.spacing)
        self.undo.setEnabled(edited)
        # The points of a fit at rest have them already.
        self._show(
            measurements(fit.measured_fields[0], fit.stack.spacing, fit.measurement)
            if points is None
            else points.features
        )

    def show_nothing(self) -> None:
        """Show no Gaussian: those of a fit that runs change all the time."""
        self._follow(None)
        self._busy = True
        self.model.show_measurements(None)
        self._busy = False
        self.undo.setEnabled(False)
        self._words.setText(NOTHING)

    def _show(self, table: pd.DataFrame) -> None:
        self._busy = True
        self.model.show_measurements(table)
        self._size_columns()
        for slider, values in (
            (self._amplitude, self.model.column("amplitude")),
            (self._size, self._widths()),
        ):
            if len(values):
                low, high = float(values.min()), float(values.max())
                slider.setRange(low, max(high, low + 1e-9))
                slider.setValue((low, max(high, low + 1e-9)))
        self._busy = False
        self._count()

    def _size_columns(self) -> None:
        """Make room for error bars where there are some, and hide what says nothing."""
        measured = self.model.measured
        for n, name in enumerate((*COLUMNS, FLAGS)):
            wide = WIDTH if f"sd_{name}" in ERRORS else PLAIN_WIDTH
            width = FLAGS_WIDTH if name == FLAGS else wide
            self.view.setColumnWidth(n, width if measured else PLAIN_WIDTH)
            self.view.setColumnHidden(n, name in (GOODNESS, FLAGS) and not measured)

    def _show_edited(self, _event: object = None) -> None:
        """Follow what the user does to the points: their rows are theirs."""
        if self._points is None:
            return
        from napari_gaussfit._napari.layers.edited import known_features

        table = known_features(self._points)
        if len(table) == len(self._points.data):
            table[["z", "y", "x"]] = np.asarray(self._points.data)[:, -3:] * self._spacing
            self.undo.setEnabled(True)
            self._show(table)
            self.edited.emit()

    def show_only(self, amplitude: tuple[float, float]) -> None:
        """Show only Gaussians with an amplitude in this range."""
        self._amplitude.setValue(amplitude)

    def close_down(self) -> None:
        """Follow no layer any more."""
        self._follow(None)

    def _follow(self, points: Points | None) -> None:
        if self._points is not None:
            self._points.selected_data.events.items_changed.disconnect(self._select_rows)
            self._points.events.features.disconnect(self._show_edited)
        self._points = points
        if points is not None:
            points.selected_data.events.items_changed.connect(self._select_rows)
            points.events.features.connect(self._show_edited)

    def _widths(self) -> np.ndarray:
        columns = [self.model.column(f"fwhm_{n}") for n in (1, 2, 3)]
        widths: np.ndarray = np.cbrt(columns[0] * columns[1] * columns[2])
        return widths

    def _filter(self, _value: object = None) -> None:
        if self._busy:
            return
        allowed = np.ones(len(self.model.column("index")), bool)
        for slider, values in (
            (self._amplitude, self.model.column("amplitude")),
            (self._size, self._widths()),
        ):
            low, high = map(float, slider.value())
            # A slider counts in steps of its own.
            slack = 1e-6 * (slider.maximum() - slider.minimum())
            allowed &= (values >= low - slack) & (values <= high + slack)
        self._busy = True
        self.model.allow(allowed)
        self._busy = False
        self._count()
        self._select_rows()

    def _count(self) -> None:
        shown, known = self.model.rowCount(), len(self.model.column("index"))
        self._words.setText(
            f"{self._stack}: {shown:,} of {known:,} Gaussians, lengths in {self._unit}s"
        )

    def _select_points(self) -> None:
        """Select the points of the selected rows."""
        if self._busy or self._points is None:
            return
        self._busy = True
        there = len(self._points.data)
        self._points.selected_data = {n for n in self.view.items if n < there}
        self._busy = False

    def _select_rows(self, *_: object) -> None:
        """Select the rows of the selected points."""
        if not self._busy and self._points is not None:
            self.view.choose({int(n) for n in self._points.selected_data})


def _range_slider(tip: str) -> Any:
    slider: Any = _slider_class(Qt.Orientation.Horizontal)
    slider.setToolTip(tip)
    wheel_needs_focus(slider)
    return slider
