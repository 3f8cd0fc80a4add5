"""What a window that was not closed in order has left, offered at the top of the panel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QHBoxLayout, QLabel, QPushButton, QSizePolicy, QWidget

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_gaussfit.jobs.session_folder import LeftOver

__all__ = ["LeftOverBar"]


class LeftOverBar(QWidget):
    """A line with two buttons, hidden where there is nothing to offer."""

    restore_asked, discard_asked = Signal(), Signal()

    def __init__(self) -> None:
        super().__init__()
        self._words = QLabel()
        self._words.setObjectName("gaussfit_left_over")
        self._words.setWordWrap(True)
        self._words.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self.restore, self.discard = QPushButton("Restore"), QPushButton("Discard")
        self.restore.setToolTip("Bring them into the list of results.")
        self.discard.setToolTip("Delete them for good.")
        row = QHBoxLayout(self)
        row.setContentsMargins(6, 2, 4, 2)
        row.addWidget(self._words, 1)
        row.addWidget(self.restore)
        row.addWidget(self.discard)
        self.restore.clicked.connect(self.restore_asked)
        self.discard.clicked.connect(self.discard_asked)
        self.offer([])

    def offer(self, left: Sequence[LeftOver]) -> None:
        """Offer what was left, if anything."""
        said = ", ".join(one.words for one in left)
        several = len(left) > 1 or any(len(one.results) > 1 for one in left)
        self._words.setText(f"{said} {'were' if several else 'was'} not closed properly.")
        self.setVisible(bool(left))
