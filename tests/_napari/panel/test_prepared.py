"""The process of a fit is ready before Fit is pressed, and again after each fit."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

from by_hand import add_stack
from napari_gaussfit._napari.worker import Phase
from napari_gaussfit.jobs.children import Fitter
from napari_gaussfit.jobs.process import ProcessJob
from napari_gaussfit.settings import FitSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_gaussfit.synthetic.phantoms import Phantom

    Wait = Callable[..., None]

pytestmark = [
    pytest.mark.gui,
    pytest.mark.started,
    pytest.mark.usefixtures("nothing_left_behind"),
]

LONG = FitSettings(exactly=True, gaussians=40, quality="fine", iterations=1_000_000)
SHORT = FitSettings(exactly=True, gaussians=20, quality="preview")


def opened(viewer: Any, phantom: Phantom, wait_until: Wait) -> Any:
    """Open the panel beside a stack."""
    add_stack(viewer, phantom.stack)
    _, panel = viewer.window.add_plugin_dock_widget("napari-gaussfit", "Gaussian fit")
    wait_until(panel.run.buttons["Fit"].isEnabled)
    return panel


@pytest.fixture
def panel(
    monkeypatch: pytest.MonkeyPatch,
    make_napari_viewer_proxy: Any,
    small_beads: Phantom,
    wait_until: Wait,
) -> Any:
    """A panel whose process is ready."""
    monkeypatch.setattr("napari_gaussfit._napari.worker.PREPARE_MS", 0)
    panel = opened(make_napari_viewer_proxy(), small_beads, wait_until)
    wait_until(lambda: waiting(panel) is not None, 120)
    return panel


def waiting(panel: Any) -> int | None:
    """Return the number of the process that is ready for a task."""
    ready = [one.pid for one in panel.worker._fitters if one.alive and not one.preparing]
    return ready[0] if ready else None


def press(panel: Any, name: str) -> None:
    assert panel.run.buttons[name].isEnabled()
    QTest.mouseClick(panel.run.buttons[name], Qt.MouseButton.LeftButton)


def seconds_to_moving_centres(panel: Any, wait_until: Wait) -> float:
    """Press Fit, and say when the centres in the window had moved."""
    panel.model.settings = LONG
    began = time.monotonic()
    press(panel, "Fit")
    wait_until(lambda: panel.live is not None and panel.live.centres is not None)
    seeds = np.array(panel.live.centres.data)
    wait_until(lambda: not np.array_equal(panel.live.centres.data, seeds))
    return time.monotonic() - began


def test_centres_move_in_a_fraction_of_the_time_where_the_process_is_ready(
    panel: Any, small_beads: Phantom, wait_until: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = waiting(panel)
    ready = seconds_to_moving_centres(panel, wait_until)
    assert isinstance(panel.worker.job, ProcessJob)
    assert panel.worker.job.pid == pid
    panel.viewer.window.remove_dock_widget(panel)

    monkeypatch.setattr("napari_gaussfit._napari.worker.PREPARE_MS", 10**8)
    other = opened(panel.viewer, small_beads, wait_until)
    cold = seconds_to_moving_centres(other, wait_until)
    assert ready < cold / 2, f"{ready:.2f} s, and {cold:.2f} s without"


def test_after_a_fit_and_after_stop_the_same_process_is_ready(panel: Any, wait_until: Wait) -> None:
    pid = waiting(panel)
    panel.model.settings = SHORT
    press(panel, "Fit")
    wait_until(lambda: panel.worker.phase is Phase.FINISHED)
    assert waiting(panel) == pid
    panel.model.settings = LONG
    press(panel, "Fit")
    wait_until(lambda: panel.worker.phase is Phase.RUNNING)
    press(panel, "Stop")
    wait_until(lambda: panel.worker.phase is Phase.CANCELLED)
    press(panel, "Fit")
    wait_until(lambda: panel.worker.phase is Phase.RUNNING)
    assert panel.worker.news.snapshot is not None


def test_a_process_that_dies_at_rest_costs_nothing_but_time(panel: Any, wait_until: Wait) -> None:
    pid = waiting(panel)
    assert pid is not None
    os.kill(pid, signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
    wait_until(lambda: waiting(panel) is None)
    panel.model.settings = SHORT
    press(panel, "Fit")
    wait_until(lambda: panel.worker.phase is Phase.FINISHED)
    wait_until(lambda: waiting(panel) is not None, 120)
    assert waiting(panel) != pid


def test_the_panel_says_what_there_is_to_wait_for(
    make_napari_viewer_proxy: Any,
    small_beads: Phantom,
    wait_until: Wait,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = "compiling, once: this takes half a minute"
    state = "Idle: " + words
    monkeypatch.setattr("napari_gaussfit._napari.worker.PREPARE_MS", 0)
    monkeypatch.setattr(Fitter, "notice", words)
    panel = opened(make_napari_viewer_proxy(), small_beads, wait_until)
    wait_until(lambda: panel.run._state.text() == state)
    monkeypatch.setattr(Fitter, "notice", "")
    wait_until(lambda: panel.run._state.text() == "Idle")
