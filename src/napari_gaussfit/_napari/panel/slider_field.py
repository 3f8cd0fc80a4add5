"""A number that a slider sets live, and that can be typed beside it. Knows no panel."""

from __future__ import annotations

import math

from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtWidgets import QHBoxLayout, QSizePolicy, QSlider, QWidget

from napari_gaussfit._napari.panel.number_field import NumberField

__all__ = ["SliderField"]

STEPS = 200
"""Of the slider, from end to end."""

DIGITS = 3
"""Of the numbers that it sets; what is typed keeps all of its own."""

FIELD_WIDTH = 72


class SliderField(QWidget):
    """A slider with a field, which show the same number.

    Parameters
    ----------
    low, high : float
        The ends of the slider.
    most : float, optional
        The largest number that can be typed; the slider's end if None.
    logarithmic : bool
        Whether a step multiplies.
    tip : str
        The tooltip of the slider and of its number.
    """

    moved = Signal(float)
    """The number, while the slider moves and when one was typed."""

    def __init__(
        self,
        low: float,
        high: float,
        *,
        most: float | None = None,
        logarithmic: bool = False,
        tip: str = "",
    ) -> None:
        super().__init__()
        self._ends = low, high
        self._logarithmic = logarithmic
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.slider.setRange(0, STEPS)
        self.slider.setPageStep(STEPS // 10)
        self.field = NumberField(low if logarithmic else min(low, 0.0), most or high)
        self.field.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        self.field.setFixedWidth(FIELD_WIDTH)
        box = QHBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(4)
        box.addWidget(self.slider, 1)
        box.addWidget(self.field)
        self.setToolTip(tip)
        for part in (self.slider, self.field):
            part.setToolTip(tip)
        self.slider.valueChanged.connect(self._take_step)
        self.field.committed.connect(self._take_typed)
        self.show_value(low)

    @property
    def value(self) -> float:
        """The number that holds."""
        return self.field.value or 0.0

    def show_value(self, value: float) -> None:
        """Show a number; nobody is told."""
        self.field.show_value(value)
        self._show_step()

    def show_nothing(self) -> None:
        """Show no number: none is known yet."""
        self.field.show_value(None)

    def set_ends(self, low: float, high: float, most: float) -> None:
        """Give the slider other ends, the field another largest number, and both their number."""
        self._ends = low, high
        self.field.set_bounds(low if self._logarithmic else min(low, 0.0), most)
        self._show_step()

    def _show_step(self) -> None:
        low, high = (self._scaled(end) for end in self._ends)
        step = round(STEPS * (self._scaled(max(self.value, 1e-12)) - low) / (high - low))
        with QSignalBlocker(self.slider):
            self.slider.setValue(min(max(step, 0), STEPS))

    def _take_step(self, step: int) -> None:
        low, high = (self._scaled(end) for end in self._ends)
        value = low + step / STEPS * (high - low)
        value = math.exp(value) if self._logarithmic else value
        self.field.show_value(float(f"{value:.{DIGITS}g}"))
        self.moved.emit(self.value)

    def _take_typed(self, value: float) -> None:
        self._show_step()
        self.moved.emit(value)

    def _scaled(self, value: float) -> float:
        return math.log(value) if self._logarithmic else value
