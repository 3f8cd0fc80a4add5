"""The Gaussians of a fit by tiles as Points: all of them, or of many those that are in view.

Millions of points make a window stand still; so no more than `MOST` are shown, the brightest of
what the canvas shows, and all of them as a density.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, QTimer, Signal

from napari_gaussfit._napari.layers.hidden import set_points
from napari_gaussfit._napari.layers.looking import camera_of, canvas_size
from napari_gaussfit._napari.layers.looks import move_points, remember_looks
from napari_gaussfit._napari.layers.placement import METADATA, OF
from napari_gaussfit._napari.layers.spots import AROUND, RING, SPOT
from napari_gaussfit._napari.layers.tile_density import TileDensity
from napari_gaussfit._napari.layers.times import world_units
from napari_gaussfit._napari.layers.unwrapped import is_same
from napari_gaussfit.model.gaussians import FWHM_PER_SIGMA

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari.layers import Points
    from napari.utils.events import Event
    from napari.viewer import Viewer
    from numpy.typing import NDArray

    from napari_gaussfit._napari.layers.placement import Placement

    Floats = NDArray[np.float64]

__all__ = ["MOST", "TilePoints"]

MOST = 20_000
"""Points that are shown at once: napari takes 0.1 s for them."""

SETTLE_MS = 200
"""After the last Gaussians, or the last move of the view, before points are shown."""

THICK = 2.0
"""Sigmas from the plane in view within which a Gaussian is shown there."""

COLORMAP, COLOUR_PERCENTILE = "plasma", 99.0
"""As the points of other fits are coloured."""


class TilePoints(QObject):
    """Shows Gaussians as they are found. Lives in the GUI's thread.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Where they are shown.
    placement : Placement
        Of the first voxel that is fitted.
    name : str
        What the layer of points is called.
    parent : QObject
        With it it follows the view no more.
    shape : sequence of int
        Voxels that are fitted, along z, y and x.
    rings : bool
        Whether they are drawn as rings around spots, else as discs.
    """

    shown = Signal()
    """Other points are shown."""

    def __init__(
        self,
        viewer: Viewer,
        placement: Placement,
        name: str,
        parent: QObject,
        shape: Sequence[int],
        *,
        rings: bool = False,
    ) -> None:
        super().__init__(parent)
        self._viewer, self._placement, self._name = viewer, placement, name
        self._layer: Points | None = None
        self._rings = rings
        self.density = TileDensity(viewer, placement, f"{name}, density", shape)
        self._parts: list[tuple[Floats, Floats, Floats]] = []
        self._seen, self._removed, self._counted = 0, False, False
        self._settling = QTimer(self)
        self._settling.setSingleShot(True)
        self._settling.setInterval(SETTLE_MS)
        self._settling.timeout.connect(self.show)
        events = camera_of(viewer).events
        self._heard = (
            events.zoom,
            events.center,
            viewer.dims.events.point,
            viewer.dims.events.ndisplay,
        )
        for emitter in self._heard:
            emitter.connect(self._look_again)
        viewer.layers.events.removed.connect(self._forget)

    @property
    def layer(self) -> Points | None:
        """The points, None before the first and where the user has removed them."""
        return self._layer

    @property
    def count(self) -> int:
        """All Gaussians that were found."""
        return sum(len(part[0]) for part in self._parts)

    @property
    def words(self) -> str:
        """How many are shown, where that is not all of them."""
        if self._seen == self.count:
            return ""
        return f"Shown: {self._seen:,} of {self.count:,}, the brightest in view; density: all."

    def add(self, means: Floats, sigmas: Floats, amplitudes: Floats) -> None:
        """Take Gaussians: means [K, 3] from the first voxel, sigmas and amplitudes [K]."""
        if len(means):
            positions = self._placement.in_voxels(means)
            self._parts.append((positions, sigmas, amplitudes))
            self.density.add(positions)
            self._counted = False
            if not self._settling.isActive():
                self._settling.start()

    def clear(self) -> None:
        """Take others instead, all of which are still to come."""
        self._parts = []
        self.density.clear()

    def show(self) -> None:
        """Show what there is to be seen now."""
        if self.count > MOST and not self._counted:
            self._counted = True
            self.density.show()
        if not self._parts or self._removed:
            return
        positions, sigmas, amplitudes = (
            np.concatenate([part[n] for part in self._parts]) for n in range(3)
        )
        widths = sigmas / self._placement.spacing[-1]
        if self._rings:
            widths = AROUND * FWHM_PER_SIGMA * widths
        which = self._in_view(positions, sigmas)
        if len(which) > MOST:
            which = which[np.argsort(-amplitudes[which], kind="stable")[:MOST]]
        self._seen = len(which)
        colours = _colours(amplitudes, which)
        if self._layer is None:
            self._make(positions[which], widths[which], colours)
        else:
            layer, places = self._layer, positions[which]
            looks = {"size": widths[which]} | ({} if self._rings else {"face_color": colours})
            move_points(layer, lambda: set_points(layer, places), places, **looks)
        self.shown.emit()

    def close(self) -> None:
        """Follow the view no more; the points stay."""
        self._settling.stop()
        self.density.close()
        for emitter in self._heard:
            emitter.disconnect(self._look_again)
        self._viewer.layers.events.removed.disconnect(self._forget)
        self.deleteLater()

    def _make(self, positions: Floats, widths: Floats, colours: Floats) -> None:
        look: dict[str, Any] = {"face_color": colours, "border_width": 0.0, "opacity": 0.8}
        if self._rings:
            look = {"border_color": SPOT, **RING}
        record = {METADATA: {OF: {"layer": self._name}}}
        self._layer = self._viewer.add_points(
            positions, name=self._name, size=widths, projection_mode="all", metadata=record,
            **look, **self._placement.keywords(),
        )  # fmt: skip
        remember_looks(self._layer)

    def _in_view(self, positions: Floats, sigmas: Floats) -> NDArray[np.int64]:
        """Return which points there are to be shown: all, or of many what the canvas shows."""
        layer, dims = self._layer, self._viewer.dims
        if len(positions) <= MOST or layer is None or dims.ndisplay == 3:
            return np.arange(len(positions))
        low, high = self._corners()
        inside = np.ones(len(positions), np.bool_)
        displayed = {axis - dims.ndim for axis in dims.displayed}
        for axis in (-3, -2, -1):
            at = positions[:, axis]
            margin = np.zeros(1)
            if axis not in displayed:
                # As napari has it: what lies within half a voxel, or shines into the plane.
                margin = np.maximum(THICK * sigmas / self._placement.spacing[axis], 0.5)
            inside &= (at >= low[axis] - margin) & (at <= high[axis] + margin)
        return np.flatnonzero(inside)

    def _corners(self) -> tuple[Floats, Floats]:
        """Return the corners of what the canvas shows, in voxels of the layer."""
        layer, dims, camera = self._layer, self._viewer.dims, camera_of(self._viewer)
        assert layer is not None
        half = max(canvas_size(self._viewer)) / camera.zoom / 2
        corners = np.array([dims.point, dims.point], np.float64)
        for axis, centre in zip(dims.displayed[-2:], camera.center[-2:], strict=True):
            corners[:, axis] = centre - half, centre + half
        for axis in (-3, -2, -1):
            corners[:, axis] /= world_units(layer, axis, dims)
        at = np.array([layer.world_to_data(one) for one in corners])[:, -3:]
        return at.min(0), at.max(0)

    def _look_again(self, _event: object = None) -> None:
        """Show what has come into view, once the view stands still."""
        if self.count > MOST:
            self._settling.start()

    def _forget(self, event: Event) -> None:
        if self._layer is not None and is_same(self._layer, event.value):
            self._layer, self._removed = None, True


def _colours(amplitudes: Floats, which: NDArray[np.int64]) -> Floats:
    """Return colours [K, 4] of those that are shown, on a scale that is the same for all."""
    from napari.utils.colormaps import ensure_colormap

    low, high = float(amplitudes.min()), float(np.percentile(amplitudes, COLOUR_PERCENTILE))
    scaled = np.clip((amplitudes[which] - low) / max(high - low, 1e-30), 0, 1)
    found: Any = ensure_colormap(COLORMAP).map(scaled)
    return np.asarray(found, np.float64)
