"""The part of the panel that shows a layer's spacing, and gives it another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QComboBox,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from napari_gaussfit._napari.layers import spacing as spacings
from napari_gaussfit._napari.layers.spacing import PIXEL
from napari_gaussfit._napari.panel.number_field import NumberField
from napari_gaussfit._napari.panel.widgets import LABELS, wheel_needs_focus

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.layers import Layer
    from napari.viewer import Viewer

__all__ = ["SpacingPart"]

UNITS = {"micrometer": "µm", "nanometer": "nm", "millimeter": "mm", PIXEL: "px"}

_BOUNDS = 1e-6, 1e6
"""Of a size in any of the units, which is as far as anything that is seen through a lens."""

_UNKNOWN = (
    "⚠ The spacing is unknown: sizes come out in pixels. "
    "Type it above, and choose its unit, before you fit."
)


class SpacingPart(QWidget):
    """Distances of voxels along z, y and x, with their unit.

    Parameters
    ----------
    viewer : napari.Viewer
        Where the layers are; what lies on the voxels of one follows it.
    """

    changed = Signal()
    """Another spacing, or another `problem`."""

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self._viewer = viewer
        self._layer: Layer | None = None
        self._offered: tuple[spacings.Spacing, str] | None = None
        self.fields = {axis: self._field(name) for name, axis in (("z", -3), ("y", -2), ("x", -1))}
        self.unit = QComboBox()
        self.unit.setToolTip(
            "Unit of the spacing, and of the layer. A length stays as long as it is; "
            "to or from px, the numbers stay."
        )
        self.unit.setMinimumWidth(68)
        self.unit.activated.connect(self._take_unit)
        wheel_needs_focus(self.unit)
        self._warning = QLabel()
        self._warning.setObjectName("spacing_warning")
        self._warning.setWordWrap(True)
        self._warning.setContentsMargins(4, 0, 4, 0)
        self.offer = QPushButton()
        self.offer.setToolTip("Give the layer the spacing that its file says it has.")
        self.offer.clicked.connect(self._take_offer)
        self._lay_out()
        self.show_layer(None)

    def _field(self, name: str) -> NumberField:
        field = NumberField(*_BOUNDS)
        field.setObjectName(f"spacing_{name}")
        field.setToolTip(f"Distance of voxels along {name}. Enter takes it, Escape leaves it.")
        field.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        field.committed.connect(self._take_size)
        field.marked.connect(self._warn)
        return field

    def _lay_out(self) -> None:
        row = QHBoxLayout()
        label = QLabel("Spacing")
        label.setToolTip("Distances of voxels along z, y and x, and their unit.")
        label.setFixedWidth(LABELS)
        for widget in (label, *self.fields.values(), self.unit):
            row.addWidget(widget, 0 if widget is label else 1)
        row.setContentsMargins(4, 0, 4, 0)
        row.setSpacing(4)
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(2)
        box.addLayout(row)
        box.addWidget(self._warning)
        box.addWidget(self.offer)

    @property
    def problem(self) -> str:
        """Why what is typed cannot be taken, empty where it can."""
        return next((field.problem for field in self.fields.values() if field.problem), "")

    def commit(self) -> None:
        """Take what is typed and not taken yet."""
        for field in self.fields.values():
            field.commit()

    def show_layer(self, layer: Layer | None) -> None:
        """Show a layer's spacing from now on."""
        if self._layer is not None:
            self._layer.events.scale.disconnect(self._show)
            self._layer.events.units.disconnect(self._show)
        self._layer = layer
        for field in self.fields.values():
            field.show_value(None)
            field.setEnabled(layer is not None)
        self.unit.setEnabled(layer is not None)
        if layer is not None:
            layer.events.scale.connect(self._show)
            layer.events.units.connect(self._show)
        self._show()

    def _show(self, _event: object = None) -> None:
        """Show the layer's spacing; warn while it is unknown, and offer what its file says."""
        layer = self._layer
        if layer is not None:
            sizes, unit = spacings.shown_spacing(layer)
            for field, size in zip(self.fields.values(), sizes, strict=True):
                if not field.being_edited:
                    field.show_value(size)
            self._show_unit(unit)
        self._offered = None if layer is None else self._offer_for(layer)
        if self._offered is not None:
            (dz, dy, dx), unit = self._offered
            self.offer.setText(f"Use its file's {dz:g} × {dy:g} × {dx:g} {UNITS[unit]}")
        self.offer.setVisible(self._offered is not None)
        self._warn()

    def _offer_for(self, layer: Layer) -> tuple[spacings.Spacing, str] | None:
        """Return what the file of a layer without a known spacing says, where that is more."""
        if spacings.known_spacing(layer) is not None:
            return None
        offered = spacings.file_spacing(layer)
        return None if offered == spacings.shown_spacing(layer) else offered

    def _show_unit(self, unit: str) -> None:
        names = list(UNITS) if unit in UNITS else [*UNITS, unit]
        self.unit.clear()
        for name in names:
            self.unit.addItem(UNITS.get(name, name), name)
        self.unit.setCurrentIndex(names.index(unit))

    def _warn(self) -> None:
        unknown = self._layer is not None and spacings.known_spacing(self._layer) is None
        words = f"⚠ Spacing: {self.problem}" if self.problem else _UNKNOWN if unknown else ""
        self._warning.setText(words)
        self._warning.setVisible(bool(words))
        self.changed.emit()

    def _take_size(self, size: float) -> None:
        """Give the layer the size of the axis whose field was edited, and of no other."""
        [axis] = [axis for axis, field in self.fields.items() if field is self.sender()]
        unit = str(self.unit.currentData())
        self._change(lambda layer, others: spacings.set_size(layer, axis, size, unit, others))

    def _take_unit(self) -> None:
        unit = str(self.unit.currentData())
        self._change(lambda layer, others: spacings.set_unit(layer, unit, others))

    def _take_offer(self) -> None:
        offered = self._offered
        if offered is not None:
            self._change(lambda layer, others: spacings.set_spacing(layer, *offered, others))

    def _change(self, change: Callable[[Layer, list[Layer]], None]) -> None:
        """Change the layer, and show it as before: the same planes, as large as the window."""
        if self._layer is None:
            return
        steps = self._viewer.dims.current_step
        change(self._layer, list(self._viewer.layers))
        self._viewer.dims.current_step = steps
        self._viewer.reset_view(reset_camera_angle=False)
