"""Tiles of a stack: where they lie, what each sees, and which must wait for which.

Each tile has a core, which is its own, and a box around it, the core and a halo, which is what it
sees. Tiles that touch have different colours; those of one colour may be fitted at once, and each
waits for the neighbours of earlier colours. Knows neither voxels nor Gaussians.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, product
from math import ceil
from typing import TYPE_CHECKING

import numpy as np

from napari_gaussfit.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    Place = tuple[int, int, int]
    Edges = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]

__all__ = ["HALO", "Tile", "Tiling", "default_core", "default_halo", "triple"]

CORE = 128
"""Voxels along a side of a core where the spacing is finest: with its halo, 3.5 million voxels,
whose fit takes 0.7 GB of memory beside what a process has."""

HALO = 12
"""Voxels that a tile sees beyond its core where the spacing is finest: three sigmas of a Gaussian
of 4, the widest that a local maximum is taken for."""

LEAST_HALO = 3
"""Voxels that a tile sees beyond its core at least, however coarse the spacing along an axis."""


@dataclass(frozen=True, order=True)
class Tile:
    """A core and the box around it, in voxels; all are (z, y, x), and ends lie behind the last.

    Parameters
    ----------
    place : tuple of int
        Which tile it is along each axis, from 0.
    first, end : tuple of int
        The first voxel of the core, and the one after its last, along z, y, x.
    low, high : tuple of int
        Its box: the core and the halo, as far as there are voxels.
    """

    place: Place
    first: Place
    end: Place
    low: Place
    high: Place

    @property
    def colour(self) -> int:
        """From 0 to 7: tiles that touch, if only at a corner, have different ones."""
        return colour_of(self.place)

    @property
    def core_in_box(self) -> tuple[slice, ...]:
        """Where the core lies in the box."""
        corners = zip(self.first, self.end, self.low, strict=True)
        return tuple(slice(a - c, b - c) for a, b, c in corners)

    @property
    def name(self) -> str:
        """The place as a part of a file's name."""
        return "-".join(f"{n:04d}" for n in self.place)


@dataclass(frozen=True)
class Tiling:
    """A stack cut into tiles.

    Parameters
    ----------
    edges : tuple of tuple of int
        Along each axis, where cores begin, and the end of the last.
    halo : tuple of int
        Voxels along each axis that a tile sees beyond its core.
    """

    edges: Edges
    halo: Place

    @classmethod
    def of(cls, shape: Place, core: Sequence[int], halo: Sequence[int]) -> Tiling:
        """Cut a stack into even cores, none larger than asked for.

        Parameters
        ----------
        shape : tuple of int
            Voxels of the stack.
        core : sequence of int
            Voxels of a core at most.
        halo : sequence of int
            Voxels that a tile sees beyond it.

        Raises
        ------
        SettingsError
            If a core would be smaller than two halos, so that tiles which do not touch would see
            each other.
        """
        edges = []
        for axis, size, most, beyond in zip("zyx", shape, core, halo, strict=True):
            count = ceil(size / most)
            cut = np.linspace(0, size, count + 1).round().astype(int).tolist()
            least = min(np.diff(cut))
            if count > 1 and least < 2 * beyond:
                raise SettingsError(
                    f"tile: {most} voxels along {axis} make tiles of {least}; expected at least "
                    f"{2 * beyond}, twice what a tile sees beyond itself; give larger ones (--tile)"
                )
            edges.append(tuple(cut))
        z, y, x = (int(n) for n in halo)
        return cls((edges[0], edges[1], edges[2]), (z, y, x))

    @cached_property
    def counts(self) -> Place:
        """The number of tiles along each axis."""
        z, y, x = (len(cut) - 1 for cut in self.edges)
        return z, y, x

    @property
    def shape(self) -> Place:
        """Voxels of the stack."""
        z, y, x = (cut[-1] for cut in self.edges)
        return z, y, x

    def __len__(self) -> int:
        """Return the number of tiles."""
        return int(np.prod(self.counts))

    def tile(self, place: Place) -> Tile:
        """Return the tile at a place.

        Parameters
        ----------
        place : tuple of int
            Along each axis, from 0.
        """
        first = tuple(cut[n] for cut, n in zip(self.edges, place, strict=True))
        end = tuple(cut[n + 1] for cut, n in zip(self.edges, place, strict=True))
        low = tuple(max(0, a - h) for a, h in zip(first, self.halo, strict=True))
        high = tuple(min(n, b + h) for n, b, h in zip(self.shape, end, self.halo, strict=True))
        return Tile(place, triple(first), triple(end), triple(low), triple(high))

    def tiles(self) -> Iterator[Tile]:
        """Yield all tiles by place, the last axis fastest."""
        for place in product(*map(range, self.counts)):
            yield self.tile(triple(place))

    def _touching(self, place: Place) -> Iterator[Place]:
        ranges = [
            range(max(0, n - 1), min(count, n + 2))
            for n, count in zip(place, self.counts, strict=True)
        ]
        for z, y, x in product(*ranges):
            if (z, y, x) != place:
                yield z, y, x

    def earlier_places(self, place: Place) -> list[Place]:
        """Return the places of the tiles that touch one and are fitted before it.

        Parameters
        ----------
        place : tuple of int
            Of a tile of this tiling.
        """
        own = colour_of(place)
        return [other for other in self._touching(place) if colour_of(other) < own]

    def later_places(self, place: Place) -> list[Place]:
        """Return the places of the tiles that touch one and are fitted after it.

        Parameters
        ----------
        place : tuple of int
            Of a tile of this tiling.
        """
        own = colour_of(place)
        return [other for other in self._touching(place) if colour_of(other) > own]

    def places_of(self, voxels: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the place of the tile in whose core each point lies.

        Parameters
        ----------
        voxels : ndarray, shape [K, 3]
            Positions (z, y, x) in voxels; one on the edge of a voxel counts for the next.

        Returns
        -------
        ndarray of int, shape [K, 3]
            Of points outside of the stack, the nearest tile.
        """
        nearest = np.floor(voxels + 0.5)
        places = np.empty(voxels.shape, np.int64)
        for axis, (cut, count) in enumerate(zip(self.edges, self.counts, strict=True)):
            found = np.searchsorted(cut, nearest[:, axis], side="right") - 1
            places[:, axis] = np.clip(found, 0, count - 1)
        return places

    def committed(self, tile: Tile, voxels: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Tell which of the points that a tile has found it commits.

        What lies in its core, and what it has found, within half a halo, where an earlier neighbour
        has left something. What lies in the core of a later one is that one's to find. So a thing
        on a seam, whichever side each of the two thinks that it is on, is committed once.

        Parameters
        ----------
        tile : Tile
            A tile of this tiling.
        voxels : ndarray, shape [K, 3]
            Positions (z, y, x) in voxels of the stack.

        Returns
        -------
        ndarray of bool, shape [K]
            Those that it commits.
        """
        later = set(self.later_places(tile.place))
        places = map(tuple, self.places_of(voxels).tolist())
        others = np.array([place in later for place in places], np.bool_)
        margin = np.asarray(self.halo) / 2
        near = (voxels >= tile.first - margin - 0.5) & (voxels <= tile.end + margin - 0.5)
        mine: NDArray[np.bool_] = ~others & near.all(1)
        return mine

    def seam_distances(self, voxels: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return how far points are from the nearest seam, in halos along the seam's axis.

        Parameters
        ----------
        voxels : ndarray, shape [K, 3]
            Positions (z, y, x) in voxels.

        Returns
        -------
        ndarray, shape [K]
            Infinite where there is no seam.
        """
        nearest = np.full(len(voxels), np.inf)
        for axis, (cut, beyond) in enumerate(zip(self.edges, self.halo, strict=True)):
            for seam in cut[1:-1]:
                # Between two voxels, the seam lies half a voxel before the second one's centre.
                distance = np.abs(voxels[:, axis] - (seam - 0.5)) / beyond
                nearest = np.minimum(nearest, distance)
        return nearest

    def over_seams(self) -> tuple[Tiling, list[Tile]]:
        """Return tiles that have these tiles' seams in their middle, and those with a seam at all.

        Returns
        -------
        tiling : Tiling
            Cut in the middles of these cores.
        tiles : list of Tile
            By place; none where there is but one tile.
        """
        edges, crossed = [], []
        for cut in self.edges:
            middles = [(a + b) // 2 for a, b in pairwise(cut)]
            edges.append((cut[0], *middles, cut[-1]) if len(middles) > 1 else cut)
            # The first and the last part of an axis end before its first, or after its last seam.
            crossed.append({*range(1, len(middles))})
        tiling = Tiling((edges[0], edges[1], edges[2]), self.halo)
        found = [
            tile
            for tile in tiling.tiles()
            if any(n in seams for n, seams in zip(tile.place, crossed, strict=True))
        ]
        return tiling, found


def default_core(spacing: Sequence[float]) -> Place:
    """Return the voxels of a core where none are asked for: as long along all axes.

    Parameters
    ----------
    spacing : sequence of float
        The distance between voxel centres along z, y and x, in the stack's unit.
    """
    finest = min(spacing)
    return triple(max(2 * LEAST_HALO, _covering(CORE, step / finest)) for step in spacing)


def default_halo(spacing: Sequence[float]) -> Place:
    """Return the voxels that a tile sees beyond its core.

    Parameters
    ----------
    spacing : sequence of float
        The distance between voxel centres along z, y and x, in the stack's unit.
    """
    finest = min(spacing)
    return triple(max(LEAST_HALO, _covering(HALO, step / finest)) for step in spacing)


def _covering(length: float, step: float) -> int:
    """Return the fewest steps that are as long, rounding of the division aside."""
    return ceil(length / step - 1e-6)


def colour_of(place: Place) -> int:
    """Return the colour of the tile at a place."""
    z, y, x = place
    return 4 * (z % 2) + 2 * (y % 2) + x % 2


def triple(values: Iterable[int]) -> Place:
    """Return three whole numbers as such."""
    z, y, x = (int(n) for n in values)
    return z, y, x
