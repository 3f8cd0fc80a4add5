"""The panel's list of results as a person uses it, by clicks and keys, and what stands in it."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QLineEdit


def click(button: Any) -> None:
    assert button.isEnabled(), button.text()
    QTest.mouseClick(button, Qt.MouseButton.LeftButton)


def do(panel: Any, name: str) -> None:
    """Press a button of the list."""
    click(panel.kept.part.buttons[name])


def names(panel: Any) -> list[str]:
    model = panel.kept.part.view.model()
    return [model.index(row, 0).data() for row in range(model.rowCount())]


def cells(panel: Any, row: int) -> list[str]:
    model = panel.kept.part.view.model()
    return [model.index(row, column).data() for column in range(model.columnCount())]


def select(panel: Any, *rows: int) -> None:
    view = panel.kept.part.view
    view.clearSelection()
    for row in rows:
        index = view.model().index(row, 0)
        modifier = Qt.KeyboardModifier.ControlModifier if row != rows[0] else Qt.KeyboardModifier(0)
        place = view.visualRect(index).center()
        QTest.mouseClick(view.viewport(), Qt.MouseButton.LeftButton, modifier, place)


def show_kept(panel: Any, row: int) -> None:
    """Turn to the list, choose a result, and press Show."""
    panel.show_results()
    select(panel, row)
    do(panel, "Show")


def rename(panel: Any, row: int, name: str) -> None:
    """Type another name."""
    view = panel.kept.part.view
    view.edit(view.model().index(row, 0))
    editor = view.findChild(QLineEdit)
    editor.selectAll()
    QTest.keyClicks(editor, name)
    QTest.keyClick(editor, Qt.Key.Key_Return)
    QTest.qWait(50)
