"""What becomes of a call in a thread: why it failed is an answer too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_gaussfit.errors import GaussfitError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["outcome_of"]


def outcome_of(call: Callable[..., Any], *arguments: Any) -> tuple[Any, str]:
    """Return what comes of a call.

    An error that a thread raises, or returns, reaches napari's own slots, which fail with PySide6.

    Parameters
    ----------
    call : callable
        The work, called once.
    *arguments
        What the work is called with.

    Returns
    -------
    answer : object
        What it returns; None where it failed.
    why : str
        Why it failed; empty where it did not.
    """
    try:
        return call(*arguments), ""
    except GaussfitError as error:
        return None, str(error)
