"""A fit in a process of its own, as a job that a thread waits for."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import napari_gaussfit
from napari_gaussfit.errors import FitError
from napari_gaussfit.fitting.snapshot import FinishReason, FitState
from napari_gaussfit.jobs.encoding import (
    comparison_from,
    mips_from,
    result_from,
    snapshot_from,
    task_message,
)
from napari_gaussfit.jobs.job import News, described, mark_end
from napari_gaussfit.jobs.messages import Message, receive, send

if TYPE_CHECKING:
    from napari_gaussfit.jobs.job import FitTask
    from napari_gaussfit.jobs.pictures import ViewChoice

__all__ = ["ProcessJob"]

STOP_GRACE = 0.5
"""Seconds that a process has to end by itself once asked to; then it is ended."""

ERROR_TAIL = 2000
"""Bytes of what a process wrote before it died that are looked at."""


class ProcessJob:
    """A fit in a process of its own, which ends with the job, or with napari."""

    def __init__(self, task: FitTask) -> None:
        self.news = News()
        self._name = described(task)
        self._task: FitTask | None = task
        self._refines = task.settings.refine
        self._process: subprocess.Popen[bytes] | None = None
        self._send_lock = threading.Lock()
        self._ended = self._cancelled = self._closed = False
        self._failure = ""

    def __str__(self) -> str:
        """Say what is done, for napari's list of tasks."""
        return self._name

    @property
    def pid(self) -> int | None:
        """The process's number, None before it is started."""
        return self._process.pid if self._process else None

    def __call__(self) -> None:
        """Run until the end; see `Job`."""
        with tempfile.TemporaryFile() as errors:
            self._start(errors)
            try:
                self._listen()
            finally:
                code = self._reap()
            if self._cancelled or self._closed:
                mark_end(self.news, FitState.CANCELLED, FinishReason.CANCELLED)
            elif self._failure or not self._ended:
                mark_end(self.news, FitState.FAILED, FinishReason.ERROR)
                raise FitError(self._failure or _obituary(self._kept(), code, errors))

    def _kept(self) -> str:
        if self._refines:
            return "the Gaussians that it went on from are kept"
        if self.news.snapshot is None:
            return "nothing was found yet; try again, with a smaller region if memory is short"
        return "the last Gaussians are kept, and Refine goes on from them"

    def _start(self, errors: IO[bytes]) -> None:
        with self._send_lock:
            if self._closed:
                return
            self._process = start_child(errors)
        if self._task is not None:
            self._send(task_message(self._task))
            self._task = None

    def _listen(self) -> None:
        if self._process is None or self._process.stdout is None:
            return
        while not self._ended:
            try:
                self._take(receive(self._process.stdout))
            except (EOFError, OSError):
                return

    def _take(self, message: Message) -> None:
        if message.kind == "snapshot":
            snapshot, rows = snapshot_from(message)
            for key, values in rows.items():
                self.news.history[key].extend(values)
            self.news.snapshot = snapshot
        elif message.kind == "mips":
            self.news.take_mips(mips_from(message))
        elif message.kind == "result":
            self.news.result = result_from(message)
        elif message.kind == "comparison":
            self.news.comparison = comparison_from(message)
        elif message.kind == "notice":
            self.news.notice = message.words["text"]
        elif message.kind == "error":
            self._failure = message.words["message"]
        elif message.kind == "end":
            self._ended = True

    def _reap(self) -> int:
        """Wait for the process's end, helping it along where it takes its time."""
        process = self._process
        if process is None:
            return 0
        try:
            code = process.wait(STOP_GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        with self._send_lock:
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    _close_quietly(stream)
        return code

    def _send(self, message: Message) -> None:
        with self._send_lock:
            if self._process is None or self._process.stdin is None or self._process.stdin.closed:
                return
            try:
                send(self._process.stdin, message)
            except OSError:
                return  # It is dead; who listens to it finds out and says so.

    def _ask(self, kind: str, words: dict[str, Any] | None = None) -> None:
        self._send(Message(kind, words or {}))

    def pause(self) -> None:
        """Ask to stand still."""
        self._ask("pause")

    def resume(self) -> None:
        """Ask to go on."""
        self._ask("resume")

    def cancel(self) -> None:
        """Ask to end with the Gaussians as they are; after a short grace, see to it.

        A fit that has done its steps already is let finish: only its report is still to come.
        """
        self._cancelled = True
        self._ask("cancel")
        grace = threading.Timer(STOP_GRACE, self._kill_unless_finished)
        grace.daemon = True
        grace.start()

    def look(self, view: ViewChoice) -> None:
        """Ask for projections of another view."""
        self._ask("look", view.to_dict())

    def close(self) -> None:
        """End the process at once."""
        self._closed = True
        self._kill()

    def _kill_unless_finished(self) -> None:
        snapshot = self.news.snapshot
        if snapshot is None or snapshot.state is not FitState.FINISHED:
            self._kill()

    def _kill(self) -> None:
        process = self._process
        if process is not None and process.poll() is None:
            process.kill()


def start_child(errors: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start the process of `child`, with pipes for messages; what it prints goes to a file."""
    # Not multiprocessing's spawn: that runs the user's script anew, viewer and all,
    # where it has no `if __name__ == "__main__"`. -P: no module is taken from the working folder.
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "napari_gaussfit.jobs.child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(_search_path())},
        creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
    )


def _search_path() -> list[str]:
    """Return where napari looks for modules, without the working folder if nobody asked for it."""
    asked = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    here, package = Path.cwd(), str(Path(napari_gaussfit.__file__).parents[1])
    wanted = any(Path(path).absolute() == here for path in asked if path)
    kept = [path for path in sys.path if path and (wanted or Path(path) != here)]
    return kept if package in kept else [*kept, package]


def _obituary(kept: str, code: int, errors: IO[bytes]) -> str:
    """Say how a process died, with the last line that it wrote, and what is kept."""
    return f"the process of the fit {how_it_ended(code, errors)}; {kept}"


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


def _close_quietly(stream: IO[bytes]) -> None:
    try:
        stream.close()
    except OSError:
        return  # What was not yet sent has no reader any more.
