"""Work split over all cores, in a pool of Python threads: the kernels release the GIL.

Numba's own threading is not used: `parallel=True` aborts the process on some platforms when
two Python threads enter it.
"""

from __future__ import annotations

import functools
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_PER_THREAD = 8
"""Pieces: the smallest are still far above what starting one takes."""


THREADS = "GAUSSFIT_THREADS"
"""The environment's variable that holds a process to so many cores: workers that share a machine
would each take all of them. No result depends on it."""


def thread_count() -> int:
    """Return the number of cores this process may use."""
    asked = os.environ.get(THREADS, "")
    return min(_cores(), int(asked)) if asked.isdecimal() and int(asked) else _cores()


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def in_more_threads(times: int) -> Iterator[None]:
    """Let this process use so many times the cores that it is held to, as far as there are.

    In the end it is held to as many as at first, whatever has been done meanwhile beside this.
    """
    usual = _usual_threads(os.getpid())
    os.environ[THREADS] = str(times * usual)
    try:
        yield
    finally:
        os.environ[THREADS] = str(usual)


@functools.cache
def _usual_threads(process: int) -> int:  # noqa: ARG001 - a forked child begins with its own
    return thread_count()


@functools.cache
def _pool(process: int) -> ThreadPoolExecutor:
    """Worker threads of this process (a forked child must not use its parent's).

    One fewer than the cores, as who asks for work does its share: of two that are woken in turn,
    each would often find the core taken on which it ran last. One is started only when those that
    there are have work.
    """
    return ThreadPoolExecutor(max(_cores() - 1, 1), thread_name_prefix=f"gaussfit-{process}")


@contextmanager
def in_one_torch_thread() -> Iterator[None]:
    """Keep torch from waking its threads: they spin while the kernels' own threads want the cores.

    A step takes five times as long with both.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def in_one_blas_thread() -> Iterator[None]:
    """Keep numpy's linear algebra of small matrices in this thread.

    The threads of its library spin for much longer than a product of these takes, and how they
    share it out changes the last bits: a result would depend on the number of cores.
    """
    with _blas().limit(limits=1, user_api="blas"):
        yield


@functools.cache
def _blas() -> Any:
    """Return what holds the threads of linear algebra; to find its libraries takes a while."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def run_pieces(
    task: Callable[[int, int], object], total: int, least: int = 1, most: int = sys.maxsize
) -> None:
    """Call ``task(first, end)`` on pieces of range(total), over all threads.

    This thread works like the others, each of which takes the next piece when it is free. A piece
    holds `least` or more, which should take no less time than another thread does to wake: about
    50 microseconds; and no more than `most`, where what it works on is to stay in the cache.

    A task may call this itself: where all threads have a piece, one does all of its own. After an
    error, or an interrupt of this thread, no other piece is begun.
    """
    pieces = deque(_pieces(total, least, most))

    def work() -> None:
        try:
            while True:
                try:
                    piece = pieces.popleft()
                except IndexError:
                    return
                task(*piece)
        except BaseException:
            pieces.clear()
            raise

    helpers = min(thread_count(), len(pieces)) - 1
    futures = [_pool(os.getpid()).submit(work) for _ in range(helpers)]
    try:
        work()
    finally:
        # One that has not begun is not waited for: there is nothing left to do.
        for future in futures:
            if not future.cancel():
                future.result()


def run_along_axes(
    filter_lines: Callable[..., object], source: NDArray[Any], out: NDArray[Any]
) -> None:
    """Set `out` to a volume [Z, Y, X] filtered along z, y and x in turn, over all threads.

    ``filter_lines(volume, axis=axis, output=out)`` filters all lines along an axis, each by itself,
    and releases the GIL; a volume may be its own output.
    """
    for axis in range(3):

        def some(first: int, end: int, axis: int = axis) -> None:
            part = np.s_[first:end] if axis else np.s_[:, first:end]
            filter_lines((out if axis else source)[part], axis=axis, output=out[part])

        run_pieces(some, out.shape[0 if axis else 1])


def _pieces(total: int, least: int, most: int) -> Iterator[tuple[int, int]]:
    """Cut range(total) into ever smaller pieces, so that all threads come to the end together.

    Each is half of what falls to a thread of all that is left: guided self-scheduling,
    Polychronopoulos and Kuck, IEEE Trans. Comput. C-36 (1987) 1425.
    """
    threads = thread_count()
    smallest = max(least, -(-total // (MOST_PER_THREAD * threads))) if threads > 1 else total
    first = 0
    while first < total:
        left = total - first
        size = min(max(left // (2 * threads), smallest), most)
        end = total if left - size < least else first + size
        yield first, end
        first = end
