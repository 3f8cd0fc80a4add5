"""Layers are taken off the canvas while its own OpenGL context is current.

napari 0.9 has vispy delete the buffers and textures of a removed layer at once, in whatever context
is current. Between two paintings that is the window's: it knows the same names, but not that the
canvas still has them bound, and the next painting reads what is gone. Mesa ends the process there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtOpenGLWidgets import QOpenGLWidget

if TYPE_CHECKING:
    import napari
    from qtpy.QtWidgets import QWidget

__all__ = ["CanvasContext"]


class CanvasContext:
    """Makes the context of a viewer's canvas current whenever a layer is about to be removed.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Whose layers are watched until `close`.
    inside : QWidget
        Any widget of the viewer's window.
    """

    def __init__(self, viewer: napari.viewer.Viewer, inside: QWidget) -> None:
        self._viewer, self._inside = viewer, inside
        viewer.layers.events.removing.connect(self._make_current)

    def close(self) -> None:
        """Watch the viewer no more."""
        self._viewer.layers.events.removing.disconnect(self._make_current)

    def _make_current(self, _event: object = None) -> None:
        window = self._inside
        while (above := window.parentWidget()) is not None:
            window = above
        for canvas in window.findChildren(QOpenGLWidget):
            canvas.makeCurrent()
