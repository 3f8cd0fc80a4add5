"""The table of Gaussians, used as a person uses it: keys, clicks, and what is copied."""

from __future__ import annotations

import io
import time
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd
import pytest
from napari.layers import Layer
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QLabel, QMenu

from napari_gaussfit._napari.layers.gaussians import points_layer
from napari_gaussfit._napari.layers.looking import camera_of
from napari_gaussfit._napari.panel.row_view import RowView
from napari_gaussfit._napari.panel.rows import RowTable
from napari_gaussfit._napari.panel.table import COLUMNS, TablePart
from saved_fits import PLACEMENT, SHAPE, SPACING, some_fit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.gui

CONTROL, SHIFT = Qt.KeyboardModifier.ControlModifier, Qt.KeyboardModifier.ShiftModifier
LEFT = Qt.MouseButton.LeftButton
MANY = 100_000

OPENS, SORTS, MARGIN = 0.5, 0.3, 2.0
"""Seconds of this thread that a table of 100,000 rows may take, and what a slow machine gets."""


class Shown:
    """A table beside its points, in a viewer that has the stack."""

    def __init__(self, viewer: Any) -> None:
        self.viewer, self.fit = viewer, some_fit()
        viewer.add_image(np.zeros(SHAPE), **PLACEMENT.keywords())
        self.points = viewer.add_layer(
            Layer.create(*points_layer(self.fit, PLACEMENT, name="centres"))
        )
        self.table = TablePart(viewer)
        viewer.window.add_dock_widget(self.table, area="right")
        self.table.show_fit(self.fit, self.points)
        self.amplitudes = self.fit.field.amplitudes.numpy()

    def type_condition(self, text: str) -> None:
        line = self.table.condition
        line.setFocus()
        QTest.keyClick(line, Qt.Key.Key_A, CONTROL)
        QTest.keyClick(line, Qt.Key.Key_Delete)
        QTest.keyClicks(line, text)
        QTest.keyClick(line, Qt.Key.Key_Return)

    @property
    def words(self) -> str:
        return str(self.table.findChild(QLabel, "gaussfit_table_words").text())

    def cell_at(self, row: int) -> QPoint:
        column = self.table.view.horizontalHeader().logicalIndex(0)
        centre: QPoint = self.table.view.visualRect(self.table.model.index(row, column)).center()
        return centre


@pytest.fixture
def shown(make_napari_viewer_proxy: Any) -> Iterator[Shown]:
    shown = Shown(make_napari_viewer_proxy())
    yield shown
    shown.table.close_down()


def clipboard() -> str:
    return str(QApplication.clipboard().text())


def test_each_column_says_its_unit_and_what_it_means(shown: Shown) -> None:
    model, across = shown.table.model, Qt.Orientation.Horizontal
    headers = [model.headerData(n, across) for n in range(model.columnCount())]
    named = dict(zip(model.columns, headers, strict=True))
    assert named["fwhm_1"] == "fwhm 1\nµm"
    assert named["amplitude"] == "amplitude\nraw"
    assert named["integrated_intensity"] == "intensity\nraw·µm³"
    assert named["cov_zy"] == "cov zy\nµm²"
    assert named["index"] == "index\n"
    tips = [
        model.headerData(n, across, Qt.ItemDataRole.ToolTipRole) for n in range(model.columnCount())
    ]
    assert all(tips)
    assert tips[COLUMNS.index("z")] == "Centre along z; the first voxel's is 0. (micrometers)"


def test_columns_that_are_shown_fit_the_panel_and_wider_ones_show_more(
    shown: Shown, qtbot: Any
) -> None:
    view = RowView(shown.table.model, "rows")
    qtbot.addWidget(view)
    view.show()
    for width in (340, 420, 900):
        view.resize(width, 300)
        QApplication.processEvents()
        header, room = view.horizontalHeader(), view.viewport().width()
        assert header.length() <= room
        assert room - header.length() < len(view.shown_columns)
        assert not view.horizontalScrollBar().maximum()
    assert view.shown_columns[:2] == ["index", "amplitude"]
    wide = len(view.shown_columns)
    view.resize(340, 300)
    QApplication.processEvents()
    assert 2 < len(view.shown_columns) < wide
    shown.table.setFixedWidth(340)
    shown.table.window().show()
    qtbot.waitUntil(lambda: len(shown.table.view.shown_columns) < len(COLUMNS) - 1)
    hidden = len(COLUMNS) - 1 - len(shown.table.view.shown_columns)
    assert f"{hidden} more columns under Columns" in shown.words


def test_columns_are_chosen_in_the_menu_of_the_header_and_stay_chosen(shown: Shown) -> None:
    view = shown.table.view
    QTest.mouseClick(shown.table.columns, LEFT)
    [menu] = [one for one in view.findChildren(QMenu) if one.isVisible()]
    [action] = [one for one in menu.actions() if one.text() == "sigma 2 (µm)"]
    assert not action.isChecked()
    QTest.mouseClick(menu, LEFT, pos=menu.actionGeometry(action).center())
    assert "sigma_2" in view.shown_columns
    shown.points.selected_data = {1}
    shown.points.remove_selected()
    assert "sigma_2" in view.shown_columns
    view.choose_columns(None)
    assert "sigma_2" not in view.shown_columns


def test_selected_rows_are_copied_as_a_sheet_takes_them(shown: Shown) -> None:
    view = shown.table.view
    view.choose_columns({"index", "amplitude", "fwhm_1"})
    QTest.mouseClick(view.viewport(), LEFT, pos=shown.cell_at(0))
    QTest.mouseClick(view.viewport(), LEFT, SHIFT, shown.cell_at(2))
    QTest.keyClick(view, Qt.Key.Key_C, CONTROL)
    bare = pd.read_csv(io.StringIO(clipboard()), sep="\t", header=None)
    brightest = np.argsort(-shown.amplitudes)[:3]
    assert bare[0].tolist() == brightest.tolist()
    np.testing.assert_allclose(bare[1], shown.amplitudes[brightest], rtol=1e-12)

    QTest.keyClick(view, Qt.Key.Key_C, CONTROL | SHIFT)
    headed = pd.read_csv(io.StringIO(clipboard()), sep="\t")
    assert [*headed.columns] == ["index", "amplitude (raw)", "fwhm_1 (µm)"]
    assert len(headed) == 3
    view.clearSelection()
    QTest.keyClick(view, Qt.Key.Key_C, CONTROL)
    assert len(clipboard().splitlines()) == len(shown.amplitudes)


def test_the_rows_that_are_shown_are_saved_in_their_order_with_all_columns(
    shown: Shown, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    middle = float(np.median(shown.amplitudes))
    shown.type_condition(f"amplitude > {middle}")
    monkeypatch.setattr(
        "napari_gaussfit._napari.panel.row_view.QFileDialog.getSaveFileName",
        lambda *_: (str(tmp_path / "bright"), ""),
    )
    QTest.mouseClick(shown.table.save, LEFT)
    saved = pd.read_csv(tmp_path / "bright.csv")
    expected = np.sort(shown.amplitudes[shown.amplitudes > middle])[::-1]
    np.testing.assert_allclose(saved["amplitude"], expected, rtol=1e-12)
    assert {"cov_zz", "sigma_1", "unit"} <= {*saved.columns}


def test_a_condition_leaves_rows_and_points_of_which_it_is_so(shown: Shown) -> None:
    features = shown.points.features
    middle = float(features["integrated_intensity"].median())
    depth = float(features["z"].median())
    shown.points.selected_data = set(range(len(features)))
    shown.type_condition(f"intensity > {middle} and z < {depth}")
    so = ((features["integrated_intensity"] > middle) & (features["z"] < depth)).to_numpy()
    assert 0 < so.sum() < len(so)
    assert shown.table.model.rowCount() == so.sum()
    np.testing.assert_array_equal(shown.points.shown, so)
    assert shown.points.selected_data == {*np.flatnonzero(so)}, "what is hidden stays selected"
    assert f"{so.sum()} of {len(so)} Gaussians" in shown.words

    shown.type_condition("")
    assert shown.points.shown.all()
    assert shown.table.model.rowCount() == len(so)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("colour > 3", "'colour' is no column; take of: index, "),
        ("fwhm > 3", "'fwhm' is several columns; take of: fwhm 1, fwhm 2, fwhm 3, "),
        ("amplitude > much", "'much' is no number to compare amplitude with"),
        ("amplitude", "'amplitude' is no comparison; expected, for example, intensity > 200"),
        ("amplitude has 3", "amplitude has numbers; compare them with <,"),
        ("flags < 3", "flags has words; compare them with =, != or has"),
    ],
)
def test_a_condition_that_is_none_says_why_and_hides_nothing(
    shown: Shown, text: str, said: str
) -> None:
    shown.type_condition(text)
    assert said in shown.words
    assert shown.points.shown.all()


def test_a_filter_of_a_column_is_begun_in_its_header(shown: Shown) -> None:
    view = shown.table.view
    menu = view.column_menu(COLUMNS.index("fwhm_1"))
    [action] = [one for one in menu.actions() if one.text() == "Filter by fwhm 1…"]
    action.trigger()
    QTest.keyClicks(shown.table.condition, "0,4")
    QTest.keyClick(shown.table.condition, Qt.Key.Key_Return)
    wide = (shown.points.features["fwhm_1"] > 0.4).to_numpy()
    np.testing.assert_array_equal(shown.points.shown, wide)


@pytest.mark.parametrize("how", ["double click", "enter"])
def test_a_row_brings_its_gaussian_into_view(shown: Shown, how: str) -> None:
    view, viewer = shown.table.view, shown.viewer
    if how == "enter":
        QTest.mouseClick(view.viewport(), LEFT, pos=shown.cell_at(3))
        QTest.keyClick(view, Qt.Key.Key_Return)
    else:
        QTest.mouseClick(view.viewport(), LEFT, pos=shown.cell_at(3))
        QTest.mouseDClick(view.viewport(), LEFT, pos=shown.cell_at(3))
    fourth = int(np.argsort(-shown.amplitudes)[3])
    place = np.asarray(shown.points.data_to_world(shown.points.data[fourth]))
    camera = camera_of(viewer)
    np.testing.assert_allclose(camera.center[1:], place[1:], rtol=1e-5)
    assert abs(viewer.dims.point[0] - place[0]) <= PLACEMENT.scale[0] / 2 + 1e-9
    across = min(viewer.canvas.size) / camera.zoom
    width = shown.points.features["fwhm_1"][fourth] * PLACEMENT.scale[-1] / SPACING[-1]
    assert 5.9 * width <= across <= 24.1 * width
    assert shown.points.selected_data == {fourth}


def test_the_selection_is_that_of_the_points_through_sorting_filters_and_edits(
    shown: Shown,
) -> None:
    table, points = shown.table, shown.points
    points.selected_data = {2, 5, 7}
    for column in (COLUMNS.index("z"), COLUMNS.index("fwhm_2")):
        header = table.view.horizontalHeader()
        x = header.sectionViewportPosition(column) + 5
        table.view.choose_columns({"z", "fwhm_2"})
        QTest.mouseClick(header.viewport(), LEFT, pos=QPoint(x, 5))
        table.view.sortByColumn(column, Qt.SortOrder.AscendingOrder)
        assert table.view.items == {2, 5, 7}
    points.remove([0, 5])
    assert points.selected_data == table.view.items == {1, 5}, "edits lose what was selected"
    np.testing.assert_allclose(table.model.column("index")[[1, 5]], [2, 7])
    shown.type_condition("index != 2")
    assert table.view.items == {5}
    points.add(points.data[:1] + 1)
    assert table.view.items == points.selected_data


def test_a_filter_stays_through_an_edit_and_ends_with_the_table(shown: Shown) -> None:
    middle = float(np.median(shown.amplitudes))
    shown.type_condition(f"amplitude > {middle}")
    brightest = int(np.argmax(shown.amplitudes))
    shown.points.selected_data = {brightest}
    shown.points.remove_selected()
    left = np.delete(shown.amplitudes, brightest) > middle
    np.testing.assert_array_equal(shown.points.shown, left)
    shown.table.show_nothing()
    assert shown.points.shown.all()


def test_what_is_not_known_stands_last_whichever_way_rows_are_sorted() -> None:
    model = RowTable(["a"], ())
    model.show_measurements(pd.DataFrame({"a": [2.0, np.nan, 3.0, 1.0]}))
    model.sort(0, Qt.SortOrder.AscendingOrder)
    assert [model.data(model.index(n, 0)) for n in range(4)] == ["1", "2", "3", ""]
    model.sort(0, Qt.SortOrder.DescendingOrder)
    assert [model.data(model.index(n, 0)) for n in range(4)] == ["3", "2", "1", ""]


def test_a_hundred_thousand_rows_open_sort_and_are_selected_at_once(
    qtbot: Any,
) -> None:
    rng = np.random.default_rng(0)
    names = ["amplitude", "integrated_intensity", *"zyx", *(f"fwhm_{n}" for n in (1, 2, 3))]
    values = {name: rng.random(MANY) for name in names}
    rows = pd.DataFrame({"index": np.arange(MANY), **values, "flags": ""})
    table = TablePart(cast("Any", None))
    qtbot.addWidget(table)
    model, view = table.model, table.view
    table.resize(400, 600)
    table.show()
    QApplication.processEvents()

    took = {}
    began = time.thread_time()
    table._show(rows)
    QApplication.processEvents()
    took["opens"] = time.thread_time() - began
    for n, name in enumerate(("amplitude", "flags")):
        began = time.thread_time()
        column = model.columns.index(name)
        view.sortByColumn(column, Qt.SortOrder.DescendingOrder)
        QApplication.processEvents()
        took[f"sorts {n}"] = time.thread_time() - began
    began = time.thread_time()
    view.selectAll()
    assert len(view.items) == MANY
    took["selects"] = time.thread_time() - began
    assert took["opens"] < OPENS * MARGIN, took
    assert took["sorts 0"] < SORTS * MARGIN, took
    assert took["sorts 1"] < SORTS * MARGIN, took
    assert took["selects"] < SORTS * MARGIN, took


def test_long_words_leave_room_for_numbers(qtbot: Any) -> None:
    words = "one of many in a structure; at the border; not converged"
    model = RowTable(("index", "amplitude", "fwhm_1"))
    view = RowView(model, "rows", order=("index", "flags"))
    qtbot.addWidget(view)
    view.resize(380, 200)
    view.show()
    numbers = {"index": [0, 1], "amplitude": [2076.0, 2.69e6], "fwhm_1": [0.98, 1.2]}
    model.show_measurements(pd.DataFrame({**numbers, "flags": [words, words]}))
    assert view.shown_columns == ["index", "flags", "amplitude", "fwhm_1"]
    assert view.left_out == []
