"""Times of a recording that are fitted one after the other in the panel, by clicks and keys."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QComboBox, QFileDialog, QLabel, QLineEdit, QPushButton

from napari_gaussfit._napari.panel.panel import GaussianFitPanel
from napari_gaussfit._napari.worker import Phase
from napari_gaussfit.fitting.result import load
from napari_gaussfit.jobs.sequence import SequenceNews
from napari_gaussfit.settings import FitSettings
from napari_gaussfit.synthetic.phantoms import moving_spots

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Wait = Callable[..., None]

pytestmark = [pytest.mark.gui, pytest.mark.usefixtures("nothing_left_behind")]

PLUGIN = "napari-gaussfit"
SHORT = FitSettings(exactly=True, gaussians=5, iterations=60)
LONG = FitSettings(exactly=True, gaussians=5, iterations=4000)
SPACING = (0.3, 0.1, 0.1)
TIMES = 4


@pytest.fixture(scope="module")
def movie() -> np.ndarray:
    """Five spots at four times, [T, Z, Y, X]."""
    spots = moving_spots(count=5, times=TIMES, crossings=0, shape=(12, 40, 40))
    return np.stack([stack.voxels for stack in spots.stacks])


@pytest.fixture
def panel(make_napari_viewer_proxy: Any, movie: np.ndarray, wait_until: Wait) -> Any:
    """A panel beside a recording, all times chosen by a key."""
    viewer = make_napari_viewer_proxy()
    place = {"scale": (1, *SPACING), "units": ("pixel", "um", "um", "um")}
    viewer.add_image(movie, name="cells", axis_labels=("t", "z", "y", "x"), **place)
    viewer.dims.set_current_step(0, 0)
    _, panel = viewer.window.add_plugin_dock_widget(PLUGIN, "Gaussian fit")
    wait_until(panel.run.buttons["Fit"].isEnabled)
    choose(panel, 1)
    panel.model.settings = SHORT
    wait_until(panel.run.buttons["Fit"].isEnabled)
    return panel


def choose(panel: GaussianFitPanel, row: int) -> None:
    """Choose which times are fitted, by keys."""
    box: Any = panel.findChild(QComboBox, "gaussfit_times")
    box.setFocus()
    for _ in range(row):
        QTest.keyClick(box, Qt.Key.Key_Down)
    assert box.currentIndex() == row


def press(button: QPushButton) -> None:
    assert button.isEnabled()
    QTest.mouseClick(button, Qt.MouseButton.LeftButton)


def state(panel: GaussianFitPanel) -> str:
    found: Any = panel.findChild(QLabel, "gaussfit_state")
    return str(found.text())


def fit(panel: GaussianFitPanel, wait_until: Wait) -> None:
    press(panel.run.buttons["Fit"])
    wait_until(lambda: panel.worker.phase is Phase.FINISHED, 300)


def frames(panel: GaussianFitPanel) -> list[int]:
    news = panel.worker.news
    return [frame.time for frame in news.frames] if isinstance(news, SequenceNews) else []


def layer_named(viewer: Any, end: str) -> Any:
    [layer] = [one for one in viewer.layers if one.name.endswith(end)]
    return layer


def test_all_times_of_a_recording_have_points_tracks_pictures_and_rows(
    panel: Any, wait_until: Wait
) -> None:
    viewer = panel.viewer
    fit(panel, wait_until)
    assert [frame.time for frame in panel.over_time.frames] == list(range(TIMES))
    assert "all 4 times done" in state(panel)

    points = layer_named(viewer, "cells centres")
    assert (points.ndim, points.editable) == (4, False)
    np.testing.assert_array_equal(points.data[:, 0], points.features["time"])
    features = points.features
    np.testing.assert_allclose(points.data[:, 1:] * SPACING, features[["z", "y", "x"]], rtol=1e-5)
    np.testing.assert_array_equal(points.scale, (1, *SPACING))

    tracks = layer_named(viewer, "cells tracks")
    rows = np.concatenate([features[["track"]], points.data], axis=1)
    found = {tuple(np.round(row, 3)) for row in tracks.data}
    assert found == {tuple(np.round(row, 3)) for row in rows}
    np.testing.assert_array_equal(tracks.scale, (1, *SPACING))

    # All rows are in the table; a row's point is selected with it.
    panel.tabs.setCurrentWidget(panel.table)
    assert panel.table.model.rowCount() == len(points.data) == 5 * TIMES
    points.selected_data = {7}
    assert panel.table.view.items == {7}
    assert {"time", "track"} <= {*panel.table.view.shown_columns}

    # Any number of the selected points' tracks is drawn against time.
    panel.tabs.setCurrentIndex(2)
    column: Any = panel.findChild(QComboBox, "gaussfit_track_column")
    column.setFocus()
    QTest.keyClicks(column, "z")
    assert column.currentText() == "z"
    track = int(features["track"][7])
    [(times, values)] = panel.track_plot.lines.values()
    own = features[features["track"] == track]
    assert [*panel.track_plot.lines] == [track]
    np.testing.assert_array_equal(times, own["time"])
    np.testing.assert_array_equal(values, own["z"])
    assert not panel.run.buttons["Refine"].isEnabled()


def test_pictures_and_figures_follow_the_slider(panel: Any, wait_until: Wait, movie: Any) -> None:
    viewer = panel.viewer
    fit(panel, wait_until)
    wait_until(lambda: len(panel.live.layers) == 6)
    assert viewer.dims.current_step[0] == TIMES - 1, "the slider went with the fit"
    picture = layer_named(viewer, "data MIP")
    for time in (1, 3):
        viewer.dims.set_current_step(0, time)
        wait_until(lambda at=time: np.array_equal(picture.data, movie[at].max(0)))
        assert panel.fit is panel.over_time.frames[time].result
        assert f"time {time}, all" in state(panel)
    panel.view.look_along(1)
    wait_until(lambda: picture.data.shape == movie[3].max(1).shape)
    np.testing.assert_array_equal(picture.data, movie[3].max(1))
    viewer.dims.set_current_step(0, 2)
    wait_until(lambda: np.array_equal(picture.data, movie[2].max(1)))


def test_what_is_saved_is_what_the_command_line_leaves(
    panel: Any, wait_until: Wait, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit(panel, wait_until)
    panel.tabs.setCurrentIndex(4)
    out = tmp_path / "out"
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(out))
    button = panel.findChild(QPushButton, "gaussfit_save_times")
    said = panel.findChild(QLabel, "gaussfit_saved_times")
    press(button)
    wait_until(lambda: said.text() == f"Saved to {out}")
    names = {path.name for path in out.iterdir()}
    assert names == {"gaussians.csv", "tracks.csv", "tracks.png", "report.json", "times"}
    table = pd.read_csv(out / "gaussians.csv")
    assert [*table.columns[-2:]] == ["time", "track"]
    assert len(table) == 5 * TIMES
    tracks = pd.read_csv(out / "tracks.csv")
    assert set(table["track"]) == set(tracks["track"])
    report = json.loads((out / "report.json").read_text())
    assert [one["time"] for one in report["times"]] == list(range(TIMES))
    saved = load(out / "times" / "0003" / "fit.safetensors")
    np.testing.assert_array_equal(saved.field.means, panel.over_time.frames[3].result.field.means)
    press(button)
    wait_until(lambda: "choose another folder" in said.text())


def test_a_range_is_typed(panel: Any, wait_until: Wait) -> None:
    choose_some = panel.findChild(QComboBox, "gaussfit_times")
    QTest.keyClick(choose_some, Qt.Key.Key_Down)
    line = panel.findChild(QLineEdit, "gaussfit_range")
    line.setFocus()
    line.selectAll()
    QTest.keyClicks(line, "7:")
    QTest.keyClick(line, Qt.Key.Key_Return)
    wait_until(lambda: "none of the 4" in state(panel))
    assert not panel.run.buttons["Fit"].isEnabled()
    line.selectAll()
    QTest.keyClicks(line, "0:4:2")
    QTest.keyClick(line, Qt.Key.Key_Return)
    wait_until(panel.run.buttons["Fit"].isEnabled)
    fit(panel, wait_until)
    assert [frame.time for frame in panel.over_time.frames] == [0, 2]


def test_stop_leaves_the_times_that_are_done(panel: Any, wait_until: Wait) -> None:
    panel.model.settings = LONG
    press(panel.run.buttons["Fit"])
    wait_until(lambda: panel.worker.phase is Phase.RUNNING)
    wait_until(lambda: len(frames(panel)) >= 1 and " of 4" in state(panel), 200)
    press(panel.run.buttons["Stop"])
    wait_until(lambda: panel.worker.phase is Phase.CANCELLED, 60)
    done = [frame.time for frame in panel.over_time.frames]
    assert done == list(range(len(done)))
    assert 1 <= len(done) < TIMES
    assert f"{len(done)} of 4 times done" in state(panel)
    points = layer_named(panel.viewer, "cells centres")
    assert sorted(set(points.data[:, 0])) == done


def test_a_first_time_that_is_stopped_stays_as_it_was(panel: Any, wait_until: Wait) -> None:
    panel.model.settings = LONG
    press(panel.run.buttons["Fit"])
    wait_until(lambda: panel.worker.phase is Phase.RUNNING)
    wait_until(lambda: panel.live.points is not None)
    press(panel.run.buttons["Stop"])
    wait_until(lambda: panel.worker.phase is Phase.CANCELLED, 60)
    assert panel.over_time.frames == ()
    assert len(panel.fit.field) == 5
    assert set(panel.live.points.data[:, 0]) == {0}
    assert panel.table.model.rowCount() == 5


def test_the_slider_stays_where_somebody_looks_at_another_time(
    panel: Any, wait_until: Wait
) -> None:
    viewer = panel.viewer
    press(panel.run.buttons["Fit"])
    # The worker may know of a time that is done before the window has shown any.
    wait_until(lambda: panel.over_time is not None and panel.over_time._time in {1, 2, 3}, 200)
    viewer.dims.set_current_step(0, 0)
    wait_until(lambda: panel.worker.phase is Phase.FINISHED, 300)
    assert viewer.dims.current_step[0] == 0
    assert panel.fit is panel.over_time.frames[0].result


def test_one_time_is_fitted_after_all_of_them_as_ever(panel: Any, wait_until: Wait) -> None:
    fit(panel, wait_until)
    box: Any = panel.findChild(QComboBox, "gaussfit_times")
    panel.tabs.setCurrentIndex(0)
    box.setFocus()
    QTest.keyClick(box, Qt.Key.Key_Up)
    assert box.currentIndex() == 0
    panel.viewer.dims.set_current_step(0, 1)
    wait_until(panel.run.buttons["Fit"].isEnabled)
    fit(panel, wait_until)
    assert panel.over_time is None
    assert panel.fit.stack.time == 1
    assert panel.live.centres.ndim == 3
    assert panel.run.buttons["Refine"].isEnabled()


def test_channels_and_times_go_together(
    make_napari_viewer_proxy: Any, movie: np.ndarray, wait_until: Wait
) -> None:
    viewer = make_napari_viewer_proxy()
    for n, factor in enumerate((1.0, 0.5)):
        voxels = (factor * movie[:3]).astype(np.float32)
        viewer.add_image(voxels, name=f"cells {n}", axis_labels=("t", "z", "y", "x"))
    _, panel = viewer.window.add_plugin_dock_widget(PLUGIN, "Gaussian fit")
    wait_until(panel.run.buttons["Fit"].isEnabled)
    choose(panel, 1)
    channels: Any = panel.data.channels
    channels._list.item(0).setCheckState(Qt.CheckState.Checked)
    panel.model.settings = SHORT
    wait_until(panel.run.buttons["Fit"].isEnabled)
    fit(panel, wait_until)
    assert [len(frame.result.fields) for frame in panel.over_time.frames] == [2, 2, 2]
    points = layer_named(viewer, "cells centres")
    features, merged = points.features, points.face_color.copy()
    panel.view._channel.setCurrentIndex(2)
    wait_until(lambda: not np.array_equal(points.face_color, merged))
    assert {"amplitude_0", "amplitude_1", "time", "track"} <= {*features.columns}


def test_closing_the_panel_amid_a_recording_leaves_nothing_behind(
    panel: Any, wait_until: Wait
) -> None:
    panel.model.settings = LONG
    press(panel.run.buttons["Fit"])
    wait_until(lambda: panel.worker.phase is Phase.RUNNING)
    panel.viewer.window.remove_dock_widget(panel)


def test_twenty_one_times_of_a_droplet(
    make_napari_viewer_proxy: Any, stack_path: Callable[[str], Path], wait_until: Wait
) -> None:
    viewer = make_napari_viewer_proxy()
    path = stack_path("hyperstack/droplet_TZYX_napari_stress.tif")
    viewer.open(str(path), plugin=PLUGIN)
    _, panel = viewer.window.add_plugin_dock_widget(PLUGIN, "Gaussian fit")
    wait_until(panel.run.buttons["Fit"].isEnabled)
    choose(panel, 1)
    panel.model.settings = FitSettings(exactly=True, gaussians=30, quality="preview")
    wait_until(panel.run.buttons["Fit"].isEnabled)
    fit(panel, wait_until)
    assert len(panel.over_time.frames) == 21
    points = layer_named(viewer, "centres")
    assert sorted(set(points.data[:, 0])) == list(range(21))
    table = panel.over_time.tracks.table()
    assert (table["objects"] == 21).sum() >= 15, "most Gaussians stay the same ones"
    assert layer_named(viewer, "tracks").data.shape == (21 * 30, 5)
