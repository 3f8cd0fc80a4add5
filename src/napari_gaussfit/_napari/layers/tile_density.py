"""How many Gaussians of a fit by tiles lie where, as an image: of millions, Points show a few."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_gaussfit._napari.layers.placement import METADATA, OF
from napari_gaussfit._napari.layers.unwrapped import is_same

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari.layers import Image
    from napari.utils.events import Event
    from napari.viewer import Viewer
    from numpy.typing import NDArray

    from napari_gaussfit._napari.layers.placement import Placement

__all__ = ["TileDensity"]

MOST_CELLS = 2**21
"""Cells of the image at most: 8 MB, which napari draws at once."""

LEAST_SIDE = 8
"""Voxels along a side of a cell at least: in smaller ones there is a Gaussian or none."""

COLORMAP, OPACITY = "inferno", 0.5


class TileDensity:
    """Counts Gaussians in cells of a stack, and shows that as a layer. Lives in the GUI's thread.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Where it is shown.
    placement : Placement
        Of the first voxel that is fitted.
    name : str
        What the layer is called.
    shape : sequence of int
        Voxels that are fitted, along z, y and x.
    """

    def __init__(
        self, viewer: Viewer, placement: Placement, name: str, shape: Sequence[int]
    ) -> None:
        self._viewer, self._placement, self._name = viewer, placement, name
        self._side = LEAST_SIDE
        while prod(-(-n // self._side) for n in shape) > MOST_CELLS:
            self._side *= 2
        self._counts = np.zeros([-(-n // self._side) for n in shape], np.float32)
        self._layer: Image | None = None
        self._removed = False
        viewer.layers.events.removed.connect(self._forget)

    @property
    def layer(self) -> Image | None:
        """The image, None before it is first shown and where the user has removed it."""
        return self._layer

    def add(self, positions: NDArray[np.float64]) -> None:
        """Count Gaussians at positions [K, 3] in voxels from the first that is fitted."""
        last = np.array(self._counts.shape) - 1
        cells = np.clip((positions + 0.5) // self._side, 0, last).astype(np.int64)
        np.add.at(self._counts, tuple(cells.T), 1.0)

    def clear(self) -> None:
        """Count anew."""
        self._counts[:] = 0

    def show(self) -> None:
        """Show the counts as they are now; once removed, the layer does not come back."""
        if self._removed:
            return
        limits = (0.0, max(1.0, float(self._counts.max())))
        if self._layer is not None:
            self._layer.data = self._counts.copy()
            self._layer.contrast_limits = limits
            return
        # A cell of two voxels or more has its centre between voxels.
        placed: dict[str, Any] = self._placement.starting_at([(self._side - 1) / 2] * 3).keywords()
        placed["scale"] = placed["scale"] * self._side
        self._layer = self._viewer.add_image(
            self._counts.copy(), name=self._name, colormap=COLORMAP, opacity=OPACITY,
            blending="additive", contrast_limits=limits,
            metadata={METADATA: {OF: {"layer": self._name}}}, **placed,
        )  # fmt: skip

    def close(self) -> None:
        """Follow the viewer no more; the layer stays."""
        self._viewer.layers.events.removed.disconnect(self._forget)

    def _forget(self, event: Event) -> None:
        if self._layer is not None and is_same(self._layer, event.value):
            self._layer, self._removed = None, True
