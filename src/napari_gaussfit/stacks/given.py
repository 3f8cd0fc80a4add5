"""Stacks of what a scientist has at hand: a file's name, an array, xarray's, or a stack."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, cast

from napari_gaussfit.errors import SettingsError
from napari_gaussfit.stacks.stack import Stack

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike

    Given = Stack | str | os.PathLike[str] | ArrayLike

__all__ = ["STACK_OPTIONS", "stack_of", "stacks_of"]

_OF_FILES = ("channel", "time", "position", "spacing", "fill_nan")
_OF_ARRAYS = ("spacing", "unit", "name", "fill_nan", "channel", "time")

STACK_OPTIONS = tuple(dict.fromkeys((*_OF_FILES, *_OF_ARRAYS)))
"""What may be said of a stack that is no `Stack` yet: options of `Stack.open` and `from_array`."""


def stack_of(given: Given, **options: Any) -> Stack:
    """Return a stack of a path, an array, or a stack.

    Parameters
    ----------
    given : Stack, path-like or array-like
        A file is opened, an array is taken as it is.
    **options
        Of `Stack.open` or `Stack.from_array`.

    Raises
    ------
    SettingsError
        If an option is none of what was given.
    """
    allowed: tuple[str, ...] = ()
    make: Callable[..., Stack] | None = None
    what = "a Stack, which has them already"
    if isinstance(given, (str, os.PathLike)):
        allowed, make, what = _OF_FILES, Stack.open, "files"
    elif not isinstance(given, Stack):
        allowed, make, what = _OF_ARRAYS, Stack.from_array, "arrays"
    foreign = [name for name in options if name not in allowed]
    if foreign:
        raise SettingsError(
            f"{', '.join(foreign)}: no option of {what}"
            + (f"; there are {', '.join(allowed)}" if allowed else "; make one with them")
        )
    return cast("Stack", given) if make is None else make(given, **options)


def stacks_of(given: Given | Sequence[Given], **options: Any) -> tuple[Stack, ...]:
    """Return the stacks of one, or of several channels in a list.

    Parameters
    ----------
    given : as for `stack_of`, or a list or tuple of such
        A list of lists of numbers is one array.
    **options
        As for `stack_of`; ``channel`` may be a list, of which each is a stack.
    """
    several = [*given] if isinstance(given, (list, tuple)) else []
    if several and all(
        isinstance(one, (Stack, str, os.PathLike)) or getattr(one, "ndim", 0) == 3
        for one in several
    ):
        return tuple(stack_of(one, **options) for one in several)
    single = cast("Given", given)
    channels = options.get("channel")
    if isinstance(channels, (list, tuple)):
        return tuple(stack_of(single, **options | {"channel": channel}) for channel in channels)
    return (stack_of(single, **options),)
