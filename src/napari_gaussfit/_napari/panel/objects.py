"""The part of the panel that finds objects in a fit: which fit, and which kind of object."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import (
    QButtonGroup,
    QHBoxLayout,
    QRadioButton,
    QStackedWidget,
    QVBoxLayout,
    QWidget,
)

from napari_gaussfit._napari.layers.objects import FitPoints, refusal_of_fit
from napari_gaussfit._napari.panel.cells import CellsPage
from napari_gaussfit._napari.panel.layer_box import LayerBox
from napari_gaussfit._napari.panel.neurites import NeuritesPage
from napari_gaussfit._napari.panel.widgets import Form
from napari_gaussfit.errors import GaussfitError

if TYPE_CHECKING:
    from napari.layers import Points
    from napari.viewer import Viewer

    from napari_gaussfit._napari.panel.object_page import ObjectPage

__all__ = ["ObjectsPart"]


class ObjectsPart(QWidget):
    """Cells and neurites in a fit that is in the viewer, finished or saved before.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Whose Points layers carry fits.
    """

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self._viewer = viewer
        self._known: FitPoints | None = None
        self.box = LayerBox(
            refusal_of_fit,
            nothing="no fit",
            tip="Points that carry a fit: of one that has finished or stopped, or of a saved one.",
        )
        self.cells, self.neurites = CellsPage(viewer), NeuritesPage(viewer)
        self.pages: dict[str, ObjectPage] = {
            "Cells or nuclei": self.cells,
            "Neurites": self.neurites,
        }
        form = Form()
        form.add_row("Fit", self.box)
        self._stack = QStackedWidget()
        self._choice = QButtonGroup(self)
        self._buttons: list[QRadioButton] = []
        row = QHBoxLayout()
        row.setContentsMargins(4, 0, 4, 0)
        for number, (title, page) in enumerate(self.pages.items()):
            self._stack.addWidget(page)
            # As the points are by then: nobody tells of every edit.
            page.start.pressed.connect(self.look_again)
            button = QRadioButton(title)
            button.setChecked(number == 0)
            button.setToolTip("What the Gaussians of the fit are parts of.")
            self._choice.addButton(button, number)
            self._buttons.append(button)
            row.addWidget(button)
        row.addStretch(1)
        box = QVBoxLayout(self)
        box.setContentsMargins(4, 4, 4, 4)
        box.addWidget(form)
        box.addLayout(row)
        box.addWidget(self._stack, 1)
        self._choice.idToggled.connect(self._turn)
        self.box.chosen.connect(self._look)
        layers = viewer.layers.events
        self._events = (layers.inserted, layers.removed, layers.reordered, layers.renamed)
        for emitter in self._events:
            emitter.connect(self.look_again)
        self.look_again()

    @property
    def choices(self) -> tuple[int, float, float | None]:
        """Which kind of object is looked at, where cells are joined, and the least branch."""
        return self._stack.currentIndex(), self.cells.saddle.value, self.neurites.shortest.value

    @choices.setter
    def choices(self, choices: tuple[int, float, float | None]) -> None:
        page, saddle, shortest = choices
        self._buttons[page].setChecked(True)
        self.cells.saddle.show_value(saddle)
        self.neurites.shortest.show_value(shortest)

    def choose(self, page: ObjectPage) -> None:
        """Turn to a kind of object."""
        self._buttons[self._stack.indexOf(page)].setChecked(True)

    def look_again(self, _event: object = None) -> None:
        """Offer the fits that there are now; take the newest where none was chosen."""
        self.box.show_layers(self._viewer.layers)
        if self.box.layer is None and self.box.choices:
            self.box.layer = self.box.choices[-1]
        self._look()

    def close_down(self) -> None:
        """End all processes, and let go of the viewer."""
        for emitter in self._events:
            emitter.disconnect(self.look_again)
        for page in self.pages.values():
            page.close_down()

    def _turn(self, number: int, chosen: bool) -> None:  # noqa: FBT001
        if chosen:
            self._stack.setCurrentIndex(number)

    def _look(self) -> None:
        layer: Points | None = self.box.layer
        points, refusal = None, ""
        if layer is not None:
            try:
                points = FitPoints.of_layer(layer)
            except GaussfitError as error:
                refusal = str(error)
        if points is not None and self._known is not None and points.is_of_same_fit(self._known):
            points = self._known
        self._known = points
        for page in self.pages.values():
            page.look_at(points, refusal)
