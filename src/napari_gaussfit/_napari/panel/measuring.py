"""Measuring the Gaussians of a fit at rest, while the window lives: numbers with error bars."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, Signal

from napari_gaussfit.errors import GaussfitError
from napari_gaussfit.jobs.renderer import Renderer, measured

if TYPE_CHECKING:
    from napari_gaussfit.fitting.result import FitResult
    from napari_gaussfit.stacks.stack import Stack

__all__ = ["Measuring"]


class Measuring(QObject):
    """Measures one fit at a time, in a process of its own. Lives in the GUI's thread."""

    ended = Signal(object, str)
    """The `FitResult` with its measurement; or None, and why there is none."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._under_way: list[Renderer] = []
        under_way = self._under_way
        # napari destroys the panel with the window, unasked.
        self.destroyed.connect(lambda: _close(under_way))

    @property
    def active(self) -> bool:
        """Whether a fit is being measured."""
        return bool(self._under_way)

    def start(self, fit: FitResult, stack: Stack) -> None:
        """Measure a fit of a stack; one that is being measured is given up."""
        from napari.qt.threading import create_worker

        self.give_up()
        renderer = Renderer()
        self._under_way.append(renderer)
        thread = create_worker(_outcome, fit, stack, renderer, _start_thread=False)
        thread.returned.connect(self._end)
        thread.start()

    def give_up(self) -> None:
        """End the process at once; nobody is told."""
        _close(self._under_way)

    def _end(self, outcome: tuple[Renderer, FitResult | None, str]) -> None:
        renderer, fit, error = outcome
        if renderer in self._under_way:
            self._under_way.clear()
            self.ended.emit(fit, error)


def _close(renderers: list[Renderer]) -> None:
    while renderers:
        renderers.pop().close()


def _outcome(
    fit: FitResult, stack: Stack, renderer: Renderer
) -> tuple[Renderer, FitResult | None, str]:
    """Measure, and return what has come of it. Runs in a thread."""
    try:
        with renderer:
            return renderer, measured(fit, stack, renderer), ""
    except GaussfitError as error:
        return renderer, None, str(error)
