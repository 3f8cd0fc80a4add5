"""Puts what was found into layers: into those that there are, also those of a closed panel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_gaussfit._napari.layers.hidden import set_points
from napari_gaussfit._napari.layers.looks import LOOKS, move_points, remember_looks
from napari_gaussfit._napari.layers.ours import left_behind, made_as

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.viewer import Viewer

    from napari_gaussfit._napari.layers.gaussians import LayerData

__all__ = ["put_layer"]

IN_PLACE = ("labels", "points", "tracks")
"""Kinds of layers that are kept up; to make a layer anew takes the window a sixth of a second."""

_KEPT_UP = ("features", "metadata")
"""What goes with other data, as far as the kind of layer has it; points have looks too."""

_PERSONS = ("name", "visible", "opacity", "blending")
"""What is a person's of a layer that is made anew."""


def put_layer(viewer: Viewer, made: LayerData, role: str, *, anew: bool = True) -> Layer | None:
    """Show data in a layer; who listens for what a person does to points hears nothing.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Where the layer is, or is added; what is selected there stays selected.
    made : LayerData
        With a name, and the mark of what it was made of.
    role : str
        Which of the layers of that it is; the layer that is there is known by it, and keeps the
        name and the looks that a person has given it.
    anew : bool
        Whether it is made where there is none; a person may have deleted it.

    Returns
    -------
    napari.layers.Layer or None
        The one that was there, maybe of a closed panel, or a new one; as it is, not wrapped. None
        where there is none, and none is made.
    """
    data, keywords, kind = made
    old = left_behind(viewer, keywords["metadata"], role)
    if old is None:
        return _added(viewer, made, role) if anew else None
    if kind in IN_PLACE:
        _update(old, kind, data, keywords)
        return old
    if _shows(old, data):
        return old
    place = viewer.layers.index(old)
    kept = {name: getattr(old, name) for name in _PERSONS}
    viewer.layers.remove(old)
    layer = _added(viewer, (data, {**keywords, **kept}, kind), role)
    viewer.layers.move(len(viewer.layers) - 1, place)
    return layer


def _added(viewer: Viewer, made: LayerData, role: str) -> Layer:
    from napari.layers import Layer

    chosen = set(viewer.layers.selection)
    layer = Layer.create(*made)
    made_as(layer, role)
    if made[2] == "points":
        remember_looks(layer)
    viewer.add_layer(layer)
    viewer.layers.selection = {one for one in chosen if one in viewer.layers}
    return layer


def _update(layer: Any, kind: str, data: Any, keywords: dict[str, Any]) -> None:
    if kind == "points":
        layer.selected_data = set()
        looks = {name: keywords[name] for name in LOOKS if name in keywords}
        move_points(layer, lambda: set_points(layer, data), data, **looks)
    else:
        layer.data = data
    for name in _KEPT_UP:
        if name in keywords:
            setattr(layer, name, keywords[name])


def _shows(layer: Any, data: Any) -> bool:
    """Tell whether shapes are those that are to be shown."""
    same = len(layer.data) == len(data)
    return same and all(np.array_equal(*pair) for pair in zip(layer.data, data, strict=True))
