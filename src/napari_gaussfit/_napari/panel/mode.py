"""What is looked for in a stack: the choice, and what each kind brings into the panel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QButtonGroup, QHBoxLayout, QLabel, QRadioButton, QTabWidget, QWidget

from napari_gaussfit._napari.panel.widgets import LABELS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_gaussfit._napari.layers.source import Source

__all__ = ["Mode", "ModePart", "StructureMode", "Tab"]

Tab = tuple[str, QWidget, str]
"""Of the panel: its title, what is on it, its tooltip."""


class Mode(Protocol):
    """A kind of thing that is looked for. What is on its own widgets is its own business."""

    @property
    def title(self) -> str:
        """What is looked for."""
        ...

    @property
    def tip(self) -> str:
        """The question that it answers."""
        ...

    @property
    def setup(self) -> QWidget:
        """Its settings, below what is said of the stack."""
        ...

    @property
    def tabs(self) -> Sequence[Tab]:
        """Beside the setup."""
        ...

    @property
    def foot(self) -> QWidget:
        """Below all tabs: what runs it, and how that goes."""
        ...

    def look_at(self, source: Source | None, refusal: str) -> None:
        """Take what is there to be looked into; `refusal` says why it cannot be."""
        ...

    def leave(self) -> None:
        """Stop looking: another kind was chosen."""
        ...


@dataclass(frozen=True, eq=False)
class StructureMode:
    """Fits as many Gaussians as it takes to reproduce a stack; the panel itself looks at it."""

    setup: QWidget
    tabs: Sequence[Tab]
    foot: QWidget
    title: str = "Structure"
    tip: str = "As many Gaussians as it takes to reproduce the stack."

    def look_at(self, source: Source | None, refusal: str) -> None:
        """Leave it to the panel."""

    def leave(self) -> None:
        """Let a fit that runs go on."""


class ModePart(QWidget):
    """Chooses between modes, and shows of a panel's parts those of the chosen one.

    Parameters
    ----------
    tabs : QTabWidget
        The panel's, which the modes' own are added to.
    modes : sequence of Mode
        The first is chosen.
    """

    changed = Signal()
    """Another mode."""

    def __init__(self, tabs: QTabWidget, modes: Sequence[Mode]) -> None:
        super().__init__()
        self._tabs, self._modes = tabs, tuple(modes)
        self._own = {mode: [self._add(*tab) for tab in mode.tabs] for mode in modes}
        self._choice = QButtonGroup(self)
        self._buttons: list[QRadioButton] = []
        row = QHBoxLayout(self)
        row.setContentsMargins(6, 4, 4, 0)
        label = QLabel("Look for")
        label.setFixedWidth(LABELS)
        row.addWidget(label)
        for number, mode in enumerate(modes):
            button = QRadioButton(mode.title)
            button.setToolTip(mode.tip)
            button.setObjectName(f"gaussfit_mode_{number}")
            button.setChecked(number == 0)
            self._choice.addButton(button, number)
            row.addWidget(button)
            self._buttons.append(button)
        row.addStretch(1)
        self._show(0)
        self._choice.idToggled.connect(self._toggle)

    @property
    def mode(self) -> Mode:
        """The chosen one."""
        return self._modes[self._choice.checkedId()]

    def choose(self, title: str) -> None:
        """Choose a mode by its title."""
        for number, mode in enumerate(self._modes):
            if mode.title == title:
                self._buttons[number].setChecked(True)

    def _add(self, title: str, widget: QWidget, tip: str) -> int:
        number = self._tabs.addTab(widget, title)
        self._tabs.setTabToolTip(number, tip)
        return number

    def _toggle(self, number: int, chosen: bool) -> None:  # noqa: FBT001
        if not chosen:
            self._modes[number].leave()
            return
        self._show(number)
        self.changed.emit()

    def _show(self, number: int) -> None:
        shown = self._modes[number]
        self._tabs.setCurrentIndex(0)
        for mode in self._modes:
            mode.setup.setVisible(mode is shown)
            mode.foot.setVisible(mode is shown)
            for tab in self._own[mode]:
                self._tabs.setTabVisible(tab, mode is shown)
