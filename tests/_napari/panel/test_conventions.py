"""The panel is used without a mouse, without sight, and with its pages at hand."""

from __future__ import annotations

import itertools
import re
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from napari.utils import progress
from qtpy.QtCore import Qt, QTimer
from qtpy.QtGui import QMovie
from qtpy.QtTest import QTest
from qtpy.QtWidgets import (
    QAbstractButton,
    QAbstractSlider,
    QAbstractSpinBox,
    QApplication,
    QComboBox,
    QLabel,
    QLineEdit,
    QMenu,
    QScrollBar,
    QTableView,
    QTextBrowser,
)

from napari_gaussfit._napari.panel.conventions import (
    ACTIVITY_SECONDS,
    KEYS,
    Activity,
    order_focus,
)
from napari_gaussfit._napari.panel.help import PAGES, page_text
from napari_gaussfit._napari.worker import FitWorker, Phase

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_gaussfit.synthetic.phantoms import Phantom

pytestmark = pytest.mark.gui


@pytest.fixture
def panel(
    make_napari_viewer_proxy: Any, small_beads: Phantom, wait_until: Callable[..., None]
) -> Any:
    viewer = make_napari_viewer_proxy(show=True)
    viewer.add_image(small_beads.stack.voxels, scale=small_beads.stack.spacing)
    _, panel = viewer.window.add_plugin_dock_widget("napari-gaussfit", "Gaussian fit")
    wait_until(panel.run.buttons["Fit"].isEnabled)
    panel.window().activateWindow()
    wait_until(panel.window().isActiveWindow, 10)
    return panel


@pytest.mark.parametrize(
    ("kind", "offered"), [("image", True), ("points", True), ("labels", False)]
)
def test_the_menu_of_layers_has_the_panel_for_layers_that_it_can_use(
    make_napari_viewer: Any, kind: str, offered: bool
) -> None:
    viewer = make_napari_viewer()
    numbers = np.zeros((3, 3) if kind == "points" else (4, 5, 6), np.uint8)
    getattr(viewer, f"add_{kind}")(numbers)
    menu = viewer.window.layers_menu
    menu.aboutToShow.emit()
    [measure] = [one.menu() for one in menu.actions() if one.menu() and "easure" in one.text()]
    [action] = [one for one in measure.actions() if "Gaussian fit" in one.text()]
    assert action.isVisible() == offered


def test_each_button_has_a_key_that_works_wherever_the_focus_is(
    panel: Any, wait_until: Callable[..., None]
) -> None:
    asked: list[str] = []
    for name, button in panel.run.buttons.items():
        assert button.toolTip().endswith(f"({KEYS[name]})")
        button.clicked.disconnect()
        button.clicked.connect(lambda *_, name=name: asked.append(name))
    panel.tabs.setCurrentWidget(panel.table)
    panel.window().show()
    panel.window().activateWindow()
    wait_until(panel.isActiveWindow)  # shortcuts are those of the window that is in front
    panel.table.condition.setFocus()
    QApplication.processEvents()
    for key in dict.fromkeys(KEYS.values()):
        before = len(asked)
        # Once more each time: what is found out of the stack meanwhile has its say in it too.
        for name, button in panel.run.buttons.items():
            button.setEnabled(name != "Pause")
        QTest.keyClick(panel.window(), Qt.Key[f"Key_{key}"])
        # A button is seen to go down, and up again.
        wait_until(lambda before=before: len(asked) > before, 5)
    assert asked == ["Fit", "Resume", "Stop", "Refine", "Measure"]


def test_each_control_has_a_name_for_those_who_do_not_see_it(panel: Any) -> None:
    kinds = (
        QAbstractButton, QTableView, QAbstractSlider, QAbstractSpinBox, QComboBox, QLineEdit,
    )  # fmt: skip
    nameless = [
        widget
        for kind in kinds
        for widget in panel.findChildren(kind)
        if not isinstance(widget, QScrollBar)
        and not any(isinstance(one, QMenu) for one in parents(widget))  # pyqtgraph's, never shown
        and not widget.accessibleName()
        and not (isinstance(widget, QAbstractButton) and widget.text())
        and not widget.objectName().startswith(("qt_", "Scroll"))
    ]
    assert not nameless, [(type(one).__name__, one.objectName()) for one in nameless]
    assert panel.table._amplitude.accessibleName() == "Amplitude"


def parents(widget: Any) -> list[Any]:
    """Return what a widget is part of."""
    parent = widget.parentWidget()
    return [] if parent is None else [parent, *parents(parent)]


def test_the_tab_key_goes_through_the_panel_as_it_is_read(panel: Any) -> None:
    panel.tabs.setCurrentWidget(panel.table)
    QApplication.processEvents()
    table = panel.table
    order, widget = [], table.condition
    for _ in range(400):
        order.append(widget)
        widget = widget.nextInFocusChain()
        if widget is table.condition:
            break
    wanted = [table.condition, table.view, table.undo, table.columns, table.save]
    places = [order.index(one) for one in wanted]
    assert places == sorted(places)
    foot = [order.index(one) for one in panel.run.buttons.values()]
    assert foot == sorted(foot)
    assert places[-1] < foot[0]
    order_focus([panel])  # any part will do


@pytest.mark.parametrize("page", sorted({*PAGES.values()}))
def test_each_page_of_help_is_there_and_reads_as_text(page: str) -> None:
    text = page_text(page)
    assert text.startswith("# ")
    assert len(text) > 1000
    assert "![" not in text
    directives = [line for line in text.splitlines() if re.match(r":::|:[\w-]+:|```\{", line)]
    assert not directives


def test_each_way_of_a_page_of_help_has_its_name_above_it() -> None:
    ways = re.findall(r"^\*\*(\w+)\*\*$", page_text("spots.md"), flags=re.MULTILINE)
    assert ways == ["Panel", "Command", "Notebook"]


def test_help_shows_the_page_about_the_tab(panel: Any) -> None:
    panel.tabs.setCurrentWidget(panel.table)
    QTest.mouseClick(panel.tabs.cornerWidget(), Qt.MouseButton.LeftButton)
    [dialog] = [
        w for w in QApplication.topLevelWidgets() if w.windowTitle() == "Gaussian fit: Table"
    ]
    assert dialog.findChild(QTextBrowser).toPlainText().startswith("How to read the results")
    dialog.close()


def test_the_sign_of_activity_stands_still_while_a_fit_goes_on(panel: Any) -> None:
    # Each of its turns has the whole window composed anew, beside a fit that wants the cores.
    news = SimpleNamespace(snapshot=SimpleNamespace(iteration=10, iterations=150))
    panel.worker._enter(Phase.RUNNING)
    panel.activity._advance(news)
    movies = [label.movie() for label in panel.window().findChildren(QLabel) if label.movie()]
    assert movies
    assert not [movie for movie in movies if movie.state() == QMovie.MovieState.Running]
    panel.worker._enter(Phase.FINISHED)


@pytest.mark.usefixtures("qtbot")
def test_the_activity_dock_shows_a_fit_until_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    now = itertools.count(100.0, ACTIVITY_SECONDS / 2)
    monkeypatch.setattr("time.monotonic", lambda: next(now))
    worker = FitWorker()
    activity = Activity(worker, QLabel())
    before = set(progress._all_instances)
    worker._enter(Phase.RUNNING)
    for step in (10, 40, 41):  # half as long after each other as the dock takes
        news = SimpleNamespace(snapshot=SimpleNamespace(iteration=step, iterations=150))
        worker.updated.emit(news)
        QApplication.processEvents()
    [bar] = set(progress._all_instances) - before
    assert (bar.n, bar.total) == (41, 150)
    assert "Gaussian fit" in bar.desc
    worker._enter(Phase.PAUSING)
    QApplication.processEvents()
    assert "pausing" in bar.desc
    worker._enter(Phase.FINISHED)
    QApplication.processEvents()
    assert not set(progress._all_instances) - before
    activity.close()
    worker.close()


def test_nothing_happens_between_those_who_hear_of_an_update(panel: Any) -> None:
    """As a fit that came to rest there, whose points were then taken for those of one that runs."""
    heard: list[str] = []
    worker = panel.worker
    worker.updated.connect(lambda _news: heard.append("updated"))
    worker._enter(Phase.RUNNING)
    for step in (10, 20):
        news = SimpleNamespace(snapshot=SimpleNamespace(iteration=step, iterations=150))
        QTimer.singleShot(0, lambda: heard.append("ended"))
        worker.updated.emit(news)
        assert heard.pop() == "updated"
        assert not heard
        QApplication.processEvents()
        assert heard.pop() == "ended"
    worker._enter(Phase.FINISHED)
