"""Numba's simulator, in which a block's threads take turns: imported, it is in place.

Numba's own starts all at once and looks again and again which of them wait at a barrier, for the
interpreter's lock against those very threads: nine tenths of its time. Here one runs until it ends
or waits, then the next, and after each barrier they go in the other order. So what a missing
barrier spoils is spoilt in every run, whichever of two threads was to wait for the other.

``python tests/_kernels/simulator.py benchmarks.gpu --small`` runs a module as ``python -m`` does.
"""

from __future__ import annotations

import runpy
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
from numba.cuda.simulator import kernel
from numba.cuda.simulator.kernelapi import Dim3


class CudaThread(threading.Thread):
    """One thread of a block: it stands still whenever it is not its turn.

    Parameters
    ----------
    block : numba.cuda.simulator.kernel.BlockManager
        What runs the block and has its kernel.
    grid_point, block_point : tuple of int
        The block's place in the grid, and the thread's in the block.
    given : tuple
        The kernel's arguments.
    """

    def __init__(self, block: Any, grid_point: Any, block_point: Any, given: Any) -> None:
        super().__init__(daemon=True)
        # The names are numba's, which asks the running thread for them.
        self._manager = block
        self.blockIdx = Dim3(*grid_point)
        self.threadIdx = Dim3(*block_point)
        self.given = given
        self.failed: Exception | None = None
        self.ended = False
        self._mine, self._over = threading.Lock(), threading.Lock()
        self._mine.acquire()
        self._over.acquire()

    def take_turn(self) -> None:
        """Run up to the next barrier or the end."""
        if self.ident is None:
            self.start()
        else:
            self._mine.release()
        self._over.acquire()
        if self.failed is not None:
            raise self.failed

    def run(self) -> None:
        try:
            self._manager._f(*self.given)
        except Exception as error:  # noqa: BLE001 - raised where the kernel was launched
            self.failed = error
        self.ended = True
        self._over.release()

    def syncthreads(self) -> None:
        """Give the turn away, and wait for the next."""
        self._over.release()
        self._mine.acquire()

    syncthreads_count = kernel.BlockThread.syncthreads_count
    syncthreads_and = kernel.BlockThread.syncthreads_and
    syncthreads_or = kernel.BlockThread.syncthreads_or


def run_block(block: Any, grid_point: Any, *given: Any) -> None:
    """Run all threads of a block, in place of `BlockManager.run`."""
    places = np.ndindex(*block._block_dim)
    threads = [CudaThread(block, grid_point, place, given) for place in places]
    while threads:
        for thread in threads:
            thread.take_turn()
        threads = [thread for thread in reversed(threads) if not thread.ended]


kernel.BlockManager.run = run_block

if __name__ == "__main__":
    sys.path[0] = str(Path.cwd())
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
