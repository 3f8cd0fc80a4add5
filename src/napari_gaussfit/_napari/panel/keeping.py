"""Keeps a panel's results in its viewer's session, whatever their kind, and does what is asked.

Who shows the results of a kind is its `kept.Home`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from qtpy.QtCore import QObject, QTimer

from napari_gaussfit._napari.panel.controls import Controls
from napari_gaussfit._napari.panel.fits import Fits
from napari_gaussfit._napari.panel.kept import NotShownError
from napari_gaussfit._napari.panel.kept_objects import KeptCells, KeptTrace, ObjectsHome
from napari_gaussfit._napari.panel.kept_spot_times import SpotTimesHome
from napari_gaussfit._napari.panel.kept_spots import SpotsHome
from napari_gaussfit._napari.panel.kept_times import TimesHome
from napari_gaussfit._napari.panel.opening import Opening
from napari_gaussfit._napari.panel.preferences import open_as_preferred, preferences
from napari_gaussfit._napari.panel.result_list import ResultListPart
from napari_gaussfit._napari.panel.session import session_of
from napari_gaussfit._napari.panel.undo import Removal
from napari_gaussfit.jobs.sequence import SequenceNews

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_gaussfit._napari.layers.source import Source
    from napari_gaussfit._napari.panel.fits import ResultsPanel
    from napari_gaussfit._napari.panel.kept import Home, Kept
    from napari_gaussfit._napari.panel.over_time import OverTime
    from napari_gaussfit.fitting.result import FitResult
    from napari_gaussfit.jobs.job import News

__all__ = ["Keeping"]


class Keeping(QObject):
    """Stands between a panel, which shows results, and the session, which keeps all.

    Parameters
    ----------
    panel : ResultsPanel
        Which is closed before the session ends.
    """

    def __init__(self, panel: ResultsPanel) -> None:
        super().__init__(cast("QObject", panel))
        self._panel = panel
        self.session = session_of(panel.viewer)
        self.session.keeping = self
        self.results = self.session.results
        self.part = ResultListPart(self.results, self.session.undo)
        self.fits = Fits(self, panel)
        self.times = TimesHome(self, panel)
        self.homes: dict[str, Home] = {
            "fit": self.fits,
            "times": self.times,
            "spots": SpotsHome(self, panel),
            "spot times": SpotTimesHome(self, panel),
            "cells": ObjectsHome(self, panel, KeptCells, panel.objects.cells),
            "neurites": ObjectsHome(self, panel, KeptTrace, panel.objects.neurites),
        }
        """By the kind of the results that are shown there."""

        self._opening = Opening(self, panel)
        self.bar = self._opening.bar
        part = self.part
        part.show_asked.connect(self.show)
        part.compare_asked.connect(self.fits.compare)
        part.refine_asked.connect(self.fits.refine)
        part.save_asked.connect(self._save)
        part.remove_asked.connect(self._remove)
        part.undo_asked.connect(self.undo)
        part.redo_asked.connect(self.redo)
        self.results.renamed.connect(self.write)
        self.session.failed.connect(_warn)

    # The panel's life

    def reopen(self) -> None:
        """Show what the viewer's panel showed when it was closed last."""
        controls = self.session.controls
        QTimer.singleShot(0, self._find_window)
        if controls is None:
            open_as_preferred(self._panel)
        else:
            controls.set_in(self._panel)
        self.fits.reopen()
        for result in self.results.all_shown():
            if result.kind != "fit":
                self._try_to_show(result, raised=False)
        self._opening.look_around()
        if controls is not None:
            controls.show_again(self._panel)

    def close_down(self) -> None:
        """Keep what the panel's controls say, and what it shows, for the next one."""
        self.fits.close_down()
        self.session.controls = Controls.of_panel(self._panel)
        if self.session.keeping is self:
            self.session.keeping = None
        self._opening.close_down()

    def _find_window(self) -> None:
        """Have the session end with the window that the panel has come into."""
        widget: Any = self._panel
        while widget.parentWidget() is not None:
            widget = widget.parentWidget()
        if widget is not self._panel:
            self.session.end_with(widget)

    # What the panel tells

    def began(self, *, refining: bool) -> None:
        """Expect another fit; a refinement is of the one that is shown."""
        self.fits.began(refining=refining)
        self.part.allow(busy=True)

    def rested(self) -> None:
        """Let the list be used again: the fit has ended."""
        self.fits.rested()
        self.part.allow(busy=False)

    def keep_times(self, shown: OverTime | None, news: News) -> None:
        """Keep what was fitted of a recording."""
        if shown is not None and isinstance(news, SequenceNews):
            self.times.took(shown, news.times)

    # The list

    def insert(self, result: Kept) -> None:
        """Put a result at the end of the list, and into a file."""
        self.results.insert(len(self.results), result)
        self.write(result)
        self.part.select(result)

    def write(self, result: Kept) -> None:
        """Keep a result for the case of a crash, as it is now, unless Preferences say no."""
        if preferences().keep:
            self.session.folder.keep(result.key, result.fits, result.about)

    def changed(self, result: Kept) -> None:
        """Tell that a result is another by now."""
        self.write(result)
        self.results.tell()

    def say(self, words: str) -> None:
        """Say what was done with the results."""
        self.part.say(words)

    def source_for(self, fit: FitResult) -> Source | None:
        """Return the stack that is chosen in the panel, if a fit can be of it."""
        return self.fits.source_for(fit)

    def show(self, result: Kept) -> bool:
        """Show a result in the panel, unless a fit is under way; tell whether it is shown."""
        return not self._panel.phase.active and self._try_to_show(result, raised=True)

    def _try_to_show(self, result: Kept, *, raised: bool) -> bool:
        try:
            self.homes[result.kind].show(result, raised=raised)
        except NotShownError as error:
            self.say(str(error))
            return False
        self.results.show(result)
        self.say("")
        return True

    def undo(self) -> None:
        """Take the last edit, refinement or removal back."""
        self.fits.heed_edits()
        if not self._panel.phase.active:
            self.session.undo.undo()

    def redo(self) -> None:
        """Do again what was taken back."""
        self.fits.heed_edits()
        if not self._panel.phase.active:
            self.session.undo.redo()

    def _save(self, result: Kept) -> None:
        if result is not self.results.shown_at(result.place):
            self.show(result)
        try:
            self.homes[result.kind].save(result)
        except NotShownError as error:
            self.say(str(error))

    def _remove(self, results: Sequence[Kept]) -> None:
        self.fits.heed_edits()
        self.session.undo.push(Removal(results, self._take_away, self._put_back))
        names = ", ".join(one.name for one in results)
        self.say(f"Removed: {names}. Undo brings it back.")

    def _take_away(self, results: Sequence[Kept]) -> None:
        for result in results:
            self.results.remove(result)
            self.session.folder.drop(result.key)
            if self.results.shown_at(result.place) is result:
                self.results.show_none(result.place)

    def _put_back(self, results: Sequence[Kept]) -> None:
        for result in results:
            self.insert(result)


def _warn(reason: str) -> None:
    """Say that a result is not safe from a crash."""
    from napari.utils.notifications import show_warning

    show_warning(f"Gaussian fit: a result is not kept for the case of a crash: {reason}")
