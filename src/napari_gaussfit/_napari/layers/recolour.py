"""Points get colours, whether they are seen or not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari.layers import Points
    from numpy.typing import NDArray

__all__ = ["recolour"]


def recolour(points: Points, colours: NDArray[Any]) -> None:
    """Give each of a layer's points its colour.

    Parameters
    ----------
    points : napari.layers.Points
        A layer, whose points may be others than those that were shown last.
    colours : ndarray, shape [P, 4]
        Red, green, blue and opacity of each.

    Notes
    -----
    Told of colours, napari 0.9 draws a hidden layer anew too, by which points were in view when it
    was last seen: of fewer points, some of these are not there. Shown again, it reads the colours.
    """
    if points.visible:
        points.face_color = colours
        return
    with points.events.face_color.blocker():
        points.face_color = colours
