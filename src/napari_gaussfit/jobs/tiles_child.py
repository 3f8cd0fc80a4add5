"""The process that fits a large stack by tiles for a window: a task comes in, progress goes out.

Run as ``python -m napari_gaussfit.jobs.tiles_child``. A message "stop", or a pipe that closes, ends
it with its workers at once: what is done is in the folder, and a later task goes on with it.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_gaussfit.errors import GaussfitError
from napari_gaussfit.jobs.cluster import connected, own_cluster, workers_that_fit
from napari_gaussfit.jobs.messages import Message, receive, send
from napari_gaussfit.jobs.overwriting import claimed, refuse_to_replace
from napari_gaussfit.jobs.tiles import RenderTask, TilesTask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pandas as pd
    from numpy.typing import NDArray

    from napari_gaussfit.fitting.tile_course import TileProgress
    from napari_gaussfit.fitting.tile_runs import TileReport
    from napari_gaussfit.stacks.lazy import LazyStack

    Send = Callable[[Message], None]
    Arrays = dict[str, NDArray[Any]]

__all__ = ["fit_large", "found_in", "render_large"]

PERIOD = 0.1
"""Seconds between two words on how far it is, which nobody reads faster."""

ENDING = 10.0
"""Seconds that workers have to end once the window is gone."""


def fit_large(task: TilesTask, tell: Send) -> None:
    """Fit a large stack by tiles, and tell how it goes and what is found.

    Parameters
    ----------
    task : TilesTask
        What is asked for.
    tell : callable
        Called with messages: "workers", "progress", "found" (the Gaussians of a tile), in the end
        "report" and, tile by tile, "result".

    Raises
    ------
    GaussfitError
        If it cannot be fitted.
    """
    from napari_gaussfit.fitting.fit_tiles import fit_tiles
    from napari_gaussfit.fitting.tile_runs import OUTPUTS
    from napari_gaussfit.measure.psf import Psf
    from napari_gaussfit.objects.spot_settings import SpotSettings
    from napari_gaussfit.objects.spot_tiles import fit_spot_tiles
    from napari_gaussfit.settings import FitSettings

    out = Path(task.out)
    stacks = [_opened(task, channel) for channel in task.channels]
    refuse_to_replace(
        [out / name for name in OUTPUTS], inputs=[Path(task.source)], force=task.resume,
        instead=", Go on goes on with it",
    )  # fmt: skip
    stack = stacks if len(stacks) > 1 else stacks[0]
    if task.spots is None:
        settings = FitSettings.from_dict(task.settings | {"refine": False})
        psf = None if task.psf is None else Psf.from_dict(task.psf)
        fits: Callable[..., TileReport] = partial(fit_tiles, settings=settings, psf=psf)
    else:
        fits = partial(fit_spot_tiles, settings=SpotSettings(**task.spots))
    with claimed(out), _client(task, stacks[0], tell) as client:
        report = fits(
            stack,
            out,
            tile=task.tile,
            client=client,
            resume=task.resume,
            progress=_Told(tell, task.what),
        )
    failed = [f"{tile}, {why}" for tile, why in report.failed]
    words = {
        "what": task.what,
        "gaussians": report.gaussians,
        "tiles": report.tiles,
        "background": report.background_tiles,
        "measured": report.measured,
        "psnr": report.voxel_psnr if np.isfinite(report.voxel_psnr) else None,
        "failed": failed,
    }
    tell(Message("report", words))
    for arrays in found_in(out):
        tell(Message("result", arrays=arrays))


def render_large(task: RenderTask, tell: Send) -> None:
    """Write the volume of a fit by tiles, and tell how it goes: "rendering", then "rendered".

    Parameters
    ----------
    task : RenderTask
        Which fit, and where its volume is written.
    tell : callable
        Called with each message to the window.

    Raises
    ------
    GaussfitError
        If it cannot be written.
    """
    from napari_gaussfit.formats.tiled_export import export_volume

    refuse_to_replace([], inputs=[Path(task.fit)])
    export_volume(
        task.fit, task.path,
        progress=lambda done, of: tell(Message("rendering", {"done": done, "of": of})),
    )  # fmt: skip
    tell(Message("rendered", {"path": task.path}))


def found_in(out: Path) -> Iterator[Arrays]:
    """Yield the Gaussians of a fit by tiles, a part after another.

    Parameters
    ----------
    out : Path
        The folder of the fit by tiles.

    Yields
    ------
    dict of ndarray
        ``means`` [K, 3] from the first voxel that was fitted, and ``sigmas`` (the geometric mean
        of three) and ``amplitudes`` [K].
    """
    from napari_gaussfit.formats.tiled import read_tables

    for table in read_tables(out):
        yield _arrays_of(table)


def _arrays_of(table: pd.DataFrame) -> Arrays:
    from napari_gaussfit.measure.table import AXES

    sigmas = table[["sigma_1", "sigma_2", "sigma_3"]].to_numpy(np.float64)
    name = "amplitude" if "amplitude" in table else "amplitude_0"
    return {
        "means": table[[*AXES]].to_numpy(np.float64),
        "sigmas": np.exp(np.log(sigmas).mean(1)).astype(np.float32),
        "amplitudes": table[name].to_numpy(np.float32),
    }


class _Told:
    """Tells how far a fit is, now and then, and all that is found."""

    def __init__(self, tell: Send, what: str) -> None:
        self._tell, self._what, self._last = tell, what, (0.0, "")

    def __call__(self, progress: TileProgress) -> None:
        if progress.file is not None:
            self._tell(Message("found", arrays=_arrays_in(progress.file)))
        now, (before, stage) = time.monotonic(), self._last
        due = now - before >= PERIOD or progress.done == progress.total
        if due or progress.stage != stage:
            self._last = now, progress.stage
            names = ("stage", "done", "running", "total", "background", "failed", "gaussians")
            words = {name: getattr(progress, name) for name in names}
            self._tell(Message("progress", words | {"what": self._what}))


def _arrays_in(path: Path) -> Arrays:
    """Return the Gaussians of a working file, as `found_in` has them."""
    from napari_gaussfit.fitting.tile_store import TileStore
    from napari_gaussfit.model.gaussians import Gaussians

    if path.suffix == ".parquet":
        import pandas as pd

        return _arrays_of(pd.read_parquet(path))
    found, _ = TileStore(path.parent).load(path)
    own = Gaussians(found.means, found.cholesky.astype(np.float64), found.amplitudes[0])
    return {
        "means": found.means,
        "sigmas": np.exp(own.log_widths.mean(1)).astype(np.float32),
        "amplitudes": found.amplitudes[0],
    }


def _opened(task: TilesTask, channel: int | None) -> LazyStack:
    from napari_gaussfit.stacks.lazy import LazyStack

    stack = LazyStack.open(
        task.source, channel=channel, time=task.time, position=task.position,
        spacing=task.spacing, fill_nan=0.0,
    )  # fmt: skip
    if task.part is None:
        return stack
    (z, y, x), (dz, dy, dx) = task.part
    return stack.part((z, y, x), (dz, dy, dx))


@contextmanager
def _client(task: TilesTask, stack: LazyStack, tell: Send) -> Iterator[Any]:
    """Give the client of the cluster that is asked for, and say where its dashboard is."""
    from napari_gaussfit._kernels.compiled import kernels_are_compiled

    if task.scheduler:
        with connected(task.scheduler) as client:
            tell(Message("workers", {"text": task.scheduler, "dashboard": client.dashboard_link}))
            yield client
        return
    workers = task.workers or workers_that_fit(stack, task.tile, len(task.channels))
    with own_cluster(workers) as client:
        text = f"{workers} workers" if workers > 1 else "one process"
        if not kernels_are_compiled():
            text += "; compiling, once: this takes a minute"
        link = "" if client is None else client.dashboard_link
        tell(Message("workers", {"text": text, "dashboard": link}))
        yield client


def main() -> None:
    """Do what is asked for on the standard input."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # As Ctrl-C ends a command: what waits is woken, and workers end with it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    inbox, outbox = os.fdopen(os.dup(0), "rb", buffering=0), os.fdopen(os.dup(1), "wb")
    # What libraries print goes to the errors, not among the messages.
    os.dup2(2, 1)
    asked = receive(inbox)
    sending = threading.Lock()

    def tell(message: Message) -> None:
        with sending:
            send(outbox, message)

    threading.Thread(target=_wait_for_stop, args=(inbox,), daemon=True).start()
    try:
        if asked.kind == "render":
            render_large(RenderTask(**asked.words), tell)
        elif asked.kind == "show":
            for arrays in found_in(Path(asked.words["out"])):
                tell(Message("result", arrays=arrays))
        else:
            fit_large(TilesTask(**asked.words), tell)
    except KeyboardInterrupt:
        tell(Message("stopped"))
    except (GaussfitError, OSError) as error:
        tell(Message("error", {"message": str(error)}))
    tell(Message("end"))


def _wait_for_stop(inbox: Any) -> None:
    """Interrupt what is done once a message comes; where the window is gone, see that it ends."""
    try:
        receive(inbox)
        gone = False
    except (EOFError, OSError):
        gone = True
    if hasattr(signal, "pthread_kill"):
        # A signal to the process may reach a thread that leaves the main one waiting.
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
    else:
        import _thread

        _thread.interrupt_main(signal.SIGTERM)
    if gone:
        time.sleep(ENDING)
        os._exit(1)


if __name__ == "__main__":
    main()
