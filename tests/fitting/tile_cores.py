"""Where cores of tiles lie, one after another: what places alone must agree with."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_gaussfit.fitting.tiles import Tile, Tiling


def met(tiling: Tiling, low: Sequence[int], high: Sequence[int], beyond: int = 0) -> list[Tile]:
    """Return the tiles whose core has a voxel in a box, or so many voxels beyond it, by place."""
    return [
        tile
        for tile in tiling.tiles()
        if all(
            first < b + beyond and end > a - beyond
            for first, end, a, b in zip(tile.first, tile.end, low, high, strict=True)
        )
    ]
