"""Where a point spread function is named: a file, or the optics that make it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFileDialog, QHBoxLayout, QLineEdit, QPushButton, QWidget

from napari_gaussfit.errors import GaussfitError, SettingsError

if TYPE_CHECKING:
    from napari_gaussfit.measure.psf import Psf

__all__ = ["PsfField"]

TIP = (
    "What your microscope makes of a point: the psf.json that was measured from beads "
    "(napari-gaussfit psf), or NA, wavelength in nm and refractive index of the immersion, as "
    "1.4,520,1.518. No Gaussian is narrower then, and the table has the objects' own widths. "
    "Empty: not known."
)


class PsfField(QWidget):
    """A line for a file or three numbers, and a button that looks for the file."""

    changed = Signal()
    """Another point spread function, or none, or one that cannot be meant."""

    def __init__(self) -> None:
        super().__init__()
        self._line = QLineEdit()
        self._line.setObjectName("gaussfit_psf")
        self._line.setAccessibleName("Point spread function")
        self._line.setPlaceholderText("not known: psf.json, or NA,nm,index")
        self._line.setClearButtonEnabled(True)
        self._line.editingFinished.connect(self.commit)
        self._line.textEdited.connect(self._forget_when_empty)
        choose = QPushButton("…")
        choose.setObjectName("gaussfit_psf_choose")
        choose.setAccessibleName("Choose a point spread function")
        choose.setFixedWidth(28)
        choose.clicked.connect(self._choose)
        for widget in (self, self._line, choose):
            widget.setToolTip(TIP)
        box = QHBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.addWidget(self._line, 1)
        box.addWidget(choose)
        self._psf: Psf | None = None
        self._named = self._problem = ""

    @property
    def named(self) -> str:
        """What stands there."""
        return self._line.text().strip()

    @named.setter
    def named(self, words: str) -> None:
        self._line.setText(words)
        self.commit()

    @property
    def psf(self) -> Psf | None:
        """The point spread function that is named, None where none is.

        Raises
        ------
        SettingsError
            If what stands there names none.
        """
        if self._problem:
            raise SettingsError(f"PSF: {self._problem}")
        return self._psf

    def commit(self) -> None:
        """Take what is typed."""
        words = self.named
        if words == self._named:
            return
        self._named, self._psf, self._problem = words, None, ""
        if words:
            from napari_gaussfit.measure.psf import Psf

            try:
                self._psf = Psf.named(words)
            except GaussfitError as error:
                self._problem = str(error)
        said = self._problem or (self._psf.words if self._psf else "")
        self._line.setToolTip(f"{said}\n\n{TIP}" if said else TIP)
        self.changed.emit()

    def _forget_when_empty(self, words: str) -> None:
        if not words:  # the button in the line empties it without leaving it
            self.commit()

    def _choose(self) -> None:
        path, _ = QFileDialog.getOpenFileName(
            self, "Point spread function", "", "Point spread functions (*.json)"
        )
        if path:
            self.named = path
