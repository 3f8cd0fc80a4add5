"""A job that runs in a thread while a test watches it."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from napari_gaussfit.errors import FitError

if TYPE_CHECKING:
    from collections.abc import Callable


class Run:
    """A job in a thread, and how it ended."""

    def __init__(self, job: Any) -> None:
        self.job, self.error = job, ""
        self.began, self.started = time.monotonic(), 0.0
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.job()
        except FitError as error:
            self.error = str(error)

    def wait_for(self, is_so: Callable[[], bool], seconds: float = 120) -> None:
        deadline = time.monotonic() + seconds
        while not is_so():
            assert time.monotonic() < deadline, f"still not so after {seconds} s: {self.error}"
            assert self.thread.is_alive() or is_so(), f"ended: {self.error}"
            time.sleep(0.01)

    def running(self) -> bool:
        found = self.job.news.snapshot
        runs = found is not None and found.iteration > 0
        if runs and not self.started:
            self.started = time.monotonic() - self.began
        return runs

    def patience(self) -> float:
        """A second; where the machine is so busy that the start took long, half as long as that."""
        return max(1.0, self.started / 2)

    def join(self) -> None:
        self.thread.join(120)
        assert not self.thread.is_alive()
