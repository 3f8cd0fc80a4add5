"""The widgets of the search for spots: what is looked for, its run, its table. Know no viewer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_gaussfit._napari.panel.columns_button import ColumnsButton
from napari_gaussfit._napari.panel.row_view import RowView
from napari_gaussfit._napari.panel.rows import RowTable
from napari_gaussfit._napari.panel.run import StateLine
from napari_gaussfit._napari.panel.slider_field import SliderField
from napari_gaussfit._napari.panel.track_plot import TrackPlot
from napari_gaussfit._napari.panel.widgets import Form
from napari_gaussfit._napari.worker import Phase
from napari_gaussfit.measure.table import FLAGS, GOODNESS
from napari_gaussfit.stacks.units import UNIT_WORDS

if TYPE_CHECKING:
    import pandas as pd

    from napari_gaussfit.jobs.objects import SpotCandidates
    from napari_gaussfit.stacks.facts import StackFacts
    from napari_gaussfit.stacks.stack import Stack

__all__ = ["SpotRun", "SpotSetup", "SpotTable"]

FALSE_IN_HUNDRED = 1.0
"""Of the spots that are found, that may be noise, where nobody says otherwise."""

COLUMNS = (
    "index",
    "z",
    "y",
    "x",
    "fwhm_1",
    "fwhm_2",
    "fwhm_3",
    "amplitude",
    "integrated_intensity",
    "signal_to_noise",
    GOODNESS,
    "neighbours",
)

OVER_TIME = ("time", "track")
"""Columns of several times, which stand after the first."""

PLOT_HEIGHT = 260
"""Pixels that the plot over time takes at most: most room is for the rows."""

WIDEST_VOXELS = 40.0
"""FWHM at the end of the sliders; larger ones can be typed."""


class SpotSetup(QWidget):
    """Sizes and sensitivity."""

    changed = Signal()
    """Another size or sensitivity, while a slider moves."""

    def __init__(self) -> None:
        super().__init__()
        self._unit = ""
        self._chosen = {"least": False, "largest": False}
        self.least = SliderField(
            0.01, 1.0, logarithmic=True,
            tip="Least width of a spot: its FWHM across the optical axis.",
        )  # fmt: skip
        self.largest = SliderField(
            0.01, 1.0, logarithmic=True,
            tip="Largest width of a spot: its FWHM across the optical axis.",
        )  # fmt: skip
        for one in (self.least, self.largest):
            one.show_nothing()  # Until the stack's own are known.
        self.false_in_hundred = SliderField(
            0.1, 20.0, most=50.0, logarithmic=True,
            tip="How many of a hundred spots that are found may be noise: "
            "more finds fainter ones.",
        )  # fmt: skip
        self.false_in_hundred.show_value(FALSE_IN_HUNDRED)
        self.usual = QPushButton("Default sizes")
        self.usual.setToolTip("Look for what suits the stack: from 2 voxels to 6, or 0.6 µm.")
        self._words = QLabel()
        self._words.setObjectName("gaussfit_candidates")
        self._words.setWordWrap(True)
        self._words.setContentsMargins(4, 0, 4, 0)
        self._labels = QLabel()
        self._labels.setObjectName("gaussfit_sizes")
        self._labels.setWordWrap(True)
        form = Form()
        form.add_row("Least size", self.least)
        form.add_row("Largest size", self.largest)
        form.add_row("False in 100", self.false_in_hundred)
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(4)
        box.addWidget(form)
        row = QHBoxLayout()
        row.setContentsMargins(4, 0, 4, 0)
        row.addWidget(self._labels, 1)
        row.addWidget(self.usual)
        box.addLayout(row)
        box.addWidget(self._words)
        self.least.moved.connect(lambda _: self._take("least"))
        self.largest.moved.connect(lambda _: self._take("largest"))
        self.false_in_hundred.moved.connect(lambda _: self.changed.emit())
        self.usual.clicked.connect(self._forget_sizes)
        self._enable()

    @property
    def sizes(self) -> tuple[float | None, float | None]:
        """The least and the largest, None where nobody has chosen one."""
        return (
            self.least.value if self._chosen["least"] else None,
            self.largest.value if self._chosen["largest"] else None,
        )

    @property
    def choices(self) -> tuple[str, float | None, float | None, float]:
        """In which unit sizes are, those that were chosen, and false ones in a hundred."""
        return self._unit, *self.sizes, self.false_in_hundred.value

    @choices.setter
    def choices(self, choices: tuple[str, float | None, float | None, float]) -> None:
        self._unit, least, largest, false_in_hundred = choices
        for name, one, size in (("least", self.least, least), ("largest", self.largest, largest)):
            self._chosen[name] = size is not None
            if size is not None:
                one.show_value(size)
        self.false_in_hundred.show_value(false_in_hundred)
        self._enable()

    @property
    def false_discoveries(self) -> float:
        """The share of spots that may be noise."""
        return self.false_in_hundred.value / 100

    @property
    def problem(self) -> str:
        """Why what is typed cannot be taken, empty where it can."""
        fields = {"least size": self.least, "largest size": self.largest}
        fields["false in 100"] = self.false_in_hundred
        said = (f"{name}: {one.field.problem}" for name, one in fields.items() if one.field.problem)
        return next(said, "")

    def commit(self) -> None:
        """Take what is typed."""
        for one in (self.least, self.largest, self.false_in_hundred):
            one.field.commit()

    def show_stack(self, stack: Stack | StackFacts) -> None:
        """Offer sizes that a stack can show; those that were chosen in another unit are not."""
        if stack.unit != self._unit:
            self._unit = stack.unit
            self._chosen = dict.fromkeys(self._chosen, False)
        across = math.sqrt(stack.spacing[1] * stack.spacing[2])
        most = across * max(stack.shape)
        for one in (self.least, self.largest):
            one.set_ends(across, min(WIDEST_VOXELS * across, most), most)
        self._enable()

    def show_candidates(self, found: SpotCandidates, shown: int, *, drawn: bool) -> None:
        """Say how many candidates there are, `drawn` or not, and which sizes are looked for."""
        self.show_sizes(found.least, found.largest)
        said = f"{shown:,} place{'s' * (shown != 1)} stand out of the noise"
        said = said.replace("stand", "stands") if shown == 1 else said
        said += " (yellow rings)" if drawn else ""
        then = (
            "Add or delete points first where you know better."
            if drawn
            else "Their layer was deleted; move a slider to have it again."
        )
        self.show_words(f"{said}. Fit tells which of them are spots, and measures those. {then}")

    def show_sizes(self, least: float, largest: float) -> None:
        """Show which sizes are looked for where nobody has chosen them."""
        for name, one, size in (("least", self.least, least), ("largest", self.largest, largest)):
            if not self._chosen[name]:
                one.show_value(float(f"{size:.3g}"))

    def show_words(self, words: str) -> None:
        """Say something in place of how many candidates there are."""
        self._words.setText(words)

    def _take(self, name: str) -> None:
        """Take a size, and have the other give way where it must."""
        self._chosen[name] = True
        moved, other = (self.least, self.largest)[:: 1 if name == "least" else -1]
        if self.least.value > self.largest.value:
            other.show_value(moved.value)
            self._chosen = dict.fromkeys(self._chosen, True)
        self._enable()
        self.changed.emit()

    def _forget_sizes(self) -> None:
        self._chosen = dict.fromkeys(self._chosen, False)
        self._enable()
        self.changed.emit()

    def _enable(self) -> None:
        chosen = [name for name, is_so in self._chosen.items() if is_so]
        self.usual.setEnabled(bool(chosen))
        whose = ", as suit the stack" if self._unit else ""
        if chosen:
            whose = ", as you set them" if len(chosen) > 1 else f", the {chosen[0]} as you set it"
        unit = f" in {UNIT_WORDS[self._unit]}" if self._unit else ""
        self._labels.setText(f"Sizes{whose}: full width at half maximum (FWHM){unit}.")


class SpotRun(QWidget):
    """Fit and Stop, and what a search says of itself."""

    fit_asked, stop_asked, forget_asked = Signal(), Signal(), Signal()

    def __init__(self) -> None:
        super().__init__()
        self.fit, self.stop = QPushButton("Fit"), QPushButton("Stop")
        self.fit.setObjectName("gaussfit_spots_fit")
        self.fit.setToolTip("Find the spots of the chosen stack, one Gaussian each, and measure.")
        self.stop.setObjectName("gaussfit_spots_stop")
        self.stop.setToolTip("End the search; spots that were found before stay.")
        self._state = StateLine("gaussfit_spots_state")
        self._bar = QProgressBar()
        self._bar.setTextVisible(False)
        self._bar.setToolTip("A search ends when nothing more is found.")
        self._marks = QLabel()
        self._marks.setObjectName("gaussfit_marks")
        self._marks.setWordWrap(True)
        self._forget = QPushButton("Forget")
        self._forget.setToolTip("Take back what was added and deleted.")
        row, marks = QHBoxLayout(), QHBoxLayout()
        for button in (self.fit, self.stop):
            row.addWidget(button)
        marks.addWidget(self._marks, 1)
        marks.addWidget(self._forget)
        box = QVBoxLayout(self)
        box.setContentsMargins(4, 2, 4, 4)
        box.setSpacing(4)
        box.addLayout(row)
        box.addLayout(marks)
        box.addWidget(self._state)
        box.addWidget(self._bar)
        self.fit.clicked.connect(self.fit_asked)
        self.stop.clicked.connect(self.stop_asked)
        self._forget.clicked.connect(self.forget_asked)
        self.show_marks("")
        self.show_state("Idle", Phase.IDLE)
        self.allow(ready=False, busy=False)

    def allow(self, *, ready: bool, busy: bool) -> None:
        """Enable what does something; the bar moves while a search goes on."""
        self.fit.setEnabled(ready and not busy)
        self.stop.setEnabled(busy)
        self._bar.setRange(0, 0 if busy else 1)
        self._bar.setVisible(busy)

    def show_state(self, words: str, phase: Phase) -> None:
        """Say what is being done."""
        self._state.show_state(words, phase)

    def show_marks(self, words: str) -> None:
        """Say what a person has said of spots; no words hide it."""
        self._marks.setText(words)
        for widget in (self._marks, self._forget):
            widget.setVisible(bool(words))


class SpotTable(QWidget):
    """A row a spot, and where they are saved."""

    save_asked, folder_asked = Signal(), Signal()

    def __init__(self) -> None:
        super().__init__()
        self.model = RowTable(COLUMNS, sometimes=OVER_TIME)
        self.view = RowView(
            self.model,
            "Select rows to select their points, and the other way round.",
            (COLUMNS[0], *OVER_TIME, FLAGS, *COLUMNS[1:]),
        )
        self.view.sortByColumn(0, Qt.SortOrder.AscendingOrder)
        self._words = QLabel("No spots yet: press Fit.")
        self._words.setObjectName("gaussfit_spots_words")
        self._words.setWordWrap(True)
        self.tracks = TrackPlot("gaussfit_spot_track")
        self.tracks.setMaximumHeight(PLOT_HEIGHT)
        self.save, self.folder = QPushButton("Save table…"), QPushButton("Save folder…")
        self.save.setToolTip("Save the rows as a table (CSV), with all columns and error bars.")
        self.folder.setToolTip(
            "Save the table, a report and a picture into a folder; of several times also their "
            "tracks, and a folder a time."
        )
        buttons = QHBoxLayout()
        for button in (self.save, self.folder):
            button.setEnabled(False)
            buttons.addWidget(button)
        buttons.addWidget(ColumnsButton(self.view))
        box = QVBoxLayout(self)
        box.addWidget(self._words)
        box.addWidget(self.view, 1)
        box.addWidget(self.tracks)
        box.addLayout(buttons)
        self.save.clicked.connect(self.save_asked)
        self.folder.clicked.connect(self.folder_asked)

    def show_unit(self, unit: str) -> None:
        """Have the titles of a table without rows say in which unit spots will be."""
        if self.model.unit != unit:
            self.model.unit = unit
            self.model.show_measurements(None)

    def show_spots(self, table: pd.DataFrame, unit: str) -> None:
        """Show what was found; of several times, one after the other if nobody sorts otherwise."""
        header = self.view.horizontalHeader()
        before = 0 if header is None else header.sortIndicatorSection()
        unsorted = self.model.columns[before] in {COLUMNS[0], OVER_TIME[0]}
        self.model.unit = unit
        self.model.show_measurements(table)
        if unsorted:
            first = OVER_TIME[0] if OVER_TIME[0] in table else COLUMNS[0]
            ascending = Qt.SortOrder.AscendingOrder
            self.view.sortByColumn(self.model.columns.index(first), ascending)
        for button in (self.save, self.folder):
            button.setEnabled(True)

    def show_words(self, words: str) -> None:
        """Say how many there are, or where they went."""
        self._words.setText(words)
