"""A large OME-Zarr from the drop to the volume, by real events: fitted by tiles, stopped, shown."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import zarr
from qtpy.QtCore import QObject, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QLabel, QRadioButton

from by_hand import drop
from napari_gaussfit._napari.layers import tile_points
from napari_gaussfit._napari.layers.large import LargeSource
from napari_gaussfit._napari.layers.looking import camera_of
from napari_gaussfit._napari.layers.placement import Placement
from napari_gaussfit._napari.layers.tile_points import TilePoints
from napari_gaussfit.errors import StackError
from napari_gaussfit.fitting.fit_tiles import fit_tiles
from napari_gaussfit.fitting.result import load
from napari_gaussfit.objects.spot_settings import SpotSettings
from napari_gaussfit.objects.spot_tiles import fit_spot_tiles
from napari_gaussfit.settings import FitSettings
from napari_gaussfit.stacks import large, ome_zarr
from napari_gaussfit.stacks.lazy import LazyStack
from napari_gaussfit.stacks.ome_zarr import written_by_boxes
from napari_gaussfit.synthetic import phantoms

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_gaussfit._napari.panel.by_tiles import ByTilesPart
    from napari_gaussfit._napari.panel.panel import GaussianFitPanel

    Wait = Callable[..., None]

pytestmark = [pytest.mark.gui, pytest.mark.usefixtures("nothing_left_behind")]

SHAPE = (24, 64, 64)
TILE = (24, 32, 32)
SHORT = FitSettings(iterations=15, device="cpu")
SECONDS = 400


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An OME-Zarr of three resolutions, which counts as large here."""
    monkeypatch.setattr(large, "LARGE", 24 * 64 * 64)
    monkeypatch.setattr(ome_zarr, "CHUNK", 16)
    stack, path = phantoms.neurite(shape=SHAPE, seed=2).stack, tmp_path / "big.ome.zarr"
    with written_by_boxes(
        path, SHAPE, dtype=np.uint16, spacing=stack.spacing, unit="micrometer", name="big"
    ) as array:
        array[:] = stack.voxels
    return path


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a fit by tiles of it leaves without a window."""
    out = tmp_path_factory.mktemp("tiles") / "expected"
    stack = phantoms.neurite(shape=SHAPE, seed=2).stack
    fit_tiles(stack, out, SHORT, tile=TILE)
    return out


@pytest.fixture
def panel(make_napari_viewer_proxy: Any, source: Path, wait_until: Wait) -> GaussianFitPanel:
    """A panel on which that was dropped."""
    viewer = make_napari_viewer_proxy(show=True)
    _, panel = viewer.window.add_plugin_dock_widget("napari-gaussfit", "Gaussian fit")
    panel.model.settings = SHORT
    drop(panel, source)
    wait_until(panel.by_tiles.isVisible, 10)
    found: GaussianFitPanel = panel
    return found


def press(part: ByTilesPart, name: str) -> None:
    assert part.buttons[name].isEnabled(), f"{name} is not enabled: {part.state.text()}"
    QTest.mouseClick(part.buttons[name], Qt.MouseButton.LeftButton)


def enabled(part: ByTilesPart) -> set[str]:
    return {name for name, button in part.buttons.items() if button.isEnabled()}


def typed(part: ByTilesPart, out: Path, tile: tuple[int, ...] = TILE) -> None:
    part.workers.setValue(1)
    for line, text in ((part.out, str(out)), (part.tile, " ".join(map(str, tile)))):
        line.clear()
        QTest.keyClicks(line, text)


def rows_of(out: Path) -> pd.DataFrame:
    table = pd.read_parquet(out / "gaussians.parquet")
    return table.sort_values(["z", "y", "x"]).reset_index(drop=True)


def test_a_dropped_stack_that_is_large_is_not_read_and_fitted_by_tiles(
    panel: GaussianFitPanel, expected: Path, tmp_path: Path, wait_until: Wait
) -> None:
    part, out = panel.by_tiles, tmp_path / "fit"
    [layer] = panel.viewer.layers
    assert layer.multiscale
    assert part.words.text().startswith("24 x 64 x 64 voxels")
    assert not panel.run.buttons["Fit"].isEnabled(), "would read all of it"
    assert enabled(part) == set(), "there is no folder yet"

    typed(part, out)
    press(part, "Fit by tiles")
    said: set[str] = set()
    wait_until(lambda: said.add(part.state.text()) or not part.active, SECONDS)  # type: ignore[func-returns-value]

    assert any("of 4 tiles done" in text and "running" in text for text in said), said
    assert "Gaussians in 4 tiles" in part.state.text(), part.state.text()
    pd.testing.assert_frame_equal(rows_of(out), rows_of(expected))

    fit, points = load(out), part.points
    assert points is not None
    wait_until(lambda: points.layer is not None and len(points.layer.data) == len(fit.field), 10)
    shown = np.sort(np.asarray(points.layer.data), 0)  # type: ignore[union-attr]
    np.testing.assert_allclose(
        shown, np.sort(fit.field.numpy().means / fit.stack.spacing, 0), atol=1e-4
    )
    assert enabled(part) == {"Show", "Volume"}, "what is there is not fitted again"

    press(part, "Volume")
    wait_until(lambda: not part.active, SECONDS)
    volume = next(one for one in panel.viewer.layers if one.name == "big fitted")
    assert not isinstance(volume.data, np.ndarray), "is read when it is looked at"
    np.testing.assert_allclose(np.asarray(volume.data), fit.voxelise(), atol=1e-3)
    np.testing.assert_allclose(volume.scale, layer.scale)


@pytest.mark.parametrize("mode", ["gaussfit_mode_0", "gaussfit_mode_1"])
def test_that_a_stack_is_fitted_by_tiles_is_not_said_as_a_failure(
    panel: GaussianFitPanel, mode: str, wait_until: Wait
) -> None:
    QTest.mouseClick(panel.findChild(QRadioButton, mode), Qt.MouseButton.LeftButton)
    wait_until(lambda: panel.by_tiles.words.text().startswith("24 x 64 x 64 voxels"))
    QTest.qWait(500)  # By then what was chosen has been looked at.
    seen = [label.text() for label in panel.findChildren(QLabel) if label.isVisible()]
    assert not [text for text in seen if "Cannot be fitted" in text]


def test_what_was_stopped_goes_on_and_ends_as_if_it_had_not_been(
    panel: GaussianFitPanel, expected: Path, tmp_path: Path, wait_until: Wait
) -> None:
    part, out = panel.by_tiles, tmp_path / "fit"
    typed(part, out)
    press(part, "Fit by tiles")
    # Two tiles may end between two looks: which number is seen is not said.
    wait_until(lambda: re.search("Fitting: [1-3] of 4", part.state.text()) is not None, SECONDS)
    press(part, "Stop")
    wait_until(lambda: not part.active, 60)
    assert part.state.text().startswith("Stopped")
    assert not (out / "index.json").exists()
    assert enabled(part) == {"Go on"}

    press(part, "Go on")
    wait_until(lambda: not part.active, SECONDS)
    assert "Gaussians in 4 tiles" in part.state.text(), part.state.text()
    pd.testing.assert_frame_equal(rows_of(out), rows_of(expected))


def test_spots_are_found_by_tiles_with_the_sizes_that_are_chosen(
    panel: GaussianFitPanel, source: Path, tmp_path: Path, wait_until: Wait
) -> None:
    spots = phantoms.spots(peak=400.0).stack.voxels[:24, :64, :64]
    zarr.open_array(source / "0", mode="r+")[:] = spots
    size = round(2.5 * LazyStack.open(source).spacing[2], 3)
    part, out = panel.by_tiles, tmp_path / "spots"
    [button] = [one for one in panel.findChildren(QRadioButton) if "Spots" in one.text()]
    button.click()
    wait_until(part.isVisible, 10)
    least = panel.spots.setup.least.field
    least.setFocus()
    least.selectAll()
    QTest.keyClicks(least, str(size))
    QTest.keyClick(least, Qt.Key.Key_Return)

    typed(part, out)
    press(part, "Fit by tiles")
    said: set[str] = set()
    wait_until(lambda: said.add(part.state.text()) or not part.active, SECONDS)  # type: ignore[func-returns-value]

    assert [words for words in said if re.search(r"left; \d+ spots$", words)], said
    assert "spots in 4 tiles" in part.state.text(), part.state.text()
    again = tmp_path / "again"
    fit_spot_tiles(LazyStack.open(source), again, SpotSettings(least_size=size), tile=TILE)
    found, expected = (pd.read_parquet(one / "objects.parquet") for one in (out, again))
    assert len(expected) > 12
    pd.testing.assert_frame_equal(found, expected)
    points = part.points
    assert points is not None
    wait_until(lambda: points.layer is not None and len(points.layer.data) == len(found), 10)
    assert points.layer is not None
    widths = np.exp(np.log(found[["fwhm_1", "fwhm_2", "fwhm_3"]]).mean(axis=1))
    around = 2 * np.sort(widths) / LazyStack.open(source).spacing[2]
    np.testing.assert_allclose(np.sort(points.layer.size), around, rtol=1e-4)
    assert points.layer.face_color[:, 3].max() == 0, "a ring hides its spot"


def test_of_a_region_the_box_around_it_is_fitted_where_it_lies(
    panel: GaussianFitPanel, tmp_path: Path, wait_until: Wait
) -> None:
    part, out = panel.by_tiles, tmp_path / "fit"
    step = np.array(panel.viewer.layers[0].scale)
    corners = np.array([[0, 10, 20], [0, 10, 49], [0, 39, 49], [0, 39, 20]]) * step
    region = panel.viewer.add_shapes(corners, units=("um",) * 3, name="region")
    panel.data._region.layer = region
    wait_until(lambda: "x 20 to 49" in part.words.text(), 10)
    assert "y 10 to 39" in part.words.text()

    typed(part, out, (24, 30, 30))
    press(part, "Fit by tiles")
    wait_until(lambda: not part.active, SECONDS)
    fit = load(out)
    assert fit.stack.shape == (24, 30, 30)
    assert fit.stack.origin == pytest.approx((0, 10 * step[1], 20 * step[2]))
    points = part.points
    assert points is not None
    wait_until(lambda: points.layer is not None, 10)
    assert points.layer is not None
    np.testing.assert_allclose(points.layer.translate, fit.stack.origin)

    # Whatever is chosen by then, what is in the folder lies where it says.
    panel.data._region.layer = None
    wait_until(lambda: "x 20 to 49" not in part.words.text(), 10)
    panel.viewer.layers.remove(points.layer)
    press(part, "Show")
    wait_until(lambda: not part.active, SECONDS)
    assert f"{len(fit.field)} Gaussians of the fit" in part.state.text()
    again = part.points
    assert again is not None
    assert again is not points
    wait_until(lambda: again.layer is not None, 10)
    assert again.layer is not None
    np.testing.assert_allclose(again.layer.translate, fit.stack.origin)
    assert points.layer is None, "what was removed has come back"


def test_what_is_typed_wrong_or_refused_is_said(
    panel: GaussianFitPanel, tmp_path: Path, wait_until: Wait
) -> None:
    part = panel.by_tiles
    typed(part, tmp_path / "fit", (24, 32))
    press(part, "Fit by tiles")
    assert "tile '24 32': expected three whole numbers" in part.state.text()
    typed(part, tmp_path / "fit", (24, 20, 32))
    press(part, "Fit by tiles")
    wait_until(lambda: not part.active, 60)
    assert "20 voxels along y make tiles of" in part.state.text()
    panel.model.settings = replace(SHORT, objective="mip")
    typed(part, tmp_path / "fit")
    press(part, "Fit by tiles")
    wait_until(lambda: not part.active, 60)
    assert "objective='mip': cannot be had by tiles" in part.state.text()

    panel.data.start_from = panel.viewer.add_points(np.zeros((1, 3)), name="begin")
    press(part, "Fit by tiles")
    assert "by tiles, a fit begins with the stack itself" in part.state.text()


def test_a_panel_that_is_closed_leaves_no_worker(
    panel: GaussianFitPanel, tmp_path: Path, wait_until: Wait
) -> None:
    part = panel.by_tiles
    typed(part, tmp_path / "fit")
    part.workers.setValue(2)
    press(part, "Fit by tiles")
    wait_until(lambda: "2 workers" in part.state.text(), 120)
    panel.viewer.window.remove_dock_widget("all")


def test_of_many_points_the_brightest_in_view_are_shown(
    make_napari_viewer_proxy: Any, monkeypatch: pytest.MonkeyPatch, wait_until: Wait
) -> None:
    monkeypatch.setattr(tile_points, "MOST", 100)
    viewer = make_napari_viewer_proxy(show=True)
    viewer.add_image(np.zeros((20, 400, 400), np.uint8))
    place = Placement.of_stack((1, 1, 1), "pixel")
    rng = np.random.default_rng(0)
    means = rng.uniform(0, 1, (3000, 3)) * (20, 400, 400)
    amplitudes = rng.uniform(1, 2, 3000).astype(np.float32)
    parent = QObject()
    points = TilePoints(viewer, place, "many", parent, (20, 400, 400))
    points.add(means, np.ones(3000, np.float32), amplitudes)
    wait_until(lambda: points.layer is not None, 10)
    viewer.dims.ndisplay = 2
    viewer.dims.set_point(0, 10)
    camera_of(viewer).center = (0, 100, 100)
    camera_of(viewer).zoom = 20

    def in_view() -> bool:
        layer = points.layer
        assert layer is not None
        return len(layer.data) < 100 and bool((np.abs(layer.data[:, 1:] - 100) < 60).all())

    wait_until(in_view, 10)
    assert points.layer is not None
    assert (np.abs(points.layer.data[:, 0] - 10) <= 2).all()
    assert f"of {3000:,}" in points.words
    viewer.dims.ndisplay = 3
    wait_until(lambda: points.layer is not None and len(points.layer.data) == 100, 10)
    expected = means[np.argsort(-amplitudes)[:100]]
    np.testing.assert_allclose(np.sort(points.layer.data, 0), np.sort(expected, 0), atol=1e-5)

    density = points.density.layer
    assert density is not None
    edges = [np.arange(0, n + 8, 8) - 0.5 for n in (20, 400, 400)]
    np.testing.assert_array_equal(
        density.data, np.histogramdd(np.minimum(means, np.array((20, 400, 400)) - 0.6), edges)[0]
    )
    np.testing.assert_allclose(density.data_to_world((0, 0, 0)), (3.5, 3.5, 3.5))
    np.testing.assert_allclose(density.data_to_world((2, 3, 1)), (19.5, 27.5, 11.5))
    viewer.layers.remove(density)
    points.add(means[:50], np.ones(50, np.float32), amplitudes[:50])
    wait_until(lambda: f"of {3050:,}" in points.words, 10)
    assert points.density.layer is None, "what was removed has come back"
    points.close()


def test_a_layer_is_fitted_as_its_file_has_it_and_as_its_spacing_is_and_one_of_no_file_is_refused(
    make_napari_viewer_proxy: Any, source: Path
) -> None:
    viewer = make_napari_viewer_proxy()
    [layer] = viewer.open(source, plugin="napari-gaussfit")
    found = LargeSource.of([(layer, ())])
    assert (found.channels, found.time, found.spacing, found.part) == ((None,), None, None, None)
    layer.scale = np.multiply(2, layer.scale)
    assert LargeSource.of([(layer, ())]).spacing == pytest.approx(layer.scale)
    bare = viewer.add_image(np.zeros(SHAPE, np.uint16), name="bare")
    with pytest.raises(StackError, match="bare: is not of a file"):
        LargeSource.of([(bare, ())])
