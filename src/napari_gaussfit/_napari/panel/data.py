"""The part of the panel that says what is fitted: layer, time, spacing, region, starting points."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QLabel, QVBoxLayout, QWidget

from napari_gaussfit._napari.layers import source as sources
from napari_gaussfit._napari.layers.channels import channel_axis, joined
from napari_gaussfit._napari.layers.placement import METADATA, OF
from napari_gaussfit._napari.layers.times import Recording, time_axis
from napari_gaussfit._napari.panel.channels import ChannelsPart
from napari_gaussfit._napari.panel.histogram import Histogram
from napari_gaussfit._napari.panel.layer_box import LayerBox
from napari_gaussfit._napari.panel.place import PlacePart
from napari_gaussfit._napari.panel.spacing import SpacingPart
from napari_gaussfit._napari.panel.times import TimesPart
from napari_gaussfit._napari.panel.widgets import Form
from napari_gaussfit.errors import SettingsError

if TYPE_CHECKING:
    import numpy as np
    from napari.layers import Image, Layer, Points
    from napari.utils.events import Event, EventEmitter
    from napari.viewer import Viewer
    from numpy.typing import NDArray

    from napari_gaussfit._napari.layers.source import Source
    from napari_gaussfit._napari.panel.preview import Preview
    from napari_gaussfit.model.field import GaussianField

__all__ = ["DataPart"]

_NO_STACK = "Open a stack, or drop its file here: an image with axes z, y, x."


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
        self._heard: list[EventEmitter] = []
        self._layer = LayerBox(
            _refusal_of_image,
            tip="The layer to fit: an image with axes z, y, x. "
            "Those that cannot be fitted are listed with the reason.",
        )
        self.edition = 0
        """Counts the changes of what layers hold: the same array may have other voxels."""

        self._place = PlacePart(viewer)
        self.times = TimesPart()
        self.channels = ChannelsPart()
        self.spacing = SpacingPart(viewer)
        self._region = LayerBox(
            _refusal_of_region,
            nothing="whole stack",
            tip="Optional: fit only inside these Shapes (for every z and time) or Labels.",
        )
        self._points = LayerBox(
            _refusal_of_points,
            nothing="the stack itself",
            tip="Optional: points where Gaussians must begin, or the points of an earlier fit.",
        )
        self._words = QLabel()
        self._words.setObjectName("stack_words")
        self._words.setWordWrap(True)
        self._words.setContentsMargins(4, 0, 4, 0)
        self._histogram = Histogram()
        self._lay_out()
        self._layer.chosen.connect(self._choose)
        for part in (self._region.chosen, self._points.chosen):
            part.connect(self.changed)
        self.times.changed.connect(self.changed)
        self.channels.changed.connect(self.changed)
        self._place.changed.connect(self._move)
        self.spacing.changed.connect(self.changed)
        layers = viewer.layers.events
        self._layer_events = (layers.inserted, layers.removed, layers.reordered, layers.renamed)
        for emitter in self._layer_events:
            emitter.connect(self.reset_choices)
        self.reset_choices()

    def _lay_out(self) -> None:
        form, more = Form(), Form()
        form.add_row("Image", self._layer)
        more.add_row("Region", self._region)
        more.add_row("Start from", self._points)
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(2)
        for part in (form, self._words, self._place, self.times, self.channels, self.spacing):
            box.addWidget(part)
        box.addWidget(self._histogram)
        box.addWidget(more)

    @property
    def layer(self) -> Image | None:
        """The chosen layer."""
        chosen: Image | None = self._layer.layer
        return chosen

    @layer.setter
    def layer(self, layer: Image) -> None:
        self._layer.layer = layer

    @property
    def start_from(self) -> Points | None:
        """The points to start from, None where none are chosen."""
        chosen: Points | None = self._points.layer
        return chosen

    @start_from.setter
    def start_from(self, points: Points | None) -> None:
        self._points.layer = points

    @property
    def choices(self) -> tuple[Any, Any, Layer | None]:
        """Which times, channels and region of the layer are chosen."""
        return self.times.choices, self.channels.choices, self._region.layer

    @choices.setter
    def choices(self, choices: tuple[Any, Any, Layer | None]) -> None:
        self.times.choices, self.channels.choices, region = choices
        if region in self._region.choices:
            self._region.layer = region

    def source(self) -> Source | None:
        """Return the chosen stack, None where none is chosen; with its channels, if several.

        Raises
        ------
        StackError
            If it cannot be fitted.
        SettingsError
            If what is typed as its spacing is none.
        """
        layer = self.layer
        if layer is None:
            return None
        if self.spacing.problem:
            raise SettingsError(f"spacing: {self.spacing.problem}")
        self.times.times()  # refuses what is none
        place, mask = self._place.indices, self.marked()
        chosen, together = sources.source_of(layer, place, mask), self.chosen()
        if len(together) < 2:
            return chosen
        parts = [
            chosen if other == layer and at == place else sources.source_of(other, at, mask)
            for other, at in together
        ]
        return replace(chosen, channels=joined(parts).channels)

    def chosen(self) -> list[tuple[Image, tuple[int, ...]]]:
        """Return what is fitted together: layers, with their indices along axes before z, y, x."""
        layer = self.layer
        axis = None if layer is None else channel_axis(layer)
        found = []
        for other, channel in self.channels.fitted:
            at = list(self._place.indices)
            if axis is not None and channel is not None:
                at[axis] = channel
            found.append((other, tuple(at)))
        return found

    def marked(self) -> NDArray[np.bool_] | None:
        """Return where to fit, None where everywhere."""
        region, layer = self._region.layer, self.layer
        if region is None or layer is None:
            return None
        return sources.mask_of(region, layer, self._place.indices)

    def recording(self, source: Source) -> Recording | None:
        """Return the times that are fitted one after the other, None where it is but one.

        Raises
        ------
        StackError
            If the first of them cannot be fitted.
        """
        times = self.times.times()
        if len(times) < 2:
            return None
        found = Recording(joined(source.parts), times, self.marked())
        return replace(found, first=found.at(times[0]))

    def start(self, source: Source) -> tuple[tuple[GaussianField, ...], NDArray[Any] | None]:
        """Return Gaussians, a field a channel, or positions to start from, as far as chosen.

        Raises
        ------
        SettingsError
            If the Gaussians are of another number of channels.
        """
        from napari_gaussfit._napari.layers.edited import fit_of_layer

        points, layer = self.start_from, self.layer
        if points is None or layer is None:
            return (), None
        if points.metadata.get(METADATA, {}).get("fit") is None:
            return (), sources.positions_of(points, layer, source)
        fields, count = fit_of_layer(points).fields, len(source.stacks)
        if len(fields) != count:
            raise SettingsError(
                f"the points {points.name!r} are of {len(fields)} channel(s), {count} are fitted; "
                "tick as many under Channels, or start from the stack itself"
            )
        return fields, None

    def show_preview(self, preview: Preview | None) -> None:
        """Show the intensities of the chosen stack, or none."""
        self._histogram.show_preview(preview)

    def show_words(self, source: Source | None, refusal: str = "") -> None:
        """Say what is assumed of the chosen stack, or why it cannot be fitted."""
        if source is not None:
            words = "\n".join(f"Note: {note}." for note in source.stack.notes)
        elif self.spacing.problem or (self._layer.choices and not refusal):
            words = ""  # The first stands beside the spacing; the second was chosen.
        elif refusal:
            words = f"⚠ {refusal}"
        else:
            refused = self._layer.refused
            words = f"⚠ {refused[-1]}" if refused else _NO_STACK
        self._words.setText(words)
        self._words.setVisible(bool(words))
        # Its place is kept until the intensities are known: nothing moves under the mouse.
        self._histogram.setVisible(source is not None)

    def reset_choices(self, _event: object = None) -> None:
        """Offer the layers that there are now; take the newest image where none was chosen."""
        self._hear(list(self._viewer.layers))
        for box in (self._layer, self._region, self._points):
            box.show_layers(self._viewer.layers)
        # What a fit has rendered can be fitted, but is never taken unasked.
        images = [layer for layer in self._layer.choices if not _is_of_a_fit(layer)]
        if self.layer is None and images:
            self._layer.layer = images[-1]
        self._show_channels()
        if self.layer is None:
            self.changed.emit()  # With nothing to fit, the reasons are what is shown.

    def close_down(self) -> None:
        """Listen to no layer any more."""
        for emitter in self._layer_events:
            emitter.disconnect(self.reset_choices)
        self._hear([])
        self._place.close_down()
        self.spacing.show_layer(None)

    def _choose(self) -> None:
        self._place.show_layer(self.layer)
        layer = self.layer
        axis = None if layer is None else time_axis(layer)
        self.times.show_count(1 if layer is None or axis is None else layer.data.shape[axis])
        self._show_channels()
        self.spacing.show_layer(self.layer)

    def _move(self) -> None:
        """Take another place: of its axis of channels, the one in view is fitted."""
        self._show_channels()
        self.changed.emit()

    def _show_channels(self) -> None:
        self.channels.show_layer(self.layer, self._viewer.layers, self._place.indices)

    def _hear(self, layers: list[Layer]) -> None:
        """Hear when these layers, and no others, get other voxels or names of axes."""
        from napari.layers import Image

        for emitter in self._heard:
            emitter.disconnect(self._look_again)
        # A fit's own pictures change all the time.
        images = [layer for layer in layers if isinstance(layer, Image) and not _is_of_a_fit(layer)]
        self._heard = [layer.events.axis_labels for layer in images]
        self._heard += [layer.events.data for layer in images]
        for emitter in self._heard:
            emitter.connect(self._look_again)

    def _look_again(self, event: Event) -> None:
        self.edition += 1
        before = self.layer
        self.reset_choices()
        if self.layer == before == event.source:
            self._choose()


def _is_of_a_fit(layer: Layer) -> bool:
    """Tell whether a layer was made of a fit."""
    return OF in layer.metadata.get(METADATA, {})


def _refusal_of_image(layer: Layer) -> str | None:
    """Say why a layer cannot be fitted; nothing of layers that hold no voxels, or are a fit's."""
    from napari.layers import Image, Labels

    if not isinstance(layer, (Image, Labels)) or (_is_of_a_fit(layer) and layer.ndim < 3):
        return None
    return sources.refusal_of(layer)


def _refusal_of_region(layer: Layer) -> str | None:
    from napari.layers import Labels, Shapes

    return "" if isinstance(layer, (Labels, Shapes)) else None


def _refusal_of_points(layer: Layer) -> str | None:
    from napari.layers import Points

    if not isinstance(layer, Points) or (_is_of_a_fit(layer) and layer.ndim < 3):
        return None
    return "" if layer.ndim >= 3 else "has points in 2D; a start needs z, y and x"
