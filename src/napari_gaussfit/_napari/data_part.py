"""The part of the panel that says what is fitted: layer, time, spacing, region, starting points."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from magicgui.widgets import ComboBox, FloatSpinBox, SpinBox
from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QAbstractSpinBox,
    QComboBox,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from napari_gaussfit._napari import source as sources
from napari_gaussfit._napari.arranging import LABELS, Form, native_of
from napari_gaussfit._napari.histogram import Histogram

if TYPE_CHECKING:
    from napari.layers import Image, Layer, Points
    from napari.viewer import Viewer
    from numpy.typing import NDArray

    from napari_gaussfit._napari.preview import Preview
    from napari_gaussfit._napari.source import Source
    from napari_gaussfit.field import GaussianField

__all__ = ["DataPart"]

UNITS = (("µm", "micrometer"), ("nm", "nanometer"), ("mm", "millimeter"), ("px", "pixel"))
_AXIS_NAMES = {"t": "Time", "c": "Channel"}


class DataPart(QWidget):
    """Chooses a stack among a viewer's layers, and what of it is fitted.

    Parameters
    ----------
    viewer : napari.Viewer
        Whose layers there are to choose from.
    """

    changed = Signal()
    """Another layer, time, region, or another spacing of it."""

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self._viewer = viewer
        self._watched: Layer | None = None
        self._filling = False
        self._offered: tuple[float, float, float] | None = None
        self._layer = ComboBox(
            label="Image",
            choices=self._images,
            nullable=True,
            tooltip="The layer to fit: an image with axes z, y, x. Others are not listed.",
        )
        self._places: list[SpinBox] = []
        self._place_form = Form()
        self._sizes = [
            FloatSpinBox(
                name=axis, min=1e-6, max=1e6, step=0.01, tooltip=f"Distance of voxels along {axis}."
            )
            for axis in ("z", "y", "x")
        ]
        self._unit = ComboBox(
            choices=UNITS, tooltip="Unit of the spacing. It becomes the layer's own."
        )
        self._region = ComboBox(
            label="Region",
            choices=self._regions,
            nullable=True,
            tooltip="Optional: fit only inside these Shapes (for every z) or Labels.",
        )
        self._points = ComboBox(
            label="Start from",
            choices=self._point_layers,
            nullable=True,
            tooltip="Optional: points where Gaussians must begin, or the points of an earlier fit.",
        )
        self._warning = QLabel()
        self._warning.setObjectName("spacing_warning")
        self._warning.setWordWrap(True)
        self._warning.setContentsMargins(4, 0, 4, 0)
        self.offer = QPushButton()
        self.offer.setToolTip("Give the layer the spacing that its file says it has.")
        self.offer.clicked.connect(self._take_offer)
        self._histogram = Histogram()
        self._lay_out()
        self._layer.changed.connect(self._choose)
        self._region.changed.connect(self._announce)
        self._points.changed.connect(self._announce)
        for size in self._sizes:
            size.changed.connect(self._set_spacing)
        self._unit.changed.connect(self._set_spacing)
        layers = viewer.layers.events
        self._layer_events = (layers.inserted, layers.removed, layers.reordered, layers.renamed)
        for emitter in self._layer_events:
            emitter.connect(self.reset_choices)
        self.reset_choices()
        self._choose()

    def _lay_out(self) -> None:
        spacing = QHBoxLayout()
        label = QLabel("Spacing")
        label.setToolTip("Distances of voxels along z, y and x, and their unit.")
        label.setFixedWidth(LABELS)
        spacing.addWidget(label)
        for control in (*self._sizes, self._unit):
            spacing.addWidget(native_of(control), 1)
        spacing.setContentsMargins(4, 0, 4, 0)
        spacing.setSpacing(4)
        for size in self._sizes:
            size.native.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
            size.native.setButtonSymbols(QAbstractSpinBox.ButtonSymbols.NoButtons)
        self._unit.native.setMinimumWidth(68)
        form, more = Form(self._layer), Form(self._region, self._points)
        self._box = box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(2)
        for choice in (self._layer, self._region, self._points):
            # Names of layers are long; the panel is not.
            choice.native.setMinimumContentsLength(8)
            choice.native.setSizeAdjustPolicy(
                QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
            )
        box.addWidget(form)
        box.addWidget(self._place_form)
        box.addLayout(spacing)
        box.addWidget(self._warning)
        box.addWidget(self.offer)
        box.addWidget(self._histogram)
        box.addWidget(more)

    @property
    def layer(self) -> Image | None:
        """The chosen layer."""
        chosen: Image | None = self._layer.value
        return chosen

    @layer.setter
    def layer(self, layer: Image) -> None:
        self._layer.value = layer

    @property
    def start_from(self) -> Points | None:
        """The points to start from, None where none are chosen."""
        chosen: Points | None = self._points.value
        return chosen

    @start_from.setter
    def start_from(self, points: Points | None) -> None:
        self._points.value = points

    def source(self) -> Source | None:
        """Return the chosen stack, None where none is chosen.

        Raises
        ------
        StackError
            If it cannot be fitted.
        """
        layer = self.layer
        if layer is None:
            return None
        region = self._region.value
        mask = None if region is None else sources.mask_of(region, layer)
        return sources.source_of(layer, [axis.value for axis in self._places], mask)

    def start(self, source: Source) -> tuple[GaussianField | None, NDArray[Any] | None]:
        """Return Gaussians or positions to start from, each None where not chosen."""
        from napari_gaussfit._napari.edited import fit_of_layer
        from napari_gaussfit._napari.layers import METADATA

        points, layer = self._points.value, self.layer
        if points is None or layer is None:
            return None, None
        if points.metadata.get(METADATA, {}).get("fit") is None:
            return None, sources.positions_of(points, layer, source)
        return fit_of_layer(points).field, None

    def show_preview(self, preview: Preview | None) -> None:
        """Show the intensities of the chosen stack, or none."""
        self._histogram.show_preview(preview)

    def reset_choices(self, _event: object = None) -> None:
        """Offer the layers that there are now; take the newest image where none was chosen."""
        before = self.layer
        for box in (self._layer, self._region, self._points):
            box.reset_choices()
        images = self._images()
        if self.layer is None and images:
            self._layer.value = images[-1]
        if self.layer != before:
            self._choose()

    def close_down(self) -> None:
        """Listen to no layer any more."""
        for emitter in self._layer_events:
            emitter.disconnect(self.reset_choices)
        self._watch(None)

    def _images(self, _widget: object = None) -> list[Layer]:
        ours = ("data MIP", "fit MIP", "residual MIP")
        return [
            one
            for one in self._viewer.layers
            if sources.is_stack(one) and not one.name.endswith(ours)
        ]

    def _regions(self, _widget: object = None) -> list[Layer]:
        from napari.layers import Labels, Shapes

        return [one for one in self._viewer.layers if isinstance(one, (Labels, Shapes))]

    def _point_layers(self, _widget: object = None) -> list[Layer]:
        from napari.layers import Points

        return [one for one in self._viewer.layers if isinstance(one, Points) and one.ndim >= 3]

    def _choose(self, _value: object = None) -> None:
        layer = self.layer
        self._watch(layer)
        before = 0 if layer is None else layer.data.ndim - 3
        self._places = [self._place(layer, n) for n in range(before) if layer is not None]
        old, self._place_form = self._place_form, Form(*self._places)
        self._box.replaceWidget(old, self._place_form)
        old.hide()
        old.deleteLater()
        self._show_spacing()

    def _place(self, layer: Image, axis: int) -> SpinBox:
        label = str(layer.axis_labels[axis])
        steps = self._viewer.dims.current_step
        size = int(layer.data.shape[axis])
        place = SpinBox(
            label=_AXIS_NAMES.get(label.lower(), label),
            value=min(int(steps[len(steps) - layer.ndim + axis]), size - 1),
            max=size - 1,
            tooltip="A fit takes one of them.",
        )
        place.changed.connect(self._announce)
        return place

    def _watch(self, layer: Image | None) -> None:
        if self._watched is not None:
            self._watched.events.scale.disconnect(self._show_spacing)
            self._watched.events.units.disconnect(self._show_spacing)
        self._watched = layer
        if layer is not None:
            layer.events.scale.connect(self._show_spacing)
            layer.events.units.connect(self._show_spacing)

    def _show_spacing(self, _event: object = None) -> None:
        """Show the layer's spacing; warn while it is unknown, and offer what its file says."""
        layer, self._filling = self.layer, True
        known = None if layer is None else sources.known_spacing(layer)
        for size, n in zip(self._sizes, (-3, -2, -1), strict=True):
            size.enabled = layer is not None
            if layer is not None:
                size.value = known[n] if known else abs(float(layer.scale[n]))
        self._unit.enabled = layer is not None
        self._unit.value = "micrometer" if known else "pixel"
        self._filling = False
        unknown = layer is not None and known is None
        self._offered = sources.file_spacing(layer) if unknown and layer is not None else None
        self._warning.setText(
            "⚠ The spacing is unknown: sizes come out in pixels. "
            "Set it above, in micrometers, before you fit."
        )
        self._warning.setVisible(unknown)
        if self._offered is not None:
            self.offer.setText("Use its file's {:g} × {:g} × {:g} µm".format(*self._offered))
        self.offer.setVisible(self._offered is not None)
        self._announce()

    def _set_spacing(self, _value: object = None) -> None:
        layer = self.layer
        if layer is None or self._filling:
            return
        dz, dy, dx = (float(size.value) for size in self._sizes)
        sources.set_spacing(layer, (dz, dy, dx), str(self._unit.value))

    def _take_offer(self) -> None:
        if self.layer is not None and self._offered is not None:
            sources.set_spacing(self.layer, self._offered)

    def _announce(self, _value: object = None) -> None:
        self.changed.emit()
