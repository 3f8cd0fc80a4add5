"""Where the tasks of a fit by tiles run: in this process, or on the workers of dask."""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from collections import deque
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from napari_gaussfit._threads import THREADS, in_more_threads
from napari_gaussfit.errors import FitError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from napari_gaussfit.fitting.tile_store import Outcome, Stage, TileStore
    from napari_gaussfit.fitting.tile_tasks import TileTask
    from napari_gaussfit.fitting.tiles import Tile, Tiling

    Ended = tuple[TileTask, Outcome | BaseException]

__all__ = ["DaskPool", "Pool", "SerialPool", "Work", "do_on_worker", "warm_up"]

AHEAD = 2
"""Tasks that each thread of a worker is given at once, so that none waits for the next."""


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""What mallopt(3) of glibc calls its settings."""

KEPT_ARRAY = 2**25
"""Bytes of the largest array whose memory is kept for the next one: the most that glibc admits."""


class Work(Protocol):
    """Does tasks, in any process that it is sent to."""

    @property
    def tiling(self) -> Tiling:
        """The tiles of the stack."""

    @property
    def over(self) -> Tiling:
        """The tiles over its seams."""

    @property
    def stages(self) -> Sequence[tuple[Stage, Sequence[Tile]]]:
        """What is done in turn, and in which tiles."""

    @property
    def count(self) -> int | None:
        """How many Gaussians all tiles have together; None where each has what it carries."""

    @property
    def store(self) -> TileStore:
        """Working files."""

    def do(self, task: TileTask) -> Outcome:
        """Do a task."""

    def reached(self, path: Path) -> Callable[[Tile], bool]:
        """Return what tells whether a Gaussian of a working file reaches into a tile's box."""


def do_on_worker(work: Work, task: TileTask, submitter: int, share: int = 1) -> Outcome:
    """Do a task on a worker, which has one core for each of its threads unless told otherwise.

    Parameters
    ----------
    work : Work
        Carries out a task, and returns what it came to.
    task : TileTask
        What is to be done, and for which tile.
    submitter : int
        The process that gave it: where workers are its threads, they share its cores.
    share : int
        Workers that there are for each task: where most have nothing to do, a task takes the cores
        of those beside its own, as far as they are on its machine.
    """
    if os.getpid() == submitter:
        return work.do(task)
    os.environ.setdefault(THREADS, "1")
    _keep_memory()
    if share == 1:
        return work.do(task)
    with in_more_threads(share):
        return work.do(task)


@functools.cache
def _keep_memory() -> None:
    """Let this process keep the memory of arrays for the next ones, as a process by itself would.

    dask starts its workers with MALLOC_TRIM_THRESHOLD_, with which glibc hands each array above
    128 kB back to the system and asks for it anew: 2.5 million page faults a tile, and half of all
    processor time. Elsewhere than on glibc nothing is to be done.
    """
    if sys.platform != "linux":
        return
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(M_MMAP_THRESHOLD, KEPT_ARRAY)
        set_option(M_TRIM_THRESHOLD, 4 * KEPT_ARRAY)


def warm_up(client: Any, module: str) -> None:
    """Have workers import what their tasks need, while the fit is still being planned here.

    Parameters
    ----------
    client : Client or None
        Whose workers do, each for itself.
    module : str
        What defines the work, with all that it imports.
    """
    if client is None:
        return
    import distributed

    forget: Any = distributed.fire_and_forget
    for worker in client.nthreads():
        # Elsewhere too, in place of one that has gone meanwhile; what comes of it nobody asks.
        future = client.submit(
            import_module, module, workers=[worker], allow_other_workers=True, pure=False
        )
        forget(future)


class Pool(Protocol):
    """Takes tasks and tells when they have ended, in any order."""

    @property
    def slots(self) -> int:
        """Tasks that it has use for at once."""

    def submit(self, work: Work, task: TileTask, together: int) -> None:
        """Take a task.

        Parameters
        ----------
        work : Work
            Carries out the task in whatever process it is sent to.
        task : TileTask
            What is to be done, and for which tile.
        together : int
            How many tasks could be done at once now, it among them.
        """

    def ended(self) -> Iterator[Ended]:
        """Wait until a task has ended at least, and yield those that have."""


class SerialPool:
    """Does one task after another, in this process."""

    slots = 1

    def __init__(self) -> None:
        self._waiting: deque[tuple[Work, TileTask]] = deque()

    def submit(self, work: Work, task: TileTask, together: int) -> None:  # noqa: ARG002
        """Take a task."""
        self._waiting.append((work, task))

    def ended(self) -> Iterator[Ended]:
        """Do the next task."""
        work, task = self._waiting.popleft()
        try:
            yield task, work.do(task)
        except Exception as error:  # noqa: BLE001 - of one tile, which is told of
            yield task, error


class DaskPool:
    """Gives tasks to the workers of a `dask.distributed.Client`.

    Parameters
    ----------
    client : Client
        Its workers must be able to read the stack, and to read and write the folder.
    """

    def __init__(self, client: Any) -> None:
        import distributed

        self._client = client
        self._tasks: dict[Any, TileTask] = {}
        completed: Any = distributed.as_completed
        self._completed = completed()

    @property
    def slots(self) -> int:
        """Tasks that its workers have use for; never none, since workers may come later."""
        return AHEAD * self._threads

    @property
    def _threads(self) -> int:
        threads: int = sum(self._client.nthreads().values())
        return max(1, threads)

    def submit(self, work: Work, task: TileTask, together: int) -> None:
        """Take a task."""
        share = max(1, self._threads // together)
        future = self._client.submit(do_on_worker, work, task, os.getpid(), share, pure=False)
        self._tasks[future] = task
        self._completed.add(future)

    def ended(self) -> Iterator[Ended]:
        """Wait for a worker."""
        future = next(self._completed)
        task = self._tasks.pop(future)
        if future.cancelled():
            yield task, FitError("the scheduler gave it up")
            return
        error = future.exception()
        yield task, future.result() if error is None else error

    def close(self) -> None:
        """Give up what has not ended."""
        self._client.cancel([*self._tasks])
