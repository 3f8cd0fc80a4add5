"""The workers of a fit by tiles: processes of its own on this machine, or a cluster that is there.

Whatever else makes a `dask.distributed.Client` serves `fit_tiles` as well.
"""

from __future__ import annotations

from contextlib import contextmanager
from math import prod
from typing import TYPE_CHECKING, Any

from napari_gaussfit.errors import OutputError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from napari_gaussfit.stacks.lazy import LazyStack

__all__ = ["connected", "own_cluster", "processes", "workers_that_fit"]

MEMORY_SHARE = 0.8
"""Part of the free memory that workers may need together."""

CONNECT_SECONDS = 10.0
"""That the scheduler of a cluster has to answer."""


STARTS = 3
"""Times that workers are started before a fit is given up."""

SELDOM = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "2s",
}
"""What dask looks at while tasks run, and how often: by itself each 10, 20 and 500 ms, which takes
2 % of each worker's core and as much of one for the scheduler, of those that tasks run on."""


@contextmanager
def own_cluster(workers: int) -> Iterator[Any]:
    """Give the client of a cluster on this machine; None where one process does it all: this one.

    Parameters
    ----------
    workers : int
        Its processes, which share the cores.

    Yields
    ------
    Client or None
        Its ``dashboard_link`` is where dask shows what it does.

    Raises
    ------
    SettingsError
        If there are to be none.
    OutputError
        If dask.distributed is not installed, or its workers do not start.
    """
    if workers < 1:
        raise SettingsError(f"--workers {workers}: expected 1 or more")
    if workers == 1:
        yield None
        return
    from napari_gaussfit._threads import thread_count

    with processes(workers, max(1, thread_count() // workers)) as client:
        yield client


@contextmanager
def processes(workers: int, cores: int) -> Iterator[Any]:
    """Give the client of workers on this machine, one process each.

    Parameters
    ----------
    workers : int
        How many processes, one of them too.
    cores : int
        That each uses while all have something to do.

    Yields
    ------
    Client
        Closed in the end, with its workers.

    Raises
    ------
    OutputError
        If dask.distributed is not installed, or its workers do not start.
    """
    distributed = _distributed()
    import dask

    from napari_gaussfit._threads import THREADS

    with dask.config.set(SELDOM):
        cluster = _started(
            distributed.LocalCluster, n_workers=workers, threads_per_worker=1, memory_limit=None,
            dashboard_address=":0", env={THREADS: str(cores)},
        )  # fmt: skip
    with cluster, distributed.Client(cluster) as client:
        yield client


def _started(local_cluster: Callable[..., Any], **options: Any) -> Any:
    """Return a cluster whose workers have started: one that is killed meanwhile ends the start."""
    reason: RuntimeError | None = None
    for _ in range(STARTS):
        try:
            return local_cluster(**options)
        except RuntimeError as error:
            reason = error
    raise OutputError(
        f"the workers do not start ({reason}); give --workers 1, which needs none"
    ) from reason


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """Give the client of a cluster that is there.

    Parameters
    ----------
    address : str
        Where its scheduler listens.

    Yields
    ------
    Client
        Closed in the end; the cluster stays.

    Raises
    ------
    SettingsError
        If the scheduler does not answer.
    OutputError
        If dask.distributed is not installed.
    """
    distributed = _distributed()
    try:
        client = distributed.Client(address, timeout=CONNECT_SECONDS)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise SettingsError(
            f"--scheduler {address}: cannot be reached ({reason}); give the address that "
            "dask scheduler prints, such as tcp://host:8786"
        ) from error
    with client:
        yield client


def workers_that_fit(stack: LazyStack, tile: Sequence[int] | None, channels: int = 1) -> int:
    """Return as many workers as there are cores, memory for them, and tiles.

    Parameters
    ----------
    stack : LazyStack
        What is fitted; of several channels, the first.
    tile : sequence of int or None
        Voxels (z, y, x) of a tile, None for those that it has by default.
    channels : int
        How many channels are fitted together.
    """
    import psutil

    from napari_gaussfit._threads import thread_count
    from napari_gaussfit.fitting.memory import predict_memory
    from napari_gaussfit.fitting.tiles import Tiling, default_core, default_halo
    from napari_gaussfit.settings import FitSettings

    halo = default_halo(stack.spacing)
    core = tile or default_core(stack.spacing)
    tiling = Tiling.of(stack.shape, core, halo)
    voxels = prod(min(n, c + 2 * h) for n, c, h in zip(stack.shape, core, halo, strict=True))
    needed = channels * predict_memory(voxels, voxels * stack.dtype.itemsize, FitSettings())
    room = int(MEMORY_SHARE * psutil.virtual_memory().available / needed)
    return max(1, min(thread_count(), room, len(tiling)))


def _distributed() -> Any:
    try:
        import distributed
    except ImportError as error:
        raise OutputError(
            "several workers need dask.distributed, which is not installed; install "
            "napari-gaussfit[scale], or give --workers 1"
        ) from error
    return distributed
