"""A napari in which torch cannot be loaded, as on Windows beside Qt; a program for `test_torch`.

Prints what it has done, a line each; the folder to write into is its argument.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class Blocked:
    """Keeps torch from this process, and from no other."""

    def find_spec(self, name: str, *_: object) -> None:
        if name.partition(".")[0] == "torch":
            raise OSError("[WinError 1114] A dynamic link library (DLL) initialization failed")


sys.meta_path.insert(0, Blocked())

import napari  # noqa: E402
import numpy as np  # noqa: E402
from napari.utils.notifications import notification_manager  # noqa: E402
from qtpy.QtCore import Qt  # noqa: E402
from qtpy.QtTest import QTest  # noqa: E402
from qtpy.QtWidgets import QApplication  # noqa: E402

from napari_gaussfit._napari.panel.results import KINDS  # noqa: E402
from napari_gaussfit._napari.worker import Phase  # noqa: E402
from napari_gaussfit.settings import FitSettings  # noqa: E402

PLUGIN = "napari-gaussfit"


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def wait_until(is_so: Callable[[], Any], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, [str(one) for one in notification_manager.records]
        QApplication.processEvents()
        time.sleep(0.01)


def press(panel: Any, name: str) -> None:
    wait_until(panel.run.buttons[name].isEnabled)
    QTest.mouseClick(panel.run.buttons[name], Qt.MouseButton.LeftButton)


def beads() -> np.ndarray:
    """Four spots over a background of 100."""
    voxels = np.full((12, 40, 40), 100.0, np.float32)
    z, y, x = np.indices(voxels.shape)
    for centre in ((4, 10, 10), (6, 30, 12), (7, 12, 30), (5, 29, 29)):
        away = [(a - c) / s for a, c, s in zip((z, y, x), centre, (1.5, 2, 2), strict=True)]
        voxels += 500 * np.exp(-0.5 * sum(d**2 for d in away))
    return voxels


def fit(viewer: Any) -> Any:
    viewer.add_image(beads(), name="beads", scale=(0.3, 0.1, 0.1), units=("um",) * 3)
    _, panel = viewer.window.add_plugin_dock_widget(PLUGIN, "Gaussian fit")
    panel.model.settings = FitSettings(exactly=True, gaussians=4, quality="preview")
    wait_until(lambda: "Runs on" in panel.model._facts.text())
    say("opened")
    press(panel, "Fit")
    wait_until(lambda: panel.worker.phase is Phase.FINISHED)
    wait_until(lambda: len(viewer.layers) >= 6)  # and marks over them, sooner or later
    names = [layer.name for layer in viewer.layers]
    assert len(viewer.layers[1].data) == 4, names
    assert len(viewer.layers[1].features) == 4, names
    assert panel.table.model.rowCount() == 4
    assert panel.worker.news.history["iteration"]
    say("fitted")
    return panel


def look_and_add(viewer: Any, panel: Any) -> None:
    """Look from elsewhere at the fit at rest, and make every layer of it."""
    panel.view.look_from(40.0, 10.0)
    wait_until(lambda: panel.worker.news.mips.view.azimuth == 40.0)
    say("looked")
    before = len(viewer.layers)
    panel.results.kinds = {*KINDS} - {"deconvolved"}  # of a fit with a point spread function
    QTest.mouseClick(panel.results.add, Qt.MouseButton.LeftButton)
    wait_until(lambda: len(viewer.layers) >= before + len(KINDS) - 1)
    say("added")


def save_and_open(viewer: Any, panel: Any, folder: Path) -> None:
    for suffix in ("safetensors", "csv", "ply", "ome.tif"):
        panel.results.save_to(str(folder / f"fit.{suffix}"))
        assert (folder / f"fit.{suffix}").is_file(), suffix
    say("saved")
    opened = viewer.open(str(folder / "fit.safetensors"), plugin=PLUGIN)
    assert [type(layer).__name__ for layer in opened] == ["Surface", "Vectors", "Points"]
    viewer.open_sample(PLUGIN, "beads")
    say("opened again")


def refine_and_fail(panel: Any) -> None:
    """Go on from the Gaussians shown; then try what needs torch here."""
    panel.model.settings = FitSettings(exactly=True, gaussians=4, iterations=5)
    press(panel, "Refine")
    wait_until(lambda: panel.worker.phase is Phase.FINISHED)
    say("refined")
    press(panel, "Measure")
    wait_until(lambda: panel.fit.measurement is not None)
    say("measured")
    panel.model.in_process = True
    press(panel, "Fit")
    wait_until(lambda: panel.worker.phase is Phase.FAILED)
    say(panel.worker.error)


def main() -> None:
    viewer = napari.Viewer()
    panel = fit(viewer)
    look_and_add(viewer, panel)
    save_and_open(viewer, panel, Path(sys.argv[1]))
    refine_and_fail(panel)
    assert "torch" not in sys.modules
    viewer.close()
    say("closed")


if __name__ == "__main__":
    main()
