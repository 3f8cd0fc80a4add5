"""Fits by tiles: voxels beside seams against the same inside, workers, and tiles of background."""

from __future__ import annotations

import math
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from benchmarks.large_stacks import Sparse, assemble
from benchmarks.stacks import DENDRITE, data_folder
from benchmarks.tables import Cell, Table
from benchmarks.tile_workers import Run, piece_of, settings_of, workers_table
from napari_gaussfit import LazyStack, Stack, fit, fit_tiles, load
from napari_gaussfit.fitting.tiles import Tiling, default_halo

if TYPE_CHECKING:
    from benchmarks.options import Options

    Shape = tuple[int, int, int]

SEAMS: Shape = (96, 288, 288)
GIGABYTE: Shape = (512, 1024, 1024)
TEN_GIGABYTES: Shape = (1024, 2240, 2240)
PARTS = 5
"""Tiles of the large stack whose cores are fitted alone."""

COPIES = 12
"""Pieces in the largest stack."""


def measure(options: Options) -> list[Table]:
    """Seams, workers and background."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        return [_seams(options, folder), *_workers(options, folder), _background(options, folder)]


def _seams(options: Options, folder: Path) -> Table:
    """Cut the same stack twice: what lies beside seams of the one lies inside in the other."""
    names = options.pick(["neurite", "nuclei"], ["neurite"])
    if not options.small and (data_folder() / DENDRITE.path).is_file():
        names.append("dendrite")
    rows: list[tuple[Cell, ...]] = []
    for name in names:
        path = folder / f"{name}.ome.zarr"
        assemble(path, piece_of(name, options), options.pick(SEAMS, (24, 64, 64)))
        stack = LazyStack.open(path)
        halo = default_halo(stack.spacing)
        cuts = [_even(stack.shape, n) for n in options.pick((2, 3), (1, 2))]
        tilings = [Tiling.of(stack.shape, cut, halo) for cut in cuts]
        at = np.indices(stack.shape).reshape(3, -1).T.astype(np.float64)
        distances = [tiling.seam_distances(at).reshape(stack.shape) for tiling in tilings]
        beside = (distances[1] <= 0.5) & (distances[0] >= 1)
        found, counts = [], []
        voxels = stack.read((0, 0, 0), stack.shape)
        for n, cut in enumerate(cuts):
            out = folder / f"{name}-{n}"
            counts.append(fit_tiles(stack, out, settings_of(options), tile=cut).gaussians)
            error = load(out).voxelise() - voxels
            found.append(10 * math.log10(float(np.ptp(voxels)) ** 2 / _mean_square(error[beside])))
        rows.append((name, voxels.size, counts[1], found[1], found[0], found[1] - found[0]))
    return Table(
        "Voxels beside seams of tiles, and the same inside of tiles",
        ("stack", "voxels", "Gaussians", "beside seams, dB", "inside, dB", "difference, dB"),
        tuple(rows),
        ("Within half a halo of a seam of one cut, and a halo or more from any of the other.",),
    )


def _even(shape: Shape, parts: int) -> Shape:
    z, y, x = (max(2, -(-n // parts)) for n in shape)
    return (shape[0] if shape[0] < 64 else z), y, x


def _mean_square(error: np.ndarray[Any, Any]) -> float:
    return float(np.square(error, dtype=np.float64).mean())


def _workers(options: Options, folder: Path) -> list[Table]:
    path = folder / "workers.ome.zarr"
    shape, tile = options.pick((GIGABYTE, (128, 128, 128)), ((24, 64, 64), (24, 32, 32)))
    assemble(path, piece_of("neurite", options), shape)
    workers = workers_table(path, folder, options, tile, options.pick((1, 2), (1,)))
    return [workers, _alone(path, folder / "by-1", options)]


def _alone(path: Path, out: Path, options: Options) -> Table:
    """Fit the cores of some tiles as stacks of their own."""
    stack, fitted = LazyStack.open(path), load(out)
    tiles = pd.read_parquet(out / "tiles.parquet")
    tiles = tiles[tiles["status"] == "done"]
    value_range = float(tiles["highest"].max() - tiles["lowest"].min())
    rows: list[tuple[Cell, ...]] = []
    for n in np.linspace(0, len(tiles) - 1, min(len(tiles), PARTS)).astype(int):
        row = tiles.iloc[n]
        first, end = (
            (int(row[f"{corner}_z"]), int(row[f"{corner}_y"]), int(row[f"{corner}_x"]))
            for corner in ("first", "end")
        )
        part = Stack.from_array(stack.read(first, end), spacing=stack.spacing, name=row["tile"])
        background = fitted.field.background
        alone = fit(part, settings_of(options), background=background, measure=False)
        errors = (
            row["squared_error"] / row["voxels"], _mean_square(alone.voxelise() - part.voxels)
        )  # fmt: skip
        by_tiles, by_itself = (10 * math.log10(value_range**2 / error) for error in errors)
        counts = int(row["gaussians"]), len(alone.field)
        rows.append((row["tile"], *counts, by_tiles, by_itself, by_tiles - by_itself))
    return Table(
        "Tiles, and their cores fitted as stacks of their own",
        ("tile", "Gaussians", "alone", "voxels, dB", "alone, dB", "difference, dB"),
        tuple(rows),
    )


class _Dark:
    """Noise, whose boxes are parts of one that is in memory: reading them takes nothing."""

    dtype = np.dtype(np.uint16)

    def __init__(self, shape: Shape, tile: Shape) -> None:
        self.shape = shape
        self._box = np.random.default_rng(0).poisson(100, [2 * n for n in tile]).astype(self.dtype)

    def __getitem__(self, box: tuple[slice, ...]) -> np.ndarray[Any, Any]:
        return self._box[tuple(slice(0, part.stop - part.start) for part in box)]


def _skipped(options: Options, folder: Path) -> float:
    """Seconds of this process for a tile that is skipped, with all that is done for it.

    From two stacks, so that what is done once for a stack does not count.
    """
    side = options.pick(128, 24)
    tile, found = (side, side, side), []
    for count in options.pick((4, 8), (2, 3)):
        shape = (count * side, count * side, count * side)
        stack = LazyStack.from_array(_Dark(shape, tile), spacing=(0.1, 0.1, 0.1), name="dark")
        began = time.process_time()
        report = fit_tiles(stack, folder / f"skipped-{count}", settings_of(options), tile=tile)
        found.append((report.background_tiles, time.process_time() - began))
    (few, less), (many, more) = found
    return (more - less) / (many - few)


def _background(options: Options, folder: Path) -> Table:
    """A stack that is nowhere stored: whatever memory grows by is the program's."""
    shape, tile = options.pick((TEN_GIGABYTES, (128, 128, 128)), ((24, 64, 160), (24, 32, 32)))
    piece = piece_of("neurite", options)
    sparse = Sparse(shape, piece, options.pick(COPIES, 1), seed=3)
    stack = LazyStack.from_array(sparse, spacing=piece.spacing, name="sparse")
    run = Run.of(stack, folder / "dark", settings_of(options), tile, 0)
    dark, fitted = run.of_stage("look", "background"), run.of_stage("fit", "done")
    looks = [line["memory"] / 1e9 for line in run.lines if line["stage"] == "look"]
    row = (
        math.prod(shape), len(fitted), len(dark), 1e3 * _skipped(options, folder), run.seconds,
        max(looks[: max(1, len(looks) // 10)]), max(looks), run.memory / 1e9,
    )  # fmt: skip
    return Table(
        "A stack that is mostly background",
        (
            "voxels",
            "tiles fitted",
            "background",
            "ms of a core each, reading aside",
            "s in all",
            "GB after a tenth of the looks",
            "after all of them",
            "in all",
        ),
        (row,),
    )
