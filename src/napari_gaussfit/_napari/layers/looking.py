"""Where a viewer looks: at a Gaussian, and at what is added beside a stack; no view is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from napari.layers import Points
    from napari.viewer import Viewer

__all__ = ["camera_of", "look_at_point"]

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
        Of the point.
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
        side = float(min(_canvas_size(viewer)))
        camera.zoom = float(
            np.clip(camera.zoom, side / (ACROSS * across), side / (CLOSEST * across))
        )


def _canvas_size(viewer: Viewer) -> Any:
    """Return a canvas's pixels; before 0.9, napari keeps them to itself."""
    return getattr(getattr(viewer, "canvas", None), "size", (600, 600))
