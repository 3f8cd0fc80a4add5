"""A small histogram of a stack's intensities, with the background marked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel, QSizePolicy, QVBoxLayout, QWidget

from napari_gaussfit._napari.panel.plotting import bare_plot

if TYPE_CHECKING:
    from napari_gaussfit._napari.panel.preview import Preview

__all__ = ["Histogram"]


class Histogram(QWidget):
    """Intensities on a logarithmic scale of counts, and a line of words under them."""

    def __init__(self) -> None:
        super().__init__()
        self._plot: Any = None  # Made for the first stack: the panel opens sooner without.
        place = QWidget()
        place.setFixedHeight(76)
        self._frame = QVBoxLayout(place)
        self._frame.setContentsMargins(0, 0, 0, 0)
        self._words = QLabel()
        box = QVBoxLayout(self)
        box.setContentsMargins(4, 0, 4, 0)
        box.setSpacing(0)
        box.addWidget(place)
        box.addWidget(self._words)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.show_preview(None)

    def _make_plot(self) -> None:
        import pyqtgraph as pg

        self._plot = bare_plot()
        self._plot.hideAxis("left")
        self._plot.setToolTip(
            "Voxels (log) by intensity. The dashed line is the estimated background."
        )
        self._bars = self._plot.plot(
            [0.0, 1.0], [0.0], stepMode="center", fillLevel=0, brush=(120, 170, 220, 160), pen=None
        )
        self._line = pg.InfiniteLine(angle=90, pen=pg.mkPen("#ffb454", style=Qt.PenStyle.DashLine))
        self._plot.addItem(self._line)
        self._frame.addWidget(self._plot)

    def show_preview(self, preview: Preview | None) -> None:
        """Show a stack's intensities, or nothing."""
        if preview is None:
            if self._plot is not None:
                self._plot.hide()
            self._words.setText("")
            return
        if self._plot is None:
            self._make_plot()
        self._plot.show()
        self._bars.setData(preview.edges, np.log10(preview.counts + 1.0))
        self._line.setValue(preview.background)
        self._words.setText(
            f"Intensities {preview.edges[0]:.4g} to {preview.edges[-1]:.4g}, "
            f"background about {preview.background:.4g}"
        )
