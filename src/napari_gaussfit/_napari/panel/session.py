"""What a viewer keeps of its fits, whatever becomes of the panel: a session, one a viewer."""

from __future__ import annotations

import atexit
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

from qtpy.compat import isalive
from qtpy.QtCore import QObject, Signal
from qtpy.QtGui import QUndoStack

from napari_gaussfit._napari.layers.unwrapped import unwrapped
from napari_gaussfit._napari.panel.result_list import ResultList
from napari_gaussfit.jobs.session_folder import SessionFolder, left_over

if TYPE_CHECKING:
    from napari.viewer import Viewer
    from qtpy.QtWidgets import QWidget

    from napari_gaussfit._napari.layers.live import LiveLayers
    from napari_gaussfit._napari.layers.live_times import LiveTimes
    from napari_gaussfit._napari.layers.source import Source
    from napari_gaussfit._napari.panel.controls import Controls
    from napari_gaussfit.jobs.versions import Choice

__all__ = ["Session", "session_of"]

MOST_UNDONE = 50
"""Steps that can be undone; each edit holds the Gaussians once more, 2 MB for 50,000."""


class Session(QObject):
    """Results of a viewer, their layers, and what can be undone.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Whose results they are.
    """

    failed = Signal(str)
    """Why a result could not be kept on disk."""

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self.results = ResultList()
        self.undo = QUndoStack(self)
        self.undo.setUndoLimit(MOST_UNDONE)
        self.folder = SessionFolder(self.failed.emit)
        self.lives: list[LiveLayers] = []
        self.recordings: list[LiveTimes] = []
        self.choice: Choice | None = None
        self.controls: Controls | None = None
        self.keeping: Any = None
        """The `Keeping` of the panel that is open."""

        self.seen: set[str] = set()
        """Layers whose fits are among the results, or not wanted there."""

        self.left = left_over()
        self._viewer = ref(viewer)
        self._hears_window = False

    def live_of(self, source: Source) -> LiveLayers | None:
        """Return the layers that follow fits of a stack, None where there are none yet."""
        for live in self.lives:
            if live.source.is_of_same_place(source):
                return live
        return None

    def end_with(self, window: QWidget) -> None:
        """End when a window is closed."""
        if not self._hears_window:
            self._hears_window = True
            window.destroyed.connect(self.end)

    def end(self, _destroyed: Any = None) -> None:
        """Forget everything: the window is closed in order."""
        for left in self.left:
            left.leave()
        self.left.clear()
        self.folder.close()
        # As Python ends, Qt's half may have gone before, and the undo stack and timers with it.
        if isalive(self):  # type: ignore[no-untyped-call]
            self.undo.clear()
            for live in (*self.lives, *self.recordings):
                live.make_no_more()
        self.lives.clear()
        self.recordings.clear()
        viewer = self._viewer()
        if viewer is not None:
            _sessions.pop(viewer, None)


_sessions: WeakKeyDictionary[Viewer, Session] = WeakKeyDictionary()


def session_of(viewer: Viewer) -> Session:
    """Return the session of a viewer, or of the proxy by which a plugin knows it."""
    known: Viewer = unwrapped(viewer)
    if known not in _sessions:
        _sessions[known] = Session(known)
    return _sessions[known]


@atexit.register
def _end_all() -> None:
    """End the sessions of windows that Python leaves open as it ends, in order."""
    for session in list(_sessions.values()):
        session.end()
