"""The figure that all pictures are drawn on: without a window, and shown by notebooks as it is."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Picture", "set_title"]


class Picture(Figure):
    """A figure that a fresh notebook shows, where pyplot's `%matplotlib inline` has not run.

    Parameters
    ----------
    *arguments, **options
        Arguments of matplotlib's Figure, handed on.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        FigureCanvasAgg(self)

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()


def set_title(axes: Axes, title: str, **options: Any) -> None:
    """Write a title, or none, right above some axes.

    Matplotlib measures every label of axes in search of a place for their title, which takes a
    third of the time of a picture, where it is not told one.

    Parameters
    ----------
    axes : Axes
        The axes, whose labels are not at their top.
    title : str
        The words above them.
    **options
        As matplotlib's ``Axes.set_title`` takes them.
    """
    axes.set_title(title, y=1.0, **options)
