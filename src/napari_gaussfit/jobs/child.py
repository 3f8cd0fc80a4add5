"""The process that fits: a stack comes in, snapshots go out, requests are heeded.

Run as ``python -m napari_gaussfit.jobs.child`` by `process.ProcessJob`, and by `renderer.Renderer`,
whose questions it answers. When napari is gone its pipe closes, and the process ends with it.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import IO, TYPE_CHECKING

from napari_gaussfit.errors import FitError
from napari_gaussfit.jobs.encoding import (
    comparison_message,
    mips_message,
    result_message,
    snapshot_message,
    task_from,
)
from napari_gaussfit.jobs.job import SETTLE_SECONDS, load_torch, result_of
from napari_gaussfit.jobs.messages import Message, receive, send
from napari_gaussfit.jobs.pictures import MipThread, ViewChoice

if TYPE_CHECKING:
    from types import TracebackType

    from napari_gaussfit.fitting.fit import Fit

SWITCH_SECONDS = 0.001
"""After which a Python thread hands over to another that waits."""


class Outbox:
    """Sends messages from several threads, one after another."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._lock = stream, threading.Lock()

    def send(self, message: Message) -> None:
        """Send a message whole."""
        with self._lock:
            send(self._stream, message)


def main() -> None:
    """Fit, or answer, what is asked for on the standard input."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The thread that draws must not keep the one that fits waiting for long.
    sys.setswitchinterval(SWITCH_SECONDS)
    inbox = os.fdopen(os.dup(0), "rb", buffering=0)
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
    asked = receive(inbox)
    if asked.kind == "fit":
        _fit(asked, inbox, outbox)
    else:
        _answer(asked, inbox, outbox)


def _answer(asked: Message, inbox: IO[bytes], outbox: Outbox) -> None:
    from napari_gaussfit.jobs.renderer import Answers

    answers = Answers(outbox.send)
    while True:
        outbox.send(answers.to(asked))
        try:
            asked = receive(inbox)
        except EOFError:
            return  # Nobody asks any more.


def _fit(asked: Message, inbox: IO[bytes], outbox: Outbox) -> None:
    from napari_gaussfit._kernels.compiled import kernels_are_compiled
    from napari_gaussfit.fitting.fit import Fit

    if not kernels_are_compiled():
        outbox.send(Message("notice", {"text": "compiling, once: this takes half a minute"}))
    task = task_from(asked)
    fit = Fit(task.stack, task.settings, start=task.start, points=task.points)
    mips = MipThread(task.stack, lambda pair: outbox.send(mips_message(pair)))
    mips.look(task.view)
    threading.Thread(target=_listen, args=(inbox, fit, mips), daemon=True).start()
    rows = 0
    for snapshot in fit:
        outbox.send(snapshot_message(snapshot, fit.history, rows))
        rows = len(fit.history["iteration"])
        mips.show(snapshot.field)
    comparison = fit.comparison()
    if comparison is not None:
        outbox.send(comparison_message(comparison))
    result = result_of(fit)
    if result is not None:
        outbox.send(result_message(result))
    mips.settle(SETTLE_SECONDS)
    mips.close()
    mips.join(1.0)
    outbox.send(Message("end"))


def _listen(inbox: IO[bytes], fit: Fit, mips: MipThread) -> None:
    requests = {"pause": fit.pause, "resume": fit.resume, "cancel": fit.cancel}
    while True:
        try:
            message = receive(inbox)
        except (EOFError, OSError):
            os._exit(1)
        if message.kind == "look":
            mips.look(ViewChoice(**message.words))
        else:
            requests[message.kind]()


if __name__ == "__main__":
    main()
