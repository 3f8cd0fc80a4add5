"""spots.png: the stack's maximum intensity projection, and the spots that were found on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.layout_engine import ConstrainedLayoutEngine

from napari_gaussfit.plots.figure import Picture
from napari_gaussfit.plots.projections import DPI, UNIT_SYMBOLS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from napari_gaussfit.model.gaussians import Gaussians
    from napari_gaussfit.stacks.stack import Stack

__all__ = ["draw_spots"]

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
    projection = stack.voxels.max(0)
    height, width = np.multiply(projection.shape, stack.spacing[1:])
    tall = float(np.clip(PANEL_INCHES * height / width, 1.5, 2 * PANEL_INCHES))
    figure = Picture((2 * PANEL_INCHES, tall + 0.7), DPI, layout=ConstrainedLayoutEngine())
    low, high = np.percentile(projection, (1, BRIGHTEST))
    dy, dx = stack.spacing[1:]
    unit = UNIT_SYMBOLS[stack.unit]
    for axes, title in zip(
        figure.subplots(1, 2), ("maximum along z", f"{len(spots):,} spots"), strict=True
    ):
        axes.imshow(
            projection, cmap="gray", vmin=low, vmax=max(high, low + 1e-6),
            extent=(-dx / 2, width - dx / 2, height - dy / 2, -dy / 2), interpolation="nearest",
        )  # fmt: skip
        axes.set(title=title, xlabel=f"x ({unit})")
    axes.scatter(
        spots.means[:, 2], spots.means[:, 1], s=36, facecolors="none", edgecolors="#ff5030",
        linewidths=0.8,
    )  # fmt: skip
    axes.set(xlim=(-dx / 2, width - dx / 2), ylim=(height - dy / 2, -dy / 2), yticks=[])
    figure.axes[0].set(ylabel=f"y ({unit})")
    return figure
