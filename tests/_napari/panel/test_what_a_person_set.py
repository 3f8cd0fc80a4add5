"""What a person sets on a layer stays: as the panel is opened again, and with other results.

Whatever layers are called, they are the ones that were there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QCheckBox, QComboBox

from by_hand import add_stack, choose, open_panel, reopened
from list_of_results import click, show_kept
from napari_gaussfit._napari.layers.gaussians import points_layer
from napari_gaussfit._napari.layers.placement import METADATA, OF, Placement
from napari_gaussfit._napari.worker import Phase
from napari_gaussfit.fitting.result import FitResult
from napari_gaussfit.settings import FitSettings
from napari_gaussfit.synthetic import phantoms

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_gaussfit.synthetic.phantoms import Phantom

    Wait = Callable[..., None]

pytestmark = [pytest.mark.gui, pytest.mark.usefixtures("nothing_left_behind", "own_sessions")]

COMPILING = 240.0
"""Seconds that the first answer after an installation may take, on a busy machine."""

SIX = FitSettings(exactly=True, gaussians=6, quality="preview")
RED = (1.0, 0.0, 0.0, 1.0)


def reopened_at_rest(panel: Any) -> Any:
    """Close the panel, and open it again; what that starts has come to its end."""
    again = reopened(panel)
    QTest.qWait(1000)
    return again


def at_all_times(panel: Any) -> None:
    box: Any = panel.findChild(QComboBox, "gaussfit_times")
    box.setFocus()
    QTest.keyClick(box, Qt.Key.Key_Down)


def made(viewer: Any) -> list[Any]:
    """Return the layers that the panel has made."""
    return [one for one in viewer.layers if OF in one.metadata.get(METADATA, {})]


def restyle(viewer: Any, *, hidden: str) -> None:
    """Set all that a person may set on the layers of a fit; those of some names are hidden."""
    for layer in made(viewer):
        kind = type(layer).__name__
        if kind == "Points":
            # As napari's controls do: what is chosen there is of the points that are selected.
            layer.selected_data = set(range(len(layer.data)))
            layer.current_size = 3.0
            layer.current_face_color = layer.current_border_color = "red"
            layer.selected_data = set()
            layer.symbol = "star"
        elif kind == "Labels":
            layer.contour = 2
        elif kind == "Tracks":
            layer.colormap, layer.tail_width = "hsv", 7
        elif kind == "Image" and not layer.rgb:
            layer.colormap, layer.contrast_limits = "viridis", (1.0, 2.0)
        elif kind == "Surface":
            layer.colormap = "viridis"
        layer.visible = hidden not in layer.name
        layer.opacity, layer.blending = 0.31, "minimum"
        layer.name = f"mine: {layer.name}"


def styles(viewer: Any) -> dict[str, dict[str, Any]]:
    """Return what a person sees set on each layer."""
    found = {}
    for layer in made(viewer):
        said = {name: getattr(layer, name) for name in ("visible", "opacity", "blending")}
        kind = type(layer).__name__
        if kind == "Points":
            # Marks over a fit may be more or fewer by now: which looks there are.
            said |= {"sizes": {*layer.size.tolist()}, "symbols": {str(one) for one in layer.symbol}}
            said |= {"faces": {*map(tuple, layer.face_color.tolist())}}
            said |= {"borders": {*map(tuple, layer.border_color.tolist())}}
        elif kind == "Labels":
            said |= {"contour": layer.contour}
        elif kind == "Tracks":
            said |= {"colormap": layer.colormap, "width": layer.tail_width}
        elif kind == "Image" and not layer.rgb:
            said |= {"colormap": layer.colormap.name, "limits": tuple(layer.contrast_limits)}
        elif kind == "Surface":
            said |= {"colormap": layer.colormap.name}
        elif kind == "Shapes":
            said |= {"edges": layer.edge_color.tolist()}
        found[layer.name] = said
    return found


def test_layers_of_a_fit(panel: Any, small_beads: Phantom, wait_until: Wait) -> None:
    viewer = panel.viewer
    panel.model.settings = SIX
    box: Any = panel.findChild(QCheckBox, "gaussfit_show_sections")
    box.setChecked(True)
    depth = small_beads.truth.numpy().means[0, 0] / small_beads.stack.spacing[0]
    viewer.dims.set_current_step(0, round(float(depth)))
    click(panel.run.buttons["Fit"])
    wait_until(lambda: panel.worker.phase is Phase.FINISHED, COMPILING)
    wait_until(lambda: panel.live.complete and "beads sections" in viewer.layers)
    wait_until(lambda: "beads centres on projections" in viewer.layers)
    restyle(viewer, hidden="centres")
    QTest.qWait(500)
    before = styles(viewer)
    assert len(before) == 7, "centres, three pictures, their captions, and two overlays"
    again = reopened_at_rest(panel)
    wait_until(lambda: again.live is not None and again.live.complete)
    assert styles(viewer) == before

    # Another fit of as many, and of fewer, is shown in the same layers, as they are looked at.
    for count in (6, 4):
        again.model.settings = FitSettings(exactly=True, gaussians=count, quality="preview")
        last = again.fit
        wait_until(again.run.buttons["Fit"].isEnabled)
        click(again.run.buttons["Fit"])
        wait_until(
            lambda last=last: again.worker.phase is Phase.FINISHED and again.fit is not last,
            COMPILING,
        )
        centres = again.live.centres
        assert centres.name == "mine: beads centres"
        assert not centres.visible
        assert len(centres.data) == count
        assert set(centres.size.tolist()) == {3.0}
        np.testing.assert_array_equal(centres.face_color, [RED] * count)
    assert {*styles(viewer)} == {*before}


def test_layers_of_spots(
    make_napari_viewer_proxy: Any, small_beads: Phantom, wait_until: Wait
) -> None:
    viewer = make_napari_viewer_proxy()
    add_stack(viewer, small_beads.stack)
    panel = open_panel(viewer)
    choose(panel, "Spots")
    wait_until(lambda: "beads candidates" in viewer.layers, COMPILING)
    click(panel.spots.foot.fit)
    wait_until(lambda: panel.spots.found is not None, COMPILING)
    restyle(viewer, hidden="candidates")
    before = styles(viewer)
    assert {*before} == {"mine: beads candidates", "mine: beads spots"}
    again = reopened_at_rest(panel)
    wait_until(again.spots.foot.fit.isEnabled, COMPILING)
    assert styles(viewer) == before

    # Their stack has another name too: it is the same stack.
    viewer.layers["beads"].name = "cell 3"
    found = again.spots.found
    QTest.qWait(500)
    wait_until(again.spots.foot.fit.isEnabled)
    click(again.spots.foot.fit)
    wait_until(lambda: again.spots.found is not found, COMPILING)
    QTest.qWait(500)
    assert styles(viewer) == before
    [spots] = [one for one in made(viewer) if one.name == "mine: beads spots"]

    # A copy is kept by whom it was made: the panel goes on with its own.
    copied = spots.as_layer_data_tuple()
    viewer.layers.remove(spots)
    viewer.add_points(copied[0], **{**copied[1], "name": "copy"})
    show_kept(again, 0)
    assert [one.name for one in made(viewer)] == ["mine: beads candidates", "copy", "beads spots"]


def test_a_feature_by_which_points_are_coloured_and_sizes_of_some_stay(
    panel: Any, wait_until: Wait
) -> None:
    viewer = panel.viewer
    panel.model.settings = SIX
    click(panel.run.buttons["Fit"])
    wait_until(lambda: panel.worker.phase is Phase.FINISHED, COMPILING)
    wait_until(lambda: panel.live.complete)
    centres = panel.live.centres
    centres.face_color = "z"
    centres.face_color_mode = "colormap"
    centres.size = np.arange(1.0, 7.0)
    before = styles(viewer)["beads centres"]
    again = reopened_at_rest(panel)
    wait_until(lambda: again.live is not None and again.live.centres is not None)
    assert str(centres.face_color_mode) == "colormap"
    assert styles(viewer)["beads centres"] == before
    assert centres.size.tolist() == [1, 2, 3, 4, 5, 6]
    # Deleting one by hand leaves what the others look like.
    centres.selected_data = {0}
    centres.remove_selected()
    QTest.qWait(100)
    assert centres.size.tolist() == [2, 3, 4, 5, 6]


def movie() -> np.ndarray:
    spots = phantoms.moving_spots(count=4, times=3, crossings=0, shape=(12, 32, 32))
    return np.stack([stack.voxels for stack in spots.stacks])


def add_recording(viewer: Any) -> None:
    place = {"scale": (1, 0.3, 0.1, 0.1), "units": ("pixel", "um", "um", "um")}
    viewer.add_image(movie(), name="cells", axis_labels=("t", "z", "y", "x"), **place)


def test_layers_of_a_recording(make_napari_viewer_proxy: Any, wait_until: Wait) -> None:
    viewer = make_napari_viewer_proxy()
    add_recording(viewer)
    panel = open_panel(viewer)
    wait_until(panel.run.buttons["Fit"].isEnabled)
    at_all_times(panel)
    panel.model.settings = FitSettings(exactly=True, gaussians=4, iterations=40)
    wait_until(panel.run.buttons["Fit"].isEnabled)
    click(panel.run.buttons["Fit"])
    wait_until(lambda: panel.worker.phase is Phase.FINISHED, COMPILING)
    wait_until(lambda: panel.live.complete)
    tracks = viewer.layers["cells tracks"]
    again = reopened_at_rest(panel)
    wait_until(lambda: again.over_time is not None)
    assert tracks.visible, "seen before, and seen again"
    restyle(viewer, hidden="tracks")
    before = styles(viewer)
    third = reopened_at_rest(again)
    wait_until(lambda: third.over_time is not None and third.live.complete)
    assert styles(viewer) == before
    assert not tracks.visible


def test_layers_of_the_spots_of_a_recording(
    make_napari_viewer_proxy: Any, wait_until: Wait
) -> None:
    viewer = make_napari_viewer_proxy()
    add_recording(viewer)
    panel = open_panel(viewer)
    choose(panel, "Spots")
    at_all_times(panel)
    wait_until(panel.spots.foot.fit.isEnabled, COMPILING)
    click(panel.spots.foot.fit)
    wait_until(lambda: panel.spots.over_time.found is not None, COMPILING)
    restyle(viewer, hidden="tracks")
    before = styles(viewer)
    assert "mine: cells tracks" in before
    again = reopened_at_rest(panel)
    wait_until(lambda: again.spots.over_time.found is not None)
    assert styles(viewer) == before
    show_kept(again, 0)
    assert {*styles(viewer)} == {*before}, "no second layer of the same"


@pytest.mark.parametrize("kind", ["cells", "neurites"])
def test_layers_of_objects(make_napari_viewer_proxy: Any, wait_until: Wait, kind: str) -> None:
    phantom = (
        phantoms.nuclei(seed=1, shape=(24, 96, 96), photons=None)
        if kind == "cells"
        else phantoms.neurite(spines=False, photons=None)
    )
    viewer = make_napari_viewer_proxy()
    stack = phantom.stack
    placement = Placement.of_stack(stack.spacing, stack.unit)
    fit = FitResult((phantom.truth,), stack.facts)
    data, keywords, _ = points_layer(fit, placement, name="saved fit")
    viewer.add_points(data, **keywords)
    panel = open_panel(viewer)
    if kind == "neurites":
        choose(panel.objects, "Neurites")
    page = getattr(panel.objects, kind)
    click(page.start)
    wait_until(lambda: page.found is not None, COMPILING)
    hidden = "cells" if kind == "cells" else "branches"
    restyle(viewer, hidden=hidden)
    before = styles(viewer)
    assert len(before) == 2
    order = [layer.name for layer in viewer.layers]
    again = reopened_at_rest(panel)
    assert getattr(again.objects, kind).found is not None
    assert styles(viewer) == before
    assert [layer.name for layer in viewer.layers] == order
    if kind == "cells":
        show_kept(again, 1)
        assert [layer.name for layer in viewer.layers] == order, "no second layer of the same"
        return
    # Lines of another trace are made anew: in their place, and as they were looked at.
    page = again.objects.neurites
    found = page.found
    page.shortest.setFocus()
    page.shortest.selectAll()
    QTest.keyClicks(page.shortest, "2")
    QTest.keyClick(page.shortest, Qt.Key.Key_Return)
    wait_until(lambda: page.found is not found, COMPILING)
    assert [layer.name for layer in viewer.layers] == order
    [lines] = [layer for layer in viewer.layers if "branches" in layer.name]
    assert (lines.visible, lines.opacity) == (False, 0.31)
