"""A widget that opens what is dropped on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QWidget

from napari_gaussfit._napari.panel.widgets import dropped_files
from napari_gaussfit.errors import GaussfitError

if TYPE_CHECKING:
    from napari.viewer import Viewer
    from qtpy.QtGui import QDragEnterEvent, QDropEvent

__all__ = ["TakesFiles"]


class TakesFiles(QWidget):
    """Opens dropped files with this plugin's reader.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        In which they are opened.
    """

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self.viewer = viewer
        self.setAcceptDrops(True)

    def dragEnterEvent(self, event: QDragEnterEvent | None) -> None:
        """Take files."""
        if event is not None and dropped_files(event):
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent | None) -> None:
        """Open dropped files, without a question."""
        if event is None:
            return
        event.acceptProposedAction()
        for path in dropped_files(event):
            self._open(path)

    def _open(self, path: str) -> None:
        """Open a file; one that cannot be read keeps none that was dropped with it from opening."""
        from napari.utils.notifications import show_error

        try:
            table = path.lower().endswith(".csv")  # which napari reads as points
            self.viewer.open(path, plugin="napari" if table else "napari-gaussfit")
        except GaussfitError as error:
            show_error(str(error))
