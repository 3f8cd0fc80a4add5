"""What one core does at most: multiply-adds on numbers in registers."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from collections.abc import Callable

LANES = (64, 96, 128, 256)
"""Numbers that multiply-adds are done on: the most that a machine's registers hold is its peak."""

ROUNDS = 50_000


def multiply_adds(lanes: int) -> Callable[[np.float32, int], float]:
    """Return a kernel that does rounds of as many multiply-adds, each on its own number."""

    @njit(nogil=True, fastmath=True)
    def run(factor: np.float32, rounds: int) -> float:
        values = np.zeros(lanes, np.float32)
        for _ in range(rounds):
            for n in range(lanes):
                values[n] = values[n] * factor + factor
        return values.sum()

    return run


def cpu_seconds(call: Callable[[], object], turns: int) -> float:
    """The least processor time of a call in this thread: what others do stays out of it."""
    taken = []
    call()
    for _ in range(turns):
        began = time.thread_time()
        call()
        taken.append(time.thread_time() - began)
    return min(taken)


def peak_operations(turns: int) -> float:
    """Multiply-adds a second of one core, on values that stay in registers."""
    factor = np.float32(0.5)
    peaks = []
    for lanes in LANES:
        run = multiply_adds(lanes)
        taken = cpu_seconds(partial(run, factor, ROUNDS), turns)
        peaks.append(lanes * ROUNDS / taken)
    return max(peaks)
