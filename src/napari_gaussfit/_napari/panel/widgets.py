"""How widgets stand in the panel, and what is dropped on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtWidgets import (
    QAbstractSlider,
    QAbstractSpinBox,
    QComboBox,
    QFormLayout,
    QFrame,
    QLabel,
    QScrollArea,
    QScrollBar,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

if TYPE_CHECKING:
    from magicgui.widgets.bases import Widget
    from qtpy.QtGui import QDropEvent

__all__ = [
    "LABELS",
    "Form",
    "dropped_files",
    "native_of",
    "scrolling",
    "stacked",
    "wheel_needs_focus",
    "wrapped",
]

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
        self._labels = labels
        for control in controls:
            native = native_of(control)
            native.setToolTip(control.tooltip or "")
            self.add_row(control.label, native)

    def add_row(self, name: str, widget: QWidget) -> None:
        """Add a widget with a tooltip, which what it is called has too."""
        label = QLabel(name)
        label.setMinimumWidth(self._labels)
        label.setToolTip(widget.toolTip())
        self._rows.addRow(label, widget)
        wheel_needs_focus(widget)

    def call(self, widget: QWidget, name: str) -> None:
        """Call a widget otherwise; nothing moves for a shorter name."""
        label = self._rows.labelForField(widget)
        if isinstance(label, QLabel):
            label.setMinimumWidth(max(label.minimumWidth(), label.sizeHint().width()))
            label.setText(name)

    def show_row(self, control: Widget, *, shown: bool) -> None:
        """Show or hide a control with its label."""
        self._rows.setRowVisible(native_of(control), shown)


class _WheelNeedsFocus(QObject):
    """Lets a wheel pass that turns over a widget without focus, as what it is in may scroll."""

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Keep the wheel from a widget that nobody has clicked on."""
        if event is None or event.type() != QEvent.Type.Wheel:
            return False
        if isinstance(watched, QWidget) and watched.hasFocus():
            return False
        event.ignore()
        return True


def wheel_needs_focus(widget: QWidget) -> None:
    """Have a widget, and all in it, take the wheel only while it has the focus.

    Who scrolls the panel turns the wheel over spin boxes, lists and sliders, and means none.
    """
    for one in (widget, *widget.findChildren(QWidget)):
        turns = isinstance(one, (QAbstractSpinBox, QComboBox, QAbstractSlider))
        if turns and not isinstance(one, QScrollBar):
            if one.focusPolicy() == Qt.FocusPolicy.WheelFocus:
                one.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
            one.installEventFilter(_WheelNeedsFocus(one))


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


def wrapped(name: str, tip: str) -> QLabel:
    """Return a label for sentences, which can be selected and copied."""
    label = QLabel()
    label.setObjectName(name)
    label.setToolTip(tip)
    label.setWordWrap(True)
    label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    return label


def scrolling(widget: QWidget, *, fills: bool = False) -> QScrollArea:
    """Return a widget that scrolls up and down where it has no room, and may fill what there is."""
    high = QSizePolicy.Policy.Expanding if fills else QSizePolicy.Policy.Maximum
    widget.setSizePolicy(QSizePolicy.Policy.Ignored, high)
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
