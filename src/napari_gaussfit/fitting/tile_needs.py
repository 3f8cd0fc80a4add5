"""Which tasks of a fit by tiles need which: by places alone, so that a million are soon known.

Along an axis of several tiles, tile n over a seam lies half in tile n - 1 and half in tile n.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

from napari_gaussfit.fitting.tile_store import Stage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_gaussfit.fitting.tiles import Place, Tiling

    Needs = Iterator[tuple[Stage, Place]]

__all__ = ["needed_by", "needs_of"]

OF_ALL: Place = (0, 0, 0)
"""The place of what is done but once, for all tiles."""


def needs_of(stage: Stage, place: Place, tiling: Tiling, over: Tiling) -> Needs:
    """Yield the tasks whose results a task reads, as far as there are such.

    Parameters
    ----------
    stage : Stage
        The stage of the work.
    place : tuple of int
        The tile that is worked on; of the tiles over seams in that stage.
    tiling : Tiling
        How the stack is divided into tiles.
    over : Tiling
        The tiles over the seams, which are gone over last.
    """
    if stage is Stage.LOOK:
        return
    if stage is Stage.WIDE:
        z, y, x = map(range, tiling.counts)
        yield from ((Stage.LOOK, one) for one in product(z, y, x))
        return
    yield Stage.WIDE, OF_ALL
    if stage is Stage.FIT:
        yield from ((stage, one) for one in tiling.earlier_places(place))
    elif stage is Stage.SEAMS:
        # A Gaussian lies in a core that touches that of the tile which has committed it, and
        # reaches no farther than one core.
        yield from ((Stage.FIT, one) for one in _near(place, (-2, 1), tiling, tiling))
        yield from ((stage, one) for one in over.earlier_places(place))
    else:
        yield from ((Stage.FIT, one) for one in _near(place, (-1, 1), tiling, tiling))
        yield from ((Stage.SEAMS, one) for one in _near(place, (-1, 2), tiling, over))
        if stage is Stage.WRITE:
            yield from ((Stage.MEASURE, one) for one in _near(place, (-1, 1), tiling, tiling))


def needed_by(stage: Stage, place: Place, tiling: Tiling, over: Tiling) -> Needs:
    """Yield the tasks that need the result of one, of those after the looks and what is wide.

    Parameters
    ----------
    stage, place : Stage, tuple of int
        Stage and place of the task.
    tiling, over : Tiling
        The tiles of the stack, and those over seams.
    """
    if stage is Stage.FIT:
        yield from ((stage, one) for one in tiling.later_places(place))
        yield from ((Stage.SEAMS, one) for one in _near(place, (-1, 2), tiling, over))
    elif stage is Stage.SEAMS:
        yield from ((stage, one) for one in over.later_places(place))
    if stage in {Stage.FIT, Stage.SEAMS}:
        span = (-1, 1) if stage is Stage.FIT else (-2, 1)
        for one in _near(place, span, tiling, tiling):
            yield Stage.MEASURE, one
            yield Stage.WRITE, one
    elif stage is Stage.MEASURE:
        yield from ((Stage.WRITE, one) for one in _near(place, (-1, 1), tiling, tiling))


def _near(place: Place, span: tuple[int, int], tiling: Tiling, of: Tiling) -> Iterator[Place]:
    """Yield the places of a tiling from so many before one to so many after it, along each axis."""
    z, y, x = (
        range(max(0, n + span[0]), min(count, n + span[1] + 1)) if several > 1 else range(1)
        for n, several, count in zip(place, tiling.counts, of.counts, strict=True)
    )
    yield from product(z, y, x)
