"""Layers that a person has hidden are kept up as those that are seen."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from napari_gaussfit._napari.layers.placement import METADATA, OF
from napari_gaussfit._napari.layers.put import put_layer
from napari_gaussfit._napari.layers.unwrapped import unwrapped


@pytest.mark.parametrize("ndisplay", [2, 3])
def test_fewer_spots_are_put_into_a_hidden_layer(make_napari_viewer: Any, ndisplay: int) -> None:
    """napari, told of their colours, draws those that it has shown last."""
    viewer = make_napari_viewer()
    viewer.dims.ndisplay = ndisplay
    places = np.random.default_rng(1).uniform(0, 9, (5, 3)) * (0, 1, 1)
    looks = {"name": "spots", "size": 9.0, "metadata": {METADATA: {OF: {"id": 1}}}}
    layer = put_layer(viewer, (places, {**looks, "face_color": "red"}, "points"), "spots")
    layer.visible = False
    after = put_layer(viewer, (places[:2], {**looks, "face_color": "blue"}, "points"), "spots")
    assert after is unwrapped(layer)
    layer.visible = True
    np.testing.assert_array_equal(layer.data, places[:2])
    np.testing.assert_array_equal(layer.face_color, [[0, 0, 1, 1]] * 2)
    markers = viewer.window._qt_viewer.canvas.layer_to_visual[layer].node.points_markers
    assert len(markers._data) == 2
