"""Cells or nuclei in a fit: groups of Gaussians, joined by a slider, merged and split by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QHBoxLayout, QPushButton, QWidget

from napari_gaussfit._napari.layers.objects import cell_layers
from napari_gaussfit._napari.panel.object_page import ObjectPage
from napari_gaussfit._napari.panel.slider_field import SliderField
from napari_gaussfit._napari.panel.widgets import Form
from napari_gaussfit.jobs.objects import CellsAsked, found_cells, save_cells
from napari_gaussfit.stacks.units import UNIT_WORDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.layers import Layer
    from napari.utils.events import Event
    from napari.viewer import Viewer

    from napari_gaussfit._napari.layers.objects import FitPoints
    from napari_gaussfit.jobs.objects import FoundCells
    from napari_gaussfit.jobs.renderer import Renderer

__all__ = ["CellsPage"]

SADDLE = 0.97
"""As `objects.grouping` has it, which the window cannot import: it loads torch."""

COLUMNS = (
    "label",
    "volume",
    "surface",
    "integrated_intensity",
    "semiaxis_1",
    "semiaxis_2",
    "semiaxis_3",
    "gaussians",
    "z",
    "y",
    "x",
)

MOST_UNDONE = 50
"""Steps that can be undone."""


class CellsPage(ObjectPage):
    """An `ObjectPage` whose objects are groups of Gaussians.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Where its layers go.
    """

    folder = "cells"
    files = "the table, the labels and a picture"

    def __init__(self, viewer: Viewer) -> None:
        start = QPushButton("Group into cells")
        start.setToolTip("Find the cells or nuclei in the fit: which Gaussians make up each.")
        self.saddle = SliderField(
            0.0, 1.0,
            tip="Two peaks are one cell where the light between them is at least this share of the "
            "lower peak: less joins more.",
        )  # fmt: skip
        self.saddle.show_value(SADDLE)
        self.merge, self.split, self.undo = (
            QPushButton(name) for name in ("Merge", "Split", "Undo")
        )
        self.merge.setToolTip("Make the selected cells one. Shift and a click select several.")
        self.split.setToolTip("Split the selected cell where its light dips.")
        self.undo.setToolTip("Take back the last merge, split or move of the slider.")
        form, hand = Form(), QWidget()
        form.add_row("Join at", self.saddle)
        row = QHBoxLayout(hand)
        row.setContentsMargins(4, 0, 4, 0)
        for button in (self.merge, self.split, self.undo):
            row.addWidget(button)
        self._before: list[tuple[CellsAsked, float]] = []
        self._shown: CellsAsked | None = None
        self._shown_saddle = SADDLE
        self._asked = CellsAsked(SADDLE)
        self._sliding = self._undoing = False
        super().__init__(viewer, start, COLUMNS, ("at_border", "neighbours"), (form, hand))
        self.saddle.moved.connect(self._slide)
        self.merge.clicked.connect(self._merge)
        self.split.clicked.connect(self._split)
        self.undo.clicked.connect(self._undo)
        self.view.chosen.connect(self._select_label)
        self.view.selection.selectionChanged.connect(lambda *_: self._enable())
        self._enable()

    def question(self, points: FitPoints) -> Callable[[Renderer], Any]:
        """Ask for the groups."""
        asked = self._asked
        return lambda renderer: found_cells(renderer.ask, points.fit, asked)

    @property
    def asked(self) -> CellsAsked | None:
        """The groups that are shown."""
        return self._shown

    def take_asked(self, asked: CellsAsked) -> None:
        """Show the share; what was done before cannot be undone."""
        self._before.clear()
        self._sliding = False
        self._asked = asked
        self.saddle.show_value(asked.saddle)

    def begin(self) -> None:
        """Group anew, as the slider says; what was done by hand is given up, and can be undone."""
        self.saddle.field.commit()
        if self.points is not self.of:
            self._before.clear()
            self._shown = None
        self._sliding = False
        self._ask(CellsAsked(self.saddle.value))

    def _ask(self, asked: CellsAsked) -> None:
        self._asked = asked
        super().begin()

    def _slide(self, saddle: float) -> None:
        """Group at another share at once, where there are groups."""
        if self.found is None or self.points is not self.of:
            return
        going_on, self._sliding = self._sliding, True
        if not going_on:
            self._remember()
        self._ask(CellsAsked(saddle))

    def _remember(self) -> None:
        """Have Undo come back to what is shown now."""
        if self._shown is not None:
            self._before = [*self._before[-MOST_UNDONE:], (self._shown, self._shown_saddle)]

    def _by_hand(self, **change: Any) -> None:
        if self.of is None or self.found is None or self.asking.active:
            return
        self._remember()
        self._sliding = False
        self._asked = CellsAsked(self.saddle.value, self.found.of, self.found.radius, **change)
        self.words.setText("Working…")
        self.asking.ask(self.question(self.of))

    def _merge(self) -> None:
        self._by_hand(merged=self.labels_chosen)

    def _split(self) -> None:
        self._by_hand(split=self.labels_chosen[0])

    def _undo(self) -> None:
        if self._before and self.of is not None and not self.asking.active:
            asked, saddle = self._before.pop()
            self.saddle.show_value(saddle)
            self._sliding = False
            self._asked = asked
            self.asking.ask(self.question(self.of))

    @property
    def labels_chosen(self) -> tuple[int, ...]:
        """Of the selected rows."""
        return tuple(sorted(n + 1 for n in self.view.items))

    def show_found(self, found: FoundCells, *, anew: bool) -> str:
        """Show labels, centres and rows."""
        if self.of is None:
            return ""
        # What was done by hand is part of the groups by now.
        self._shown = CellsAsked(self._asked.saddle, found.of, found.radius)
        self._shown_saddle = self.saddle.value
        table = found.table
        self.put(cell_layers(found, self.of), anew=anew)
        self.show_rows(table.assign(at_border=["yes" if at else "" for at in table["at_border"]]))
        self._enable()
        unit = UNIT_WORDS[self.of.fit.stack.unit]
        clicks = " Click a cell in the picture to select it." if "labels" in self.layers else ""
        return (
            f"{len(table):,} objects of about {found.radius:.3g} {unit} radius, "
            f"{int(table['at_border'].sum()):,} of them at the border of the stack."
            f"{clicks}"
        )

    def _take(self, found: Any, error: str, *, anew: bool = True) -> None:
        if found is None and self._before and (self._asked.merged or self._asked.split):
            self._before.pop()  # Nothing was done that could be undone.
        super()._take(found, error, anew=anew)
        self._enable()

    def saver(self, points: FitPoints, folder: str) -> Callable[[Renderer], str]:
        """Write labels, table and picture."""
        found: FoundCells = self.found

        def save(renderer: Renderer) -> str:
            save_cells(renderer.ask, points.fit, found, folder)
            return folder

        return save

    def made(self, role: str, layer: Layer) -> None:
        """Have clicks on labels select rows."""
        if role == "labels":
            layer.mouse_drag_callbacks.append(self._click)
            layer.events.selected_label.connect(self._picked)

    def let_go(self, role: str, layer: Layer) -> None:
        """Hear no more of clicks on labels."""
        if role == "labels":
            layer.mouse_drag_callbacks.remove(self._click)
            layer.events.selected_label.disconnect(self._picked)

    def _click(self, layer: Any, event: Any) -> None:
        """Select the cell that is clicked on; with Shift, this one too."""
        if str(layer.mode) not in ("pan_zoom", "pick"):
            return
        value = layer.get_value(
            event.position,
            view_direction=event.view_direction,
            dims_displayed=event.dims_displayed,
            world=True,
        )
        if not value:
            return
        one = {int(value) - 1}
        self._choose(self.view.items ^ one if "Shift" in event.modifiers else one)

    def _picked(self, event: Event) -> None:
        label = int(event.source.selected_label)
        if 1 <= label <= self.model.rowCount() and label - 1 not in self.view.items:
            self._choose({label - 1})

    def _choose(self, items: set[int]) -> None:
        self.view.choose(items)
        self._enable()

    def _select_label(self) -> None:
        """Show where the selected cell is."""
        layer, chosen = self.layers.get("labels"), self.labels_chosen
        if layer is None or not chosen or self.of is None:
            return
        row = self.found.table.iloc[chosen[-1] - 1]
        with layer.events.selected_label.blocker():
            layer.selected_label = chosen[-1]
        self.go_to(row["z"] / self.of.placement.spacing[0])

    def _enable(self) -> None:
        chosen = len(self.view.items)
        self.merge.setEnabled(chosen > 1)
        self.split.setEnabled(chosen == 1)
        self.undo.setEnabled(bool(self._before))
