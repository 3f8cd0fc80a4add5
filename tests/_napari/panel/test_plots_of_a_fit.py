"""The plots of a fit that goes on are cheap for the window that shows them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from qtpy.QtCore import QEvent, QObject, QPointF
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

from napari_gaussfit._napari.panel.plots import HELD_MS, Curves, ProgressPlots

pytestmark = pytest.mark.gui

SETTLED_MS = 300


class Paints(QObject):
    """Counts how often a window is painted, which composes all of it."""

    def __init__(self, window: QObject) -> None:
        super().__init__()
        self.window, self.count = window, 0

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:  # noqa: N802
        if event is not None and event.type() == QEvent.Type.UpdateRequest:
            self.count += watched is self.window
        return False


def history(steps: int) -> dict[str, list[float]]:
    """Return what a fit has recorded after so many steps."""
    at = np.arange(10, steps + 1, 10)
    columns = {
        name: 60 - 30 * np.exp(-at / 300) for name in ("held_out_psnr", "train_psnr", "voxel_psnr")
    }
    columns |= {"iteration": at, "loss": np.exp(-at / 300), "gaussians": 2000 - 0.1 * at}
    return {name: values.tolist() for name, values in columns.items()}


@pytest.fixture
def plots(qtbot: Any) -> ProgressPlots:
    plots = ProgressPlots()
    qtbot.addWidget(plots)
    plots.resize(360, 500)
    with qtbot.waitExposed(plots, timeout=10_000):
        plots.show()
    plots.show_history(history(1000))
    QTest.qWait(SETTLED_MS)
    return plots


def test_three_plots_have_their_window_painted_once(plots: ProgressPlots, qtbot: Any) -> None:
    paints = Paints(plots)
    QApplication.instance().installEventFilter(paints)
    try:
        plots.show_history(history(1010))
        qtbot.waitUntil(lambda: paints.count > 0)
        QTest.qWait(SETTLED_MS)
    finally:
        QApplication.instance().removeEventFilter(paints)
    assert paints.count == 1


def test_what_is_drawn_is_seen_in_a_moment(plots: ProgressPlots, qtbot: Any) -> None:
    before = plots.grab().toImage()
    plots.show_history(history(3000))
    qtbot.waitUntil(plots.updatesEnabled, timeout=100 * HELD_MS)
    assert plots.grab().toImage() != before


def test_the_one_value_of_a_short_fit_is_seen(plots: ProgressPlots) -> None:
    curves = [curve for plot in plots.findChildren(Curves) for curve in plot._curves.values()]
    assert not any(len(curve.scatter.points()) for curve in curves), "lines of many values"
    plots.show_history(history(10))
    assert [len(curve.scatter.points()) for curve in curves] == [1] * len(curves) == [1] * 5


def test_the_legend_covers_no_curve_that_stays_where_it_was(plots: ProgressPlots) -> None:
    """As of a refinement, whose held-out projections lie flat below the others."""
    level = history(700)
    for name, psnr in (("held_out_psnr", 23.5), ("train_psnr", 25.8), ("voxel_psnr", 29.7)):
        level[name] = [psnr] * len(level["iteration"])
    plots.show_history(level)
    QTest.qWait(SETTLED_MS)
    item = plots._plots[0]._plot.getPlotItem()
    legend = item.legend.mapRectToItem(item.vb, item.legend.boundingRect())
    lowest = item.vb.mapFromView(QPointF(700, 23.5))
    assert lowest.y() < legend.top()
    assert item.vb.boundingRect().contains(lowest)
