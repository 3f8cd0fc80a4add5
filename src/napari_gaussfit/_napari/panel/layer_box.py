"""A list of layers to choose one from: those that cannot be chosen stand in it with the reason."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QModelIndex, QSignalBlocker, QSize, Qt, Signal
from qtpy.QtGui import QPalette
from qtpy.QtWidgets import QComboBox, QStyle, QStyledItemDelegate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from napari.layers import Layer

__all__ = ["LayerBox"]

_FAINT = 0.7
"""Of the letters of what cannot be chosen: 1 is as those of what can."""


class _Legible(QStyledItemDelegate):
    """Draws what cannot be chosen fainter, and still to be read: napari's own grey hardly is."""

    def initStyleOption(self, option: Any, index: QModelIndex) -> None:
        """Draw an item as one that can be chosen, with fainter letters."""
        super().initStyleOption(option, index)
        if option.state & QStyle.StateFlag.State_Enabled:
            return
        palette = option.palette
        ink = palette.color(QPalette.ColorRole.Text)
        ink.setAlphaF(_FAINT)
        palette.setColor(QPalette.ColorRole.Text, ink)
        option.palette = palette
        option.state |= QStyle.StateFlag.State_Enabled

    def sizeHint(self, option: Any, index: QModelIndex) -> QSize:
        """Leave room between two lines."""
        return super().sizeHint(option, index) + QSize(0, 6)


class LayerBox(QComboBox):
    """Chooses a layer, or none.

    Parameters
    ----------
    refusal : callable
        Given a layer, says in words that follow its name why it cannot be chosen, "" if it can;
        None where the list has no place for it.
    nothing : str
        What the choice of none is called.
    tip : str
        Tooltip of the box.
    """

    chosen = Signal()
    """Another layer, or none."""

    def __init__(
        self, refusal: Callable[[Layer], str | None], *, nothing: str = "none", tip: str = ""
    ) -> None:
        super().__init__()
        self.refused: list[str] = []
        """Of each layer that cannot be chosen, its name and the reason."""
        self._refusal = refusal
        self._nothing = nothing
        self._layers: list[Layer | None] = [None]
        self.addItem(nothing)
        self.setToolTip(tip)
        # Names of layers are long; the panel is not.
        self.setMinimumContentsLength(8)
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setItemDelegate(_Legible(self))
        self.currentIndexChanged.connect(self._announce)
        self._announced: Layer | None = None

    @property
    def layer(self) -> Layer | None:
        """What is chosen."""
        return self._layers[self.currentIndex()]

    @layer.setter
    def layer(self, layer: Layer | None) -> None:
        self.setCurrentIndex(self._layers.index(layer))

    @property
    def choices(self) -> list[Layer]:
        """The layers that can be chosen."""
        return [layer for layer in self._layers if layer is not None]

    def show_layers(self, layers: Iterable[Layer]) -> None:
        """List layers; what was chosen stays so while it can be."""
        found = [(layer, self._refusal(layer)) for layer in layers]
        before = self.layer
        with QSignalBlocker(self):
            self._fill(found, before)
        self._announce()

    def _fill(self, found: list[tuple[Layer, str | None]], before: Layer | None) -> None:
        self.clear()
        self._layers = [None, *(layer for layer, refusal in found if refusal == "")]
        for layer in self._layers:
            self.addItem(self._nothing if layer is None else layer.name)
        self.refused = []
        for layer, refusal in found:
            if refusal:
                self._add_refused(f"{layer.name} {refusal}")
        if before in self._layers:
            self.setCurrentIndex(self._layers.index(before))

    def showPopup(self) -> None:
        """Show names and reasons as long as they are, not as long as the box."""
        view = self.view()
        if view is not None:
            view.setTextElideMode(Qt.TextElideMode.ElideNone)
            view.setMinimumWidth(view.sizeHintForColumn(0) + 24)
        super().showPopup()

    def _add_refused(self, words: str) -> None:
        self.refused.append(words)
        # What was found is short enough for a list; what to do about it stands beside.
        self.addItem(words.partition(";")[0])
        model: Any = self.model()
        item = model.item(self.count() - 1)
        item.setEnabled(False)
        item.setToolTip(words)

    def _announce(self, _index: int = 0) -> None:
        layer = self.layer
        if layer != self._announced:
            self._announced = layer
            self.chosen.emit()
