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
