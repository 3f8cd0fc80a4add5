"""Layers that follow a fit: centres, and the projections of data and fit beside each other.

They are made once and then kept up in place. One that the user hides is left alone until it shows
again; one that the user deletes stays deleted. Knows no worker and no panel.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np


if TYPE_CHECKING:
    from napari.layers import Image, Layer, Points
    from napari.utils.events import Event
    from napari.viewer import Viewer

    from napari_gaussfit._napari.mips import MipPair, ViewChoice
    from napari_gaussfit._napari.source import Source
    from napari_gaussfit.field import GaussianField
    from napari_gaussfit.io.native import SavedFit

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
        if _CENTRES in self._deleted:
            return
        layer = self._layers.get(_CENTRES)
        if layer is None:
            self._add(_CENTRES, self._points(field))
            self._coloured = time.perf_counter()
        elif layer.visible:
            self._move(layer, field)

    def settle(self, fit: SavedFit) -> None:
        """Show the Gaussians of a fit at rest, with all their measurements, ready to be edited."""
        from napari_gaussfit._napari.layers import points_layer

        self._field = None
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
        low, high = self.source.contrast_limits
        end = RESIDUAL_SHARE * (high - low)
        pictures = {
            _DATA: (mips.data, {"contrast_limits": self.source.contrast_limits}),
            _FIT: (mips.fit, {"contrast_limits": self.source.contrast_limits}),
            _RESIDUAL: (
                mips.data - mips.fit,
                {"colormap": _residual_colours(), "contrast_limits": (-end, end)},
            ),
        }
        for role, (picture, look) in pictures.items():
            if role in self._deleted:
                continue
            layer = self._layers.get(role)
            where = self._beside(role, mips)
            if layer is None:
                self._add(role, (picture, {**look, **where}, "image"))
            elif layer.visible:
                self._redraw(layer, picture, where)
        self._caption(mips)
        if self._framed != mips.view:
            self._framed = mips.view
            if self._viewer.dims.ndisplay == 2:
                self._viewer.reset_view()

    def _caption(self, mips: MipPair) -> None:
        """Write above each picture what it is."""
        if _CAPTIONS in self._deleted:
            return
        pictures = (_DATA, _FIT, _RESIDUAL)
        where = [self._beside(role, mips) for role in pictures]
        corners = np.array([one["translate"] for one in where])
        layer = self._layers.get(_CAPTIONS)
        if layer is not None:
            if layer.visible and not np.allclose(layer.data, corners):
                layer.data = corners
            return
        keywords = {
            # In the world's own coordinates, where the corners are.
            "units": where[0]["units"],
            "axis_labels": where[0]["axis_labels"],
            "affine": where[0]["affine"],
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
        self._add(_CAPTIONS, (corners, keywords, "points"))

    def _points(self, field: GaussianField) -> tuple[Any, dict[str, Any], str]:
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

    def _redraw(self, layer: Image, picture: Any, where: dict[str, Any]) -> None:
        same_view = layer.data.shape == picture.shape
        layer.data = picture
        if not same_view or not np.allclose(layer.translate, where["translate"]):
            layer.scale, layer.translate = where["scale"], where["translate"]

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

    def _add(self, role: str, layer_data: tuple[Any, dict[str, Any], str]) -> None:
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
