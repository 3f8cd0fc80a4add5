"""The process that fits: a stack comes in, snapshots go out, requests are heeded.

Run as ``python -m napari_gaussfit.jobs.child`` by `process.ProcessJob`, and by `renderer.Renderer`,
whose questions it answers. When napari is gone its pipe closes, and the process ends with it.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from dataclasses import asdict
from typing import IO, TYPE_CHECKING

import numpy as np

from napari_gaussfit.errors import FitError
from napari_gaussfit.jobs.job import SETTLE_SECONDS, load_torch
from napari_gaussfit.jobs.messages import Message, receive, send
from napari_gaussfit.jobs.pictures import MipPair, MipThread, ViewChoice
from napari_gaussfit.model.field import GaussianField
from napari_gaussfit.model.gaussians import Gaussians

if TYPE_CHECKING:
    from types import TracebackType

    from napari_gaussfit.fitting.fit import Fit
    from napari_gaussfit.fitting.snapshot import Snapshot
    from napari_gaussfit.stacks.stack import Stack

SWITCH_SECONDS = 0.001
"""After which a Python thread hands over to another that waits."""

FIELD_ARRAYS = ("means", "cholesky", "amplitudes")


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

    answers = Answers()
    while True:
        outbox.send(answers.to(asked))
        try:
            asked = receive(inbox)
        except EOFError:
            return  # Nobody asks any more.


def _fit(asked: Message, inbox: IO[bytes], outbox: Outbox) -> None:
    from napari_gaussfit._kernels.compiled import kernels_are_compiled
    from napari_gaussfit.fitting.fit import Fit
    from napari_gaussfit.fitting.snapshot import FitState
    from napari_gaussfit.settings import FitSettings

    if not kernels_are_compiled():
        outbox.send(Message("notice", {"text": "compiling, once: this takes half a minute"}))
    stack = stack_from(asked)
    fit = Fit(
        stack,
        FitSettings.from_dict(asked.words["settings"]),
        start=field_from(asked, "start."),
        points=asked.arrays.get("points"),
    )
    mips = MipThread(stack, lambda pair: outbox.send(mips_message(pair)))
    mips.look(ViewChoice(**asked.words["view"]))
    threading.Thread(target=_listen, args=(inbox, fit, mips), daemon=True).start()
    rows = 0
    for snapshot in fit:
        outbox.send(snapshot_message(snapshot, fit.history, rows))
        rows = len(fit.history["iteration"])
        mips.show(snapshot.field)
    comparison = fit.comparison()
    if comparison is not None:
        outbox.send(Message("comparison", asdict(comparison)))
    if fit.state is FitState.FINISHED:
        outbox.send(Message("report", fit.result().report.to_dict()))
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


def stack_message(kind: str, stack: Stack) -> Message:
    """Return a message with a stack."""
    words = {"spacing": stack.spacing, "unit": stack.unit, "name": stack.name}
    return Message(kind, words, {"voxels": stack.voxels})


def stack_from(message: Message) -> Stack:
    """Return the stack that a message carries."""
    from napari_gaussfit.stacks.stack import Stack

    words = message.words
    dz, dy, dx = words["spacing"]
    return Stack(message.arrays["voxels"], (dz, dy, dx), words["unit"], words["name"])


def field_arrays(field: GaussianField, prefix: str = "") -> dict[str, np.ndarray]:
    """Return a field's arrays, under their names with a prefix."""
    return {prefix + name: getattr(field.numpy(), name) for name in FIELD_ARRAYS}


def field_from(message: Message, prefix: str = "") -> GaussianField | None:
    """Return the field that a message carries, None where it carries none."""
    if prefix + "means" not in message.arrays:
        return None
    means, cholesky, amplitudes = (message.arrays[prefix + name] for name in FIELD_ARRAYS)
    words = message.words[prefix + "field"]
    return GaussianField.from_numpy(Gaussians(means, cholesky, amplitudes, **words))


def field_words(field: GaussianField) -> dict[str, object]:
    """Return what a message says of a field beside its arrays."""
    return {name: getattr(field, name) for name in ("background", "unit", "full_covariance")}


def snapshot_message(snapshot: Snapshot, history: dict[str, list[float]], since: int) -> Message:
    """Return a snapshot, with the history's rows from `since` on."""
    words = {
        name: getattr(snapshot, name)
        for name in (
            "state",
            "iteration",
            "iterations",
            "seconds",
            "seconds_left",
            "loss",
            "held_out_psnr",
            "train_psnr",
            "voxel_psnr",
            "reason",
        )
    }
    rows = {key: values[since:] for key, values in history.items()}
    return Message(
        "snapshot",
        {"snapshot": words, "history": rows, "field": field_words(snapshot.field)},
        field_arrays(snapshot.field),
    )


def mips_message(pair: MipPair) -> Message:
    """Return the two projections of a view."""
    return Message(
        "mips",
        {"view": asdict(pair.view), "pixel": pair.pixel},
        {"data": pair.data, "fit": pair.fit},
    )


def mips_from(message: Message) -> MipPair:
    """Return the projections that a message carries."""
    down, along = message.words["pixel"]
    view = ViewChoice(**message.words["view"])
    return MipPair(view, (down, along), message.arrays["data"], message.arrays["fit"])


if __name__ == "__main__":
    main()
