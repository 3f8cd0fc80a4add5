"""How many Gaussians the stack would carry, and what fewer or more would cost, beside the count."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel, QPushButton, QSizePolicy, QVBoxLayout, QWidget

from napari_gaussfit._napari.panel.asking import Asking
from napari_gaussfit._napari.panel.plotting import COLOURS, bare_plot
from napari_gaussfit._napari.panel.preview import is_same_stack
from napari_gaussfit.jobs.outlook import found_outlook

if TYPE_CHECKING:
    from napari_gaussfit.fitting.outlook import Outlook
    from napari_gaussfit.stacks.stack import Stack

__all__ = ["HowMany"]

DEFAULT = "Unless you say so, as many as the noise allows."
"""What the number of Gaussians is without a choice."""


class HowMany(QWidget):
    """A button that asks, the answer in words, and a small plot of PSNR against number."""

    def __init__(self) -> None:
        super().__init__()
        self._stack: Stack | None = None
        self.asking = Asking(self)
        self.button = QPushButton("How many would that be?")
        self.button.setObjectName("gaussfit_how_many")
        self.button.setToolTip(
            "Fit parts of the stack coarsely, which takes some seconds: about how many Gaussians "
            "the noise allows, and what fewer or more would cost."
        )
        self.words = QLabel()
        self.words.setWordWrap(True)
        self.words.setObjectName("gaussfit_how_many_words")
        self._plot: Any = None
        box = self._box = QVBoxLayout(self)
        box.setContentsMargins(4, 0, 4, 0)
        box.setSpacing(2)
        box.addWidget(self.words)
        box.addWidget(self.button)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.button.clicked.connect(self._ask)
        self.asking.ended.connect(self._take)
        self.look_at(None)

    def look_at(self, stack: Stack | None) -> None:
        """Take a stack to ask about; what was said of another is no longer shown."""
        if stack is not None and is_same_stack(stack, self._stack):
            return
        self._stack = stack
        self.asking.about(stack)
        self.words.setText(DEFAULT)
        self.button.setEnabled(stack is not None)
        if self._plot is not None:
            self._plot.hide()

    def _ask(self) -> None:
        self.button.setEnabled(False)
        self.words.setText(f"{DEFAULT} Looking at parts of the stack…")
        self.asking.ask(lambda renderer: found_outlook(renderer.ask))

    def _take(self, found: Outlook | None, error: str) -> None:
        self.button.setEnabled(True)
        if found is None:
            self.words.setText(f"⚠ {error}")
            return
        self.words.setText(f"Unless you say so, {found.words}. Looked at: {found.looked_at}.")
        self._draw(found)

    def _draw(self, found: Outlook) -> None:
        import pyqtgraph as pg

        if self._plot is None:
            self._plot = bare_plot(bottom="Gaussians", left="PSNR, dB")
            self._plot.setFixedHeight(110)
            self._plot.setToolTip(
                "Predicted PSNR of the voxels against the number of Gaussians, with its error. "
                "Dashed: what the noise leaves to reach, and the number that it allows."
            )
            self._box.addWidget(self._plot)
        self._plot.clear()
        item = self._plot.getPlotItem()
        item.setLogMode(x=True)
        counts, first = np.unique(np.maximum(found.counts, 1), return_index=True)
        psnr, error = found.psnr[first], found.psnr_error[first]
        pen = pg.mkPen(COLOURS[0], width=2)
        self._plot.plot(counts, psnr, pen=pen, symbol="o", symbolSize=6, symbolBrush=COLOURS[0])
        bars = pg.ErrorBarItem(x=np.log10(counts), y=psnr, height=2 * error, pen=COLOURS[0])
        item.addItem(bars)
        dashed = pg.mkPen(COLOURS[1], style=Qt.PenStyle.DashLine)
        item.addItem(pg.InfiniteLine(np.log10(max(found.carried, 1)), angle=90, pen=dashed))
        if np.isfinite(found.noise_psnr):
            item.addItem(pg.InfiniteLine(found.noise_psnr, angle=0, pen=dashed))
        self._plot.show()

    def close_down(self) -> None:
        """End its process."""
        self.asking.give_up()
