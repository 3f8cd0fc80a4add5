"""Printing that fails alone: names in any script, closed streams, a log on a full disk.

A fit of hours ends in a line of text, which must be able to fail without the fit.
"""

from __future__ import annotations

import io
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO, cast

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Printed", "printing"]


class Printed:
    """A text stream that fails in silence, once, and remembers why.

    Parameters
    ----------
    stream : TextIO or None
        What to print to; None where it was closed before.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream or io.StringIO()
        self.error: OSError | None = None
        if isinstance(self._stream, io.TextIOWrapper):
            # What the terminal's encoding lacks is printed as escapes.
            self._stream.reconfigure(errors="backslashreplace")

    def __getattr__(self, name: str) -> Any:
        """Return what else the stream has."""
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write text, or lose it."""
        try:
            self._stream.write(text)
        except OSError as error:
            self._give_up(error)
        return len(text)

    def flush(self) -> None:
        """Have written what was held back, or lose it."""
        try:
            self._stream.flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        # Python writes what is held back at its end, and would fail then: it goes nowhere.
        self.error = self.error or error
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)


@contextmanager
def printing() -> Iterator[Printed]:
    """Let both of the process's streams fail without consequence meanwhile.

    Yields
    ------
    Printed
        The standard output, whose ``error`` tells whether it took what was printed.
    """
    before = sys.stdout, sys.stderr
    out, err = Printed(before[0]), Printed(before[1])
    sys.stdout, sys.stderr = cast("TextIO", out), cast("TextIO", err)
    try:
        yield out
    finally:
        out.flush()
        err.flush()
        sys.stdout, sys.stderr = before
