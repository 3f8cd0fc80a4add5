"""Layers that follow a fit: centres, and the pictures of data and fit beside the stack.

They are made once and then kept up in place. One that the user hides is left alone until it shows
again; one that the user deletes stays deleted. Knows no worker and no panel.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QTimer

from napari_gaussfit._napari.layers.hidden import set_points, slice_hidden
from napari_gaussfit._napari.layers.looking import Framing
from napari_gaussfit._napari.layers.looks import move_points, remember_looks
from napari_gaussfit._napari.layers.pictures import (
    CAPTIONS,
    PICTURES,
    WORDS,
    channel_colours,
    pictures_of,
)
from napari_gaussfit._napari.layers.placement import METADATA
from napari_gaussfit._napari.layers.source import mark
from napari_gaussfit._napari.layers.unwrapped import is_same

if TYPE_CHECKING:
    from napari.layers import Layer, Points
    from napari.utils.events import Event
    from napari.viewer import Viewer
    from qtpy.QtCore import QObject

    from napari_gaussfit._napari.layers.pictures import LayerData
    from napari_gaussfit._napari.layers.source import Source
    from napari_gaussfit.fitting.result import FitResult
    from napari_gaussfit.jobs.pictures import MipPair, ViewChoice
    from napari_gaussfit.model.field import GaussianField

    Fields = tuple[GaussianField, ...]
    """Of each channel."""

__all__ = ["CENTRES", "LiveLayers"]

COLOUR_SECONDS = 2.0
"""Between two updates of sizes and colours, which cost more than positions."""

SOON_MS = 40
"""Between two layers made for a fit at rest: to make one takes the window a sixth of a second."""

CENTRES = "centres"
"""What follows the stack's name in that of the points."""


class LiveLayers:
    """The layers of one fit.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer to which the layers are added.
    source : Source
        What is fitted: their names, transforms and contrast are its own.
    keeper : QObject
        With it ends the making of layers: napari destroys it with the window, unasked.
    """

    def __init__(self, viewer: Viewer, source: Source, keeper: QObject) -> None:
        self.source = source
        self._viewer = viewer
        self._layers: dict[str, Layer] = {}
        self._deleted: set[str] = set()
        self.ended = False
        """Whether no layer is made any more, since the stack is gone."""

        self._fields: Fields = ()
        self._mips: MipPair | None = None
        self._shown: Fields = ()
        self._coloured = 0.0
        self._framed: ViewChoice | None = None
        self._framing = Framing(viewer)
        self._captioned = 0
        self._making = QTimer(keeper)
        self._making.setSingleShot(True)
        self._making.timeout.connect(self._make_another)
        viewer.layers.events.removed.connect(self._forget)
        events = source.layer.events
        self._moves = (events.scale, events.translate, events.units)
        for emitter in self._moves:
            emitter.connect(self._move_along)

    @property
    def centres(self) -> Points | None:
        """The Points layer, None while there is none or where the user has deleted it."""
        return self._layers.get(CENTRES)

    @property
    def _marked(self) -> Source:
        """What layers are said to be of."""
        return self.source

    @property
    def layers(self) -> list[Layer]:
        """All layers that follow the fit."""
        return list(self._layers.values())

    def layer(self, role: str) -> Layer | None:
        """Return one of the layers by what it is, None where it is not there."""
        return self._layers.get(role)

    @property
    def complete(self) -> bool:
        """Whether every layer has been made, also of those that were deleted since."""
        return not any(self._is_missing(role) for role in (CENTRES, *PICTURES))

    def _is_missing(self, role: str) -> bool:
        """Whether a layer is still to be made."""
        return not self.ended and role not in self._layers and role not in self._deleted

    def restart(self, source: Source) -> None:
        """Follow another fit of the same layer, in the layers that are there."""
        self.source, self.ended = source, False
        self._fields, self._mips = (), None

    def bring_back(self) -> None:
        """Make layers again that a person has deleted: another fit is asked for, or to see one."""
        self._deleted.clear()

    def adopt(self, points: Points) -> None:
        """Take points that are there for the centres, where there are none."""
        for name, value in self.source.placement.keywords().items():
            setattr(points, name, value)
        points.events.visible.connect(self._catch_up)
        points.events.data.connect(_slice_source)
        self._layers[CENTRES] = points

    def make_no_more(self) -> None:
        """Make no layer that is still missing, whatever comes: their stack is gone."""
        self._making.stop()
        self.ended = True
        self._fields, self._mips = (), None

    def close(self) -> None:
        """Follow no more; the layers stay."""
        self.make_no_more()
        self._viewer.layers.events.removed.disconnect(self._forget)
        for emitter in self._moves:
            emitter.disconnect(self._move_along)
        for layer in self._layers.values():
            layer.events.visible.disconnect(self._catch_up)
        self._layers.clear()

    def show(self, fields: Fields) -> bool:
        """Show the Gaussians of a fit that goes on; return whether a layer was made.

        At most one a time is: that takes the window as long as many updates.
        """
        self._fields = self._shown = fields
        layer = self._layers.get(CENTRES)
        if self._is_missing(CENTRES):
            self._make_centres(fields)
            return True
        if layer is not None and layer.visible:
            self._move(layer, fields)
        return self._make_next()

    def settle(self, fit: FitResult) -> None:
        """Show the Gaussians of a fit at rest, with all their measurements, ready to be edited."""
        from napari_gaussfit._napari.layers.gaussians import points_layer

        self._fields, self._shown = (), fit.fields
        self._make_soon()
        if self._is_missing(CENTRES):
            self._make_centres(fit.fields)
        layer = self._layers.get(CENTRES)
        if layer is None:
            return
        data, keywords, _ = points_layer(fit, self.source.placement, name=layer.name)
        chosen = set(layer.selected_data)
        self._move_at_rest(layer, data, fit.fields)
        layer.features = keywords["features"]
        carried = {**layer.metadata.get(METADATA, {}), **keywords["metadata"][METADATA]}
        layer.metadata = {**layer.metadata, METADATA: carried}
        layer.selected_data = {n for n in chosen if n < len(data)}

    def show_mips(self, mips: MipPair) -> None:
        """Show the projections of data and fit for a view, and their difference."""
        other = self._mips is not None and self._mips.view.channel != mips.view.channel
        self._mips = mips
        centres = self._layers.get(CENTRES)
        if other and centres is not None and self._shown:
            colours = self._colours(self._shown)
            if len(colours) == len(centres.data):  # else points were added or deleted by hand
                move_points(centres, lambda: None, centres.data, face_color=colours)
        for role, (data, keywords, _) in pictures_of(mips, self.source).items():
            layer = self._layers.get(role)
            if layer is not None and layer.visible:
                self._redraw(layer, data, keywords)
                if role == CAPTIONS:
                    self._write_captions(layer)
        if not self._fields:
            self._make_soon()

    def _make_soon(self) -> None:
        """Make the layers that a fit at rest still misses, one after another."""
        self._making.start(SOON_MS)

    def _make_another(self) -> None:
        if self._make_next():
            self._make_soon()

    def _make_centres(self, fields: Fields) -> None:
        self._add(CENTRES, self._points(fields))
        self._coloured = time.perf_counter()

    def _make_next(self) -> bool:
        """Make one picture that is missing, and say whether one was."""
        if self._mips is None:
            return False
        for role, layer_data in pictures_of(self._mips, self.source).items():
            if self._is_missing(role):
                self._add(role, layer_data)
                if role == CAPTIONS:
                    self._captioned = 0
                return True
        if self._caption_next():
            return True
        if self._framed != self._mips.view:
            self._framed = self._mips.view
            self._framing.frame(self.layers)
        return False

    def _caption_next(self) -> bool:
        """Show one more caption, and say whether there was one: new letters take long to draw."""
        layer = self._layers.get(CAPTIONS)
        if layer is None or self._captioned == len(WORDS):
            return False
        self._captioned += 1
        self._write_captions(layer)
        return True

    def _write_captions(self, layer: Layer) -> None:
        """Put the words below their pictures; of points that were deleted by hand they are lost."""
        shown = [words if n < self._captioned else "" for n, words in enumerate(WORDS)]
        if len(layer.data) == len(shown) and list(layer.features["picture"]) != shown:
            layer.features = {"picture": shown}

    def _points(self, fields: Fields) -> LayerData:
        """Return the centres alone: measurements come when they change no more."""
        keywords = {
            "size": self._sizes(fields),
            "face_color": self._colours(fields),
            "border_width": 0.0,
            "border_color": "transparent",
            # Added up, so that faint Gaussians, which are wide, hide nothing.
            "blending": "additive",
            "opacity": 0.7,
            "projection_mode": "all",
            **self._transform(),
            # napari's own soft edges take software OpenGL half as long again, and show no more.
            "antialiasing": 0.25,
            # Seen from afar, and no larger than they are from near.
            "canvas_size_limits": (4, 10_000),
        }
        return self._places(fields), keywords, "points"

    def _places(self, fields: Fields) -> Any:
        """Return where the centres' points are, in voxels."""
        return self.source.placement.in_voxels(fields[0].numpy().means)

    def _transform(self) -> dict[str, Any]:
        """Return where these voxels lie in the world."""
        return self.source.placement.keywords()

    def _colours(self, fields: Fields) -> Any:
        """Return colours [K, 4] for the channel that is looked at, or for all."""
        channel = None if self._mips is None else self._mips.view.channel
        return channel_colours(fields, self.source, channel)

    def _sizes(self, fields: Fields) -> Any:
        """Return the geometric mean [K] of a Gaussian's sigmas, in pixels of the last axis."""
        widths = np.exp(fields[0].numpy().log_widths.mean(axis=1))
        return widths / self.source.placement.spacing[-1]

    def _move(self, layer: Points, fields: Fields) -> None:
        carried = layer.metadata.get(METADATA, {})
        if "fit" in carried:
            # Of a fit at rest, which these points are not of.
            left = {name: value for name, value in carried.items() if name != "fit"}
            layer.metadata = {**layer.metadata, METADATA: left}
        now = time.perf_counter()
        # What the list of layers hears of has it painted anew, which costs more than the points.
        with layer.events.data.blocker(), self._viewer.layers.events.blocker_all():
            # Axis by axis: napari looks for the extent several times an update, which takes 1.6 ms
            # of 50,000 points one after another, and a hundredth of it so.
            places, looks = np.asfortranarray(self._places(fields)), {}
            if now - self._coloured > COLOUR_SECONDS:
                self._coloured = now
                looks = self._looks(fields)
            if looks or len(places) != len(layer.data):
                move_points(layer, lambda: setattr(layer, "data", places), places, **looks)
            else:
                layer.data = places

    def _move_at_rest(self, layer: Points, places: Any, fields: Fields) -> None:
        """Put the points of a fit at rest where they belong, as they look there."""
        looks = self._looks(fields)
        move_points(layer, lambda: set_points(layer, places), places, **looks)

    def _looks(self, fields: Fields) -> dict[str, Any]:
        return {"size": self._sizes(fields), "face_color": self._colours(fields)}

    def _move_along(self, _event: Event) -> None:
        """Bring the layers to where their source is now, in its unit."""
        self.source = self.source.placed_anew()
        made: dict[str, LayerData] = {}
        if self._mips is not None:
            made = pictures_of(self._mips, self.source)
        placed = {role: keywords for role, (_, keywords, _) in made.items()}
        placed[CENTRES] = self._transform()
        for role, layer in self._layers.items():
            if role in placed:
                # Captions have none of both: their places are their data.
                layer.scale = placed[role].get("scale", (1.0, 1.0))
                layer.translate = placed[role].get("translate", (0.0, 0.0))
                layer.units = placed[role]["units"]
        if CAPTIONS in made and CAPTIONS in self._layers:
            self._layers[CAPTIONS].data = made[CAPTIONS][0]

    def _redraw(self, layer: Layer, data: Any, keywords: dict[str, Any]) -> None:
        where = keywords.get("translate")
        stays = where is None or np.allclose(layer.translate, where)
        if stays and np.array_equal(layer.data, data):
            return  # The stack's own picture, and captions, whose places are their data.
        if where is None:
            layer.data = data
        elif stays and layer.data.shape == data.shape:
            with layer.events.data.blocker(), self._viewer.layers.events.blocker_all():
                layer.data = data
        else:
            layer.data = data
            layer.scale, layer.translate = keywords["scale"], where

    def _add(self, role: str, layer_data: LayerData) -> None:
        """Add a layer and leave the user's selection as it was."""
        from napari.layers import Layer

        data, keywords, kind = layer_data
        keywords["name"] = f"{self.source.name} {role}"
        mark(keywords, self._marked)
        chosen = list(self._viewer.layers.selection)
        layer = self._viewer.add_layer(Layer.create(data, keywords, kind))
        layer.events.visible.connect(self._catch_up)
        self._layers[role] = layer
        if kind == "points":
            remember_looks(layer)
            layer.events.data.connect(_slice_source)
        self._viewer.layers.selection = set(chosen)

    def _forget(self, event: Event) -> None:
        for role, layer in list(self._layers.items()):
            if is_same(layer, event.value):
                layer.events.visible.disconnect(self._catch_up)
                del self._layers[role]
                self._deleted.add(role)

    def _catch_up(self, event: Event) -> None:
        """Bring a layer up to date that the user shows again."""
        if not event.source.visible:
            return
        if self._fields:
            self.show(self._fields)
        if self._mips is not None:
            self.show_mips(self._mips)


def _slice_source(event: Event) -> None:
    """Heed points that a person adds and deletes while their layer is hidden."""
    slice_hidden(event.source)
