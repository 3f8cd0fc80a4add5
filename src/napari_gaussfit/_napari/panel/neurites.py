"""Neurites in a fit: centre lines with radii, a row a branch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtWidgets import QPushButton

from napari_gaussfit._napari.layers.objects import trace_layers
from napari_gaussfit._napari.panel.number_field import NumberField
from napari_gaussfit._napari.panel.object_page import ObjectPage
from napari_gaussfit._napari.panel.widgets import Form
from napari_gaussfit.jobs.objects import found_trace, save_trace
from napari_gaussfit.stacks.units import UNIT_WORDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.viewer import Viewer

    from napari_gaussfit._napari.layers.objects import FitPoints
    from napari_gaussfit.jobs.objects import FoundTrace
    from napari_gaussfit.jobs.renderer import Renderer

__all__ = ["NeuritesPage"]

COLUMNS = (
    "branch",
    "parent",
    "order",
    "length",
    "tortuosity",
    "mean_radius",
    "volume",
    "head_width",
)

LONGEST = 1e6
"""The largest length that can be typed."""


class NeuritesPage(ObjectPage):
    """An `ObjectPage` whose objects are branches.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Where its layers go.
    """

    folder = "trace"
    files = "the tree (SWC), the table of branches and a picture"

    def __init__(self, viewer: Viewer) -> None:
        start = QPushButton("Trace")
        start.setToolTip("Follow the neurites in the fit: centre lines, with radii.")
        self.shortest = NumberField(0.0, LONGEST, without="three of its radii")
        self.shortest.setToolTip(
            "Branches that are shorter are left out, in micrometers (pixels where voxels have no "
            "size). Empty: three of its radii."
        )
        form = Form()
        form.add_row("Least branch", self.shortest)
        self._asked: float | None = None
        super().__init__(viewer, start, COLUMNS, ("spine", "from_soma"), (form,))
        self.shortest.committed.connect(self._again)
        self.view.chosen.connect(self._select_branch)

    def question(self, points: FitPoints) -> Callable[[Renderer], Any]:
        """Ask for the branches."""
        self._asked = shortest = self.shortest.value
        return lambda renderer: found_trace(renderer.ask, points.fit, shortest)

    @property
    def asked(self) -> float | None:
        """The least length of a branch."""
        return self._asked

    def take_asked(self, asked: float | None) -> None:
        """Show the least length."""
        self._asked = asked
        self.shortest.show_value(asked)

    def begin(self) -> None:
        """Trace the chosen fit."""
        self.shortest.commit()
        if self.shortest.problem:
            self.words.setText(f"⚠ Least branch: {self.shortest.problem}")
            return
        super().begin()

    def _again(self, _shortest: float | None) -> None:
        if self.found is not None:
            self.begin()

    def show_found(self, found: FoundTrace, *, anew: bool) -> str:
        """Show branches, nodes and rows."""
        if self.of is None:
            return ""
        table = found.table
        if len(table):
            self.put(trace_layers(found, self.of), anew=anew)
        words = {
            name: ["yes" if one else "" for one in table[name]] for name in ("spine", "from_soma")
        }
        self.show_rows(table.assign(**words))
        if not len(table):
            return "No neurite was found."
        unit = UNIT_WORDS[self.of.fit.stack.unit]
        spines = int(table["spine"].sum())
        lines = " Lines show in 3D; colours are orders." if "branches" in self.layers else ""
        soma = "A soma and " if table["from_soma"].any() else ""
        return (
            f"{soma}{len(table) - spines:,} branches and {spines:,} spines, "
            f"{table['length'].sum():.4g} {unit} in all; lengths in {unit}. Radii are as wide "
            f"as seen, the microscope's blur included.{lines}"
        )

    def saver(self, points: FitPoints, folder: str) -> Callable[[Renderer], str]:
        """Write SWC, branches and picture."""
        shortest = self._asked

        def save(renderer: Renderer) -> str:
            save_trace(renderer.ask, points.fit, shortest, folder)
            return folder

        return save

    def _select_branch(self) -> None:
        """Select the nodes and lines of the selected branches, and show where they are."""
        nodes, lines, chosen = (
            self.layers.get("nodes"),
            self.layers.get("branches"),
            self.view.items,
        )
        if self.found is None or not chosen:
            return
        own = np.flatnonzero(np.isin(self.found.branch, list(chosen)))
        if nodes is not None:
            nodes.selected_data = {int(n) for n in own}
        if lines is not None:
            branches = lines.features["branch"].to_numpy()
            lines.selected_data = {int(n) for n in np.flatnonzero(np.isin(branches, list(chosen)))}
        if len(own) and self.of is not None:
            middle = self.found.points[own[len(own) // 2]]
            self.go_to(middle[0] / self.of.placement.spacing[0])
