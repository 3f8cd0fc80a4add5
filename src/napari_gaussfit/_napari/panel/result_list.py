"""The list of results: a model that outlives the panel, and the part of the panel that shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QAbstractTableModel, QModelIndex, Qt, Signal
from qtpy.QtGui import QFont
from qtpy.QtWidgets import QGridLayout, QHeaderView, QPushButton, QTableView, QVBoxLayout, QWidget

from napari_gaussfit._napari.panel.kept import STRUCTURE, Result
from napari_gaussfit._napari.panel.widgets import wrapped

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qtpy.QtGui import QUndoStack

    from napari_gaussfit._napari.panel.kept import Kept

__all__ = ["ResultList", "ResultListPart"]

_ROOT = QModelIndex()
_DISPLAY, _HORIZONTAL = Qt.ItemDataRole.DisplayRole, Qt.Orientation.Horizontal

COLUMNS = {
    "result": ("What you call it: double-click to rename.", 96),
    "kind": ("What was looked for.", 60),
    "quality": ("What is so of it, by its report.", 122),
    "count": ("How many Gaussians, spots, cells or branches there are.", 52),
    "held-out": ("PSNR of projections never trained on.", 66),
    "stack": ("What it is of.", 110),
    "channel": ("Of the stack.", 56),
    "time": ("Of the stack.", 44),
    "made": ("When it came to rest.", 60),
}
"""Titles, with their tooltips and widths in pixels."""

LINES = 5
"""Results that are seen without scrolling."""

_TIPS = {
    "Show": "Show this result: in the viewer, the table, the plots, and below for export.",
    "Compare": "Put two results beside each other; the centres of the second come into the viewer.",
    "Refine": "Show this result, and go on from its Gaussians.",
    "Save…": "Save this result: the fit itself, a table, or for other programs.",
    "Remove": "Take it from the list; Undo brings it back.",
    "Undo": "Take the last edit, measuring, refinement or removal back (Ctrl+Z).",
    "Redo": "Do again what was taken back (Ctrl+Shift+Z).",
}


class ResultList(QAbstractTableModel):
    """Results, a row each, in the order in which they came."""

    renamed = Signal(object)
    """A result that has another name."""

    def __init__(self) -> None:
        super().__init__()
        self._results: list[Kept] = []
        self._shown: dict[str, Kept] = {}

    def __iter__(self) -> Iterator[Kept]:
        """Give the results, first to last."""
        return iter(self._results)

    def __len__(self) -> int:
        """Count them."""
        return len(self._results)

    def __getitem__(self, row: int) -> Kept:
        """Return that of a row."""
        return self._results[row]

    @property
    def shown(self) -> Result | None:
        """The fit that is shown, None where none is."""
        shown = self.shown_at(STRUCTURE)
        return shown if isinstance(shown, Result) else None

    def all_shown(self) -> list[Kept]:
        """Return what is shown, of each place of the panel one."""
        return [*self._shown.values()]

    def shown_at(self, place: str) -> Kept | None:
        """Return what is shown at a place of the panel."""
        return self._shown.get(place)

    def row_of(self, result: Kept) -> int:
        """Return where a result stands, -1 where it does not."""
        return self._results.index(result) if result in self._results else -1

    def insert(self, row: int, result: Kept) -> None:
        """Put a result into a row."""
        self.beginInsertRows(_ROOT, row, row)
        self._results.insert(row, result)
        self.endInsertRows()

    def remove(self, result: Kept) -> None:
        """Take a result away."""
        row = self.row_of(result)
        self.beginRemoveRows(_ROOT, row, row)
        del self._results[row]
        self.endRemoveRows()

    def show(self, result: Kept) -> None:
        """Mark a result that is shown, in place of the one before."""
        self._shown[result.place] = result
        self.tell()

    def show_none(self, place: str) -> None:
        """Mark that no result is shown at a place."""
        self._shown.pop(place, None)
        self.tell()

    def tell(self) -> None:
        """Say that what is known of the results may be other than before."""
        last = self.index(len(self) - 1, len(COLUMNS) - 1)
        self.dataChanged.emit(self.index(0, 0), last)

    def free_name(self, wanted: str) -> str:
        """Return a name that no result has, with a number behind it where needed."""
        taken, number, name = {one.name for one in self}, 1, wanted
        while name in taken:
            number += 1
            name = f"{wanted} {number}"
        return name

    def rowCount(self, parent: QModelIndex = _ROOT) -> int:
        """Return how many results there are."""
        return 0 if parent.isValid() else len(self._results)

    def columnCount(self, parent: QModelIndex = _ROOT) -> int:
        """Return the number of columns."""
        return 0 if parent.isValid() else len(COLUMNS)

    def flags(self, index: QModelIndex) -> Qt.ItemFlag:
        """Let the name be edited."""
        flags: Qt.ItemFlag = super().flags(index)
        return flags | Qt.ItemFlag.ItemIsEditable if index.column() == 0 else flags

    def data(self, index: QModelIndex, role: int = _DISPLAY) -> Any:
        """Return a cell's text, and that of the shown result in bold."""
        result = self._results[index.row()]
        if role in (_DISPLAY, Qt.ItemDataRole.EditRole):
            return self._texts(result)[index.column()]
        if role == Qt.ItemDataRole.ToolTipRole:
            return f"{result.name}\n{result.details}"
        if role == Qt.ItemDataRole.FontRole and result is self.shown_at(result.place):
            font = QFont()
            font.setBold(True)
            return font
        return None

    def setData(self, index: QModelIndex, value: Any, role: int = Qt.ItemDataRole.EditRole) -> bool:
        """Rename a result; a name cannot be empty."""
        name = str(value).strip()
        if role != Qt.ItemDataRole.EditRole or index.column() or not name:
            return False
        result = self._results[index.row()]
        if name != result.name:
            result.name = self.free_name(name)
            self.tell()
            self.renamed.emit(result)
        return True

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = _DISPLAY) -> Any:
        """Return a column's title, or what it is."""
        if orientation != _HORIZONTAL:
            return None
        title, (tip, _) = list(COLUMNS.items())[section]
        if role == Qt.ItemDataRole.ToolTipRole:
            return tip
        return title if role == _DISPLAY else None

    @staticmethod
    def _texts(result: Kept) -> tuple[str, ...]:
        stack = result.stack
        channel = "" if stack.channel is None else str(stack.channel)
        words = (result.name, result.kind, result.quality, result.count, result.held_out)
        return (*words, stack.name, channel, result.time, f"{result.made:%H:%M}")


class ResultListPart(QWidget):
    """The list, and what can be done with what is selected in it.

    Parameters
    ----------
    results : ResultList
        The list that is shown, which outlives this part.
    undo : QUndoStack
        Of edits, refinements and removals.
    """

    show_asked, refine_asked, save_asked = Signal(object), Signal(object), Signal(object)
    compare_asked = Signal(object, object)
    undo_asked, redo_asked = Signal(), Signal()
    remove_asked = Signal(object)
    """The selected results, one, two, or a list."""

    def __init__(self, results: ResultList, undo: QUndoStack) -> None:
        super().__init__()
        self._results, self._busy = results, False
        self.view = QTableView()
        self.view.setObjectName("gaussfit_results")
        self.view.setAccessibleName("Results")
        self.view.setToolTip("Results of this window; double-click a name to rename it.")
        self.view.setModel(results)
        self.view.setSelectionBehavior(QTableView.SelectionBehavior.SelectRows)
        self.view.setWordWrap(False)
        self.buttons = {name: QPushButton(name) for name in _TIPS}
        self.words = wrapped("gaussfit_results_words", "What was done with the results.")
        self.say("")
        self._lay_out()
        self._connect(undo)

    def _lay_out(self) -> None:
        rows, columns = self.view.verticalHeader(), self.view.horizontalHeader()
        if rows is not None and columns is not None:
            rows.hide()
            rows.setDefaultSectionSize(22)
            self.view.setFixedHeight(22 * LINES + columns.sizeHint().height() + 22)
            columns.setSectionResizeMode(QHeaderView.ResizeMode.Interactive)
        for number, (_, width) in enumerate(COLUMNS.values()):
            self.view.setColumnWidth(number, width)
        grid = QGridLayout()
        grid.setSpacing(4)
        for number, (name, button) in enumerate(self.buttons.items()):
            button.setToolTip(_TIPS[name])
            button.setObjectName(f"gaussfit_result_{name.rstrip('…').lower()}")
            button.setMinimumWidth(48)
            grid.addWidget(button, number // 5, number % 5)
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(4)
        box.addWidget(self.view)
        box.addLayout(grid)
        box.addWidget(self.words)

    def _connect(self, undo: QUndoStack) -> None:
        selection = self.view.selectionModel()
        if selection is not None:
            selection.selectionChanged.connect(self.enable)
        for signal in (self._results.rowsRemoved, self._results.rowsInserted):
            signal.connect(self.enable)
        for name, signal in (
            ("Show", self.show_asked),
            ("Refine", self.refine_asked),
            ("Save…", self.save_asked),
        ):
            self.buttons[name].clicked.connect(lambda _=False, signal=signal: self._ask(signal))
        self.buttons["Compare"].clicked.connect(lambda: self.compare_asked.emit(*self.selected[:2]))
        self.buttons["Remove"].clicked.connect(lambda: self.remove_asked.emit(self.selected))
        self.buttons["Undo"].clicked.connect(self.undo_asked)
        self.buttons["Redo"].clicked.connect(self.redo_asked)
        self._undo = undo
        undo.indexChanged.connect(self.enable)
        self.enable()

    @property
    def selected(self) -> list[Kept]:
        """The results whose rows are selected, or the one shown where none is."""
        selection = self.view.selectionModel()
        rows = [] if selection is None else sorted(i.row() for i in selection.selectedRows())
        found = [self._results[row] for row in rows]
        shown = self._results.shown_at(STRUCTURE)
        return found or ([shown] if shown is not None and shown in list(self._results) else [])

    def select(self, result: Kept) -> None:
        """Select one."""
        self.view.selectRow(self._results.row_of(result))

    def say(self, words: str) -> None:
        """Say what was done; nothing takes no room."""
        self.words.setText(words)
        self.words.setVisible(bool(words))

    def allow(self, *, busy: bool) -> None:
        """Say whether a fit is under way, which is not to be disturbed."""
        self._busy = busy
        self.enable()

    def enable(self, *_: object) -> None:
        """Enable what can be done."""
        chosen = self.selected
        count = len(chosen)

        def can(name: str) -> bool:
            return all(name in one.actions for one in chosen)

        enabled = {
            "Show": count == 1 and not self._busy,
            "Compare": count == 2 and can("Compare"),
            "Refine": count == 1 and can("Refine") and not self._busy,
            "Save…": count == 1,
            "Remove": count > 0 and not self._busy,
            "Undo": self._undo.canUndo() and not self._busy,
            "Redo": self._undo.canRedo() and not self._busy,
        }
        for name, button in self.buttons.items():
            button.setEnabled(enabled[name])
        for name, words in (("Undo", self._undo.undoText()), ("Redo", self._undo.redoText())):
            self.buttons[name].setToolTip(f"{name}: {words}" if words else _TIPS[name])

    def _ask(self, signal: Any) -> None:
        if self.selected:
            signal.emit(self.selected[0])
