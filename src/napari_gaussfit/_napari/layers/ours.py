"""Which layers of a viewer this package has made, and of what: known whatever they are called.

A copy that a person makes of a layer is theirs, though all that it carries was copied too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from napari_gaussfit._napari.layers.placement import METADATA, OF
from napari_gaussfit._napari.layers.unwrapped import unwrapped

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.viewer import Viewer

__all__ = ["left_behind", "made_as"]

_ROLES: WeakKeyDictionary[Layer, str] = WeakKeyDictionary()


def made_as(layer: Layer, role: str) -> None:
    """Remember what a layer was made as.

    Parameters
    ----------
    layer : napari.layers.Layer
        That carries what it was made of.
    role : str
        Which of all the layers of the same thing it is.
    """
    _ROLES[unwrapped(layer)] = role


def left_behind(viewer: Viewer, metadata: dict[str, Any], role: str) -> Layer | None:
    """Return the layer that there is of a thing already, None where there is none.

    It may be that of a panel which was closed since, and a person may have renamed it.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        In which it would be.
    metadata : dict
        Of the layer that would be made.
    role : str
        As `made_as` was told.

    Returns
    -------
    napari.layers.Layer or None
        As it is, not wrapped.
    """
    of = _identity(metadata)
    for layer in map(unwrapped, viewer.layers):
        if _ROLES.get(layer) == role and _identity(layer.metadata) == of:
            return layer
    return None


def _identity(metadata: dict[str, Any]) -> dict[str, Any]:
    """Return what a layer was made of, but for the name of the stack, which may have another."""
    of = metadata.get(METADATA, {}).get(OF, {})
    return {name: value for name, value in of.items() if name != "layer" or "id" not in of}
