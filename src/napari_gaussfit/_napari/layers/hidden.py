"""Points that come and go while their layer is hidden."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari.layers import Points

__all__ = ["set_points", "slice_hidden"]


def set_points(layer: Points, places: Any) -> None:
    """Give a layer other points; who listens for what a person does to them hears nothing.

    Sizes and colours follow the number of points, so they are set after this.

    Parameters
    ----------
    layer : napari.layers.Points
        The layer, which may be hidden.
    places : array-like, shape [K, N]
        Where the points are, in the layer's data coordinates.
    """
    with layer.events.data.blocker():
        layer.data = places
    slice_hidden(layer)


def slice_hidden(points: Points) -> None:
    """Have napari know which points of a hidden layer are in view, after some came or went.

    Parameters
    ----------
    points : napari.layers.Points
        A layer whose data are others than before; one that is seen is left as it is.

    Notes
    -----
    napari 0.9 looks at layers that are seen alone, but draws colours as they are set, and texts as
    the view is zoomed, by what it has found last: of fewer points, some of these are not there.
    """
    if not points.visible:
        points.set_view_slice()
