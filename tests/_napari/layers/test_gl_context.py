"""What a layer has on the graphics card is deleted in the context that it was drawn in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from qtpy.QtGui import QOpenGLContext
from qtpy.QtTest import QTest
from vispy.gloo import glir

if TYPE_CHECKING:
    from collections.abc import Callable

    Wait = Callable[..., None]

pytestmark = pytest.mark.gui


def test_a_layer_that_is_removed_in_3d_is_deleted_in_the_context_of_the_canvas(
    make_napari_viewer_proxy: Any, wait_until: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[QOpenGLContext | None] = []
    deleted: list[QOpenGLContext | None] = []
    draw, delete = glir.GlirProgram.draw, glir.GlirBuffer.delete

    def noted_draw(self: Any, *given: Any, **named: Any) -> Any:
        drawn.append(QOpenGLContext.currentContext())
        return draw(self, *given, **named)

    def noted_delete(self: Any) -> Any:
        deleted.append(QOpenGLContext.currentContext())
        return delete(self)

    monkeypatch.setattr(glir.GlirProgram, "draw", noted_draw)
    monkeypatch.setattr(glir.GlirBuffer, "delete", noted_delete)
    viewer = make_napari_viewer_proxy(show=True)
    viewer.window.add_plugin_dock_widget("napari-gaussfit", "Gaussian fit")
    image = np.random.default_rng(0).random((12, 40, 40)).astype(np.float32)
    for _ in range(3):
        viewer.add_image(image, name="volume")
        viewer.add_points(image[:5, 0, :3] * 10, name="points")
        viewer.dims.ndisplay = 3
        del drawn[:]
        wait_until(lambda: bool(drawn))
        QTest.qWait(50)  # The window is composed, in its own context.
        del deleted[:]
        viewer.layers.remove("volume")
        assert deleted
        assert set(deleted) == {drawn[-1]}
        QTest.qWait(50)
        viewer.layers.remove("points")
