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
from itertools import pairwise

PIECES_PER_THREAD = 4
"""A few, so that uneven ones even out, each still far above what starting it takes."""


def thread_count() -> int:
    """Return the number of cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@functools.cache
def _pool(process: int) -> ThreadPoolExecutor:
    """Worker threads of this process (a forked child must not use its parent's)."""
    return ThreadPoolExecutor(thread_count(), thread_name_prefix=f"gaussfit-{process}")


def run_pieces(
    task: Callable[[int, int], object], total: int, least: int = 1, most: int = sys.maxsize
) -> None:
    """Call ``task(first, end)`` on pieces of range(total), over all threads.

    This thread works like the others, each of which takes the next piece when it is free. A piece
    holds `least` or more, which should take no less time than another thread does to wake: about
    50 microseconds; and no more than `most`, where what it works on is to stay in the cache.
    """
    pieces = deque(_pieces(total, least, most))

    def work() -> None:
        while True:
            try:
                piece = pieces.popleft()
            except IndexError:
                return
            task(*piece)

    helpers = min(thread_count(), len(pieces)) - 1
    futures = [_pool(os.getpid()).submit(work) for _ in range(helpers)]
    try:
        work()
    finally:
        # One that has not begun is not waited for: there is nothing left to do.
        for future in futures:
            if not future.cancel():
                future.result()


def _pieces(total: int, least: int, most: int) -> Iterator[tuple[int, int]]:
    """Cut range(total) into even pieces, a few for each thread."""
    threads = thread_count()
    count = min(PIECES_PER_THREAD * threads, max(1, total // least)) if threads > 1 else 1
    count = max(count, -(-total // most))
    edges = [n * total // count for n in range(count + 1)]
    return (piece for piece in pairwise(edges) if piece[0] < piece[1])
