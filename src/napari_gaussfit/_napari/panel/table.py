"""The table of Gaussians: sortable, filtered, its selection that of the points."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import (
    QAbstractTableModel,
    QItemSelection,
    QItemSelectionModel,
    QModelIndex,
    Qt,
    Signal,
)
from qtpy.QtWidgets import (
    QFormLayout,
    QHeaderView,
    QLabel,
    QPushButton,
    QSizePolicy,
    QTableView,
    QVBoxLayout,
    QWidget,
)
from superqt import QDoubleRangeSlider

from napari_gaussfit._napari.panel.widgets import wheel_needs_focus
from napari_gaussfit.measure.table import ERRORS, FLAGS, GOODNESS

if TYPE_CHECKING:
    import pandas as pd
    from napari.layers import Points

    from napari_gaussfit.fitting.result import FitResult

__all__ = ["GaussianTable", "TablePart", "with_error"]

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

TITLES = {"integrated_intensity": "integral", GOODNESS: "reduced χ²"}

PLAIN_WIDTH, WIDTH, FLAGS_WIDTH = 78, 112, 100
"""Pixels of a column, of one that has error bars, and of the flags'."""

NOTHING = "No fit at rest: the table comes when one ends or pauses."
_ROOT = QModelIndex()
_slider_class: Any = QDoubleRangeSlider
_DISPLAY, _HORIZONTAL = Qt.ItemDataRole.DisplayRole, Qt.Orientation.Horizontal


class GaussianTable(QAbstractTableModel):
    """Rows of measurements, in an order and a choice of its own; rows are looked up in numpy."""

    def __init__(self) -> None:
        super().__init__()
        self.unit = "pixel"
        """Of lengths."""

        self._values = np.zeros((0, len(COLUMNS)))
        self._errors = np.zeros((0, len(COLUMNS)))
        self._flags: list[str] = []
        self._allowed = np.zeros(0, bool)
        self._order = np.zeros(0, int)
        self._sorted_by: tuple[int, bool] | None = None

    def show_measurements(self, measurements: pd.DataFrame | None) -> None:
        """Show these rows, all of them, or none."""
        self.beginResetModel()
        if measurements is None:
            self._values = self._errors = np.zeros((0, len(COLUMNS)))
            self._flags = []
        else:
            self._values = measurements.reindex(columns=COLUMNS).to_numpy(float)
            errors = [f"sd_{name}" for name in COLUMNS]
            self._errors = measurements.reindex(columns=errors).to_numpy(float)
            flags = measurements.get(FLAGS)
            self._flags = [""] * len(self._values) if flags is None else [*map(str, flags)]
        self._allowed = np.ones(len(self._values), bool)
        self._arrange()
        self.endResetModel()

    def allow(self, allowed: np.ndarray) -> None:
        """Show only the rows of a mask [K]."""
        self.beginResetModel()
        self._allowed = allowed
        self._arrange()
        self.endResetModel()

    @property
    def measured(self) -> bool:
        """Whether there is an error bar, or a word on why there is none."""
        return bool(np.isfinite(self._errors).any()) or any(self._flags)

    def column(self, name: str) -> np.ndarray:
        """Return a column's values [K], whatever is shown."""
        return self._values[:, COLUMNS.index(name)]

    def gaussians(self, rows: list[int]) -> set[int]:
        """Return which Gaussians stand in these rows."""
        return {int(self._order[row]) for row in rows}

    def rows(self, gaussians: set[int]) -> list[int]:
        """Return the rows in which these Gaussians stand, as far as they are shown."""
        return [int(n) for n in np.flatnonzero(np.isin(self._order, list(gaussians)))]

    def rowCount(self, parent: QModelIndex = _ROOT) -> int:
        """Return how many rows are shown."""
        return 0 if parent.isValid() else len(self._order)

    def columnCount(self, parent: QModelIndex = _ROOT) -> int:
        """Return the number of columns."""
        return 0 if parent.isValid() else len(COLUMNS) + 1

    def data(self, index: QModelIndex, role: int = _DISPLAY) -> Any:
        """Return a cell's text, or what it says in words."""
        column = index.column()
        if role == Qt.ItemDataRole.TextAlignmentRole:
            side = "AlignLeft" if column == len(COLUMNS) else "AlignRight"
            return Qt.AlignmentFlag[side] | Qt.AlignmentFlag.AlignVCenter
        row = self._order[index.row()]
        if role == Qt.ItemDataRole.ToolTipRole:
            return self._in_words(row, column) if self.measured else None
        return self._text(row, column) if role == _DISPLAY else None

    def _text(self, row: int, column: int) -> str:
        """Return what a cell shows: an error bar only where it can be trusted."""
        if column == len(COLUMNS):
            return self._flags[row]
        value, error = self._values[row, column], self._errors[row, column]
        if np.isnan(value):
            return ""
        known = np.isfinite(error) and not self._flags[row]
        plain = f"{value:.0f}" if column == 0 else f"{value:.4g}"
        return with_error(value, error) if known else plain

    def _in_words(self, row: int, column: int) -> str | None:
        """Say a number with its error bar and unit, and whether it is determined."""
        name = (*COLUMNS, FLAGS)[column]
        if f"sd_{name}" not in ERRORS:
            return (self._flags[row] or None) if name == FLAGS else None
        value, error = self._values[row, column], self._errors[row, column]
        number = with_error(value, error) if np.isfinite(error) else f"{value:.4g}"
        flags = self._flags[row]
        unknown = "" if np.isfinite(error) and not flags else "; not determined"
        why = f": {flags}" if flags and flags != "not determined" else ""
        return f"{number} {_unit_of(name, self.unit)}{unknown}{why}"

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = _DISPLAY) -> Any:
        """Return a column's title."""
        if role != _DISPLAY or orientation != _HORIZONTAL:
            return None
        name = (*COLUMNS, FLAGS)[section]
        return TITLES.get(name, name.replace("_", " "))

    def sort(self, column: int, order: Qt.SortOrder = Qt.SortOrder.AscendingOrder) -> None:
        """Sort by a column."""
        self.layoutAboutToBeChanged.emit()
        self._sorted_by = column, order == Qt.SortOrder.DescendingOrder
        self._arrange()
        self.layoutChanged.emit()

    def _arrange(self) -> None:
        if self._sorted_by is None:
            order = np.arange(len(self._values))
        else:
            column, down = self._sorted_by
            values = np.column_stack([self._values, np.unique(self._flags, return_inverse=True)[1]])
            order = np.argsort(values[:, column], kind="stable")
            order = order[::-1] if down else order
        self._order = order[self._allowed[order]]


class TablePart(QWidget):
    """A table of a fit's Gaussians beside their Points layer, with filters."""

    undo_asked = Signal()
    edited = Signal()
    """The Gaussians as the fit left them, without what was deleted, moved or added since."""

    def __init__(self) -> None:
        super().__init__()
        self.model = GaussianTable()
        self.view = QTableView()
        self.view.setModel(self.model)
        self.selection = QItemSelectionModel(self.model, self)
        self.view.setSelectionModel(self.selection)
        self.view.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Expanding)
        self.view.setSelectionBehavior(QTableView.SelectionBehavior.SelectRows)
        self.view.setToolTip("Select rows to select their points, and the other way round.")
        rows, columns = (QHeaderView(way) for way in (Qt.Orientation.Vertical, _HORIZONTAL))
        rows.hide()
        rows.setDefaultSectionSize(22)
        columns.setSectionsClickable(True)
        columns.setDefaultSectionSize(PLAIN_WIDTH)
        self.view.setVerticalHeader(rows)
        self.view.setHorizontalHeader(columns)
        columns.moveSection(len(COLUMNS), 1)
        self.view.setSortingEnabled(True)
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
        self.selection.selectionChanged.connect(self._select_points)

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
            measurements(fit.field, fit.stack.spacing, fit.measurement)
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
        # What was measured is known no more where a Gaussian beside is gone, or another.
        table = self._points.features.drop(columns=[*ERRORS, GOODNESS, FLAGS], errors="ignore")
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

    def _select_points(self, *_: QItemSelection) -> None:
        """Select the points of the selected rows."""
        if self._busy or self._points is None:
            return
        rows = [index.row() for index in self.selection.selectedRows()]
        self._busy = True
        there = len(self._points.data)
        self._points.selected_data = {n for n in self.model.gaussians(rows) if n < there}
        self._busy = False

    def _select_rows(self, *_: object) -> None:
        """Select the rows of the selected points."""
        if self._busy or self._points is None:
            return
        rows = self.model.rows({int(n) for n in self._points.selected_data})
        chosen = QItemSelection()
        last = self.model.columnCount() - 1
        for row in rows:
            chosen.select(self.model.index(row, 0), self.model.index(row, last))
        self._busy = True
        self.selection.select(chosen, QItemSelectionModel.SelectionFlag.ClearAndSelect)
        if rows:
            self.view.scrollTo(self.model.index(rows[0], 0))
        self._busy = False


def with_error(value: float, error: float) -> str:
    """Return a number with its standard deviation, as "0.214 ± 0.006".

    Of the deviation one digit is kept, two where the first is 1, and of the number what goes with
    them.
    """
    if not error > 0:
        return f"{value:.4g} ± {error:.4g}"
    size = int(np.floor(np.log10(error)))
    digits = -size + (error < 2 * 10.0**size)
    return " ± ".join(f"{round(one, digits):.{max(digits, 0)}f}" for one in (value, error))


def _unit_of(column: str, unit: str) -> str:
    """Return the unit of a column in words, where lengths are in `unit`."""
    if column == "amplitude":
        return "in raw intensity"
    return f"in raw intensity × {unit}s³" if column == "integrated_intensity" else f"{unit}s"


def _range_slider(tip: str) -> Any:
    slider: Any = _slider_class(Qt.Orientation.Horizontal)
    slider.setToolTip(tip)
    wheel_needs_focus(slider)
    return slider
