"""The tour of the panel: each stop is in sight as it is spoken of, and none is offered blindly."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QLabel, QPushButton

from napari_gaussfit._napari.panel.panel import GaussianFitPanel
from napari_gaussfit._napari.panel.tour import stops_of, tour_frame

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.gui

MODULE = "napari._qt.widgets.qt_viewer_tour"

has_frame = pytest.mark.skipif(tour_frame() is None, reason="needs the tours of napari 0.9")


@pytest.fixture
def panel(make_napari_viewer: Any) -> Any:
    viewer = make_napari_viewer(show=True)
    panel = GaussianFitPanel(viewer)
    viewer.window.add_dock_widget(panel)
    return panel


def tour_button(panel: Any) -> QPushButton:
    """Return the button that begins the tour, in the window of help."""
    [button] = panel.window().findChildren(QPushButton, "gaussfit_tour")
    return button


def said(panel: Any) -> list[str]:
    """Return what stands in the tour's window."""
    return [label.text() for label in panel.tour.running._tooltip.findChildren(QLabel)]


def press(panel: Any, name: str) -> None:
    """Press a button of the tour."""
    [button] = [
        one for one in panel.tour.running._tooltip.findChildren(QPushButton) if one.text() == name
    ]
    QTest.mouseClick(button, Qt.MouseButton.LeftButton)


def start(panel: Any) -> None:
    """Press the button below the page that help shows."""
    QTest.mouseClick(panel.tabs.cornerWidget(), Qt.MouseButton.LeftButton)
    button = tour_button(panel)
    assert button.isVisible()
    QTest.mouseClick(button, Qt.MouseButton.LeftButton)


@has_frame
def test_each_stop_of_the_tour_is_in_sight_as_it_is_spoken_of(
    panel: Any, wait_until: Callable[..., None]
) -> None:
    panel.modes.choose(panel.spots.title)
    start(panel)
    stops = stops_of(panel)
    for number, stop in enumerate(stops):
        wait_until(lambda title=stop.title: title in said(panel), 10)
        assert stop.widget.isVisible()
        top = stop.widget.mapTo(panel, stop.widget.rect().topLeft())
        assert panel.rect().contains(top), f"{stop.title} begins at {top}"
        assert f"{number + 1}/{len(stops)}" in said(panel)
        press(panel, "Finish" if number == len(stops) - 1 else "Next")
    assert panel.tour.running is None


@has_frame
def test_escape_ends_the_tour_and_another_begins(
    panel: Any, wait_until: Callable[..., None]
) -> None:
    start(panel)
    wait_until(lambda: stops_of(panel)[0].title in said(panel), 10)
    start(panel)
    QTest.keyClick(panel, Qt.Key.Key_Escape)
    assert panel.tour.running is None
    start(panel)
    wait_until(lambda: stops_of(panel)[0].title in said(panel), 10)
    panel.close_down()
    assert panel.tour.running is None


def test_no_tour_is_offered_where_napari_has_none(
    monkeypatch: pytest.MonkeyPatch, make_napari_viewer: Any
) -> None:
    monkeypatch.setitem(sys.modules, MODULE, None)
    assert tour_frame() is None
    panel = GaussianFitPanel(make_napari_viewer())
    assert panel.tour is None
    QTest.mouseClick(panel.tabs.cornerWidget(), Qt.MouseButton.LeftButton)
    assert not panel.window().findChildren(QPushButton, "gaussfit_tour")
    panel.close_down()


@has_frame
def test_no_tour_is_offered_where_napari_has_another_frame(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @dataclass(frozen=True)
    class Step:
        target: object
        words: str

    monkeypatch.setattr(f"{MODULE}.TourStep", Step)
    assert tour_frame() is None
