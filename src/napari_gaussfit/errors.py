"""The errors that napari-gaussfit raises on purpose.

Each is a built-in error too, so that a caller who knows nothing of this package still catches it.
A message is one line: which file or field, what was found, what was expected, what to do about it.
"""

from __future__ import annotations

__all__ = [
    "FitError",
    "FormatError",
    "GaussfitError",
    "OutOfSpaceError",
    "OutputError",
    "SettingsError",
    "StackError",
    "StackNotFoundError",
]


class GaussfitError(Exception):
    """Any error that this package raises on purpose."""


class StackError(GaussfitError, ValueError):
    """A file or an array that is no 3D stack that can be fitted."""


class StackNotFoundError(StackError, FileNotFoundError):
    """No file where a stack was to be."""


class SettingsError(GaussfitError, ValueError):
    """A setting outside of what it may be."""


class FitError(GaussfitError, RuntimeError):
    """A fit that cannot go on."""


class FormatError(GaussfitError, ValueError):
    """A file of fitted Gaussians that does not hold what its format says."""


class OutputError(GaussfitError, OSError):
    """A place where nothing can be written."""


class OutOfSpaceError(OutputError):
    """A disk that has no room for what is to be written."""
