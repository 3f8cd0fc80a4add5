"""A task in a process of its own, whose messages come to the window one by one."""

from __future__ import annotations

import tempfile
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, Signal

from napari_gaussfit._napari.layers.destroyed import when_destroyed
from napari_gaussfit.jobs.children import how_it_ended, start_child
from napari_gaussfit.jobs.messages import Message, receive, send

if TYPE_CHECKING:
    import subprocess

__all__ = ["ChildRun"]


class ChildRun(QObject):
    """One task in a process of its own. Lives in the GUI's thread.

    Parameters
    ----------
    module : str
        Of `jobs`, whose process it is. A message "end" says that all was said.
    task : Message
        What is asked for.
    words : str
        What the process is called where it dies.
    parent : QObject
        With it the process ends.
    """

    told = Signal(object)
    """A message of the process."""

    ended = Signal(str)
    """It is over; why, if it should not be."""

    def __init__(self, module: str, task: Message, words: str, parent: QObject) -> None:
        super().__init__(parent)
        self._words = words
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = start_child(self._errors, module)
        self._send(task)
        process = self._process
        when_destroyed(self, lambda: _kill(process))
        threading.Thread(target=self._listen, name=module, daemon=True).start()

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def stop(self) -> None:
        """Ask it to end."""
        self._send(Message("stop"))

    def kill(self) -> None:
        """End it at once."""
        _kill(self._process)

    def _send(self, message: Message) -> None:
        with suppress(OSError):  # who listens to it finds out that it is dead
            if self._process.stdin is not None:
                send(self._process.stdin, message)

    def _listen(self) -> None:
        process, why, whole = self._process, "", False
        while process.stdout is not None and not whole:
            try:
                message = receive(process.stdout)
            except (EOFError, OSError):
                break
            whole = message.kind == "end"
            if message.kind == "error":
                why = message.words["message"]
            else:
                self._emit("told", message)
        code = process.wait()
        if not whole:
            why = f"the process of the {self._words} {how_it_ended(code, self._errors)}"
        for stream in (process.stdin, process.stdout, self._errors):
            if stream is not None:
                stream.close()
        self._emit("ended", why)

    def _emit(self, signal: str, value: object) -> None:
        with suppress(RuntimeError):  # the window is gone, and its signals with it
            getattr(self, signal).emit(value)


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.kill()
