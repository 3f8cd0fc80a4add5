"""How channels of one fit go together: ratios in the table, and a line on each pair."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QVBoxLayout, QWidget

from napari_gaussfit._napari.panel.asking import Asking
from napari_gaussfit._napari.panel.rows import with_error
from napari_gaussfit._napari.panel.widgets import Form, wheel_needs_focus, wrapped
from napari_gaussfit.measure.table import CHANNEL

if TYPE_CHECKING:
    import pandas as pd

    from napari_gaussfit.fitting.result import FitResult
    from napari_gaussfit.measure.channels import ChannelPair, Estimate

__all__ = ["RATIO", "ChannelPairs", "with_ratios"]

RATIO = "ratio_"
"""What the columns of ratios to the first channel begin with; the channels' numbers follow."""


def with_ratios(table: pd.DataFrame, fit: FitResult) -> pd.DataFrame:
    """Return a table with each channel's amplitude over the first's, and its error bar.

    Parameters
    ----------
    table : DataFrame
        A row a Gaussian of the fit, or of the fits of several times, which have no error bars.
    fit : FitResult
        Whose rows they are; of several times, one of them.
    """
    count = len(fit.fields)
    if count < 2 or f"{CHANNEL}1" not in table:
        return table
    columns: dict[str, np.ndarray] = {}
    if len(table) == len(fit.field) and "track" not in table:
        from napari_gaussfit.measure.channels import amplitude_ratios

        gaussians = [field.numpy() for field in fit.measured_fields]
        found = amplitude_ratios(gaussians, fit.measurement)
        for n, (ratios, errors) in enumerate(found, 1):
            columns |= {f"{RATIO}{n}": ratios, f"sd_{RATIO}{n}": errors}
    else:
        first = table["amplitude"].to_numpy(float)
        for n in range(1, count):
            with np.errstate(divide="ignore", invalid="ignore"):
                columns[f"{RATIO}{n}"] = table[f"{CHANNEL}{n}"].to_numpy(float) / first
    return table.assign(**columns)


class ChannelPairs(QWidget):
    """Says how two channels go together; hidden where there are not two.

    The errors are drawn many times, in a thread.
    """

    changed = Signal()
    """Other pairs are known, or none."""

    def __init__(self) -> None:
        super().__init__()
        self._pairs: tuple[ChannelPair, ...] = ()
        self._asking = Asking(self)
        self._choice = QComboBox()
        self._choice.setObjectName("gaussfit_pair")
        self._choice.setToolTip("Which two of the channels that were fitted are compared.")
        wheel_needs_focus(self._choice)
        self._words = wrapped(
            "gaussfit_pair_words",
            "Over all Gaussians of the fit. Ratio: integrated intensity of the second channel over "
            "that of the first. Pearson: correlation of the amplitudes, without what error bars "
            "do to it. Manders: the part of a channel's intensity in Gaussians that the other has "
            "too. ± one standard error, by a bootstrap over Gaussians. Copied with the rows "
            "(Ctrl+Shift+C), and saved beside them.",
        )
        form = Form()
        form.add_row("Compare", self._choice)
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.addWidget(form)
        box.addWidget(self._words)
        self._choice.currentIndexChanged.connect(self._say)
        self._asking.ended.connect(self._take)
        self.setVisible(False)

    @property
    def table(self) -> pd.DataFrame | None:
        """A row a pair, as the command line writes it; None where nothing is known."""
        if not self._pairs:
            return None
        from napari_gaussfit.measure.channels import pairs_table

        return pairs_table(self._pairs, range(1 + max(pair.second for pair in self._pairs)))

    def show_fit(self, fit: FitResult | None) -> None:
        """Compare the channels of a fit, or none."""
        self._asking.give_up()
        several = fit is not None and len(fit.fields) > 1 and len(fit.field) > 0
        self.setVisible(several)
        if fit is None or not several:
            self._take((), "")
            return
        gaussians, known = [field.numpy() for field in fit.measured_fields], fit.measurement

        def compare(_renderer: object) -> tuple[ChannelPair, ...]:
            from napari_gaussfit.measure.channels import compare_channels

            return compare_channels(gaussians, known)

        self._words.setText("Comparing…")
        self._asking.ask(compare)

    def close_down(self) -> None:
        """Compare no more."""
        self._asking.give_up()

    def _take(self, pairs: tuple[ChannelPair, ...] | None, error: str) -> None:
        self._pairs = pairs or ()
        names = [f"channels {pair.first} and {pair.second}" for pair in self._pairs]
        if names != [self._choice.itemText(n) for n in range(self._choice.count())]:
            self._choice.blockSignals(True)  # noqa: FBT003
            self._choice.clear()
            self._choice.addItems(names)
            self._choice.blockSignals(False)  # noqa: FBT003
        if error:
            self._words.setText(f"⚠ {error}")
        else:
            self._say()
        self.changed.emit()

    def _say(self, _choice: int = 0) -> None:
        if not self._pairs:
            self._words.setText("")
            return
        pair = self._pairs[max(0, self._choice.currentIndex())]
        one, other = pair.first, pair.second
        self._words.setText(
            f"Channel {other} over {one}: {_said(pair.ratio)}; Pearson {_said(pair.pearson)}; "
            f"Manders {_said(pair.manders_1)} (of channel {one}, where {other} is) and "
            f"{_said(pair.manders_2)} (of channel {other}, where {one} is). "
            f"A Gaussian is there from {pair.present}."
        )


def _said(estimate: Estimate) -> str:
    """Return a number with its error, as far as they are known."""
    if np.isnan(estimate.value):
        return "unknown"
    if np.isnan(estimate.error):
        return f"{estimate.value:.3g}"
    return with_error(*estimate)
