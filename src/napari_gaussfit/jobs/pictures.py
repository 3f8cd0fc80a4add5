"""Projections of the channels and of the latest fields for one chosen view, made in a thread.

Newest wins: fields and views may come faster than they can be drawn.
"""

from __future__ import annotations

import threading
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from napari_gaussfit.model.camera import Camera
    from napari_gaussfit.model.field import GaussianField
    from napari_gaussfit.model.projection import StackProjector
    from napari_gaussfit.stacks.stack import Stack

__all__ = ["MipDrawer", "MipPair", "MipThread", "ViewChoice"]

REST_PER_WORK = 25.0
"""Times as long as it drew, the thread rests: drawing costs the fit at most a twenty-fifth."""

SHORTEST_REST = 0.45
"""Seconds: pictures change less from one to the next than centres do."""

LONGEST_REST = 1.5
"""Seconds: also where the machine is busy with other things, a picture follows the fit."""

TOLERANCE = 1e-3
"""A Gaussian is left out of a picture where it adds less than this part of the largest one."""


@dataclass(frozen=True)
class ViewChoice:
    """Which way to look: along an axis (0, 1, 2), or from an orbit's angles in degrees.

    And at which channel of those that are fitted together, from 0; None is all of them.
    """

    axis: int | None = 0
    azimuth: float = 0.0
    elevation: float = 20.0
    channel: int | None = 0

    def channels(self, count: int) -> tuple[int, ...]:
        """Return which of so many channels are looked at."""
        return tuple(range(count)) if self.channel is None else (min(self.channel, count - 1),)

    def camera(self, stack: Stack) -> Camera:
        """Return the camera that sees the whole stack this way."""
        from napari_gaussfit.model.camera import axis_view, orbit_view

        if self.axis is not None:
            return axis_view(stack.shape, stack.spacing, self.axis)
        return orbit_view(stack.box, self.azimuth, self.elevation, min(stack.spacing))

    def to_dict(self) -> dict[str, Any]:
        """Return the choice as JSON types."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class MipPair:
    """The data's and the fit's projections for one view, in raw intensity.

    Parameters
    ----------
    view : ViewChoice
        Which way they look.
    pixel : tuple of float
        Size of a pixel, down and along, in the stack's unit.
    data, fit : ndarray, shape [C, H, W]
        The stack's MIP and the field's, of each channel that is looked at.
    """

    view: ViewChoice
    pixel: tuple[float, float]
    data: NDArray[np.float32]
    fit: NDArray[np.float32]


class MipDrawer:
    """Draws stacks and fields for views; what it needs of a stack it makes once.

    Parameters
    ----------
    stacks : sequence of Stack
        What is projected beside the fields: the channels, of which each has a field.
    """

    def __init__(self, stacks: Sequence[Stack]) -> None:
        self._stacks = tuple(stacks)
        self._data: tuple[ViewChoice, NDArray[np.float32]] | None = None
        self._projectors: dict[int, StackProjector] = {}

    def draw(self, fields: Sequence[GaussianField], view: ViewChoice) -> MipPair:
        """Return the projections of the stacks and of their fields."""
        camera = view.camera(self._stacks[0])
        seen = view.channels(len(self._stacks))
        fit = [self._fit_mip(fields[n], view, camera).cpu().numpy() for n in seen]
        return MipPair(view, camera.pixel, self._data_mips(view, camera), np.stack(fit))

    def close(self) -> None:
        """Do nothing: only a drawer in another process has anything to end."""

    def _fit_mip(self, field: GaussianField, view: ViewChoice, camera: Camera) -> Tensor:
        """Return the field's MIP, looked at as the stack is: at its voxels in an axis view."""
        from napari_gaussfit.model.projection import render, voxel_mip

        stack = self._stacks[0]
        if view.axis is None:
            return render(field, camera, stack.box, tolerance=TOLERANCE)
        return voxel_mip(field, stack.shape, stack.spacing, view.axis, tolerance=TOLERANCE)

    def _data_mips(self, view: ViewChoice, camera: Camera) -> NDArray[np.float32]:
        """Return the stacks' own MIPs; those of the last view are kept."""
        if self._data is None or self._data[0] != view:
            seen = view.channels(len(self._stacks))
            self._data = view, np.stack([self._projector(n).project(camera) for n in seen])
        return self._data[1]

    def _projector(self, channel: int) -> StackProjector:
        from napari_gaussfit.model.projection import StackProjector

        if channel not in self._projectors:
            self._projectors[channel] = StackProjector(self._stacks[channel])
        return self._projectors[channel]


class MipThread:
    """Draws the newest fields for the newest view, and rests in between.

    Parameters
    ----------
    stacks : sequence of Stack
        What is projected beside the fields.
    deliver : callable
        Called in the thread with each `MipPair`.
    """

    def __init__(self, stacks: Sequence[Stack], deliver: Callable[[MipPair], None]) -> None:
        self._drawer, self._deliver = MipDrawer(stacks), deliver
        self._changed = threading.Condition()
        self._fields: tuple[GaussianField, ...] = ()
        self._view = ViewChoice()
        self._fresh = self._busy = self._hurried = self._closed = False
        self._thread = threading.Thread(target=self._run, name="gaussfit-mips", daemon=True)
        self._thread.start()

    def show(self, fields: tuple[GaussianField, ...]) -> None:
        """Draw these fields, one a channel, next."""
        with self._changed:
            self._fields, self._fresh = fields, True
            self._changed.notify()

    def look(self, view: ViewChoice) -> None:
        """Draw for this view from now on."""
        with self._changed:
            if view != self._view:
                self._view, self._fresh = view, bool(self._fields)
                self._changed.notify()

    def settle(self, seconds: float) -> None:
        """Wait, so long at most, until what was shown last is drawn; nothing comes after it."""
        with self._changed:
            self._hurried = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._fresh and not self._busy, seconds)

    def close(self) -> None:
        """End the thread after what it is drawing; nothing is delivered any more."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def join(self, timeout: float) -> None:
        """Wait for the thread's end."""
        self._thread.join(timeout)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._fresh or self._closed)
                if self._closed:
                    return
                fields, view, self._fresh = self._fields, self._view, False
                self._busy = True
            began = time.perf_counter()
            pair = self._drawer.draw(fields, view)
            if not self._closed:
                self._deliver(pair)
            with self._changed:
                self._busy = False
                self._changed.notify_all()
            rest = REST_PER_WORK * (time.perf_counter() - began)
            rest = min(max(SHORTEST_REST, rest), LONGEST_REST)
            self._sleep(view, rest)

    def _sleep(self, seen: ViewChoice, seconds: float) -> None:
        """Rest, unless another view is wanted, or this is the end."""

        def wanted() -> bool:
            return self._closed or self._hurried or self._view != seen

        with self._changed:
            self._changed.wait_for(wanted, seconds)
