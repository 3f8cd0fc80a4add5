"""How widgets stand in the panel, and what is dropped on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFrame, QScrollArea, QSizePolicy, QVBoxLayout, QWidget

if TYPE_CHECKING:
    from qtpy.QtGui import QDropEvent

__all__ = ["dropped_files", "scrolling", "stacked"]


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
