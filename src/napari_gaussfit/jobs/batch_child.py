"""The process that fits a batch for a window: a task comes in, rows and progress go out.

Run as ``python -m napari_gaussfit.jobs.batch_child``. A message "stop", or a pipe that closes, ends
the batch after the step that is running; what is done is kept.
"""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_gaussfit.errors import GaussfitError, OutputError
from napari_gaussfit.jobs.batch import Batch, Item, Row, Stopped, figures_of, items_of
from napari_gaussfit.jobs.fit_folder import REPLACED, FitFolder, checked_folder, holds_fit
from napari_gaussfit.jobs.messages import Message, receive, send
from napari_gaussfit.jobs.overwriting import claimed, refuse_to_replace
from napari_gaussfit.settings import SETTINGS, FitSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_gaussfit.fitting.snapshot import Snapshot

__all__ = ["BatchTask", "asked_of", "fit_item"]


@dataclass(frozen=True)
class BatchTask:
    """Fits of many files.

    Parameters
    ----------
    files : list of str
        The paths of the stacks.
    out : str
        The folder of the batch.
    settings : dict
        Of each fit, `FitSettings.to_dict`.
    channel : int or None
        Which channel of each.
    resume : bool
        Whether what was done with these settings is kept.
    """

    files: list[str]
    out: str
    settings: dict[str, Any]
    channel: int | None = None
    resume: bool = False


def asked_of(task: BatchTask) -> dict[str, Any]:
    """Return what ``settings.toml`` says, as the command line would have written it.

    Parameters
    ----------
    task : BatchTask
        What is asked for.
    """
    asked = {name: task.settings[name] for name in SETTINGS if name != "refine"}
    if task.channel is not None:
        asked["channel"] = [task.channel]
    return asked | {"no_tiles": False}


def fit_item(
    item: Item,
    task: BatchTask,
    told: Callable[[Snapshot], None],
    stopped: Callable[[], bool],
    *,
    goes_on: bool,
) -> Row:
    """Fit a file into its folder.

    Parameters
    ----------
    item : Item
        The file, and its folder.
    task : BatchTask
        What is asked for.
    told : callable
        Called with each snapshot.
    stopped : callable
        Asked after each whether to stop.
    goes_on : bool
        Whether the folder holds a fit of these settings to go on from.

    Returns
    -------
    Row
        Its figures.

    Raises
    ------
    Stopped
        If it was stopped; what was found so far is in the folder.
    GaussfitError
        If it cannot be fitted, or not all be written.
    """
    from napari_gaussfit.fitting.fit import Fit
    from napari_gaussfit.stacks.stack import Stack

    refuse_to_replace([item.folder / name for name in REPLACED], inputs=[item.path], force=goes_on)
    stack = Stack.open(item.path, channel=task.channel)
    folder = FitFolder(item.folder, (stack,), asked_of(task))
    fit = Fit(stack, FitSettings.from_dict(task.settings | {"refine": False}))
    with claimed(item.folder):
        if goes_on and holds_fit(item.folder):
            fit.restore(folder.saved())
        for snapshot in fit:
            told(snapshot)
            if stopped():
                fit.cancel()
        _, failed = folder.finish(fit, over_own=goes_on)
    if failed:
        raise OutputError("; ".join(str(error) for error in failed.values()))
    if stopped():
        raise Stopped
    return figures_of(item.folder, "Gaussians")


def main() -> None:
    """Fit what is asked for on the standard input."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    inbox, outbox = os.fdopen(os.dup(0), "rb", buffering=0), os.fdopen(os.dup(1), "wb")
    # What libraries print goes to the errors, not among the messages.
    os.dup2(2, 1)
    stop = threading.Event()
    task = BatchTask(**receive(inbox).words)

    def wait_for_stop() -> None:
        try:
            receive(inbox)
        except (EOFError, OSError):
            os._exit(1)
        stop.set()

    def tell(kind: str, **words: Any) -> None:
        send(outbox, Message(kind, words))

    threading.Thread(target=wait_for_stop, daemon=True).start()
    try:
        _run(task, stop.is_set, tell)
    except (GaussfitError, OSError) as error:
        tell("error", message=str(error))
    tell("end")


def _run(task: BatchTask, stopped: Callable[[], bool], tell: Callable[..., None]) -> None:
    out = checked_folder(task.out)
    items = items_of([Path(name) for name in task.files], out)
    batch = Batch(items, out, asked_of(task), resume=task.resume)

    def work(item: Item, goes_on: bool) -> Row:  # noqa: FBT001
        if stopped():
            raise Stopped
        return fit_item(item, task, show, stopped, goes_on=goes_on)

    def show(snapshot: Snapshot) -> None:
        tell("step", done=snapshot.iteration, of=snapshot.iterations)

    def told(n: int, row: Row | None) -> None:
        if row is None:
            tell("file", n=n)
        else:
            tell("row", n=n, row=asdict(row))

    with claimed(out):
        batch.run(work, told)
    for n, row in enumerate(batch.rows):
        tell("row", n=n, row=asdict(row))


if __name__ == "__main__":
    main()
