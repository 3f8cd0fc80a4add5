"""How channels go together, in the panel's table: ratios a row, and a line on two of them."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from qtpy.QtCore import Qt
from qtpy.QtGui import QGuiApplication
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QComboBox, QFileDialog, QLabel

from by_hand import drop
from napari_gaussfit._napari.panel.rows import with_error
from napari_gaussfit.fitting.result import FitResult
from napari_gaussfit.model.field import GaussianField
from napari_gaussfit.synthetic.phantoms import photon_counts

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Wait = Callable[..., None]

pytestmark = [pytest.mark.gui, pytest.mark.usefixtures("nothing_left_behind")]

SHAPE, SPACING = (12, 48, 48), (0.2, 0.1, 0.1)
SHARES = (np.tile([0.5, 2.0, 1.0, 0.0], 4), np.tile([1.0, 0.3], 8))
"""What each Gaussian is bright in the second and the third channel, in parts of the first."""


def fields() -> tuple[GaussianField, ...]:
    """Return 16 Gaussians, apart from each other, in three channels."""
    y, x = np.meshgrid(np.arange(4), np.arange(4), indexing="ij")
    means = np.stack([np.full(16, 1.1), 0.6 + 1.2 * y.ravel(), 0.6 + 1.2 * x.ravel()], axis=1)
    covariances = np.broadcast_to(np.diag(np.square([0.4, 0.15, 0.15])), (16, 3, 3))
    first = np.linspace(100.0, 300.0, 16)
    return tuple(
        GaussianField.from_covariances(means, covariances, first * share, background=10.0)
        for share in (1.0, *SHARES)
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fit of three channels, measured."""
    truth = fields()
    counts = [photon_counts(one, SHAPE, SPACING, seed=n).stack for n, one in enumerate(truth)]
    stacks = [replace(stack, name="cells", channel=n) for n, stack in enumerate(counts)]
    facts = replace(stacks[0].facts, channel=None)
    path = tmp_path_factory.mktemp("pairs") / "cells.safetensors"
    FitResult(truth, facts).measured(stacks).save(path)
    return path


@pytest.fixture
def panel(make_napari_viewer_proxy: Any, saved: Path, wait_until: Wait) -> Any:
    """A panel on which the fit was dropped, at its table."""
    viewer = make_napari_viewer_proxy()
    _, panel = viewer.window.add_plugin_dock_widget("napari-gaussfit", "Gaussian fit")
    drop(panel, saved)
    panel.tabs.setCurrentWidget(panel.table)
    wait_until(lambda: panel.table.pairs.table is not None)
    return panel


def words(panel: Any) -> str:
    return str(panel.findChild(QLabel, "gaussfit_pair_words").text())


def test_each_gaussian_has_its_ratio_to_the_first_channel_with_its_error(panel: Any) -> None:
    table = panel.table.model.table
    assert len(table) == 16
    for n, share in enumerate(SHARES, 1):
        there = share > 0  # of an amplitude that is none, no error bar is known
        assert (table.loc[there, f"sd_ratio_{n}"] > 0).all()
        assert (np.abs(table.loc[~there, f"ratio_{n}"]) < 0.02).all()
        off = ((table[f"ratio_{n}"] - share) / table[f"sd_ratio_{n}"])[there]
        assert np.abs(off).max() < 4
        assert 0.5 < np.sqrt(np.mean(np.square(off))) < 1.6
    model, column = panel.table.model, panel.table.model.columns.index("ratio_1")
    title = model.headerData(column, Qt.Orientation.Horizontal)
    assert title.startswith("ratio 1/0")
    assert " ± " in model.data(model.index(0, column))
    line = panel.table.condition
    line.setFocus()
    QTest.keyClicks(line, "ratio 1/0 > 1.5")
    QTest.keyClick(line, Qt.Key.Key_Return)
    assert model.rowCount() == 4, "those that are twice as bright in the second channel"


def test_two_channels_are_compared_with_errors_and_two_others_by_a_key(panel: Any) -> None:
    found = panel.table.pairs.table.set_index(["channel_1", "channel_2"])
    first = np.linspace(100.0, 300.0, 16)
    second, third = (first * share for share in SHARES)
    truths = {
        (0, 1): (first, second, first[second > 0].sum() / first.sum(), 1.0),
        (0, 2): (first, third, 1.0, 1.0),
        (1, 2): (second, third, 1.0, third[second > 0].sum() / third.sum()),
    }
    for pair, (one, other, *manders) in truths.items():
        row = found.loc[pair]
        truth = (other.sum() / one.sum(), np.corrcoef(one, other)[0, 1], *manders)
        for name, true in zip(("ratio", "pearson", "manders_1", "manders_2"), truth, strict=True):
            # The error is that of other Gaussians of the kind; of these, light alone is unknown.
            assert row[name] == pytest.approx(true, abs=0.06), (pair, name)
            assert 0 <= row[f"sd_{name}"] < 0.6, (pair, name)
    assert words(panel).startswith("Channel 1 over 0: ")
    box: Any = panel.findChild(QComboBox, "gaussfit_pair")
    assert box.isVisibleTo(panel)
    box.setFocus()
    QTest.keyClick(box, Qt.Key.Key_Down)
    QTest.keyClick(box, Qt.Key.Key_Down)
    last = found.loc[(1, 2)]
    said = {name: with_error(last[name], last[f"sd_{name}"]) for name in ("ratio", "pearson")}
    assert words(panel).startswith(
        f"Channel 2 over 1: {said['ratio']}; Pearson {said['pearson']}; Manders "
    )
    assert "3 error bars" in words(panel)


def test_they_are_copied_and_saved_with_the_rows(
    panel: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = panel.table.view
    view.setFocus()
    both = Qt.KeyboardModifier.ControlModifier | Qt.KeyboardModifier.ShiftModifier
    QTest.keyClick(view, Qt.Key.Key_C, both)
    clipboard = QGuiApplication.clipboard()
    assert clipboard is not None
    rows, pairs = clipboard.text().split("\n\n")
    assert len(rows.splitlines()) == 17
    copied = pd.read_csv(StringIO(pairs), sep="\t")
    pd.testing.assert_frame_equal(copied, panel.table.pairs.table, rtol=1e-12)

    path = tmp_path / "rows.csv"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(path), ""))
    QTest.mouseClick(panel.table.save, Qt.MouseButton.LeftButton)
    assert {"ratio_1", "sd_ratio_1", "ratio_2"} <= {*pd.read_csv(path).columns}
    beside = pd.read_csv(tmp_path / "rows channels.csv")
    pd.testing.assert_frame_equal(beside, panel.table.pairs.table, rtol=1e-12)

    path.unlink()
    (tmp_path / "rows channels.csv").write_text("mine")
    QTest.mouseClick(panel.table.save, Qt.MouseButton.LeftButton)
    assert (tmp_path / "rows channels.csv").read_text() == "mine"
    assert not path.exists()


def test_what_is_deleted_is_compared_no_more(panel: Any, wait_until: Wait) -> None:
    layer = panel.live.centres
    before = panel.table.model.table
    layer.selected_data = {3}
    layer.remove_selected()
    wait_until(lambda: panel.table.model.rowCount() == 15)
    wait_until(
        lambda: (
            panel.table.pairs.table is not None
            and (panel.table.pairs.table["gaussians"] == 15).all()
        )
    )
    columns = ["ratio_1", "sd_ratio_1"]
    others = before.drop(index=3)[columns].to_numpy()
    np.testing.assert_allclose(panel.table.model.table[columns].to_numpy(), others)
