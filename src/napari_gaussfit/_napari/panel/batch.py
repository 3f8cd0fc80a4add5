"""Many files, from the panel: a dialog that fits them one after another, in a process of its own.

The same as ``napari-gaussfit batch``: a folder a file, ``summary.csv``, and what was done with the
same settings can be kept.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QAbstractItemView,
    QCheckBox,
    QDialog,
    QFileDialog,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QLineEdit,
    QProgressBar,
    QPushButton,
    QSpinBox,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_gaussfit._napari.panel.child_run import ChildRun
from napari_gaussfit._napari.panel.preferences import begins_at
from napari_gaussfit.errors import GaussfitError
from napari_gaussfit.jobs.batch import SUMMARY_NAME, RowState, expanded
from napari_gaussfit.jobs.batch_child import BatchTask
from napari_gaussfit.jobs.messages import Message

if TYPE_CHECKING:
    from collections.abc import Callable

    from qtpy.QtGui import QCloseEvent

    from napari_gaussfit.settings import FitSettings

__all__ = ["BatchButton", "BatchDialog"]

HEADER = ("File", "State", "Gaussians", "Held-out (dB)", "Voxels (dB)", "Why")
FIGURES = ("state", "number", "heldout_mip_psnr", "voxel_psnr", "error")

FILES = "Stacks (*.tif *.tiff *.TIF *.TIFF);;All files (*)"


class BatchDialog(QDialog):
    """Chooses files, settings' results folder, and shows how it goes.

    Parameters
    ----------
    settings : FitSettings
        Of each fit: those of the panel.
    parent : QWidget, optional
        The panel that the dialog belongs to.
    """

    def __init__(self, settings: FitSettings, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle("Fit many files")
        self.setObjectName("gaussfit_batch_dialog")
        self._settings, self._files = settings, list[Path]()
        self._run: ChildRun | None = None
        self._n, self._states = 0, list[str]()
        self.table = QTableWidget(0, len(HEADER))
        self.table.setObjectName("gaussfit_batch_table")
        self.table.setHorizontalHeaderLabels(HEADER)
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        header = self.table.horizontalHeader()
        if header is not None:
            header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
            header.setSectionResizeMode(len(HEADER) - 1, QHeaderView.ResizeMode.Stretch)
        self.out, self.channel = QLineEdit(), QSpinBox()
        self.out.setObjectName("gaussfit_batch_out")
        self.out.setPlaceholderText("a folder; each file gets one inside it, beside summary.csv")
        self.out.textChanged.connect(self._enable)
        self.channel.setRange(-1, 99)
        self.channel.setValue(-1)
        self.channel.setSpecialValueText("the only one")
        self.resume = QCheckBox("Keep what was done before with these settings")
        self.resume.setObjectName("gaussfit_batch_resume")
        self.bar = QProgressBar()
        self.words = QLabel()
        self.words.setObjectName("gaussfit_batch_words")
        self.words.setWordWrap(True)
        self.buttons = {
            name: self._button(name, tip, action)
            for name, tip, action in (
                ("Add files…", "Choose stacks to fit.", self._choose_files),
                ("Add folder…", "Add the stacks in a folder.", self._choose_folder),
                ("Remove", "Take the chosen rows off the list.", self._remove),
                ("Choose…", "Choose the folder for results.", self._choose_out),
                ("Start", "Fit all files, with the settings of the panel.", self.start),
                ("Stop", "End after the step that is running; what is done is kept.", self.stop),
                ("Close", "Close this window; a batch that is running ends.", self.close),
            )
        }
        self._lay_out()
        self._say(_summary(settings))
        self._enable()

    def _button(self, name: str, tip: str, action: Callable[[], object]) -> QPushButton:
        button = QPushButton(name)
        button.setObjectName(f"gaussfit_batch_{name.strip('…').lower().replace(' ', '_')}")
        button.setToolTip(tip)
        button.setAutoDefault(False)
        button.clicked.connect(action)
        return button

    def _lay_out(self) -> None:
        box = QVBoxLayout(self)
        box.addLayout(_row(*(self.buttons[n] for n in ("Add files…", "Add folder…", "Remove"))))
        box.addWidget(self.table, 1)
        box.addLayout(_row(QLabel("Results:"), self.out, self.buttons["Choose…"]))
        box.addLayout(_row(QLabel("Channel:"), self.channel, self.resume))
        box.addWidget(self.words)
        box.addWidget(self.bar)
        box.addLayout(_row(*(self.buttons[n] for n in ("Start", "Stop", "Close"))))
        self.resize(760, 480)

    def add(self, paths: list[Path]) -> None:
        """Add files, and the stacks of folders; say which there are none in.

        Parameters
        ----------
        paths : list of Path
            The files and folders that were chosen or dropped.
        """
        try:
            found = expanded(paths)
        except GaussfitError as error:
            self._say(str(error), bad=True)
            return
        known = {path.resolve() for path in self._files}
        self._files += [path for path in found if path.resolve() not in known]
        self._show_files()

    def start(self) -> None:
        """Fit them."""
        self._show_files()
        channel = None if self.channel.value() < 0 else self.channel.value()
        task = BatchTask(
            [str(path) for path in self._files],
            self.out.text().strip(),
            self._settings.to_dict(),
            channel,
            self.resume.isChecked(),
        )
        self._run = ChildRun("batch_child", Message("batch", asdict(task)), "batch", self)
        self._run.told.connect(self._take)
        self._run.ended.connect(self._end)
        self._say("starting")
        self._enable()

    def stop(self) -> None:
        """End after the step that is running."""
        if self._run is not None:
            self._run.stop()
            self._say("stopping")

    def closeEvent(self, event: QCloseEvent | None) -> None:
        """End a batch that is running: nobody looks any more."""
        if self._run is not None:
            self._run.kill()
        super().closeEvent(event)

    def _take(self, message: Message) -> None:
        words = message.words
        if message.kind == "file":
            self._n = words["n"]
            self._cell(self._n, 1, "running")
            self.table.scrollToItem(self.table.item(self._n, 0))
            self._say(f"file {self._n + 1} of {len(self._files)}: {self._files[self._n].name}")
        elif message.kind == "step":
            self.bar.setRange(0, 100 * len(self._files))
            self.bar.setValue(int(100 * (self._n + words["done"] / max(1, words["of"]))))
        elif message.kind == "row":
            self._states[words["n"]] = words["row"]["state"]
            for column, name in enumerate(FIGURES, 1):
                self._cell(words["n"], column, _text(words["row"][name]))
            self.bar.setRange(0, 100 * len(self._files))
            self.bar.setValue(100 * (words["n"] + 1))

    def _end(self, why: str) -> None:
        self._run = None
        states = self._states
        counts = ", ".join(f"{states.count(s)} {s}" for s in RowState if s in states)
        summary = Path(self.out.text()) / SUMMARY_NAME
        self._say(why or f"{summary}: {counts}", bad=bool(why) or RowState.FAILED in states)
        self._enable()

    def _choose_files(self) -> None:
        names, _ = QFileDialog.getOpenFileNames(self, "Stacks to fit", filter=FILES)
        self.add([Path(name) for name in names])

    def _choose_folder(self) -> None:
        name = QFileDialog.getExistingDirectory(self, "A folder of stacks, or an OME-Zarr")
        if name:
            self.add([Path(name)])

    def _choose_out(self) -> None:
        name = QFileDialog.getExistingDirectory(self, "Folder for the results", begins_at())
        if name:
            self.out.setText(name)

    def _remove(self) -> None:
        chosen = {index.row() for index in self.table.selectedIndexes()}
        self._files = [path for n, path in enumerate(self._files) if n not in chosen]
        self._show_files()

    def _show_files(self) -> None:
        self.table.setRowCount(len(self._files))
        for n, path in enumerate(self._files):
            self._cell(n, 0, path.name, str(path))
            for column in range(1, len(HEADER)):
                self._cell(n, column, "")
        self._states = [""] * len(self._files)
        self.bar.reset()
        self._enable()

    def _cell(self, row: int, column: int, text: str, tip: str = "") -> None:
        item = QTableWidgetItem(text)
        item.setToolTip(tip or text)
        if column in (2, 3, 4):
            item.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        self.table.setItem(row, column, item)

    def _say(self, text: str, *, bad: bool = False) -> None:
        self.words.setText(text)
        self.words.setStyleSheet("color: #c4483a" if bad else "")

    def _enable(self) -> None:
        rest = self._run is None
        for name, button in self.buttons.items():
            button.setEnabled(rest or name in {"Stop", "Close"})
        self.buttons["Start"].setEnabled(rest and bool(self._files and self.out.text().strip()))
        self.buttons["Stop"].setEnabled(not rest)
        for widget in (self.out, self.channel, self.resume):
            widget.setEnabled(rest)


class BatchButton(QPushButton):
    """Opens the dialog, with the settings that the panel has then.

    Parameters
    ----------
    settings : callable
        Returns the settings that the panel has now.
    """

    def __init__(self, settings: Callable[[], FitSettings]) -> None:
        super().__init__("Fit many files…")
        self.setObjectName("gaussfit_batch")
        self.setToolTip(
            "Fit files, or all stacks of a folder, with these settings: a folder each, and one "
            "table of them all."
        )
        self.dialog: BatchDialog | None = None
        self._settings = settings
        self.clicked.connect(self._open)

    def _open(self) -> None:
        if self.dialog is not None and self.dialog.isVisible():
            self.dialog.raise_()
            return
        try:
            settings = self._settings()
        except GaussfitError as error:
            from napari.utils.notifications import show_error

            show_error(f"Gaussian fit: no files with these settings: {error}")
            return
        self.dialog = BatchDialog(settings, self)
        self.dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.dialog.destroyed.connect(self._forget)
        self.dialog.show()

    def _forget(self) -> None:
        self.dialog = None


def _row(*widgets: QWidget) -> QHBoxLayout:
    row = QHBoxLayout()
    for widget in widgets:
        row.addWidget(widget)
    return row


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def _summary(settings: FitSettings) -> str:
    count = "as many as the noise carries" if settings.gaussians is None else settings.gaussians
    exactly = "exactly " if settings.exactly else "at most " if settings.gaussians else ""
    return (
        f"Settings of the panel: Gaussians {exactly}{count}, quality {settings.quality}, objective "
        f"{settings.objective}. Spacing is each file's own."
    )
