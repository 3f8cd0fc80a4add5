"""Images side by side, and curves over one axis: what a notebook shows beside its numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.layout_engine import ConstrainedLayoutEngine

from napari_gaussfit.plots.figure import Picture

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike

__all__ = ["draw_curves", "draw_images"]

WIDTH, TALLEST = 9.0, 7.0
"""Inches across a page, and down a row of images."""

DPI = 100


def draw_images(
    images: Mapping[str, ArrayLike],
    *,
    pixel: tuple[float, float] = (1.0, 1.0),
    limits: tuple[float, float] | None = None,
    residuals: Sequence[str] = (),
) -> Figure:
    """Draw images in a row, under their titles, in grey; true to scale.

    Parameters
    ----------
    images : mapping of array, shape [H, W]
        The images from left to right, by the title above each.
    pixel : tuple of float
        Height and width of a pixel, of any unit.
    limits : tuple of float, optional
        Intensities shown black and white; those of the first image by default.
    residuals : sequence of str
        Titles of the images drawn in blue and red about zero, to one scale.

    Returns
    -------
    Figure
        With a panel for each image.
    """
    arrays = {title: np.asarray(image) for title, image in images.items()}
    first = next(iter(arrays.values()))
    low, high = limits or (float(np.nanmin(first)), float(np.nanmax(first)))
    widest = max((float(np.nanmax(np.abs(arrays[title]))) for title in residuals), default=1.0)
    each = WIDTH / len(arrays)
    tall = max(a.shape[0] * pixel[0] / (a.shape[1] * pixel[1]) for a in arrays.values())
    size = WIDTH, min(each * tall, TALLEST) + 0.4
    figure = Picture(size, DPI, layout=ConstrainedLayoutEngine())
    axes = figure.subplots(1, len(arrays), squeeze=False)
    for panel, (title, image) in zip(axes[0], arrays.items(), strict=True):
        residual = title in residuals
        shown = panel.imshow(
            image,
            cmap="RdBu_r" if residual else "gray",
            vmin=-widest if residual else low,
            vmax=widest if residual else high,
            aspect=pixel[0] / pixel[1],
            interpolation="nearest",
        )
        panel.set_title(title, fontsize=10)
        panel.set_axis_off()
        if residual:
            figure.colorbar(shown, ax=panel, shrink=0.6).ax.tick_params(labelsize=8)
    return figure


def draw_curves(
    x: ArrayLike, lines: Mapping[str, ArrayLike], *, labels: tuple[str, str], log: bool = False
) -> Figure:
    """Draw lines over one axis, with a legend where there are several.

    Parameters
    ----------
    x : array-like, shape [N]
        Where the values of all lines lie on the horizontal axis.
    lines : mapping of array-like, shape [N]
        The values of each line, by its name in the legend.
    labels : tuple of str
        Of the two axes.
    log : bool
        Whether the vertical axis is logarithmic.

    Returns
    -------
    Figure
        With one panel.
    """
    figure = Picture((0.75 * WIDTH, 3.2), DPI, layout=ConstrainedLayoutEngine())
    panel = figure.subplots()
    for name, values in lines.items():
        panel.plot(x, values, label=name)
    panel.set_xlabel(labels[0])
    panel.set_ylabel(labels[1])
    if log:
        panel.set_yscale("log")
    if len(lines) > 1:
        panel.legend(frameon=False)
    panel.spines[["top", "right"]].set_visible(False)
    return figure
