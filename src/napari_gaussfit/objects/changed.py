"""Where a stack is looked at again: the parts of it in which spots came, went or were split."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import find_objects, label

from napari_gaussfit.model.gaussians import Gaussians, factors_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Counts = NDArray[np.int64]
    Box = tuple[slice, slice, slice]

__all__ = ["Changed", "Part"]

TILE = 8
"""Voxels along a side of the boxes in which changes are kept."""

AROUND = 3.0
"""Sigmas to where a spot changes what is left."""

MOST = 0.5
"""Part of a stack that is looked at beyond which all of it is: parts overlap."""


@dataclass(frozen=True)
class Part:
    """A part of a stack.

    Parameters
    ----------
    core, wide : tuple of slice
        In which something changed, and that with what a filter there sees.
    """

    core: Box
    wide: Box

    def holds(self, places: Floats) -> NDArray[np.bool_]:
        """Tell which places [n, 3], in voxels of the stack, are of the core."""
        nearest = np.rint(places)
        first, end = ([getattr(cut, side) for cut in self.core] for side in ("start", "stop"))
        inside: NDArray[np.bool_] = np.all((nearest >= first) & (nearest < end), axis=1)
        return inside


class Changed:
    """What changed in a stack since it was looked at.

    Parameters
    ----------
    shape : tuple of int
        The number of voxels along z, y and x.
    spacing : ndarray, shape [3]
        In the unit of the spots.
    """

    def __init__(self, shape: tuple[int, int, int], spacing: Floats) -> None:
        self.shape, self.spacing = shape, spacing
        self.tiles = np.zeros([math.ceil(n / TILE) for n in shape], np.bool_)

    def at(self, gaussians: Gaussians) -> None:
        """Keep in mind that these came or went.

        Parameters
        ----------
        gaussians : Gaussians
            The spots that are asked about; any number.
        """
        half = AROUND * np.linalg.norm(factors_of(gaussians.cholesky), axis=2)
        last = np.array(self.tiles.shape) - 1
        for mean, side in zip(gaussians.means, half, strict=True):
            low, high = (
                np.clip((mean + way * side) / self.spacing // TILE, 0, last).astype(np.int64)
                for way in (-1, 1)
            )
            self.tiles[tuple(slice(a, b + 1) for a, b in zip(low, high, strict=True))] = True

    def parts(self, margins: Counts) -> list[Part]:
        """Return the parts to look at, and forget what changed.

        Parameters
        ----------
        margins : ndarray of int, shape [3]
            Voxels to the sides that filters see.

        Returns
        -------
        list of Part
            The whole stack as one where they are most of it.
        """
        labels, _ = label(self.tiles, np.ones((3, 3, 3)))
        self.tiles[:] = False
        parts = [self._part(tiles, margins) for tiles in find_objects(labels)]
        voxels = sum(math.prod(cut.stop - cut.start for cut in part.wide) for part in parts)
        z, y, x = (slice(0, n) for n in self.shape)
        return [Part((z, y, x), (z, y, x))] if voxels > MOST * math.prod(self.shape) else parts

    def _part(self, tiles: tuple[slice, ...], margins: Counts) -> Part:
        def box(margin: Counts) -> Box:
            z, y, x = (
                slice(max(cut.start * TILE - m, 0), min(cut.stop * TILE + m, n))
                for cut, m, n in zip(tiles, margin.tolist(), self.shape, strict=True)
            )
            return z, y, x

        return Part(box(np.zeros(3, np.int64)), box(margins))
