"""spots.png: the stack's maximum intensity projection, and the spots that were found on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.layout_engine import ConstrainedLayoutEngine

from napari_gaussfit.plots.figure import Picture
from napari_gaussfit.plots.projections import DPI, UNIT_SYMBOLS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from napari_gaussfit.model.gaussians import Gaussians
    from napari_gaussfit.stacks.stack import Stack

__all__ = ["draw_marks", "draw_spots"]

PANEL_INCHES = 5.0
BRIGHTEST = 99.8
"""Percentile of the projection that is white: a few bright voxels would leave the rest dark."""


def draw_spots(stack: Stack, spots: Gaussians) -> Figure:
    """Draw the projection along z, and once more with a mark at each spot.

    Parameters
    ----------
    stack : Stack
        The stack whose spots were searched.
    spots : Gaussians
        A Gaussian each, in the stack's unit.

    Returns
    -------
    Figure
        Its ``savefig`` writes it.
    """
    return draw_marks(stack.voxels.max(0), spots.means, stack.spacing[1:], stack.unit)


def draw_marks(
    projection: NDArray[np.float32], means: NDArray[np.floating], pixel: Sequence[float], unit: str
) -> Figure:
    """Draw a projection, and once more with a mark at each spot.

    Parameters
    ----------
    projection : ndarray, shape [Y, X]
        Maximum along z, in raw intensity.
    means : ndarray, shape [K, 3]
        Centres of the spots (z, y, x), in the unit.
    pixel : sequence of float
        Height and width of a pixel (dy, dx), in the unit.
    unit : str
        Of lengths: "micrometer" or "pixel".

    Returns
    -------
    Figure
        Its ``savefig`` writes it.
    """
    height, width = np.multiply(projection.shape, pixel)
    tall = float(np.clip(PANEL_INCHES * height / width, 1.5, 2 * PANEL_INCHES))
    figure = Picture((2 * PANEL_INCHES, tall + 0.7), DPI, layout=ConstrainedLayoutEngine())
    low, high = np.percentile(projection, (1, BRIGHTEST))
    dy, dx = pixel
    symbol = UNIT_SYMBOLS[unit]
    for axes, title in zip(
        figure.subplots(1, 2), ("maximum along z", f"{len(means):,} spots"), strict=True
    ):
        axes.imshow(
            projection, cmap="gray", vmin=low, vmax=max(high, low + 1e-6),
            extent=(-dx / 2, width - dx / 2, height - dy / 2, -dy / 2), interpolation="nearest",
        )  # fmt: skip
        axes.set(title=title, xlabel=f"x ({symbol})")
    axes.scatter(
        means[:, 2], means[:, 1], s=36, facecolors="none", edgecolors="#ff5030", linewidths=0.8
    )
    axes.set(xlim=(-dx / 2, width - dx / 2), ylim=(height - dy / 2, -dy / 2), yticks=[])
    figure.axes[0].set(ylabel=f"y ({symbol})")
    return figure
