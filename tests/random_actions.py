"""A person who does anything: seeded random actions, each written down before it is done.

The events are real ones: keys, clicks, and what napari's own widgets do to layers and view.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Layer, Points
from qtpy.QtCore import QPoint, QSize, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import (
    QAbstractButton,
    QAbstractSlider,
    QAbstractSpinBox,
    QApplication,
    QComboBox,
    QLineEdit,
    QScrollBar,
    QTabBar,
    QTableView,
    QWidget,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PLUGIN = "napari-gaussfit"
LEFT = Qt.MouseButton.LeftButton

TYPED = (
    "3", "0,5", "0.25", "12", "1e9", "-4", "abc", "", "200", "nan", "7.", "amplitude > 20",
    "fwhm 1 < 0,8 and z > 1", "flags has border", "intensity >", "ÄÖ'\"\\",
)  # fmt: skip
"""What is typed into boxes, whether it belongs there or not."""

KEYS = ("Key_F5", "Key_F6", "Key_F7", "Key_F8", "Key_F9", "Key_Tab", "Key_Escape", "Key_Return")
REOPEN = "close the panel, and open it again"
STALL_SECONDS = 1.0
"""Of processor time, which a busy machine does not lengthen."""


@dataclass(frozen=True, eq=False)
class View:
    """Which way a viewer looks, and at how much of it.

    Parameters
    ----------
    order, ndisplay, step
        Of the axes: `napari.components.Dims`.
    zoom : float
        Of the camera.
    size : tuple of int
        Width and height of the window.
    """

    order: tuple[int, ...]
    ndisplay: int
    step: tuple[int, ...]
    zoom: float
    size: tuple[int, int]

    @classmethod
    def of(cls, viewer: Any) -> View:
        """Return that of a viewer now."""
        dims, (_, _, width, height) = viewer.dims, viewer.window.geometry()
        zoom = viewer.scene.camera.zoom
        return cls(dims.order, dims.ndisplay, dims.current_step, zoom, (width, height))

    def take(self, viewer: Any) -> None:
        """Have a viewer look this way, and paint."""
        viewer.window.resize(*self.size)
        if len(self.order) == viewer.dims.ndim:
            viewer.dims.order = self.order
            viewer.dims.current_step = self.step
        viewer.dims.ndisplay = self.ndisplay
        viewer.scene.camera.zoom = self.zoom
        QApplication.processEvents()


@dataclass(frozen=True, eq=False)
class Stall:
    """An action after which a window did not answer for long.

    Parameters
    ----------
    took : float
        Seconds of processor time.
    said : str
        What the action was.
    before, after : View
        How the viewer looked.
    layers : list of tuple
        All that there were afterwards, as napari has them.
    panel : QSize
        The panel's size: what takes its place in napari alone leaves the canvas as much room.
    reopened : bool
        Whether the panel was closed and opened.
    """

    took: float
    said: str
    before: View
    after: View
    layers: list[tuple[Any, dict[str, Any], str]]
    panel: QSize
    reopened: bool = False

    def in_napari_alone(self, viewer: Any) -> float:
        """Return what the same takes a viewer with these layers, and nothing in the panel's place.

        That is the same change of view; and that the empty dock is closed and opened, if it was
        the panel that was.
        """
        for data, state, kind in self.layers:
            viewer.add_layer(Layer.create(data, state | {"metadata": {}}, kind))
        empty = self._dock(viewer)
        self.before.take(viewer)
        QTest.qWait(500)
        began = time.process_time()
        if self.reopened:
            viewer.window.remove_dock_widget(empty)
            QApplication.processEvents()
            self._dock(viewer)
        self.after.take(viewer)
        return time.process_time() - began

    def _dock(self, viewer: Any) -> QWidget:
        empty = QWidget()
        empty.setMinimumSize(self.panel)
        viewer.window.add_dock_widget(empty, name="nothing", area="right")
        return empty


class Person:
    """Does one random action after another.

    Parameters
    ----------
    viewer, panel
        A napari viewer with a stack, and the panel in it.
    seed : int
        Of the choices. What there is to choose from depends on how fast a fit goes.
    log : path
        Each action is in this file before it is done, so that a crash tells its way.
    """

    def __init__(self, viewer: Any, panel: Any, seed: int, log: Path) -> None:
        self.viewer, self.panel = viewer, panel
        self.rng = np.random.default_rng(seed)
        self.stalls: list[Stall] = []
        self.slowest: Stall | None = None
        self._stack = viewer.layers[0].as_layer_data_tuple()
        self._log = log.open("a", encoding="utf-8")
        self._actions: list[tuple[Callable[[], None], float]] = [
            (self.click, 5.0), (self.type, 4.0), (self.choose, 2.0), (self.slide, 2.0),
            (self.turn_page, 3.0), (self.press_key, 3.0), (self.use_table, 3.0),
            (self.edit_points, 2.0), (self.look, 3.0), (self.change_layers, 1.5),
            (self.delete_layer, 0.6), (self.change_window, 0.7), (self.reopen_panel, 0.25),
            (self.wait, 2.0),
        ]  # fmt: skip

    def act(self, count: int) -> None:
        """Do so many things, with the window's own turns between."""
        weights = np.array([weight for _, weight in self._actions])
        for number in range(count):
            chosen = self.rng.choice(len(weights), p=weights / weights.sum())
            self._number = number
            before, began = View.of(self.viewer), time.process_time()
            self._actions[chosen][0]()
            QApplication.processEvents()
            popup = QApplication.activePopupWidget()
            if popup is not None:
                popup.close()
            took = time.process_time() - began
            if took > STALL_SECONDS or self.slowest is None or took > self.slowest.took:
                self._note(took, before)
        self._log.close()

    def _note(self, took: float, before: View) -> None:
        """Keep what is needed to see how long napari alone takes."""
        layers = [one.as_layer_data_tuple() for one in self.viewer.layers]
        after, size = View.of(self.viewer), self.panel.size()
        stall = Stall(took, self._said, before, after, layers, size, self._said == REOPEN)
        if took > STALL_SECONDS:
            self.stalls.append(stall)
            self._log.write(f"     took {took:.2f} s, {len(layers)} layers\n")
        if self.slowest is None or took > self.slowest.took:
            self.slowest = stall

    def say(self, words: str) -> None:
        """Write down what is done next."""
        self._said = words
        self._log.write(f"{self._number:4} {words}\n")
        self._log.flush()

    def pick(self, things: list[Any]) -> Any:
        """Return one of some things, None where there is none."""
        return things[int(self.rng.integers(len(things)))] if things else None

    def seen(self, *kinds: type) -> list[Any]:
        """Return the panel's widgets of some kinds that can be used now."""
        return [
            widget
            for kind in kinds
            for widget in self.panel.findChildren(kind)
            if widget.isVisible() and widget.isEnabled() and not isinstance(widget, QScrollBar)
        ]

    def click(self) -> None:
        button = self.pick(self.seen(QAbstractButton))
        if button is not None:
            self.say(f"click {button.objectName() or button.text() or type(button).__name__}")
            button.setFocus()
            QTest.keyClick(button, Qt.Key.Key_Space)

    def type(self) -> None:
        box = self.pick(self.seen(QLineEdit))
        text = self.pick([*TYPED])
        if box is not None and not box.isReadOnly():
            ends = self.pick(["Key_Return", "Key_Tab", "Key_Escape"])
            self.say(f"type {text!r} into {_named(box)}, then {ends}")
            box.setFocus()
            QTest.keyClick(box, Qt.Key.Key_A, Qt.KeyboardModifier.ControlModifier)
            QTest.keyClicks(box, text)
            QTest.keyClick(box, Qt.Key[ends])

    def choose(self) -> None:
        box = self.pick(self.seen(QComboBox))
        if box is not None:
            key = self.pick(["Key_Down", "Key_Up", "Key_End", "Key_Home"])
            self.say(f"{key} in {_named(box)}: {box.currentText()}")
            QTest.keyClick(box, Qt.Key[key])

    def slide(self) -> None:
        slider = self.pick(self.seen(QAbstractSlider, QAbstractSpinBox))
        if slider is not None:
            key = self.pick(["Key_Right", "Key_Left", "Key_PageUp", "Key_Up", "Key_Down"])
            self.say(f"{key} in {type(slider).__name__} {_named(slider)}")
            QTest.keyClick(slider, Qt.Key[key])

    def turn_page(self) -> None:
        bar = self.pick(self.seen(QTabBar))
        if bar is not None:
            number = self.pick([n for n in range(bar.count()) if bar.isTabVisible(n)])
            self.say(f"tab {bar.tabText(number)}")
            QTest.mouseClick(bar, LEFT, pos=bar.tabRect(number).center())

    def press_key(self) -> None:
        key = self.pick([*KEYS])
        widget = QApplication.focusWidget() or self.panel
        self.say(f"{key} in {type(widget).__name__}")
        QTest.keyClick(widget, Qt.Key[key])

    def use_table(self) -> None:
        view = self.pick(self.seen(QTableView))
        if view is None or not view.model().rowCount():
            return
        how = self.pick(["click", "double", "sort", "all", "copy", "enter"])
        at = QPoint(20, int(self.rng.integers(1, max(2, view.viewport().height()))))
        self.say(f"table: {how} at {at.y()}")
        if how in {"click", "double", "enter"}:
            QTest.mouseClick(view.viewport(), LEFT, pos=at)
        if how == "double":
            QTest.mouseDClick(view.viewport(), LEFT, pos=at)
        elif how == "enter":
            QTest.keyClick(view, Qt.Key.Key_Return)
        elif how == "all":
            view.selectAll()
        elif how == "copy":
            QTest.keyClick(view, Qt.Key.Key_C, Qt.KeyboardModifier.ControlModifier)
        elif how == "sort":
            header = view.horizontalHeader()
            x = int(self.rng.integers(max(1, header.width())))
            QTest.mouseClick(header.viewport(), LEFT, pos=QPoint(x, 5))

    def edit_points(self) -> None:
        layer = self.pick([one for one in self.viewer.layers if isinstance(one, Points)])
        if layer is None or not len(layer.data):
            return
        how = self.pick(["select", "delete", "move", "add"])
        chosen = {int(n) for n in self.rng.integers(len(layer.data), size=3)}
        self.say(f"points of {layer.name!r}: {how} {sorted(chosen)} of {len(layer.data)}")
        if how in {"select", "delete"}:
            layer.selected_data = chosen
        if how == "delete":
            layer.remove_selected()
        elif how == "move":
            moved = layer.data.copy()
            moved[[*chosen]] += self.rng.normal(size=moved.shape[1])
            layer.data = moved
        elif how == "add":
            layer.add(layer.data[[*chosen]] + 0.5)

    def look(self) -> None:
        how = self.pick(["slice", "slice", "3d", "zoom", "order"])
        self.say(f"look: {how}")
        dims = self.viewer.dims
        if how == "slice":
            last = int(dims.nsteps[0])
            dims.set_current_step(0, int(self.rng.integers(max(1, last))))
        elif how == "3d":
            dims.ndisplay = 5 - dims.ndisplay
        elif how == "zoom":
            self.viewer.scene.camera.zoom *= float(self.rng.choice([0.5, 2.0]))
        elif dims.ndim == 3:
            dims.roll()

    def change_layers(self) -> None:
        layer = self.pick([*self.viewer.layers])
        if layer is None:
            return
        how = self.pick(["hide", "select", "rename", "reverse", "contrast"])
        self.say(f"layer {layer.name!r}: {how}")
        if how == "hide":
            layer.visible = not layer.visible
        elif how == "select":
            self.viewer.layers.selection = {layer}
        elif how == "rename":
            layer.name = f"{layer.name} anew"[-40:]
        elif how == "reverse":
            self.viewer.layers.reverse()
        elif hasattr(layer, "contrast_limits"):
            low, high = layer.contrast_limits
            layer.contrast_limits = (low, low + 0.9 * (high - low) + 1e-6)

    def delete_layer(self) -> None:
        layer = self.pick([*self.viewer.layers])
        if layer is not None:
            self.say(f"delete layer {layer.name!r}")
            self.viewer.layers.remove(layer)
        if not any(one.ndim >= 3 for one in self.viewer.layers):
            self.say("open the stack again")
            data, keywords, _ = self._stack
            self.viewer.add_image(data, **keywords)

    def change_window(self) -> None:
        how = self.pick(["theme", "small", "large"])
        self.say(f"window: {how}")
        if how == "theme":
            self.viewer.theme = "light" if self.viewer.theme == "dark" else "dark"
        else:
            self.panel.window().resize(*((1024, 600) if how == "small" else (1270, 1000)))

    def reopen_panel(self) -> None:
        self.say(REOPEN)
        self.viewer.window.remove_dock_widget(self.panel)
        QApplication.processEvents()
        _, self.panel = self.viewer.window.add_plugin_dock_widget(PLUGIN, "Gaussian fit")

    def wait(self) -> None:
        milliseconds = int(self.rng.integers(20, 600))
        self.say(f"wait {milliseconds} ms")
        end = time.perf_counter() + milliseconds / 1000
        while time.perf_counter() < end:
            QTest.qWait(10)


def _named(widget: Any) -> str:
    """Return what a widget is called, or what it is part of."""
    while widget is not None:
        if widget.objectName() or widget.accessibleName():
            return str(widget.objectName() or widget.accessibleName())
        widget = widget.parentWidget()
    return "?"
