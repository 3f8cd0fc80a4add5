"""The table of Gaussians: sortable, filtered, its selection that of the points."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QVBoxLayout,
    QWidget,
)
from superqt import QDoubleRangeSlider

from napari_gaussfit._napari.layers.looking import look_at_point
from napari_gaussfit._napari.panel.channel_pairs import RATIO, ChannelPairs, with_ratios
from napari_gaussfit._napari.panel.filters import EXAMPLE, allowed_by
from napari_gaussfit._napari.panel.row_view import RowView
from napari_gaussfit._napari.panel.rows import RowTable
from napari_gaussfit._napari.panel.widgets import wheel_needs_focus
from napari_gaussfit.errors import GaussfitError, SettingsError
from napari_gaussfit.jobs.versions import EDITS, MEASURING, undo_words
from napari_gaussfit.measure.table import CHANNEL, FLAGS, GOODNESS
from napari_gaussfit.model.gaussians import counted

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd
    from napari.layers import Points
    from napari.viewer import Viewer

    from napari_gaussfit.fitting.result import FitResult

__all__ = ["COLUMNS", "TablePart"]

COLUMNS = (
    "index",
    "amplitude",
    "integrated_intensity",
    "fwhm_1",
    "fwhm_2",
    "fwhm_3",
    "z",
    "y",
    "x",
    GOODNESS,
)
"""Of the table; that of the flags is the last."""

SOMETIMES = ("time", "track", *(f"{name}{n}" for n in range(1, 10) for name in (CHANNEL, RATIO)))
"""Columns of several times and channels: the first channel's amplitude has its own name."""

ORDER = (COLUMNS[0], FLAGS, *SOMETIMES[:2], COLUMNS[1], *SOMETIMES[2:], *COLUMNS[2:])
"""As they stand beside each other."""

NOTHING = "No fit at rest: the table comes when one ends or pauses."
_slider_class: Any = QDoubleRangeSlider

_BACK = "Show the Gaussians as the fit left them"

_UNDO_TIPS = {
    frozenset({EDITS}): f"{_BACK}, without what was deleted, moved or added in the points since.",
    frozenset({MEASURING}): f"{_BACK}, before they were measured; their error bars go.",
    frozenset({EDITS, MEASURING}): f"{_BACK}: before they were measured, and without what was "
    "deleted, moved or added in the points. Ctrl+Z takes back the last of these alone.",
}
"""Of the button that takes back what was done to a fit's Gaussians."""


class TablePart(QWidget):
    """A table of a fit's Gaussians beside their Points layer, with filters.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Whose view goes to a row's Gaussian.
    """

    undo_asked = Signal()
    edited = Signal()
    """The Gaussians as the fit left them, without what was deleted, moved or added since."""

    filtered = Signal()
    """Other points are shown."""

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self._viewer = viewer
        self.model = RowTable(COLUMNS, sometimes=SOMETIMES)
        self.view = RowView(
            self.model,
            "Select rows to select their points, and the other way round. Double-click or Enter "
            "brings a Gaussian into view, Ctrl+C copies rows, the right button has more.",
            ORDER,
        )
        self.view.filters = True
        self.selection = self.view.selection
        self.view.sortByColumn(COLUMNS.index("amplitude"), Qt.SortOrder.DescendingOrder)
        self._amplitude = _range_slider("Show only Gaussians of these amplitudes.")
        self._size = _range_slider("Show only Gaussians whose mean width (FWHM) is in this range.")
        self.condition = _condition_line()
        self._words = QLabel(NOTHING)
        self._words.setObjectName("gaussfit_table_words")
        self._words.setWordWrap(True)
        self.pairs = ChannelPairs()
        self.pairs.changed.connect(self._take_pairs)
        self._make_buttons()
        form = QFormLayout()
        form.addRow("Amplitude", self._amplitude)
        form.addRow("Width", self._size)
        form.addRow("Only where", self.condition)
        row = QHBoxLayout()
        for button in (self.undo, self.columns, self.save):
            row.addWidget(button)
        box = QVBoxLayout(self)
        box.addLayout(form)
        box.addWidget(self.pairs)
        box.addWidget(self._words)
        box.addWidget(self.view, 1)
        box.addLayout(row)
        self._points: Points | None = None
        self._busy = False
        self._problem = ""
        self._unit, self._stack = "pixel", ""
        self._spacing = np.ones(3)
        self._amplitude.valueChanged.connect(self._filter)
        self._size.valueChanged.connect(self._filter)
        self.condition.editingFinished.connect(self._filter)
        self.condition.textChanged.connect(self._clear_condition)
        self.view.chosen.connect(self._select_points)
        self.view.opened.connect(self._bring_into_view)
        self.view.filter_asked.connect(self._begin_condition)
        self.view.columns_changed.connect(self._count)

    def _make_buttons(self) -> None:
        self.undo = QPushButton()
        self._offer_undo(())
        self.undo.clicked.connect(self.undo_asked)
        self.columns = QPushButton("Columns")
        self.columns.setToolTip("Choose which columns are shown, here or in the header's menu.")
        self.columns.pressed.connect(self._offer_columns)
        self.save = QPushButton("Save…")
        self.save.setToolTip(
            "Save the rows that are shown, in their order, with all columns (CSV)."
        )
        self.save.setEnabled(False)
        self.save.clicked.connect(self.view.ask_where_to_save)

    def _offer_undo(self, done: Iterable[str]) -> None:
        """Offer the Gaussians as the fit left them, by the name of what that takes back."""
        self._done = {*done}
        words = undo_words(self._done or {EDITS})
        self.undo.setText(words.capitalize())
        self.undo.setToolTip(_UNDO_TIPS[frozenset(self._done or {EDITS})])
        self.undo.setEnabled(bool(self._done))

    def _offer_columns(self) -> None:
        menu = self.view.column_menu()
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        menu.popup(self.columns.mapToGlobal(self.columns.rect().bottomLeft()))
        self.columns.setDown(False)

    def show_fit(self, fit: FitResult, points: Points | None, done: Iterable[str] = ()) -> None:
        """Show a fit's Gaussians, and follow the selection of their points.

        `done` is what was done to them since their fit, as a `Version` has it.
        """
        from napari_gaussfit.measure.table import measurements

        self._follow(points)
        self._unit = self.model.unit = fit.stack.unit
        self._stack = fit.stack.name
        self.view.name = f"{fit.stack.name} Gaussians"
        self._spacing = np.asarray(fit.stack.spacing)
        self._offer_undo(done)
        # The points of a fit at rest have them already.
        table = (
            measurements(fit.measured_fields, fit.stack.spacing, fit.measurement)
            if points is None
            else points.features
        )
        self._show(with_ratios(table, fit))
        # At several times it is the same Gaussians again: their spread says nothing of the errors.
        self.pairs.show_fit(None if "track" in table else fit)

    def show_nothing(self) -> None:
        """Show no Gaussian: those of a fit that runs change all the time."""
        self._follow(None)
        self._busy = True
        self.model.show_measurements(None)
        self._busy = False
        self._offer_undo(())
        self.save.setEnabled(False)
        self._words.setText(NOTHING)
        self.pairs.show_fit(None)

    def _take_pairs(self) -> None:
        """Have what is known of pairs of channels copied and saved with the rows."""
        table = self.pairs.table
        self.view.beside = None if table is None else ("channels", table)

    def _show(self, table: pd.DataFrame) -> None:
        self._busy = True
        self.model.show_measurements(table)
        for slider, values in (
            (self._amplitude, self.model.column("amplitude")),
            (self._size, self._widths()),
        ):
            _take_range(slider, values)
        self.save.setEnabled(True)
        self._busy = False
        self._filter()

    def _show_edited(self, _event: object = None) -> None:
        """Follow what the user does to the points: their rows are theirs."""
        if self._points is None:
            return
        from napari_gaussfit._napari.layers.edited import fit_of_layer, known_features

        table = known_features(self._points)
        if len(table) == len(self._points.data):
            table[["z", "y", "x"]] = np.asarray(self._points.data)[:, -3:] * self._spacing
            self._offer_undo({*self._done, EDITS})
            fit = None
            if f"{CHANNEL}1" in table:
                with suppress(GaussfitError):  # points that have lost what makes a Gaussian
                    fit = fit_of_layer(self._points)
            self._show(table if fit is None else with_ratios(table, fit))
            self.pairs.show_fit(fit)
            self.edited.emit()

    @property
    def choices(self) -> tuple[Any, Any, str]:
        """Ranges that are chosen, None for all there is, and the condition."""
        amplitude, size = (
            None if slider.value() == (slider.minimum(), slider.maximum()) else slider.value()
            for slider in (self._amplitude, self._size)
        )
        return amplitude, size, self.condition.text()

    @choices.setter
    def choices(self, choices: tuple[Any, Any, str]) -> None:
        amplitude, size, condition = choices
        self.condition.setText(condition)
        for slider, chosen in ((self._amplitude, amplitude), (self._size, size)):
            if chosen is not None:
                slider.setValue(chosen)
        self._filter()

    def show_only(self, amplitude: tuple[float, float]) -> None:
        """Show only Gaussians with an amplitude in this range."""
        self._amplitude.setValue(amplitude)

    def close_down(self) -> None:
        """Follow no layer any more."""
        self._follow(None)
        self.pairs.close_down()

    def _follow(self, points: Points | None) -> None:
        if self._points is not None:
            self._points.selected_data.events.items_changed.disconnect(self._select_rows)
            self._points.events.features.disconnect(self._show_edited)
            if not self._points.shown.all():
                self._points.shown = True
        self._points = points
        if points is not None:
            points.selected_data.events.items_changed.connect(self._select_rows)
            points.events.features.connect(self._show_edited)

    def _widths(self) -> np.ndarray:
        columns = [self.model.column(f"fwhm_{n}") for n in (1, 2, 3)]
        widths: np.ndarray = np.cbrt(columns[0] * columns[1] * columns[2])
        return widths

    def _filter(self, _value: object = None) -> None:
        """Show only the rows, and their points, that sliders and condition allow."""
        if self._busy:
            return
        allowed = np.ones(len(self.model.table), np.bool_)
        for slider, values in (
            (self._amplitude, self.model.column("amplitude")),
            (self._size, self._widths()),
        ):
            low, high = map(float, slider.value())
            # A slider counts in steps of its own.
            slack = 1e-6 * (slider.maximum() - slider.minimum())
            if low > slider.minimum() + slack:
                allowed &= values >= low - slack
            if high < slider.maximum() - slack:
                allowed &= values <= high + slack
        self._problem = ""
        try:
            allowed &= allowed_by(self.condition.text(), self.model.table)
        except SettingsError as error:
            self._problem = str(error)
        self._busy = True
        self.model.allow(allowed)
        self._show_points(allowed)
        self._busy = False
        self._count()
        self._select_rows()
        self.filtered.emit()

    def _show_points(self, allowed: np.ndarray) -> None:
        """Hide the points of rows that are not shown: what nobody sees, nobody deletes."""
        points = self._points
        if points is None or len(points.data) != len(allowed):
            return
        if not np.array_equal(points.shown, allowed):
            points.shown = allowed
            seen = {n for n in points.selected_data if allowed[n]}
            if seen != set(points.selected_data):
                points.selected_data = seen

    def _clear_condition(self, text: str) -> None:
        """Show all again where the condition is deleted; what is typed waits for Enter."""
        if not text:
            self._filter()

    def _begin_condition(self, title: str) -> None:
        """Have a condition on a column typed on."""
        begun = self.condition.text().strip()
        self.condition.setText(f"{begun} and {title} > " if begun else f"{title} > ")
        self.condition.setFocus()

    def _count(self) -> None:
        shown, known = self.model.rowCount(), len(self.model.table)
        if not known and not self._stack:
            return
        known_of = {name for name in self.model.usual if self.model.says_something(name)}
        hidden = len(known_of - {*self.view.shown_columns})
        more = f"; {hidden} more columns under Columns" if hidden else ""
        self._words.setText(
            f"⚠ {self._problem}"
            if self._problem
            else f"{self._stack}: {shown:,} of {counted(known)}, lengths in {self._unit}s{more}"
        )

    def _bring_into_view(self, item: int) -> None:
        """Go to a Gaussian: its slice, in the middle, near enough to see it."""
        if self._points is None or item >= len(self._points.data):
            return
        width = float(self.model.column("fwhm_1")[item]) / float(self._spacing[-1])
        look_at_point(self._viewer, self._points, item, width)
        self._points.selected_data = {item}

    def _select_points(self) -> None:
        """Select the points of the selected rows."""
        if self._busy or self._points is None:
            return
        self._busy = True
        there = len(self._points.data)
        self._points.selected_data = {n for n in self.view.items if n < there}
        self._busy = False

    def _select_rows(self, *_: object) -> None:
        """Select the rows of the selected points."""
        if not self._busy and self._points is not None:
            self.view.choose({int(n) for n in self._points.selected_data})


def _range_slider(tip: str) -> Any:
    slider: Any = _slider_class(Qt.Orientation.Horizontal)
    slider.setToolTip(tip)
    slider.setRange(0.0, 1.0)
    slider.setValue((0.0, 1.0))
    wheel_needs_focus(slider)
    return slider


def _take_range(slider: Any, values: np.ndarray) -> None:
    """Give a slider the range of some values; a part of the range that was chosen stays chosen."""
    if not len(values) or not np.isfinite(values).any():
        return
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    high = max(high, low + 1e-9)
    slack = 1e-6 * (slider.maximum() - slider.minimum())
    first, last = map(float, slider.value())
    first = first if first > slider.minimum() + slack else low
    last = last if last < slider.maximum() - slack else high
    slider.setRange(low, high)
    slider.setValue((min(max(first, low), high), max(min(last, high), low)))


def _condition_line() -> QLineEdit:
    line = QLineEdit()
    line.setObjectName("gaussfit_condition")
    line.setClearButtonEnabled(True)
    line.setPlaceholderText(EXAMPLE)
    line.setAccessibleName("Only where")
    line.setToolTip(
        "Show only rows, and points, of which this is so, and press Enter: columns compared with "
        f"<, <=, >, >=, =, != (words: has), joined by and, or. For example: {EXAMPLE}."
    )
    return line
