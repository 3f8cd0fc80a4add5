"""Several channels that are fitted together in the panel, by clicks and keys."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import tifffile
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QComboBox, QListWidget, QPushButton

from napari_gaussfit._napari.layers.gaussians import METADATA
from napari_gaussfit._napari.worker import Phase
from napari_gaussfit.fitting.result import load
from napari_gaussfit.settings import FitSettings
from napari_gaussfit.synthetic import phantoms

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Wait = Callable[..., None]

pytestmark = [pytest.mark.gui, pytest.mark.usefixtures("nothing_left_behind")]

PLUGIN = "napari-gaussfit"
SHORT = FitSettings(exactly=True, gaussians=12, quality="preview")
LONG = FitSettings(exactly=True, gaussians=12, quality="fine", iterations=1_000_000)
SHARES = np.array([[1.0, 0.2, 0.6, 1.0, 0.4, 0.8], [0.3, 1.0, 0.5, 0.7, 0.9, 0.2]])
SHARES = np.concatenate([SHARES, SHARES[:, ::-1]])
"""Of each channel, what each bead is bright there."""


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six beads in four channels, as ImageJ saves them."""
    import torch

    beads = phantoms.beads(count=6, shape=(10, 32, 32))
    channels = []
    for shares in SHARES:
        amplitudes = beads.truth.amplitudes * torch.as_tensor(shares, dtype=torch.float32)
        field = replace(beads.truth, amplitudes=amplitudes)
        channels.append(field.voxelise(beads.stack.shape, beads.stack.spacing))
    path = tmp_path_factory.mktemp("channels") / "cells.tif"
    voxels = np.stack(channels, axis=1).round().astype(np.uint16)
    dz, dy, dx = beads.stack.spacing
    tifffile.imwrite(
        path,
        voxels,
        imagej=True,
        resolution=(1 / dx, 1 / dy),
        metadata={"axes": "ZCYX", "spacing": dz, "unit": "um"},
    )
    return path


@pytest.fixture
def panel(make_napari_viewer_proxy: Any, recording: Path, wait_until: Wait) -> Any:
    """A panel beside the four layers of a file."""
    viewer = make_napari_viewer_proxy()
    viewer.open(str(recording), plugin=PLUGIN)
    _, panel = viewer.window.add_plugin_dock_widget(PLUGIN, "Gaussian fit")
    wait_until(panel.run.buttons["Fit"].isEnabled)
    return panel


def listed(panel: Any) -> QListWidget:
    found: QListWidget = panel.findChild(QListWidget, "gaussfit_channels")
    return found


def tick(panel: Any, row: int) -> None:
    """Click on the box of a channel."""
    channels = listed(panel)
    place = channels.visualItemRect(channels.item(row))
    at = QPoint(place.left() + 8, place.center().y())
    QTest.mouseClick(channels.viewport(), Qt.MouseButton.LeftButton, pos=at)


def ticked(panel: Any) -> list[bool]:
    channels = listed(panel)
    rows = range(channels.count())
    return [channels.item(n).checkState() == Qt.CheckState.Checked for n in rows]


def press(button: QPushButton) -> None:
    assert button.isEnabled()
    QTest.mouseClick(button, Qt.MouseButton.LeftButton)


def fit(panel: Any, wait_until: Wait, settings: FitSettings = SHORT) -> None:
    panel.model.settings = settings
    wait_until(panel.run.buttons["Fit"].isEnabled)
    press(panel.run.buttons["Fit"])
    wait_until(lambda: panel.worker.phase is Phase.FINISHED, 200)
    wait_until(lambda: panel.live.complete)  # layers are made one at a time


def layer_named(viewer: Any, end: str) -> Any:
    [layer] = [one for one in viewer.layers if one.name.endswith(end)]
    return layer


def export_volumes(panel: Any, wait_until: Wait, names: list[str]) -> None:
    """See a rendered volume and a residual of each channel."""
    viewer, found = panel.viewer, panel.fit
    panel.results.kinds = {"volume", "residual"}
    before = len(viewer.layers)
    press(panel.results.add)
    wait_until(lambda: len(viewer.layers) == before + 8)
    for name, field in zip(names, found.fields, strict=True):
        layer, made = viewer.layers[name], viewer.layers[f"{name} rendered"]
        volume = field.voxelise(found.stack.shape, found.stack.spacing).numpy()
        np.testing.assert_allclose(made.data, volume, rtol=1e-4)
        residual = viewer.layers[f"{name} residual"].data
        np.testing.assert_allclose(residual, layer.data - volume, atol=1e-2)
        assert made.colormap.name == layer.colormap.name


def test_four_channels_are_ticked_fitted_looked_at_refined_and_saved_together(
    panel: Any, wait_until: Wait, tmp_path: Path
) -> None:
    viewer = panel.viewer
    names = [layer.name for layer in viewer.layers]
    assert [listed(panel).item(n).text() for n in range(4)] == names
    assert ticked(panel) == [False, False, False, True]
    for row in range(3):
        tick(panel, row)
    assert ticked(panel) == [True] * 4
    fit(panel, wait_until)

    found = panel.fit
    assert len(found.fields) == 4
    for field in found.fields[1:]:
        np.testing.assert_array_equal(field.numpy().means, found.field.numpy().means)
        np.testing.assert_array_equal(field.numpy().cholesky, found.field.numpy().cholesky)
    assert (found.stack.name, found.stack.channel) == ("cells", None)
    assert len(found.reports) == 4

    # Merged in the colours of the layers, each with its contrast.
    wait_until(lambda: panel.worker.news.mips is not None and len(panel.live.layers) == 5)
    merged = layer_named(viewer, "data MIP")
    assert merged.rgb
    expected = np.zeros((*merged.data.shape[:2], 3))
    for name in names:
        layer = viewer.layers[name]
        low, high = layer.contrast_limits
        share = np.clip((layer.data.max(0) - low) / (high - low), 0, 1)
        expected += layer.colormap.map(share.ravel())[:, :3].reshape(expected.shape)
    np.testing.assert_allclose(merged.data, 255 * np.clip(expected, 0, 1), atol=6)

    # One of them, chosen by a key.
    view: Any = panel.findChild(QComboBox, "gaussfit_channel")
    assert [view.itemText(n) for n in range(view.count())] == ["all, merged", *names]
    view.setFocus()
    QTest.keyClick(view, Qt.Key.Key_Down)
    QTest.keyClick(view, Qt.Key.Key_Down)
    wait_until(lambda: panel.worker.news.mips.view.channel == 1)
    [shown] = panel.worker.news.mips.data
    np.testing.assert_allclose(shown, viewer.layers[names[1]].data.max(0), rtol=1e-5)

    # Columns a channel, in points and files.
    columns = [f"amplitude_{n}" for n in range(4)]
    features = panel.live.centres.features
    for column, field in zip(columns, found.fields, strict=True):
        np.testing.assert_allclose(features[column], field.numpy().amplitudes)
    panel.tabs.setCurrentWidget(panel.table)
    assert {"amplitude", "amplitude_1"} <= {*panel.table.view.shown_columns}
    panel.results.save_to(str(tmp_path / "cells.csv"))
    table = pd.read_csv(tmp_path / "cells.csv", comment="#")
    np.testing.assert_allclose(table[columns], features[columns], rtol=1e-6)

    export_volumes(panel, wait_until, names)
    panel.model.settings = SHORT
    press(panel.run.buttons["Refine"])
    wait_until(lambda: panel.worker.phase.active)
    wait_until(lambda: panel.worker.phase is Phase.FINISHED, 200)
    panel.results.save_to(str(tmp_path / "cells.safetensors"))
    saved = load(tmp_path / "cells.safetensors")
    assert len(saved.fields) == 4
    shown_now = panel.fit
    for one, other in zip(saved.fields, shown_now.fields, strict=True):
        np.testing.assert_array_equal(one.numpy().amplitudes, other.numpy().amplitudes)
    viewer.close()


def test_shared_gaussians_find_what_each_bead_is_bright_in_each_channel(
    panel: Any, wait_until: Wait
) -> None:
    for row in range(3):
        tick(panel, row)
    fit(panel, wait_until, replace(SHORT, gaussians=6, quality="balanced"))
    found = panel.fit
    truth = phantoms.beads(count=6, shape=(10, 32, 32)).truth.numpy()
    apart = np.linalg.norm(found.field.numpy().means[:, None] - truth.means[None], axis=-1)
    which = apart.argmin(axis=0)
    assert apart.min(axis=0).max() < 0.05
    amplitudes = np.array([field.numpy().amplitudes[which] for field in found.fields])
    np.testing.assert_allclose(amplitudes, SHARES * truth.amplitudes, rtol=0.05, atol=4)


def test_the_chosen_layer_is_fitted_in_any_case_and_alone_where_nothing_is_ticked(
    panel: Any, wait_until: Wait
) -> None:
    tick(panel, 3)
    assert ticked(panel) == [False, False, False, True]
    fit(panel, wait_until)
    assert len(panel.fit.fields) == 1
    assert panel.fit.stack.name == "cells channel 3"
    assert not layer_named(panel.viewer, "data MIP").rgb


def test_the_fit_ends_where_the_layer_of_one_of_its_channels_is_deleted(
    panel: Any, wait_until: Wait
) -> None:
    tick(panel, 1)
    panel.model.settings = LONG
    wait_until(panel.run.buttons["Fit"].isEnabled)
    press(panel.run.buttons["Fit"])
    wait_until(lambda: panel.worker.phase is Phase.RUNNING)
    panel.viewer.layers.remove("cells channel 1")
    wait_until(lambda: panel.worker.phase is Phase.CANCELLED)


def test_layers_of_other_shapes_or_places_are_no_channels(panel: Any) -> None:
    viewer = panel.viewer
    like = viewer.layers[0]
    place = {"scale": like.scale, "units": like.units}
    viewer.add_image(np.zeros((10, 30, 32)), name="smaller", **place)
    viewer.add_image(np.zeros((10, 32, 32)), name="elsewhere", translate=(0, 0, 1), **place)
    viewer.add_image(np.zeros((10, 32, 32)), name="beside", **place)
    texts = [listed(panel).item(n).text() for n in range(listed(panel).count())]
    assert texts == [*(f"cells channel {n}" for n in range(4)), "beside"]


def test_who_looks_for_spots_is_offered_one_channel(panel: Any, wait_until: Wait) -> None:
    tick(panel, 0)
    wait_until(lambda: listed(panel).isVisibleTo(panel))
    panel.findChild(object, "gaussfit_mode_1").click()
    assert not listed(panel).isVisibleTo(panel)
    wait_until(lambda: panel._ready is not None and not panel._ready.channels)
    panel.findChild(object, "gaussfit_mode_0").click()
    assert ticked(panel) == [True, False, False, True]


def test_channels_along_an_axis_of_a_layer_are_fitted_together(
    make_napari_viewer_proxy: Any, recording: Path, wait_until: Wait
) -> None:
    viewer = make_napari_viewer_proxy()
    voxels = tifffile.imread(recording).transpose(1, 0, 2, 3)
    viewer.add_image(voxels, name="cells", axis_labels=("c", "z", "y", "x"))
    _, panel = viewer.window.add_plugin_dock_widget(PLUGIN, "Gaussian fit")
    wait_until(panel.run.buttons["Fit"].isEnabled)
    viewer.dims.set_current_step(0, 2)
    assert ticked(panel) == [False, False, True, False]
    tick(panel, 0)
    assert ticked(panel) == [True, False, True, False]
    fit(panel, wait_until)
    assert len(panel.fit.fields) == 2
    assert [part.stack.channel for part in panel.live.source.parts] == [0, 2]
    of = panel.live.centres.metadata[METADATA]["of"]
    assert (of["channel"], of["channels"]) == (None, [0, 2])
