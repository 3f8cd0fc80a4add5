"""Times of several ways to do one thing, taken in turns so that all meet the same machine."""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

LEAST_SECONDS = 0.05
"""A turn calls its way again until so much time has passed, and counts the mean."""

PAUSE_SECONDS = 0.02
"""Between turns, so that torch's threads stop spinning."""


@dataclass(frozen=True)
class Way:
    """One way to do the thing.

    `torch_threads` is what torch may use meanwhile: the kernels have threads of their own and run
    beside one of torch's, as they do in a fit; plain torch has as many as it wants.
    """

    name: str
    call: Callable[[], object]
    torch_threads: int


def with_kernels(name: str, call: Callable[[], object]) -> Way:
    """A way that goes through the kernels."""
    return Way(name, call, 1)


def with_torch(name: str, call: Callable[[], object]) -> Way:
    """A way in plain torch, on all the threads that torch starts with."""
    return Way(name, call, torch.get_num_threads())


def medians(ways: Sequence[Way], *, turns: int) -> dict[str, float]:
    """Median seconds of each way over turns A B A B; a first call of each is not counted."""
    for way in ways:
        _turn(way, least=0.0)
    taken: dict[str, list[float]] = {way.name: [] for way in ways}
    for _ in range(turns):
        for way in ways:
            taken[way.name].append(_turn(way, least=LEAST_SECONDS))
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def _turn(way: Way, *, least: float) -> float:
    """Mean seconds of a call, over as many as `least` seconds hold."""
    before = torch.get_num_threads()
    torch.set_num_threads(way.torch_threads)
    time.sleep(PAUSE_SECONDS)
    try:
        began, calls = time.perf_counter(), 0
        while True:
            way.call()
            calls += 1
            taken = time.perf_counter() - began
            if taken >= least:
                return taken / calls
    finally:
        torch.set_num_threads(before)


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """Exponent p of the power law seconds ~ sizes^p, by least squares in the logarithms."""
    x = [math.log(size) for size in sizes]
    y = [math.log(second) for second in seconds]
    return statistics.linear_regression(x, y).slope
