"""What all readers share: whatever a file holds, it is read rightly or refused in one line.

The checks that say most stand in each reader; what a library makes of a damaged file is caught
here.
"""

from __future__ import annotations

import json
import reprlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_gaussfit.errors import (
    FormatError,
    GaussfitError,
    OutputError,
    SettingsError,
    StackError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["is_number", "numbers_of", "parsed_json", "refusing", "shown"]


@contextmanager
def refusing(path: Path, expected: str, kind: type[GaussfitError] = FormatError) -> Iterator[None]:
    """Turn any exception that a file causes into one of ours about it.

    Parameters
    ----------
    path : Path
        Path of the file, for messages.
    expected : str
        What it should be, in words.
    kind : type
        Of our errors: `FormatError` of fits, `StackError` of stacks.
    """
    try:
        # What overflows ends as NaN or an infinity, and is refused as such.
        with np.errstate(all="ignore"):
            yield
    except (FormatError, StackError, OutputError, NameError, ImportError):
        raise  # ours already, or no doing of the file's
    except SettingsError as error:
        raise kind(f"{path}: {error}") from error
    except MemoryError as error:
        raise kind(
            f"{path}: says that it holds more than memory has room for; expected {expected}"
        ) from error
    except OSError as error:
        reason = error.strerror or " ".join(str(error).split())
        raise kind(f"{path}: cannot be read: {reason}") from error
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise kind(
            f"{path}: its contents do not belong together ({reason}); expected {expected}"
        ) from error


def shown(value: object) -> str:
    """Return a value as Python writes it, shortened: a file may hold anything."""
    return reprlib.repr(value)


def parsed_json(text: str) -> dict[str, Any]:
    """Return the object that a text in JSON holds.

    Raises
    ------
    ValueError
        If it is no JSON, is nested too deeply, or holds something else.
    """
    try:
        content = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(content, dict):
        raise ValueError(f"it holds {shown(content)}, expected names and values")
    return content


def is_number(value: object) -> bool:
    """Tell whether a value of JSON is a number that a float can hold; NaN is one."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return isinstance(value, float) or abs(value) < 2**1023


def numbers_of(value: object, what: str, count: int | None = None) -> list[float]:
    """Return a list of numbers that JSON holds.

    Parameters
    ----------
    value : object
        Value found in the metadata, of whatever type.
    what : str
        Its name, for the message.
    count : int, optional
        How many there must be.

    Raises
    ------
    SettingsError
        If it is anything else.
    """
    right = isinstance(value, list) and all(map(is_number, value))
    if not isinstance(value, list) or not right or (count is not None and len(value) != count):
        expected = "numbers" if count is None else f"{count} numbers"
        raise SettingsError(f"{what} is {shown(value)}; expected a list of {expected}")
    return value
