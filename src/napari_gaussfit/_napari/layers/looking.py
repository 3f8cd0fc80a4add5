"""Where a viewer looks: at a Gaussian, and at what is added beside a stack; no view is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Collection

    from napari.layers import Layer, Points
    from napari.viewer import Viewer

__all__ = ["Framing", "camera_of", "canvas_size", "look_at_point", "show_scale_bar"]

ACROSS = 24.0
"""Widths of a Gaussian that the canvas has room for when one is looked at."""

CLOSEST = 6.0
"""Such widths, if a person has gone closer: they are left there."""


def camera_of(viewer: Viewer) -> Any:
    """Return a viewer's camera; napari 0.9 has it in a scene."""
    return getattr(viewer, "scene", viewer).camera


def look_at_point(viewer: Viewer, layer: Points, index: int, width: float) -> None:
    """Bring a point into view: its slice, in the middle, near enough.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Whose view is moved.
    layer : napari.layers.Points
        That has the point.
    index : int
        The number of the point in its layer.
    width : float
        Of what is there, in voxels of the layer's last axis.
    """
    place = np.asarray(layer.data_to_world(layer.data[index]), np.float64)
    dims, camera = viewer.dims, camera_of(viewer)
    first = dims.ndim - len(place)
    dims.set_point([*range(first, dims.ndim)], [*place])
    whole = np.zeros(dims.ndim)
    whole[first:] = place
    seen = whole[list(dims.displayed)]
    camera.center = tuple(np.concatenate([np.zeros(3 - len(seen)), seen]))
    across = width * float(np.abs(layer.scale[-1]))
    if across > 0:
        side = float(min(canvas_size(viewer)))
        camera.zoom = float(
            np.clip(camera.zoom, side / (ACROSS * across), side / (CLOSEST * across))
        )


class Framing:
    """Brings what is added beside a stack into view, unless a person has chosen another view.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Whose camera it is.
    """

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = viewer
        self._left: tuple[float, ...] | None = None

    def frame(self, added: Collection[Layer]) -> None:
        """Show all layers, if the view is still as it was without `added`, or as it was left."""
        if self._viewer.dims.ndisplay != 2:
            return
        if self._left is None:
            at_home = self._is_in_the_middle(added)
        else:
            at_home = self._state() == self._left
        if at_home:
            self._viewer.reset_view()
            self._left = self._state()

    def _state(self) -> tuple[float, ...]:
        camera = camera_of(self._viewer)
        return (*map(float, camera.center), float(camera.zoom))

    def _is_in_the_middle(self, added: Collection[Layer]) -> bool:
        """Tell whether the camera looks at the middle of what was there before.

        Who drags or zooms at a place moves it away from there; the window's size does not.
        """
        shown = list(self._viewer.dims.displayed)
        boxes = [
            np.asarray(layer.extent.world)[:, [n - self._viewer.dims.ndim for n in shown]]
            for layer in self._viewer.layers
            if layer not in added and layer.visible and layer.ndim >= 3
        ]
        if not boxes:
            return True
        low, high = np.min([box[0] for box in boxes], axis=0), np.max([b[1] for b in boxes], axis=0)
        off = np.asarray(camera_of(self._viewer).center[-2:]) - (low + high) / 2
        return bool((np.abs(off) <= 0.02 * (high - low) + 1e-9).all())


def show_scale_bar(viewer: Viewer) -> None:
    """Switch the scale bar on; before 0.9, napari has it elsewhere."""
    overlays = getattr(getattr(viewer, "canvas", None), "overlays", None)
    bar = viewer.scale_bar if overlays is None else overlays.scale_bar
    bar.visible = True


def canvas_size(viewer: Viewer) -> Any:
    """Return a canvas's pixels; before 0.9, napari keeps them to itself."""
    return getattr(getattr(viewer, "canvas", None), "size", (600, 600))
