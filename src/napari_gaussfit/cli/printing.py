"""Printing that fails alone: names in any script, closed streams, a log on a full disk.

A fit of hours ends in a line of text, which must be able to fail without the fit.
"""

from __future__ import annotations

import io
import logging
import os
import sys
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TextIO, cast

from napari_gaussfit.files import json_text

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "Printed",
    "answer",
    "answering_elsewhere",
    "complain",
    "is_news",
    "printing",
    "say_as_asked",
    "saying_once",
]


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


@dataclass(frozen=True)
class _Streams:
    """Where a command's words go."""

    out: Printed
    err: Printed
    json: bool


_STREAMS: ContextVar[_Streams | None] = ContextVar("streams", default=None)


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
    token = _STREAMS.set(_Streams(out, err, json=False))
    try:
        yield out
    finally:
        _STREAMS.reset(token)
        _stop_logging()
        out.flush()
        err.flush()
        sys.stdout, sys.stderr = before


def say_as_asked(*, quiet: bool, json: bool, verbose: int) -> None:
    """Choose where words go, until `printing` ends: nowhere if quiet, to stderr beside JSON.

    Parameters
    ----------
    quiet : bool
        Whether only what `complain` and `answer` say is shown.
    json : bool
        Whether JSON is printed, as `answer` does.
    verbose : int
        1 logs what is done, 2 in detail, on stderr.
    """
    streams = _STREAMS.get()
    if streams is None:
        return
    _STREAMS.set(replace(streams, json=json))
    if quiet:
        sys.stdout = sys.stderr = io.StringIO()
    elif json:
        sys.stdout = sys.stderr
    if verbose:
        log = logging.getLogger("napari_gaussfit")
        handler = _Logged(cast("TextIO", streams.err))
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        log.addHandler(handler)
        log.setLevel(logging.INFO if verbose == 1 else logging.DEBUG)


@contextmanager
def answering_elsewhere() -> Iterator[None]:
    """Keep commands within a command from answering for it."""
    streams = _STREAMS.get()
    token = _STREAMS.set(None if streams is None else replace(streams, json=False))
    try:
        yield
    finally:
        _STREAMS.reset(token)


_SAID: ContextVar[set[str] | None] = ContextVar("said", default=None)


@contextmanager
def saying_once() -> Iterator[None]:
    """Let commands within a command leave out notes that one before them has said."""
    token = _SAID.set(set())
    try:
        yield
    finally:
        _SAID.reset(token)


def is_news(line: str) -> bool:
    """Tell whether a note is to be said: within `saying_once` only the first time.

    Parameters
    ----------
    line : str
        The note in words, without what stands before it.
    """
    said = _SAID.get()
    if said is None:
        return True
    news = line not in said
    said.add(line)
    return news


def _stop_logging() -> None:
    log = logging.getLogger("napari_gaussfit")
    for handler in [one for one in log.handlers if isinstance(one, _Logged)]:
        log.removeHandler(handler)
    log.setLevel(logging.NOTSET)


class _Logged(logging.StreamHandler[TextIO]):
    """The handler of ``-v``."""


def complain(text: str) -> None:
    """Say what must be seen, however quiet it is meant to be.

    Parameters
    ----------
    text : str
        One line, without the program's name.
    """
    streams = _STREAMS.get()
    print(text, file=sys.stderr if streams is None else cast("TextIO", streams.err))


def answer(value: dict[str, Any]) -> None:
    """Print what a command has to say as JSON, where that is asked for.

    Parameters
    ----------
    value : dict
        JSON types; NaN becomes null.
    """
    streams = _STREAMS.get()
    if streams is not None and streams.json:
        streams.out.write(json_text(value) + "\n")
