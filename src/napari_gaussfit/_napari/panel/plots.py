"""The plots of a fit: how it goes, and what its Gaussians and gradients are like."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_gaussfit._napari.panel.plotting import COLOURS, bare_plot

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qtpy.QtGui import QShowEvent

    from napari_gaussfit.model.field import GaussianField

__all__ = ["DetailPlots", "ProgressPlots"]

BINS = 40
SAMPLE = 5000
"""Gaussians that a histogram is made of at most: to find the axes of 50,000 stalls the window."""

MAKE_AFTER_MS = 400
"""After the panel has opened, which is sooner without them; pressing Fit must not wait for them."""

HELD_MS = 30
"""In which scenes tell their views of what has changed; plots are painted after it."""

LEGEND_EDGE = 4
"""Pixels from a plot's edge to its legend."""

MOST_FOR_LEGEND = 0.5
"""Of the height of curves, which a legend may take beside them in a low plot."""

TINIEST = 1e-12
"""Of what is drawn in powers of ten."""


class Curves(QWidget):
    """One plot of some of a history's columns over the iterations."""

    def __init__(
        self,
        title: str,
        columns: Mapping[str, str],
        *,
        logarithmic: bool = False,
        from_zero: bool = False,
    ) -> None:
        import pyqtgraph as pg

        super().__init__()
        self._logarithmic, self._from_zero = logarithmic, from_zero
        legend = {
            "offset": (-LEGEND_EDGE, 2 if logarithmic else -LEGEND_EDGE),
            "labelTextSize": "8pt",
            "colCount": 3,
        }
        self._plot = bare_plot(
            f"{title}, powers of ten" if logarithmic else title,
            legend=legend if len(columns) > 1 else None,
        )
        self._plot.setMinimumHeight(90)
        self._plot.disableAutoRange()
        self._curves = {
            column: self._plot.plot(
                [], [], pen=pg.mkPen(COLOURS[n % len(COLOURS)], width=2), name=label
            )
            for n, (column, label) in enumerate(columns.items())
        }
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.addWidget(self._plot)

    @property
    def _legend_share(self) -> float:
        """How high the legend is, as a part of what is left to the curves beside it."""
        item = self._plot.getPlotItem()
        if item.legend is None:
            return 0.0
        # It stands a little away from the edge.
        legend, whole = item.legend.boundingRect().height() + LEGEND_EDGE, item.vb.height()
        return float(min(legend / max(whole - legend, 1.0), MOST_FOR_LEGEND))

    def show_history(self, history: Mapping[str, list[float]]) -> None:
        """Draw what was recorded so far."""
        steps = np.asarray(history["iteration"])
        seen: list[np.ndarray] = []
        for column, curve in self._curves.items():
            values = np.asarray(history[column], float)[: len(steps)]
            if self._logarithmic:
                values = np.log10(np.maximum(values, TINIEST))
            known = np.isfinite(values)
            # Of a single value there is no line to be seen.
            alone = "o" if known.sum() == 1 else None
            curve.setData(steps[: len(values)][known], values[known], symbol=alone)
            seen.append(values[known])
        shown = np.concatenate(seen)
        if len(shown):
            low, high = float(shown.min()), float(shown.max())
            low, high = (0.0, 1.15 * high) if self._from_zero else (low, max(high, low + 1e-3))
            room = self._legend_share * (high - low)
            low, high = (low, high + room) if self._logarithmic else (low - room, high)
            # pyqtgraph's own ranging has everything painted twice.
            self._plot.setRange(xRange=(steps[0], max(steps[-1], steps[0] + 1)), yRange=(low, high))
        # Axes follow the range now, not in the midst of painting, which would be painted again.
        self._plot.scene().prepareForPaint()


class Bars(QWidget):
    """One histogram."""

    def __init__(self, title: str) -> None:
        super().__init__()
        self._plot = bare_plot(title)
        self._plot.setMinimumHeight(90)
        self._bars = self._plot.plot(
            [0.0, 1.0], [0.0], stepMode="center", fillLevel=0, brush=(95, 179, 249, 150), pen=None
        )
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.addWidget(self._plot)

    def show_values(self, values: np.ndarray) -> None:
        """Draw how often each value comes."""
        if len(values):
            counts, edges = np.histogram(values, bins=BINS)
            self._bars.setData(edges, counts)


class _Plots(QWidget):
    """Plots below each other, made once the panel is open, or when first shown."""

    def __init__(self) -> None:
        super().__init__()
        self._held = QTimer(self)
        self._held.setSingleShot(True)
        self._held.setInterval(HELD_MS)
        self._held.timeout.connect(lambda: self.setUpdatesEnabled(True))
        soon = QTimer(self)
        soon.setSingleShot(True)
        soon.timeout.connect(self._fill)
        soon.start(MAKE_AFTER_MS)

    def showEvent(self, event: QShowEvent | None) -> None:
        """Make the plots if they are not there yet."""
        self._fill()
        super().showEvent(event)

    def _fill(self) -> None:
        if self.layout() is None:
            box = QVBoxLayout(self)
            box.setContentsMargins(0, 0, 0, 0)
            box.setSpacing(2)
            for plot in self._make():
                box.addWidget(plot)

    def _paint_once(self) -> None:
        """Paint all plots together, once they have heard of what is drawn, each in its own turn.

        Else each is painted alone, and the whole window, with its canvas, composed for each.
        """
        self.setUpdatesEnabled(False)
        self._held.start()

    def _make(self) -> Sequence[QWidget]:
        raise NotImplementedError


class ProgressPlots(_Plots):
    """Loss, PSNR and number of Gaussians over the iterations."""

    def __init__(self) -> None:
        super().__init__()
        self._plots: list[Curves] = []
        self.setToolTip("Over the steps of the fit; held-out projections are never trained on.")

    def _make(self) -> Sequence[QWidget]:
        self._plots = [
            Curves(
                "PSNR (dB)",
                {"held_out_psnr": "held-out", "train_psnr": "training", "voxel_psnr": "voxels"},
            ),
            Curves("Loss", {"loss": "loss"}, logarithmic=True),
            Curves("Gaussians", {"gaussians": "Gaussians"}, from_zero=True),
        ]
        return self._plots

    def show_history(self, history: Mapping[str, list[float]]) -> None:
        """Draw what was recorded so far, if anybody sees it."""
        if self.isVisible() and history["iteration"]:
            self._paint_once()
            for plot in self._plots:
                plot.show_history(history)


class DetailPlots(_Plots):
    """Amplitudes, scales, spread of the means, and gradient norms."""

    def __init__(self) -> None:
        super().__init__()
        self.setToolTip("What the Gaussians are like, and how strongly the fit still pulls.")

    def _make(self) -> Sequence[QWidget]:
        self._amplitudes = Bars("Amplitudes (raw intensity)")
        self._scales = Bars("Sigmas along principal axes")
        self._curves = [
            Curves("Spread of centres", {"spread_z": "z", "spread_y": "y", "spread_x": "x"}),
            Curves(
                "Gradient norms",
                {
                    "gradient_means": "centres",
                    "gradient_cholesky": "shapes",
                    "gradient_amplitudes": "amplitudes",
                },
                logarithmic=True,
            ),
        ]
        return [self._amplitudes, self._scales, *self._curves]

    def show_fit(self, field: GaussianField, history: Mapping[str, list[float]]) -> None:
        """Draw the Gaussians as they are and what was recorded, if anybody sees it."""
        if not self.isVisible():
            return
        self._paint_once()
        gaussians = field.numpy()
        self._amplitudes.show_values(gaussians.amplitudes)
        factors = gaussians.select(slice(None, None, -(-len(field) // SAMPLE) or 1)).factors
        self._scales.show_values(np.linalg.svd(factors, compute_uv=False).ravel())
        if history["iteration"]:
            for plot in self._curves:
                plot.show_history(history)
