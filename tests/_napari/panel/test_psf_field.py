"""A point spread function is typed into the panel, or chosen, and the fit is made with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QFileDialog, QLineEdit, QPushButton

from by_hand import add_stack
from napari_gaussfit._napari.worker import Phase
from napari_gaussfit.measure.optics import Optics
from napari_gaussfit.measure.psf import Psf
from napari_gaussfit.settings import FitSettings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_gaussfit.synthetic.phantoms import Phantom

    Wait = Callable[..., None]

pytestmark = [pytest.mark.gui, pytest.mark.usefixtures("nothing_left_behind")]

SHORT = FitSettings(exactly=True, gaussians=6, quality="preview")


@pytest.fixture
def panel(make_napari_viewer_proxy: Any, small_beads: Phantom, wait_until: Wait) -> Any:
    """A panel beside six beads of known spacing."""
    viewer = make_napari_viewer_proxy()
    add_stack(viewer, small_beads.stack)
    _, panel = viewer.window.add_plugin_dock_widget("napari-gaussfit", "Gaussian fit")
    wait_until(panel.run.buttons["Fit"].isEnabled)
    panel.model.settings = SHORT
    return panel


def line_of(panel: Any) -> QLineEdit:
    return panel.findChild(QLineEdit, "gaussfit_psf")


def fitted(panel: Any, wait_until: Wait) -> Any:
    wait_until(panel.run.buttons["Fit"].isEnabled)
    QTest.mouseClick(panel.run.buttons["Fit"], Qt.MouseButton.LeftButton)
    wait_until(lambda: panel.worker.phase is Phase.FINISHED)
    return panel.fit


def test_no_gaussian_is_narrower_than_the_optics_that_are_typed(
    panel: Any, wait_until: Wait
) -> None:
    assert fitted(panel, wait_until).psf is None
    QTest.keyClicks(line_of(panel), "0.9,600,1.33")
    QTest.keyClick(line_of(panel), Qt.Key.Key_Return)
    found = fitted(panel, wait_until)
    psf = Psf.of_optics(Optics(0.9, 600, 1.33))
    assert found.psf == psf
    assert psf.words in line_of(panel).toolTip()
    narrowest = np.linalg.eigvalsh(found.field.covariances.numpy() - psf.matrix).min()
    assert narrowest > -1e-6
    assert "object_fwhm_1" in found.to_dataframe()


def test_light_without_the_blur_is_a_layer_of_a_fit_that_knows_it(
    panel: Any, wait_until: Wait
) -> None:
    box = panel.results._kinds["deconvolved"].native
    fitted(panel, wait_until)
    assert not box.isEnabled()
    QTest.keyClicks(line_of(panel), "0.9,600,1.33")
    QTest.keyClick(line_of(panel), Qt.Key.Key_Return)
    found = fitted(panel, wait_until)
    panel.tabs.setCurrentIndex(4)
    panel.results.kinds = {"volume"}
    QTest.mouseClick(box, Qt.MouseButton.LeftButton, pos=QPoint(8, box.height() // 2))
    assert panel.results.kinds == {"volume", "deconvolved"}
    QTest.mouseClick(panel.results.add, Qt.MouseButton.LeftButton)
    wait_until(lambda: "beads deconvolved" in panel.viewer.layers)
    sharp = panel.viewer.layers["beads deconvolved"].data
    np.testing.assert_allclose(sharp, found.deconvolved().voxelise(), rtol=1e-5)
    assert sharp.max() > 1.5 * panel.viewer.layers["beads rendered"].data.max()


def test_a_file_is_chosen_and_taken_back(
    panel: Any, wait_until: Wait, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    psf = Psf.of_fwhm((0.7, 0.3, 0.3))
    psf.save(tmp_path / "psf.json")
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: (str(tmp_path / "psf.json"), ""))
    QTest.mouseClick(panel.findChild(QPushButton, "gaussfit_psf_choose"), Qt.MouseButton.LeftButton)
    assert line_of(panel).text() == str(tmp_path / "psf.json")
    assert fitted(panel, wait_until).psf == psf
    line_of(panel).setFocus()
    line_of(panel).selectAll()
    QTest.keyClick(line_of(panel), Qt.Key.Key_Delete)
    assert fitted(panel, wait_until).psf is None


@pytest.mark.parametrize("typed", ["1.4,520", "nowhere.json", "3,520,1.5"])
def test_what_names_none_is_said_and_nothing_is_fitted(
    panel: Any, wait_until: Wait, typed: str
) -> None:
    QTest.keyClicks(line_of(panel), typed)
    QTest.keyClick(line_of(panel), Qt.Key.Key_Return)
    wait_until(lambda: not panel.run.buttons["Fit"].isEnabled())
    assert panel.run._state.text().startswith("Cannot be fitted: PSF: ")
    line_of(panel).selectAll()
    QTest.keyClick(line_of(panel), Qt.Key.Key_Delete)
    wait_until(panel.run.buttons["Fit"].isEnabled)
