"""The part of the panel that says which channels are fitted together with the chosen one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtGui import QColor, QIcon, QPixmap
from qtpy.QtWidgets import QHBoxLayout, QLabel, QListWidget, QListWidgetItem, QWidget

from napari_gaussfit._napari.layers.channels import channel_axis, companions
from napari_gaussfit._napari.layers.unwrapped import unwrapped
from napari_gaussfit._napari.panel.widgets import LABELS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from napari.layers import Image, Layer

    Part = tuple[Image, int | None]
    """A layer, and which channel of it where it has an axis of them."""

__all__ = ["ChannelsPart"]

MOST_ROWS = 5
"""That are shown at once; more are scrolled to."""

_CHECKED, _UNCHECKED = Qt.CheckState.Checked, Qt.CheckState.Unchecked


class ChannelsPart(QWidget):
    """Ticks the channels that share their Gaussians; hidden where there is but one."""

    changed = Signal()
    """Other channels."""

    def __init__(self) -> None:
        super().__init__()
        self._list = QListWidget()
        self._list.setObjectName("gaussfit_channels")
        self._list.setToolTip(
            "Ticked channels are fitted together: they share centres and shapes, and each has "
            "amplitudes and a background of its own. The chosen one is always fitted."
        )
        self._parts: list[Part] = []
        self._ticked: set[tuple[int, int | None]] = set()
        self._current: Part | None = None
        self._wanted = True
        label = QLabel("Channels")
        label.setFixedWidth(LABELS)
        label.setToolTip(self._list.toolTip())
        label.setAlignment(Qt.AlignmentFlag.AlignTop)
        row = QHBoxLayout(self)
        row.setContentsMargins(4, 0, 4, 0)
        row.setSpacing(4)
        row.addWidget(label)
        row.addWidget(self._list, 1)
        self._list.itemChanged.connect(self._take)
        self._show_rows()

    @property
    def fitted(self) -> list[Part]:
        """What is fitted together, in the order of the list; one at least where a layer is."""
        if not self._wanted:
            return [] if self._current is None else [self._current]
        return [part for part in self._parts if self._is_fitted(part)]

    @property
    def choices(self) -> list[Part]:
        """What is ticked, beside the chosen one."""
        return [part for part in self._parts if _key(part) in self._ticked]

    @choices.setter
    def choices(self, choices: list[Part]) -> None:
        self._ticked = {_key(part) for part in choices} & {_key(part) for part in self._parts}
        self._fill()

    def allow(self, *, several: bool) -> None:
        """Say whether several channels can be fitted together: what looks for spots takes one."""
        self._wanted = several
        self._show_rows()

    def show_layer(
        self, layer: Image | None, layers: Iterable[Layer], place: Sequence[int] = ()
    ) -> None:
        """Offer the channels beside a layer, or those along its own axis."""
        axis = None if layer is None else channel_axis(layer)
        if layer is None:
            self._parts, self._current = [], None
        elif axis is None:
            self._parts = [(one, None) for one in companions(layer, layers)]
            self._current = layer, None
        else:
            self._parts = [(layer, n) for n in range(layer.data.shape[axis])]
            self._current = layer, place[axis]
        self._ticked &= {_key(part) for part in self._parts}
        self._fill()

    def _is_fitted(self, part: Part) -> bool:
        return part == self._current or _key(part) in self._ticked

    def _fill(self) -> None:
        with QSignalBlocker(self._list):
            self._list.clear()
            for part in self._parts:
                self._list.addItem(self._item(part))
        self._show_rows()

    def _item(self, part: Part) -> QListWidgetItem:
        layer, channel = part
        item = QListWidgetItem(layer.name if channel is None else f"channel {channel}")
        if channel is None:
            item.setIcon(_swatch(layer))
        item.setCheckState(_CHECKED if self._is_fitted(part) else _UNCHECKED)
        if part == self._current:
            item.setFlags(item.flags() & ~Qt.ItemFlag.ItemIsUserCheckable)
        return item

    def _show_rows(self) -> None:
        rows = min(len(self._parts), MOST_ROWS)
        height = self._list.sizeHintForRow(0) if rows else 0
        self._list.setFixedHeight(rows * max(height, 18) + 2 * self._list.frameWidth() + 2)
        self.setVisible(self._wanted and len(self._parts) > 1)

    def _take(self, item: QListWidgetItem) -> None:
        part = self._parts[self._list.row(item)]
        if item.checkState() == _CHECKED:
            self._ticked.add(_key(part))
        else:
            self._ticked.discard(_key(part))
        self.changed.emit()


def _key(part: Part) -> tuple[int, int | None]:
    return id(unwrapped(part[0])), part[1]


def _swatch(layer: Image) -> QIcon:
    """Return a square of the colour in which a layer is shown."""
    red, green, blue = (int(255 * part) for part in layer.colormap.map([1.0])[0][:3])
    picture = QPixmap(10, 10)
    picture.fill(QColor(red, green, blue))
    return QIcon(picture)
