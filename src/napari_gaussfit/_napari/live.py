"""Layers that follow a fit: centres, and the projections of data and fit beside each other.

They are made once and then kept up in place. One that the user hides is left alone until it shows
again; one that the user deletes stays deleted. Knows no worker and no panel.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from napari.layers import Layer, Points
    from napari.utils.events import Event
    from napari.viewer import Viewer

    from napari_gaussfit._napari.mips import MipPair, ViewChoice
    from napari_gaussfit._napari.source import Source
    from napari_gaussfit.field import GaussianField
    from napari_gaussfit.io.native import SavedFit

    LayerData = tuple[Any, dict[str, Any], str]

__all__ = ["LiveLayers"]

COLOUR_SECONDS = 2.0
"""Between two updates of sizes and colours, which cost more than positions."""

GAP = 0.06
"""Between pictures beside each other, in parts of the stack's larger side."""

RESIDUAL_SHARE = 0.25
"""Of the contrast: a difference as large as this has the fullest colour."""

_CENTRES, _DATA, _FIT, _RESIDUAL = "centres", "data MIP", "fit MIP", "residual MIP"
_CAPTIONS = "captions"


class LiveLayers:
    """The layers of one fit.

    Parameters
    ----------
    viewer : napari.Viewer
        Where they are.
    source : Source
        What is fitted: their names, transforms and contrast are its own.
    """

    def __init__(self, viewer: Viewer, source: Source) -> None:
        self.source = source
        self._viewer = viewer
        self._layers: dict[str, Layer] = {}
        self._deleted: set[str] = set()
        self._field: GaussianField | None = None
        self._mips: MipPair | None = None
        self._coloured = 0.0
        self._framed: ViewChoice | None = None
        viewer.layers.events.removed.connect(self._forget)

    @property
    def centres(self) -> Points | None:
        """The Points layer, None while there is none or where the user has deleted it."""
        return self._layers.get(_CENTRES)

    @property
    def layers(self) -> list[Layer]:
        """All layers that follow the fit."""
        return list(self._layers.values())

    def restart(self, source: Source) -> None:
        """Follow another fit of the same layer, in the layers that are there."""
        self.source = source
        self._deleted.clear()
        self._field = self._mips = None

    def close(self) -> None:
        """Follow no more; the layers stay."""
        self._viewer.layers.events.removed.disconnect(self._forget)
        for layer in self._layers.values():
            layer.events.visible.disconnect(self._catch_up)
        self._layers.clear()

    def show(self, field: GaussianField) -> None:
        """Show the Gaussians of a fit that goes on."""
        self._field = field
        layer = self._layers.get(_CENTRES)
        if layer is None and _CENTRES not in self._deleted:
            self._add(_CENTRES, self._points(field))
            self._coloured = time.perf_counter()
        elif layer is not None and layer.visible:
            self._move(layer, field)
        self._make_next()

    def settle(self, fit: SavedFit) -> None:
        """Show the Gaussians of a fit at rest, with all their measurements, ready to be edited."""
        from napari_gaussfit._napari.layers import points_layer

        self._field = None
        self._make_rest()
        layer = self._layers.get(_CENTRES)
        if layer is None:
            return
        data, keywords, _ = points_layer(fit, self.source.placement, name=layer.name)
        chosen = set(layer.selected_data)
        with layer.events.data.blocker():
            layer.data = data
        layer.features = keywords["features"]
        layer.size = self._sizes(fit.field)
        layer.face_color = _colours(fit.field)
        layer.metadata = {**layer.metadata, **keywords["metadata"]}
        layer.selected_data = {n for n in chosen if n < len(data)}

    def show_mips(self, mips: MipPair) -> None:
        """Show the projections of data and fit for a view, and their difference."""
        self._mips = mips
        for role, (data, keywords, _) in self._pictures(mips).items():
            layer = self._layers.get(role)
            if layer is not None and layer.visible:
                self._redraw(layer, data, keywords)
        if self._field is None:
            self._make_rest()

    def _make_rest(self) -> None:
        while self._make_next():
            pass

    def _make_next(self) -> bool:
        """Make one layer that is missing, and say whether one was.

        One with each update while a fit runs: to make one takes as long as many updates.
        """
        if self._mips is None:
            return False
        for role, layer_data in self._pictures(self._mips).items():
            if role not in self._layers and role not in self._deleted:
                self._add(role, layer_data)
                return True
        if self._framed != self._mips.view:
            self._framed = self._mips.view
            if self._viewer.dims.ndisplay == 2:
                self._viewer.reset_view()
        return False

    def _pictures(self, mips: MipPair) -> dict[str, LayerData]:
        """Return the flat layers of a view: three pictures, and what each of them is."""
        low, high = self.source.contrast_limits
        end = RESIDUAL_SHARE * (high - low)
        pictures: dict[str, LayerData] = {}
        for role, picture, limits in (
            (_DATA, mips.data, (low, high)),
            (_FIT, mips.fit, (low, high)),
            (_RESIDUAL, mips.data - mips.fit, (-end, end)),
        ):
            colormap = _residual_colours() if role == _RESIDUAL else "gray"
            look = {"contrast_limits": limits, "colormap": colormap}
            pictures[role] = picture, {**look, **self._beside(role, mips)}, "image"
        corners = np.array([keywords["translate"] for _, keywords, _ in pictures.values()])
        # In the world's own coordinates, where the corners are.
        place = pictures[_DATA][1]
        words = {key: place[key] for key in ("units", "axis_labels", "affine")}
        words |= {
            "size": 0.0,
            "face_color": "transparent",
            "border_color": "transparent",
            "features": {"picture": list(pictures)},
            "text": {
                "string": "{picture}",
                "anchor": "lower_left",
                "size": 9,
                "color": "#c8d0da",
            },
        }
        return {**pictures, _CAPTIONS: (corners, words, "points")}

    def _points(self, field: GaussianField) -> LayerData:
        """Return the centres alone: measurements come when they change no more."""
        from napari_gaussfit._napari.layers import METADATA

        place = self.source.placement
        keywords = {
            "size": self._sizes(field),
            "face_color": _colours(field),
            "border_width": 0.0,
            # Added up, so that faint Gaussians, which are wide, hide nothing.
            "blending": "additive",
            "opacity": 0.7,
            "projection_mode": "all",
            "metadata": {METADATA: {}},
            **place.keywords(),
        }
        return place.in_voxels(field.means.numpy()), keywords, "points"

    def _sizes(self, field: GaussianField) -> Any:
        """Return the geometric mean [K] of a Gaussian's sigmas, in pixels of the last axis."""
        log_sigmas = field.cholesky[:, [0, 2, 5]].mean(dim=1).numpy()
        return np.exp(log_sigmas) / self.source.placement.spacing[-1]

    def _move(self, layer: Points, field: GaussianField) -> None:
        with layer.events.data.blocker():
            layer.data = self.source.placement.in_voxels(field.means.numpy())
        now = time.perf_counter()
        if now - self._coloured > COLOUR_SECONDS:
            self._coloured = now
            layer.size = self._sizes(field)
            layer.face_color = _colours(field)

    def _redraw(self, layer: Layer, data: Any, keywords: dict[str, Any]) -> None:
        same_view = layer.data.shape == data.shape
        if not same_view or not np.array_equal(layer.data, data):
            layer.data = data
        where = keywords.get("translate", layer.translate)
        if not same_view or not np.allclose(layer.translate, where):
            layer.scale, layer.translate = keywords["scale"], where

    def _beside(self, role: str, mips: MipPair) -> dict[str, Any]:
        """Return where a picture lies: residual right of the stack, data and fit below.

        Pictures are flat: they lie in the plane of the source's last two axes and move with it.
        """
        place, stack = self.source.placement, self.source.stack
        high, wide = (n * d for n, d in zip(stack.shape[1:], stack.spacing[1:], strict=True))
        rows, columns = (n * d for n, d in zip(mips.data.shape, mips.pixel, strict=True))
        gap = GAP * max(high, wide)
        right, below = max(wide, columns) + gap, max(high, rows) + gap
        corner = {_RESIDUAL: (0.0, right), _DATA: (below, 0.0), _FIT: (below, right)}[role]
        # From the corner of the first pixel to its middle, and from the fit's unit to the layer's.
        half = (np.asarray(mips.pixel) - np.asarray(stack.spacing[1:])) / 2
        ratio = place.scale[1:] / place.spacing[1:]
        turn = place.rotate[1:, 1:] @ place.shear[1:, 1:]
        return {
            "scale": np.asarray(mips.pixel) * np.abs(ratio),
            "translate": place.translate[1:] + turn @ ((np.asarray(corner) + half) * ratio),
            "rotate": place.rotate[1:, 1:],
            "shear": place.shear[1:, 1:],
            "affine": place.affine[1:, 1:],
            "units": place.units[1:],
            "axis_labels": place.axis_labels[1:],
        }

    def _add(self, role: str, layer_data: LayerData) -> None:
        """Add a layer and leave the user's selection as it was."""
        from napari.layers import Layer

        data, keywords, kind = layer_data
        keywords["name"] = f"{self.source.name} {role}"
        chosen = list(self._viewer.layers.selection)
        layer = self._viewer.add_layer(Layer.create(data, keywords, kind))
        layer.events.visible.connect(self._catch_up)
        self._layers[role] = layer
        self._viewer.layers.selection = set(chosen)

    def _forget(self, event: Event) -> None:
        for role, layer in list(self._layers.items()):
            if layer == event.value:
                layer.events.visible.disconnect(self._catch_up)
                del self._layers[role]
                self._deleted.add(role)

    def _catch_up(self, event: Event) -> None:
        """Bring a layer up to date that the user shows again."""
        if not event.source.visible:
            return
        if self._field is not None:
            self.show(self._field)
        if self._mips is not None:
            self.show_mips(self._mips)


def _colours(field: GaussianField) -> Any:
    """Return colours [K, 4] by amplitude; faint Gaussians are transparent."""
    from napari.utils.colormaps import ensure_colormap

    amplitudes = field.amplitudes.numpy()
    low, high = (float(amplitudes.min()), float(amplitudes.max())) if len(amplitudes) else (0, 1)
    share = (amplitudes - low) / max(high - low, 1e-12)
    colours = ensure_colormap("plasma").map(share)
    colours[:, 3] = 0.2 + 0.8 * share
    return colours


def _residual_colours() -> Any:
    """Return colours for a difference: blue where the fit is brighter, orange where the data is."""
    from napari.utils.colormaps import Colormap

    return Colormap([[0.3, 0.7, 1.0], [0.0, 0.0, 0.0], [1.0, 0.6, 0.2]], name="residual")
