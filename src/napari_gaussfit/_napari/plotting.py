"""pyqtgraph as the panel has it: no menus, no mouse, napari's colours."""

from __future__ import annotations

from typing import Any

import pyqtgraph as pg

__all__ = ["COLOURS", "bare_plot"]

COLOURS = ("#5fb3f9", "#ffb454", "#7ed491", "#e67e9f")
"""Told apart on dark and on light ground."""

_GROUND, _INK = None, "#9aa4b1"


def bare_plot(title: str = "", **labels: str) -> Any:
    """Return a PlotWidget that only shows: no menu, no dragging, transparent ground."""
    plot = pg.PlotWidget(background=_GROUND, enableMenu=False)
    plot.setMouseEnabled(x=False, y=False)
    plot.hideButtons()
    plot.setFrameStyle(0)
    item = plot.getPlotItem()
    # A menu that nobody opens, but that would stay behind as a window of its own.
    menu = item.ctrlMenu
    item.ctrlMenu = None
    if menu is not None:
        menu.setParent(plot)
    if title:
        item.setTitle(title, color=_INK, size="9pt")
    for side in ("left", "bottom"):
        axis = item.getAxis(side)
        axis.setPen(_INK)
        axis.setTextPen(_INK)
        axis.setStyle(tickLength=-4)
        if side in labels:
            axis.setLabel(labels[side])
    return plot
