"""What the panel says is fitted: chosen by clicks, typed by keys, turned by the wheel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
from napari.utils.notifications import notification_manager
from qtpy.QtCore import QLocale, QPoint, QPointF, Qt
from qtpy.QtGui import QWheelEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import (
    QAbstractSlider,
    QAbstractSpinBox,
    QApplication,
    QComboBox,
    QLabel,
    QMenu,
    QScrollBar,
    QSpinBox,
    QWidget,
)

from napari_gaussfit._napari.panel.data import DataPart
from napari_gaussfit._napari.panel.layer_box import LayerBox
from napari_gaussfit._napari.panel.number_field import NumberField
from napari_gaussfit._napari.panel.panel import GaussianFitPanel
from napari_gaussfit._napari.worker import Phase
from napari_gaussfit.errors import SettingsError
from napari_gaussfit.settings import FitSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Wait = Callable[..., None]

pytestmark = [pytest.mark.gui, pytest.mark.usefixtures("nothing_left_behind")]

RNG = np.random.default_rng(0)
STACK = RNG.random((6, 20, 30)).astype(np.float32)
MOVIE = RNG.random((5, 6, 20, 30)).astype(np.float32)
ZYX = ("z", "y", "x")
BEADS = (0.125, 0.02249186, 0.02249186)


@pytest.fixture
def viewer(make_napari_viewer_proxy: Any) -> Any:
    return make_napari_viewer_proxy(show=True)


@pytest.fixture
def part(viewer: Any, qtbot: Any) -> Iterator[DataPart]:
    """The part alone, in a window that has the focus."""
    part = DataPart(viewer)
    qtbot.addWidget(part)
    part.show()
    part.activateWindow()
    qtbot.waitExposed(part)
    yield part
    part.close_down()


def field(part: DataPart, axis: str) -> NumberField:
    found: Any = part.findChild(QWidget, f"spacing_{axis}")
    return found


def type_into(part: DataPart, axis: str, text: str) -> None:
    """Type a size as a person does who clicks into the field and leaves it by Enter."""
    box = field(part, axis)
    QTest.mouseClick(box, Qt.MouseButton.LeftButton)
    box.selectAll()
    QTest.keyClicks(box, text)
    QTest.keyClick(box, Qt.Key.Key_Return)


def choose_unit(part: DataPart, name: str) -> None:
    """Choose a unit with the keys, as its first letter does."""
    box = part.spacing.unit
    box.setFocus()
    QTest.keyClicks(box, name[0])
    assert box.currentText() == name


def units(layer: Any) -> list[str]:
    return [str(unit) for unit in layer.units]


def warning(part: DataPart) -> QLabel:
    found: Any = part.findChild(QLabel, "spacing_warning")
    return found


def words(part: QWidget) -> str:
    label: Any = part.findChild(QLabel, "stack_words")
    return str(label.text())


def items(box: QComboBox) -> dict[str, bool]:
    """Return the texts in a list, and whether each can be chosen."""
    model: Any = box.model()
    return {box.itemText(n): model.item(n).isEnabled() for n in range(box.count())}


def test_a_spacing_is_typed_into_an_unknown_one(viewer: Any, part: DataPart) -> None:
    layer = viewer.add_image(STACK)
    assert "unknown" in warning(part).text()
    for axis, text in zip(ZYX, ("0.25", "0.0655", "0.0655"), strict=True):
        type_into(part, axis, text)
    assert tuple(layer.scale) == (0.25, 0.0655, 0.0655)
    assert units(layer) == ["pixel"] * 3
    choose_unit(part, "µm")
    assert tuple(layer.scale) == (0.25, 0.0655, 0.0655)
    assert units(layer) == ["micrometer"] * 3
    assert warning(part).isHidden()


def test_what_is_not_typed_stays_to_the_last_digit(viewer: Any, part: DataPart) -> None:
    layer = viewer.add_image(STACK, scale=(1 / 3, 0.02249186, 0.1 + 0.2), units=("um",) * 3)
    type_into(part, "z", "0.25")
    assert tuple(layer.scale) == (0.25, 0.02249186, 0.1 + 0.2)


def test_a_comma_is_a_decimal_point_where_it_is_one(viewer: Any, part: DataPart) -> None:
    part.setLocale(QLocale("de_DE"))
    layer = viewer.add_image(STACK, scale=BEADS, units=("um",) * 3)
    assert field(part, "y").text() == "0,02249186"
    type_into(part, "y", "0,065")
    assert tuple(layer.scale) == (0.125, 0.065, 0.02249186)
    assert field(part, "y").text() == "0,065"


def test_a_comma_is_not_lost_where_a_point_is_usual(viewer: Any, part: DataPart) -> None:
    part.setLocale(QLocale("en_US"))
    layer = viewer.add_image(STACK, scale=BEADS, units=("um",) * 3)
    type_into(part, "y", "0,065")
    assert tuple(layer.scale) == (0.125, 0.065, 0.02249186)


def test_nanometers_are_shown_and_typed_with_their_digits(viewer: Any, part: DataPart) -> None:
    layer = viewer.add_image(STACK, scale=BEADS, units=("um",) * 3)
    choose_unit(part, "nm")
    assert tuple(layer.scale) == (125.0, 22.49186, 22.49186)
    assert units(layer) == ["nanometer"] * 3
    assert [field(part, axis).text() for axis in ZYX] == ["125", "22.49186", "22.49186"]
    type_into(part, "y", "22.49")
    assert tuple(layer.scale) == (125.0, 22.49, 22.49186)
    source = part.source()
    assert source is not None
    assert source.stack.spacing == (0.125, 0.02249, 0.02249186)
    assert source.stack.unit == "micrometer"


def test_a_unit_that_is_not_offered_stays_the_layers_own(viewer: Any, part: DataPart) -> None:
    layer = viewer.add_image(STACK, scale=(1250, 655, 655), units=("angstrom",) * 3)
    assert part.spacing.unit.currentText() == "angstrom"
    type_into(part, "z", "2500.5")
    assert tuple(layer.scale) == (2500.5, 655, 655)
    assert units(layer) == ["angstrom"] * 3


def test_of_several_units_each_axis_keeps_its_own(viewer: Any, part: DataPart) -> None:
    layer = viewer.add_image(STACK, scale=(0.5, 130, 130), units=("um", "nm", "nm"))
    assert [field(part, axis).text() for axis in ZYX] == ["0.5", "0.13", "0.13"]
    type_into(part, "y", "0.0655")
    assert tuple(layer.scale) == (0.5, 65.5, 130)
    assert units(layer) == ["micrometer", "nanometer", "nanometer"]


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "0.", "1e-300", "abc"])
def test_the_layer_never_gets_what_is_no_size(viewer: Any, part: DataPart, text: str) -> None:
    layer = viewer.add_image(STACK, scale=BEADS, units=("um",) * 3)
    type_into(part, "z", text)
    assert tuple(layer.scale) == BEADS
    assert repr(text) in warning(part).text()
    with pytest.raises(SettingsError, match="spacing"):
        part.source()
    viewer.add_points(np.zeros((2, 3)))

    type_into(part, "z", "0.25")
    assert warning(part).isHidden()
    assert tuple(layer.scale) == (0.25, *BEADS[1:])


def test_the_stack_is_seen_after_its_spacing_has_changed(viewer: Any, part: DataPart) -> None:
    viewer.add_image(STACK, scale=(20, 1, 1), units=("um",) * 3)
    viewer.dims.set_current_step(0, 4)
    camera = getattr(viewer, "scene", viewer).camera
    camera.zoom = 1e-3
    for axis, text in zip(ZYX, ("0.25", "0.001", "0.001"), strict=True):
        type_into(part, axis, text)
    assert viewer.dims.current_step[0] == 4
    across = 0.020 * camera.zoom
    assert 100 < across < 2000, f"the stack is {across:.3g} pixels high"


def test_what_lies_on_the_stack_follows_it_and_no_units_are_mixed(
    viewer: Any, part: DataPart, qtbot: Any
) -> None:
    green = viewer.add_image(STACK, name="green")
    viewer.add_labels(np.ones(STACK.shape, int))
    viewer.add_points([[1.0, 2, 3]])
    viewer.add_shapes([[[1.0, 2], [3, 4], [5, 1]]], shape_type="polygon")
    other = viewer.add_image(STACK[:, :9], scale=(7, 1, 1))
    red = viewer.add_image(STACK, name="red", translate=(0, 4, 0))
    part.layer = green
    type_into(part, "z", "0.5")
    viewer.layers.remove(other)
    notification_manager.records.clear()
    choose_unit(part, "µm")
    qtbot.wait(200)
    assert not [note.message for note in notification_manager.records]
    for layer in viewer.layers:
        assert set(units(layer)) == {"micrometer"}
        assert tuple(layer.scale) == (0.5, 1.0, 1.0)[-layer.ndim :]
    type_into(part, "y", "0.25")
    assert tuple(red.translate) == (0, 1, 0), "it lies 4 voxels further down"
    assert tuple(other.scale) == (7, 1, 1)


def test_the_wheel_turns_only_what_has_the_focus(
    viewer: Any, wait_until: Wait, small_beads: Any
) -> None:
    stack = small_beads.stack
    movie = np.stack([stack.voxels] * 3)
    viewer.add_image(movie, scale=(1, *stack.spacing), axis_labels=("t", *ZYX))
    _, panel = viewer.window.add_plugin_dock_widget("napari-gaussfit", "Gaussian fit")
    wait_until(lambda: is_looked_at(panel))
    panel.view.look_from(30.0, 20.0)
    boxes = [
        box
        for kind in (QAbstractSpinBox, QComboBox, QAbstractSlider)
        for box in panel.findChildren(kind)
        if not isinstance(box, QScrollBar) and not in_a_menu(box)
    ]
    assert len(boxes) > 12
    settings, view, scale = panel.model.settings, panel.view.choice, viewer.layers[0].scale
    for box in boxes:
        before = state(box)
        box.clearFocus()
        assert box.focusPolicy() != Qt.FocusPolicy.WheelFocus
        turn(box)
        assert state(box) == before, f"the wheel has turned {box.objectName() or type(box)}"
    assert panel.model.settings == settings
    assert panel.view.choice == view
    assert tuple(viewer.layers[0].scale) == tuple(scale)

    [time] = [box for box in panel.data.findChildren(QSpinBox) if box.maximum() == 2]
    at = time.value()
    wait_until(lambda: has_focus(time))
    turn(time)
    assert time.value() == at + 1


def in_a_menu(widget: QWidget | None) -> bool:
    """Tell whether a widget is of one of pyqtgraph's menus, which nobody can open here."""
    while widget is not None and not isinstance(widget, QMenu):
        widget = widget.parentWidget()
    return widget is not None


def has_focus(widget: QWidget) -> bool:
    """Give a widget the focus; without a window manager, that may take more than one try."""
    window = widget.window()
    assert window is not None
    window.activateWindow()
    widget.setFocus()
    return widget.hasFocus()


def is_looked_at(panel: Any) -> bool:
    """Tell whether the chosen stack is known, and no thread looks at it any more."""
    return "Takes about" in panel.findChild(QLabel, "gaussfit_facts").text()


def state(box: Any) -> Any:
    return box.currentIndex() if isinstance(box, QComboBox) else box.value()


def turn(widget: QWidget) -> None:
    """Turn the wheel one step up over a widget."""
    middle = QPointF(widget.rect().center())
    event = QWheelEvent(
        middle,
        QPointF(widget.mapToGlobal(middle.toPoint())),
        QPoint(0, 0),
        QPoint(0, 120),
        Qt.MouseButton.NoButton,
        Qt.KeyboardModifier.NoModifier,
        Qt.ScrollPhase.NoScrollPhase,
        False,
    )
    QApplication.sendEvent(widget, event)


def test_what_cannot_be_fitted_is_listed_with_the_reason(viewer: Any, part: DataPart) -> None:
    viewer.add_image(STACK[0], name="flat")
    viewer.add_image(RNG.random((20, 30, 3)), rgb=True, name="photo")
    viewer.add_labels(np.ones(STACK.shape, int), name="cells")
    viewer.add_points(np.zeros((1, 3)), name="spots")
    assert part.layer is None
    part.show_words(None)
    assert "cells marks objects" in words(part), "with nothing to choose, the form says why"

    stack = viewer.add_image(STACK, name="my data MIP")
    assert part.layer == stack, "a name means nothing"
    assert items(part.findChildren(LayerBox)[0]) == {
        "none": True,
        "my data MIP": True,
        "flat is a 2D image": False,
        "photo is a colour (RGB) image": False,
        "cells marks objects (Labels)": False,
    }


def test_the_choice_outlives_another_name_and_other_layers(viewer: Any, part: DataPart) -> None:
    first = viewer.add_image(STACK, name="first")
    viewer.add_image(STACK, name="second")
    points = viewer.add_points(np.zeros((1, 3)))
    part.start_from = points
    assert part.layer == first
    first.name, points.name = "third", "seeds"
    viewer.layers.reverse()
    assert (part.layer, part.start_from) == (first, points)
    viewer.layers.remove(first)
    assert part.layer.name == "second"


def test_layers_of_no_concern_have_nothing_looked_at_anew(
    viewer: Any, part: DataPart, qtbot: Any
) -> None:
    viewer.add_image(STACK)
    with qtbot.assertNotEmitted(part.changed, wait=100):
        viewer.add_image(STACK[0], name="picture")
        viewer.add_points(np.zeros((1, 3)))
        viewer.dims.set_current_step(0, 2)
        viewer.layers.remove("picture")


def test_other_voxels_of_a_layer_are_what_is_fitted(viewer: Any, part: DataPart) -> None:
    layer = viewer.add_image(MOVIE)
    viewer.dims.set_current_step(0, 4)
    layer.data = MOVIE[:3, :, 2:]
    source = part.source()
    assert source is not None
    np.testing.assert_array_equal(source.stack.voxels, MOVIE[2, :, 2:])
    layer.data = STACK[0]
    assert part.layer is None
    assert "is a 2D image" in part.findChildren(LayerBox)[0].refused[0]
    another = viewer.add_image(MOVIE)
    assert part.layer == another
    viewer.layers.remove(another)
    assert part.source() is None


def test_a_pyramid_is_fitted_at_its_finest_level(viewer: Any, part: DataPart) -> None:
    levels = [STACK, STACK[:, ::2, ::2]]
    layer = viewer.add_image(levels, multiscale=True, scale=(0.5, 0.13, 0.13), units=("um",) * 3)
    source = part.source()
    assert part.layer == layer
    assert source is not None
    np.testing.assert_array_equal(source.stack.voxels, STACK)
    assert source.stack.spacing == (0.5, 0.13, 0.13)


@pytest.mark.parametrize("plugin", ["napari-gaussfit", "napari"])
def test_channels_without_z_are_refused_as_on_the_command_line(
    viewer: Any, part: DataPart, tmp_path: Path, plugin: str
) -> None:
    path = tmp_path / "channels.ome.tif"
    voxels = RNG.integers(0, 9, (4, 30, 40)).astype(np.uint16)
    tifffile.imwrite(path, voxels, metadata={"axes": "CYX"}, ome=True)
    [layer] = viewer.open(str(path), plugin=plugin)
    assert layer.ndim == 3
    assert part.layer is None
    part.show_words(None)
    assert "is a 2D image with 4 channels but no z axis" in words(part)

    layer.axis_labels = ZYX
    assert part.layer == layer, "who names the axes z, y, x knows better than the file"


def test_a_layer_whose_axes_are_named_is_taken_at_its_word(viewer: Any, part: DataPart) -> None:
    viewer.add_image(STACK, name="two colours", axis_labels=("c", "y", "x"))
    assert part.layer is None
    assert "two colours has the axes c, y, x" in part.findChildren(LayerBox)[0].refused[0]


def test_a_stack_of_one_value_is_refused_and_nothing_is_finished(
    viewer: Any, wait_until: Wait
) -> None:
    viewer.add_image(np.zeros((6, 20, 30), np.uint8), name="const", contrast_limits=(0, 1))
    _, panel = viewer.window.add_plugin_dock_widget("napari-gaussfit", "Gaussian fit")
    assert isinstance(panel, GaussianFitPanel)
    state: Any = panel.findChild(QLabel, "gaussfit_state")
    wait_until(lambda: "const" in state.text())
    assert state.text() == "Cannot be fitted: const: is 0 in every voxel, with nothing to fit"
    assert "const: is 0 in every voxel" in words(panel.data)
    assert not panel.run.buttons["Fit"].isEnabled()
    viewer.add_image(STACK, name="good")
    panel.data.layer = viewer.layers["good"]
    wait_until(lambda: is_looked_at(panel))
    assert panel.run.buttons["Fit"].isEnabled()
    assert "Cannot" not in state.text()
    assert "const" not in words(panel.data)


def test_the_time_is_the_one_in_view_and_the_view_the_time(viewer: Any, part: DataPart) -> None:
    viewer.add_image(MOVIE, scale=(2, 1, 1, 1), axis_labels=("t", *ZYX), name="movie")
    [box] = part.findChildren(QSpinBox)
    viewer.dims.set_current_step(0, 3)
    assert box.value() == 3
    source = part.source()
    assert source is not None
    assert source.stack.time == 3
    assert source.name == "movie time 3"
    np.testing.assert_array_equal(source.stack.voxels, MOVIE[3])

    box.selectAll()
    QTest.keyClicks(box, "4")
    QTest.keyClick(box, Qt.Key.Key_Return)
    assert viewer.dims.current_step[0] == 4
    assert viewer.dims.point[0] == 8.0


def test_a_fit_of_a_series_says_its_time_and_loses_no_other(
    viewer: Any, wait_until: Wait, small_beads: Any, qtbot: Any
) -> None:
    stack = small_beads.stack
    movie = np.stack([stack.voxels, stack.voxels[::-1]])
    viewer.add_image(movie, name="movie", scale=(1, *stack.spacing), axis_labels=("t", *ZYX))
    _, panel = viewer.window.add_plugin_dock_widget("napari-gaussfit", "Gaussian fit")
    panel.model.settings = FitSettings(exactly=True, gaussians=6, quality="preview")
    for time in (0, 1):
        viewer.dims.set_current_step(0, time)
        wait_until(panel.run.buttons["Fit"].isEnabled)
        QTest.mouseClick(panel.run.buttons["Fit"], Qt.MouseButton.LeftButton)
        wait_until(lambda: panel.worker.phase.active)
        wait_until(lambda: panel.worker.phase is Phase.FINISHED, 240)
        wait_until(lambda: len(panel.live.layers) == 5)
        centres = viewer.layers[f"movie time {time} centres"]
        assert centres.metadata["napari_gaussfit"]["of"]["time"] == time
        assert panel.fit.stack.name == f"movie time {time}"
    assert panel.fit.stack.place == {"time": 1}
    assert "movie time 0 centres" in viewer.layers
    first, second = (viewer.layers[f"movie time {time} centres"].data for time in (0, 1))
    assert np.abs(first[:, 0].mean() + second[:, 0].mean() - len(stack.voxels) + 1) < 0.5

    [threshold] = panel.results.findChildren(NumberField)
    panel.results.kinds = {"volume"}
    for text, taken in (("lots", False), ("0.0025", True)):
        threshold.selectAll()
        QTest.keyClicks(threshold, text)
        QTest.keyClick(threshold, Qt.Key.Key_Return)
        assert panel.results.add.isEnabled() == taken
    assert threshold.value == 0.0025
    panel.results.add_layers()
    wait_until(lambda: "movie time 1 rendered" in viewer.layers)
    assert panel.data.layer.name == "movie"
    panel.tabs.setCurrentIndex(0)
    choose_unit(panel.data, "nm")
    see_that_all_lie_on_their_stack(viewer)
    notification_manager.records.clear()
    qtbot.wait(300)
    assert not [note.message for note in notification_manager.records]
    panel.view.look_along(1)
    wait_until(lambda: panel.worker.news.mips.view.axis == 1)
    qtbot.wait(300)
    see_that_all_lie_on_their_stack(viewer)


def see_that_all_lie_on_their_stack(viewer: Any) -> None:
    """All layers are in the movie's unit, and those of both fits where its voxels are."""
    movie = viewer.layers["movie"]
    for layer in viewer.layers:
        assert set(units(layer)[-2:]) == {"nanometer"}, layer.name
        seen = "centres" in layer.name and "projections" not in layer.name
        if seen or "rendered" in layer.name:
            assert tuple(layer.scale) == tuple(movie.scale[-3:]), layer.name
    high = movie.extent.world[1][-2]
    below = [layer for layer in viewer.layers if layer.name.endswith("fit MIP")]
    assert len(below) == 2
    for layer in below:
        assert high < layer.translate[0] < 1.2 * high, layer.name


def test_times_of_several_layers_are_each_its_own(viewer: Any, part: DataPart) -> None:
    late = viewer.add_image(MOVIE, scale=(2, 1, 1, 1), translate=(6, 0, 0, 0), name="late")
    viewer.add_image(RNG.random((40, 6, 20, 30)), name="long")
    part.layer = late
    [box] = part.findChildren(QSpinBox)
    viewer.dims.set_point(0, 10)
    assert box.value() == 2
    viewer.dims.set_point(0, 39)
    assert box.value() == 4, "the last there is"
