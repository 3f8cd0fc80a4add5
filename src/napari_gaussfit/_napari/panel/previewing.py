"""Previews of the chosen stack, made in a thread; to look again at the same costs nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, Signal

from napari_gaussfit._napari.layers.destroyed import when_destroyed
from napari_gaussfit._napari.panel.preview import Preview, is_same_stack, preview_of
from napari_gaussfit.jobs.renderer import Renderer

if TYPE_CHECKING:
    from napari_gaussfit.stacks.stack import Stack

__all__ = ["Previewing"]


class Previewing(QObject):
    """Makes the preview of the stack that was looked at last."""

    made = Signal(object)
    """The `Preview` of what was looked at last; at once where it is known."""

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self._renderer = Renderer()
        self._stack: Stack | None = None
        self._asked: tuple[str, int] = "", 0
        self._preview: Preview | None = None
        when_destroyed(self, self._renderer.close)

    def look(self, stack: Stack | None, device: str = "", edition: int = 0) -> None:
        """Preview a stack, or none, with the words on a device.

        Parameters
        ----------
        stack : Stack or None
            What is looked at, made of its layer anew each time.
        device : str
            The name of the device that is chosen.
        edition : int
            Which it is of a layer whose voxels others have changed.
        """
        from napari.qt.threading import create_worker

        known = is_same_stack(stack, self._stack) and self._asked == (device, edition)
        if known:
            if self._preview is not None:
                self.made.emit(self._preview)
            return
        self._stack, self._asked, self._preview = stack, (device, edition), None
        if stack is not None:
            worker = create_worker(preview_of, stack, device, self._renderer, _start_thread=False)
            worker.returned.connect(self._take)
            worker.start()

    def close(self) -> None:
        """End the process that is asked about devices."""
        self._renderer.close()

    def _take(self, preview: Preview) -> None:
        if preview.stack is self._stack:
            self._preview = preview
            self.made.emit(preview)
