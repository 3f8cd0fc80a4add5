"""What a person does to a window before anything is tested: a stack is added, files are dropped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QMimeData, QPoint, QPointF, Qt, QUrl
from qtpy.QtGui import QDragEnterEvent, QDropEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QRadioButton

from napari_gaussfit._napari.layers.unwrapped import unwrapped

if TYPE_CHECKING:
    from pathlib import Path

    from napari_gaussfit.stacks.stack import Stack


def add_stack(viewer: Any, stack: Stack, name: str = "beads") -> Any:
    """Add a stack in micrometers, and return its layer."""
    place = {"scale": stack.spacing, "units": ("um",) * 3, "axis_labels": ("z", "y", "x")}
    return viewer.add_image(stack.voxels, name=name, **place)


def open_panel(viewer: Any) -> Any:
    """Open the panel beside what a viewer has."""
    _, panel = viewer.window.add_plugin_dock_widget("napari-gaussfit", "Gaussian fit")
    return panel


def reopened(panel: Any) -> Any:
    """Close the panel, and open it again."""
    viewer = panel.viewer
    viewer.window.remove_dock_widget(panel)
    return open_panel(viewer)


def choose(panel: Any, words: str) -> None:
    """Choose what is looked for, by what stands beside the button."""
    [button] = [one for one in panel.findChildren(QRadioButton) if words in one.text()]
    QTest.mouseClick(button, Qt.MouseButton.LeftButton, pos=QPoint(8, button.height() // 2))


def drop(widget: Any, *paths: Path) -> None:
    """Drop files on a widget: the events that a file manager has Qt send."""
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(path)) for path in paths])
    button, no_key = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
    entered = QDragEnterEvent(QPoint(9, 9), Qt.DropAction.CopyAction, data, button, no_key)
    QApplication.sendEvent(widget, entered)
    assert entered.isAccepted(), f"{widget} takes no files"
    dropped = QDropEvent(QPointF(9, 9), Qt.DropAction.CopyAction, data, button, no_key)
    QApplication.sendEvent(widget, dropped)


def delete_layer(viewer: Any, name: str) -> None:
    """Delete a layer as a person does: it is selected, and Delete is pressed in the list."""
    viewer.layers.selection = {viewer.layers[name]}
    listed = unwrapped(viewer).window._qt_viewer.layers
    QTest.keyClick(listed, Qt.Key.Key_Delete)
    assert name not in viewer.layers


def delete_layer_by_button(viewer: Any, name: str) -> None:
    """Delete a layer with the button below the list."""
    viewer.layers.selection = {viewer.layers[name]}
    buttons = unwrapped(viewer).window._qt_viewer.layerButtons
    QTest.mouseClick(buttons.deleteButton, Qt.MouseButton.LeftButton)
    assert name not in viewer.layers
