"""Waiting, while the window lives, and not for garbage that is none."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

import pytest

from by_hand import add_stack, open_panel
from napari_gaussfit.jobs.session_folder import ROOT_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from napari_gaussfit.synthetic.phantoms import Phantom

    Wait = Callable[..., None]

MANY = 100_000
"""Objects to look through for garbage: a window of ours has a quarter of them."""


@pytest.fixture
def wait_until(qtbot: Any) -> Callable[..., None]:
    """Let the window live until something is so."""

    def wait(is_so: Callable[[], bool], seconds: float = 60) -> None:
        qtbot.waitUntil(is_so, timeout=int(1000 * seconds))

    return wait


@pytest.fixture
def own_sessions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what is kept for after a crash where no other test finds it."""
    monkeypatch.setenv(ROOT_VARIABLE, str(tmp_path / "sessions"))


@pytest.fixture
def strict_qt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a widget that is left behind be a warning, and so an error."""
    monkeypatch.setenv("NAPARI_STRICT_QT", "1")


@pytest.fixture
def panel(make_napari_viewer_proxy: Any, small_beads: Phantom, wait_until: Wait) -> Any:
    """A panel beside six beads, ready to fit."""
    viewer = make_napari_viewer_proxy()
    add_stack(viewer, small_beads.stack)
    panel = open_panel(viewer)
    wait_until(panel.run.buttons["Fit"].isEnabled)
    return panel


@pytest.fixture(autouse=True)
def _prepared_in_no_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start no process for a fit that most tests never ask for; `test_prepared` has its own."""
    monkeypatch.setattr("napari_gaussfit._napari.worker.PREPARE_MS", 10**8)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """Let the collections that each window makes as it closes pass over what is loaded for good."""
    yield
    if "make_napari_viewer" in getattr(item, "fixturenames", ()) and len(gc.get_objects()) > MANY:
        gc.collect()
        gc.freeze()
