"""What the panel tells of a stack before it is fitted is found out once, and then left alone."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

from by_hand import add_stack
from napari_gaussfit._napari.panel import previewing
from napari_gaussfit._napari.panel.how_many import DEFAULT
from napari_gaussfit._napari.panel.preview import preview_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_gaussfit.synthetic.phantoms import Phantom

    Wait = Callable[..., None]

pytestmark = [pytest.mark.gui, pytest.mark.usefixtures("nothing_left_behind")]

COMPILING = 240.0
LONGER_THAN_SETTLING_MS = 800


@pytest.fixture
def previewed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The devices for which stacks were previewed, one after another."""
    devices: list[str] = []

    def noted(stack: Any, device: str, renderer: Any) -> Any:
        devices.append(device)
        return preview_of(stack, device, renderer)

    monkeypatch.setattr(previewing, "preview_of", noted)
    return devices


@pytest.fixture
def panel(
    make_napari_viewer_proxy: Any, small_beads: Phantom, previewed: list[str], wait_until: Wait
) -> Any:
    """A panel beside six beads, of which it has told all that there is."""
    viewer = make_napari_viewer_proxy()
    stack = small_beads.stack  # which is all tests', and one of these changes voxels
    add_stack(viewer, replace(stack, voxels=stack.voxels.copy()))
    _, panel = viewer.window.add_plugin_dock_widget("napari-gaussfit", "Gaussian fit")
    wait_until(lambda: previewed == ["auto"] and panel.model._suggested is not None)
    QTest.qWait(LONGER_THAN_SETTLING_MS)  # What the first preview has changed is looked at too.
    return panel


def test_a_panel_at_rest_looks_at_its_stack_no_more(
    panel: Any, previewed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[object] = []
    source = panel.data.source
    monkeypatch.setattr(panel.data, "source", lambda: (looks.append(None), source())[1])
    QTest.qWait(LONGER_THAN_SETTLING_MS)
    assert not looks
    assert len(previewed) == 1


def test_a_setting_that_says_nothing_of_the_stack_has_it_previewed_no_second_time(
    panel: Any, previewed: list[str]
) -> None:
    panel.model._exactly.setChecked(True)
    QTest.qWait(LONGER_THAN_SETTLING_MS)
    assert "Suggested for this stack" in panel.model._facts.text()
    assert len(previewed) == 1
    panel.model._choices["device"].value = "cpu"
    QTest.qWait(LONGER_THAN_SETTLING_MS)
    assert previewed == ["auto", "cpu"]


def test_other_voxels_in_the_same_array_are_previewed(
    panel: Any, previewed: list[str], wait_until: Wait
) -> None:
    layer = panel.data.layer
    layer.data[:] = layer.data[::-1].copy()
    layer.data = layer.data
    wait_until(lambda: len(previewed) == 2)


def test_how_many_it_would_be_is_answered_while_other_settings_change(
    panel: Any, wait_until: Wait
) -> None:
    asked = panel.model.how_many
    QTest.mouseClick(asked.button, Qt.MouseButton.LeftButton)
    assert not asked.button.isEnabled()
    panel.model._exactly.setChecked(True)
    wait_until(asked.button.isEnabled, COMPILING)
    assert asked.words.text().startswith("Unless you say so, as many as the noise allows: about")
    QTest.qWait(LONGER_THAN_SETTLING_MS)
    assert asked.words.text() != DEFAULT
