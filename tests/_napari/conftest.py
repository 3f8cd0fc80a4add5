"""Waiting, while the window lives, and not for garbage that is none."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MANY = 100_000
"""Objects to look through for garbage: a window of ours has a quarter of them."""


@pytest.fixture
def wait_until(qtbot: Any) -> Callable[..., None]:
    """Let the window live until something is so."""

    def wait(is_so: Callable[[], bool], seconds: float = 60) -> None:
        qtbot.waitUntil(is_so, timeout=int(1000 * seconds))

    return wait


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
