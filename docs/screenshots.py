"""Make the pictures of the README and of these pages: `make screenshots`.

Runs a fit of the real dendrite where it is (GAUSSFIT_DATA, ../shared/data), else of a phantom.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_gaussfit._napari.panel.object_page import ObjectPage
    from napari_gaussfit._napari.panel.panel import GaussianFitPanel

SIZE = 1200, 900
ANGLES = (0.0, 25.0, 65.0)
CLOSER = 1.7
"""The view has room for the flat pictures too; without them one may go closer."""

HERE = Path(__file__).parent
DENDRITE = Path("neurites", "dendrite_spines_spotspine.tif")

BEADS = Path("spots_beads", "beads_confocal_mpicbg.tif")

SETUP, PROGRESS, DETAILS, TABLE, EXPORT, OBJECTS = range(6)


def main() -> None:
    """Open napari, fit, and save pictures on the way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=HERE / "images")
    parser.add_argument("--objects", action="store_true", help="only spots, cells and neurites")
    options = parser.parse_args()
    # Settings of napari and results of a crash that whoever makes the pictures has are not shown.
    own = tempfile.mkdtemp(prefix="gaussfit-screenshots-")
    os.environ.setdefault("XDG_CONFIG_HOME", own)
    os.environ.setdefault("GAUSSFIT_SESSIONS", str(Path(own, "sessions")))
    options.output.mkdir(parents=True, exist_ok=True)

    if not options.objects:
        shots = _opened(DENDRITE, "neurite", options.output)
        shots.take_all()
        shots.viewer.close()
    for stack, sample, take in (
        (BEADS, "beads", Shots.take_spots),
        (None, "nuclei", Shots.take_cells),
        (None, "neurite", Shots.take_trace),
    ):
        shots = _opened(stack, sample, options.output)
        take(shots)
        shots.viewer.close()


def _opened(stack: Path | None, sample: str, folder: Path) -> Shots:
    """Return a window with a panel, beside a real stack where it is, else a phantom."""
    import napari

    viewer = napari.Viewer()
    viewer.window.resize(*SIZE)
    _open_stack(viewer, stack, sample)
    _, panel = viewer.window.add_plugin_dock_widget("napari-gaussfit", "Gaussian fit")
    return Shots(viewer, panel, folder)


class Shots:
    """A viewer with a panel, and where its pictures go."""

    def __init__(self, viewer: Any, panel: GaussianFitPanel, folder: Path) -> None:
        self.viewer, self.panel, self.folder = viewer, panel, folder

    def take_all(self) -> None:
        """Fit, and take a picture of each thing worth seeing."""
        from qtpy.QtWidgets import QLabel, QProgressBar

        from napari_gaussfit._napari.layers.overlays import SECTIONS
        from napari_gaussfit.settings import FitSettings

        panel = self.panel
        wait_for(lambda: "Takes about" in panel.findChild(QLabel, "gaussfit_facts").text())
        self.take("setup", SETUP)
        panel.model.settings = FitSettings(quality="fine")
        panel.start_fit()
        # On a busy machine words and curves come some time after the layers.
        bar = panel.run.findChild(QProgressBar)
        wait_for(lambda: self.step() >= 80 and self.complete() and "step" in bar.format())
        self.viewer.reset_view()
        self.take("running-2d", PROGRESS)
        self.turn_to_3d()
        self.take("running-3d", DETAILS)
        self.back_to_2d()
        wait_for(lambda: not panel.worker.phase.active, 900)
        panel.view.look_from(35.0, 20.0)
        wait_for(lambda: self.seen_from() == panel.view.choice)
        self.viewer.reset_view()
        self.take("finished-2d", PROGRESS)
        panel.view.look_along(0)
        wait_for(lambda: self.seen_from() == panel.view.choice)
        self.viewer.reset_view()
        panel.shown.boxes[SECTIONS].click()
        self.take("ellipses", PROGRESS)
        panel.shown.boxes[SECTIONS].click()
        self.viewer.theme = "light"
        self.take("light", PROGRESS)
        self.viewer.theme = "dark"
        self.select_brightest(12)
        self.viewer.layers.selection = set(
            self.ending_in("centres")
        )  # which shows what is selected
        self.take("table", TABLE)
        panel.results.kinds = {"surface"}
        panel.results.add_layers()
        wait_for(lambda: self.ending_in("ellipsoids"))
        self.turn_to_3d()
        for layer in (*self.ending_in("centres"), *self.ending_in("spotspine")):
            layer.visible = False
        self.take("finished-3d", EXPORT)

    def take_spots(self) -> None:
        """Look for spots, and take a picture of rings and rows."""
        from qtpy.QtWidgets import QRadioButton

        spots = self.panel.spots
        self.panel.findChild(QRadioButton, "gaussfit_mode_1").click()
        wait_for(spots.foot.fit.isEnabled)
        spots.fit()
        wait_for(lambda: spots.found is not None, 600)
        self.viewer.reset_view()
        self.take("spots", self.panel.tabs.currentIndex())

    def take_cells(self) -> None:
        """Group the Gaussians that the sample was made of, and take a picture of its labels."""
        self._find(self.panel.objects.cells)
        self.take("cells", OBJECTS)

    def take_trace(self) -> None:
        """Trace the Gaussians that the sample was made of, and take a picture in 3D."""
        from qtpy.QtWidgets import QRadioButton

        _, neurites = self.panel.objects.findChildren(QRadioButton)
        neurites.click()
        self._find(self.panel.objects.neurites)
        self.viewer.dims.ndisplay = 3
        self.viewer.reset_view()
        self.take("trace", OBJECTS)

    def _find(self, page: ObjectPage) -> None:
        wait_for(page.start.isEnabled)
        page.begin()
        wait_for(lambda: page.found is not None, 600)
        self.viewer.reset_view()

    def step(self) -> int:
        """Return how far the fit is."""
        snapshot = self.panel.worker.news.snapshot
        return -1 if snapshot is None else snapshot.iteration

    def complete(self) -> bool:
        """Tell whether all live layers are there."""
        from napari_gaussfit._napari.layers.live import LiveLayers

        return isinstance(self.panel.live, LiveLayers) and self.panel.live.complete

    def seen_from(self) -> object:
        """Return the view that the pictures are of."""
        mips = self.panel.worker.news.mips
        return None if mips is None else mips.view

    def take(self, name: str, tab: int) -> None:
        """Show a tab, let everything be drawn, and save the window."""
        self.panel.tabs.setCurrentIndex(tab)
        let_live(2500)
        window = self.panel.window()
        assert window is not None
        window.grab().save(str(self.folder / f"{name}.png"))

    def turn_to_3d(self) -> None:
        """Show the stack alone, from an angle."""
        for layer in self.pictures():
            layer.visible = False
        self.viewer.dims.ndisplay = 3
        self.viewer.reset_view()
        camera = getattr(self.viewer, "scene", self.viewer).camera
        camera.angles = ANGLES
        low, high = self.viewer.layers[0].extent.world
        camera.center = tuple((low + high) / 2)
        camera.zoom *= CLOSER

    def back_to_2d(self) -> None:
        """Show the stack and the pictures beside it."""
        for layer in self.pictures():
            layer.visible = True
        self.viewer.dims.ndisplay = 2
        self.viewer.reset_view()

    def select_brightest(self, count: int) -> None:
        """Select the first rows of the table, and so their points."""
        for row in range(count):
            index = self.panel.table.model.index(row, 0)
            flags = self.panel.table.selection.SelectionFlag
            self.panel.table.selection.select(index, flags.Select | flags.Rows)

    def pictures(self) -> list[Any]:
        """Return the flat layers."""
        return [*self.ending_in("MIP"), *self.ending_in("captions"), *self.ending_in("projections")]

    def ending_in(self, words: str) -> list[Any]:
        """Return the layers whose names end so."""
        return [layer for layer in self.viewer.layers if layer.name.endswith(words)]


def let_live(milliseconds: int) -> None:
    """Let the window live for a while."""
    from qtpy.QtTest import QTest

    # Of PyQt's types it is a method of an object.
    QTest.qWait(milliseconds)  # type: ignore[call-arg, arg-type]


def wait_for(is_so: Callable[[], Any], seconds: float = 120) -> None:
    """Let the window live until something is so."""
    end = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > end:
            raise TimeoutError
        let_live(20)


def _open_stack(viewer: Any, stack: Path | None, sample: str) -> None:
    data = Path(os.environ.get("GAUSSFIT_DATA", HERE.parents[1] / "shared" / "data"))
    if stack is not None and (data / stack).exists():
        viewer.open(str(data / stack), plugin="napari-gaussfit")
    else:
        viewer.open_sample("napari-gaussfit", sample)


if __name__ == "__main__":
    main()
