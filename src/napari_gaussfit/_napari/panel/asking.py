"""Asking a process of its own for something, while the window lives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Signal

from napari_gaussfit._napari.layers.destroyed import when_destroyed
from napari_gaussfit.jobs.outcome import outcome_of
from napari_gaussfit.jobs.renderer import Renderer

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_gaussfit.stacks.stack import Stack

    Question = Callable[[Renderer], Any]

__all__ = ["Asking"]


class Asking(QObject):
    """Asks one thing at a time, of those that wait the newest. Lives in the GUI's thread.

    Parameters
    ----------
    parent : QObject, optional
        With it the process ends.
    keeps : bool
        Whether the process stays for the next question, with what it knows by then.
    """

    ended = Signal(object, str)
    """The answer; or None, and why there is none. Nothing of what was given up."""

    told = Signal(object)
    """How far it is, in words by name."""

    def __init__(self, parent: QObject | None = None, *, keeps: bool = False) -> None:
        super().__init__(parent)
        self._keeps = keeps
        self._stack: Stack | None = None
        self._renderers: list[Renderer] = []
        self._busy = False
        self._waiting: Question | None = None
        renderers = self._renderers
        when_destroyed(self, lambda: _close(renderers))

    @property
    def active(self) -> bool:
        """Whether an answer is still to come."""
        return self._busy

    def about(self, stack: Stack | None) -> None:
        """Have the process keep a stack; what is asked of another is given up."""
        if stack is not self._stack:
            self.give_up()
            self._stack = stack

    def ask(self, question: Question) -> None:
        """Ask, now or after what is being answered; what waited before is not asked any more.

        Parameters
        ----------
        question : callable
            Given a renderer, returns the answer. Called in a thread.
        """
        if self._busy:
            self._waiting = question
            return
        from napari.qt.threading import create_worker

        if not self._renderers:
            known = () if self._stack is None else (self._stack,)
            self._renderers.append(Renderer(*known))
        self._busy = True
        thread = create_worker(_outcome, question, self._renderers[0], _start_thread=False)
        thread.returned.connect(self._end)
        thread.start()

    def give_up(self) -> None:
        """End the process at once; nobody is told."""
        self._waiting, self._busy = None, False
        _close(self._renderers)

    def _end(self, outcome: tuple[Renderer, Any, str]) -> None:
        renderer, answer, error = outcome
        if renderer not in self._renderers:
            return
        self._busy = False
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            self.ask(waiting)
        elif not self._keeps:
            _close(self._renderers)
        self.ended.emit(answer, error)


def _close(renderers: list[Renderer]) -> None:
    while renderers:
        renderers.pop().close()


def _outcome(question: Question, renderer: Renderer) -> tuple[Renderer, Any, str]:
    """Ask, and return what has come of it. Runs in a thread."""
    return renderer, *outcome_of(question, renderer)
