"""Measuring the Gaussians that the panel shows, while the window lives: numbers with error bars."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal

from napari_gaussfit._napari.panel.asking import Asking
from napari_gaussfit.errors import GaussfitError
from napari_gaussfit.jobs.renderer import measured

if TYPE_CHECKING:
    from napari_gaussfit.fitting.result import FitResult
    from napari_gaussfit.jobs.versions import Version

__all__ = ["Measuring"]


class Measuring(Asking):
    """Measures one fit at a time, in a process of its own.

    Parameters
    ----------
    panel : GaussianFitPanel
        Which shows what is measured, and what comes of it.
    """

    changed = Signal()
    """It has begun, or has come to nothing."""

    def __init__(self, panel: Any) -> None:
        super().__init__(panel)
        self._panel = panel
        self._of: Version | None = None
        self.refusal = ""
        """Why nothing was measured, until it is tried again or another fit begins."""

        self.ended.connect(self._take)

    def measure(self) -> None:
        """Measure the Gaussians shown, as the user has edited them."""
        panel = self._panel
        stacks = panel.stacks_of_fit()
        if not stacks or panel.phase.active:
            return
        try:
            panel.take_edits()
            edited = panel.as_edited()
        except GaussfitError as error:
            self._say(str(error))
            return
        if edited is None or not len(edited.fit.field):
            self._say("no Gaussians are left; undo the edits")
            return
        self.refusal, self._of = "", edited
        self.give_up()
        self.ask(lambda renderer: measured(edited.fit, stacks, renderer))
        self.changed.emit()

    def forget(self) -> None:
        """Give up what is measured, and what was said of it: another fit begins."""
        self.give_up()
        self.refusal = ""

    def _take(self, fit: FitResult | None, error: str) -> None:
        """Show what was measured, unless the points are others by now."""
        before, same = self._of, False
        with suppress(GaussfitError):
            same = self._panel.as_edited() is before
        if fit is not None and before is not None and same:
            self._panel.show_version(before.measured(fit))
        edited = "" if same else "the points were edited; press Measure again"
        self._say(error or edited)

    def _say(self, reason: str) -> None:
        self.refusal = reason
        self.changed.emit()
