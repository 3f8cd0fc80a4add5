"""The part of the panel that says which times of a recording are fitted, one after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QHBoxLayout, QLabel, QLineEdit, QWidget

from napari_gaussfit._napari.panel.widgets import LABELS, wheel_needs_focus
from napari_gaussfit.errors import SettingsError
from napari_gaussfit.stacks.time_range import parse_times

if TYPE_CHECKING:
    from qtpy.QtGui import QFocusEvent

__all__ = ["TimesPart"]

IN_VIEW, ALL, SOME = range(3)
_CHOICES = "the time in view", "all times", "some times"


class TimesPart(QWidget):
    """One time, all, or a range; hidden where a layer has no axis of time."""

    changed = Signal()
    """Other times."""

    def __init__(self) -> None:
        super().__init__()
        self._count = 1
        self._choice = QComboBox()
        self._choice.setObjectName("gaussfit_times")
        self._choice.addItems(_CHOICES)
        self._choice.setToolTip(
            "Which times are fitted. Of several, each begins with what was found at the one "
            "before, and what stays is one track."
        )
        self._range = _Line()
        self._range.setObjectName("gaussfit_range")
        self._range.setPlaceholderText("0:30:2")
        self._range.setToolTip(
            "From the first time up to before the second, every third: 0:30:2 is every second of "
            "the first 30, 5: all from 5 on."
        )
        label = QLabel("Fit")
        label.setFixedWidth(LABELS)
        label.setToolTip(self._choice.toolTip())
        row = QHBoxLayout(self)
        row.setContentsMargins(4, 0, 4, 0)
        row.setSpacing(4)
        row.addWidget(label)
        row.addWidget(self._choice, 1)
        row.addWidget(self._range, 1)
        wheel_needs_focus(self._choice)
        self._choice.currentIndexChanged.connect(self._take)
        self._range.done.connect(self.changed)
        self._show()

    @property
    def choices(self) -> tuple[int, str]:
        """Which of the choices is made, and the range that is typed."""
        return self._choice.currentIndex(), self._range.text()

    @choices.setter
    def choices(self, choices: tuple[int, str]) -> None:
        choice, text = choices
        self._range.setText(text)
        self._choice.setCurrentIndex(choice)

    def show_count(self, count: int) -> None:
        """Offer so many times."""
        self._count = count
        self._show()

    def times(self) -> tuple[int, ...]:
        """Return which times are fitted one after the other, none where it is the one in view.

        Raises
        ------
        SettingsError
            If what is typed means none.
        """
        if self._count < 2 or self._choice.currentIndex() == IN_VIEW:
            return ()
        if self._choice.currentIndex() == ALL:
            return tuple(range(self._count))
        text = self._range.text().strip()
        try:
            asked = parse_times(text)
        except ValueError:
            raise SettingsError(
                f"times {text!r} are none; type a range such as 0:{self._count}:2"
            ) from None
        every = range(self._count)
        chosen = tuple(every[asked]) if isinstance(asked, slice) else tuple({asked} & {*every})
        if not chosen:
            raise SettingsError(
                f"times {text!r} are none of the {self._count} there are; choose some of "
                f"0:{self._count}"
            )
        return chosen

    def _take(self) -> None:
        self._show()
        if self._choice.currentIndex() == SOME and not self._range.text():
            self._range.setText(f"0:{self._count}")
        self.changed.emit()

    def _show(self) -> None:
        self.setVisible(self._count > 1)
        self._range.setVisible(self._choice.currentIndex() == SOME)


class _Line(QLineEdit):
    """A line that tells when what is typed is meant: by Enter, or when it is left."""

    done = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._known = ""
        self.returnPressed.connect(self._tell)

    def setText(self, text: str | None) -> None:
        """Show a text that is known."""
        self._known = text or ""
        super().setText(text)

    def focusOutEvent(self, event: QFocusEvent | None) -> None:
        """Take what was typed."""
        super().focusOutEvent(event)
        self._tell()

    def _tell(self) -> None:
        if self.text() != self._known:
            self._known = self.text()
            self.done.emit()
