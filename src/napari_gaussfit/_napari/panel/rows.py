"""Tables of what was found, a row each: sorted, chosen from, with error bars and in words."""

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
from qtpy.QtWidgets import QHeaderView, QSizePolicy, QTableView

from napari_gaussfit.measure.table import ERRORS, FLAGS, GOODNESS

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

__all__ = ["PLAIN_WIDTH", "RowTable", "RowView", "with_error"]

TITLES = {
    "integrated_intensity": "integral",
    GOODNESS: "reduced χ²",
    "signal_to_noise": "signal/noise",
    "mean_radius": "radius",
    "at_border": "at border",
}

PLAIN_WIDTH = 78
"""Pixels of a column."""

_ROOT = QModelIndex()
_DISPLAY, _HORIZONTAL = Qt.ItemDataRole.DisplayRole, Qt.Orientation.Horizontal


class RowTable(QAbstractTableModel):
    """Rows, in an order and a choice of its own; they are looked up in numpy.

    Parameters
    ----------
    columns : sequence of str
        That have numbers.
    words : sequence of str
        Further ones, which have words.
    """

    def __init__(self, columns: Sequence[str], words: Sequence[str] = (FLAGS,)) -> None:
        super().__init__()
        self.columns = (*columns, *words)
        """All of them, those with words last."""

        self._numbers = tuple(columns)
        self.unit = "pixel"
        """Of lengths."""

        self._words: dict[str, list[str]] = {}
        self._whole: set[str] = set()
        self._sorted_by: tuple[int, bool] | None = None
        self._take(None)

    def show_measurements(self, measurements: pd.DataFrame | None) -> None:
        """Show these rows, all of them, or none."""
        self.beginResetModel()
        self._take(measurements)
        self._arrange()
        self.endResetModel()

    def _take(self, table: pd.DataFrame | None) -> None:
        numbers = self._numbers
        if table is None:
            self._values = self._errors = np.zeros((0, len(numbers)))
            self._words = {name: [] for name in self.columns[len(numbers) :]}
        else:
            self._values = table.reindex(columns=numbers).to_numpy(float)
            errors = [f"sd_{name}" for name in numbers]
            self._errors = table.reindex(columns=errors).to_numpy(float)
            nothing = [""] * len(table)
            self._words = {
                name: [*map(str, table.get(name, nothing))] for name in self.columns[len(numbers) :]
            }
            kinds = {name: table[name].dtype.kind for name in numbers if name in table}
            self._whole = {name for name, kind in kinds.items() if kind in "iu"}
        self._allowed = np.ones(len(self._values), bool)
        self._order = np.arange(len(self._values))

    @property
    def _flags(self) -> list[str]:
        return self._words.get(FLAGS, [""] * len(self._values))

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
        return self._values[:, self._numbers.index(name)]

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
        return 0 if parent.isValid() else len(self.columns)

    def data(self, index: QModelIndex, role: int = _DISPLAY) -> Any:
        """Return a cell's text, or what it says in words."""
        column = index.column()
        if role == Qt.ItemDataRole.TextAlignmentRole:
            side = "AlignLeft" if column >= len(self._numbers) else "AlignRight"
            return Qt.AlignmentFlag[side] | Qt.AlignmentFlag.AlignVCenter
        row = self._order[index.row()]
        if role == Qt.ItemDataRole.ToolTipRole:
            return self._in_words(row, column) if self.measured else None
        return self._text(row, column) if role == _DISPLAY else None

    def _text(self, row: int, column: int) -> str:
        """Return what a cell shows: an error bar only where it can be trusted."""
        name = self.columns[column]
        if name in self._words:
            return self._words[name][row]
        value, error = self._values[row, column], self._errors[row, column]
        if np.isnan(value):
            return ""
        known = np.isfinite(error) and not self._flags[row]
        plain = f"{value:.0f}" if column == 0 or name in self._whole else f"{value:.4g}"
        return with_error(value, error) if known else plain

    def _in_words(self, row: int, column: int) -> str | None:
        """Say a number with its error bar and unit, and whether it is determined."""
        name = self.columns[column]
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
        name = self.columns[section]
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
            name = self.columns[column]
            values = self._words.get(name) or self._values[:, column]
            order = np.argsort(np.asarray(values), kind="stable")
            order = order[::-1] if down else order
        self._order = order[self._allowed[order]]


class RowView(QTableView):
    """A table of rows, several of which can be selected.

    Parameters
    ----------
    model : RowTable
        What is shown.
    tip : str
        The tooltip.
    """

    chosen = Signal()
    """The selection is another, by whatever a person did."""

    def __init__(self, model: RowTable, tip: str) -> None:
        super().__init__()
        self._rows = model
        self._busy = False
        self.setModel(model)
        self.selection = QItemSelectionModel(model, self)
        self.setSelectionModel(self.selection)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Expanding)
        self.setSelectionBehavior(QTableView.SelectionBehavior.SelectRows)
        self.setToolTip(tip)
        rows, columns = (QHeaderView(way) for way in (Qt.Orientation.Vertical, _HORIZONTAL))
        rows.hide()
        rows.setDefaultSectionSize(22)
        columns.setSectionsClickable(True)
        columns.setDefaultSectionSize(PLAIN_WIDTH)
        self.setVerticalHeader(rows)
        self.setHorizontalHeader(columns)
        self.setSortingEnabled(True)
        self.selection.selectionChanged.connect(self._tell)

    @property
    def items(self) -> set[int]:
        """What stands in the selected rows, by its number in what is shown."""
        return self._rows.gaussians([index.row() for index in self.selection.selectedRows()])

    def choose(self, items: set[int]) -> None:
        """Select the rows of some; nobody is told."""
        rows = self._rows.rows(items)
        wanted = QItemSelection()
        last = self._rows.columnCount() - 1
        for row in rows:
            wanted.select(self._rows.index(row, 0), self._rows.index(row, last))
        self._busy = True
        self.selection.select(wanted, QItemSelectionModel.SelectionFlag.ClearAndSelect)
        if rows:
            self.scrollTo(self._rows.index(rows[0], 0))
        self._busy = False

    def _tell(self, *_: QItemSelection) -> None:
        if not self._busy:
            self.chosen.emit()


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
