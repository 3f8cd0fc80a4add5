"""A field for a number that takes what a person types, to the last digit. Knows no panel."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QLineEdit

from napari_gaussfit.errors import SettingsError

if TYPE_CHECKING:
    from qtpy.QtGui import QKeyEvent

__all__ = ["NumberField", "number_from"]

_NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?")

_MAYBE_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}[.,]\d{3}")
"""One separator where a number of thousands has it too."""

_MARKED = "border: 1px solid #d0504a;"


def number_from(text: str, point: str = ".") -> float:
    """Return the number that a person has typed.

    Comma and point both stand before decimals, wherever they cannot mean anything else: 0,065 is
    0.065 everywhere. Separators of thousands are not taken, so that none is mistaken for a point.

    Parameters
    ----------
    text : str
        Text that was typed into the field.
    point : str
        The decimal separator of the person's locale.

    Raises
    ------
    SettingsError
        If it is no number, or could be two.
    """
    typed = text.strip()
    if not _NUMBER.fullmatch(typed):
        raise SettingsError(f"{text!r} is no number; type one like {f'0{point}25'}")
    if _MAYBE_THOUSANDS.fullmatch(typed) and point not in typed:
        whole, small = re.sub("[.,]", "", typed), re.sub("[.,]", point, typed)
        raise SettingsError(f"{text!r} could mean {whole} or {small}; type one of these")
    return float(typed.replace(",", "."))


class NumberField(QLineEdit):
    """A number between two bounds, with as many digits as are typed.

    It is taken when Enter is pressed or the field is left. Text that is no such number stays,
    marked, with the reason in `problem`, and the number before it holds; Escape brings that back.

    Parameters
    ----------
    low, high : float
        The bounds, which are allowed.
    whole : bool
        Whether only whole numbers are taken.
    without : str
        What holds where the field is empty, which stands there then; empty where it may not be.
    """

    committed = Signal(object)
    """The new number, None for an empty field, when a person has changed it."""

    marked = Signal()
    """`problem` has changed."""

    def __init__(self, low: float, high: float, *, whole: bool = False, without: str = "") -> None:
        super().__init__()
        self.setPlaceholderText(without)
        self._whole = whole
        self.problem = ""
        """Why the text is not taken, empty where it is."""
        self._bounds = low, high
        self._value: float | None = None
        self.editingFinished.connect(self.commit)
        self.textEdited.connect(self._unmark)

    def set_bounds(self, low: float, high: float) -> None:
        """Take numbers between other bounds from now on."""
        self._bounds = low, high

    def show_value(self, value: float | None) -> None:
        """Show a number, or nothing, in place of what is there."""
        self._value = value
        digits = "" if value is None else str(value) if self._whole else f"{value:.15g}"
        self.setText(digits.replace(".", self._point))
        self.setCursorPosition(0)
        self._mark("")

    @property
    def value(self) -> float | None:
        """The number that holds, whatever is being typed."""
        return self._value

    @property
    def being_edited(self) -> bool:
        """Whether there is text that was typed and is not taken, or not yet."""
        return self.isModified()

    def commit(self) -> None:
        """Take what was typed, or mark it where it cannot be taken."""
        if not self.isModified():
            return
        try:
            number = self._typed()
        except SettingsError as refusal:
            self._mark(str(refusal))
            return
        changed = number != self._value
        self.show_value(number)
        if changed:
            self.committed.emit(number)

    def keyPressEvent(self, event: QKeyEvent | None) -> None:
        """Bring the number back on Escape."""
        if event is not None and event.key() == Qt.Key.Key_Escape and self.isModified():
            self.show_value(self._value)
            return
        super().keyPressEvent(event)

    @property
    def _point(self) -> str:
        return str(self.locale().decimalPoint())

    def _typed(self) -> float | None:
        typed = self.text().strip()
        if not typed and self.placeholderText():
            return None
        if self._whole:
            # Not by way of a float, which has no digits for a seed's last ones.
            if not re.fullmatch(r"[+-]?\d+", typed):
                raise SettingsError(f"{self.text()!r} is no whole number; type one like 25")
            number: float = int(typed)
        else:
            number = number_from(self.text(), self._point)
        low, high = self._bounds
        if number <= 0 < low:
            raise SettingsError(f"{self.text()!r} is not above 0; type a number that is")
        if not low <= number <= high:
            raise SettingsError(
                f"{self.text()!r} is not between {_plain(low)} and {_plain(high)}; "
                "type a number that is"
            )
        return number

    def _unmark(self) -> None:
        """Take a mark away as soon as what is typed could be taken."""
        if not self.problem:
            return
        try:
            self._typed()
        except SettingsError:
            return
        self._mark("")

    def _mark(self, problem: str) -> None:
        if problem == self.problem:
            return
        self.problem = problem
        self.setStyleSheet(_MARKED if problem else "")
        self.marked.emit()


def _plain(number: float) -> str:
    """Write a bound as one says it: 0.000001, 1,000,000."""
    return f"{number:,.6f}".rstrip("0").rstrip(".")
