"""Memory that a process lets go of, kept for what comes next."""

from __future__ import annotations

import ctypes
import sys

__all__ = ["keep_freed_memory"]

KEPT, LARGEST = 2**26, 2**25
"""Bytes that glibc keeps free at most, and of the largest array that it takes from what it keeps.
It comes to these by itself, once an array as large has been let go of."""

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""What glibc's ``mallopt`` calls them."""


def keep_freed_memory() -> None:
    """Have this process keep memory that was let go of, where it runs with glibc.

    For a process of which nothing else is asked: a small stack's arrays, each of some megabytes,
    would be given back one by one, and the system clears memory before it gives it out again. That
    was a tenth of what the end of a fit took, and a quarter of drawing its projections.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(TRIM_THRESHOLD, KEPT)
        mallopt(MMAP_THRESHOLD, LARGEST)
