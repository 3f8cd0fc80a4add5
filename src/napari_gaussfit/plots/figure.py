"""The figure that all pictures are drawn on: without a window, and shown by notebooks as it is.

And one that is drawn while something on it is not known yet.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, cast

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imsave

from napari_gaussfit.plots.saving import COMPRESSION, any_script

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

__all__ = ["Picture", "Sketch", "set_title"]


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


class Sketch:
    """A figure that is drawn before all that belongs on it is known.

    Parameters
    ----------
    figure : Figure
        The matplotlib figure as it is by now, which is drawn at once.
    """

    def __init__(self, figure: Figure) -> None:
        self._figure = figure
        self._canvas = cast("Any", FigureCanvasAgg(figure))  # which tells no types
        with any_script():
            self._canvas.draw()

    def png_with(self, last: Artist) -> bytes:
        """Return the bytes of the PNG file, once nothing but one thing is still to be drawn.

        Parameters
        ----------
        last : Artist
            What has come to the figure since. It lies on what is there.

        Returns
        -------
        bytes
            Those that `png` would return of the figure now.
        """
        buffer = io.BytesIO()
        with any_script():
            last.draw(self._canvas.get_renderer())
        imsave(
            buffer, self._canvas.buffer_rgba(), format="png", origin="upper",
            dpi=self._figure.dpi, pil_kwargs={"compress_level": COMPRESSION},
        )  # fmt: skip
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
