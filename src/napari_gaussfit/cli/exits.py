"""How a command ends: its exit code."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["Exit"]


class Exit(IntEnum):
    """Exit codes of the command line."""

    DONE = 0
    BAD_INPUT = 2
    """Bad input or bad settings: one line on stderr."""

    NOT_WRITTEN = 3
    """The work is done, but a file or what was printed could not be written."""

    INTERRUPTED = 130
    """By the user; what was found so far is saved."""
