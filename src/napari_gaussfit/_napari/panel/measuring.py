"""Measuring the Gaussians of a fit at rest, while the window lives: numbers with error bars."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_gaussfit._napari.panel.asking import Asking
from napari_gaussfit.jobs.renderer import measured

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_gaussfit.fitting.result import FitResult
    from napari_gaussfit.stacks.stack import Stack

__all__ = ["Measuring"]


class Measuring(Asking):
    """Measures one fit at a time, in a process of its own; `ended` tells the measured fit."""

    def start(self, fit: FitResult, stacks: Sequence[Stack]) -> None:
        """Measure a fit of a stack, or of channels; one that is being measured is given up."""
        self.give_up()
        self.ask(lambda renderer: measured(fit, stacks, renderer))
