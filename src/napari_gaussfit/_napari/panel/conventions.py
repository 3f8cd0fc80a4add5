"""What every panel should have: keys, names for screen readers, an order of focus, activity."""

from __future__ import annotations

import re
import time
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Qt
from qtpy.QtWidgets import (
    QAbstractButton,
    QAbstractSlider,
    QAbstractSpinBox,
    QComboBox,
    QFormLayout,
    QLabel,
    QLayout,
    QLineEdit,
    QScrollArea,
    QScrollBar,
    QTableView,
    QTabWidget,
    QWidget,
)

from napari_gaussfit._napari.worker import Phase

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from napari_gaussfit._napari.worker import FitWorker
    from napari_gaussfit.jobs.job import News

__all__ = ["KEYS", "Activity", "give_keys", "name_controls", "order_focus"]

KEYS = {
    "Fit": "F5",
    "Pause": "F6",
    "Resume": "F6",
    "Stop": "F7",
    "Refine": "F8",
    "Measure": "F9",
}
"""Keys that no text takes and that napari leaves free. It takes none from a plugin's manifest."""

_CONTROLS = (
    QAbstractButton,
    QAbstractSlider,
    QAbstractSpinBox,
    QComboBox,
    QLineEdit,
    QTableView,
)

_TAKE_TAB = {Qt.FocusPolicy.StrongFocus, Qt.FocusPolicy.TabFocus, Qt.FocusPolicy.WheelFocus}


def give_keys(buttons: Mapping[str, QAbstractButton]) -> None:
    """Give buttons their keys, from anywhere in the window, and say so in their tooltips."""
    for name, button in buttons.items():
        if name in KEYS:
            button.setShortcut(KEYS[name])
            button.setToolTip(f"{button.toolTip()} ({KEYS[name]})")


def name_controls(panel: QWidget) -> None:
    """Give each control that has no text of its own a name for screen readers.

    What it is called beside it; else the first sentence of its tooltip.
    """
    for form in panel.findChildren(QFormLayout):
        for row in range(form.rowCount()):
            label, field = (
                None if item is None else item.widget()
                for item in (
                    form.itemAt(row, QFormLayout.ItemRole.LabelRole),
                    form.itemAt(row, QFormLayout.ItemRole.FieldRole),
                )
            )
            if isinstance(label, QLabel) and field is not None:
                label.setBuddy(field)
                for one in (field, *field.findChildren(QWidget)):
                    if not one.accessibleName():
                        one.setAccessibleName(label.text())
    for control in panel.findChildren(QWidget):
        if isinstance(control, _CONTROLS) and not isinstance(control, QScrollBar):
            text = control.text() if isinstance(control, QAbstractButton) else ""
            if not (control.accessibleName() or text):
                control.setAccessibleName(_first_sentence(_tip_of(control)))


def _tip_of(widget: QWidget | None) -> str:
    """Return the tooltip of a widget, or of what it is part of."""
    while widget is not None:
        if widget.toolTip():
            return widget.toolTip()
        widget = widget.parentWidget()
    return ""


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=\.)\s", re.sub("<[^>]*>", "", text), maxsplit=1)[0].rstrip(".")


def order_focus(parts: Sequence[QWidget]) -> None:
    """Have the Tab key go through parts one after another, and through each as it is read."""
    found = [widget for part in parts for widget in _in_reading_order(part)]
    for before, after in pairwise(found):
        QWidget.setTabOrder(before, after)


def _in_reading_order(widget: QWidget) -> Iterator[QWidget]:
    """Give what takes the focus of a widget and of all in it: by rows, as layouts have them."""
    if widget.focusPolicy() in _TAKE_TAB:
        yield widget
    if isinstance(widget, QTabWidget):
        inside = [widget.tabBar(), *(widget.widget(n) for n in range(widget.count()))]
        for one in inside:
            if one is not None:
                yield from _in_reading_order(one)
    elif isinstance(widget, QScrollArea):
        scrolled = widget.widget()
        if scrolled is not None:
            yield from _in_reading_order(scrolled)
    elif widget.layout() is not None:
        yield from _in_layout(widget.layout())


def _in_layout(layout: Any) -> Iterator[QWidget]:
    for number in range(layout.count()):
        item = layout.itemAt(number)
        if isinstance(item, QLayout):
            yield from _in_layout(item)
        elif item is not None and item.widget() is not None:
            yield from _in_reading_order(item.widget())


ACTIVITY_SECONDS = 1.0
"""Between two updates of the activity dock: each lets napari's whole window take its turn."""


class Activity(QObject):
    """Shows a fit in napari's activity dock, beside what else napari waits for.

    Parameters
    ----------
    worker : FitWorker
        The worker whose fit is shown.
    panel : QWidget
        Stands in the window whose dock it is.
    """

    def __init__(self, worker: FitWorker, panel: QWidget) -> None:
        super().__init__(worker)
        self._panel = panel
        self._bar: Any = None
        self._advanced = 0.0
        self._worker = worker
        # In their own turn: napari's bars let the window live whenever they change, and a fit that
        # ended meanwhile would be at rest before others have heard of its last update.
        later = Qt.ConnectionType.QueuedConnection
        worker.phase_changed.connect(self._follow, later)  # type: ignore[call-arg]
        worker.updated.connect(self._advance, later)  # type: ignore[call-arg]

    def close(self) -> None:
        """Take the bar away."""
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.close()

    def _follow(self, phase: Phase) -> None:
        if not phase.active:
            self.close()
        elif self._bar is not None:
            self._bar.set_description(f"Gaussian fit, {phase}")

    def _advance(self, news: News) -> None:
        from napari.utils import progress

        snapshot = news.snapshot
        now = time.monotonic()
        if snapshot is None or not self._worker.phase.active:
            return
        if self._bar is not None and now - self._advanced < ACTIVITY_SECONDS:
            return
        self._advanced = now
        if self._bar is None:
            self._bar = progress(total=snapshot.iterations, desc="Gaussian fit")
            self._hold_still()
        self._bar.total = snapshot.iterations
        self._bar.update(max(0, snapshot.iteration - self._bar.n))

    def _hold_still(self) -> None:
        """Keep napari's sign of activity from turning: the whole window is composed at each turn.

        That is ten times a second, a seventh of a core where OpenGL is drawn in software.
        """
        window = self._panel.window()
        for label in window.findChildren(QLabel) if window is not None else ():
            movie = label.movie()
            if movie is not None:
                movie.setPaused(True)
