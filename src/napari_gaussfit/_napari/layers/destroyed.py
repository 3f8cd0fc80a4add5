"""What is done when Qt destroys something, whichever way it comes to that."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from qtpy.QtCore import QObject

__all__ = ["when_destroyed"]

_TO_DO: set[Callable[..., None]] = set()


def when_destroyed(owner: QObject, do: Callable[[], object]) -> None:
    """Do something when Qt destroys an object: napari destroys its panels with the window, unasked.

    What is to be done is held here until then. Held by the object alone, it is garbage where the
    object is: Python's collector empties it first, and Qt's call of what is empty is a crash.

    Parameters
    ----------
    owner : QObject
        The object whose end is waited for.
    do : callable
        What is done then. It must not hold the owner, which would live for ever.
    """

    def run(_owner: QObject | None = None) -> None:
        if run in _TO_DO:
            _TO_DO.discard(run)
            do()

    _TO_DO.add(run)
    owner.destroyed.connect(run)
    # What Python owns goes without Qt's signal.
    weakref.finalize(owner, run)
