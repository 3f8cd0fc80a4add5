"""The part of the panel that says what is seen of a fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QCheckBox, QGridLayout, QPushButton, QWidget

from napari_gaussfit._napari.layers.looking import show_scale_bar
from napari_gaussfit._napari.layers.overlays import (
    CENTRES,
    ELLIPSOIDS,
    MOST_MARKS,
    MOST_MOVING_MARKS,
    SECTIONS,
    Overlays,
)

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.viewer import Viewer

    from napari_gaussfit._napari.layers.live import LiveLayers

__all__ = ["ShownPart"]

_BOXES = {
    CENTRES: (
        "Centres on projections",
        (
            "Draw the centres on the projections too, and pale over the stack in all its slices: "
            f"the {MOST_MOVING_MARKS} brightest while a fit goes on, {MOST_MARKS:,} at rest."
        ),
    ),
    SECTIONS: (
        "Ellipses",
        "Draw the ellipse at half the amplitude of each Gaussian that the slice in view cuts.",
    ),
    ELLIPSOIDS: (
        "Ellipsoids in 3D",
        "Draw the Gaussians as ellipsoids while the view is in 3D, also while they move.",
    ),
}


class ShownPart(QWidget):
    """What is drawn over a fit's layers, and all of these hidden or shown at once.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Whose layers they are.
    """

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self._viewer = viewer
        self._live: LiveLayers | None = None
        self._hidden: list[Layer] = []
        self.overlays = Overlays(viewer, self)
        self.boxes = {role: QCheckBox(text) for role, (text, _) in _BOXES.items()}
        self.hide_all = QPushButton("Hide all")
        self.hide_all.setObjectName("gaussfit_hide_all")
        self.hide_all.setToolTip(
            "Hide every layer that a fit of this stack has made; pressed again, show them."
        )
        self.hide_all.setEnabled(False)
        self.hide_all.clicked.connect(self._hide_or_show)
        grid = QGridLayout(self)
        grid.setContentsMargins(4, 0, 4, 0)
        grid.setSpacing(4)
        for n, (role, box) in enumerate(self.boxes.items()):
            box.setToolTip(_BOXES[role][1])
            box.setObjectName(f"gaussfit_show_{role.replace(' ', '_')}")
            box.setChecked(role == CENTRES)
            box.toggled.connect(lambda on, role=role: self.overlays.want(role, wanted=on))
            grid.addWidget(box, n // 2, n % 2)
        grid.addWidget(self.hide_all, 1, 1)
        self.overlays.gone.connect(lambda role: self.boxes[role].setChecked(False))

    @property
    def wanted(self) -> frozenset[str]:
        """What is drawn over a fit's layers."""
        return frozenset(role for role, box in self.boxes.items() if box.isChecked())

    @wanted.setter
    def wanted(self, roles: frozenset[str]) -> None:
        for role, box in self.boxes.items():
            box.setChecked(role in roles)

    @property
    def choices(self) -> list[Layer]:
        """The layers that were hidden together."""
        return self._hidden

    @choices.setter
    def choices(self, choices: list[Layer]) -> None:
        self._hidden = choices
        self._say()

    def follow(self, live: LiveLayers) -> None:
        """Draw over the layers of another fit."""
        if live is not self._live:
            self._hidden = []
            if live.source.stack.unit != "pixel":
                show_scale_bar(self._viewer)
        self._live = live
        self.overlays.follow(live)
        self.hide_all.setEnabled(True)
        self._say()

    def _hide_or_show(self) -> None:
        there = [layer for layer in self._hidden if layer in self._viewer.layers]
        if there:
            self._hidden = []
            for layer in there:
                layer.visible = True
        else:
            shown = [layer for layer in self.overlays.all_of_the_fit() if layer.visible]
            self._hidden = shown
            for layer in shown:
                layer.visible = False
        self._say()

    def _say(self) -> None:
        self.hide_all.setText("Show all again" if self._hidden else "Hide all")
