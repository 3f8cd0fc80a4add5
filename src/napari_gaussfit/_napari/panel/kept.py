"""What a row of the list of results is of, whatever its kind, and who shows it. Knows no Qt."""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from napari_gaussfit.jobs.session_folder import About, now
from napari_gaussfit.jobs.verdict import details_of, held_out_words, verdict_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from napari.layers import Points

    from napari_gaussfit._napari.layers.source import Source
    from napari_gaussfit.fitting.result import FitResult
    from napari_gaussfit.jobs.versions import Version
    from napari_gaussfit.stacks.facts import StackFacts

__all__ = ["STRUCTURE", "Home", "Keeper", "Kept", "NotShownError", "Result"]

STRUCTURE = "structure"
"""Where the panel shows fits, and fits of many times: one of all these at a time."""


class NotShownError(Exception):
    """A result cannot be shown, and why."""


@dataclass(eq=False, kw_only=True)
class Kept(ABC):
    """A result that a viewer keeps, whatever becomes of layers and panel.

    Parameters
    ----------
    name : str
        What a person calls it.
    path : str
        The file of its stack, "" where it has none.
    made : datetime
        When it first came to rest.
    key : str
        The stem of the files in which it is kept.
    """

    kind: ClassVar[str]
    """What was looked for, in a word."""

    place: ClassVar[str]
    """Where it is shown; one result at a time is."""

    actions: ClassVar[frozenset[str]] = frozenset({"Show", "Save…", "Remove"})
    """Buttons that mean something for it."""

    name: str
    path: str = ""
    made: datetime = field(default_factory=now)
    key: str = field(default_factory=lambda: secrets.token_hex(6))

    @property
    @abstractmethod
    def stack(self) -> StackFacts:
        """What it is of."""

    @property
    @abstractmethod
    def quality(self) -> str:
        """How good it is, in words."""

    @property
    @abstractmethod
    def count(self) -> str:
        """How many things were found."""

    @property
    @abstractmethod
    def details(self) -> str:
        """The numbers behind the words."""

    @property
    def held_out(self) -> str:
        """PSNR of projections never trained on, where there are any."""
        return ""

    @property
    def time(self) -> str:
        """Which of the stack's times, where it has several."""
        return "" if self.stack.time is None else str(self.stack.time)

    @property
    @abstractmethod
    def fits(self) -> tuple[FitResult, ...]:
        """The fits by which it is kept in files."""

    @property
    def words(self) -> dict[str, Any]:
        """What it takes beside the fits to show it again; JSON types."""
        return {}

    @property
    def about(self) -> About:
        """What is kept beside the fits."""
        made = self.made.isoformat()
        return About(self.name, made, self.path, self.kind, self.words, len(self.fits))


class Home(Protocol):
    """Shows the results of a kind, and knows when there is another."""

    def show(self, result: Any, *, raised: bool = True) -> None:
        """Show a result; `raised` brings its table to the front, and layers back that were deleted.

        Raises
        ------
        NotShownError
            If it cannot be shown.
        """
        ...

    def save(self, result: Any) -> None:
        """Ask where, and save a result.

        Raises
        ------
        NotShownError
            If only what is shown can be saved, and it is not.
        """
        ...

    def restored(self, fits: Sequence[FitResult], about: About) -> Kept:
        """Return a result as it was kept in files."""
        ...


class Keeper(Protocol):
    """Who has the list of results, a QObject, as far as homes know it."""

    session: Any
    results: Any
    fits: Any
    homes: dict[str, Home]

    def insert(self, result: Kept) -> None:
        """Put a result at the end of the list, and into a file."""
        ...

    def write(self, result: Kept) -> None:
        """Keep a result for the case of a crash, as it is now."""
        ...

    def changed(self, result: Kept) -> None:
        """Tell that a result is another by now."""
        ...

    def say(self, words: str) -> None:
        """Say what was done with the results."""
        ...

    def show(self, result: Kept) -> bool:
        """Show a result, and tell whether it is shown."""
        ...

    def source_for(self, fit: FitResult) -> Source | None:
        """Return the stack that is chosen in the panel, if a fit can be of it."""
        ...


@dataclass(eq=False, kw_only=True)
class Result(Kept):
    """A fit: Gaussians at rest.

    Parameters
    ----------
    version : Version
        As they are now.
    source : Source or None
        The stack; None where a file has brought the Gaussians alone.
    points : napari.layers.Points or None
        The layer that a file has brought.
    named_psf : str
        How its point spread function was named in the panel, "" where none was.
    """

    kind = "fit"
    place = STRUCTURE
    actions = Kept.actions | {"Compare", "Refine"}

    version: Version
    source: Source | None = None
    points: Points | None = None
    named_psf: str = ""

    @property
    def fit(self) -> FitResult:
        """The record."""
        return self.version.fit

    @property
    def stack(self) -> StackFacts:
        """What was fitted."""
        return self.fit.stack

    @property
    def quality(self) -> str:
        """How good the fit is, in words."""
        if self.version.unedited is not None and self.fit.measurement is None:
            return "edited, not judged"
        if self.fit.measurement is not None:
            return "measured"
        return verdict_of(self.fit).words

    @property
    def held_out(self) -> str:
        """PSNR of projections never trained on."""
        return held_out_words(self.fit)

    @property
    def count(self) -> str:
        """How many Gaussians there are."""
        return f"{len(self.fit.field):,}"

    @property
    def details(self) -> str:
        """Its report."""
        return details_of(self.fit)

    @property
    def fits(self) -> tuple[FitResult, ...]:
        """The fit itself."""
        return (self.fit,)

    @property
    def words(self) -> dict[str, Any]:
        """What a fit does not say of itself."""
        return {"psf": self.named_psf} if self.named_psf else {}
