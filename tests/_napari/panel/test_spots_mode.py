"""Spots in the panel: candidates at once, one Gaussian each, and what a person says of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import psutil
import pytest
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QLabel, QPushButton, QRadioButton

from by_hand import drop
from napari_gaussfit._napari.layers.edited import fit_of_layer
from napari_gaussfit.formats.csv import read_csv
from napari_gaussfit.synthetic.phantoms import spots

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_gaussfit.stacks.stack import Stack
    from napari_gaussfit.synthetic.phantoms import Phantom

    Wait = Callable[..., None]

pytestmark = [pytest.mark.gui, pytest.mark.usefixtures("nothing_left_behind")]

COMPILING = 240.0
"""Seconds that the first search after an installation may take, on a busy machine."""


def click(button: Any) -> None:
    assert button.isEnabled()
    # A radio button heeds clicks on its mark and its words only.
    QTest.mouseClick(button, Qt.MouseButton.LeftButton, pos=QPoint(8, button.height() // 2))


def choose_spots(panel: Any) -> None:
    [button] = [one for one in panel.findChildren(QRadioButton) if "Spots" in one.text()]
    click(button)


def state(panel: Any) -> str:
    return str(panel.findChild(QLabel, "gaussfit_spots_state").text())


def layer_named(viewer: Any, end: str) -> Any:
    [layer] = [one for one in viewer.layers if one.name.endswith(end)]
    return layer


def row(panel: Any, number: int) -> dict[str, str]:
    """Return what a row of the table shows, by the titles of its columns."""
    model = panel.spots.table.model
    across = Qt.Orientation.Horizontal
    columns = range(model.columnCount())
    titles = [model.headerData(n, across).partition("\n")[0] for n in columns]
    return {
        title: model.data(model.index(number, n), Qt.ItemDataRole.DisplayRole)
        for n, title in enumerate(titles)
    }


def opened(viewer: Any, stack: Stack, wait_until: Wait) -> Any:
    """Return a panel beside a stack, in which spots are looked for."""
    place = {"scale": stack.spacing, "units": ("um",) * 3, "axis_labels": ("z", "y", "x")}
    viewer.add_image(stack.voxels, name="beads", **place)
    _, panel = viewer.window.add_plugin_dock_widget("napari-gaussfit", "Gaussian fit")
    choose_spots(panel)
    wait_until(lambda: any(one.name == "beads candidates" for one in viewer.layers), COMPILING)
    return panel


@pytest.fixture
def panel(make_napari_viewer_proxy: Any, small_beads: Phantom, wait_until: Wait) -> Any:
    """A panel beside six beads, which are looked for."""
    return opened(make_napari_viewer_proxy(), small_beads.stack, wait_until)


def test_titles_are_in_the_unit_of_the_stack_before_a_spot_is_found(panel: Any) -> None:
    model = panel.spots.table.model
    across = Qt.Orientation.Horizontal
    titles = [model.headerData(n, across) for n in range(model.columnCount())]
    assert "z\nµm" in titles
    assert not any("px" in title for title in titles)


def fit(panel: Any, wait_until: Wait) -> Any:
    before = panel.spots.found
    click(panel.spots.foot.fit)
    assert not panel.spots.foot.fit.isEnabled()
    wait_until(lambda: panel.spots.found is not before, COMPILING)
    return panel.spots.found


def test_four_beads_are_dropped_found_read_and_saved_with_three_clicks(
    make_napari_viewer_proxy: Any,
    stack_path: Callable[[str], Path],
    wait_until: Wait,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    viewer = make_napari_viewer_proxy()
    _, panel = viewer.window.add_plugin_dock_widget("napari-gaussfit", "Gaussian fit")
    drop(panel, stack_path("spots_beads/beads_confocal_mpicbg.tif"))
    choose_spots(panel)
    wait_until(panel.spots.foot.fit.isEnabled)
    fit(panel, wait_until)
    assert state(panel).startswith("Finished: 4 spots")
    assert panel.tabs.currentWidget() is panel.spots.table
    assert panel.spots.table.model.rowCount() == 4
    shown = row(panel, 0)
    assert float(shown["fwhm 1"].split()[0]) == pytest.approx(0.6, abs=0.03), shown
    for name in ("z", "y", "x", "fwhm 1", "fwhm 2", "fwhm 3", "amplitude", "intensity"):
        assert "±" in shown[name], f"{name}: {shown[name]}"
    assert float(shown["signal/noise"]) > 10
    assert float(shown["reduced χ²"]) > 0
    assert shown["neighbours"] == "0"
    monkeypatch.setattr(
        "napari_gaussfit._napari.panel.spots.QFileDialog.getSaveFileName",
        lambda *_: (str(tmp_path / "beads.csv"), ""),
    )
    click(panel.spots.table.save)
    saved = read_csv(tmp_path / "beads.csv")
    assert len(saved) == 4
    np.testing.assert_allclose(
        layer_named(viewer, " spots").data * [0.125, 0.02249186, 0.02249186],
        saved.numpy().means,
        atol=1e-5,
    )


def test_candidates_follow_the_sensitivity_before_anything_is_fitted(
    make_napari_viewer_proxy: Any, wait_until: Wait
) -> None:
    panel = opened(make_napari_viewer_proxy(), spots(peak=8.0).stack, wait_until)
    layer = layer_named(panel.viewer, "candidates")
    usual = len(layer.data)
    assert 45 < usual < 52
    slider = panel.spots.setup.false_in_hundred.slider
    slider.setFocus()
    QTest.keyClick(slider, Qt.Key.Key_End)
    assert panel.spots.setup.false_discoveries == pytest.approx(0.2)
    wait_until(lambda: len(layer.data) > usual, 5)
    QTest.keyClick(slider, Qt.Key.Key_Home)
    wait_until(lambda: len(layer.data) <= usual, 5)
    assert panel.spots.found is None
    words = panel.findChild(QLabel, "gaussfit_candidates").text()
    assert words.startswith(f"{len(layer.data)} places stand out of the noise")


def test_a_size_is_typed_and_the_other_gives_way(panel: Any, wait_until: Wait) -> None:
    setup = panel.spots.setup
    assert setup.sizes == (None, None)
    field = setup.largest.field
    field.selectAll()
    QTest.keyClicks(field, "0.15")
    QTest.keyClick(field, Qt.Key.Key_Return)
    assert setup.sizes == (0.15, 0.15)
    wait_until(lambda: panel.spots._candidates.largest == 0.15, 10)
    usual = next(one for one in panel.findChildren(QPushButton) if one.text() == "Default sizes")
    click(usual)
    assert setup.sizes == (None, None)
    wait_until(lambda: panel.spots._candidates.largest > 0.15, 10)
    assert setup.least.value < setup.largest.value


def test_what_is_no_size_is_said_and_not_fitted(panel: Any) -> None:
    field = panel.spots.setup.least.field
    field.selectAll()
    QTest.keyClicks(field, "wide")
    QTest.keyClick(field, Qt.Key.Key_Return)
    click(panel.spots.foot.fit)
    assert not panel.spots.fitting.active
    assert panel.spots.setup.problem.startswith("least size: 'wide' is no number")


def test_points_that_are_deleted_and_added_are_left_out_and_kept(
    panel: Any, wait_until: Wait, small_beads: Phantom, tmp_path: Path
) -> None:
    spacing = np.asarray(small_beads.stack.spacing)
    found = fit(panel, wait_until)
    assert len(found.table) == 6
    layer = layer_named(panel.viewer, " spots")
    assert len(fit_of_layer(layer).field) == 6
    lost = layer.data[0].copy()
    layer.selected_data = {0}
    layer.remove_selected()
    assert marks(panel).startswith("By hand: 1 left out.")
    assert panel.spots.table.model.rowCount() == 5
    panel.spots.save_table(str(tmp_path / "five.csv"))
    assert len(pd.read_csv(tmp_path / "five.csv")) == 5

    assert len(fit(panel, wait_until).table) == 5
    layer.add(lost + np.array([0.0, 0.5, 0.5]))
    assert marks(panel).startswith("By hand: 1 added.")
    again = fit(panel, wait_until)
    places = again.table[["z", "y", "x"]].to_numpy() / spacing
    assert np.linalg.norm((places - lost) * spacing, axis=1).min() < 0.02
    assert len(layer.data) == len(again.table) == 6

    forget = next(one for one in panel.findChildren(QPushButton) if one.text() == "Forget")
    click(forget)
    assert len(panel.spots.marks) == 0
    assert not forget.isVisibleTo(panel)


def test_a_candidate_that_is_deleted_is_left_out_of_the_fit(panel: Any, wait_until: Wait) -> None:
    layer = layer_named(panel.viewer, "candidates")
    layer.selected_data = {0}
    layer.remove_selected()
    assert marks(panel).startswith("By hand: 1 left out.")
    assert len(fit(panel, wait_until).table) == 5
    assert not layer.visible


def marks(panel: Any) -> str:
    return str(panel.findChild(QLabel, "gaussfit_marks").text())


def test_rows_and_points_are_selected_together_and_the_picture_goes_there(
    panel: Any, wait_until: Wait, small_beads: Phantom
) -> None:
    found = fit(panel, wait_until)
    view, layer = panel.spots.table.view, layer_named(panel.viewer, " spots")
    panel.window().show()
    last = len(found.table) - 1
    where = view.visualRect(panel.spots.table.model.index(last, 0)).center()
    QTest.mouseClick(view.viewport(), Qt.MouseButton.LeftButton, pos=where)
    [chosen] = view.items
    assert set(layer.selected_data) == {chosen}
    assert panel.viewer.dims.point[0] == pytest.approx(
        found.table["z"][chosen], abs=small_beads.stack.spacing[0] / 2
    )
    layer.selected_data = {0}
    assert view.items == {0}


def test_flags_that_the_line_below_speaks_of_are_in_sight(panel: Any, wait_until: Wait) -> None:
    found = fit(panel, wait_until)
    table = found.table.assign(flags=["at the border", *[""] * (len(found.table) - 1)])
    panel.spots.table.show_spots(table, "micrometer")
    assert panel.spots.table.view.shown_columns[:2] == ["index", "flags"]
    panel.spots.table.show_spots(table.assign(flags=""), "micrometer")
    assert "flags" not in panel.spots.table.view.shown_columns


def test_the_folder_is_that_of_the_command(panel: Any, wait_until: Wait, tmp_path: Path) -> None:
    fit(panel, wait_until)
    panel.spots.save_folder(str(tmp_path / "beads spots"))
    words = panel.findChild(QLabel, "gaussfit_spots_words")
    wait_until(lambda: words.text().startswith("Saved to"), COMPILING)
    names = {path.name for path in (tmp_path / "beads spots").iterdir()}
    assert names == {"objects.csv", "report.json", "spots.png"}
    assert len(read_csv(tmp_path / "beads spots" / "objects.csv")) == 6


def test_stop_ends_the_search_and_what_was_found_before_stays(panel: Any, wait_until: Wait) -> None:
    found = fit(panel, wait_until)
    before = set(psutil.Process().children())
    click(panel.spots.foot.fit)
    wait_until(lambda: bool(set(psutil.Process().children()) - before))
    click(panel.spots.foot.stop)
    assert state(panel) == "Stopped: the spots found before are kept"
    _, alive = psutil.wait_procs(set(psutil.Process().children()) - before, 3)
    assert not alive
    QTest.qWait(200)
    assert panel.spots.found is found
    assert panel.spots.foot.fit.isEnabled()


def test_structure_and_spots_have_their_own_tabs_and_buttons(panel: Any) -> None:
    def titles() -> list[str]:
        tabs = panel.tabs
        return [tabs.tabText(n) for n in range(tabs.count()) if tabs.isTabVisible(n)]

    assert titles() == ["Setup", "Spots"]
    assert panel.spots.foot.isVisibleTo(panel)
    assert not panel.run.isVisibleTo(panel)
    [button] = [one for one in panel.findChildren(QRadioButton) if one.text() == "Structure"]
    click(button)
    assert "Spots" not in titles()
    assert "Table" in titles()
    assert panel.run.isVisibleTo(panel)
    assert not panel.spots.foot.isVisibleTo(panel)
