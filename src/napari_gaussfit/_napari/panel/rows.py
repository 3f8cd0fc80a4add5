"""Tables of what was found, a row each: sorted, chosen from, with error bars and in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QAbstractTableModel, QModelIndex, Qt

from napari_gaussfit._napari.panel.columns import column_named
from napari_gaussfit.measure.measurement import NOT_DETERMINED
from napari_gaussfit.measure.table import ERRORS, FLAGS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pandas as pd

__all__ = ["RowTable", "with_error"]

_NEVER_SHOWN = ("unit", "axis-0", "axis-1", "axis-2")
"""Columns of files that say nothing here: the unit stands in the headers."""

_ROOT = QModelIndex()
_DISPLAY, _HORIZONTAL = Qt.ItemDataRole.DisplayRole, Qt.Orientation.Horizontal


class RowTable(QAbstractTableModel):
    """Rows, in an order and a choice of its own; they are looked up in numpy.

    Parameters
    ----------
    columns : sequence of str
        That have numbers, and are shown where there is room.
    words : sequence of str
        Further ones, which have words.
    sometimes : sequence of str
        Those that are shown too where they are known.
    """

    def __init__(
        self,
        columns: Sequence[str],
        words: Sequence[str] = (FLAGS,),
        sometimes: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self._always, self._sometimes = (*columns, *words), sometimes
        self.usual = self._always
        """The columns that are there whatever is shown; the first ones, those with words last."""

        self.columns = self.usual
        """All of them: the usual ones, and what else is known, for those who choose it."""

        self.unit = "pixel"
        """Of lengths."""

        self._numbers = columns
        self._sorted_by: tuple[str, bool] | None = None
        self._take(None)

    @property
    def table(self) -> pd.DataFrame:
        """What is shown, with all its columns."""
        if self._table is None:
            import pandas as pd  # which takes the window a third of a second

            return pd.DataFrame()
        return self._table

    @property
    def _count(self) -> int:
        return 0 if self._table is None else len(self._table)

    def show_measurements(self, measurements: pd.DataFrame | None) -> None:
        """Show these rows, all of them, or none."""
        self.beginResetModel()
        self._take(measurements)
        self._arrange()
        self.endResetModel()

    def _take(self, table: pd.DataFrame | None) -> None:
        self._table = table
        found = () if table is None else table.columns
        known = [name for name in self._sometimes if name in found]
        self.usual = (*self._always, *known)
        more = [
            name
            for name in found
            if name not in {*self.usual, *_NEVER_SHOWN} and not name.startswith("sd_")
        ]
        self.columns = (*self.usual, *more)
        self._values: dict[str, np.ndarray] = {}
        self._errors: dict[str, np.ndarray] = {}
        self._whole: set[str] = set()
        for name in self.columns:
            self._take_column(name)
        self._flags = self._values.get(FLAGS, np.full(self._count, ""))
        self._allowed = np.ones(self._count, np.bool_)
        self._order = np.arange(self._count)

    def _take_column(self, name: str) -> None:
        count = self._count
        if self._table is None or name not in self._table:
            blank = np.full(count, np.nan) if name in self._numbers else np.full(count, "")
            self._values[name] = blank
            return
        column = self.table[name]
        if column.dtype.kind not in "iufb":
            self._values[name] = column.astype(object).fillna("").astype(str).to_numpy(object)
            return
        self._values[name] = column.to_numpy(float)
        if column.dtype.kind in "iu" or name == self.columns[0]:
            self._whole.add(name)
        if f"sd_{name}" in self.table:
            self._errors[name] = self.table[f"sd_{name}"].to_numpy(float)

    def allow(self, allowed: np.ndarray) -> None:
        """Show only the rows of a mask [K]."""
        self.beginResetModel()
        self._allowed = allowed
        self._arrange()
        self.endResetModel()

    @property
    def measured(self) -> bool:
        """Whether there is an error bar, or a word on why there is none."""
        known = any(np.isfinite(errors).any() for errors in self._errors.values())
        return known or any(self._flags)

    def says_something(self, name: str) -> bool:
        """Whether anything stands in a column."""
        values = self._values[name]
        if values.dtype.kind == "f":
            return not len(values) or bool(np.isfinite(values).any())
        return any(values)

    def column(self, name: str) -> np.ndarray:
        """Return a column's values [K], whatever is shown."""
        return self._values[name]

    def gaussians(self, rows: Iterable[int]) -> set[int]:
        """Return which Gaussians stand in these rows."""
        return {int(n) for n in self._order[[*rows]]}

    def rows(self, gaussians: set[int]) -> list[int]:
        """Return the rows in which these Gaussians stand, as far as they are shown."""
        return [int(n) for n in np.flatnonzero(np.isin(self._order, [*gaussians]))]

    def selected(self, rows: Sequence[int]) -> pd.DataFrame:
        """Return the table of these rows, in the order in which they are shown; of all if none."""
        return self.table.iloc[self._order[[*rows]] if len(rows) else self._order]

    def rowCount(self, parent: QModelIndex = _ROOT) -> int:
        """Return how many rows are shown."""
        return 0 if parent.isValid() else len(self._order)

    def columnCount(self, parent: QModelIndex = _ROOT) -> int:
        """Return the number of columns."""
        return 0 if parent.isValid() else len(self.columns)

    def data(self, index: QModelIndex, role: int = _DISPLAY) -> Any:
        """Return a cell's text, or what it says in words."""
        name = self.columns[index.column()]
        if role == Qt.ItemDataRole.TextAlignmentRole:
            side = "AlignRight" if self._values[name].dtype.kind == "f" else "AlignLeft"
            return Qt.AlignmentFlag[side] | Qt.AlignmentFlag.AlignVCenter
        if role == Qt.ItemDataRole.ToolTipRole:
            return self._in_words(self._order[index.row()], name) if self.measured else None
        return self._text(self._order[index.row()], name) if role == _DISPLAY else None

    def _text(self, row: int, name: str) -> str:
        """Return what a cell shows: an error bar only where it can be trusted."""
        value = self._values[name][row]
        if isinstance(value, str):
            return str(value)
        if np.isnan(value):
            return ""
        error = self._error(row, name)
        if np.isfinite(error) and not self._flags[row]:
            return with_error(value, error)
        return f"{value:.0f}" if name in self._whole else f"{value:.4g}"

    def _error(self, row: int, name: str) -> float:
        return float(self._errors[name][row]) if name in self._errors else np.nan

    def _in_words(self, row: int, name: str) -> str | None:
        """Say a number with its error bar and unit, and whether it is determined."""
        flags = self._flags[row]
        if name not in self._errors and f"sd_{name}" not in ERRORS:
            return (flags or None) if name == FLAGS else None
        value, error = self._values[name][row], self._error(row, name)
        number = with_error(value, error) if np.isfinite(error) else f"{value:.4g}"
        unknown = "" if np.isfinite(error) and not flags else f"; {NOT_DETERMINED}"
        why = f": {flags}" if flags and flags != NOT_DETERMINED else ""
        return f"{number} {column_named(name).unit_in_words(self.unit)}{unknown}{why}"

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = _DISPLAY) -> Any:
        """Return a column's title with its unit below, or what it means."""
        if orientation != _HORIZONTAL or section >= len(self.columns):
            return None
        column = column_named(self.columns[section])
        unit = column.unit(self.unit)
        if role == _DISPLAY:
            return f"{column.title}\n{unit}"
        if role == Qt.ItemDataRole.ToolTipRole:
            words = column.unit_in_words(self.unit)
            return f"{column.tip or column.title}{f' ({words})' if words else ''}"
        return None

    def sort(self, column: int, order: Qt.SortOrder = Qt.SortOrder.AscendingOrder) -> None:
        """Sort by a column."""
        if not 0 <= column < len(self.columns):
            return
        self.layoutAboutToBeChanged.emit()
        self._sorted_by = self.columns[column], order == Qt.SortOrder.DescendingOrder
        self._arrange()
        self.layoutChanged.emit()

    def _arrange(self) -> None:
        order = np.arange(self._count)
        if self._sorted_by is not None and self._sorted_by[0] in self._values:
            name, down = self._sorted_by
            values = self._values[name]
            order = np.argsort(values, kind="stable")
            order = order[::-1] if down else order
            if values.dtype.kind == "f":
                # What is not known stands last, whichever way.
                unknown = np.isnan(values[order])
                order = np.concatenate([order[~unknown], order[unknown]])
        self._order = order[self._allowed[order]]


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
