"""The part of the panel that says which time (or channel) of a layer is fitted: the one in view."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QSignalBlocker, Signal
from qtpy.QtWidgets import QFormLayout, QLabel, QSpinBox, QWidget

from napari_gaussfit._napari.layers.source import axis_name
from napari_gaussfit._napari.layers.times import bring_into_view, index_in_view
from napari_gaussfit._napari.panel.widgets import LABELS, wheel_needs_focus

if TYPE_CHECKING:
    from napari.layers import Image
    from napari.viewer import Viewer

__all__ = ["PlacePart"]


class PlacePart(QWidget):
    """A box for each axis of a layer before z, y and x, which goes with the viewer's slider.

    Parameters
    ----------
    viewer : napari.Viewer
        Whose sliders follow the boxes, and move them.
    """

    changed = Signal()
    """Another place."""

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self._viewer = viewer
        self._layer: Image | None = None
        self._boxes: list[QSpinBox] = []
        self._rows = QFormLayout(self)
        self._rows.setContentsMargins(4, 0, 4, 0)
        self._rows.setSpacing(4)
        self._rows.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        viewer.dims.events.point.connect(self._follow)

    @property
    def indices(self) -> tuple[int, ...]:
        """The index along each of the axes before z, y and x."""
        return tuple(box.value() for box in self._boxes)

    def show_layer(self, layer: Image | None) -> None:
        """Offer the places of a layer, the one in view first."""
        while self._rows.rowCount():
            self._rows.removeRow(0)
        self._layer = layer
        shape = () if layer is None else layer.data.shape[:-3]
        self._boxes = [self._box(size) for size in shape]
        for axis, box in enumerate(self._boxes):
            label = QLabel("" if layer is None else axis_name(layer, axis).capitalize())
            label.setMinimumWidth(LABELS)
            label.setToolTip(box.toolTip())
            self._rows.addRow(label, box)
        self._follow()

    def close_down(self) -> None:
        """Listen to the viewer no more."""
        self._viewer.dims.events.point.disconnect(self._follow)

    def _box(self, size: int) -> QSpinBox:
        box = QSpinBox()
        box.setMaximum(size - 1)
        # Who types 12 does not mean 1 on the way.
        box.setKeyboardTracking(False)
        box.setToolTip("The one that is in view is fitted; napari's slider goes with this box.")
        box.valueChanged.connect(self._lead)
        wheel_needs_focus(box)
        return box

    def _follow(self, _event: object = None) -> None:
        """Take what the viewer shows."""
        layer = self._layer
        before, dims = self.indices, self._viewer.dims
        # The viewer hears first that a layer is gone, or has fewer axes.
        if layer is None or layer.ndim != len(self._boxes) + 3 or layer.ndim > dims.ndim:
            return
        for axis, box in enumerate(self._boxes):
            with QSignalBlocker(box):
                box.setValue(index_in_view(layer, axis, dims))
        if self.indices != before:
            self.changed.emit()

    def _lead(self) -> None:
        """Have the viewer show what was chosen."""
        if self._layer is None:
            return
        for axis, index in enumerate(self.indices):
            bring_into_view(self._layer, axis, index, self._viewer.dims)
        self.changed.emit()
