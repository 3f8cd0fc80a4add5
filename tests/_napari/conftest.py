"""Waiting, while the window lives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable


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
