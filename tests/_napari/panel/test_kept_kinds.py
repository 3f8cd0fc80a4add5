"""Spots, cells, traces and recordings are results as fits are: shown, kept, saved, removed."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QComboBox, QFileDialog, QLabel

from by_hand import add_stack, choose, delete_layer, delete_layer_by_button, open_panel, reopened
from list_of_results import cells, click, do, names, rename, select, show_kept
from napari_gaussfit._napari.layers.gaussians import points_layer
from napari_gaussfit._napari.layers.placement import Placement
from napari_gaussfit._napari.worker import Phase
from napari_gaussfit.fitting.result import FitResult
from napari_gaussfit.jobs.session_folder import sessions_root
from napari_gaussfit.settings import FitSettings
from napari_gaussfit.synthetic import phantoms

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_gaussfit.stacks.stack import Stack
    from napari_gaussfit.synthetic.phantoms import Phantom

    Wait = Callable[..., None]

pytestmark = [pytest.mark.gui, pytest.mark.usefixtures("nothing_left_behind", "own_sessions")]

COMPILING = 240.0
"""Seconds that the first answer after an installation may take, on a busy machine."""

KIND, QUALITY, COUNT, STACK, TIME = 1, 2, 3, 5, 7
"""Columns of the list."""


def as_after_a_crash(panel: Any) -> None:
    """Leave what a killed window would leave: its files, and no lock."""
    panel.kept.session.folder.settle()
    [folder] = sessions_root().iterdir()
    shutil.copytree(folder, sessions_root() / "killed", ignore=shutil.ignore_patterns("lock"))


def saved_into(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(folder))


def layers_named(viewer: Any, end: str) -> list[Any]:
    return [layer for layer in viewer.layers if layer.name.endswith(end)]


def removed_and_taken_back(panel: Any, row: int) -> None:
    before = names(panel)
    select(panel, row)
    do(panel, "Remove")
    assert names(panel) == [*before[:row], *before[row + 1 :]]
    do(panel, "Undo")
    assert sorted(names(panel)) == sorted(before)


def test_spots_are_results(
    make_napari_viewer_proxy: Any,
    small_beads: Phantom,
    wait_until: Wait,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    viewer = make_napari_viewer_proxy()
    add_stack(viewer, small_beads.stack)
    panel = open_panel(viewer)
    choose(panel, "Spots")
    wait_until(panel.spots.foot.fit.isEnabled, COMPILING)
    click(panel.spots.foot.fit)
    wait_until(lambda: panel.spots.found is not None, COMPILING)
    first = panel.spots.found
    row = cells(panel, 0)
    assert (row[0], row[COUNT], row[KIND], row[STACK]) == ("beads spots", "6", "spots", "beads")
    assert row[QUALITY] in ("none with a flag", "1 with a flag", "2 with a flag")

    # What is deleted by hand is so in the list, and another search is another row.
    [points] = layers_named(viewer, "beads spots")
    points.selected_data = {0}
    points.remove_selected()
    QTest.qWait(50)
    assert cells(panel, 0)[COUNT] == "5"
    assert cells(panel, 0)[QUALITY].endswith("1 deleted")
    click(panel.spots.foot.fit)
    wait_until(lambda: panel.spots.found is not first, COMPILING)
    assert names(panel) == ["beads spots", "beads spots 2"]
    rename(panel, 0, "before")

    again = reopened(panel)
    assert names(again) == ["before", "beads spots 2"]
    assert again.modes.mode is again.spots, "what was looked for last"
    assert again.spots.table.model.rowCount() == int(cells(again, 1)[COUNT])
    assert len(layers_named(viewer, "beads spots")) == 1, "the layer that was there"

    choose(again, "Structure")
    again.show_results()
    select(again, 0)
    assert not again.kept.part.buttons["Refine"].isEnabled()
    do(again, "Show")
    assert again.modes.mode is again.spots
    assert again.spots.found is first
    assert again.spots.table.model.rowCount() == 5
    assert len(layers_named(viewer, "beads spots")[0].data) == 5
    saved_into(monkeypatch, tmp_path / "out")
    do(again, "Save…")
    table = tmp_path / "out" / "beads spots" / "objects.csv"
    said: Any = again.findChild(QLabel, "gaussfit_spots_words")
    wait_until(lambda: said.text().startswith("Saved to"), COMPILING)
    assert len(pd.read_csv(table)) == 5
    removed_and_taken_back(again, 1)

    as_after_a_crash(again)
    restored = spots_after_a_crash(make_napari_viewer_proxy(), small_beads.stack, wait_until)
    pd.testing.assert_frame_equal(restored.table, first.table)


def spots_after_a_crash(viewer: Any, stack: Stack, wait_until: Wait) -> Any:
    """Restore spots where their stack is not yet, then is."""
    panel = open_panel(viewer)
    click(panel.kept.bar.restore)
    assert names(panel) == ["before", "beads spots 2"]
    select(panel, 0)
    do(panel, "Show")
    said = "Show needs the stack of before: open it, 12 x 40 x 40 voxels"
    assert panel.kept.part.words.text().startswith(said)
    add_stack(viewer, stack)
    wait_until(panel.run.buttons["Fit"].isEnabled)
    do(panel, "Show")
    assert panel.spots.table.model.rowCount() == 5
    return panel.spots.found


def with_fit(viewer: Any, phantom: Phantom) -> Any:
    """Return a panel beside the points of a saved fit, which knows the truth."""
    stack = phantom.stack
    placement = Placement.of_stack(stack.spacing, stack.unit)
    fit = FitResult((phantom.truth,), stack.facts)
    data, keywords, _ = points_layer(fit, placement, name="saved fit")
    viewer.add_points(data, **keywords)
    return open_panel(viewer)


def test_cells_are_results(
    make_napari_viewer_proxy: Any,
    wait_until: Wait,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    phantom = phantoms.nuclei(seed=1, shape=(24, 96, 96), photons=None)
    viewer = make_napari_viewer_proxy()
    panel = with_fit(viewer, phantom)
    page = panel.objects.cells
    click(page.start)
    wait_until(lambda: page.found is not None, COMPILING)
    row, count = cells(panel, 1), len(page.found.table)
    assert (row[0], row[COUNT], row[KIND]) == ("nuclei cells", str(count), "cells")
    assert row[QUALITY].endswith("at the border")

    # Merged by hand, they are the same result.
    page.view.choose({0, 1})
    click(page.merge)
    wait_until(lambda: len(page.found.table) == count - 1)
    assert cells(panel, 1)[COUNT] == str(count - 1)
    merged = page.found.labels.copy()

    again = reopened(panel)
    assert again.objects.cells.model.rowCount() == count - 1
    assert len(layers_named(viewer, "nuclei cells")) == 1
    select(again, 1)
    rename(again, 1, "by hand")
    do(again, "Show")
    assert again.tabs.currentWidget() is again.objects
    saved_into(monkeypatch, tmp_path / "out")
    do(again, "Save…")
    wait_until(lambda: again.objects.cells.words.text().startswith("Saved to"), COMPILING)
    saved = pd.read_csv(tmp_path / "out" / "nuclei cells" / "objects.csv")
    assert len(saved) == count - 1
    removed_and_taken_back(again, 1)

    as_after_a_crash(again)
    panel = open_panel(make_napari_viewer_proxy())
    click(panel.kept.bar.restore)
    [number] = [n for n, name in enumerate(names(panel)) if name == "by hand"]
    select(panel, number)
    do(panel, "Show")
    wait_until(lambda: panel.objects.cells.found is not None, COMPILING)
    np.testing.assert_array_equal(panel.objects.cells.found.labels, merged)
    assert cells(panel, number)[COUNT] == str(count - 1)


def test_traces_are_results(
    make_napari_viewer_proxy: Any,
    wait_until: Wait,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    viewer = make_napari_viewer_proxy()
    panel = with_fit(viewer, phantoms.neurite(spines=False, photons=None))
    choose(panel.objects, "Neurites")
    page = panel.objects.neurites
    click(page.start)
    wait_until(lambda: page.found is not None, COMPILING)
    found, row = page.found, cells(panel, 1)
    assert (row[0], row[KIND]) == ("neurite trace", "neurites")
    assert row[COUNT] == str(len(found.table))
    assert row[QUALITY] == f"{found.table['length'].sum():.4g} µm in all"

    again = reopened(panel)
    assert again.objects.neurites.model.rowCount() == len(found.table)
    assert len(layers_named(viewer, "neurite trace")) == 1
    rename(again, 1, "tree")
    select(again, 1)
    do(again, "Show")
    assert again.tabs.currentWidget() is again.objects
    saved_into(monkeypatch, tmp_path / "out")
    do(again, "Save…")
    wait_until(lambda: again.objects.neurites.words.text().startswith("Saved to"), COMPILING)
    assert (tmp_path / "out" / "neurite trace" / "trace.swc").is_file()
    removed_and_taken_back(again, 1)

    as_after_a_crash(again)
    panel = open_panel(make_napari_viewer_proxy())
    click(panel.kept.bar.restore)
    [number] = [n for n, name in enumerate(names(panel)) if name == "tree"]
    assert cells(panel, number)[QUALITY] == "not shown since"
    select(panel, number)
    do(panel, "Show")
    wait_until(lambda: panel.objects.neurites.found is not None, COMPILING)
    np.testing.assert_allclose(panel.objects.neurites.found.points, found.points, rtol=1e-6)


def test_the_times_of_a_recording_are_a_result(
    make_napari_viewer_proxy: Any,
    wait_until: Wait,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spots = phantoms.moving_spots(count=4, times=3, crossings=0, shape=(12, 32, 32))
    movie = np.stack([stack.voxels for stack in spots.stacks])
    viewer = make_napari_viewer_proxy()
    add_recording(viewer, movie)
    panel = open_panel(viewer)
    wait_until(panel.run.buttons["Fit"].isEnabled)
    box: Any = panel.findChild(QComboBox, "gaussfit_times")
    box.setFocus()
    QTest.keyClick(box, Qt.Key.Key_Down)
    panel.model.settings = FitSettings(exactly=True, gaussians=4, iterations=40)
    wait_until(panel.run.buttons["Fit"].isEnabled)
    click(panel.run.buttons["Fit"])
    wait_until(lambda: panel.worker.phase is Phase.FINISHED, COMPILING)
    row = cells(panel, 0)
    assert (row[0], row[COUNT], row[KIND], row[TIME]) == ("cells", "12", "times", "0 to 2")
    assert row[QUALITY].endswith(", all 3 times")
    frames = panel.over_time.frames
    wait_until(lambda: panel.live.complete)  # layers are made one at a time
    layers = [layer.name for layer in viewer.layers]

    again = reopened(panel)
    wait_until(lambda: again.over_time is not None)
    assert again.over_time.frames == frames
    assert again.table.model.rowCount() == 12
    QTest.qWait(300)
    assert [layer.name for layer in viewer.layers] == layers
    viewer.dims.set_current_step(0, 1)
    wait_until(lambda: again.fit is frames[1].result)
    rename(again, 0, "drift")

    # A fit of one time is another result; the recording comes back.
    box = again.findChild(QComboBox, "gaussfit_times")
    again.tabs.setCurrentIndex(0)
    box.setFocus()
    QTest.keyClick(box, Qt.Key.Key_Home)
    wait_until(again.run.buttons["Fit"].isEnabled)
    click(again.run.buttons["Fit"])
    wait_until(lambda: again.worker.phase is Phase.FINISHED, COMPILING)
    assert again.over_time is None
    show_kept(again, 0)
    assert again.over_time.frames == frames
    assert len(layers_named(viewer, "cells centres")) == 1
    saved_into(monkeypatch, tmp_path / "out")
    do(again, "Save…")
    wait_until((tmp_path / "out" / "report.json").is_file, COMPILING)
    removed_and_taken_back(again, 0)

    as_after_a_crash(again)
    restored = times_after_a_crash(make_napari_viewer_proxy(), movie, wait_until)
    np.testing.assert_array_equal(restored[2].result.field.means, frames[2].result.field.means)


def times_after_a_crash(viewer: Any, movie: np.ndarray, wait_until: Wait) -> Any:
    """Restore the times of a recording where it is not yet, then is."""
    panel = open_panel(viewer)
    click(panel.kept.bar.restore)
    [number] = [n for n, name in enumerate(names(panel)) if name == "drift"]
    select(panel, number)
    do(panel, "Show")
    said = "Show needs the recording of drift: open it, 12 x 32 x 32 voxels"
    assert panel.kept.part.words.text().startswith(said)
    add_recording(viewer, movie)
    wait_until(panel.run.buttons["Fit"].isEnabled)
    do(panel, "Show")
    assert [frame.time for frame in panel.over_time.frames] == [0, 1, 2]
    assert panel.table.model.rowCount() == 12
    return panel.over_time.frames


def test_the_spots_of_a_recording_are_a_result(
    make_napari_viewer_proxy: Any,
    wait_until: Wait,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spots = phantoms.moving_spots(count=4, times=3, crossings=0, shape=(12, 32, 32))
    dark = np.random.default_rng(0).poisson(20.0, spots.stacks[0].shape).astype(np.float32)
    movie = np.stack([*(stack.voxels for stack in spots.stacks), dark])
    viewer = make_napari_viewer_proxy()
    add_recording(viewer, movie)
    panel = open_panel(viewer)
    choose(panel, "Spots")
    at_all_times(panel)
    wait_until(panel.spots.foot.fit.isEnabled)
    click(panel.spots.foot.fit)
    wait_until(lambda: panel.spots.over_time.found is not None, COMPILING)
    found = panel.spots.over_time.found
    count = len(found.table)
    assert [len(frame.table) for frame in found.frames][3] == 0, "nothing but noise"
    row = cells(panel, 0)
    assert (row[0], row[COUNT], row[KIND]) == ("cells spots", str(count), "spot times")
    assert (row[STACK], row[TIME]) == ("cells", "0 to 3")
    assert row[QUALITY] == "none with a flag, all 4 times"
    layers = sorted(layer.name for layer in viewer.layers)
    rename(panel, 0, "walk")

    again = reopened(panel)
    assert names(again) == ["walk"]
    assert again.modes.mode is again.spots
    assert again.spots.table.model.rowCount() == count
    assert sorted(layer.name for layer in viewer.layers) == layers, "those that were there"
    [points] = layers_named(viewer, "cells spots")
    points.selected_data = {count - 1}
    assert again.spots.table.view.items == {count - 1}

    one_time_is_found_and_all_come_back(again, found, wait_until)
    saved_into(monkeypatch, tmp_path / "out")
    do(again, "Save…")
    said: Any = again.findChild(QLabel, "gaussfit_spots_words")
    wait_until(lambda: said.text().startswith("Saved to"), COMPILING)
    saved = pd.read_csv(tmp_path / "out" / "cells spots" / "objects.csv")
    np.testing.assert_array_equal(saved["track"], found.table["track"])
    removed_and_taken_back(again, 0)

    as_after_a_crash(again)
    restored = spot_times_after_a_crash(make_napari_viewer_proxy(), movie, wait_until)
    pd.testing.assert_frame_equal(restored.table, found.table)
    assert [frame.state for frame in restored.frames] == [frame.state for frame in found.frames]
    assert restored.asked.false_discoveries == found.asked.false_discoveries


def one_time_is_found_and_all_come_back(again: Any, found: Any, wait_until: Wait) -> None:
    """Spots of one time are another result."""
    viewer = again.viewer
    at_all_times(again, Qt.Key.Key_Home)
    viewer.dims.set_current_step(0, 1)
    wait_until(lambda: again.spots.foot.fit.isEnabled() and again.spots._source.place == (1,))
    click(again.spots.foot.fit)
    wait_until(lambda: again.spots.found is not None, COMPILING)
    assert [cells(again, n)[KIND] for n in range(2)] == ["spot times", "spots"]
    choose(again, "Structure")
    show_kept(again, 0)
    assert again.modes.mode is again.spots
    assert again.spots.over_time.found.frames is found.frames
    assert again.spots.table.model.rowCount() == len(found.table)
    assert len(layers_named(viewer, "cells spots")) == 1


def at_all_times(panel: Any, key: Qt.Key = Qt.Key.Key_Down) -> None:
    """Choose all times by a key, or with Home the one in view."""
    panel.tabs.setCurrentIndex(0)
    box: Any = panel.findChild(QComboBox, "gaussfit_times")
    box.setFocus()
    QTest.keyClick(box, key)


def spot_times_after_a_crash(viewer: Any, movie: np.ndarray, wait_until: Wait) -> Any:
    """Restore the spots of a recording where it is not yet, then is."""
    panel = open_panel(viewer)
    click(panel.kept.bar.restore)
    [number] = [n for n, name in enumerate(names(panel)) if name == "walk"]
    select(panel, number)
    do(panel, "Show")
    said = "Show needs the recording of walk: open it, 12 x 32 x 32 voxels"
    assert panel.kept.part.words.text().startswith(said)
    add_recording(viewer, movie)
    wait_until(panel.run.buttons["Fit"].isEnabled)
    do(panel, "Show")
    return panel.spots.over_time.found


def add_recording(viewer: Any, movie: np.ndarray) -> None:
    place = {"scale": (1, 0.3, 0.1, 0.1), "units": ("pixel", "um", "um", "um")}
    viewer.add_image(movie, name="cells", axis_labels=("t", "z", "y", "x"), **place)


def test_layers_of_spots_that_were_deleted_stay_away_when_the_panel_is_opened_again(
    make_napari_viewer_proxy: Any, small_beads: Phantom, wait_until: Wait
) -> None:
    viewer = make_napari_viewer_proxy()
    add_stack(viewer, small_beads.stack)
    panel = open_panel(viewer)
    choose(panel, "Spots")
    wait_until(lambda: "beads candidates" in viewer.layers, COMPILING)
    delete_layer(viewer, "beads candidates")
    panel = reopened(panel)
    said: Any = panel.findChild(QLabel, "gaussfit_candidates")
    wait_until(lambda: "stand out" in said.text(), COMPILING)
    assert not layers_named(viewer, "beads candidates")
    assert "Their layer was deleted; move a slider to have it again." in said.text()
    slider = panel.spots.setup.false_in_hundred.slider
    slider.setFocus()
    QTest.keyClick(slider, Qt.Key.Key_Right)
    wait_until(lambda: "beads candidates" in viewer.layers, COMPILING)

    click(panel.spots.foot.fit)
    wait_until(lambda: panel.spots.found is not None, COMPILING)
    [points] = layers_named(viewer, "beads spots")
    points.selected_data = {0}
    points.remove_selected()
    delete_layer_by_button(viewer, "beads spots")
    assert panel.spots.kept.sum() == 5, "what was deleted of them is so without the layer"
    left = [layer.name for layer in viewer.layers]
    again = reopened(panel)
    words = again.findChild(QLabel, "gaussfit_spots_words")
    assert words.text().startswith("beads: 5 spots, 1 deleted by hand")
    wait_until(again.spots.foot.fit.isEnabled, COMPILING)
    QTest.qWait(1000)
    assert [layer.name for layer in viewer.layers] == left
    assert not viewer.layers["beads candidates"].visible, "spots are shown, not what may be one"
    assert again.spots.table.model.rowCount() == 5
    assert cells(again, 0)[COUNT] == "5"
    choose(again, "Structure")
    show_kept(again, 0)
    assert len(viewer.layers["beads spots"].data) == 5


def test_a_hidden_layer_of_spots_stays_hidden_and_the_slice_in_view_stays(
    make_napari_viewer_proxy: Any, small_beads: Phantom, wait_until: Wait
) -> None:
    viewer = make_napari_viewer_proxy()
    add_stack(viewer, small_beads.stack)
    panel = open_panel(viewer)
    choose(panel, "Spots")
    wait_until(panel.spots.foot.fit.isEnabled, COMPILING)
    click(panel.spots.foot.fit)
    wait_until(lambda: panel.spots.found is not None, COMPILING)
    [points] = layers_named(viewer, "beads spots")
    points.selected_data = {0}
    points.remove_selected()
    points.visible = False
    viewer.dims.set_current_step(0, 0)
    again = reopened(panel)
    wait_until(again.spots.foot.fit.isEnabled, COMPILING)
    QTest.qWait(500)
    assert not points.visible
    assert viewer.dims.current_step[0] == 0
    assert len(points.data) == 5


def test_layers_of_cells_that_were_deleted_stay_away_when_the_panel_is_opened_again(
    make_napari_viewer_proxy: Any, wait_until: Wait
) -> None:
    viewer = make_napari_viewer_proxy()
    panel = with_fit(viewer, phantoms.nuclei(seed=1, shape=(24, 96, 96), photons=None))
    click(panel.objects.cells.start)
    wait_until(lambda: panel.objects.cells.found is not None, COMPILING)
    assert "Click a cell" in panel.objects.cells.words.text()
    count = len(panel.objects.cells.found.table)
    delete_layer(viewer, "nuclei cells")
    again = reopened(panel)
    page = again.objects.cells
    assert page.model.rowCount() == count
    assert not layers_named(viewer, "nuclei cells")
    assert layers_named(viewer, "nuclei cell centres")
    assert page.words.text().endswith("at the border of the stack.")
    show_kept(again, 1)
    assert layers_named(viewer, "nuclei cells")
    assert "Click a cell" in page.words.text()


def test_layers_of_a_trace_that_were_deleted_stay_away_when_the_panel_is_opened_again(
    make_napari_viewer_proxy: Any, wait_until: Wait
) -> None:
    viewer = make_napari_viewer_proxy()
    panel = with_fit(viewer, phantoms.neurite(spines=False, photons=None))
    choose(panel.objects, "Neurites")
    click(panel.objects.neurites.start)
    wait_until(lambda: panel.objects.neurites.found is not None, COMPILING)
    count = len(panel.objects.neurites.found.table)
    delete_layer(viewer, "neurite branches")
    panel = reopened(panel)
    assert not layers_named(viewer, "neurite branches")
    assert "Lines show" not in panel.objects.neurites.words.text()
    delete_layer_by_button(viewer, "neurite trace")
    again = reopened(panel)
    assert again.objects.neurites.model.rowCount() == count
    assert not layers_named(viewer, "neurite trace")
    show_kept(again, 1)
    assert layers_named(viewer, "neurite branches")
    assert layers_named(viewer, "neurite trace")


def test_layers_of_spots_of_a_recording_stay_away_when_the_panel_is_opened_again(
    make_napari_viewer_proxy: Any, wait_until: Wait
) -> None:
    spots = phantoms.moving_spots(count=4, times=3, crossings=0, shape=(12, 32, 32))
    viewer = make_napari_viewer_proxy()
    add_recording(viewer, np.stack([stack.voxels for stack in spots.stacks]))
    panel = open_panel(viewer)
    choose(panel, "Spots")
    at_all_times(panel)
    wait_until(panel.spots.foot.fit.isEnabled)
    click(panel.spots.foot.fit)
    wait_until(lambda: panel.spots.over_time.found is not None, COMPILING)
    count = len(panel.spots.over_time.found.table)
    delete_layer(viewer, "cells tracks")
    panel = reopened(panel)
    assert layers_named(viewer, "cells spots")
    assert not layers_named(viewer, "cells tracks")
    delete_layer(viewer, "cells spots")
    again = reopened(panel)
    QTest.qWait(500)
    assert not layers_named(viewer, "cells spots")
    assert not layers_named(viewer, "cells tracks")
    assert again.spots.table.model.rowCount() == count
    view = again.spots.table.view
    place = view.visualRect(view.model().index(0, 0)).center()
    QTest.mouseClick(view.viewport(), Qt.MouseButton.LeftButton, pos=place)
    assert again.spots.table.tracks.lines, "the plot of a track needs no layer"
    choose(again, "Structure")
    show_kept(again, 0)
    assert layers_named(viewer, "cells spots")
    assert layers_named(viewer, "cells tracks")


def test_centres_of_a_fit_without_its_stack_stay_away_when_the_panel_is_opened_again(
    make_napari_viewer_proxy: Any, wait_until: Wait
) -> None:
    viewer = make_napari_viewer_proxy()
    panel = with_fit(viewer, phantoms.nuclei(seed=1, shape=(24, 96, 96), photons=None))
    select(panel, 0)
    do(panel, "Show")
    wait_until(lambda: panel.fit is not None)
    delete_layer(viewer, "saved fit")
    again = reopened(panel)
    QTest.qWait(500)
    assert not len(viewer.layers)
    assert again.table.model.rowCount() == len(again.fit.field)
    show_kept(again, 0)
    [centres] = viewer.layers
    assert len(centres.data) == len(again.fit.field)
    third = reopened(again)
    assert [*viewer.layers] == [centres]
    assert third.live.centres is not None
