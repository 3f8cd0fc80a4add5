"""A small stack in a viewer, a panel from the plugin menu, and a look at what is left behind."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from napari_gaussfit.synthetic.phantoms import beads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari_gaussfit.synthetic.phantoms import Phantom


@pytest.fixture(scope="session")
def small_beads() -> Phantom:
    """Beads in a stack that fits in a moment."""
    return beads(count=6, shape=(12, 40, 40))


@pytest.fixture
def nothing_left_behind() -> Iterator[None]:
    """Fail if a process or a thread of a fit outlives the test."""
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    yield
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline and (_processes(before) or _threads()):
        time.sleep(0.05)
    assert not _processes(before), "a process is left behind"
    assert not _threads(), "a thread is left behind"


def _processes(before: set[int]) -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process().children(recursive=True)
        if child.pid not in before and child.status() != psutil.STATUS_ZOMBIE
    ]


def _threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name == "gaussfit-mips"]


@pytest.fixture
def wait_until(qtbot: Any) -> Callable[..., None]:
    """Let the window live until something is so."""

    def wait(is_so: Callable[[], bool], seconds: float = 60) -> None:
        qtbot.waitUntil(is_so, timeout=int(1000 * seconds))

    return wait
