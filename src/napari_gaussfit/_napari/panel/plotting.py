"""pyqtgraph as the panel has it: no menus, no mouse, napari's colours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtGui import QPalette
from qtpy.QtWidgets import QSizePolicy

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["COLOURS", "bare_plot"]

COLOURS = ("#2f86d8", "#c47310", "#2f9d4b", "#d9587f")
"""Told apart on dark and on light ground, with three times its contrast at least."""

_GROUND = None
_INKS = "#aab3bf", "#4d5560"
"""Of axes and titles: on dark ground and on light, with five times its contrast at least."""

_RESTYLED = {QEvent.Type.StyleChange, QEvent.Type.PaletteChange}


class _Restyled(QObject):
    """Writes a plot's axes and titles anew where the theme is another."""

    def __init__(self, plot: Any, title: str) -> None:
        super().__init__(plot)
        self._plot, self._title, self._ink = plot, title, ""
        plot.installEventFilter(self)
        self._write()

    def eventFilter(self, _watched: QObject | None, event: QEvent | None) -> bool:
        """Look whether the ground is another; nothing is kept from anybody."""
        if event is not None and event.type() in _RESTYLED:
            self._write()
        return False

    def _write(self) -> None:
        # Of a style sheet, a widget's palette knows the colour of texts alone.
        letters = self._plot.palette().color(QPalette.ColorRole.WindowText)
        ink = _INKS[int(letters.lightness() < 128)]
        if ink == self._ink:
            return
        self._ink = ink
        item = self._plot.getPlotItem()
        if self._title:
            item.setTitle(self._title, color=ink, size="9pt")
        for side in ("left", "bottom"):
            axis = item.getAxis(side)
            axis.setPen(ink)
            axis.setTextPen(ink)
        if item.legend is not None:
            item.legend.setLabelTextColor(ink)
            for _, label in item.legend.items:
                label.setText(label.text, color=ink)


def bare_plot(title: str = "", *, legend: Mapping[str, Any] | None = None, **labels: str) -> Any:
    """Return a PlotWidget that only shows: no menu, no dragging, transparent ground."""
    import pyqtgraph as pg

    plot = pg.PlotWidget(background=_GROUND, enableMenu=False)
    plot.setMouseEnabled(x=False, y=False)
    plot.hideButtons()
    plot.setFrameStyle(0)
    # A ground that pyqtgraph has kept is that of the theme before.
    plot.setCacheMode(plot.CacheModeFlag.CacheNone)
    plot.setAccessibleName(title or "Plot")
    plot.setFocusPolicy(Qt.FocusPolicy.NoFocus)
    item = plot.getPlotItem()
    # A menu that nobody opens, and that would stay behind as a window of its own.
    item.ctrlMenu.setParent(plot, item.ctrlMenu.windowFlags())
    plot.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Expanding)
    for side in ("left", "bottom"):
        axis = item.getAxis(side)
        axis.setStyle(tickLength=-4)
        if side in labels:
            axis.setLabel(labels[side])
    if legend is not None:
        # As high as its words: curves keep clear of it.
        item.addLegend(**legend).layout.setContentsMargins(4, 0, 4, 0)
    _Restyled(plot, title)
    return plot
