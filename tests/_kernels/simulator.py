"""Numba's simulator, in which a block's threads take turns: imported, it is in place.

Numba's own starts all at once and looks again and again which of them wait at a barrier, for the
interpreter's lock against those very threads: nine tenths of its time. Here one runs until it ends
or waits, then the next, and after each barrier they go in the other order. So what a missing
barrier spoils is spoilt in every run, whichever of two threads was to wait for the other.

The turn goes straight from one to the next, and threads of Python, which cost as much as what they
run, are used again: one whose CUDA thread has ended, as most do without a barrier, takes the next.

``python tests/_kernels/simulator.py benchmarks.gpu --small`` runs a module as ``python -m`` does.
"""

from __future__ import annotations

import queue
import runpy
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numba import cuda
from numba.cuda.simulator import kernel, kernelapi
from numba.cuda.simulator.kernelapi import Dim3


class CudaThread:
    """One thread of a block: it stands still whenever it is not its turn.

    Parameters
    ----------
    block : Block
        What it is a thread of.
    place : tuple of int
        Its place in the block.
    """

    def __init__(self, block: Block, place: tuple[int, ...]) -> None:
        # The names are numba's, which asks the running thread for them.
        self._manager = block.manager
        self.blockIdx = block.place
        self.threadIdx = Dim3(*place)
        self.block = block
        self.started = False
        self._mine = threading.Lock()
        self._mine.acquire()

    def syncthreads(self) -> None:
        """Give the turn away, and wait for the next."""
        self.block.waiting.append(self)
        coming = self.block.take_next()
        if coming is not self:
            hand_to(coming)
            self._mine.acquire()
        Block.running = self

    syncthreads_count = kernel.BlockThread.syncthreads_count
    syncthreads_and = kernel.BlockThread.syncthreads_and
    syncthreads_or = kernel.BlockThread.syncthreads_or


class Block:
    """The threads of a block that have not ended.

    Parameters
    ----------
    manager : numba.cuda.simulator.kernel.BlockManager
        Whose block it is: it has the kernel.
    place : tuple of int
        Its place in the grid.
    given : tuple
        The kernel's arguments.
    """

    running: CudaThread

    def __init__(self, manager: Any, place: tuple[int, ...], given: tuple[Any, ...]) -> None:
        self.manager, self.place, self.given = manager, Dim3(*place), given
        self.waiting: list[CudaThread] = []
        self.coming = [CudaThread(self, place) for place in np.ndindex(*manager._block_dim)][::-1]
        self.failed: Exception | None = None
        self.over = threading.Lock()
        self.over.acquire()

    def take_next(self) -> CudaThread | None:
        """Whose turn it is: after a barrier, first of all of who came there last."""
        if not self.coming:
            self.coming, self.waiting = self.waiting, []
        return self.coming.pop() if self.coming else None

    def run(self, thread: CudaThread) -> None:
        """Run a thread to its end, and those that begin after it."""
        coming: CudaThread | None = thread
        while coming is not None and not coming.started:
            coming.started, Block.running = True, coming
            try:
                self.manager._f(*self.given)
            except Exception as error:  # noqa: BLE001 - raised where the kernel was launched
                self.failed = error
                break
            coming = self.take_next()
        if coming is None or self.failed is not None:
            self.over.release()
        else:
            coming._mine.release()


IDLE: list[queue.SimpleQueue[CudaThread]] = []
"""What each thread of Python that has nothing to run waits for."""


def hand_to(thread: CudaThread) -> None:
    """Let a thread have its turn: it goes on, or begins in an idle thread of Python."""
    if thread.started:
        thread._mine.release()
    elif IDLE:
        IDLE.pop().put(thread)
    else:
        begins: queue.SimpleQueue[CudaThread] = queue.SimpleQueue()
        begins.put(thread)
        threading.Thread(target=work, args=(begins,), daemon=True).start()


def work(begins: queue.SimpleQueue[CudaThread]) -> None:
    """Run what comes, one after the other."""
    while True:
        thread = begins.get()
        thread.block.run(thread)
        IDLE.append(begins)


def run_block(manager: Any, place: tuple[int, ...], *given: Any) -> None:
    """Run all threads of a block, in place of `BlockManager.run`."""
    block = Block(manager, place, given)
    hand_to(block.coming.pop())
    block.over.acquire()
    if block.failed is not None:
        raise block.failed


def call(function: Any, *given: Any) -> Any:
    """Launch a kernel or call a device function, in place of `FakeCUDAKernel.__call__`.

    Numba's puts the simulated `cuda` into a module, and takes it out, at each call of one of its
    functions: here it stays until the kernel has ended.
    """
    simulated = kernel._get_kernel_context()
    if simulated is None:
        try:
            return LAUNCH(function, *given)
        finally:
            while REPLACED:
                REPLACED.pop()["cuda"] = cuda
    names = function.fn.__globals__
    if names.get("cuda") is cuda:
        names["cuda"] = simulated
        REPLACED.append(names)
    return function.fn(*given)


LAUNCH = kernel.FakeCUDAKernel.__call__
REPLACED: list[dict[str, Any]] = []
"""The names of modules that have the simulated `cuda` for numba's."""

kernel.BlockManager.run = run_block
kernel.FakeCUDAKernel.__call__ = call
kernelapi.threading = SimpleNamespace(current_thread=lambda: Block.running)

if __name__ == "__main__":
    sys.path[0] = str(Path.cwd())
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
