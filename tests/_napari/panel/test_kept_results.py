"""Nothing is lost: the list of results, what is opened, undone, reopened and restored."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from qtpy.compat import isalive
from qtpy.QtCore import QEvent, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QLabel, QLineEdit

from by_hand import add_stack, drop, open_panel
from list_of_results import cells, click, do, names, rename, select
from napari_gaussfit._napari.layers.placement import METADATA
from napari_gaussfit._napari.worker import Phase
from napari_gaussfit.fitting.result import FitResult, load
from napari_gaussfit.jobs.session_folder import sessions_root
from napari_gaussfit.settings import FitSettings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_gaussfit.synthetic.phantoms import Phantom

    Wait = Callable[..., None]

pytestmark = [
    pytest.mark.gui,
    pytest.mark.usefixtures("nothing_left_behind", "own_sessions", "strict_qt"),
]

SIX = FitSettings(exactly=True, gaussians=6, quality="preview")
FOUR = FitSettings(exactly=True, gaussians=4, quality="preview")
LONG = FitSettings(exactly=True, gaussians=40, quality="fine", iterations=1_000_000)


def fit(panel: Any, wait_until: Wait, settings: FitSettings = SIX) -> FitResult:
    panel.model.settings = settings
    click(panel.run.buttons["Fit"])
    wait_until(lambda: panel.worker.phase is Phase.FINISHED, 120)
    found: FitResult = panel.fit
    return found


def state(panel: Any) -> str:
    return str(panel.findChild(QLabel, "gaussfit_state").text())


def delete_point(panel: Any) -> None:
    centres = panel.live.centres
    centres.selected_data = {0}
    centres.remove_selected()
    QTest.qWait(50)


def test_each_fit_is_a_row_that_is_shown_compared_renamed_saved_and_removed(
    panel: Any, wait_until: Wait, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    panel.tabs.setCurrentIndex(4)
    first = fit(panel, wait_until)
    second = fit(panel, wait_until, FOUR)
    panel.tabs.setCurrentIndex(4)
    assert names(panel) == ["beads", "beads 2"]
    figure = f"{first.report.heldout_mip_psnr:.1f} dB"
    assert cells(panel, 0)[1:6] == ["fit", "limited by noise", "6", figure, "beads"]
    assert panel.fit is second

    select(panel, 0)
    do(panel, "Show")
    assert panel.fit is first
    np.testing.assert_allclose(
        panel.live.centres.data * first.stack.spacing, first.field.means, atol=1e-5
    )
    assert panel.table.model.rowCount() == 6
    assert state(panel) == "Finished: limited by noise"
    wait_until(lambda: shows_its_picture(panel), 30)
    wait_until(lambda: panel.live.complete, 30)  # layers are made one at a time
    assert sum("MIP" in layer.name for layer in panel.viewer.layers) == 3

    select(panel, 0, 1)
    do(panel, "Compare")
    said = panel.kept.part.words.text()
    assert f"{second.report.heldout_mip_psnr:.1f} dB" in said
    assert figure in said
    assert len(panel.viewer.layers["beads 2 beside"].data) == 4

    # Compared again, in the layer that there is, whatever it and the result are called by then.
    beside = panel.viewer.layers["beads 2 beside"]
    beside.name, beside.opacity, beside.visible = "mine", 0.31, False
    rename(panel, 1, "too few")
    assert names(panel) == ["beads", "too few"]
    count = len(panel.viewer.layers)
    select(panel, 0, 1)
    do(panel, "Compare")
    assert len(panel.viewer.layers) == count
    assert (beside.opacity, beside.visible, len(beside.data)) == (0.31, True, 4)

    select(panel, 1)
    monkeypatch.setattr(
        "napari_gaussfit._napari.panel.results.QFileDialog.getSaveFileName",
        lambda *_: (str(tmp_path / "few.safetensors"), ""),
    )
    do(panel, "Save…")
    assert len(load(tmp_path / "few.safetensors").field) == 4

    select(panel, 1)
    do(panel, "Remove")
    assert names(panel) == ["beads"]
    do(panel, "Undo")
    assert names(panel) == ["beads", "too few"]
    do(panel, "Redo")
    assert names(panel) == ["beads"]


def shows_its_picture(panel: Any) -> bool:
    expected = panel.fit.field.voxelise(panel.fit.stack.shape, panel.fit.stack.spacing)
    expected = expected.amax(0).numpy()
    shown = panel.live.layer("fit MIP")
    return shown is not None and bool(np.abs(shown.data - expected).max() < 0.01 * np.ptp(expected))


def test_edits_and_refinements_are_undone_and_redone_by_keys(
    panel: Any, wait_until: Wait, qtbot: Any
) -> None:
    found = fit(panel, wait_until)
    centres = panel.live.centres
    before = centres.data.copy()
    delete_point(panel)
    assert len(panel.fit.field) == 5
    assert panel.kept.session.undo.undoText() == "delete 1 point"
    moved = centres.data.copy()
    moved[0] += 2
    centres.data = moved
    QTest.qWait(50)
    assert panel.kept.session.undo.undoText() == "move points"
    panel.model.settings = SIX
    click(panel.run.buttons["Refine"])
    wait_until(lambda: panel.worker.phase is Phase.FINISHED, 120)
    assert len(panel.kept.results) == 1, "a refinement is of the same result"

    window = panel.window()
    window.show()
    window.activateWindow()
    panel.tabs.setCurrentIndex(4)
    qtbot.waitUntil(lambda: QApplication.activeWindow() is window, timeout=20_000)
    panel.kept.part.view.setFocus()
    for _ in range(3):
        QTest.keyClick(panel.kept.part.view, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    assert panel.fit is found
    np.testing.assert_array_equal(centres.data, before)
    assert state(panel) == "Finished: limited by noise"
    do(panel, "Redo")
    do(panel, "Redo")
    np.testing.assert_allclose(centres.data, moved, atol=1e-4)


def test_closing_and_reopening_the_panel_changes_nothing(panel: Any, wait_until: Wait) -> None:
    viewer = panel.viewer
    fit(panel, wait_until)
    found = fit(panel, wait_until, FOUR)
    delete_point(panel)
    panel.model.settings = LONG
    panel.view.look_along(1)
    wait_until(lambda: panel.worker.news.mips is not None and panel.worker.news.mips.view.axis == 1)
    panel.tabs.setCurrentIndex(3)
    said = state(panel), names(panel), cells(panel, 1)
    layers = [layer.name for layer in viewer.layers]
    viewer.window.remove_dock_widget(panel)
    again = open_panel(viewer)
    wait_until(again.run.buttons["Refine"].isEnabled)
    assert again.tabs.currentIndex() == 3
    assert again.table.model.rowCount() == 3
    assert again.model.settings == LONG
    assert again.view.choice.axis == 1
    assert (state(again), names(again), cells(again, 1)) == said
    assert [layer.name for layer in viewer.layers] == layers
    again.tabs.setCurrentIndex(4)
    do(again, "Undo")
    assert again.fit is found
    again.model.settings = SIX
    click(again.run.buttons["Refine"])
    wait_until(lambda: again.worker.phase is Phase.FINISHED, 120)
    assert len(again.kept.results) == 2
    QTest.qWait(1000)
    assert not [layer.name for layer in viewer.layers if layer.name.endswith("]")], "a second one"


def test_what_a_person_has_deleted_stays_away_when_the_panel_is_opened_again(
    panel: Any, wait_until: Wait
) -> None:
    viewer = panel.viewer
    fit(panel, wait_until)
    marks = "beads centres on projections"
    wait_until(lambda: panel.live.complete and marks in viewer.layers)
    for name in ("beads data MIP", "beads centres", marks):
        viewer.layers.remove(name)
    panel.shown.boxes["sections"].click()
    left = {layer.name for layer in viewer.layers}
    viewer.window.remove_dock_widget(panel)
    again = open_panel(viewer)
    wait_until(again.run.buttons["Fit"].isEnabled)
    QTest.qWait(1000)
    assert {layer.name for layer in viewer.layers} == left
    assert again.shown.wanted == {"sections"}
    again.tabs.setCurrentIndex(4)
    select(again, 0)
    do(again, "Show")
    wait_until(lambda: "beads data MIP" in viewer.layers)
    assert "beads centres" in viewer.layers
    viewer.layers.remove("beads data MIP")
    again.model.settings = SIX
    click(again.run.buttons["Fit"])
    wait_until(lambda: again.worker.phase is Phase.FINISHED, 120)
    wait_until(lambda: "beads data MIP" in viewer.layers)


def test_a_fit_that_ends_with_the_panel_leaves_what_it_had(panel: Any, wait_until: Wait) -> None:
    viewer = panel.viewer
    panel.model.settings = LONG
    click(panel.run.buttons["Fit"])
    wait_until(lambda: panel.worker.news.snapshot is not None)
    viewer.window.remove_dock_widget(panel)
    again = open_panel(viewer)
    wait_until(again.run.buttons["Refine"].isEnabled)
    assert names(again) == ["beads"]
    assert state(again) == "Stopped"
    assert len(again.fit.field) == 40


def test_a_paused_fit_is_kept_before_it_has_finished(panel: Any, wait_until: Wait) -> None:
    panel.model.settings = LONG
    click(panel.run.buttons["Fit"])
    wait_until(lambda: panel.worker.phase is Phase.RUNNING)
    click(panel.run.buttons["Pause"])
    wait_until(lambda: panel.worker.phase is Phase.PAUSED)
    assert names(panel) == ["beads"]
    panel.kept.session.folder.settle()
    [kept] = sessions_root().glob("*/*.safetensors")
    np.testing.assert_array_equal(load(kept).field.means, panel.fit.field.means)
    click(panel.run.buttons["Stop"])
    wait_until(lambda: not panel.worker.phase.active)
    assert len(panel.kept.results) == 1


@pytest.mark.parametrize("end", [".safetensors", ".ply", ".csv"])
def test_a_saved_fit_that_is_dropped_is_a_result_like_any_other(
    panel: Any, wait_until: Wait, small_beads: Phantom, tmp_path: Path, end: str
) -> None:
    from napari_gaussfit import fit as fitted

    found = fitted(small_beads.stack, SIX)
    path = tmp_path / f"yesterday{end}"
    found.export(path)
    drop(panel, path)
    QTest.qWait(100)
    assert names(panel) == ["yesterday"]
    np.testing.assert_allclose(panel.fit.field.means, found.field.means, atol=1e-4)
    assert panel.table.model.rowCount() == 6
    if end == ".safetensors":
        assert state(panel) == "Finished: limited by noise"
    wait_until(lambda: "beads fit MIP" in panel.viewer.layers)
    wait_until(panel.run.buttons["Refine"].isEnabled)
    centres = [layer for layer in panel.viewer.layers if "fit" in layer.metadata.get(METADATA, {})]
    assert len(centres) == 1, "the points that were opened are those that are edited"
    np.testing.assert_allclose(centres[0].scale, small_beads.stack.spacing)
    panel.model.settings = SIX
    click(panel.run.buttons["Refine"])
    wait_until(lambda: panel.worker.phase is Phase.FINISHED, 120)
    assert panel.fit.reports
    assert names(panel) == ["yesterday"]


def test_a_saved_fit_without_its_stack_has_table_and_export_and_is_refined_when_that_comes(
    make_napari_viewer_proxy: Any, small_beads: Phantom, wait_until: Wait, tmp_path: Path
) -> None:
    from napari_gaussfit import fit as fitted

    path = tmp_path / "alone.safetensors"
    fitted(small_beads.stack, SIX).save(path)
    viewer = make_napari_viewer_proxy()
    panel = open_panel(viewer)
    viewer.open(str(path), plugin="napari-gaussfit")
    QTest.qWait(100)
    assert names(panel) == ["alone"]
    assert panel.table.model.rowCount() == 6
    assert not panel.run.buttons["Refine"].isEnabled()
    do(panel, "Refine")
    assert "Refine needs the stack of alone: open it, 12 x 40 x 40 voxels" in (
        panel.kept.part.words.text()
    )
    panel.results.kinds = {"vectors", "volume"}
    click(panel.results.add)
    wait_until(lambda: any(layer.name.endswith("rendered") for layer in viewer.layers))
    delete_point(panel)
    assert len(panel.fit.field) == 5
    for _ in range(2):  # the layer that the file has brought, then one that the panel has made
        opened = panel.live
        viewer.layers.remove(opened.centres.name)
        assert opened.layers == [], "what is deleted is followed no more"
        do(panel, "Show")
    assert len(panel.live.centres.data) == 5

    add_stack(viewer, small_beads.stack)
    wait_until(panel.run.buttons["Refine"].isEnabled)
    panel.model.settings = SIX
    click(panel.run.buttons["Refine"])
    wait_until(lambda: panel.worker.phase is Phase.FINISHED, 120)
    assert len(panel.fit.field) == 5
    wait_until(lambda: "beads fit MIP" in viewer.layers)


def test_a_table_without_a_stack_says_what_to_do(
    make_napari_viewer_proxy: Any, small_beads: Phantom, tmp_path: Path
) -> None:
    from napari_gaussfit import fit as fitted

    path = tmp_path / "alone.csv"
    fitted(small_beads.stack, SIX).export(path)
    viewer = make_napari_viewer_proxy()
    panel = open_panel(viewer)
    drop(panel, path)
    assert names(panel) == []
    assert "a table does not tell its stack" in panel.kept.part.words.text()


def test_a_result_outlives_the_layer_of_its_stack(panel: Any, wait_until: Wait) -> None:
    found = fit(panel, wait_until)
    panel.viewer.layers.clear()
    QTest.qWait(300)
    assert names(panel) == ["beads"]
    viewer = panel.viewer
    viewer.window.remove_dock_widget(panel)
    again = open_panel(viewer)
    QTest.qWait(300)
    assert again.fit is found
    assert again.table.model.rowCount() == 6
    assert len(viewer.layers) == 0, "layers that were deleted come back unasked"


def test_two_viewers_do_not_mix(
    make_napari_viewer_proxy: Any, small_beads: Phantom, wait_until: Wait
) -> None:
    panels = []
    for name in ("one", "other"):
        viewer = make_napari_viewer_proxy()
        add_stack(viewer, small_beads.stack, name)
        panels.append(open_panel(viewer))
    for panel in panels:
        wait_until(panel.run.buttons["Fit"].isEnabled)
        fit(panel, wait_until)
    assert [names(panel) for panel in panels] == [["one"], ["other"]]
    first, second = panels
    delete_point(first)
    assert not second.kept.session.undo.canUndo()
    second.kept.session.folder.settle()
    assert len(list(sessions_root().iterdir())) == 2
    second.viewer.close()
    QTest.qWait(200)
    assert len(list(sessions_root().iterdir())) == 1
    assert len(first.fit.field) == 5


CRASH = """
import os, signal, sys, time
import napari
from qtpy.compat import isalive
from qtpy.QtCore import QEvent, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QLineEdit
from napari_gaussfit._napari import worker
from napari_gaussfit._napari.worker import Phase
from napari_gaussfit.settings import FitSettings
from napari_gaussfit.synthetic.phantoms import beads
worker.PREPARE_MS = 10**8  # no processes for fits that are not asked for
viewer = napari.Viewer(show=False)
stack = beads(count=6, shape=(12, 40, 40)).stack
viewer.add_image(stack.voxels, name="beads", scale=stack.spacing, units=("um",) * 3)
_, panel = viewer.window.add_plugin_dock_widget("napari-gaussfit", "Gaussian fit")
def until(so):
    while not so():
        QTest.qWait(20)
until(panel.run.buttons["Fit"].isEnabled)
line = panel.findChild(QLineEdit, "gaussfit_psf")
QTest.keyClicks(line, "0.9,600,1.33")
QTest.keyClick(line, Qt.Key.Key_Return)
for count in (6, 4):
    panel.model.settings = FitSettings(exactly=True, gaussians=count, quality="preview")
    panel.run.buttons["Fit"].click()
    until(lambda: panel.worker.phase is Phase.FINISHED)
panel.kept.session.folder.settle()
panel.run.buttons["Measure"].click()
until(lambda: panel.phase is Phase.MEASURED)
panel.kept.session.folder.settle()
if sys.argv[1] == "killed":
    for child in __import__("psutil").Process().children(recursive=True):
        child.kill()
    os.kill(os.getpid(), signal.SIGKILL)
viewer.close()
QTest.qWait(200)
"""


def line_of_psf(panel: Any) -> Any:
    return panel.findChild(QLineEdit, "gaussfit_psf")


def error_bars(panel: Any) -> np.ndarray:
    """Return the error bars that the panel's table knows."""
    table = panel.table.model.table
    return table[["sd_z", "sd_amplitude", "sd_fwhm_1", "sd_object_fwhm_1"]].to_numpy(float)


PSF = "0.9,600,1.33"


def test_error_bars_and_a_typed_psf_are_there_when_the_panel_is_opened_again(
    panel: Any, wait_until: Wait
) -> None:
    QTest.keyClicks(line_of_psf(panel), PSF)
    QTest.keyClick(line_of_psf(panel), Qt.Key.Key_Return)
    wait_until(panel.run.buttons["Fit"].isEnabled)
    fit(panel, wait_until)
    click(panel.run.buttons["Measure"])
    wait_until(lambda: panel.phase is Phase.MEASURED, 120)
    before, measured = error_bars(panel), panel.fit
    assert np.isfinite(before).all()
    viewer = panel.viewer
    viewer.window.remove_dock_widget(panel)
    again = open_panel(viewer)
    assert line_of_psf(again).text() == PSF
    assert again.model.psf == measured.psf
    assert again.fit is measured
    assert again.phase is Phase.MEASURED
    np.testing.assert_array_equal(error_bars(again), before)
    assert state(again).startswith("Measured: ")


@pytest.mark.skipif(os.name == "nt", reason="Windows knows no such signal")
@pytest.mark.parametrize("way", ["killed", "closed"])
def test_what_a_crash_has_left_is_offered_and_what_was_closed_is_not(
    make_napari_viewer_proxy: Any, small_beads: Phantom, wait_until: Wait, way: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CRASH, way], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == (-signal.SIGKILL if way == "killed" else 0), done.stderr
    viewer = make_napari_viewer_proxy()
    add_stack(viewer, small_beads.stack)
    panel = open_panel(viewer)
    if way == "closed":
        assert panel.kept.bar.isHidden()
        assert not list(sessions_root().iterdir())
        return
    offered = panel.findChild(QLabel, "gaussfit_left_over").text()
    assert offered.startswith("2 results from ")
    assert offered.endswith("were not closed properly.")
    click(panel.kept.bar.restore)
    assert panel.kept.bar.isHidden()
    assert names(panel) == ["beads", "beads 2"]
    assert len(panel.fit.field) == 4
    assert panel.phase is Phase.MEASURED
    assert np.isfinite(error_bars(panel)).all()
    assert line_of_psf(panel).text() == PSF
    assert panel.model.psf == panel.fit.psf
    wait_until(panel.run.buttons["Refine"].isEnabled)
    # They are kept for the next crash now, in the folder of this window alone.
    panel.kept.session.folder.settle()
    assert len(list(sessions_root().iterdir())) == 1


def test_what_is_discarded_is_gone(make_napari_viewer_proxy: Any) -> None:
    from napari_gaussfit.jobs.session_folder import About, SessionFolder
    from saved_fits import some_fit

    folder = SessionFolder(pytest.fail)
    folder.keep("one", [some_fit()], About("one", "2026-03-01T09:15:00+01:00"))
    folder.settle()
    assert folder._lock is not None
    folder._lock.release()  # as a process that is killed
    panel = open_panel(make_napari_viewer_proxy())
    assert not panel.kept.bar.isHidden()
    click(panel.kept.bar.discard)
    assert panel.kept.bar.isHidden()
    assert not list(sessions_root().iterdir())


def test_a_session_ends_in_order_also_when_qt_has_gone_before(panel: Any, wait_until: Wait) -> None:
    fit(panel, wait_until, SIX)
    session = panel.kept.session
    session.folder.settle()
    assert list(sessions_root().iterdir())
    panel.viewer.window.remove_dock_widget(panel)
    session.deleteLater()
    QApplication.sendPostedEvents(session, QEvent.Type.DeferredDelete)
    assert not isalive(session)
    session.end()
    assert not list(sessions_root().iterdir()), "nothing is offered after what was no crash"
