"""The part of the panel that chooses the view whose projections are shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from magicgui.widgets import ComboBox, FloatSlider
from qtpy.QtCore import QSignalBlocker, Signal
from qtpy.QtWidgets import QComboBox, QVBoxLayout, QWidget

from napari_gaussfit._napari.panel.widgets import Form
from napari_gaussfit.jobs.pictures import ViewChoice

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ViewPart"]

_ORBIT = -1


class ViewPart(QWidget):
    """An axis, or the angles of an orbit; and which of several channels."""

    changed = Signal(object)
    """The new `ViewChoice`."""

    def __init__(self) -> None:
        super().__init__()
        self._way = ComboBox(
            label="Projections",
            choices=[
                ("along z (from above)", 0),
                ("along y (from the front)", 1),
                ("along x (from the side)", 2),
                ("from an angle", _ORBIT),
            ],
            value=0,
            tooltip="Which way the maximum projections of data and fit look.",
        )
        self._azimuth = FloatSlider(
            label="Azimuth",
            min=0,
            max=360,
            step=5,
            value=30,
            tooltip="Degrees around the stack's y axis.",
        )
        self._elevation = FloatSlider(
            label="Elevation",
            min=-90,
            max=90,
            step=5,
            value=20,
            tooltip="Degrees above the stack's equator.",
        )
        self._channel = QComboBox()
        self._channel.setObjectName("gaussfit_channel")
        self._channel.setToolTip(
            "Of which channel the projections are: of all in the colours of their layers, or of "
            "one. The residual of several is that of the channel in which it is largest."
        )
        self._channel_row = Form()
        self._channel_row.add_row("Channel", self._channel)
        self._form = Form(self._way, self._azimuth, self._elevation)
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.addWidget(self._channel_row)
        box.addWidget(self._form)
        for control in (self._way, self._azimuth, self._elevation):
            control.changed.connect(self._announce)
        self._channel.currentIndexChanged.connect(self._announce)
        self._show_angles()
        self.show_channels(())

    @property
    def choice(self) -> ViewChoice:
        """The view that is chosen."""
        axis = None if self._way.value == _ORBIT else int(self._way.value)
        # The first of the list is all of them.
        channel = max(self._channel.currentIndex(), 0) - 1 if self._channel.count() else 0
        return ViewChoice(
            axis,
            float(self._azimuth.value),
            float(self._elevation.value),
            None if channel < 0 else channel,
        )

    def show_channels(self, names: Sequence[str]) -> None:
        """Offer several channels, all merged first; of one there is nothing to choose."""
        listed = ["all, merged", *names] if len(names) > 1 else []
        if [self._channel.itemText(n) for n in range(self._channel.count())] != listed:
            with QSignalBlocker(self._channel):
                self._channel.clear()
                self._channel.addItems(listed)
        self._channel_row.setVisible(bool(listed))

    def look_along(self, axis: int) -> None:
        """Choose the view along an axis: 0, 1, 2 for z, y, x."""
        self._way.value = axis

    def look_from(self, azimuth: float, elevation: float) -> None:
        """Choose an orbit's view."""
        self._way.value = _ORBIT
        self._azimuth.value, self._elevation.value = azimuth, elevation

    def look_at_channel(self, channel: int | None) -> None:
        """Choose one of the channels that are offered, or all."""
        if self._channel.count():
            self._channel.setCurrentIndex(0 if channel is None else channel + 1)

    def _announce(self, _value: object = None) -> None:
        self._show_angles()
        self.changed.emit(self.choice)

    def _show_angles(self) -> None:
        on_orbit = self._way.value == _ORBIT
        for slider in (self._azimuth, self._elevation):
            self._form.show_row(slider, shown=on_orbit)
