"""The figure that all pictures are drawn on: without a window, and shown by notebooks as it is."""

from __future__ import annotations

import io
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

__all__ = ["Picture"]


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
