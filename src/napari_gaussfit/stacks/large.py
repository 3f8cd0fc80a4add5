"""From which size on a stack is large: read by parts, known from a sample, fitted by tiles."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["LARGE", "is_large"]

LARGE = 2**26
"""Voxels from which a stack is fitted by tiles unless told otherwise: the 700 steps of a fit in one
piece see each of them ten times, and it needs 2 GB."""


def is_large(shape: Sequence[int]) -> bool:
    """Tell whether a stack is looked at by tiles, or by a sample, unless told otherwise.

    Parameters
    ----------
    shape : sequence of int
        Its voxels along each axis.

    Returns
    -------
    bool
        From `LARGE` voxels on.
    """
    return prod(shape) >= LARGE
