"""A layer is the same one, however a panel's viewer has wrapped it."""

from __future__ import annotations

from typing import Any

import numpy as np

from napari_gaussfit._napari.layers.unwrapped import is_same, unwrapped


def test_two_wrappings_of_a_layer_are_the_same_layer(make_napari_viewer_proxy: Any) -> None:
    viewer = make_napari_viewer_proxy()
    made = [viewer.add_image(np.zeros((4, 5))) for _ in range(2)]
    assert viewer.layers[0] is not viewer.layers[0], "napari wraps no more: this is of no use"
    assert is_same(viewer.layers[0], made[0])
    assert not is_same(*made)
    assert not is_same(None, made[0])
    assert unwrapped(made[0]) is unwrapped(viewer.layers[0])
    assert unwrapped("no layer") == "no layer"
