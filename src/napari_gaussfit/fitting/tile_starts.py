"""Where fits of tiles are told to begin: points, or another fit of the same stack.

A tile begins with what lies in its own core, and sees what lies in those of later neighbours; what
lies in those of earlier ones has been committed, and is anchored.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_gaussfit.errors import SettingsError
from napari_gaussfit.fitting.placed import Placed
from napari_gaussfit.fitting.starting import checked_points
from napari_gaussfit.fitting.tile_store import digest_of
from napari_gaussfit.fitting.tile_wide import is_wide
from napari_gaussfit.formats.registry import fit_path
from napari_gaussfit.formats.tiled import INDEX_NAME, TILES_NAME, holds_tiles, read_region
from napari_gaussfit.stacks.stack import Stack

if TYPE_CHECKING:
    import os

    from numpy.typing import ArrayLike, NDArray

    from napari_gaussfit.fitting.result import FitResult
    from napari_gaussfit.fitting.tiles import Tile, Tiling
    from napari_gaussfit.stacks.facts import StackFacts

    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]

__all__ = ["TileStart"]


@dataclass(frozen=True, eq=False)
class TileStart:
    """Points or a fit that fits of tiles begin with; or neither.

    Parameters
    ----------
    points : ndarray, shape [P, 3], or None
        z, y, x in the stack's unit.
    fit : Path or None
        A fit's file, or the folder of one by tiles.
    """

    points: Floats | None = None
    fit: Path | None = None

    @classmethod
    def of(
        cls,
        points: ArrayLike | None,
        fit: str | os.PathLike[str] | None,
        stack: StackFacts,
        channels: int,
    ) -> TileStart:
        """Return what was given, which must be of the stack.

        Parameters
        ----------
        points : array-like, shape [P, 3], or None
            z, y, x in the stack's unit.
        fit : path-like or None
            A fit's file or folder.
        stack : StackFacts
            Name, size and place of the stack that is fitted.
        channels : int
            How many channels the stack has.

        Raises
        ------
        SettingsError
            If they are of another stack.
        """
        known = None
        if points is not None:
            # A point is checked against the box of the whole stack, which needs no voxels.
            nothing = np.broadcast_to(np.float32(0), stack.shape)
            known = checked_points(points, Stack(nothing, stack.spacing, stack.unit, stack.name))
        if fit is None:
            return cls(known)
        path = Path(fit) if holds_tiles(fit) else fit_path(fit)
        found, fields = _facts(path)
        for what, other, own in (
            ("shape", found.shape, stack.shape),
            ("spacing", found.spacing, stack.spacing),
            ("unit", found.unit, stack.unit),
            ("number of channels", fields, channels),
        ):
            if other != own:
                raise SettingsError(
                    f"start={path}: is the fit of a stack of {what} {other}, this one's is {own}; "
                    "give a fit of this stack, or of one like it"
                )
        return cls(known, path)

    @property
    def digest(self) -> str:
        """What a result depends on; empty of neither."""
        files: list[str] = []
        if self.fit is not None:
            names = (INDEX_NAME, TILES_NAME) if self.fit.is_dir() else ("",)
            files = [digest_of([(self.fit / name).read_bytes().hex()]) for name in names]
        points = None if self.points is None else self.points.tolist()
        return digest_of([points, files]) if points is not None or files else ""

    def points_of(self, tile: Tile, tiling: Tiling, stack: StackFacts) -> tuple[Floats, Bools]:
        """Return the points that a tile begins with.

        Parameters
        ----------
        tile : Tile
            One of the tiling's.
        tiling : Tiling
            How the stack is divided into tiles.
        stack : StackFacts
            Of which spacing and name count.

        Returns
        -------
        points : ndarray, shape [P, 3]
            Positions from the first voxel of the tile's box.
        own : ndarray of bool, shape [P]
            Those in its core.
        """
        assert self.points is not None
        step = np.asarray(stack.spacing)
        voxels = self.points / step
        low, high = np.asarray(tile.low), np.asarray(tile.high)
        seen = ((voxels >= low - 0.5) & (voxels <= high - 0.5)).all(1)
        own, later = _owned(tile, tiling, voxels)
        which = seen & (own | later)
        return self.points[which] - low * step, own[which]

    def gaussians_of(self, tile: Tile, tiling: Tiling, stack: StackFacts) -> tuple[Placed, Bools]:
        """Return the Gaussians that a tile begins with.

        Parameters
        ----------
        tile : Tile
            One of the tiling's.
        tiling : Tiling
            How the stack is divided into tiles.
        stack : StackFacts
            Of which spacing counts.

        Returns
        -------
        found : Placed
            Those which reach into its box, but for those of earlier neighbours.
        own : ndarray of bool, shape [K]
            Those in its core.
        """
        assert self.fit is not None
        if self.fit.is_dir():
            fields = read_region(self.fit, (tile.low, tile.high), wide=False)["fields"]
            found = Placed.of(fields, tile.low, stack.spacing)
        else:
            found = Placed.of(_loaded(self.fit).fields, (0, 0, 0), stack.spacing)
            found = found.select(~is_wide(found, stack.spacing))
        found = found.select(found.reaching(tile.low, tile.high, stack.spacing))
        own, later = _owned(tile, tiling, found.means / np.asarray(stack.spacing))
        return found.select(own | later), own[own | later]

    def wide(self, stack: StackFacts) -> Placed:
        """Return the Gaussians that are wider than tiles see, which stay as they are.

        Parameters
        ----------
        stack : StackFacts
            Of which spacing counts.
        """
        assert self.fit is not None
        if self.fit.is_dir():
            return Placed.of(read_region(self.fit, wide=True)["fields"], (0, 0, 0), stack.spacing)
        found = Placed.of(_loaded(self.fit).fields, (0, 0, 0), stack.spacing)
        return found.select(is_wide(found, stack.spacing))


def _owned(tile: Tile, tiling: Tiling, voxels: Floats) -> tuple[Bools, Bools]:
    """Return which places are in a tile's core, and which in that of no earlier neighbour."""
    places = tiling.places_of(voxels)
    own: Bools = (places == tile.place).all(1)
    earlier = set(tiling.earlier_places(tile.place))
    later = np.array([tuple(place) not in earlier for place in places.tolist()], np.bool_)
    return own, later & ~own


def _facts(path: Path) -> tuple[StackFacts, int]:
    """Return the stack that a fit is of, and its channels."""
    if path.is_dir():
        one = read_region(path, ((0, 0, 0), (2, 2, 2)))
        from napari_gaussfit.formats.tiled import read_index

        return read_index(path)[0], len(one["fields"])
    result = _loaded(path)
    return result.stack, len(result.fields)


@lru_cache(maxsize=1)
def _loaded(path: Path) -> FitResult:
    from napari_gaussfit.fitting.result import load

    found: Any = load(path)
    result: FitResult = found
    return result
