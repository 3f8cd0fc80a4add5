"""How much a run measures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

Choice = TypeVar("Choice")


@dataclass(frozen=True)
class Options:
    """What was asked for on the command line.

    Parameters
    ----------
    turns : int
        Times that ways are taken in turns for a median.
    plain_seconds : float
        How long the plain way may go on.
    small : bool
        Sizes at which everything runs in seconds, to see that it does: no figures.
    """

    turns: int = 5
    plain_seconds: float = 60.0
    small: bool = False

    def pick(self, full: Choice, small: Choice) -> Choice:
        """The full size, or the small one where small ones were asked for."""
        return small if self.small else full
