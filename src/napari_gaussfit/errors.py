"""The errors that napari-gaussfit raises on purpose.

Each is a built-in error too, so that a caller who knows nothing of this package still catches it.
A message is one line: which file or field, what was found, what was expected, what to do about it.
"""

from __future__ import annotations

__all__ = [
    "FitError",
    "FormatError",
    "GaussfitError",
    "IncompleteError",
    "OutOfMemoryError",
    "OutOfSpaceError",
    "OutputError",
    "SettingsError",
    "StackError",
    "StackNotFoundError",
]


LONGEST = 460
"""Characters of a message: whatever a file holds, and a message quotes, it can be read."""

_KEPT_AT_END = 160
"""Of a message that is too long: what to do about it stands last."""


class GaussfitError(Exception):
    """Any error that this package raises on purpose; its message is one line, shortened if long."""

    def __str__(self) -> str:
        """Return the message, shortened if long."""
        return _one_line(super().__str__())


def _one_line(text: str) -> str:
    """Return a text without what a terminal or a log cannot show, the middle left out if long."""
    if len(text) > LONGEST:
        text = f"{text[: LONGEST - _KEPT_AT_END - 5]} ... {text[-_KEPT_AT_END:]}"
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)


class StackError(GaussfitError, ValueError):
    """A file or an array that is no 3D stack that can be fitted."""


class StackNotFoundError(StackError, FileNotFoundError):
    """No file where a stack was to be."""


class SettingsError(GaussfitError, ValueError):
    """A setting outside of what it may be."""


class FitError(GaussfitError, RuntimeError):
    """A fit that cannot go on."""


class OutOfMemoryError(GaussfitError, MemoryError):
    """A GPU whose memory has no room for what is to be done."""


class FormatError(GaussfitError, ValueError):
    """A file of fitted Gaussians that does not hold what its format says."""


class OutputError(GaussfitError, OSError):
    """A place where nothing can be written."""


class OutOfSpaceError(OutputError):
    """A disk that has no room for what is to be written."""


class IncompleteError(OutputError):
    """Work that is done, and written but for some of its files."""
