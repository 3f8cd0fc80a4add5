"""What numbers of Gaussians would reach, as a window that loads no torch asks for it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from napari_gaussfit.fitting.outlook import Outlook, outlook
from napari_gaussfit.jobs.messages import Message

if TYPE_CHECKING:
    from napari_gaussfit.jobs.objects import Asked
    from napari_gaussfit.stacks.stack import Stack

__all__ = ["answer_outlook", "found_outlook"]

ARRAYS = "counts", "psnr", "psnr_error", "noise_share"


def found_outlook(ask: Asked) -> Outlook:
    """Return what numbers of Gaussians would reach in the stack that the process keeps.

    Parameters
    ----------
    ask : callable
        Sends a question to the process that computes, and returns the answer.

    Raises
    ------
    FitError
        If it cannot be told, or the process was closed meanwhile.
    """
    answer = ask(Message("outlook"))
    known: dict[str, Any] = answer.arrays | answer.words
    return Outlook(**known)


def answer_outlook(_question: Message, stack: Stack) -> Message:
    """Return the answer to that question.

    Parameters
    ----------
    stack : Stack
        That the process keeps.
    """
    known = asdict(outlook(stack))
    arrays = {name: known.pop(name) for name in ARRAYS}
    return Message("outlook", known, arrays)
