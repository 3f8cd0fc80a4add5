"""pyqtgraph as the panel has it: no menus, no mouse, napari's colours."""

from __future__ import annotations

from typing import Any

from qtpy.QtWidgets import QSizePolicy

__all__ = ["COLOURS", "INK", "bare_plot"]

COLOURS = ("#5fb3f9", "#ffb454", "#7ed491", "#e67e9f")
"""Told apart on dark and on light ground."""

_GROUND = None
INK = "#9aa4b1"
"""Of axes and titles: read on dark and on light ground."""


def bare_plot(title: str = "", **labels: str) -> Any:
    """Return a PlotWidget that only shows: no menu, no dragging, transparent ground."""
    import pyqtgraph as pg

    plot = pg.PlotWidget(background=_GROUND, enableMenu=False)
    plot.setMouseEnabled(x=False, y=False)
    plot.hideButtons()
    plot.setFrameStyle(0)
    item = plot.getPlotItem()
    # A menu that nobody opens, and that would stay behind as a window of its own.
    item.ctrlMenu.setParent(plot, item.ctrlMenu.windowFlags())
    plot.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Expanding)
    if title:
        item.setTitle(title, color=INK, size="9pt")
    for side in ("left", "bottom"):
        axis = item.getAxis(side)
        axis.setPen(INK)
        axis.setTextPen(INK)
        axis.setStyle(tickLength=-4)
        if side in labels:
            axis.setLabel(labels[side])
    return plot
