"""What can be undone: another version of a result's Gaussians, and results taken away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qtpy.QtGui import QUndoCommand

from napari_gaussfit.jobs.versions import MEASURING, undo_words

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_gaussfit._napari.panel.kept import Kept, Result
    from napari_gaussfit.jobs.versions import Choice, Version

__all__ = ["Change", "Moment", "Removal", "edit_words"]


@dataclass(frozen=True, eq=False)
class Moment:
    """A result as it was at a moment.

    Parameters
    ----------
    version : Version
        The Gaussians as they were then.
    choice : Choice or None
        What a refinement left to choose between.
    """

    version: Version
    choice: Choice | None = None


class Change(QUndoCommand):
    """Other Gaussians of a result.

    Parameters
    ----------
    result : Result
        Whose Gaussians they are.
    before, after : Moment
        What it was and is.
    show : callable
        Shows a result as of a moment.
    words : str
        What was done, for the button's tooltip.
    """

    def __init__(
        self,
        result: Result,
        before: Moment,
        after: Moment,
        show: Callable[[Result, Moment], None],
        words: str,
    ) -> None:
        super().__init__(words)
        self._result, self._before, self._after, self._show = result, before, after, show
        self._done = True

    def undo(self) -> None:
        """Show what was before."""
        self._show(self._result, self._before)
        self._done = False

    def redo(self) -> None:
        """Show what was made of it; nothing at first, when it is shown already."""
        if not self._done:
            self._show(self._result, self._after)
        self._done = True


class Removal(QUndoCommand):
    """Results that are taken from the list.

    Parameters
    ----------
    results : sequence of Kept
        The results that were taken from the list.
    remove, put_back : callable
        Take them away, and put them back.
    """

    def __init__(
        self,
        results: Sequence[Kept],
        remove: Callable[[Sequence[Kept]], None],
        put_back: Callable[[Sequence[Kept]], None],
    ) -> None:
        super().__init__(f"remove {', '.join(one.name for one in results)}")
        self._results, self._remove, self._put_back = tuple(results), remove, put_back

    def undo(self) -> None:
        """Put them back."""
        self._put_back(self._results)

    def redo(self) -> None:
        """Take them away."""
        self._remove(self._results)


def edit_words(before: Version, after: Version) -> str:
    """Say what was done to Gaussians."""
    if after.unedited is None:
        return undo_words(before.done) if before.unedited is after else "refine"
    if after.done[-1:] == (MEASURING,):
        return "measure"
    more = len(after.fit.field) - len(before.fit.field)
    if not more:
        return "move points"
    points = f"{abs(more):,} point{'s' * (abs(more) != 1)}"
    return f"add {points}" if more > 0 else f"delete {points}"
