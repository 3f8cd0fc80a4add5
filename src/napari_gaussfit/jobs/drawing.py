"""Pictures drawn in a process of their own, beside a fit: matplotlib is loaded there meanwhile."""

from __future__ import annotations

import logging
import subprocess
import tempfile
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from napari_gaussfit._threads import thread_count
from napari_gaussfit.jobs.children import how_it_ended, start_child
from napari_gaussfit.jobs.drawings import drawn, titled
from napari_gaussfit.jobs.messages import Message, receive, send

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future
    from types import TracebackType

__all__ = ["Drawer"]

_LOG = logging.getLogger(__name__)

ENDING = 0.5
"""Seconds that a process has to end by itself whose pipes are closed."""


class Drawer:
    """A process that draws one picture after another, from when it is asked to; used in a ``with``.

    Where one core is all there is, or the process cannot be had or fails, pictures are drawn here.
    It writes no file, and is ended at the end of the ``with``, whatever it does then.
    """

    def __init__(self) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self._process: subprocess.Popen[bytes] | None = None
        self._failed = False
        if thread_count() > 1:
            try:
                self._process = start_child(self._errors, "drawing_child")
            except OSError as error:
                _LOG.info("pictures are drawn here: %s", error)
        # Which waits in the place of whoever asks, also while the process reads no further.
        self._asking = ThreadPoolExecutor(1, thread_name_prefix="drawer")

    def __enter__(self) -> Drawer:
        """Ask within a block, at whose end the process ends."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the process."""
        self.end()

    def end(self) -> None:
        """End the process at once; what is still asked for is drawn here."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
        self._asking.shutdown(cancel_futures=True)
        if process is not None:
            process.communicate()
        self._errors.close()

    @property
    def pid(self) -> int | None:
        """The process's number; None where there is none."""
        return None if self._process is None else self._process.pid

    def begin(self, drawing: Message) -> Callable[[], bytes]:
        """Have a picture drawn.

        Parameters
        ----------
        drawing : Message
            One of `drawings`: what it is of.

        Returns
        -------
        callable
            Waits for the bytes of its PNG file and returns them; raises what drawing raises.
        """
        if self._process is None or self._failed:
            return partial(drawn, drawing)
        answer = self._asking.submit(_exchange, self._process, drawing)
        return partial(self._waited_for, answer, drawing)

    def begin_untitled(self, drawing: Message) -> Callable[[str], Callable[[], bytes]]:
        """Have a picture drawn whose title is not known yet.

        Parameters
        ----------
        drawing : Message
            Of `projections_drawing`. One at a time: the next one takes its place.

        Returns
        -------
        callable
            Has the title written, and returns what waits for the picture as `begin` does.
        """
        process = self._process
        if process is not None and not self._failed:
            self._asking.submit(_exchange, process, replace(drawing, kind="sketch"))

        def finish(title: str) -> Callable[[], bytes]:
            if self._process is None or self._process is not process or self._failed:
                return partial(drawn, titled(drawing, title))
            answer = self._asking.submit(_exchange, process, Message("title", {"title": title}))
            return partial(self._waited_for, answer, titled(drawing, title))

        return finish

    def _waited_for(self, answer: Future[Message], drawing: Message) -> bytes:
        try:
            message = answer.result()
        except (OSError, EOFError, CancelledError):
            self._give_up()
            return drawn(drawing)
        if message.kind == "error":
            _LOG.info("a picture is drawn here, after: %s", message.words["text"])
            return drawn(drawing)
        return message.arrays["png"].tobytes()

    def _give_up(self) -> None:
        """Ask the process no more, and say why in the log, once."""
        if self._failed or self._process is None:
            return
        self._failed = True
        try:
            code = self._process.wait(ENDING)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        how = how_it_ended(code, self._errors)
        _LOG.info("pictures are drawn here: the process that draws %s", how)


def _exchange(process: subprocess.Popen[bytes], drawing: Message) -> Message:
    if process.stdin is None or process.stdout is None:
        raise EOFError
    send(process.stdin, drawing)
    return receive(process.stdout)
