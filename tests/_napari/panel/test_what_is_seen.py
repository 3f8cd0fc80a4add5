"""What is drawn of a fit lies where it belongs, goes with edits, and takes no view away."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtGui import QColor, QPalette
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

from napari_gaussfit._napari.layers.live import LiveLayers
from napari_gaussfit._napari.layers.looking import camera_of
from napari_gaussfit._napari.layers.marks import AT_HALF, SIDES, sections
from napari_gaussfit._napari.layers.overlays import (
    CENTRES,
    ELLIPSOIDS,
    MOST_MOVING_MARKS,
    SECTIONS,
)
from napari_gaussfit._napari.layers.pictures import WORDS
from napari_gaussfit._napari.layers.unwrapped import unwrapped
from napari_gaussfit._napari.panel.plots import Curves
from napari_gaussfit.fitting.result import FitResult
from napari_gaussfit.jobs.pictures import MipPair, ViewChoice
from napari_gaussfit.settings import FitSettings
from saved_fits import SPACING, some_field

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_gaussfit.synthetic.phantoms import Phantom

    Wait = Callable[..., None]

pytestmark = pytest.mark.gui

LEFT = Qt.MouseButton.LeftButton
LIVE_SECONDS = 0.5
"""Of this thread for 10,000 ellipsoids, on a slow machine too."""


@dataclass
class Seen:
    """A panel whose fit has found a phantom's own Gaussians."""

    viewer: Any
    panel: Any
    fit: FitResult
    wait: Wait

    def show(self) -> None:
        """Show the fit as the panel shows one that has ended."""
        panel, source = self.panel, self.panel.data.source()
        panel.live = live = LiveLayers(self.viewer, source, panel)
        panel.shown.follow(live)
        live.settle(self.fit)
        panel.table.show_fit(self.fit, live.centres)
        panel.shown.overlays.show_field(None)
        self.look(ViewChoice())
        self.wait(lambda: live.complete and CENTRES in self.overlays, 20)

    def look(self, view: ViewChoice) -> None:
        """Show pictures of a view, empty but for the stack's own."""
        stack = self.panel.live.source.stack
        camera = view.camera(stack)
        data = np.zeros(camera.shape, np.float32)
        if view.axis is not None:
            data = stack.voxels.max(axis=view.axis).astype(np.float32)
            data = data.T if view.axis == 2 else data
        mips = MipPair(view, camera.pixel, data[None], np.zeros_like(data)[None])
        self.panel.live.show_mips(mips)
        self.panel.shown.overlays.show_mips(mips)

    @property
    def overlays(self) -> dict[str, Any]:
        layers: dict[str, Any] = self.panel.shown.overlays._layers
        return layers

    def settle(self) -> None:
        self.wait(lambda: not self.panel.shown.overlays._timer.isActive())


@pytest.fixture
def seen(make_napari_viewer_proxy: Any, small_beads: Phantom, wait_until: Wait) -> Any:
    viewer = make_napari_viewer_proxy()
    stack = small_beads.stack
    viewer.add_image(
        stack.voxels, name="beads", scale=stack.spacing, units=("um",) * 3,
        axis_labels=("z", "y", "x"),
    )  # fmt: skip
    _, panel = viewer.window.add_plugin_dock_widget("napari-gaussfit", "Gaussian fit")
    wait_until(panel.run.buttons["Fit"].isEnabled)
    panel.tabs.setCurrentIndex(1)
    fit = FitResult((small_beads.truth,), stack.facts, FitSettings())
    return Seen(viewer, panel, fit, wait_until)


def test_sections_are_where_a_slice_cuts_a_gaussian_at_half_its_amplitude() -> None:
    gaussians, spacing = some_field(50).numpy(), np.asarray(SPACING)
    for axis, at in ((0, 9.0), (1, 14.5), (2, 11.0)):
        sides, whose = sections(gaussians, spacing, axis, at)
        corners = sides[:, 0]
        assert (corners[:, axis] == at).all()
        off = corners * spacing - gaussians.means[whose]
        inverse = np.linalg.inv(gaussians.covariances.astype(float))[whose]
        squared = np.einsum("ki,kij,kj->k", off, inverse, off)
        np.testing.assert_allclose(squared, AT_HALF, rtol=2e-3)
        off = (at * spacing[axis] - gaussians.means[:, axis]) ** 2
        cut = off < AT_HALF * gaussians.covariances[:, axis, axis]
        assert {*whose} == {*np.flatnonzero(cut)}
        assert len(sides) == SIDES * cut.sum()


def test_hidden_centres_become_fewer_and_are_drawn_in_their_colours_when_shown(seen: Seen) -> None:
    """One was added by hand; napari looks at the points that it has shown last."""
    seen.show()
    seen.viewer.dims.ndisplay = 3
    centres, count = seen.panel.live.centres, len(seen.fit.field)
    centres.add(np.asarray(centres.data)[0] + 0.1)
    centres.visible = False
    seen.panel.live.settle(seen.fit)
    assert len(centres.data) == len(centres.face_color) == count
    centres.visible = True
    canvas = unwrapped(seen.viewer).window._qt_viewer.canvas
    markers = canvas.layer_to_visual[unwrapped(centres)].node.points_markers
    assert len(markers._data) == count


def test_marks_that_stay_where_they_are_are_not_painted_anew(seen: Seen) -> None:
    """A panel that is opened again finds them as they are to be."""
    seen.show()
    overlays = seen.panel.shown.overlays
    overlays.draw_soon()
    seen.settle()
    marks, told = seen.overlays[CENTRES], []
    for emitter in (marks.events.set_data, marks.events.face_color):
        emitter.connect(told.append)
    overlays.draw_soon()
    seen.settle()
    assert not told
    seen.panel.live.centres.data = np.asarray(seen.panel.live.centres.data) + 1.0
    overlays.draw_soon()
    seen.settle()
    assert told


def test_hidden_captions_are_deleted_by_hand_and_the_view_is_zoomed(seen: Seen) -> None:
    """napari places texts of hidden points too, by those that it has shown last."""
    seen.show()
    captions = seen.panel.live.layer("captions")
    captions.visible = False
    captions.selected_data = {0, 1}
    captions.remove_selected()
    left = len(captions.data)
    captions.scale_factor *= 2
    assert len(unwrapped(captions)._view_text) == left


def test_captions_are_deleted_by_hand_before_all_of_them_are_written(seen: Seen) -> None:
    seen.show()
    captions = seen.panel.live.layer("captions")
    captions.selected_data = {0, 1}
    captions.remove_selected()
    seen.panel.live._captioned = 0
    while seen.panel.live._caption_next():
        pass
    assert len(captions.data) == len(captions.features) == len(WORDS) - 2


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_centres_are_drawn_where_the_projections_show_them(seen: Seen, axis: int) -> None:
    seen.show()
    seen.look(ViewChoice(axis))
    seen.settle()
    marks, picture = seen.overlays[CENTRES], seen.panel.live.layer("data MIP")
    count = len(seen.fit.field)
    assert len(marks.data) == 3 * count, "on two pictures, and over the stack"
    truth = seen.fit.field.numpy()
    for n, mark in enumerate(np.asarray(marks.data)[:count]):
        row, column = picture.world_to_data(mark)
        lit = picture.data[round(row) - 1 : round(row) + 2, round(column) - 1 : round(column) + 2]
        assert lit.max() > 0.6 * (truth.amplitudes[n] + truth.background)
    over = np.asarray(marks.data)[2 * count :]
    np.testing.assert_allclose(over, truth.means[:, 1:], atol=1e-6)
    alpha = marks.face_color[:, 3]
    assert alpha[2 * count :].max() < 0.5 * alpha[:count].max(), "those of other slices are pale"


def test_while_a_fit_goes_on_the_brightest_centres_are_marked_and_at_rest_all(seen: Seen) -> None:
    field = some_field(MOST_MOVING_MARKS + 100)
    seen.fit = FitResult((field,), seen.fit.stack, FitSettings())
    seen.show()
    marks = seen.overlays[CENTRES]
    assert len(marks.data) == 3 * len(field)  # over the stack, and on two pictures
    seen.panel.shown.overlays.show_field(field)
    seen.wait(lambda: len(marks.data) == 3 * MOST_MOVING_MARKS)
    amplitudes = field.numpy().amplitudes
    brightest = np.sort(np.argsort(-amplitudes)[:MOST_MOVING_MARKS])
    centres = seen.panel.live.centres
    there = (centres.data * centres.scale)[brightest][:, -2:]
    np.testing.assert_allclose(marks.data[-MOST_MOVING_MARKS:], there, rtol=1e-5)
    seen.panel.shown.overlays.show_field(None)
    seen.wait(lambda: len(marks.data) == 3 * len(field))


def test_marks_go_with_edits_and_filters_and_a_deleted_layer_stays_deleted(seen: Seen) -> None:
    seen.show()
    centres, count = seen.panel.live.centres, len(seen.fit.field)
    centres.selected_data = {0}
    centres.remove_selected()
    seen.settle()
    assert len(seen.overlays[CENTRES].data) == 3 * (count - 1)
    line = seen.panel.table.condition
    middle = float(centres.features["amplitude"].median())
    QTest.keyClicks(line, f"amplitude > {middle}")
    QTest.keyClick(line, Qt.Key.Key_Return)
    seen.settle()
    bright = int((centres.features["amplitude"] > middle).sum())
    assert 0 < bright < count - 1
    assert len(seen.overlays[CENTRES].data) == 3 * bright

    seen.viewer.layers.remove(seen.overlays[CENTRES])
    assert not seen.panel.shown.boxes[CENTRES].isChecked()
    seen.settle()
    assert CENTRES not in seen.overlays
    seen.panel.shown.boxes[CENTRES].click()
    seen.wait(lambda: CENTRES in seen.overlays)


def test_ellipses_follow_the_slice_and_ellipsoids_are_there_in_3d_alone(seen: Seen) -> None:
    seen.show()
    dims, chosen = seen.viewer.dims, set(seen.viewer.layers.selection)
    brightest = int(np.argmax(seen.fit.field.amplitudes.numpy()))
    depth = seen.panel.live.centres.data[brightest][0]
    dims.set_current_step(0, round(depth))
    seen.panel.shown.boxes[SECTIONS].click()
    seen.wait(lambda: SECTIONS in seen.overlays)
    gaussians, spacing = seen.fit.field.numpy(), np.asarray(seen.fit.stack.spacing)
    for step in (round(depth), round(depth) + 1):
        dims.set_current_step(0, step)
        QApplication.processEvents()
        seen.settle()
        expected, _ = sections(gaussians, spacing, 0, float(step))
        np.testing.assert_allclose(seen.overlays[SECTIONS].data, expected, atol=1e-4)
    assert set(seen.viewer.layers.selection) == chosen

    seen.panel.shown.boxes[ELLIPSOIDS].click()
    seen.settle()
    assert ELLIPSOIDS not in seen.overlays
    dims.ndisplay = 3
    seen.wait(lambda: ELLIPSOIDS in seen.overlays)
    seen.settle()
    assert len(seen.overlays[SECTIONS].data) == 0
    vertices = seen.overlays[ELLIPSOIDS].data[0]
    assert np.ptp(vertices, axis=0).min() > 1
    # As they are looked at they come back, after a look at a slice and when they are ticked again.
    layer = unwrapped(seen.overlays[ELLIPSOIDS])
    layer.opacity, layer.colormap, layer.name = 0.31, "viridis", "mine"
    dims.ndisplay = 2
    seen.wait(lambda: ELLIPSOIDS not in seen.overlays)
    assert "mine" not in seen.viewer.layers
    dims.ndisplay = 3
    seen.wait(lambda: ELLIPSOIDS in seen.overlays)
    for _ in range(2):
        seen.panel.shown.boxes[ELLIPSOIDS].click()
    seen.wait(lambda: ELLIPSOIDS in seen.overlays)
    assert unwrapped(seen.overlays[ELLIPSOIDS]) is layer
    assert (layer.opacity, layer.colormap.name, layer.name) == (0.31, "viridis", "mine")
    assert layer.visible
    assert "mine" in seen.viewer.layers
    np.testing.assert_allclose(layer.data[0], vertices)
    assert set(seen.viewer.layers.selection) == chosen
    dims.ndisplay = 2
    seen.wait(lambda: ELLIPSOIDS not in seen.overlays)


def test_ten_thousand_ellipsoids_move_while_the_window_lives(seen: Seen) -> None:
    seen.show()
    rng = np.random.default_rng(0)
    many = some_field(10_000)
    seen.viewer.dims.ndisplay = 3
    seen.panel.shown.boxes[ELLIPSOIDS].click()
    seen.panel.shown.overlays.show_field(many)
    seen.wait(lambda: ELLIPSOIDS in seen.overlays)
    moved = many.from_covariances(
        many.means.numpy() + rng.normal(size=(10_000, 3)) * 0.01,
        many.covariances,
        many.amplitudes,
        background=many.background,
    )
    before = seen.overlays[ELLIPSOIDS].data[0].copy()
    seen.panel.shown.overlays._running = moved
    began = time.thread_time()
    seen.panel.shown.overlays._draw()
    QApplication.processEvents()
    took = time.thread_time() - began
    assert not np.array_equal(seen.overlays[ELLIPSOIDS].data[0], before)
    assert took < LIVE_SECONDS, f"an update takes {took:.2f} s"


@pytest.mark.parametrize("moved", [False, True])
def test_a_view_that_was_chosen_stays_and_one_that_was_not_shows_all(
    seen: Seen, moved: bool
) -> None:
    camera = camera_of(seen.viewer)
    seen.viewer.dims.set_current_step(0, 3)
    if moved:
        camera.zoom *= 3
        camera.center = (0.0, *(np.asarray(camera.center[1:]) + 1.0))
    before = (*camera.center, camera.zoom)
    seen.show()
    seen.wait(lambda: seen.panel.live._framed is not None, 20)
    assert seen.viewer.dims.current_step[0] == 3
    if moved:
        assert (*camera.center, camera.zoom) == before
        seen.look(ViewChoice(None, 40.0))
        seen.wait(lambda: seen.panel.live._framed == ViewChoice(None, 40.0), 20)
        assert (*camera.center, camera.zoom) == before
    else:
        assert camera.zoom < before[-1], "the pictures are beside what is seen"


def test_all_layers_of_a_fit_are_hidden_and_shown_at_once(seen: Seen) -> None:
    seen.show()
    layers = seen.viewer.layers
    seen.panel.live.layer("residual MIP").visible = False
    before = {layer.name: layer.visible for layer in layers}
    button = seen.panel.shown.hide_all
    QTest.mouseClick(button, LEFT)
    assert [layer.name for layer in layers if layer.visible] == ["beads"]
    QTest.mouseClick(button, LEFT)
    assert {layer.name: layer.visible for layer in layers} == before


def test_the_scale_bar_is_on_where_spacing_is_known(seen: Seen) -> None:
    bar = seen.viewer.canvas.overlays.scale_bar
    assert not bar.visible
    seen.show()
    assert bar.visible


def test_captions_keep_to_their_pictures_in_3d_too(seen: Seen) -> None:
    seen.show()
    captions, wide = seen.panel.live.layer("captions"), seen.fit.stack.shape[2]
    assert np.allclose(captions.text.translation, 0)
    seen.viewer.dims.ndisplay = 3
    seen.settle()
    # Centred there, on the middle of a picture's upper edge.
    half = wide * seen.fit.stack.spacing[2] / 2
    np.testing.assert_allclose(captions.text.translation, (0, half))


def test_a_caption_that_was_deleted_is_there_again_with_the_next_pictures(seen: Seen) -> None:
    seen.show()
    live = seen.panel.live
    captions, words = live.layer("captions"), list(live.layer("captions").features["picture"])
    captions.selected_data = {0}
    captions.remove_selected()
    assert len(captions.data) == len(words) - 1
    seen.look(ViewChoice())
    assert list(captions.features["picture"]) == words
    assert list(captions.text.values) == words


def test_all_of_the_panel_is_reached_in_a_window_of_1024_by_600(seen: Seen) -> None:
    seen.show()
    window = seen.panel.window()
    window.resize(1024, 600)
    for tab in range(seen.panel.tabs.count()):
        seen.panel.tabs.setCurrentIndex(tab)
        QApplication.processEvents()
        assert (window.width(), window.height()) == (1024, 600), seen.panel.tabs.tabText(tab)


@pytest.mark.parametrize("letters", ["#f0f1f2", "#3b3a39"])
def test_plots_are_read_on_dark_and_on_light_ground(qtbot: Any, letters: str) -> None:
    curves = Curves("PSNR", {"held_out_psnr": "held-out", "train_psnr": "training"})
    qtbot.addWidget(curves)
    curves.setStyleSheet(f"QWidget {{ color: {letters}; }}")
    curves.show()
    QApplication.processEvents()
    plot = curves._plot
    assert plot.palette().color(QPalette.ColorRole.WindowText).name() == letters
    dark = QColor(letters).lightness() > 128
    ground = QColor("#262930" if dark else "#efebe9")
    for ink in (
        plot.getPlotItem().getAxis("left").textPen().color(),
        plot.getPlotItem().legend.labelTextColor(),
    ):
        assert contrast(ink, ground) > 4.5
    for curve in curves._curves.values():
        assert contrast(curve.opts["pen"].color(), ground) > 2.9


def test_plots_in_view_go_along_with_the_theme(seen: Seen) -> None:
    from napari.settings import get_settings

    panel = seen.panel
    seen.show()
    panel.tabs.setCurrentIndex(1)
    plots = [one._plot for one in panel.progress._plots]
    assert len(plots) == 3
    for theme, ground in (("light", "#efebe9"), ("dark", "#262930"), ("light", "#efebe9")):
        get_settings().appearance.theme = theme  # what Preferences sets
        for plot in plots:
            assert contrast(shown_ground(plot), QColor(ground)) < 1.2, theme
            ink = plot.getPlotItem().getAxis("left").textPen().color()
            assert contrast(ink, shown_ground(plot)) > 4.5, theme


def shown_ground(plot: Any) -> QColor:
    """Return the colour in a corner of a plot, where nothing is drawn."""
    QApplication.processEvents()
    return QColor(plot.grab().toImage().pixelColor(2, 2))


def contrast(ink: QColor, ground: QColor) -> float:
    """Return the contrast of two colours, as WCAG has it."""

    def luminance(colour: QColor) -> float:
        parts = np.array([colour.redF(), colour.greenF(), colour.blueF()])
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ (0.2126, 0.7152, 0.0722))

    bright, dim = sorted((luminance(ink), luminance(ground)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)
