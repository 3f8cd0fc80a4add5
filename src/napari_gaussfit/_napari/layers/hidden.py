"""Points that come and go while their layer is hidden."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari.layers import Points

__all__ = ["slice_hidden"]


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
