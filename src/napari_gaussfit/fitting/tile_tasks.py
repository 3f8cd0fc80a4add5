"""The tasks of a fit by tiles: what each needs, does, and leaves as a file.

Stages, one after the other: every tile is looked at for light; what is wider than a tile sees is
fitted; every tile that holds light is; Gaussians beside seams are moved once more; those that stand
for themselves are measured; every tile's part of the result is written. A task may run in any
process that can read the stack and the folder. Its result depends on what is in its key, and on
nothing else.
"""

from __future__ import annotations

import math
import os
import platform
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_gaussfit.fitting.placed import Placed
from napari_gaussfit.fitting.tile_measures import Measured, arrays_of, known_of
from napari_gaussfit.fitting.tile_store import Outcome, Stage, Status
from napari_gaussfit.formats.tiled import (
    PARTS_NAME,
    REACH,
    WIDE_PART,
    numbered,
    placed,
    write_table,
)
from napari_gaussfit.measure.table import measurements

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from napari_gaussfit.fitting.tile_fits import TileFitter
    from napari_gaussfit.fitting.tile_store import TileStore
    from napari_gaussfit.fitting.tiles import Tile, Tiling

    Place = tuple[int, int, int]

__all__ = ["LIT", "TileTask", "TileWork", "timed"]

LIT = "lit"
"""Name of the number of a look by which tiles share a number of Gaussians."""

SEAM = 0.5
"""Halos from a seam within which voxels are counted as beside it, in the report."""


@dataclass(frozen=True)
class TileTask:
    """A task, with the files that it reads.

    Parameters
    ----------
    stage : Stage
        The stage of the work: a colour of tiles, or the seams.
    tile : Tile
        Where; of the tiles over seams in that stage.
    key : str
        What the result depends on.
    files : tuple of (stage, place, path)
        Working files of tasks that left one.
    dark : tuple of (Tile, tuple of float)
        For what is wide: tiles of background, and the mean of each channel there.
    count : int or None
        How many Gaussians the tile commits, where that is given.
    """

    stage: Stage
    tile: Tile
    key: str
    files: tuple[tuple[Stage, Place, Path], ...] = ()
    dark: tuple[tuple[Tile, tuple[float, ...]], ...] = ()
    count: int | None = None

    @property
    def named(self) -> tuple[Stage, Place]:
        """What tells it from all others of a fit."""
        return self.stage, self.tile.place

    def of(self, stage: Stage) -> list[tuple[Place, Path]]:
        """Return the files of a stage, by place.

        Parameters
        ----------
        stage : Stage
            An earlier stage, whose files are asked for.
        """
        return [(place, path) for one, place, path in self.files if one is stage]


@dataclass(frozen=True, eq=False)
class _Around:
    """The Gaussians of a task's files where they are by now.

    who : ndarray of int, shape [K, 4]
        The place of the tile that has committed each, and the row there.
    """

    found: Placed
    who: NDArray[np.int64]
    measured: list[Measured]


@dataclass(frozen=True, eq=False)
class TileWork:
    """Does tasks.

    Parameters
    ----------
    fitter : TileFitter
        Fits a tile of the stack.
    over : Tiling
        The tiles over its seams.
    store : TileStore
        Keeps the files of tiles that are done.
    out : Path
        Folder of the result.
    """

    fitter: TileFitter
    over: Tiling
    store: TileStore
    out: Path

    @property
    def tiling(self) -> Tiling:
        """The tiles of the stack."""
        return self.fitter.tiling

    @property
    def count(self) -> int | None:
        """How many Gaussians all tiles have together, where that is given."""
        return None if self.fitter.start.fit is not None else self.fitter.count

    @property
    def stages(self) -> list[tuple[Stage, list[Tile]]]:
        """What is done in turn, and in which tiles."""
        tiles = [*self.tiling.tiles()]
        stages = [(Stage.LOOK, tiles)]
        if self.fitter.has_wide:
            stages.append((Stage.WIDE, tiles[:1]))
        stages += [(Stage.FIT, tiles), (Stage.SEAMS, self.tiling.over_seams()[1])]
        if self.fitter.settings.measure is not False:
            stages.append((Stage.MEASURE, tiles))
        return [*stages, (Stage.WRITE, tiles)]

    def do(self, task: TileTask) -> Outcome:
        """Do a task.

        Parameters
        ----------
        task : TileTask
            What is to be done, and for which tile.
        """
        does = {
            Stage.LOOK: self._look,
            Stage.WIDE: self._fit_wide,
            Stage.FIT: self._fit,
            Stage.SEAMS: self._mend,
            Stage.MEASURE: self._measure,
            Stage.WRITE: self._write,
        }
        return timed(does[task.stage], task)

    def _look(self, task: TileTask) -> Outcome:
        tile, fitter = task.tile, self.fitter
        voxels, read = self._read(tile.low, tile.high)
        looks = [level.look(own) for level, own in zip(fitter.levels, voxels, strict=True)]
        if not any(light for light, _ in looks) and not fitter.begins(tile):
            cores = [own[tile.core_in_box] for own in voxels]
            numbers = self._numbers(cores, cores)
            for n, (_, blocks) in enumerate(looks):
                numbers[f"mean{numbered(n)}"] = float(blocks.mean())
            return Outcome(Status.BACKGROUND, 0, numbers, read_seconds=read)
        numbers = {} if self.count is None else {LIT: float(fitter.lit(tile, voxels))}
        if not fitter.has_wide or fitter.start.fit is not None:
            return Outcome(Status.DONE, 0, numbers, read_seconds=read)
        cells = fitter.cells.sums(tile, [blocks for _, blocks in looks])
        path = self.store.path(task.stage, tile.place, task.key)
        self.store.save(path, fitter.none(), cells)
        return Outcome(Status.DONE, 0, numbers, read_seconds=read, file=True)

    def _fit_wide(self, task: TileTask) -> Outcome:
        """Fit what is wider than tiles see, and write its part of the result."""
        fitter, facts = self.fitter, self.fitter.facts
        parts = [self.store.load(path)[1] for _, path in task.of(Stage.LOOK)]
        found = fitter.wide(parts, task.dark)
        if not len(found):
            return Outcome(Status.DONE)
        self._save(task, found)
        fields = found.fields((0, 0, 0), facts, fitter.backgrounds)
        table = measurements(fields, facts.spacing, psf=fitter.psf).assign(**self._place)
        write_table(self.out / PARTS_NAME / WIDE_PART, table)
        return Outcome(Status.DONE, len(found), self._reach(found))

    def reached(self, path: Path) -> Callable[[Tile], bool]:
        """Return what tells whether a Gaussian of a working file reaches into a tile's box.

        Parameters
        ----------
        path : Path
            The file that is read.
        """
        found, _ = self.store.load(path)
        spacing = self.fitter.facts.spacing
        return lambda tile: bool(found.reaching(tile.low, tile.high, spacing).any())

    def _read(
        self, low: Sequence[int], high: Sequence[int]
    ) -> tuple[list[NDArray[np.generic]], float]:
        """Read a box of each channel, and return it with the seconds that took."""
        began = time.perf_counter()
        voxels = self.fitter.read(low, high)
        return voxels, round(time.perf_counter() - began, 4)

    def _wide(self, task: TileTask) -> list[Placed]:
        return [self.store.load(path)[0] for _, path in task.of(Stage.WIDE)]

    def _fit(self, task: TileTask) -> Outcome:
        tile = task.tile
        voxels, read = self._read(tile.low, tile.high)
        anchors = [self.store.load(path)[0] for _, path in task.of(Stage.FIT)]
        anchored = Placed.joined([*self._wide(task), *anchors], len(voxels))
        found = self.fitter.fit(tile, voxels, anchored, task.count)
        self._save(task, found)
        return Outcome(Status.DONE, len(found), read_seconds=read)

    def _mend(self, task: TileTask) -> Outcome:
        around = self._gathered(task)
        at = self._voxels(around.found)
        inside = (self.over.places_of(at) == task.tile.place).all(1)
        mine = inside & (self.tiling.seam_distances(at) <= 1)
        if not mine.any():
            return Outcome(Status.DONE)
        others = Placed.joined(
            [around.found.select(~mine), *self._wide(task)], len(self.fitter.stacks)
        )
        found = self.fitter.mend(task.tile, around.found.select(mine), others)
        self._save(task, found, {"owners": around.who[mine]})
        return Outcome(Status.DONE, len(found))

    def _measure(self, task: TileTask) -> Outcome:
        around, tile = self._gathered(task), task.tile
        mine = (self.tiling.places_of(self._voxels(around.found)) == tile.place).all(1)
        own = around.found.select(mine)
        measured = None
        if len(own):
            measured = self.fitter.measured(tile, own, around.found.select(~mine))
        if measured is None:
            return Outcome(Status.DONE)
        spacing = self.fitter.facts.spacing
        found = Placed.of(measured.gaussians, tile.low, spacing).select(np.arange(len(own)))
        arrays = arrays_of(measured, len(own)) | {"owners": around.who[mine]}
        self._save(task, found, arrays)
        return Outcome(Status.DONE, len(found))

    def _write(self, task: TileTask) -> Outcome:
        tile, fitter = task.tile, self.fitter
        around = self._gathered(task)
        voxels, read = self._read(tile.first, tile.end)
        light = Placed.joined([around.found, *self._wide(task)], len(voxels))
        rest = fitter.beside(voxels, tile.first, light)
        numbers = self._numbers(voxels, rest, self._beside_seams(tile))
        which = (self.tiling.places_of(self._voxels(around.found)) == tile.place).all(1)
        mine = around.found.select(which)
        if len(mine):
            facts = fitter.facts
            fields = mine.fields(tile.first, facts, fitter.backgrounds)
            known, count = known_of(which, around.measured, [one.numpy() for one in fields])
            path = self.out / PARTS_NAME / f"{tile.name}.parquet"
            table = measurements(fields, facts.spacing, known, fitter.psf)
            table = placed(table, tile.first, facts.spacing).assign(**self._place)
            write_table(path, table)
            numbers |= self._reach(mine)
            numbers["measured"] = float(count)
        return Outcome(Status.DONE, len(mine), numbers, read_seconds=read)

    def _reach(self, found: Placed) -> dict[str, float]:
        corners = np.concatenate(found.bounds(self.fitter.facts.spacing)).tolist()
        return dict(zip(REACH, corners, strict=True))

    @property
    def _place(self) -> dict[str, int]:
        """Columns that say of all rows which channel and time they are of."""
        facts = self.fitter.facts
        return (facts if len(self.fitter.stacks) == 1 else replace(facts, channel=None)).place

    def _voxels(self, found: Placed) -> NDArray[np.float64]:
        """Return where centres are, in voxels."""
        at: NDArray[np.float64] = found.means / np.asarray(self.fitter.facts.spacing)
        return at

    def _gathered(self, task: TileTask) -> _Around:
        """Return the Gaussians of a task's files where they are by now."""
        parts, owners = [], []
        for place, path in task.of(Stage.FIT):
            found, _ = self.store.load(path)
            parts.append(found)
            rows = np.arange(len(found))[:, None]
            owners.append(np.concatenate([np.tile(place, (len(found), 1)), rows], 1))
        channels = len(self.fitter.stacks)
        around = Placed.joined(parts, channels)
        who = np.concatenate([np.empty((0, 4), np.int64), *owners])
        measured = []
        rows_of = {tuple(owner): n for n, owner in enumerate(who.tolist())}
        for stage in (Stage.SEAMS, Stage.MEASURE):
            for _, path in task.of(stage):
                moved, arrays = self.store.load(path)
                places = [rows_of.get(tuple(owner), -1) for owner in arrays["owners"].tolist()]
                rows = np.array(places, np.int64)
                there = rows >= 0
                around.replace(rows[there], moved.select(there))
                if stage is Stage.MEASURE:
                    measured.append(Measured(rows, arrays))
        return _Around(around, who, measured)

    def _save(
        self, task: TileTask, found: Placed, arrays: Mapping[str, NDArray[Any]] | None = None
    ) -> None:
        if len(found):
            path = self.store.path(task.stage, task.tile.place, task.key)
            self.store.save(path, found, arrays)

    def _numbers(
        self,
        voxels: Sequence[NDArray[np.generic]],
        rest: Sequence[NDArray[np.generic]],
        seams: NDArray[np.bool_] | None = None,
    ) -> dict[str, float]:
        """Return what is known of the voxels of each channel, by name and number."""
        found: dict[str, float] = {}
        for n, (own, left) in enumerate(zip(voxels, rest, strict=True)):
            numbers = _numbers(own, left, self.fitter.backgrounds[n], seams)
            found |= {f"{name}{numbered(n)}": value for name, value in numbers.items()}
        return found

    def _beside_seams(self, tile: Tile) -> NDArray[np.bool_]:
        """Return which voxels [Z, Y, X] of a core lie beside a seam."""
        near = np.zeros(np.subtract(tile.end, tile.first), np.bool_)
        tiling = self.fitter.tiling
        for axis, (cut, beyond) in enumerate(zip(tiling.edges, tiling.halo, strict=True)):
            at = np.arange(tile.first[axis], tile.end[axis])
            beside = np.zeros(len(at), np.bool_)
            for seam in cut[1:-1]:
                beside |= np.abs(at - (seam - 0.5)) <= SEAM * beyond
            near |= beside.reshape([-1 if n == axis else 1 for n in range(3)])
        return near


def timed(does: Callable[[TileTask], Outcome], task: TileTask) -> Outcome:
    """Do a task, and note what it took.

    Parameters
    ----------
    does : callable
        Carries out a task, and returns what it came to.
    task : TileTask
        What is to be done, and for which tile.
    """
    import psutil

    at, began = time.time(), time.perf_counter()
    outcome = does(task)
    seconds = time.perf_counter() - began - outcome.read_seconds
    memory = int(psutil.Process().memory_info().rss)
    worker = f"{platform.node()}:{os.getpid()}"
    return replace(
        outcome, seconds=round(seconds, 4), memory=memory, began=round(at, 4), worker=worker
    )


def _numbers(
    voxels: NDArray[np.generic],
    rest: NDArray[np.generic],
    background: float,
    seams: NDArray[np.bool_] | None = None,
) -> dict[str, float]:
    """Return what is known of the voxels of a core, and by how much the Gaussians err.

    By planes, which stay in the cache: most of a large stack may be background, where this and a
    look for light are all that is done.

    rest : the voxels without the Gaussians' light.
    """
    errors, beside = [], []
    squares = np.empty(voxels.shape[1:])
    for n, plane in enumerate(rest):
        np.subtract(plane, background, out=squares)
        np.square(squares, out=squares)
        errors.append(float(squares.sum()))
        if seams is not None:
            beside.append(float(squares[seams[n]].sum()))
    return {
        "lowest": float(voxels.min()),
        "highest": float(voxels.max()),
        "voxels": float(voxels.size),
        "squared_error": math.fsum(errors),
        "seam_voxels": 0.0 if seams is None else float(np.count_nonzero(seams)),
        "seam_squared_error": math.fsum(beside),
    }
