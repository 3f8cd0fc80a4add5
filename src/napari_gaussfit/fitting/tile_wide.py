"""What is wider than a tile sees: haze, found first, on a coarse copy of the whole stack.

A tile that sees a part of something wide describes it by several Gaussians, and each of its
neighbours by others. So the wide ones are fitted before all tiles, to the means of cells of voxels,
and anchored in each.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_gaussfit.fitting.fit import Fit
from napari_gaussfit.fitting.placed import Placed
from napari_gaussfit.fitting.tiles import HALO, triple
from napari_gaussfit.model.gaussians import Gaussians
from napari_gaussfit.settings import MOST_UNASKED, FitSettings
from napari_gaussfit.stacks.stack import Stack
from napari_gaussfit.stacks.statistics import SUGGESTION_VOXELS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from napari_gaussfit.fitting.tiles import Tile
    from napari_gaussfit.stacks.facts import StackFacts

    Floats = NDArray[np.float64]
    Place = tuple[int, int, int]

__all__ = ["Cells", "fit_wide", "is_wide"]

CELL = 8
"""Voxels along a side of a cell: a mean of 512 has 4 % of a voxel's noise."""

MOST_CELLS = 2**22
"""Cells at most, which a fit in one piece sees often enough, in a gigabyte of memory; of a larger
stack they are larger."""

WIDE = float(HALO)
"""Least sigma, in voxels along the finest axis, of what is called wide: three of it are more than a
tile sees beyond itself."""

WIDE_CELLS = 1.5
"""The same in cells, where those are large: narrower ones may be objects in them."""

BLOCK = 4
"""Voxels along a side of the blocks that cells are made of."""


@dataclass(frozen=True)
class Cells:
    """A stack cut into cells.

    Parameters
    ----------
    side : int
        Voxels along a side; what is left over at an end is the last cell's.
    shape : tuple of int
        Cells along z, y and x.
    """

    side: int
    shape: Place

    @classmethod
    def of(cls, shape: Place) -> Cells:
        """Cut a stack.

        Parameters
        ----------
        shape : tuple of int
            The stack's number of voxels along z, y and x.
        """
        side = CELL
        while prod(max(1, n // side) for n in shape) > MOST_CELLS:
            side *= 2
        return cls(side, triple(max(1, n // side) for n in shape))

    def sums(
        self, tile: Tile, blocks: Sequence[NDArray[np.floating[Any]]]
    ) -> dict[str, NDArray[Any]]:
        """Return what a tile's core adds to cells.

        Parameters
        ----------
        tile : Tile
            Whose box the blocks are of.
        blocks : sequence of ndarray
            Means of blocks of `BLOCK` voxels a side from the box's first on, one array a channel.

        Returns
        -------
        dict
            ``first``, the first of the cells; ``sums`` [C, z, y, x] of their blocks, and their
            number, ``counts`` [z, y, x].
        """
        sums, counts = np.stack(blocks).astype(np.float64), np.ones(blocks[0].shape)
        first = []
        for axis in range(3):
            middles = tile.low[axis] + BLOCK * np.arange(counts.shape[axis]) + (BLOCK - 1) / 2
            own = (middles > tile.first[axis] - 0.5) & (middles <= tile.end[axis] - 0.5)
            last = self.shape[axis] - 1
            cells = np.minimum((middles[own] + 0.5) // self.side, last).astype(np.int64)
            found, starts = np.unique(cells, return_index=True)
            at = np.flatnonzero(own)
            sums = np.add.reduceat(np.take(sums, at, axis + 1), starts, axis + 1)
            counts = np.add.reduceat(np.take(counts, at, axis), starts, axis)
            first.append(int(found[0]))
        return {"first": np.array(first), "sums": sums, "counts": counts}

    def means(
        self,
        parts: Sequence[Mapping[str, NDArray[Any]]],
        dark: Sequence[tuple[Tile, Sequence[float]]],
        backgrounds: Sequence[float],
    ) -> NDArray[np.float32]:
        """Return the means of all cells above those of background, of each channel [C, z, y, x].

        Parameters
        ----------
        parts : sequence of mapping
            The sums that each tile adds to its cells.
        dark : sequence of (Tile, sequence of float)
            Tiles of background, and the mean of each channel there.
        backgrounds : sequence of float
            Of each channel, for where no tile is dark.
        """
        sums, counts = np.zeros((len(backgrounds), *self.shape)), np.zeros(self.shape)
        for tile, levels in dark:
            low = [min(a // self.side, n - 1) for a, n in zip(tile.first, self.shape, strict=True)]
            high = [-(-b // self.side) for b in tile.end]
            box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
            counts[box] += 1
            sums[:, *box] += np.asarray(levels)[:, None, None, None]
        for part in parts:
            ends = part["first"] + part["counts"].shape
            box = tuple(slice(a, b) for a, b in zip(part["first"], ends, strict=True))
            counts[box] += part["counts"]
            sums[:, *box] += part["sums"]
        # The background is a mode, and of skewed noise the mean is another: without this, wide
        # Gaussians would describe the difference wherever there is nothing.
        base = np.median([levels for _, levels in dark], 0) if dark else np.asarray(backgrounds)
        levels_of = base[:, None, None, None]
        means = np.where(counts > 0, sums / np.maximum(counts, 1), levels_of) - levels_of
        found: NDArray[np.float32] = means.astype(np.float32)
        return found


def fit_wide(
    cells: Cells, means: NDArray[np.float32], settings: FitSettings, stack: StackFacts
) -> Placed:
    """Fit cells, and return what is wide.

    Parameters
    ----------
    cells : Cells
        How the stack is divided into cells of several voxels.
    means : ndarray, shape [C, z, y, x]
        The mean of each cell in each channel, above the background.
    settings : FitSettings
        Of a tile's fit.
    stack : StackFacts
        Whose spacing and unit count.
    """
    step = cells.side * np.asarray(stack.spacing)
    for axis in range(3):  # a stack has two voxels along each
        if means.shape[axis + 1] < 2:
            means = np.repeat(means, 2, axis + 1)
            step[axis] /= 2
    channels = [
        Stack.from_array(one, spacing=step.tolist(), unit=stack.unit, name="cells") for one in means
    ]
    most = settings.gaussians or MOST_UNASKED
    if settings.exactly:
        most //= 2  # of a number that tiles share the rest
    most = max(1, min(most, int(means[0].size / SUGGESTION_VOXELS)))
    # Means of so many voxels are normal, whatever the loss of these.
    coarse = replace(
        settings, background=0.0, gaussians=most, exactly=False, loss="squared", refine=False
    )
    fit = Fit(channels, coarse)
    for _ in fit:
        pass
    found = [_sharpened(one.numpy(), step) for one in fit.snapshot().fields]
    shift = (step - np.asarray(stack.spacing)) / 2
    placed = Placed.of(found, (0, 0, 0), stack.spacing)
    placed = replace(placed, means=placed.means + shift)
    return placed.select(is_wide(placed, stack.spacing, cells.side))


def is_wide(found: Placed, spacing: Sequence[float], side: int = 1) -> NDArray[np.bool_]:
    """Tell which Gaussians [K] are wider than a tile sees beyond itself.

    Along two axes at least, and half as wide along the third: of a thin stack haze is flat, while a
    neurite is narrow along two axes, and a membrane very narrow along one.

    Parameters
    ----------
    found : Placed
        The Gaussians of which each is told.
    spacing : sequence of float
        The distance between voxel centres along z, y and x, in the stack's unit.
    side : int
        Voxels of the cells that they were found in.
    """
    numbers = Gaussians(np.zeros((len(found), 3)), found.cholesky, found.amplitudes[0])
    sigmas = numbers.principal()[0] / min(spacing)
    least = max(WIDE, WIDE_CELLS * side)
    wide: NDArray[np.bool_] = (sigmas[:, 1] >= least) & (sigmas[:, 2] >= least / 2)
    return wide


def _sharpened(found: Gaussians, step: Floats) -> Gaussians:
    """Return Gaussians without what means of cells have blurred them by, as bright in all."""
    variances, axes = np.linalg.eigh(found.covariances)
    blur = np.einsum("kij,i,kij->kj", axes, step**2 / 12, axes)
    own = np.maximum(variances - blur, variances / 2)
    return Gaussians.from_covariances(
        found.means,
        np.einsum("kij,kj,klj->kil", axes, own, axes),
        found.amplitudes * np.sqrt((variances / own).prod(1)),
        unit=found.unit,
    )
