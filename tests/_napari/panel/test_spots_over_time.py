"""Spots of a recording in the panel, one time after another, by clicks and keys."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import tifffile
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QComboBox, QFileDialog, QLabel, QLineEdit, QRadioButton

from napari_gaussfit.cli.commands import main
from napari_gaussfit.synthetic.phantoms import moving_spots

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_gaussfit.synthetic.phantoms import MovingPhantom

    Wait = Callable[..., None]

pytestmark = [pytest.mark.gui, pytest.mark.usefixtures("nothing_left_behind")]

SPACING = (0.2, 0.1, 0.1)
TIMES, LONG, COUNT = 4, 64, 8
COMPILING = 240.0
"""Seconds that the first search after an installation may take, on a busy machine."""


@pytest.fixture(scope="module")
def phantom() -> MovingPhantom:
    """Eight spots at four times, which walk and drift."""
    return moving_spots(count=COUNT, times=TIMES, crossings=0, shape=(20, 60, 60))


def opened(viewer: Any, voxels: np.ndarray, wait_until: Wait) -> Any:
    """Return a panel beside a recording, in which spots are looked for at all times."""
    place = {"scale": (1, *SPACING), "units": ("pixel", "um", "um", "um")}
    viewer.add_image(voxels, name="cells", axis_labels=("t", "z", "y", "x"), **place)
    viewer.dims.set_current_step(0, 0)
    _, panel = viewer.window.add_plugin_dock_widget("napari-gaussfit", "Gaussian fit")
    [spots] = [one for one in panel.findChildren(QRadioButton) if "Spots" in one.text()]
    click(spots)
    box: Any = panel.findChild(QComboBox, "gaussfit_times")
    box.setFocus()
    QTest.keyClick(box, Qt.Key.Key_Down)
    assert box.currentText() == "all times"
    wait_until(panel.spots.foot.fit.isEnabled)
    return panel


@pytest.fixture(scope="module")
def movie(phantom: MovingPhantom) -> np.ndarray:
    """The voxels of all times, [T, Z, Y, X]."""
    return np.stack([stack.voxels for stack in phantom.stacks])


@pytest.fixture
def panel(make_napari_viewer_proxy: Any, movie: np.ndarray, wait_until: Wait) -> Any:
    """A panel beside the recording, in which spots are looked for at all times."""
    return opened(make_napari_viewer_proxy(), movie, wait_until)


@pytest.fixture
def long_panel(make_napari_viewer_proxy: Any, movie: np.ndarray, wait_until: Wait) -> Any:
    """The same beside a recording that takes a while."""
    there_and_back = np.concatenate([movie, movie[::-1]])
    voxels = np.concatenate([there_and_back] * (LONG // len(there_and_back)))
    return opened(make_napari_viewer_proxy(), voxels, wait_until)


def click(button: Any) -> None:
    assert button.isEnabled()
    # A radio button heeds clicks on its mark and its words only.
    QTest.mouseClick(button, Qt.MouseButton.LeftButton, pos=QPoint(8, button.height() // 2))


def state(panel: Any) -> str:
    return str(panel.findChild(QLabel, "gaussfit_spots_state").text())


def fit(panel: Any, wait_until: Wait) -> Any:
    click(panel.spots.foot.fit)
    assert panel.spots.foot.stop.isEnabled()
    wait_until(lambda: not state(panel).startswith("Running"), COMPILING)
    return panel.spots.over_time.found


def layer_named(viewer: Any, end: str) -> Any:
    [layer] = [one for one in viewer.layers if one.name.endswith(end)]
    return layer


def test_spots_of_all_times_have_points_tracks_rows_and_a_plot(
    panel: Any, wait_until: Wait, phantom: MovingPhantom
) -> None:
    viewer = panel.viewer
    found = fit(panel, wait_until)
    assert state(panel).startswith(f"Finished: {COUNT * TIMES} spots at {TIMES} times in ")
    assert [frame.time for frame in found.frames] == list(range(TIMES))

    # Each spot is where the truth has it, and keeps its track as the truth keeps its own.
    points = layer_named(viewer, "cells spots")
    features = points.features
    assert (points.ndim, points.editable) == (4, False)
    np.testing.assert_array_equal(points.data[:, 0], features["time"])
    np.testing.assert_allclose(points.data[:, 1:] * SPACING, features[["z", "y", "x"]], atol=1e-6)
    true_tracks = np.empty(len(features), int)
    for time, (truth, tracks) in enumerate(zip(phantom.truths, phantom.tracks, strict=True)):
        rows = np.flatnonzero(features["time"] == time)
        places = features.loc[rows, ["z", "y", "x"]].to_numpy()
        apart = np.linalg.norm(places[:, None] - truth.numpy().means[None], axis=2)
        assert apart.min(axis=1).max() < 0.1
        assert len(set(apart.argmin(axis=1))) == COUNT
        true_tracks[rows] = tracks[apart.argmin(axis=1)]
    pairs = set(zip(true_tracks, features["track"], strict=True))
    assert len(pairs) == len(set(true_tracks)) == features["track"].nunique()

    tracks = layer_named(viewer, "cells tracks")
    rows = np.concatenate([features[["track"]], points.data], axis=1)
    assert {tuple(row) for row in tracks.data.round(3)} == {tuple(row) for row in rows.round(3)}

    # All rows are in the table, in the order of time; a row's point is selected with it.
    table = panel.spots.table
    assert panel.tabs.currentWidget() is table
    assert table.model.rowCount() == COUNT * TIMES
    assert [*table.view.shown_columns][:3] == ["index", "time", "track"]
    panel.window().show()
    last = COUNT * TIMES - 1
    where = table.view.visualRect(table.model.index(last, 0))
    table.view.scrollTo(table.model.index(last, 0))
    where = table.view.visualRect(table.model.index(last, 0)).center()
    QTest.mouseClick(table.view.viewport(), Qt.MouseButton.LeftButton, pos=where)
    assert set(points.selected_data) == {last}
    assert viewer.dims.current_step[0] == TIMES - 1, "the picture goes to the spot's time"
    points.selected_data = {0}
    assert table.view.items == {0}

    # Any number of the selected points' tracks is drawn against time.
    column: Any = panel.findChild(QComboBox, "gaussfit_spot_track_column")
    column.setFocus()
    QTest.keyClicks(column, "signal")
    assert column.currentText() == "signal/noise"
    track = int(features["track"][0])
    own = features[features["track"] == track]
    [(times, values)] = table.tracks.lines.values()
    np.testing.assert_array_equal(times, own["time"])
    np.testing.assert_array_equal(values, own["signal_to_noise"])


def test_what_is_saved_is_what_the_command_line_writes(
    panel: Any,
    movie: np.ndarray,
    wait_until: Wait,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = fit(panel, wait_until)
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(tmp_path))
    monkeypatch.setattr(
        QFileDialog, "getSaveFileName", lambda *_: (str(tmp_path / "table.csv"), "")
    )
    click(panel.spots.table.folder)
    words = panel.findChild(QLabel, "gaussfit_spots_words")
    out = tmp_path / "cells spots"
    wait_until(lambda: words.text() == f"Saved to {out}", COMPILING)
    click(panel.spots.table.save)
    saved = pd.read_csv(tmp_path / "table.csv", dtype={"flags": str}).fillna({"flags": ""})
    pd.testing.assert_frame_equal(saved, found.table, check_dtype=False, rtol=1e-12)

    path = tmp_path / "cells.tif"
    tifffile.imwrite(
        path, movie, imagej=True, resolution=(10, 10),
        metadata={"axes": "TZYX", "spacing": 0.2, "unit": "um"},
    )  # fmt: skip
    command = tmp_path / "command"
    assert main(["spots", str(path), "-o", str(command), "--time", "all"]) == 0
    names = {file.relative_to(out) for file in out.rglob("*")}
    named = {file.relative_to(command) for file in command.rglob("*")}
    assert {str(name) for name in named - names} == {"settings.toml"}
    assert names <= named
    ours, theirs = (pd.read_csv(one / "objects.csv") for one in (out, command))
    pd.testing.assert_frame_equal(ours, theirs, rtol=1e-6, atol=1e-6)
    report, other = (json.loads((one / "report.json").read_text()) for one in (out, command))
    assert report.keys() == other.keys()
    assert [one["spots"] for one in report["times"]] == [COUNT] * TIMES


def test_stop_keeps_the_times_that_are_done(long_panel: Any, wait_until: Wait) -> None:
    panel = long_panel
    click(panel.spots.foot.fit)
    wait_until(lambda: panel.spots.over_time.done >= 1, COMPILING)
    click(panel.spots.foot.stop)
    wait_until(lambda: state(panel).startswith("Stopped"))
    done = panel.spots.over_time.done
    assert 1 <= done < LONG
    assert f"{done} of {LONG} times done" in state(panel)
    assert [frame.time for frame in panel.spots.over_time.found.frames] == list(range(done))
    points = layer_named(panel.viewer, "cells spots")
    assert sorted(set(points.data[:, 0])) == list(range(done))
    assert panel.spots.table.model.rowCount() == len(points.data) == done * COUNT
    assert panel.spots.foot.fit.isEnabled()


def test_a_range_is_typed_and_one_time_is_found_after_it_as_ever(
    panel: Any, wait_until: Wait
) -> None:
    box: Any = panel.findChild(QComboBox, "gaussfit_times")
    QTest.keyClick(box, Qt.Key.Key_Down)
    line: Any = panel.findChild(QLineEdit, "gaussfit_range")
    for typed in ("9:", "0:4:3"):
        line.setFocus()
        line.selectAll()
        QTest.keyClicks(line, typed)
        QTest.keyClick(line, Qt.Key.Key_Return)
        if typed == "9:":
            wait_until(lambda: "none of the 4" in state(panel))
            assert not panel.spots.foot.fit.isEnabled()
    wait_until(panel.spots.foot.fit.isEnabled)
    assert [frame.time for frame in fit(panel, wait_until).frames] == [0, 3]

    panel.tabs.setCurrentIndex(0)
    box.setFocus()
    for _ in range(2):
        QTest.keyClick(box, Qt.Key.Key_Up)
    panel.viewer.dims.set_current_step(0, 1)
    wait_until(lambda: panel.spots.foot.fit.isEnabled() and panel.spots._source.place == (1,))
    fit(panel, wait_until)
    assert panel.spots.over_time.found is None
    assert len(panel.spots.found.table) == COUNT
    assert panel.spots.table.model.rowCount() == COUNT
    assert not panel.spots.table.tracks.isVisibleTo(panel.spots.table)
    assert "track" not in panel.spots.table.view.shown_columns


def test_what_was_marked_at_a_later_time_is_not_taken_for_the_first(
    panel: Any, wait_until: Wait
) -> None:
    def candidates() -> Any:
        return [one for one in panel.viewer.layers if one.name.endswith("candidates")]

    panel.viewer.dims.set_current_step(0, 2)
    wait_until(lambda: panel.spots._source.place == (2,) and len(candidates()) > 0, COMPILING)
    layer = candidates()[-1]
    layer.selected_data = {0}
    layer.remove_selected()
    click(panel.spots.foot.fit)
    assert state(panel) == (
        "Cannot be fitted: points were added or deleted at another time than the first one, 0; "
        "mark them there, or press Forget"
    )
    assert not panel.spots.over_time.active


def test_closing_the_panel_amid_a_recording_leaves_nothing_behind(
    long_panel: Any, wait_until: Wait
) -> None:
    click(long_panel.spots.foot.fit)
    wait_until(lambda: long_panel.spots.over_time.done >= 1, COMPILING)
    long_panel.viewer.window.remove_dock_widget(long_panel)
