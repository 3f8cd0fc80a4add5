"""Layers over those of a fit: centres on the pictures, sections in a slice, ellipsoids in 3D.

Each is made when first wanted and then kept up in place, as the fit and the slice go. Knows no
worker and no panel.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, QTimer, Signal

from napari_gaussfit._napari.layers.looks import move_points, remember_looks
from napari_gaussfit._napari.layers.marks import brightest, faded, in_world, on_picture, sections
from napari_gaussfit._napari.layers.ours import left_behind, made_as
from napari_gaussfit._napari.layers.pictures import CAPTIONS, FAINTEST
from napari_gaussfit._napari.layers.placement import METADATA, OF
from napari_gaussfit._napari.layers.source import mark
from napari_gaussfit._napari.layers.unwrapped import is_same
from napari_gaussfit.errors import GaussfitError

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.utils.events import Event
    from napari.viewer import Viewer

    from napari_gaussfit._napari.layers.gaussians import LayerData
    from napari_gaussfit._napari.layers.live import LiveLayers
    from napari_gaussfit.jobs.pictures import MipPair
    from napari_gaussfit.model.field import GaussianField

__all__ = ["CENTRES", "ELLIPSOIDS", "SECTIONS", "Overlays"]

CENTRES, SECTIONS, ELLIPSOIDS = "centres on projections", "sections", "ellipsoids live"

SOON_MS, REST_PER_WORK = 40, 5.0
"""Until what is asked for is drawn; times as long as drawing took, the window has for itself."""

FOLLOWING = 0.4
"""Seconds between two drawings of a fit that goes on: the pictures that marks lie on come no
oftener, and marks took a seventh of what each update cost the window."""

MOST_LIVE_FACES = 250_000
"""Triangles of ellipsoids that move: a quarter of a second a time, of 10,000 Gaussians."""

MOST_MARKS, MOST_MOVING_MARKS = 3000, 300
"""Centres marked on each picture, of a fit at rest and of one that goes on: software OpenGL paints
a mark in three microseconds, several times a second, with the cores that the fit would use."""

FAINTNESS = 0.35
"""Of a centre that is in another slice than the one shown."""


class Overlays(QObject):
    """What is drawn over the layers of one fit, where it is wanted.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Where the layers are added.
    parent : QObject
        With it they end: napari destroys it with the window, unasked.
    """

    gone = Signal(str)
    """The user has deleted a layer: which it was."""

    def __init__(self, viewer: Viewer, parent: QObject) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._live: LiveLayers | None = None
        self._running: GaussianField | None = None
        self._mips: MipPair | None = None
        self._wanted = {CENTRES}
        self._layers: dict[str, Layer] = {}
        self._away: dict[str, Layer] = {}
        """Layers that are not wanted at the moment."""

        self._whose: tuple[Any, Any] | None = None
        self._rested = self._drawn = 0.0
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._draw)
        viewer.layers.events.removed.connect(self._forget)
        dims = viewer.dims.events
        # Other layers, above all: what lies over the pictures waits for them.
        inserted = viewer.layers.events.inserted
        self._steps = (dims.current_step, dims.ndisplay, dims.order, inserted)
        for emitter in self._steps:
            emitter.connect(self.draw_soon)

    def want(self, role: str, *, wanted: bool) -> None:
        """Draw something from now on, or no more."""
        if wanted:
            self._wanted.add(role)
        else:
            self._wanted.discard(role)
            if role in self._layers:
                self._put_away(role)
        self.draw_soon()

    def follow(self, live: LiveLayers | None) -> None:
        """Draw over these layers; what was drawn over others goes, since it moves no more."""
        if live is not self._live:
            for role in [*self._layers]:
                self._put_away(role)
            self._away.clear()
        self._live, self._running, self._mips = live, None, None

    def show_field(self, field: GaussianField | None) -> None:
        """Draw a fit that goes on; None where it stands still, as its points are."""
        self._running, self._whose = field, None
        now = time.perf_counter()
        if field is None:
            self.draw_soon()
        elif now >= max(self._rested, self._drawn + FOLLOWING):
            self._timer.stop()
            self._draw()  # At once, so that the canvas is painted once for all that has moved.
        elif not self._timer.isActive():
            # With the next Gaussians; by itself where none come.
            self._timer.start(int(1000 * max(2 * FOLLOWING, self._rested - now)))

    def show_mips(self, mips: MipPair) -> None:
        """Draw on the pictures of another view."""
        other = self._mips is None or self._mips.view != mips.view
        self._mips = mips
        if other or self._running is None:
            self.draw_soon()  # Of the same view, the next Gaussians bring their marks along.

    def draw_soon(self, _event: object = None) -> None:
        """Draw all that is wanted, in a moment; a drawing that takes long comes seldom."""
        wait = max(SOON_MS, int(1000 * (self._rested - time.perf_counter())))
        if not self._timer.isActive() or self._timer.remainingTime() > wait:
            self._timer.start(wait)

    def close(self) -> None:
        """Follow nothing any more; the layers stay."""
        self._timer.stop()
        self._live = None
        self._viewer.layers.events.removed.disconnect(self._forget)
        for emitter in self._steps:
            emitter.disconnect(self.draw_soon)
        self._layers.clear()
        self._away.clear()

    def _draw(self) -> None:
        """Draw what is wanted; one new layer at a time, which takes the window long."""
        if self._live is None or self._live.centres is None or self._live.ended:
            return
        self._place_captions()
        began = time.perf_counter()
        for role, make in (
            (CENTRES, self._centres),
            (SECTIONS, self._sections),
            (ELLIPSOIDS, self._ellipsoids),
        ):
            layer = self._layers.get(role)
            if role not in self._wanted or (layer is not None and not layer.visible):
                continue
            made = make()
            if layer is not None:
                self._redraw(role, layer, made)
            elif made is not None:
                self._add(role, made)
                self._timer.start(SOON_MS)
                return
        now = time.perf_counter()
        self._rested, self._drawn = now + REST_PER_WORK * min(now - began, 1.0), now

    def _place_captions(self) -> None:
        """Keep captions within their pictures: in 3D, napari centres all texts on their points."""
        captions = None if self._live is None else self._live.layer(CAPTIONS)
        if captions is None or self._live is None:
            return
        wide = self._live.source.stack.shape[-1] * float(
            np.abs(self._live.source.placement.scale[-1])
        )
        off = np.array([0.0, wide / 2 if self._viewer.dims.ndisplay == 3 else 0.0])
        if not np.allclose(captions.text.translation, off):
            captions.text.translation = off

    def _field(self) -> GaussianField | None:
        """Return the Gaussians as they are now: of a fit at rest, as its points are."""
        from napari_gaussfit._napari.layers.edited import fit_of_layer

        if self._running is not None:
            return self._running
        points = None if self._live is None else self._live.centres
        if points is None:
            return None
        key = points.data, points.features
        if self._whose is None or any(a is not b for a, b in zip(self._whose[0], key, strict=True)):
            field = None
            with suppress(GaussfitError):
                field = fit_of_layer(points).field
            self._whose = key, field
        known: GaussianField | None = self._whose[1]
        return known

    def _centres(self) -> LayerData | None:
        """Return the centres on both projections, and pale over the stack, whatever its slice."""
        points, dims = self._live.centres if self._live else None, self._viewer.dims
        if points is None or self._live is None or not self._live.complete:
            return None  # Above the pictures, so after them.
        shown = np.flatnonzero(points.shown)
        most = MOST_MARKS if self._running is None else MOST_MOVING_MARKS
        shown = shown[brightest(points.face_color[shown], most)]
        voxels, colours = np.asarray(points.data)[shown][:, -3:], points.face_color[shown]
        places, looks = [], []
        if self._mips is not None:
            means = voxels * np.asarray(self._live.source.placement.spacing)
            pixels = on_picture(means, self._mips, self._live.source)
            for role in ("data MIP", "fit MIP"):
                picture = self._live.layer(role)
                if picture is not None and picture.visible:
                    places.append(in_world(picture, pixels))
                    looks.append(faded(colours, 1.0))
        if dims.ndisplay == 2 and tuple(dims.displayed) == (dims.ndim - 2, dims.ndim - 1):
            places.append(in_world(points, np.asarray(points.data)[shown])[:, -2:])
            looks.append(faded(colours, FAINTNESS))
        if not places:
            return None
        keywords = {
            "face_color": np.concatenate(looks) if len(shown) else "white",
            "size": float(np.abs(points.scale[-1])),
            "border_width": 0.0,
            "border_color": "transparent",
            "canvas_size_limits": (3, 5),
            # Soft edges, three pixels wide, took half of a mark's time, and paled it.
            "antialiasing": 0,
            "units": tuple(points.units)[-2:],
            "axis_labels": tuple(points.axis_labels)[-2:],
        }
        return np.concatenate(places), keywords, "points"

    def _sections(self) -> LayerData | None:
        """Return the ellipses that the slice in view cuts out; none in 3D."""
        dims = self._viewer.dims
        points = self._live.centres if self._live is not None and dims.ndisplay == 2 else None
        field = None if points is None else self._field()
        first = dims.ndim - 3
        across = [n for n in range(3) if first + n not in dims.displayed]
        if self._live is None or points is None or field is None or len(across) != 1:
            return None
        [axis] = across
        at = float(np.asarray(points.world_to_data(dims.point))[-3:][axis])
        spacing = np.asarray(self._live.source.placement.spacing)
        sides, whose = sections(field.numpy(), spacing, axis, at)
        seen = np.asarray(points.shown)
        if len(seen) == len(field):
            sides = sides[seen[whose]]
        if not len(sides):
            return None
        keywords = {
            "edge_width": 0.6,
            "edge_color": "#7ed491",
            "vector_style": "line",
            "opacity": 0.9,
            **self._live.source.placement.keywords(),
        }
        return sides, keywords, "vectors"

    def _ellipsoids(self) -> LayerData | None:
        """Return the ellipsoids at one standard deviation; none in 2D, where they hide the rest."""
        from napari_gaussfit._napari.layers.gaussians import surface_layer

        field = self._field() if self._viewer.dims.ndisplay == 3 else None
        if field is None or self._live is None or not len(field):
            return None
        return surface_layer(
            field,
            self._live.source.placement,
            name="",
            faintest=FAINTEST,
            most_faces=MOST_LIVE_FACES,
        )

    def _add(self, role: str, made: LayerData) -> None:
        """Add a layer, or take that of a closed panel; selection and view stay as they are."""
        from napari.layers import Layer

        if self._live is None:
            return
        data, keywords, kind = made
        keywords = {**keywords, "name": f"{self._live.source.name} {role}"}
        mark(keywords, self._live.source)
        chosen = list(self._viewer.layers.selection)
        layer = left_behind(self._viewer, keywords["metadata"], role) or self._bring_back(role)
        if layer is not None:
            self._layers[role] = layer
            for name in self._live.source.placement.keywords():
                if name in keywords:  # The stack may have another spacing by now.
                    setattr(layer, name, keywords[name])
            self._redraw(role, layer, made)
        else:
            layer = Layer.create(data, keywords, kind)
            made_as(layer, role)
            if kind == "points":
                remember_looks(layer)
            self._layers[role] = self._viewer.add_layer(layer)
        layer.events.visible.connect(self.draw_soon)
        self._viewer.layers.selection = {one for one in chosen if one in self._viewer.layers}

    def _redraw(self, role: str, layer: Layer, made: LayerData | None) -> None:
        if made is None and role == SECTIONS:
            if len(layer.data):
                layer.data = np.zeros((0, 2, 3))
            return
        if made is None:
            self._put_away(role)
            return
        data, keywords, _ = made
        if _is_drawn(layer, data, keywords):
            return
        # What the list of layers hears of has it painted anew, which costs more than the marks.
        with layer.events.data.blocker(), self._viewer.layers.events.blocker_all():
            if "face_color" in keywords and len(data):
                move_points(
                    layer,
                    lambda: setattr(layer, "data", data),
                    data,
                    face_color=keywords["face_color"],
                )
            else:
                layer.data = data

    def _put_away(self, role: str) -> None:
        """Take a layer out of the list until it is wanted again, as a person has set it."""
        self._away[role] = self._layers.pop(role)
        self._viewer.layers.remove(self._away[role])

    def _bring_back(self, role: str) -> Layer | None:
        layer = self._away.pop(role, None)
        if layer is not None:
            layer.visible = True
            self._viewer.add_layer(layer)
        return layer

    def _forget(self, event: Event) -> None:
        for role, layer in [*self._layers.items()]:
            if is_same(layer, event.value):
                del self._layers[role]
                self._wanted.discard(role)
                self.gone.emit(role)

    def all_of_the_fit(self) -> list[Layer]:
        """Return every layer that a fit of this stack has made, whoever made it."""
        if self._live is None:
            return []
        ours = self._live.source.record()["id"]
        return [
            layer
            for layer in self._viewer.layers
            if layer.metadata.get(METADATA, {}).get(OF, {}).get("id") == ours
        ]


def _is_drawn(layer: Layer, data: Any, keywords: dict[str, Any]) -> bool:
    """Whether a layer shows just that already: to be told of it, napari paints the canvas anew."""
    if not (isinstance(data, np.ndarray) and np.array_equal(layer.data, data)):
        return False
    colours = keywords.get("face_color")
    # napari keeps colours in another precision than ours.
    return colours is None or not len(data) or np.allclose(layer.face_color, colours, atol=1e-6)
