"""What a worker of a fit by tiles is to its tasks: its memory, its cores, and what it knows."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from typing import TYPE_CHECKING, Any, cast

import pytest

from napari_gaussfit._threads import THREADS, thread_count
from napari_gaussfit.fitting.pools import DaskPool, do_on_worker, warm_up
from napari_gaussfit.jobs.cluster import processes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_gaussfit.fitting.pools import Work
    from napari_gaussfit.fitting.tile_tasks import TileTask

ARRAYS = 200
TASK = f"""
import resource
import numpy as np
from napari_gaussfit.fitting.pools import do_on_worker

class Work:
    def do(self, task):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range({ARRAYS}):
            np.ones(2**17)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

work = Work()
do_on_worker(work, None, 0)
print(do_on_worker(work, None, 0))
"""


class Counting:
    """A work whose tasks tell how many cores they may use."""

    def do(self, task: object) -> int:
        del task
        return thread_count()


class Asked:
    """A client of eight workers that notes what it is asked to do, and does nothing."""

    def __init__(self) -> None:
        self.shares: list[int] = []

    def nthreads(self) -> dict[str, int]:
        return {f"tcp://{n}": 1 for n in range(8)}

    def submit(self, _does: object, *given: Any, **_options: Any) -> object:
        from distributed import Future

        self.shares.append(given[-1])
        return Future(f"task-{len(self.shares)}")


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    with processes(1, 1) as client:
        yield client


@pytest.mark.parametrize(("together", "share"), [(1, 8), (2, 4), (3, 2), (8, 1), (500, 1)])
def test_where_tasks_are_fewer_than_workers_each_takes_the_cores_of_several(
    monkeypatch: pytest.MonkeyPatch, together: int, share: int
) -> None:
    monkeypatch.setattr("distributed.as_completed", set)
    client = Asked()

    DaskPool(client).submit(cast("Work", Counting()), cast("TileTask", None), together)

    assert client.shares == [share]


def test_a_worker_uses_more_cores_for_one_task_and_one_for_the_next(client: Any) -> None:
    cores = (
        len(client.submit(os.sched_getaffinity, 0).result())
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count()
    )

    found = [
        client.submit(do_on_worker, Counting(), None, os.getpid(), share, pure=False).result()
        for share in (1, 1000, 1, 2)
    ]

    assert found == [1, cores, 1, min(2, cores or 1)]


def test_this_process_keeps_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(THREADS, "1")

    found: Any = do_on_worker(cast("Work", Counting()), cast("TileTask", None), os.getpid(), 2)

    assert found == 1


def test_workers_have_imported_what_tasks_need_before_the_first(client: Any) -> None:
    module = "napari_gaussfit.fitting.tile_fits"
    assert not client.submit(is_imported, module, pure=False).result()

    warm_up(client, module)

    assert client.submit(is_imported, module, pure=False).result()


def is_imported(module: str) -> bool:
    return module in sys.modules


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="the setting that dask makes is one of glibc"
)
def test_a_worker_keeps_the_memory_of_one_array_for_the_next() -> None:
    # As dask starts its workers: then each array of a megabyte is 256 page faults.
    dask = {**os.environ, "MALLOC_TRIM_THRESHOLD_": "65536"}
    done = subprocess.run(
        [sys.executable, "-c", TASK], env=dask, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < ARRAYS
