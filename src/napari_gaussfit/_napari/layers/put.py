"""Puts what was found into layers: into those that there are, also those of a closed panel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_gaussfit._napari.layers.hidden import set_points
from napari_gaussfit._napari.layers.placement import left_behind
from napari_gaussfit._napari.layers.unwrapped import unwrapped

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.viewer import Viewer

    from napari_gaussfit._napari.layers.gaussians import LayerData

__all__ = ["put_layer"]

IN_PLACE = ("labels", "points", "tracks")
"""Kinds of layers that are kept up; to make a layer anew takes the window a sixth of a second."""

_KEPT_UP = ("features", "size", "face_color", "border_color", "metadata")
"""What goes with other data, as far as the kind of layer has it."""


def put_layer(
    viewer: Viewer, old: Layer | None, made: LayerData, *, anew: bool = True
) -> Layer | None:
    """Show data in a layer; who listens for what a person does to points hears nothing.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Where the layer is, or is added; what is selected there stays selected.
    old : napari.layers.Layer or None
        That shows what was found before; one of another name stays as it is.
    made : LayerData
        With a name, and the mark of what it was made of.
    anew : bool
        Whether it is made where there is none; a person may have deleted it.

    Returns
    -------
    napari.layers.Layer or None
        The old one, that of a closed panel, or a new one; as it is, not wrapped. None where there
        is none, and none is made.
    """
    from napari.layers import Layer

    data, keywords, kind = made
    if old is None or old.name != keywords["name"] or old not in viewer.layers:
        old = left_behind(viewer, keywords, kind)
    if old is not None and kind in IN_PLACE:
        _update(old, kind, data, keywords)
        return unwrapped(old)
    if old is None and not anew:
        return None
    chosen = set(viewer.layers.selection)
    if old is not None:
        viewer.layers.remove(old)
    layer = Layer.create(data, keywords, kind)
    viewer.add_layer(layer)
    viewer.layers.selection = {one for one in chosen if one in viewer.layers}
    return layer


def _update(layer: Any, kind: str, data: Any, keywords: dict[str, Any]) -> None:
    if kind == "points":
        layer.selected_data = set()
        set_points(layer, data)
    else:
        layer.data = data
    for name in _KEPT_UP:
        if name in keywords:
            setattr(layer, name, keywords[name])
