"""Cells and traces as results: those of a fit are a row of the list, however they were changed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from qtpy.QtCore import QObject

from napari_gaussfit._napari.layers.objects import FitPoints
from napari_gaussfit._napari.layers.opened import placement_of
from napari_gaussfit._napari.panel.kept import Kept, NotShownError
from napari_gaussfit.jobs.objects import CellsAsked
from napari_gaussfit.stacks.units import UNIT_WORDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_gaussfit._napari.panel.fits import ResultsPanel
    from napari_gaussfit._napari.panel.kept import Keeper
    from napari_gaussfit._napari.panel.object_page import ObjectPage
    from napari_gaussfit.fitting.result import FitResult
    from napari_gaussfit.jobs.session_folder import About
    from napari_gaussfit.stacks.facts import StackFacts

__all__ = ["KeptCells", "KeptObjects", "KeptTrace", "ObjectsHome"]

_OF = "of"
"""The array of the file in which cells are kept: the cell of each Gaussian."""


@dataclass(eq=False, kw_only=True)
class KeptObjects(Kept):
    """What was found in a fit.

    Parameters
    ----------
    points : FitPoints
        The layer of centres of the fit they were found in.
    asked : CellsAsked or float or None
        What brings the same objects again.
    found : FoundCells or FoundTrace or None
        The objects; None after a crash, until they are asked for again.
    """

    points: FitPoints
    asked: Any
    found: Any = None

    @property
    def stack(self) -> StackFacts:
        """What was fitted."""
        return self.points.fit.stack

    @property
    def fits(self) -> tuple[FitResult, ...]:
        """The fit in which they were found."""
        return (self.points.fit,)

    @property
    def count(self) -> str:
        """How many there are."""
        return "" if self.found is None else f"{len(self.found.table):,}"

    @property
    def details(self) -> str:
        """In what they were found."""
        return f"In {len(self.points.fit.field):,} Gaussians of {self.stack.name}."


class KeptCells(KeptObjects):
    """Cells or nuclei."""

    kind = place = "cells"

    @property
    def quality(self) -> str:
        """How many are cut by the border."""
        if self.found is None:
            return "not shown since"
        cut = int(self.found.table["at_border"].sum())
        return f"{cut:,} at the border" if cut else "none at the border"

    @property
    def fits(self) -> tuple[FitResult, ...]:
        """The fit, with the cell of each Gaussian."""
        return (replace(self.points.fit, state={_OF: np.asarray(self.asked.of)}),)

    @property
    def words(self) -> dict[str, Any]:
        """How they were grouped."""
        return {"saddle": self.asked.saddle, "radius": self.asked.radius}

    @staticmethod
    def asked_in(fit: FitResult, words: dict[str, Any]) -> CellsAsked:
        """Return what brings the same cells again."""
        return CellsAsked(words["saddle"], fit.state[_OF].astype(np.intp), words["radius"])


class KeptTrace(KeptObjects):
    """Neurites."""

    kind = place = "neurites"

    @property
    def quality(self) -> str:
        """How long they are in all."""
        if self.found is None:
            return "not shown since"
        unit = UNIT_WORDS[self.stack.unit]
        return f"{self.found.table['length'].sum():.4g} {unit} in all"

    @property
    def words(self) -> dict[str, Any]:
        """The least length that was asked for."""
        return {"shortest": self.asked}

    @staticmethod
    def asked_in(_fit: FitResult, words: dict[str, Any]) -> float | None:
        """Return what brings the same trace again."""
        shortest: float | None = words["shortest"]
        return shortest


class ObjectsHome(QObject):
    """Shows kept objects on the page where they are found, and keeps those that are found there.

    Parameters
    ----------
    keeping : Keeper
        Who has the list.
    panel : ResultsPanel
        The panel that has the page of objects.
    kind : type
        The kind of the results: cells or neurites.
    page : ObjectPage
        Where they are found.
    """

    def __init__(
        self,
        keeping: Keeper,
        panel: ResultsPanel,
        kind: type[KeptCells | KeptTrace],
        page: ObjectPage,
    ) -> None:
        super().__init__(cast("QObject", keeping))
        self._keeping, self._panel, self._kind, self._page = keeping, panel, kind, page
        page.answered.connect(self._keep)

    def show(self, result: KeptObjects, *, raised: bool = True) -> None:
        """Show layers and rows; those of before a crash are found again."""
        self._page.show_again(result.points, result.asked, result.found, anew=raised)
        if raised:
            self._panel.show_structure(self._panel.objects)
            self._panel.objects.choose(self._page)

    def save(self, result: KeptObjects) -> None:
        """Ask for a folder, and write what the command line writes."""
        if self._page.of is not result.points or self._page.found is None:
            raise NotShownError(f"Not saved: {result.name} has to be shown first.")
        self._page.ask_where()

    def restored(self, fits: Sequence[FitResult], about: About) -> KeptObjects:
        """Return objects as they were kept; they are found again when they are shown."""
        [fit] = fits
        asked = self._kind.asked_in(fit, about.words)
        fit = replace(fit, state={})
        source = self._keeping.source_for(fit)
        placement = placement_of(fit.stack) if source is None else source.placement
        of = {"layer": fit.stack.name} if source is None else source.record()
        points = FitPoints(fit, placement, fit.stack.name, of)
        return self._kind(name=about.name, path=about.path, points=points, asked=asked)

    def _keep(self) -> None:
        """Keep what was found; found again in the same fit, it is the same result."""
        page = self._page
        if page.of is None:
            return
        known = [one for one in self._keeping.results if isinstance(one, self._kind)]
        result = next((one for one in known if one.points is page.of), None)
        if result is not None:
            result.asked, result.found = page.asked, page.found
            self._keeping.changed(result)
        else:
            result = self._kind(
                name=self._keeping.results.free_name(f"{page.of.name} {page.folder}"),
                points=page.of,
                asked=page.asked,
                found=page.found,
            )
            self._keeping.insert(result)
        self._keeping.results.show(result)
