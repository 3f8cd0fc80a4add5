"""The process that fits: a stack comes in, snapshots go out, requests are heeded.

Run as ``python -m napari_gaussfit._napari.child`` by `process_job.ProcessJob`. Knows neither napari
nor Qt. When napari is gone its pipe closes, and the process ends with it.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from dataclasses import asdict
from typing import IO, TYPE_CHECKING

import numpy as np

from napari_gaussfit._napari.jobs import SETTLE_SECONDS
from napari_gaussfit._napari.messages import Message, receive, send
from napari_gaussfit._napari.mips import MipPair, MipThread, ViewChoice
from napari_gaussfit.field import GaussianField
from napari_gaussfit.gaussians import Gaussians

if TYPE_CHECKING:
    from types import TracebackType

    from napari_gaussfit.fitting import Fit, Snapshot
    from napari_gaussfit.stack import Stack

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
    """Fit what is asked for on the standard input."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The thread that draws must not keep the one that fits waiting for long.
    sys.setswitchinterval(SWITCH_SECONDS)
    inbox = os.fdopen(os.dup(0), "rb", buffering=0)
    outbox = Outbox(os.fdopen(os.dup(1), "wb"))
    # What libraries print goes to the errors, not among the messages.
    os.dup2(2, 1)

    def tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        outbox.send(Message("error", {"message": f"{kind.__name__}: {error}"}))
        sys.__excepthook__(kind, error, trace)

    sys.excepthook = tell
    _fit(inbox, outbox)


def _fit(inbox: IO[bytes], outbox: Outbox) -> None:
    import torch

    from napari_gaussfit.fitting import Fit, FitState
    from napari_gaussfit.running import kernels_are_compiled
    from napari_gaussfit.settings import FitSettings

    # In the thread that draws, too: torch's own threads spin where the kernels' want the cores.
    torch.set_num_threads(1)
    asked = receive(inbox)
    if not kernels_are_compiled():
        outbox.send(Message("notice", {"text": "compiling, once: this takes half a minute"}))
    stack = _stack(asked)
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


def _stack(asked: Message) -> Stack:
    from napari_gaussfit.stack import Stack

    dz, dy, dx = asked.words["spacing"]
    words = asked.words
    return Stack(asked.arrays["voxels"], (dz, dy, dx), words["unit"], words["name"])


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


if __name__ == "__main__":
    main()
