"""The process that fits: a stack comes in, snapshots go out, requests are heeded.

Run as ``python -m napari_gaussfit.jobs.child`` by `children.Fitter`, for one fit after another, and
by `renderer.Renderer`, whose questions it answers. When napari is gone its pipe closes, and the
process ends with it.
"""

from __future__ import annotations

import gc
import os
import queue
import signal
import sys
import threading
import time
from typing import IO, TYPE_CHECKING, NamedTuple

from napari_gaussfit.errors import FitError
from napari_gaussfit.fitting.snapshot import FitState
from napari_gaussfit.jobs.encoding import (
    comparison_message,
    descent_message,
    mips_message,
    result_message,
    snapshot_message,
    task_from,
)
from napari_gaussfit.jobs.job import SETTLE_SECONDS, descent_of, fit_of, load_torch, result_of
from napari_gaussfit.jobs.messages import Message, receive, send
from napari_gaussfit.jobs.pictures import MipPair, MipThread, ViewChoice

if TYPE_CHECKING:
    from types import TracebackType

    from napari_gaussfit.fitting.fit import Fit
    from napari_gaussfit.jobs.renderer import Answers

    Requests = queue.SimpleQueue[Message | None]

SWITCH_SECONDS = 0.001
"""After which a Python thread hands over to another that waits."""

REQUESTS = {"pause", "resume", "cancel", "look"}
"""What is asked of a fit while it goes on."""

SNAPSHOT_SECONDS = 0.1
"""Between two snapshots of a fit that runs: the window shows five or six a second."""

PREPARED_SHAPE = 12, 32, 32
"""Voxels of what is fitted to load all that a fit needs."""

PREPARED_STEPS = 60
"""Steps of that fit: relocation and the search for more Gaussians have had their turn then."""


class Outbox:
    """Sends messages from several threads, one after another."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._lock = stream, threading.Lock()

    def send(self, message: Message) -> None:
        """Send a message whole."""
        with self._lock:
            send(self._stream, message)


class Asked(NamedTuple):
    """A task or a question, and what is asked while it is worked on."""

    message: Message
    requests: Requests


class Inbox:
    """Reads messages in a thread of its own: what cannot wait goes to whom it concerns.

    Parameters
    ----------
    stream : binary file
        Where they come from. When it is closed, nobody wants anything any more.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._busy = stream, False
        self._tasks: queue.SimpleQueue[Asked | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def next(self) -> Asked | None:
        """Wait for the next task or question; None when there will be none."""
        self._busy = False
        asked = self._tasks.get()
        self._busy = True
        return asked

    def _read(self) -> None:
        requests: Requests = queue.SimpleQueue()
        while True:
            try:
                message = receive(self._stream)
            except (EOFError, OSError):
                break
            if message.kind in REQUESTS:
                requests.put(message)
            else:
                requests = queue.SimpleQueue()
                self._tasks.put(Asked(message, requests))
        if self._busy:
            os._exit(1)
        self._tasks.put(None)


def main() -> None:
    """Fit, or answer, what is asked for on the standard input."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The thread that draws must not keep the one that fits waiting for long.
    sys.setswitchinterval(SWITCH_SECONDS)
    inbox = Inbox(os.fdopen(os.dup(0), "rb", buffering=0))
    outbox = Outbox(os.fdopen(os.dup(1), "wb"))
    # What libraries print goes to the errors, not among the messages.
    os.dup2(2, 1)

    def tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        said = str(error) if kind is FitError else f"{kind.__name__}: {error}"
        outbox.send(Message("error", {"message": said}))
        sys.__excepthook__(kind, error, trace)

    sys.excepthook = tell
    torch = load_torch(
        "on Windows, install the Microsoft Visual C++ redistributable; elsewhere, torch anew"
    )
    # In the thread that draws, too: torch's own threads spin where the kernels' want the cores.
    torch.set_num_threads(1)
    answers: Answers | None = None
    while (asked := inbox.next()) is not None:
        if asked.message.kind == "prepare":
            _prepare(outbox)
        elif asked.message.kind == "fit":
            _fit(asked, outbox)
            gc.collect()  # What a stack took is free before the next comes.
            torch.cuda.empty_cache()
        else:
            answers = answers or _answers(outbox)
            outbox.send(answers.to(asked.message))


def _answers(outbox: Outbox) -> Answers:
    from napari_gaussfit.jobs.renderer import Answers

    return Answers(outbox.send)


def _prepare(outbox: Outbox) -> None:
    """Load what a fit needs, by one that takes no time, and compile it where it has to be."""
    from napari_gaussfit.fitting.fit import Fit
    from napari_gaussfit.settings import FitSettings
    from napari_gaussfit.synthetic.phantoms import beads

    _say_if_compiling(outbox)
    stack = beads(shape=PREPARED_SHAPE, count=3).stack
    mips = MipThread([stack], lambda _pair: None)
    mips.look(ViewChoice())
    fit = Fit(stack, FitSettings(iterations=PREPARED_STEPS))
    for snapshot in fit:
        mips.show(snapshot.fields)
    fit.result()
    mips.settle(SETTLE_SECONDS)
    mips.close()
    outbox.send(Message("ready"))


def _say_if_compiling(outbox: Outbox) -> None:
    from napari_gaussfit._kernels.compiled import kernels_are_compiled

    if not kernels_are_compiled():
        outbox.send(Message("notice", {"text": "compiling, once: this takes half a minute"}))


def _fit(asked: Asked, outbox: Outbox) -> None:
    _say_if_compiling(outbox)
    task = task_from(asked.message)
    fit, drift = fit_of(task)
    over = threading.Event()

    def draw(pair: MipPair) -> None:
        if not over.is_set():
            outbox.send(mips_message(pair))

    mips = MipThread(task.stacks, draw)
    mips.look(task.view)
    threading.Thread(target=_heed, args=(asked.requests, fit, mips), daemon=True).start()
    rows, sent = 0, 0.0
    for snapshot in fit:
        now = time.monotonic()
        if snapshot.state is not FitState.RUNNING or now - sent >= SNAPSHOT_SECONDS:
            outbox.send(snapshot_message(snapshot, fit.history, rows))
            rows, sent = len(fit.history["iteration"]), now
        mips.show(snapshot.fields)
    comparison = fit.comparison()
    if comparison is not None:
        outbox.send(comparison_message(comparison))
    descent = descent_of(fit, drift)
    if descent is not None:
        outbox.send(descent_message(descent))
    result = result_of(fit)
    if result is not None:
        outbox.send(result_message(result))
    mips.settle(SETTLE_SECONDS)
    mips.close()
    mips.join(1.0)
    over.set()
    asked.requests.put(None)
    outbox.send(Message("end"))


def _heed(requests: Requests, fit: Fit, mips: MipThread) -> None:
    """Do what is asked of a fit while it goes on."""
    heeded = {"pause": fit.pause, "resume": fit.resume, "cancel": fit.cancel}
    while (message := requests.get()) is not None:
        if message.kind == "look":
            mips.look(ViewChoice(**message.words))
        else:
            heeded[message.kind]()


if __name__ == "__main__":
    main()
