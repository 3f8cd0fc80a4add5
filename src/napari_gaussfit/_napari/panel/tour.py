"""A tour of the panel, in the frame that napari's own tour has, from napari 0.9 on.

That frame is no public part of napari: where it is missing, or is another than the one this was
written for, no tour is offered, and nothing else is different.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject
from qtpy.QtWidgets import QScrollArea, QTabWidget, QWidget

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Stop", "Tour", "TourFrame", "stops_of", "tour_frame"]


@dataclass(frozen=True, eq=False)
class Stop:
    """A part of the panel that a tour stops at.

    Parameters
    ----------
    widget : QWidget
        Around which it is light, and all else dark.
    title, body : str
        What is said beside it.
    """

    widget: QWidget
    title: str
    body: str


@dataclass(frozen=True)
class TourFrame:
    """What napari makes a tour of: its classes, as far as they are used here."""

    tour: Callable[..., Any]
    step: Callable[..., Any]
    left: Any


def tour_frame() -> TourFrame | None:
    """Return what napari makes a tour of, None where this napari has none that is known here."""
    try:
        from napari._qt.widgets.qt_viewer_tour import GuidedTour, TourAnchor, TourStep

        steps = {"target", "title", "body", "anchor", "ensure_visible"}
        known = (
            steps <= set(inspect.signature(TourStep).parameters)
            and list(inspect.signature(GuidedTour).parameters) == ["steps", "parent_window"]
            and all(hasattr(GuidedTour, name) for name in ("start", "close_tour", "finished"))
        )
        return TourFrame(GuidedTour, TourStep, TourAnchor.LEFT) if known else None
    except (ImportError, AttributeError, TypeError, ValueError):
        return None


def stops_of(panel: Any) -> list[Stop]:
    """Return what a tour of the panel stops at, from a stack to what is saved."""
    return [
        Stop(
            panel.data.spacing,
            "The spacing of your stack",
            "The one thing to look at before a fit: the distance between voxels along z, y and x. "
            "Where the file does not say it, type it. Above it, the layer that is fitted.",
        ),
        Stop(
            panel.model.how_many,
            "How many Gaussians",
            "As many as the noise of your stack carries: the fit finds out. You may ask before.",
        ),
        Stop(
            panel.run,
            "Fit, and what it comes to",
            "Fit begins; Pause and Stop lose nothing. The coloured line says in words what is so: "
            "limited by noise, too few Gaussians, not converged.",
        ),
        Stop(
            panel.view,
            "Projections while it runs",
            "Data, fit and what is left of it lie beside the stack as layers. Choose here which "
            "way they look.",
        ),
        Stop(
            panel.table.view,
            "Every Gaussian, a row each",
            "A row brings the view to its Gaussian. Delete what is none, here or as points; "
            "Measure gives each number its error bar.",
        ),
        Stop(
            panel.kept.part,
            "All results",
            "Each fit stays here until you remove it: show, compare, refine, save. Press ? on any "
            "page to read about it.",
        ),
    ]


class Tour(QObject):
    """Leads from one part of the panel to the next, each in sight as it is spoken of.

    Parameters
    ----------
    frame : TourFrame
        What napari makes a tour of.
    stops : sequence of Stop
        In the order in which they are shown.
    prepare : callable
        Called as the tour begins: has the panel show what the stops are about.
    parent : QWidget
        The panel that the tour goes through.
    """

    def __init__(
        self,
        frame: TourFrame,
        stops: Sequence[Stop],
        prepare: Callable[[], object],
        parent: QWidget,
    ) -> None:
        super().__init__(parent)
        self._frame, self._stops, self._prepare = frame, tuple(stops), prepare
        self._panel = parent
        self.running: Any = None
        """napari's tour, None where none is under way."""

    def start(self) -> None:
        """Begin, unless it goes on already."""
        if self.running is not None:
            return
        self._prepare()
        # The panel's own window: where it floats, the tour is in it, and else in napari's.
        steps = [self._step(one) for one in self._stops]
        self.running = self._frame.tour(steps, self._panel.window() or self._panel)
        self.running.finished.connect(self._forget)
        self.running.start()

    def close(self) -> None:
        """End it, wherever it is."""
        if self.running is not None:
            self.running.close_tour()

    def _step(self, stop: Stop) -> Any:
        return self._frame.step(
            target=lambda: stop.widget,
            title=stop.title,
            body=stop.body,
            anchor=self._frame.left,
            ensure_visible=lambda: _bring_into_sight(stop.widget),
        )

    def _forget(self) -> None:
        self.running = None


def _bring_into_sight(widget: QWidget) -> bool:
    """Turn to the page that a widget is on, and scroll to it; tell whether anything moved."""
    moved, child, parent = False, widget, widget.parentWidget()
    while parent is not None:
        above = parent.parentWidget()
        if isinstance(above, QTabWidget) and above.indexOf(child) >= 0:
            moved = above.currentWidget() is not child or moved
            above.setCurrentWidget(child)
        if isinstance(parent, QScrollArea):
            before = widget.mapTo(parent, widget.rect().topLeft())
            parent.ensureWidgetVisible(widget)
            moved = widget.mapTo(parent, widget.rect().topLeft()) != before or moved
        child, parent = parent, above
    return moved
