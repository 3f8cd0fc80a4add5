"""Large stacks of the benchmarks: put together by layers, and what others like them would take."""

from __future__ import annotations

import importlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_gaussfit import LazyStack

if TYPE_CHECKING:
    from pathlib import Path

SHAPE = (30, 70, 90)


@pytest.fixture
def stacks(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module, which is no part of the installed package."""
    monkeypatch.syspath_prepend(str(checkout))
    return importlib.import_module("benchmarks.large_stacks")


@pytest.fixture
def piece(stacks: Any) -> Any:
    voxels = np.zeros((8, 12, 10))
    voxels[2:5, 4:7, 3:6] = 500
    return stacks.Piece(voxels + 100, (0.3, 0.1, 0.1), 100.0, 0.0)


def test_each_cell_holds_a_copy_somewhere_in_it(stacks: Any, piece: Any, tmp_path: Path) -> None:
    stacks.assemble(tmp_path / "a.ome.zarr", piece, SHAPE)

    stack = LazyStack.open(tmp_path / "a.ome.zarr")
    assert (stack.shape, stack.spacing) == (SHAPE, piece.spacing)
    voxels = stack.read((0, 0, 0), SHAPE)
    cell = np.add(piece.voxels.shape, stacks.JITTER)
    whole = np.floor_divide(SHAPE, cell)
    places = set()
    for n in np.ndindex(*whole):
        first = np.multiply(n, cell)
        part = voxels[tuple(slice(a, a + side) for a, side in zip(first, cell, strict=True))]
        assert np.count_nonzero(part == 600) == 27
        assert np.count_nonzero(part == 100) == part.size - 27
        places.add(tuple(np.argwhere(part == 600)[0]))
    assert len(places) > 5, "jittered"


def test_a_share_of_the_cells_is_empty_and_the_same_each_time(
    stacks: Any, piece: Any, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        stacks.assemble(tmp_path / f"{name}.ome.zarr", piece, SHAPE, share=0.3, seed=1)

    first, second = (
        LazyStack.open(tmp_path / f"{name}.ome.zarr").read((0, 0, 0), SHAPE) for name in "ab"
    )
    assert np.array_equal(first, second)
    copies = np.count_nonzero(first == 600) / 27
    assert 0 < copies < 0.6 * np.prod(np.divide(SHAPE, np.add(piece.voxels.shape, stacks.JITTER)))


def test_costs_of_another_size_go_by_tiles_and_cores(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(str(checkout))
    tiles = {"edges": [[0, 10], [0, 10], [0, 10, 20]]}
    plan = {"tiles": tiles, "stack": [{"shape": [10, 10, 20]}], "dtype": ["uint16"]}
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    common = {"read_seconds": 0.5, "memory": 2e9}
    lines = [
        {"stage": "fit", "status": "done", "seconds": 7.0} | common,
        {"stage": "look", "status": "background", "seconds": 0.004} | common,
        {"stage": "write", "status": "done", "seconds": 1.0} | common,
    ]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    costs = importlib.import_module("benchmarks.tile_costs").Costs.of(tmp_path)

    assert (costs.fitted, costs.background, costs.share) == (8.0, 0.004, 0.5)
    name, cores, count, hours, memory, _ = costs.row("2 MB", 2e6, 4)
    assert (name, cores, count) == ("2 MB", 4, 1000)
    assert hours == pytest.approx(1000 * (4.0 + 0.002 + 0.75) / 3600 / 4)
    assert memory == pytest.approx(8.0)
