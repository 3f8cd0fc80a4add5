"""What notebooks show of stacks and fits: a small picture and a table, as plain HTML."""

from __future__ import annotations

import base64
import io
from html import escape
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

__all__ = ["picture", "shown_together", "table"]

THUMBNAIL = 160
"""Pixels along the longer side of a picture."""


def picture(image: NDArray[np.generic], pixel: Sequence[float], title: str) -> str:
    """Return an image as HTML, true to scale, from black to white.

    Parameters
    ----------
    image : ndarray, shape [H, W]
        From its smallest to its largest value.
    pixel : sequence of float
        Height and width of a pixel, in any unit.
    title : str
        What it shows, for those who cannot see it too.
    """
    from matplotlib.image import imsave

    step = max(1, -(-max(image.shape) // (2 * THUMBNAIL)))
    rows, columns = (image.shape[n] // step * step for n in (0, 1))
    blocks = np.asarray(image[:rows, :columns], np.float32).reshape(
        rows // step, step, columns // step, step
    )
    buffer = io.BytesIO()
    imsave(buffer, blocks.max((1, 3)), cmap="gray", format="png")
    data = base64.b64encode(buffer.getvalue()).decode()
    tall, wide = image.shape[0] * pixel[0], image.shape[1] * pixel[1]
    scale = THUMBNAIL / max(tall, wide)
    height, width = max(1, round(tall * scale)), max(1, round(wide * scale))
    return (
        f'<img src="data:image/png;base64,{data}" alt="{escape(title)}" title="{escape(title)}" '
        f'width="{width}" height="{height}" style="margin-right: 8px">'
    )


def table(rows: Iterable[Sequence[str]], *, header: Sequence[str] = ()) -> str:
    """Return rows of words as an HTML table.

    Parameters
    ----------
    rows : iterable of sequence of str
        The cells; names first where there is no header.
    header : sequence of str
        Names of the columns.
    """
    first = f"<tr>{''.join(f'<th>{escape(name)}</th>' for name in header)}</tr>" if header else ""
    lines = (
        "<tr>" + "".join(f'<td style="text-align: left">{escape(c)}</td>' for c in row) + "</tr>"
        for row in rows
    )
    return f"<table>{first}{''.join(lines)}</table>"


def shown_together(*parts: str) -> str:
    """Return HTML side by side.

    Parameters
    ----------
    *parts : str
        The pieces of HTML, from left to right.
    """
    return f'<div style="display: flex; align-items: flex-start">{"".join(parts)}</div>'
