"""Saving what was fitted of a recording: the folder that the command line leaves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QFileDialog, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_gaussfit._napari.panel.preferences import begins_at
from napari_gaussfit.errors import GaussfitError
from napari_gaussfit.jobs.time_folder import save_times

if TYPE_CHECKING:
    import pandas as pd

    from napari_gaussfit._napari.panel.over_time import OverTime
    from napari_gaussfit.jobs.sequence import Frame
    from napari_gaussfit.objects.tracks import Tracks
    from napari_gaussfit.settings import FitSettings
    from napari_gaussfit.stacks.time_series import TimeSeries

    Asked = tuple[Path, TimeSeries, tuple[Frame, ...], pd.DataFrame, Tracks, FitSettings]

__all__ = ["SaveTimes"]


class SaveTimes(QWidget):
    """A button that saves all times; hidden where there is but one."""

    def __init__(self) -> None:
        super().__init__()
        self._shown: OverTime | None = None
        self.button = QPushButton("Save all times…")
        self.button.setObjectName("gaussfit_save_times")
        self.button.setToolTip(
            "Save into a folder what `napari-gaussfit fit --time` leaves there: one table with "
            "times and tracks, tracks.csv, a picture, a report, and a fit a time. What is above "
            "is of the time in view."
        )
        self._words = QLabel()
        self._words.setObjectName("gaussfit_saved_times")
        self._words.setWordWrap(True)
        box = QVBoxLayout(self)
        box.addWidget(self.button)
        box.addWidget(self._words)
        self.button.clicked.connect(self.ask_where)
        self.show_times(None)

    def show_times(self, shown: OverTime | None) -> None:
        """Take what there is to save, None where it is of one time."""
        self._shown = shown if shown is not None and shown.frames else None
        self._words.setText("")
        self.setVisible(self._shown is not None)

    def ask_where(self) -> None:
        """Ask for a folder, and save all times."""
        path = QFileDialog.getExistingDirectory(self, "Save all times into a folder", begins_at())
        if path:
            self.save_to(path)

    def save_to(self, path: str) -> None:
        """Save into a folder, in a thread."""
        from napari.qt.threading import create_worker

        shown = self._shown
        if shown is None or shown.tracks is None or shown.settings is None:
            return
        self.button.setEnabled(False)
        self._words.setText("Saving…")
        worker = create_worker(
            _outcome,
            (
                Path(path),
                shown.live.recording.series,
                shown.frames,
                shown.table(),
                shown.tracks,
                shown.settings,
            ),
            _start_thread=False,
        )
        worker.returned.connect(self._tell)
        worker.start()

    def _tell(self, outcome: tuple[str, bool]) -> None:
        from napari.utils.notifications import show_error

        words, saved = outcome
        self.button.setEnabled(True)
        self._words.setText(words)
        if not saved:
            show_error(f"Gaussian fit: {words}")


def _outcome(asked: Asked) -> tuple[str, bool]:
    """Save, and say what has come of it. Runs in a thread."""
    try:
        save_times(*asked)
    except (GaussfitError, OSError) as error:
        return f"Not saved: {error}", False
    return f"Saved to {asked[0]}", True
