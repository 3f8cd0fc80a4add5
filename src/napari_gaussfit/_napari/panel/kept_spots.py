"""Spots as results: each search is a row of the list."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from qtpy.QtCore import QObject

from napari_gaussfit._napari.panel.kept import Kept, NotShownError
from napari_gaussfit._napari.panel.matching import needs_stack, path_of
from napari_gaussfit.fitting.result import FitResult
from napari_gaussfit.jobs.messages import Message
from napari_gaussfit.jobs.objects import spots_from, spots_message
from napari_gaussfit.model.field import GaussianField
from napari_gaussfit.stacks.units import UNIT_WORDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_gaussfit._napari.layers.source import Source
    from napari_gaussfit._napari.panel.fits import ResultsPanel
    from napari_gaussfit._napari.panel.kept import Keeper
    from napari_gaussfit.jobs.objects import FoundSpots
    from napari_gaussfit.jobs.session_folder import About
    from napari_gaussfit.stacks.facts import StackFacts

__all__ = ["KeptSpots", "SpotsHome"]

_TABLE, _LEFT = "table.", "left"
"""Arrays of the file in which spots are kept: columns, and which rows a person has left."""


@dataclass(eq=False, kw_only=True)
class KeptSpots(Kept):
    """The spots of a stack.

    Parameters
    ----------
    found : FoundSpots
        As the search has found them.
    facts : StackFacts
        What is known of the stack.
    left : ndarray of bool, shape [K]
        Which of them a person has not deleted.
    source : Source or None
        The stack; None after a crash, until it is chosen.
    """

    kind = place = "spots"

    found: FoundSpots
    facts: StackFacts
    left: NDArray[np.bool_]
    source: Source | None = None

    @property
    def stack(self) -> StackFacts:
        """What was searched."""
        return self.facts

    @property
    def count(self) -> str:
        """How many spots are left."""
        return f"{int(self.left.sum()):,}"

    @property
    def quality(self) -> str:
        """How many of those that are left have a flag, or were deleted."""
        flags = self.found.measurement.flags
        flagged = sum(1 for n in np.flatnonzero(self.left) if flags[n])
        words = f"{flagged:,} with a flag" if flagged else "none with a flag"
        gone = len(self.left) - int(self.left.sum())
        return f"{words}, {gone:,} deleted" if gone else words

    @property
    def details(self) -> str:
        """What was looked for, and what was assumed."""
        report, unit = self.found.report, UNIT_WORDS[self.facts.unit]
        least, largest = report["least_size"], report["largest_size"]
        sizes = f"FWHM {least:.3g} to {largest:.3g} {unit}"
        return "\n".join([sizes, *report["notes"]])

    @property
    def fits(self) -> tuple[FitResult, ...]:
        """The spots as Gaussians, measured, with the columns of their table."""
        [gaussians] = self.found.measurement.gaussians
        state = {n: a for n, a in self.found.answer.arrays.items() if n.startswith(_TABLE)}
        return (
            FitResult(
                (GaussianField.from_numpy(gaussians),),
                self.facts,
                state=state | {_LEFT: self.left},
                measurement=self.found.measurement,
            ),
        )

    @property
    def words(self) -> dict[str, Any]:
        """The report, and the words of the table."""
        answer = self.found.answer.words
        return {name: answer[name] for name in ("report", "columns", "texts")}


class SpotsHome(QObject):
    """Shows kept spots where spots are looked for, and keeps those that are found there.

    Parameters
    ----------
    keeping : Keeper
        Who has the list.
    panel : ResultsPanel
        In which spots are looked for.
    """

    def __init__(self, keeping: Keeper, panel: ResultsPanel) -> None:
        super().__init__(cast("QObject", keeping))
        self._keeping, self._panel, self._mode = keeping, panel, panel.spots
        self._mode.found_some.connect(self._keep)
        self._mode.deleted_some.connect(self._heed)

    def show(self, result: KeptSpots, *, raised: bool = True) -> None:
        """Show rings and rows."""
        if result.source is None:
            result.source = self._keeping.source_for(result.fits[0])
        if result.source is None:
            words = f"Show needs the stack of {result.name}"
            raise NotShownError(needs_stack(words, result.fits[0]))
        source = result.source.placed_anew()
        self._mode.show_spots(result.found, source, result.left, anew=raised)
        if raised:
            self._panel.modes.choose(self._mode.title)
            self._panel.tabs.setCurrentWidget(self._mode.table)

    def save(self, result: KeptSpots) -> None:
        """Ask for a folder, and write what the command line writes."""
        if self._mode.found is not result.found:
            raise NotShownError(f"Not saved: {result.name} has to be shown first.")
        self._mode.ask_for_folder()

    def restored(self, fits: Sequence[FitResult], about: About) -> KeptSpots:
        """Return spots as they were kept."""
        [fit], words = fits, about.words
        if fit.measurement is None:
            raise ValueError(about.name)
        columns = {name: array for name, array in fit.state.items() if name.startswith(_TABLE)}
        answer = spots_message(
            fit.measurement, Message("table", dict(words), columns), words["report"]
        )
        return KeptSpots(
            name=about.name,
            path=about.path,
            found=spots_from(answer),
            facts=fit.stack,
            left=fit.state[_LEFT].astype(np.bool_),
        )

    def _keep(self) -> None:
        """Keep what a search has found."""
        found, source = self._mode.found, self._mode.found_in
        result = KeptSpots(
            name=self._keeping.results.free_name(f"{source.stack.name} spots"),
            path=path_of(source),
            found=found,
            facts=source.stack.facts,
            left=self._mode.kept,
            source=source,
        )
        self._keeping.insert(result)
        self._keeping.results.show(result)

    def _heed(self) -> None:
        """Keep what a person has deleted, or taken back."""
        shown = self._keeping.results.shown_at(KeptSpots.place)
        if isinstance(shown, KeptSpots) and shown.found is self._mode.found:
            shown.left = self._mode.kept
            self._keeping.changed(shown)
