"""A panel that is closed and opened again says all that was typed, ticked and chosen in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QComboBox, QLabel, QLineEdit, QListWidget, QPushButton

from by_hand import add_stack, choose, open_panel, reopened
from list_of_results import click, show_kept
from napari_gaussfit._napari.worker import Phase
from napari_gaussfit.settings import FitSettings
from napari_gaussfit.synthetic import phantoms

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_gaussfit.synthetic.phantoms import Phantom

    Wait = Callable[..., None]

pytestmark = [pytest.mark.gui, pytest.mark.usefixtures("nothing_left_behind", "own_sessions")]

COMPILING = 240.0
"""Seconds that the first answer after an installation may take, on a busy machine."""

SIX = FitSettings(exactly=True, gaussians=6, quality="preview")


def type_in(line: QLineEdit, text: str) -> None:
    """Type in place of what is there, and press Enter."""
    line.setFocus()
    line.selectAll()
    QTest.keyClicks(line, text)
    QTest.keyClick(line, Qt.Key.Key_Return)


def fit(panel: Any, wait_until: Wait, settings: FitSettings = SIX) -> Any:
    before = panel.fit
    panel.model.settings = settings
    wait_until(panel.run.buttons["Fit"].isEnabled)
    click(panel.run.buttons["Fit"])
    wait_until(lambda: panel.worker.phase is Phase.FINISHED and panel.fit is not before, COMPILING)
    return panel.fit


def said(panel: Any, name: str) -> str:
    return str(panel.findChild(QLabel, name).text())


def test_sizes_of_spots_that_were_typed_are_looked_for_again(panel: Any, wait_until: Wait) -> None:
    choose(panel, "Spots")
    wait_until(lambda: "stand out" in said(panel, "gaussfit_candidates"), COMPILING)
    assert said(panel, "gaussfit_sizes").startswith("Sizes, as suit the stack: ")
    type_in(panel.spots.setup.largest.field, "0.45")
    assert said(panel, "gaussfit_sizes").startswith("Sizes, the largest as you set it: ")
    type_in(panel.spots.setup.least.field, "0.21")
    type_in(panel.spots.setup.false_in_hundred.field, "7")
    again = reopened(panel)
    setup = again.spots.setup
    assert said(again, "gaussfit_sizes") == (
        "Sizes, as you set them: full width at half maximum (FWHM) in µm."
    )
    assert [one.field.text() for one in (setup.least, setup.largest, setup.false_in_hundred)] == [
        "0.21", "0.45", "7",
    ]  # fmt: skip
    wait_until(lambda: again.spots._candidates is not None, COMPILING)
    found = again.spots._candidates
    assert (found.least, found.largest) == (0.21, 0.45)
    wait_until(again.spots.foot.fit.isEnabled)
    click(again.spots.foot.fit)
    wait_until(lambda: again.spots.found is not None, COMPILING)
    assert again.spots.found.report["largest_size"] == 0.45
    assert again.spots.found.report["false_discoveries"] == pytest.approx(0.07)
    [usual] = [one for one in again.findChildren(QPushButton) if one.text() == "Default sizes"]
    click(usual)
    third = reopened(again)
    assert third.spots.setup.sizes == (None, None)
    assert said(third, "gaussfit_sizes").startswith("Sizes, as suit the stack: ")


def test_how_rows_are_shown_and_layers_made_stays(panel: Any, wait_until: Wait) -> None:
    fit(panel, wait_until)
    table = panel.table
    bright = float(np.median(table.model.column("amplitude")))
    type_in(table.condition, f"amplitude > {bright:.6g}")
    low, high = table._size.value()
    table._size.setValue((low, high - 0.001 * (high - low)))
    table.view.choose_columns({"index", "amplitude", "x"})
    table.view.sortByColumn(table.model.columns.index("index"), Qt.SortOrder.AscendingOrder)
    panel.results.kinds = {"labels", "surface"}
    panel.results._sigma.value = 2.0
    shown = panel.live.centres.shown.copy()
    assert 0 < shown.sum() < 6
    rows = [table.model.data(table.model.index(n, 0)) for n in range(table.model.rowCount())]

    again = reopened(panel)
    wait_until(lambda: again.live is not None and again.live.centres is not None)
    table = again.table
    assert table.condition.text() == f"amplitude > {bright:.6g}"
    assert {*table.view.shown_columns} == {"index", "amplitude", "x"}
    assert rows == [
        table.model.data(table.model.index(n, 0)) for n in range(table.model.rowCount())
    ]
    np.testing.assert_array_equal(again.live.centres.shown, shown)
    assert again.results.kinds == {"labels", "surface"}
    assert again.results._sigma.value == 2.0
    table.condition.clear()
    table._size.setValue((0.0, 1e9))
    assert table.model.rowCount() == 6


def test_the_threshold_of_labels_is_of_the_fit_shown_until_one_is_typed(
    panel: Any, wait_until: Wait, small_beads: Phantom
) -> None:
    def suggested(found: Any) -> float:
        field = found.field.numpy()
        return float(f"{field.background + 0.5 * np.median(field.amplitudes):.4g}")

    first = fit(panel, wait_until)
    line = panel.results._threshold
    assert line.value == suggested(first)
    second = fit(panel, wait_until, FitSettings(exactly=True, gaussians=3, quality="preview"))
    assert line.value == suggested(second) != suggested(first)
    panel = reopened(panel)
    wait_until(lambda: panel.fit is not None)
    line = panel.results._threshold
    assert line.value == suggested(second)
    show_kept(panel, 0)
    assert line.value == suggested(first)
    type_in(line, "321")
    panel = reopened(panel)
    wait_until(lambda: panel.fit is not None)
    line = panel.results._threshold
    assert line.value == 321
    fit(panel, wait_until)
    assert line.value == 321, "of the same stack"
    dim = add_stack(panel.viewer, small_beads.stack, "dim")
    dim.data = dim.data // 2
    panel.data.layer = dim
    third = fit(panel, wait_until)
    assert line.value == suggested(third), "nobody has typed one for this stack"


def test_what_was_hidden_together_is_shown_together(panel: Any, wait_until: Wait) -> None:
    fit(panel, wait_until)
    wait_until(lambda: panel.live.complete)
    wait_until(lambda: "beads centres on projections" in panel.viewer.layers)
    QTest.qWait(300)
    click(panel.shown.hide_all)
    assert [one.name for one in panel.viewer.layers if one.visible] == ["beads"]
    again = reopened(panel)
    wait_until(lambda: again.live is not None and again.live.complete)
    assert again.shown.hide_all.text() == "Show all again"
    click(again.shown.hide_all)
    assert all(one.visible for one in again.viewer.layers)


def test_times_channels_and_region_stay(
    make_napari_viewer_proxy: Any, small_beads: Phantom, wait_until: Wait
) -> None:
    viewer = make_napari_viewer_proxy()
    voxels = small_beads.stack.voxels
    movie = np.stack([np.stack([voxels, voxels // 2])] * 3)
    viewer.add_image(movie, name="cells", axis_labels=("t", "c", "z", "y", "x"))
    region = viewer.add_shapes([[[5, 5], [5, 30], [30, 30], [30, 5]]], name="here")
    panel = open_panel(viewer)
    wait_until(panel.run.buttons["Fit"].isEnabled)
    box: Any = panel.findChild(QComboBox, "gaussfit_times")
    box.setFocus()
    QTest.keyClick(box, Qt.Key.Key_End)
    line: Any = panel.findChild(QLineEdit, "gaussfit_range")
    type_in(line, "1:3")
    channels: Any = panel.findChild(QListWidget, "gaussfit_channels")
    place = channels.visualItemRect(channels.item(1))
    at = QPoint(place.left() + 8, place.center().y())
    QTest.mouseClick(channels.viewport(), Qt.MouseButton.LeftButton, pos=at)
    panel.data._region.setFocus()
    QTest.keyClick(panel.data._region, Qt.Key.Key_Down)
    wanted = panel.data.choices
    assert panel.data.times.times() == (1, 2)
    assert len(panel.data.chosen()) == 2
    assert wanted[2] == region
    again = reopened(panel)
    wait_until(again.run.buttons["Fit"].isEnabled)
    assert again.data.choices == wanted
    assert again.data.times.times() == (1, 2)
    assert len(again.data.chosen()) == 2

    # A region that was deleted meanwhile is none, and the rest stays.
    viewer.window.remove_dock_widget(again)
    viewer.layers.remove("here")
    third = open_panel(viewer)
    wait_until(third.run.buttons["Fit"].isEnabled)
    assert third.data.choices == (*wanted[:2], None)


def test_the_channel_that_is_looked_at_stays(
    make_napari_viewer_proxy: Any, wait_until: Wait
) -> None:
    viewer = make_napari_viewer_proxy()
    stack = phantoms.beads(count=6, shape=(12, 40, 40)).stack
    both = np.stack([stack.voxels, stack.voxels[:, ::-1]])
    viewer.add_image(both, name="two", axis_labels=("c", "z", "y", "x"))
    panel = open_panel(viewer)
    wait_until(panel.run.buttons["Fit"].isEnabled)
    channels: Any = panel.findChild(QListWidget, "gaussfit_channels")
    place = channels.visualItemRect(channels.item(1))
    at = QPoint(place.left() + 8, place.center().y())
    QTest.mouseClick(channels.viewport(), Qt.MouseButton.LeftButton, pos=at)
    fit(panel, wait_until)
    box: Any = panel.findChild(QComboBox, "gaussfit_channel")
    box.setFocus()
    QTest.keyClick(box, Qt.Key.Key_End)
    assert panel.view.choice.channel == 1
    again = reopened(panel)
    wait_until(lambda: again.fit is not None)
    assert again.view.choice.channel == 1
    wait_until(lambda: again.live._mips is not None and again.live._mips.view.channel == 1)
