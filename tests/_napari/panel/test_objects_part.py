"""Cells and neurites in the panel: found in a fit that is there, changed by hand, saved."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import tifffile
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QPushButton, QRadioButton

from napari_gaussfit._napari.layers.gaussians import points_layer
from napari_gaussfit._napari.layers.placement import Placement
from napari_gaussfit.fitting.result import FitResult
from napari_gaussfit.formats.swc import read_swc
from napari_gaussfit.synthetic import phantoms

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_gaussfit.synthetic.phantoms import Phantom

    Wait = Callable[..., None]

pytestmark = [pytest.mark.gui, pytest.mark.usefixtures("nothing_left_behind")]

COMPILING = 240.0
"""Seconds that the first answer after an installation may take, on a busy machine."""


def click(button: Any) -> None:
    assert button.isEnabled(), button.text()
    QTest.mouseClick(button, Qt.MouseButton.LeftButton, pos=QPoint(8, button.height() // 2))


def with_fit(viewer: Any, phantom: Phantom) -> Any:
    """Return a panel beside the points of a saved fit, which knows the truth."""
    stack = phantom.stack
    fit = FitResult((phantom.truth,), stack.facts)
    placement = Placement.of_stack(stack.spacing, stack.unit)
    data, keywords, _ = points_layer(fit, placement, name="saved fit")
    viewer.add_points(data, **keywords)
    _, panel = viewer.window.add_plugin_dock_widget("napari-gaussfit", "Gaussian fit")
    panel.tabs.setCurrentWidget(panel.objects)
    return panel.objects


@pytest.fixture
def cells(make_napari_viewer_proxy: Any, wait_until: Wait) -> Any:
    """The cells of a phantom, grouped."""
    phantom = phantoms.nuclei(seed=1, shape=(24, 96, 96), photons=None)
    page = with_fit(make_napari_viewer_proxy(), phantom).cells
    click(page.start)
    wait_until(lambda: page.found is not None, COMPILING)
    return page


def layer(page: Any, role: str) -> Any:
    return page.layers[role]


def rows_of(page: Any, *labels: int) -> None:
    """Click on the rows of labels, with Control from the second on."""
    page.window().show()
    for n, label in enumerate(labels):
        [row] = page.model.rows({label - 1})
        held = Qt.KeyboardModifier.ControlModifier if n else Qt.KeyboardModifier.NoModifier
        index = page.model.index(row, 0)
        page.view.scrollTo(index)
        where = page.view.visualRect(index).center()
        QTest.mouseClick(page.view.viewport(), Qt.MouseButton.LeftButton, held, where)


def test_a_saved_fit_is_grouped_into_cells_with_labels_centres_and_rows(cells: Any) -> None:
    labels, centres = layer(cells, "labels"), layer(cells, "centres")
    count = len(cells.found.table)
    assert count > 3
    assert labels.data.shape == (24, 96, 96)
    assert labels.data.max() == count == len(centres.data) == cells.model.rowCount()
    np.testing.assert_allclose(labels.scale, cells.of.placement.scale)
    voxel = np.prod(cells.of.fit.stack.spacing)
    assert cells.found.table["volume"][0] == pytest.approx(voxel * (labels.data == 1).sum())
    shown = [cells.model.data(cells.model.index(0, n), 0) for n in range(cells.model.columnCount())]
    assert shown[0] == "1"
    assert f"{count} objects of about " in cells.words.text()


def test_the_slider_joins_at_once_and_undo_takes_back_the_whole_move(
    cells: Any, wait_until: Wait
) -> None:
    before, count = cells.found, len(cells.found.table)
    assert not cells.undo.isEnabled()
    cells.saddle.slider.setFocus()
    QTest.keyClick(cells.saddle.slider, Qt.Key.Key_PageDown)
    QTest.keyClick(cells.saddle.slider, Qt.Key.Key_Home)
    assert cells.saddle.value == 0
    wait_until(lambda: len(cells.found.table) < count, 10)
    wait_until(lambda: not cells.asking.active, 10)
    assert layer(cells, "labels").data.max() == len(cells.found.table)
    click(cells.undo)
    wait_until(lambda: len(cells.found.table) == count, 10)
    np.testing.assert_array_equal(layer(cells, "labels").data, before.labels)
    assert cells.saddle.value == 0.97
    assert not cells.undo.isEnabled()


def test_cells_are_merged_by_rows_and_split_and_undone(cells: Any, wait_until: Wait) -> None:
    before, count = cells.found, len(cells.found.table)
    assert not cells.merge.isEnabled()
    rows_of(cells, 1, 2)
    click(cells.merge)
    wait_until(lambda: len(cells.found.table) == count - 1, 10)
    merged = cells.found.of
    np.testing.assert_array_equal(merged == 1, np.isin(before.of, [1, 2]))
    rows_of(cells, 1)
    click(cells.split)
    wait_until(lambda: not cells.asking.active, 10)
    assert len(cells.found.table) >= count
    click(cells.undo)
    wait_until(lambda: np.array_equal(cells.found.of, merged), 10)
    click(cells.undo)
    wait_until(lambda: np.array_equal(cells.found.of, before.of), 10)
    assert not cells.undo.isEnabled()


def test_a_label_that_is_picked_in_its_layer_selects_its_row(cells: Any) -> None:
    layer(cells, "labels").selected_label = 3
    assert cells.view.items == {2}
    rows_of(cells, 2)
    assert layer(cells, "labels").selected_label == 2


def test_labels_that_were_deleted_are_there_again_when_cells_are_found_again(
    cells: Any, wait_until: Wait
) -> None:
    viewer = cells.viewer
    viewer.layers.remove("nuclei cells")
    assert "labels" not in cells.layers
    before = cells.found
    click(cells.start)
    wait_until(lambda: cells.found is not before, COMPILING)
    assert "nuclei cells" in viewer.layers


def test_cells_are_saved_as_the_command_does(cells: Any, wait_until: Wait, tmp_path: Path) -> None:
    cells.save_to(str(tmp_path / "cells"))
    wait_until(lambda: cells.words.text().startswith("Saved to"), COMPILING)
    names = {path.name for path in (tmp_path / "cells").iterdir()}
    assert names == {"objects.csv", "labels.ome.tif", "objects.png"}
    saved = tifffile.imread(tmp_path / "cells" / "labels.ome.tif")
    np.testing.assert_array_equal(saved, layer(cells, "labels").data)
    assert len(pd.read_csv(tmp_path / "cells" / "objects.csv")) == cells.model.rowCount()


@pytest.fixture
def neurites(make_napari_viewer_proxy: Any, wait_until: Wait) -> Any:
    """The neurites of a phantom, traced."""
    phantom = phantoms.neurite(spines=False, photons=None)
    objects = with_fit(make_napari_viewer_proxy(), phantom)
    [button] = [one for one in objects.findChildren(QRadioButton) if one.text() == "Neurites"]
    click(button)
    click(objects.neurites.start)
    wait_until(lambda: objects.neurites.found is not None, COMPILING)
    return objects.neurites


def test_a_saved_fit_is_traced_with_radii_orders_and_a_row_a_branch(neurites: Any) -> None:
    found, nodes, lines = neurites.found, layer(neurites, "nodes"), layer(neurites, "branches")
    count = len(found.table)
    assert count == neurites.model.rowCount() > 1
    assert len(nodes.data) == len(found.points)
    np.testing.assert_allclose(nodes.features["radius"], found.radii)
    assert set(nodes.features["order"]) == set(found.table["order"])
    assert len(lines.data) == count
    assert lines.ndim == 3
    rows_of(neurites, 1)
    assert {int(nodes.features["branch"][n]) for n in nodes.selected_data} == neurites.view.items


def test_a_least_length_that_is_typed_leaves_short_branches_out(
    neurites: Any, wait_until: Wait
) -> None:
    lengths = sorted(neurites.found.table["length"])
    field = neurites.shortest
    field.selectAll()
    QTest.keyClicks(field, f"{lengths[0] + 0.3:.3f}")
    QTest.keyClick(field, Qt.Key.Key_Return)
    wait_until(lambda: len(neurites.found.table) < len(lengths), 20)


def test_a_trace_is_saved_as_the_command_does(
    neurites: Any, wait_until: Wait, tmp_path: Path
) -> None:
    neurites.save_to(str(tmp_path / "trace"))
    wait_until(lambda: neurites.words.text().startswith("Saved to"), COMPILING)
    names = {path.name for path in (tmp_path / "trace").iterdir()}
    assert names == {"trace.swc", "branches.csv", "trace.png"}
    points, radii, _, _ = read_swc(tmp_path / "trace" / "trace.swc")
    np.testing.assert_allclose(points, neurites.found.points, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(radii, neurites.found.radii, rtol=1e-4)


def test_before_anything_is_found_titles_have_the_units_of_the_fit(
    make_napari_viewer_proxy: Any,
) -> None:
    phantom = phantoms.nuclei(seed=1, shape=(24, 96, 96), photons=None)
    page = with_fit(make_napari_viewer_proxy(), phantom).cells
    across = Qt.Orientation.Horizontal
    assert page.model.headerData(1, across) == "volume\nµm³"
    assert page.words.text() == "nuclei: press Group into cells."


def test_columns_that_there_is_no_room_for_are_counted_and_chosen(cells: Any) -> None:
    cells.window().show()
    [button] = [one for one in cells.findChildren(QPushButton) if "columns" in one.text()]
    hidden = len(cells.view.left_out)
    assert button.text() == f"{hidden} more columns"
    assert hidden
    cells.view.choose_columns({*cells.model.usual})
    assert button.text() == "Columns"
    QTest.mousePress(button, Qt.MouseButton.LeftButton)
    menu: Any = QApplication.activePopupWidget()
    [neighbours] = [one for one in menu.actions() if one.text().startswith("neighbours")]
    neighbours.trigger()
    menu.close()
    assert button.text() == "1 more column"


def test_without_a_fit_nothing_can_be_found(make_napari_viewer_proxy: Any) -> None:
    viewer = make_napari_viewer_proxy()
    _, panel = viewer.window.add_plugin_dock_widget("napari-gaussfit", "Gaussian fit")
    for page in panel.objects.pages.values():
        assert not page.start.isEnabled()
        assert page.words.text() == "No fit yet: press Fit, or open one."
