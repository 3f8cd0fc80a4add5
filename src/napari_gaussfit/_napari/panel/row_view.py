"""The view of a table of rows: columns that fit or are chosen, rows that are copied and gone to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QItemSelection, QItemSelectionModel, QPoint, Qt, Signal
from qtpy.QtGui import QGuiApplication, QKeySequence
from qtpy.QtWidgets import QFileDialog, QHeaderView, QMenu, QSizePolicy, QTableView

from napari_gaussfit._napari.panel.columns import column_named
from napari_gaussfit._napari.panel.preferences import begins_at
from napari_gaussfit.errors import GaussfitError, OutputError
from napari_gaussfit.files import write_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from qtpy.QtGui import QKeyEvent, QResizeEvent

    from napari_gaussfit._napari.panel.rows import RowTable

__all__ = ["RowView"]

ROW_HEIGHT, PADDING, ARROW = 22, 11, 12
"""Pixels of a row; beside a cell's text; of the arrow by which a table is sorted."""

MOST_WORDS = 100
"""Pixels of a column with words."""

SAMPLE = 40
"""Rows whose texts say how wide a column is."""

_HEIGHT = Qt.Orientation.Vertical
_FLAG = QItemSelectionModel.SelectionFlag


class RowView(QTableView):
    """A table of rows, several of which can be selected.

    As many columns are shown as there is room for, until some are chosen in the header's menu.

    Parameters
    ----------
    model : RowTable
        The rows that are shown.
    tip : str
        The tooltip of the whole table.
    order : sequence of str
        Columns as they stand beside each other, the most important first; the model's if empty.
    """

    chosen = Signal()
    """The selection is another, by whatever a person did."""

    opened = Signal(int)
    """A row was double-clicked, or Enter was pressed on it: what stands there, by its number."""

    filter_asked = Signal(str)
    """A column's title, by which rows are to be filtered."""

    columns_changed = Signal()
    """Other columns are shown."""

    def __init__(self, model: RowTable, tip: str, order: Sequence[str] = ()) -> None:
        super().__init__()
        self._rows = model
        self._first = tuple(order)
        self._wanted: set[str] | None = None
        self._widths: dict[str, int] = {}
        self._busy = False
        self._kept: set[int] = set()
        self.filters = False
        """Whether the header's menu has a filter by column."""

        self.name = "table"
        """Of a file that is saved, without its suffix."""

        self.beside: tuple[str, pd.DataFrame] | None = None
        """What else is known, and what it is of: copied below headers and rows, saved beside."""

        self.setModel(model)
        self.selection = QItemSelectionModel(model, self)
        self.setSelectionModel(self.selection)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Expanding)
        self.setSelectionBehavior(QTableView.SelectionBehavior.SelectRows)
        self.setToolTip(tip)
        self.setAccessibleName(tip)
        self.setTabKeyNavigation(False)
        self._set_headers()
        self.setSortingEnabled(True)
        self.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        self.customContextMenuRequested.connect(self._offer_rows)
        self.selection.selectionChanged.connect(self._tell)
        self.doubleClicked.connect(lambda index: self._open(index.row()))
        model.modelReset.connect(self._measure_columns)
        model.layoutAboutToBeChanged.connect(self._keep)
        model.layoutChanged.connect(lambda: self.choose(self._kept))
        self._measure_columns()

    def _set_headers(self) -> None:
        rows, columns = QHeaderView(_HEIGHT), QHeaderView(Qt.Orientation.Horizontal)
        rows.hide()
        rows.setDefaultSectionSize(ROW_HEIGHT)
        # To fit each row's height would ask for every text.
        rows.setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        columns.setSectionsClickable(True)
        columns.setSectionsMovable(True)
        columns.setMinimumSectionSize(20)
        columns.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        columns.customContextMenuRequested.connect(self._offer_columns)
        self.setVerticalHeader(rows)
        self.setHorizontalHeader(columns)
        columns.sortIndicatorChanged.connect(lambda *_: self._fit_columns())
        self._columns = columns

    # Which rows

    @property
    def items(self) -> set[int]:
        """What stands in the selected rows, by its number in what is shown."""
        return self._rows.gaussians(self._selected_rows())

    def _selected_rows(self) -> list[int]:
        # By ranges: an index for each of many rows takes seconds.
        selection = self.selection.selection()
        parts = (selection[n] for n in range(len(selection)))
        return sorted({row for part in parts for row in range(part.top(), part.bottom() + 1)})

    def choose(self, items: set[int]) -> None:
        """Select the rows of some; nobody is told."""
        rows = np.asarray(self._rows.rows(items), int)
        wanted = QItemSelection()
        last = self._rows.columnCount() - 1
        for run in np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1) if len(rows) else []:
            top, bottom = self._rows.index(int(run[0]), 0), self._rows.index(int(run[-1]), last)
            wanted.select(top, bottom)
        self._busy = True
        self.selection.select(wanted, _FLAG.ClearAndSelect)
        if len(rows):
            self.scrollTo(self._rows.index(int(rows[0]), max(self._columns.logicalIndexAt(0), 0)))
        self._busy = False

    def _keep(self) -> None:
        self._kept = self.items

    def _tell(self, *_: QItemSelection) -> None:
        if not self._busy:
            self.chosen.emit()

    def _open(self, row: int) -> None:
        [item] = self._rows.gaussians([row])
        self.opened.emit(item)

    def keyPressEvent(self, event: QKeyEvent | None) -> None:
        """Copy rows, or go to one."""
        if event is None:
            return
        shift = event.modifiers() & Qt.KeyboardModifier.ShiftModifier
        control = event.modifiers() & Qt.KeyboardModifier.ControlModifier
        if event.matches(QKeySequence.StandardKey.Copy):
            self.copy_rows()
        elif event.key() == Qt.Key.Key_C and control and shift:
            self.copy_rows(headers=True)
        elif event.key() in {Qt.Key.Key_Return, Qt.Key.Key_Enter} and self.currentIndex().isValid():
            self._open(self.currentIndex().row())
        else:
            super().keyPressEvent(event)

    # Copies

    def copy_rows(self, *, headers: bool = False) -> None:
        """Copy the selected rows, or all, as they are shown but with all digits."""
        table = self._rows.selected(self._selected_rows())
        columns: list[str] = []
        for name in self.shown_columns:
            errors = [f"sd_{name}"] if self._rows.measured else []
            columns += [one for one in (name, *errors) if one in table]
        titles = [_title(name, self._rows.unit) for name in columns]
        text = table[columns].to_csv(
            sep="\t", index=False, header=titles if headers else False, lineterminator="\n"
        )
        if headers and self.beside is not None:
            text += "\n" + self.beside[1].to_csv(sep="\t", index=False, lineterminator="\n")
        clipboard = QGuiApplication.clipboard()
        if clipboard is not None:
            clipboard.setText(text)

    def ask_where_to_save(self) -> None:
        """Ask for a file, and write the rows that are shown into it."""
        from napari.utils.notifications import show_error, show_info

        path, _ = QFileDialog.getSaveFileName(
            self, "Save the rows that are shown", begins_at(f"{self.name}.csv"), "Table (*.csv)"
        )
        if not path:
            return
        path = path if path.lower().endswith(".csv") else f"{path}.csv"
        try:
            self.save_rows(path)
        except (GaussfitError, OSError) as error:
            show_error(f"Gaussian fit: not saved: {error}")
        else:
            what = "" if self.beside is None else f", and {self.beside[0]} beside it"
            show_info(f"Saved {self._rows.rowCount():,} rows to {path}{what}")

    def save_rows(self, path: str) -> None:
        """Write the rows that are shown, in their order and with all columns there are, as CSV.

        What else is known goes into a file of its own beside it, which is replaced with the other.
        """
        rows = Path(path)
        if self.beside is not None:
            what, table = self.beside
            also = rows.with_name(f"{rows.stem} {what}.csv")
            if also.exists() and not rows.exists():
                raise OutputError(f"{also}: is there already; save the rows under another name")
            write_table(also, table)
        write_table(rows, self._rows.selected(()))

    def _offer_rows(self, at: QPoint) -> None:
        menu = QMenu(self)
        selected = bool(self._selected_rows())
        which = "selected rows" if selected else "all rows"
        copy = menu.addAction(f"Copy {which}", self.copy_rows)
        headed = menu.addAction(f"Copy {which} with headers", lambda: self.copy_rows(headers=True))
        save = menu.addAction("Save rows that are shown as CSV…", self.ask_where_to_save)
        row = self.rowAt(at.y())
        if row >= 0:
            menu.addSeparator()
            menu.addAction("Bring into view\tEnter", lambda: self._open(row))
        for action, keys in ((copy, "Ctrl+C"), (headed, "Ctrl+Shift+C"), (save, "")):
            if action is not None and keys:
                action.setText(f"{action.text()}\t{keys}")
        _show_menu(menu, self.viewport(), at)

    # Which columns

    @property
    def shown_columns(self) -> list[str]:
        """The columns that are shown, from left to right."""
        header, names = self._columns, self._rows.columns
        order = (header.logicalIndex(n) for n in range(header.count()))
        return [names[n] for n in order if not self.isColumnHidden(n)]

    @property
    def left_out(self) -> list[str]:
        """Columns that say something and are not shown."""
        usual, shown = self._rows.usual, {*self.shown_columns}
        known = (name for name in self._ordered() if self._rows.says_something(name))
        return [name for name in known if name in usual and name not in shown]

    @property
    def choices(self) -> tuple[set[str] | None, str, Qt.SortOrder]:
        """Columns that a person has chosen, None for none, and by which one rows are sorted."""
        section, names = self._columns.sortIndicatorSection(), self._rows.columns
        sorted_by = names[section] if 0 <= section < len(names) else ""
        return self._wanted, sorted_by, self._columns.sortIndicatorOrder()

    @choices.setter
    def choices(self, choices: tuple[set[str] | None, str, Qt.SortOrder]) -> None:
        wanted, sorted_by, order = choices
        if sorted_by in self._rows.columns:
            self.sortByColumn(self._rows.columns.index(sorted_by), order)
        self.choose_columns(wanted)

    def choose_columns(self, names: set[str] | None) -> None:
        """Show these columns, or as many as there is room for if None."""
        self._wanted = names
        self._fit_columns()

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        """Show as many columns as there is room for."""
        if event is not None:
            super().resizeEvent(event)
        self._fit_columns()

    def _ordered(self) -> list[str]:
        first = [name for name in self._first if name in self._rows.columns]
        return [*first, *(name for name in self._rows.columns if name not in first)]

    def _measure_columns(self) -> None:
        """Find how wide each column's texts are."""
        metrics = self.fontMetrics()
        rows = range(min(SAMPLE, self._rows.rowCount()))
        for number, name in enumerate(self._rows.columns):
            title = self._rows.headerData(number, Qt.Orientation.Horizontal).split("\n")
            texts = [self._rows.data(self._rows.index(row, number)) for row in rows]
            widest = max(metrics.horizontalAdvance(text) for text in (*title, *texts))
            # Words are cut, and whole in the tooltip: they would leave no room for numbers.
            words = self._rows.column(name).dtype.kind not in "iufb"
            self._widths[name] = PADDING + (min(widest, MOST_WORDS) if words else widest)
        for place, name in enumerate(self._ordered()):
            now = self._columns.visualIndex(self._rows.columns.index(name))
            if now != place and now >= 0:
                self._columns.moveSection(now, place)
        self._fit_columns()

    def _fit_columns(self) -> None:
        """Hide what there is no room for, and share out what is left."""
        viewport = self.viewport()
        room = self.width() if viewport is None else viewport.width()
        widths = dict(self._widths)
        sorted_by = self._columns.sortIndicatorSection()
        if 0 <= sorted_by < len(self._rows.columns):
            widths[self._rows.columns[sorted_by]] += ARROW
        if self._wanted is None:
            shown, taken = list[str](), 0
            for name in self._ordered():
                if name not in self._rows.usual or not self._rows.says_something(name):
                    continue
                if shown and taken + widths[name] > room:
                    break
                shown.append(name)
                taken += widths[name]
        else:
            shown = [name for name in self._ordered() if name in self._wanted]
            taken = sum(widths[name] for name in shown)
        more = max(0, room - taken) // max(1, len(shown))
        before = self.shown_columns
        for number, name in enumerate(self._rows.columns):
            self.setColumnHidden(number, name not in shown)
            if name in shown:
                self.setColumnWidth(number, widths[name] + more)
        if self.shown_columns != before:
            self.columns_changed.emit()

    def column_menu(self, section: int = -1) -> QMenu:
        """Return a menu of the columns that there are, and of what can be done with one."""
        menu = QMenu(self)
        menu.setToolTipsVisible(True)
        if self.filters and section >= 0:
            title = column_named(self._rows.columns[section]).title
            menu.addAction(f"Filter by {title}…", lambda: self.filter_asked.emit(title))
            menu.addSeparator()
        fitting = menu.addAction("As many as there is room for", lambda: self.choose_columns(None))
        if fitting is not None:
            fitting.setCheckable(True)
            fitting.setChecked(self._wanted is None)
        menu.addSeparator()
        shown = self.shown_columns
        for name in self._ordered():
            action = menu.addAction(_title(name, self._rows.unit, column_named(name).title))
            if action is not None:
                action.setCheckable(True)
                action.setChecked(name in shown)
                action.setToolTip(column_named(name).tip)
                action.toggled.connect(lambda on, name=name: self._show_column(name, shown=on))
        return menu

    def _show_column(self, name: str, *, shown: bool) -> None:
        others = {*self.shown_columns} - {name}
        if others or shown:
            self.choose_columns(others | {name} if shown else others)

    def _offer_columns(self, at: QPoint) -> None:
        _show_menu(self.column_menu(self._columns.logicalIndexAt(at)), self._columns, at)


def _title(name: str, unit: str, title: str = "") -> str:
    """Return what a column is called, with its unit in brackets."""
    symbol = column_named(name.removeprefix("sd_")).unit(unit)
    return f"{title or name}{f' ({symbol})' if symbol else ''}"


def _show_menu(menu: QMenu, widget: object, at: QPoint) -> None:
    """Show a menu where it was asked for, and forget it when it closes."""
    menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
    menu.popup(widget.mapToGlobal(at))  # type: ignore[attr-defined]
