"""The process that draws: what pictures are of comes in, the bytes of PNG files go out.

Run as ``python -m napari_gaussfit.jobs.drawing_child`` by `drawing.Drawer`. When whoever started it
is gone its pipe closes, and the process ends with it. It writes no file.
"""

from __future__ import annotations

import gc
import os
import signal
from importlib import import_module
from typing import TYPE_CHECKING

import numpy as np

from napari_gaussfit.jobs.drawings import drawn, sketched
from napari_gaussfit.jobs.kept_memory import keep_freed_memory
from napari_gaussfit.jobs.messages import Message, receive, send

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["main"]

LOADED = (
    *("measure.photon_transfer", "plots.comparisons"),
    *(f"plots.{name}" for name in ("history", "photon_transfer", "projections", "saving", "spots")),
)
"""What drawing needs, loaded before it is asked for."""

COLLECTED_AFTER = 100_000
"""Objects that come before Python looks which of them are reached in circles alone: what is
imported stays, which is never looked through again, and a picture is some tens of thousands."""


def main() -> None:
    """Draw what is asked for on the standard input."""
    # Ctrl+C is for whoever asks, and ends this process with it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.set_threshold(COLLECTED_AFTER)
    keep_freed_memory()
    inbox, outbox = os.fdopen(os.dup(0), "rb", buffering=0), os.fdopen(os.dup(1), "wb")
    # What libraries print goes to the errors, not among the messages.
    os.dup2(2, 1)
    for name in LOADED:
        import_module(f"napari_gaussfit.{name}")
    gc.freeze()
    table = _Table()
    try:
        while True:
            send(outbox, table.answer(receive(inbox)))
    except (EOFError, OSError):
        # Nobody asks any more; what is still held back for them is not waited for.
        os._exit(0)


class _Table:
    """Where pictures are drawn, and one may lie that has no title yet."""

    def __init__(self) -> None:
        self._sketch: Callable[[str], bytes] | None = None

    def answer(self, asked: Message) -> Message:
        try:
            if asked.kind == "sketch":
                self._sketch = None  # should this fail, none is given the title
                self._sketch = sketched(asked)
                return Message("sketched")
            png = self._finished(asked) if asked.kind == "title" else drawn(asked)
            return Message("png", {}, {"png": np.frombuffer(png, np.uint8)})
        except Exception as error:  # noqa: BLE001 - told, and raised where it is drawn again
            return Message("error", {"text": f"{type(error).__name__}: {error}"})

    def _finished(self, asked: Message) -> bytes:
        sketch, self._sketch = self._sketch, None
        if sketch is None:
            raise LookupError("no picture waits for a title")
        return sketch(asked.words["title"])


if __name__ == "__main__":
    main()
