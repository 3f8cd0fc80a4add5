"""Which tasks wait for which: by places alone, and as where tiles lie has it."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import pytest
from tile_cores import met

from napari_gaussfit.fitting.tile_needs import needed_by, needs_of
from napari_gaussfit.fitting.tile_store import Stage
from napari_gaussfit.fitting.tiles import Tiling

if TYPE_CHECKING:
    from napari_gaussfit.fitting.tiles import Tile

CUTS = [((64, 48, 60), (16, 16, 16)), ((40, 70, 33), (16, 24, 40)), ((9, 9, 50), (9, 9, 11))]
LATER = (Stage.FIT, Stage.SEAMS, Stage.MEASURE, Stage.WRITE)


@pytest.fixture(params=CUTS, ids=str)
def tiling(request: pytest.FixtureRequest) -> Tiling:
    shape, core = request.param
    return Tiling.of(shape, core, (4, 4, 4))


def around(tiling: Tiling, tile: Tile) -> list[Tile]:
    """Return the tiles whose core a box meets, and those which touch them."""
    own = met(tiling, tile.first, tile.end)
    low = [min(one.first[n] for one in own) for n in range(3)]
    high = [max(one.end[n] for one in own) for n in range(3)]
    return met(tiling, low, high, beyond=1)


def test_what_lies_beside_a_seam_or_a_tile_is_read_by_whoever_works_there(tiling: Tiling) -> None:
    over, _ = tiling.over_seams()

    for tile in over.tiles():
        found = [place for stage, place in needs_of(Stage.SEAMS, tile.place, tiling, over)
                 if stage is Stage.FIT]  # fmt: skip
        assert found == [one.place for one in around(tiling, tile)]
    for tile in tiling.tiles():
        needs = [*needs_of(Stage.WRITE, tile.place, tiling, over)]
        near = around(tiling, tile)
        low = [min(one.first[n] for one in near) for n in range(3)]
        high = [max(one.end[n] for one in near) for n in range(3)]
        for stage, expected in (
            (Stage.FIT, near), (Stage.MEASURE, near), (Stage.SEAMS, met(over, low, high)),
        ):  # fmt: skip
            places = [place for one, place in needs if one is stage]
            assert places == [one.place for one in expected], stage


def test_a_task_tells_those_that_wait_for_it_and_no_others(tiling: Tiling) -> None:
    over, _ = tiling.over_seams()
    tasks = [
        (stage, tile.place)
        for stage in LATER
        for tile in (over if stage is Stage.SEAMS else tiling).tiles()
    ]
    waits = {task: set(needs_of(*task, tiling, over)) for task in tasks}

    for one, other in product(tasks, tasks):
        told = other in set(needed_by(*one, tiling, over))
        assert told == (one in waits[other]), f"{one} and {other}"
