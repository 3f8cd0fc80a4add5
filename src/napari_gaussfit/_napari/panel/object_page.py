"""What finding cells and finding neurites in a fit have in common: a button, a table, a folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QFileDialog, QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_gaussfit._napari.layers.put import put_layer
from napari_gaussfit._napari.layers.unwrapped import is_same
from napari_gaussfit._napari.panel.asking import Asking
from napari_gaussfit._napari.panel.columns_button import ColumnsButton
from napari_gaussfit._napari.panel.preferences import begins_at
from napari_gaussfit._napari.panel.row_view import RowView
from napari_gaussfit._napari.panel.rows import RowTable
from napari_gaussfit._napari.panel.spots import new_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pandas as pd
    from napari.layers import Layer
    from napari.utils.events import Event
    from napari.viewer import Viewer

    from napari_gaussfit._napari.layers.gaussians import LayerData
    from napari_gaussfit._napari.layers.objects import FitPoints
    from napari_gaussfit.jobs.renderer import Renderer

__all__ = ["ObjectPage"]


class ObjectPage(QWidget):
    """A kind of object that is found in a fit: finds it, shows it, saves it.

    A kind says what is asked (`question`), what becomes of the answer (`show_found`), and what is
    written (`saver`).

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Where its layers go.
    start : QPushButton
        The button that has the objects found.
    columns, words : sequence of str
        Of the table: those with numbers, and those with words.
    controls : sequence of QWidget
        Between the button and the table.
    """

    folder = ""
    """What follows the stack's name in that of a folder."""
    files = ""
    """What is written into it, in words."""

    answered = Signal()
    """There is another answer: `found`, of the fit `of`."""

    def __init__(
        self,
        viewer: Viewer,
        start: QPushButton,
        columns: Sequence[str],
        words: Sequence[str],
        controls: Sequence[QWidget],
    ) -> None:
        super().__init__()
        self.viewer, self.start = viewer, start
        self.asking, self._saving = Asking(self, keeps=True), Asking(self)
        self.points: FitPoints | None = None
        self.of: FitPoints | None = None
        self.found: Any = None
        self.layers: dict[str, Layer] = {}
        self.model = RowTable(columns, words)
        self.view = RowView(self.model, "Select rows to see where they are.")
        self.view.sortByColumn(0, Qt.SortOrder.AscendingOrder)
        self.words = QLabel()
        self.words.setWordWrap(True)
        self.save = QPushButton("Save folder…")
        self.save.setEnabled(False)
        self.save.setToolTip(f"Write {self.files} into a folder.")
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        row = QHBoxLayout()
        row.addWidget(start)
        row.addWidget(self.save)
        row.addWidget(ColumnsButton(self.view))
        box.addLayout(row)
        for control in controls:
            box.addWidget(control)
        box.addWidget(self.words)
        box.addWidget(self.view, 1)
        start.clicked.connect(self.begin)
        self.save.clicked.connect(self.ask_where)
        self.asking.ended.connect(self._take)
        self._saving.ended.connect(self._take_saved)
        viewer.layers.events.removed.connect(self._forget_layer)
        self.look_at(None)

    # What a kind says

    def question(self, points: FitPoints) -> Callable[[Renderer], Any]:
        """Return what is asked of a fit."""
        raise NotImplementedError

    @property
    def asked(self) -> Any:
        """What brings the answer that is shown again."""
        raise NotImplementedError

    def take_asked(self, asked: Any) -> None:
        """Have the controls say what was asked."""
        raise NotImplementedError

    def show_found(self, found: Any, *, anew: bool) -> str:
        """Show an answer, `anew` also in layers that are not there; return it in words."""
        raise NotImplementedError

    def saver(self, points: FitPoints, folder: str) -> Callable[[Renderer], str]:
        """Return what writes what is shown, and returns where."""
        raise NotImplementedError

    # What all kinds do

    def look_at(self, points: FitPoints | None, refusal: str = "") -> None:
        """Take a fit to find objects in, None where there is none."""
        self.points = points
        self.start.setEnabled(points is not None)
        if self.found is not None:
            return
        if points is None:
            self.words.setText(f"⚠ {refusal}" if refusal else "No fit yet: press Fit, or open one.")
            return
        self.words.setText(f"{points.name}: press {self.start.text()}.")
        if self.model.unit != points.fit.stack.unit:
            self.model.unit = points.fit.stack.unit
            self.model.show_measurements(None)  # titles have units

    def begin(self) -> None:
        """Find the objects in the chosen fit."""
        if self.points is not None:
            self.of = self.points
            self.words.setText("Working…")
            self.asking.ask(self.question(self.of))

    def show_again(self, points: FitPoints, asked: Any, found: Any, *, anew: bool) -> None:
        """Show what was found in a fit before; where it is not known any more, find it again.

        Layers that a person has deleted come back if they are to be made `anew`.
        """
        self.asking.give_up()
        self.of = points
        self.take_asked(asked)
        if found is not None:
            self._take(found, "", anew=anew)
            return
        self.words.setText("Working…")
        self.asking.ask(self.question(points))

    def close_down(self) -> None:
        """End all processes, and let go of the viewer."""
        for asking in (self.asking, self._saving):
            asking.give_up()
        self.viewer.layers.events.removed.disconnect(self._forget_layer)
        for role, layer in self.layers.items():
            self.let_go(role, layer)

    def _take(self, found: Any, error: str, *, anew: bool = True) -> None:
        if found is None or self.of is None:
            self.words.setText(f"⚠ {error[:1].upper()}{error[1:]}")
            return
        self.found = found
        self.words.setText(self.show_found(found, anew=anew))
        self.save.setEnabled(True)
        self.answered.emit()

    def show_rows(self, table: pd.DataFrame) -> None:
        """Show a table."""
        if self.of is not None:
            self.model.unit = self.of.fit.stack.unit
        self.model.show_measurements(table)

    def put(self, made: dict[str, LayerData], *, anew: bool) -> None:
        """Show layers in place of those of the answer before, which may be `anew`."""
        for role, one in made.items():
            before = self.layers.get(role)
            layer = put_layer(self.viewer, one, f"{self.folder} {role}", anew=anew)
            if layer is not None and layer is not before:
                self.layers[role] = layer
                self.made(role, layer)

    def made(self, role: str, layer: Layer) -> None:
        """Do what a new layer needs."""

    def let_go(self, role: str, layer: Layer) -> None:
        """Undo that: the panel is closed, and the layer stays."""

    def go_to(self, depth: float) -> None:
        """Have the viewer show a plane, at so many voxels."""
        dims = self.viewer.dims
        if dims.ndisplay == 2 and self.of is not None:
            dims.set_current_step(dims.ndim - 3, round(depth))

    def _forget_layer(self, event: Event) -> None:
        for role, layer in [*self.layers.items()]:
            if is_same(layer, event.value):
                del self.layers[role]

    def ask_where(self) -> None:
        """Ask where, and write what is shown into a new folder there."""
        parent = QFileDialog.getExistingDirectory(self, "Save into a new folder in", begins_at())
        if parent and self.of is not None:
            self.save_to(new_folder(parent, f"{self.of.name} {self.folder}"))

    def save_to(self, folder: str) -> None:
        """Write what is shown into a folder."""
        if self.of is not None and self.found is not None:
            self.words.setText("Saving…")
            self._saving.ask(self.saver(self.of, folder))

    def _take_saved(self, where: str | None, error: str) -> None:
        from napari.utils.notifications import show_error

        self.words.setText(f"Saved to {where}" if where else f"⚠ Not saved: {error}")
        if not where:
            show_error(f"Gaussian fit: not saved: {error}")
