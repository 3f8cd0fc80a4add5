"""projections.png: what the stack shows, what the fit shows, and what is left, view by view.

Drawn by matplotlib's objects alone: no window system, no global state. What is compared needs
torch (`comparisons`), and what draws it does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib import colormaps
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from napari_gaussfit.plots.figure import Picture

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage
    from matplotlib.text import Text
    from numpy.typing import NDArray

    from napari_gaussfit.fitting.result import FitResult
    from napari_gaussfit.plots.comparisons import Comparison
    from napari_gaussfit.stacks.stack import Stack

    Image = NDArray[np.float32]
    Box = tuple[float, float, float, float]  # left, right, bottom, top, in inches

__all__ = [
    "draw_comparisons",
    "draw_projections",
    "draw_rows",
    "scale_bar_length",
    "write_heading",
]

COLUMN_INCHES = 3.1
"""Width of a picture."""

LEAST_INCHES, MOST_INCHES = 1.0, 3.4
"""Heights of a row: a thin stack stays visible from its side, a tall one keeps its columns."""

MARGIN_INCHES, GAP_INCHES = 0.1, 0.15
"""At the left, and between data and fit."""

BAR_INCHES = 0.82
"""Beside a picture: its bar of colours, with numbers and their name."""

LEFTS = (
    MARGIN_INCHES,
    MARGIN_INCHES + COLUMN_INCHES + GAP_INCHES,
    MARGIN_INCHES + 2 * COLUMN_INCHES + GAP_INCHES + BAR_INCHES,
)
WIDTH_INCHES = LEFTS[-1] + COLUMN_INCHES + BAR_INCHES

TITLE_INCHES, TITLE_GAP, BELOW_INCHES, HEAD_INCHES = 0.25, 0.05, 0.2, 0.55
"""Above a row, of that between title and picture, below it (for the scale bar), and above all."""

BAR_HIGH = 0.026
"""Thickness of a scale bar, in inches."""

DPI = 140
SCALE_BAR_PART = 0.3
"""Largest part of a picture's width that its scale bar takes."""

OUTSIDE = "0.85"
"""The grey of pixels whose rays miss the stack."""

UNIT_SYMBOLS = {"micrometer": "µm", "pixel": "px"}


def draw_projections(result: FitResult, original: Stack) -> Figure:
    """Draw data, fit and residual of `comparisons`, a row each; ``savefig`` writes it.

    Lengths are true to scale in both directions of every picture, whatever the spacing.

    Parameters
    ----------
    result : FitResult
        The fit; which views were held out follows from its settings.
    original : Stack
        The stack that was fitted; of several channels, the first.

    Returns
    -------
    Figure
        Its ``savefig`` writes it.
    """
    from napari_gaussfit.plots.comparisons import comparisons, heading

    return draw_comparisons(
        comparisons(result, original), heading(result.report), result.stack.unit
    )


def draw_comparisons(rows: Sequence[Comparison], title: str, unit: str) -> Figure:
    """Draw data, fit and residual of views, a row each; ``savefig`` writes it.

    Parameters
    ----------
    rows : sequence of Comparison
        The views from top to bottom.
    title : str
        The words above all, of `heading`.
    unit : str
        Of lengths: "micrometer" or "pixel".

    Returns
    -------
    Figure
        Its ``savefig`` writes it.
    """
    figure = draw_rows(rows, unit)
    write_heading(figure, title)
    return figure


def draw_rows(rows: Sequence[Comparison], unit: str) -> Figure:
    """Draw what `draw_comparisons` does, without the words above all.

    Parameters
    ----------
    rows : sequence of Comparison
        The views from top to bottom.
    unit : str
        Of lengths: "micrometer" or "pixel".

    Returns
    -------
    Figure
        With room above for `write_heading`.
    """
    heights = [
        float(np.clip(COLUMN_INCHES * row.size[0] / row.size[1], LEAST_INCHES, MOST_INCHES))
        for row in rows
    ]
    high = HEAD_INCHES + sum(heights) + len(rows) * (TITLE_INCHES + BELOW_INCHES)
    figure = Picture(figsize=(WIDTH_INCHES, high), dpi=DPI)
    axes = _whole(figure)
    largest = max(float(np.nanmax(np.abs(row.data - row.fit))) for row in rows)
    top = HEAD_INCHES
    for height, row in zip(heights, rows, strict=True):
        _draw_row(axes, top + TITLE_INCHES, height, row, UNIT_SYMBOLS[unit], largest)
        top += TITLE_INCHES + height + BELOW_INCHES
    return figure


def write_heading(figure: Figure, title: str) -> Text:
    """Write the words above all.

    Parameters
    ----------
    figure : Figure
        A figure that `draw_rows` returned.
    title : str
        The words above all views, of `heading`.

    Returns
    -------
    Text
        They overlap with nothing: drawn after the rest, the picture is the same.
    """
    [axes] = figure.axes
    return axes.text(WIDTH_INCHES / 2, MARGIN_INCHES, title, fontsize=12, ha="center", va="top")


def _whole(figure: Figure) -> Axes:
    """Return axes over a whole figure, in inches, y downwards.

    Axes of each picture's own would take matplotlib four times as long: it makes ticks for all.
    """
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_axis_off()
    width, height = figure.get_size_inches()
    axes.set(xlim=(0.0, width), ylim=(height, 0.0), autoscale_on=False)
    return axes


def _draw_row(
    axes: Axes, top: float, height: float, row: Comparison, unit: str, largest: float
) -> None:
    """Draw data, fit and residual of one view below `top`, true to scale, as large as they may."""
    lowest, highest = float(np.nanmin(row.data)), float(np.nanmax(row.data))
    shown = (
        (row.data, f"data, {row.title}", "gray", lowest, highest),
        (row.fit, f"fit, {row.psnr:.1f} dB", "gray", lowest, highest),
        (row.data - row.fit, "residual, data − fit", "RdBu_r", -largest, largest),
    )
    scale = min(COLUMN_INCHES / row.size[1], height / row.size[0])
    bottom, across = top + scale * row.size[0], scale * row.size[1]
    for left, (image, title, colours, *limits) in zip(LEFTS, shown, strict=True):
        box = (left, left + across, bottom, top)
        _draw_image(axes, image, box, colours, limits).set_label(title)
        axes.text(left, top - TITLE_GAP, title, fontsize=9, va="bottom")
        if image is not row.data:
            _draw_colours(axes, box, colours, limits)
    _draw_scale_bar(axes, (LEFTS[0], bottom), row.size[1], scale, unit)


def _draw_image(
    axes: Axes, image: Image, box: Box, colours: str, limits: Sequence[float]
) -> AxesImage:
    return axes.imshow(
        np.ma.masked_invalid(image),
        cmap=colormaps[colours].with_extremes(bad=OUTSIDE),
        vmin=limits[0],
        vmax=limits[1],
        extent=box,
        aspect="auto",
        interpolation="nearest",
    )


def _draw_colours(axes: Axes, beside: Box, colours: str, limits: Sequence[float]) -> None:
    """Draw which intensity has which colour, beside a picture."""
    _, right, bottom, top = beside
    left, low, high = right + 0.06, *limits
    bar = (left, left + 0.12, bottom, top)
    _draw_image(axes, np.linspace(high, low, 256, dtype=np.float32)[:, None], bar, colours, limits)
    axes.add_patch(Rectangle((left, top), 0.12, bottom - top, fill=False, linewidth=0.8))
    ticks = MaxNLocator(max(2, round(2 * (bottom - top))), steps=(1, 2, 2.5, 5, 10))
    values = [one for one in ticks.tick_values(low, high) if low <= one <= high]
    places = [bottom - (one - low) / ((high - low) or 1.0) * (bottom - top) for one in values]
    axes.hlines(places, left + 0.12, left + 0.15, colors="black", linewidth=0.8)
    for place, value in zip(places, values, strict=True):
        axes.text(left + 0.18, place, f"{value:g}", fontsize=7, va="center")
    axes.text(
        left + 0.62, (top + bottom) / 2, "intensity", fontsize=7, rotation=90, ha="center",
        va="center",
    )  # fmt: skip


def scale_bar_length(width: float) -> float:
    """Return the largest of 1, 2, 5, 10, ... that takes no more than its part of a width.

    Parameters
    ----------
    width : float
        Of the picture, in any unit.

    Returns
    -------
    float
        In the same unit.
    """
    most = SCALE_BAR_PART * width
    decade = 10.0 ** np.floor(np.log10(most))
    return float(max(step for step in (1.0, 2.0, 5.0) if step * decade <= most) * decade)


def _draw_scale_bar(
    axes: Axes, corner: tuple[float, float], width: float, scale: float, unit: str
) -> None:
    """Draw a bar of a round length below a picture, where it hides nothing."""
    (left, bottom), length = corner, scale_bar_length(width)
    middle = bottom + BELOW_INCHES / 2
    axes.add_patch(
        Rectangle((left, middle - BAR_HIGH / 2), scale * length, BAR_HIGH, facecolor="black")
    )
    axes.text(
        left + scale * length + 0.06, middle, f"{length:g} {unit}", fontsize=8, va="center_baseline"
    )
