"""The processes of a window: how one is started, and one that fits a task after another."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import IO

import napari_gaussfit
from napari_gaussfit.jobs.messages import Message, receive, send

__all__ = ["Fitter", "how_it_ended", "start_child"]

ENDING = 0.5
"""Seconds that a process has to end by itself; then it is ended."""

ERROR_TAIL = 2000
"""Bytes of what a process wrote before it died that are looked at."""


class Fitter:
    """A process that fits one task after another, and ends with napari, or when it is closed.

    What it says waits until somebody listens: a fit that begins while the process is being
    prepared hears what there is to wait for.
    """

    def __init__(self) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = start_child(self._errors)
        self._said: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._sending, self._closing = threading.Lock(), threading.Lock()
        self._preparing, self._notice, self._how = False, "", ""
        self._reader = threading.Thread(target=self._read, name="fitter", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it takes another task."""
        return self._process.poll() is None

    @property
    def preparing(self) -> bool:
        """Whether it loads, or compiles, what a fit needs."""
        return self._preparing and self.alive

    @property
    def notice(self) -> str:
        """What there is to wait for while it prepares itself."""
        return self._notice if self.preparing else ""

    def prepare(self) -> None:
        """Have it load what a fit needs, before there is one."""
        self._preparing = True
        self.send(Message("prepare"))

    def send(self, message: Message) -> None:
        """Send a message whole; where the process is dead, who listens to it finds out."""
        stream = self._process.stdin
        with self._sending:
            if stream is None or stream.closed:
                return
            try:
                send(stream, message)
            except OSError:
                return

    def receive(self) -> Message:
        """Wait for what it says next.

        Raises
        ------
        EOFError
            If it is dead, and has said all that it had to say.
        """
        message = self._said.get()
        if message is None:
            self._said.put(None)
            raise EOFError
        return message

    def kill(self) -> None:
        """End it at once."""
        if self.alive:
            self._process.kill()

    def end(self) -> None:
        """End it at once, and let go of all that it held."""
        self.kill()
        self.close()

    def close(self) -> str:
        """End it, gently where it is at rest, and say how it ended, for one that should not."""
        with self._closing:
            return self._how or self._close()

    def _close(self) -> str:
        with self._sending:
            _close_quietly(self._process.stdin)
        try:
            code = self._process.wait(ENDING)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._reader.join()
        _close_quietly(self._process.stdout)
        self._how = how_it_ended(code, self._errors)
        self._errors.close()
        return self._how

    def _read(self) -> None:
        stream = self._process.stdout
        while stream is not None:
            try:
                message = receive(stream)
            except (EOFError, OSError):
                break
            if message.kind == "notice":
                self._notice = message.words["text"]
            elif message.kind == "ready":
                self._preparing = False
            self._said.put(message)
        self._said.put(None)


def start_child(errors: IO[bytes], module: str = "child") -> subprocess.Popen[bytes]:
    """Start the process of a module, with pipes for messages; what it prints goes to a file."""
    # Not multiprocessing's spawn: that runs the user's script anew, viewer and all,
    # where it has no `if __name__ == "__main__"`. -P: no module is taken from the working folder.
    return subprocess.Popen(
        [sys.executable, "-P", "-m", f"napari_gaussfit.jobs.{module}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(_search_path())},
        # Linux shares the cores among sessions first: what fits takes none from what is watched.
        start_new_session=True,
        creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
    )


def _search_path() -> list[str]:
    """Return where napari looks for modules, without the working folder if nobody asked for it."""
    asked = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    here, package = Path.cwd(), str(Path(napari_gaussfit.__file__).parents[1])
    wanted = any(Path(path).absolute() == here for path in asked if path)
    kept = [path for path in sys.path if path and (wanted or Path(path) != here)]
    return kept if package in kept else [*kept, package]


def how_it_ended(code: int, errors: IO[bytes]) -> str:
    """Say how a process ended that should not have, with the last line that it wrote."""
    if code == -9:
        how = "was killed, perhaps because memory ran out"
    elif code < 0:
        how = f"crashed (signal {-code})"
    else:
        how = f"ended unexpectedly (code {code})"
    errors.seek(0, os.SEEK_END)
    errors.seek(max(0, errors.tell() - ERROR_TAIL))
    lines = errors.read().decode(errors="replace").strip().splitlines()
    return how + (f': "{lines[-1].strip()}"' if lines else "")


def _close_quietly(stream: IO[bytes] | None) -> None:
    if stream is None:
        return
    try:
        stream.close()
    except OSError:
        return  # What was not yet sent has no reader any more.
