"""Who draws the pictures of a command: a process that starts with it, and ends with it."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_gaussfit.jobs.drawing import Drawer

__all__ = ["drawing", "drawing_apart"]

_APART: ContextVar[bool] = ContextVar("apart", default=False)
_DRAWER: ContextVar[Drawer | None] = ContextVar("drawer", default=None)


@contextmanager
def drawing_apart() -> Iterator[None]:
    """Let commands meanwhile have their pictures drawn by a process: this one does nothing else.

    A program that calls commands draws them itself: it has most of what drawing loads, or keeps it
    for the next.
    """
    token = _APART.set(True)
    try:
        yield
    finally:
        _APART.reset(token)


@contextmanager
def drawing() -> Iterator[Drawer | None]:
    """Have a process that draws meanwhile; within a command within a command it is the same.

    To be begun before torch is loaded, which takes as long as the process takes to be ready.

    Yields
    ------
    Drawer or None
        Whom a folder of a fit, or of spots, is given; None where pictures are drawn here.
    """
    from napari_gaussfit.jobs.drawing import Drawer

    there = _DRAWER.get()
    if there is not None or not _APART.get():
        yield there
        return
    with Drawer() as drawer:
        token = _DRAWER.set(drawer)
        try:
            yield drawer
        finally:
            _DRAWER.reset(token)
