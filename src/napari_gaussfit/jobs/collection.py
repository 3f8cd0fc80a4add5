"""Python's search for garbage, kept from stalling a window that follows something live."""

from __future__ import annotations

import gc

__all__ = ["HeldCollection"]


class HeldCollection:
    """Spares the window the search of all napari for garbage, a quarter of a second each time.

    What is there when it is held is not searched until it is released; what comes later is.
    """

    def __init__(self) -> None:
        self._held = False

    def hold(self) -> None:
        """Search only what is made from now on."""
        if not self._held:
            gc.freeze()
            self._held = True

    def release(self) -> None:
        """Search everything again."""
        if self._held:
            gc.unfreeze()
            self._held = False
