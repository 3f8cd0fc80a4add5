"""How widgets stand in the panel, and what is dropped on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QFormLayout,
    QFrame,
    QLabel,
    QScrollArea,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

if TYPE_CHECKING:
    from magicgui.widgets.bases import Widget
    from qtpy.QtGui import QDropEvent

__all__ = ["LABELS", "Form", "dropped_files", "native_of", "scrolling", "stacked"]

LABELS = 78
"""Pixels for what a control is called: all forms have theirs in one column."""


class Form(QWidget):
    """Controls of magicgui one below the other, what they are called left of them.

    Parameters
    ----------
    *controls : Widget
        Each with a label and a tooltip, which the label has too.
    labels : int
        Pixels that the labels take at least.
    """

    def __init__(self, *controls: Widget, labels: int = LABELS) -> None:
        super().__init__()
        self._rows = QFormLayout(self)
        self._rows.setContentsMargins(4, 0, 4, 0)
        self._rows.setSpacing(4)
        self._rows.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        # A form holds what Qt shows of a control; the control itself has to live as long.
        self._controls = controls
        for control in controls:
            label, native = QLabel(control.label), native_of(control)
            label.setMinimumWidth(labels)
            label.setToolTip(control.tooltip or "")
            self._rows.addRow(label, native)

    def show_row(self, control: Widget, *, shown: bool) -> None:
        """Show or hide a control with its label."""
        self._rows.setRowVisible(native_of(control), shown)


def native_of(control: Widget) -> Any:
    """Return the Qt widget of a control; magicgui does not say what it is."""
    return control.native


def stacked(*parts: QWidget) -> QWidget:
    """Return widgets one below the other."""
    widget = QWidget()
    box = QVBoxLayout(widget)
    box.setContentsMargins(0, 4, 0, 0)
    box.setSpacing(6)
    for part in parts:
        box.addWidget(part)
    return widget


def scrolling(widget: QWidget) -> QScrollArea:
    """Return a widget that scrolls up and down where it has no room."""
    widget.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Maximum)
    area = QScrollArea()
    area.setWidgetResizable(True)
    area.setFrameShape(QFrame.Shape.NoFrame)
    area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    area.setWidget(widget)
    return area


def dropped_files(event: QDropEvent) -> list[str]:
    """Return the paths that are dropped."""
    dropped = event.mimeData()
    urls = [] if dropped is None else dropped.urls()
    return [url.toLocalFile() for url in urls if url.isLocalFile()]
