"""The button Measure: error bars in the points, the table, its tooltips and what is saved."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import psutil
import pytest
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QCheckBox, QLabel

from napari_gaussfit._napari.layers.edited import fit_of_layer
from napari_gaussfit._napari.panel.panel import SETTLE_MS
from napari_gaussfit._napari.panel.rows import with_error
from napari_gaussfit._napari.panel.table import COLUMNS
from napari_gaussfit._napari.worker import Phase
from napari_gaussfit.fitting.result import load
from napari_gaussfit.measure.table import ERRORS
from napari_gaussfit.settings import FitSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from napari_gaussfit.synthetic.phantoms import Phantom

    Wait = Callable[..., None]

pytestmark = [pytest.mark.gui, pytest.mark.usefixtures("nothing_left_behind")]

COMPILING = 240.0
"""Seconds that the first measurement after an installation may take, on a busy machine."""


@pytest.fixture
def fitted(make_napari_viewer_proxy: Any, small_beads: Phantom, wait_until: Wait) -> Any:
    """A panel that has fitted six beads by six Gaussians."""
    viewer = make_napari_viewer_proxy()
    stack = small_beads.stack
    place = {"scale": stack.spacing, "units": ("um",) * 3, "axis_labels": ("z", "y", "x")}
    viewer.add_image(stack.voxels, name="beads", **place)
    _, panel = viewer.window.add_plugin_dock_widget("napari-gaussfit", "Gaussian fit")
    wait_until(panel.run.buttons["Fit"].isEnabled)
    assert not panel.run.buttons["Measure"].isEnabled()
    panel.model.settings = FitSettings(exactly=True, gaussians=6, quality="preview")
    press(panel, "Fit")
    assert not panel.run.buttons["Measure"].isEnabled()
    wait_until(lambda: panel.worker.phase is Phase.FINISHED, 120)
    return panel


def press(panel: Any, name: str) -> None:
    button = panel.run.buttons[name]
    assert button.isEnabled(), name
    QTest.mouseClick(button, Qt.MouseButton.LeftButton)


def state(panel: Any) -> str:
    return str(panel.findChild(QLabel, "gaussfit_state").text())


def enabled(panel: Any) -> set[str]:
    return {name for name, button in panel.run.buttons.items() if button.isEnabled()}


def cell(panel: Any, gaussian: int, column: int, role: Qt.ItemDataRole) -> Any:
    model = panel.table.model
    [row] = model.rows({gaussian})
    return model.data(model.index(row, column), role)


def test_measure_says_how_well_each_number_is_known_wherever_it_stands(
    fitted: Any, wait_until: Wait, small_beads: Phantom, tmp_path: Path
) -> None:
    before = fitted.live.centres.data.copy()
    assert fitted.live.centres.features["sd_z"].isna().all()
    assert cell(fitted, 0, COLUMNS.index("x"), Qt.ItemDataRole.ToolTipRole) is None

    press(fitted, "Measure")
    assert state(fitted).startswith("Measuring: ")
    assert enabled(fitted) == {"Stop"}
    wait_until(lambda: not fitted.measuring.active, COMPILING)
    assert state(fitted).startswith("Measured: ")
    assert "of 6 Gaussians determined, in the median to " in state(fitted)
    figures = fitted.findChild(QLabel, "gaussfit_figures").text()
    assert figures.startswith("Held-out projections: not compared since Gaussians were measured")
    assert "Gaussians: 6, background" in figures
    assert enabled(fitted) == {"Fit", "Refine", "Measure"}

    centres, fit = fitted.live.centres, fitted.fit
    features = centres.features
    known = (features["flags"] == "").to_numpy()
    assert known.any()
    assert np.isfinite(features.loc[known, [*ERRORS]]).all(axis=None)
    # Nearer to the truth than four error bars.
    apart = (
        features.loc[known, ["z", "y", "x"]].to_numpy()[:, None] - small_beads.truth.numpy().means
    )
    errors = features.loc[known, ["sd_z", "sd_y", "sd_x"]].to_numpy()
    assert (np.abs(apart / errors[:, None]).max(axis=2).min(axis=1) < 4).all()
    assert fit_of_layer(centres) is fit, "points of a fit that was measured count as edited"

    k, column = int(np.flatnonzero(known)[0]), COLUMNS.index("x")
    number = with_error(features["x"][k], features["sd_x"][k])
    assert cell(fitted, k, column, Qt.ItemDataRole.DisplayRole) == number
    tip = cell(fitted, k, column, Qt.ItemDataRole.ToolTipRole)
    assert tip == f"{number} micrometers"
    assert "Measured: " in fitted.results._words.text()

    fitted.results.save_to(str(tmp_path / "beads.csv"))
    saved = pd.read_csv(tmp_path / "beads.csv", dtype={"flags": str})
    for name in (*ERRORS, "reduced_chi2"):
        np.testing.assert_allclose(saved[name], features[name], rtol=1e-12)
    assert saved["flags"].fillna("").tolist() == features["flags"].tolist()

    QTest.mouseClick(fitted.table.undo, Qt.MouseButton.LeftButton)
    np.testing.assert_array_equal(fitted.live.centres.data, before)
    assert fitted.live.centres.features["sd_z"].isna().all()
    assert state(fitted).startswith("Finished")


def test_what_is_taken_back_is_said_on_the_button(fitted: Any, wait_until: Wait) -> None:
    undo, stack = fitted.table.undo, fitted.kept.session.undo
    assert (undo.text(), undo.isEnabled()) == ("Undo edits", False)
    press(fitted, "Measure")
    wait_until(lambda: not fitted.measuring.active, COMPILING)
    assert (undo.text(), undo.isEnabled()) == ("Undo measuring", True)
    assert undo.toolTip().endswith("before they were measured; their error bars go.")
    assert stack.undoText() == "measure"
    centres = fitted.live.centres
    centres.selected_data = {0}
    centres.remove_selected()
    assert undo.text() == "Undo edits and measuring", "at once"
    wait_until(lambda: stack.undoText() == "delete 1 point")
    assert undo.text() == "Undo edits and measuring"
    press(fitted, "Measure")
    wait_until(lambda: stack.undoText() == "measure", COMPILING)
    assert undo.text() == "Undo edits and measuring", "measured again"

    # The panel is another; what can be taken back is the same.
    viewer = fitted.viewer
    viewer.window.remove_dock_widget(fitted)
    _, again = viewer.window.add_plugin_dock_widget("napari-gaussfit", "Gaussian fit")
    wait_until(lambda: again.fit is not None)
    assert again.table.undo.text() == "Undo edits and measuring"
    QTest.mouseClick(again.table.undo, Qt.MouseButton.LeftButton)
    assert (again.table.undo.text(), again.table.undo.isEnabled()) == ("Undo edits", False)
    assert again.fit.measurement is None
    assert len(again.live.centres.data) == 6
    assert stack.undoText() == "undo edits and measuring"
    for left in ("Undo edits and measuring", "Undo edits and measuring", "Undo measuring"):
        QTest.mouseClick(again.kept.part.buttons["Undo"], Qt.MouseButton.LeftButton)
        wait_until(lambda left=left: again.table.undo.text() == left)
    assert again.fit.measurement is not None
    assert len(again.live.centres.data) == 6
    QTest.mouseClick(again.kept.part.buttons["Undo"], Qt.MouseButton.LeftButton)
    wait_until(lambda: not again.table.undo.isEnabled())
    assert again.fit.measurement is None


def test_what_is_not_determined_says_why_and_shows_no_error_bar(
    fitted: Any, wait_until: Wait
) -> None:
    centres = fitted.live.centres
    moved = centres.data.copy()
    moved[0] = 0.0
    centres.data = moved
    press(fitted, "Measure")
    wait_until(lambda: not fitted.measuring.active, COMPILING)
    features = fitted.live.centres.features
    flags = features["flags"][0]
    assert "at the border" in flags, features["flags"].tolist()
    column = COLUMNS.index("z")
    tip = cell(fitted, 0, column, Qt.ItemDataRole.ToolTipRole)
    assert tip.endswith(f" micrometers; not determined: {flags}")
    assert "±" not in cell(fitted, 0, column, Qt.ItemDataRole.DisplayRole)
    assert cell(fitted, 0, len(COLUMNS), Qt.ItemDataRole.DisplayRole) == flags


def test_who_deletes_or_moves_points_keeps_the_error_bars_of_the_others(
    fitted: Any, wait_until: Wait, tmp_path: Path
) -> None:
    press(fitted, "Measure")
    wait_until(lambda: not fitted.measuring.active, COMPILING)
    centres, column = fitted.live.centres, COLUMNS.index("x")
    before = centres.features.copy()
    centres.selected_data = {0}
    centres.remove_selected()
    assert len(centres.data) == 5
    places = centres.data.copy()
    places[1] += (0.0, 0.5, 0.0)
    centres.data = places
    role = Qt.ItemDataRole.DisplayRole
    for now, was in enumerate((1, 2, 3, 4, 5)):
        bar = with_error(before["x"][was], before["sd_x"][was])
        assert (cell(fitted, now, column, role) == bar) is (now != 1 and not before["flags"][was])
    assert cell(fitted, 1, len(COLUMNS), role) == "edited since it was measured"

    fitted.results.save_to(str(tmp_path / "five.csv"))
    saved = pd.read_csv(tmp_path / "five.csv")
    kept = [0, 2, 3, 4]
    for name in (*ERRORS, "reduced_chi2", "x"):
        wanted = before[name].to_numpy()[1:][kept]
        np.testing.assert_allclose(saved[name][kept], wanted, rtol=1e-12, err_msg=name)
    assert np.isnan(saved["sd_z"][1])
    assert saved["flags"][1] == "edited since it was measured"
    fitted.results.save_to(str(tmp_path / "five.safetensors"))
    again = load(tmp_path / "five.safetensors").to_dataframe()
    np.testing.assert_array_equal(again["sd_fwhm_1"], saved["sd_fwhm_1"])
    press(fitted, "Measure")
    wait_until(lambda: not fitted.measuring.active, COMPILING)
    assert "of 5 Gaussians determined" in state(fitted)


def test_stop_gives_up_measuring_and_a_new_fit_says_how_it_went_itself(
    fitted: Any, wait_until: Wait
) -> None:
    shown = fitted.fit
    press(fitted, "Measure")
    press(fitted, "Stop")
    assert not fitted.measuring.active
    assert state(fitted).startswith("Finished")
    QTest.qWait(200)
    assert fitted.fit is shown
    press(fitted, "Measure")
    wait_until(lambda: state(fitted).startswith("Measured: "), COMPILING)
    press(fitted, "Fit")
    wait_until(lambda: fitted.worker.phase is Phase.FINISHED, 120)
    assert state(fitted).startswith("Finished")
    assert fitted.fit.measurement is None


@pytest.mark.parametrize("closed", ["panel", "window"])
def test_closing_gives_up_measuring(fitted: Any, wait_until: Wait, closed: str) -> None:
    before = set(psutil.Process().children())
    press(fitted, "Measure")
    wait_until(lambda: bool(set(psutil.Process().children()) - before))
    if closed == "panel":
        fitted.viewer.window.remove_dock_widget(fitted)
    else:
        fitted.viewer.close()
    _, alive = psutil.wait_procs(set(psutil.Process().children()) - before, 3)
    assert not alive


@contextmanager
def children_killed() -> Iterator[None]:
    """Kill each process that begins, at once, whatever the window does meanwhile."""
    before, over = set(psutil.Process().children()), Event()

    def kill_all() -> None:
        while not over.wait(0.005):
            for child in set(psutil.Process().children()) - before:
                with suppress(psutil.NoSuchProcess):
                    child.kill()

    killer = Thread(target=kill_all)
    killer.start()
    try:
        yield
    finally:
        over.set()
        killer.join()


def test_why_nothing_was_measured_is_said_in_the_line_of_the_state(
    fitted: Any, wait_until: Wait
) -> None:
    said = "Not measured: the process that renders was killed"
    with children_killed():
        press(fitted, "Measure")
        wait_until(lambda: state(fitted).startswith(said), COMPILING)
    QTest.mouseClick(fitted.findChild(QCheckBox, "gaussfit_exactly"), Qt.MouseButton.LeftButton)
    QTest.qWait(3 * SETTLE_MS)
    assert state(fitted).startswith(said), "forgotten as the setup is looked at"
    assert enabled(fitted) == {"Fit", "Refine", "Measure"}


@pytest.mark.parametrize(
    ("value", "error", "said"),
    [
        (0.21437, 0.0064, "0.214 ± 0.006"),
        (0.21437, 0.0014, "0.2144 ± 0.0014"),
        (12345.6, 213.0, "12300 ± 200"),
        (512.34, 12.7, "512 ± 13"),
        (3.0, 0.0, "3 ± 0"),
    ],
)
def test_a_number_is_given_to_the_digits_that_are_known(
    value: float, error: float, said: str
) -> None:
    assert with_error(value, error) == said
