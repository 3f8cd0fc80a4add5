"""A fit in a process of its own, as a job that a thread waits for."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from napari_gaussfit.errors import FitError
from napari_gaussfit.fitting.snapshot import FinishReason, FitState
from napari_gaussfit.jobs.children import Fitter
from napari_gaussfit.jobs.encoding import (
    comparison_from,
    descent_from,
    mips_from,
    result_from,
    snapshot_from,
    task_message,
)
from napari_gaussfit.jobs.job import News, described, mark_end
from napari_gaussfit.jobs.messages import Message

if TYPE_CHECKING:
    from napari_gaussfit.jobs.job import FitTask
    from napari_gaussfit.jobs.pictures import ViewChoice

__all__ = ["ProcessJob"]

STOP_GRACE = 0.5
"""Seconds that a process has to end by itself once asked to; then it is ended."""


class ProcessJob:
    """A fit in a process of its own.

    Parameters
    ----------
    task : FitTask
        What is to be fitted, from which stack.
    fitter : Fitter, optional
        A process that waits for a task, and for another after this one. Without it the job starts
        one, which ends with the job.
    news : News, optional
        What to keep up to date; one of its own if None.
    """

    def __init__(
        self, task: FitTask, fitter: Fitter | None = None, news: News | None = None
    ) -> None:
        self.news = news or News()
        self._name = described(task)
        self._task: FitTask | None = task
        self._refines = task.settings.refine
        self._fitter, self._owned = fitter, fitter is None
        self._begins = threading.Lock()
        self._ended = self._cancelled = self._closed = False
        self._failure = ""

    def __str__(self) -> str:
        """Say what is done, for napari's list of tasks."""
        return self._name

    @property
    def pid(self) -> int | None:
        """The process's number, None before it is started."""
        return self._fitter.pid if self._fitter else None

    def __call__(self) -> None:
        """Run until the end; see `Job`."""
        fitter = self._begin()
        how = ""
        try:
            if fitter is not None:
                self._listen(fitter)
        finally:
            if fitter is not None and (self._owned or not self._ended):
                how = fitter.close()
        if self._cancelled or self._closed:
            mark_end(self.news, FitState.CANCELLED, FinishReason.CANCELLED)
        elif self._failure or not self._ended:
            mark_end(self.news, FitState.FAILED, FinishReason.ERROR)
            raise FitError(self._failure or f"the process of the fit {how}; {self._kept()}")

    def _kept(self) -> str:
        if self._refines:
            return "the Gaussians that it went on from are kept"
        if self.news.snapshot is None:
            return "nothing was found yet; try again, with a smaller region if memory is short"
        return "the last Gaussians are kept, and Refine goes on from them"

    def _begin(self) -> Fitter | None:
        """Send the task, unless the job was closed before it began."""
        with self._begins:
            if self._closed:
                return None
            self._fitter = fitter = self._fitter or Fitter()
        if self._task is not None:
            fitter.send(task_message(self._task))
            self._task = None
        return fitter

    def _listen(self, fitter: Fitter) -> None:
        while not self._ended:
            try:
                self._take(fitter.receive())
            except EOFError:
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
        elif message.kind == "descent":
            self.news.descent = descent_from(message)
        elif message.kind == "comparison":
            self.news.comparison = comparison_from(message)
        elif message.kind == "notice":
            self.news.notice = message.words["text"]
        elif message.kind == "ready":
            self.news.notice = ""
        elif message.kind == "error":
            self._failure = message.words["message"]
        elif message.kind == "end":
            self._ended = True

    def _ask(self, kind: str, words: dict[str, Any] | None = None) -> None:
        with self._begins:
            if self._fitter is not None:
                self._fitter.send(Message(kind, words or {}))

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
        with self._begins:
            self._closed = True
        self._kill()

    def _kill_unless_finished(self) -> None:
        snapshot = self.news.snapshot
        if self._ended:
            return
        if snapshot is None or snapshot.state is not FitState.FINISHED:
            self._kill()

    def _kill(self) -> None:
        if self._fitter is not None:
            self._fitter.kill()
