"""The tasks of a fit by tiles: what each needs, does, and leaves as a file.

Three stages, one after the other: every tile is fitted; Gaussians beside seams are moved once more;
every tile's part of the result is written. A task may run in any process that can read the stack
and the folder. Its result depends on what is in its key, and on nothing else.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_gaussfit.fitting.tile_fits import Placed
from napari_gaussfit.fitting.tile_store import Outcome, Stage, Status
from napari_gaussfit.formats.tiled import PARTS_NAME, REACH, write_part

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from napari_gaussfit.fitting.tile_fits import TileFitter
    from napari_gaussfit.fitting.tile_store import TileStore
    from napari_gaussfit.fitting.tiles import Tile, Tiling

    Place = tuple[int, int, int]

__all__ = ["TileTask", "TileWork", "needs_of", "timed"]

SEAM = 0.5
"""Halos from a seam within which voxels are counted as beside it, in the report."""


@dataclass(frozen=True)
class TileTask:
    """A task, with the files that it reads.

    Parameters
    ----------
    stage : Stage
        What is done.
    tile : Tile
        Where; of the tiles over seams in that stage.
    key : str
        What the result depends on.
    fits, seams : tuple of (place, path)
        Working files of those stages, by place: of tasks that left one.
    """

    stage: Stage
    tile: Tile
    key: str
    fits: tuple[tuple[Place, Path], ...] = ()
    seams: tuple[tuple[Place, Path], ...] = ()


def needs_of(
    stage: Stage, tile: Tile, tiling: Tiling, over: Tiling
) -> tuple[list[Tile], list[Tile]]:
    """Return the tiles, and those over seams, whose results a task reads.

    Parameters
    ----------
    stage : Stage
        What is done.
    tile : Tile
        Where.
    tiling : Tiling
        Of the stack.
    over : Tiling
        Of its seams.
    """
    if stage is Stage.FIT:
        return tiling.earlier(tile), []
    # A Gaussian lies in a core that touches that of the tile which has committed it, and reaches
    # no farther than one core.
    around = _around(tiling, tile)
    if stage is Stage.SEAMS:
        return around, over.earlier(tile)
    low = np.min([one.first for one in around], 0)
    high = np.max([one.end for one in around], 0)
    return around, over.meeting(low.tolist(), high.tolist())


def _around(tiling: Tiling, tile: Tile) -> list[Tile]:
    """Return the tiles that a box meets, and those which touch them."""
    met = tiling.meeting(tile.first, tile.end)
    found = {one.place: one for own in met for one in (own, *tiling.touching(own))}
    return [found[place] for place in sorted(found)]


@dataclass(frozen=True, eq=False)
class TileWork:
    """Does tasks.

    Parameters
    ----------
    fitter : TileFitter
        Of the stack.
    over : Tiling
        The tiles over its seams.
    store : TileStore
        Of working files.
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

    def do(self, task: TileTask) -> Outcome:
        """Do a task.

        Parameters
        ----------
        task : TileTask
            Of any stage.
        """
        does = {Stage.FIT: self._fit, Stage.SEAMS: self._mend, Stage.WRITE: self._write}
        return timed(does[task.stage], task)

    def _fit(self, task: TileTask) -> Outcome:
        tile, levels = task.tile, self.fitter.levels
        began = time.perf_counter()
        voxels = self.fitter.stack.read(tile.low, tile.high)
        read = round(time.perf_counter() - began, 4)
        if not levels.hold_light(voxels):
            core = voxels[_part(tile.first, tile.end, tile.low)]
            numbers = _numbers(core, core, levels.background)
            return Outcome(Status.BACKGROUND, 0, numbers, read_seconds=read)
        anchors = Placed.joined([self.store.load(path)[0] for _, path in task.fits])
        found = self.fitter.fit(tile, voxels, anchors)
        self._save(task, found)
        return Outcome(Status.DONE, len(found), read_seconds=read)

    def _mend(self, task: TileTask) -> Outcome:
        around, owners = self._gathered(task)
        at = around.means / np.asarray(self.fitter.stack.spacing)
        inside = (self.over.places_of(at) == task.tile.place).all(1)
        mine = inside & (self.fitter.tiling.seam_distances(at) <= 1)
        if not mine.any():
            return Outcome(Status.DONE)
        found = self.fitter.mend(task.tile, around.select(mine), around.select(~mine))
        self._save(task, found, owners[mine])
        return Outcome(Status.DONE, len(found))

    def _write(self, task: TileTask) -> Outcome:
        tile, stack, levels = task.tile, self.fitter.stack, self.fitter.levels
        around, _ = self._gathered(task)
        began = time.perf_counter()
        voxels = stack.read(tile.first, tile.end)
        read = round(time.perf_counter() - began, 4)
        rest = self.fitter.beside(voxels, tile.first, around)
        numbers = _numbers(voxels, rest, levels.background, self._beside_seams(tile))
        places = self.fitter.tiling.places_of(around.means / np.asarray(stack.spacing))
        mine = around.select((places == tile.place).all(1))
        if len(mine):
            field = mine.field(tile.first, stack.facts, levels.background)
            path = self.out / PARTS_NAME / f"{tile.name}.parquet"
            write_part(path, field, tile.first, stack.spacing, stack.facts.place)
            numbers |= self._reach(mine)
        return Outcome(Status.DONE, len(mine), numbers, read_seconds=read)

    def _gathered(self, task: TileTask) -> tuple[Placed, NDArray[np.int64]]:
        """Return the Gaussians of a task's files where they are by now, and who they are [K, 4]."""
        parts, owners = [], []
        for place, path in task.fits:
            found, _ = self.store.load(path)
            parts.append(found)
            rows = np.arange(len(found))[:, None]
            owners.append(np.concatenate([np.tile(place, (len(found), 1)), rows], 1))
        around = Placed.joined(parts)
        who = np.concatenate([np.empty((0, 4), np.int64), *owners])
        rows_of = {tuple(owner): n for n, owner in enumerate(who.tolist())}
        for _, path in task.seams:
            moved, whose = self.store.load(path)
            known = np.array([tuple(owner) in rows_of for owner in whose.tolist()], np.bool_)
            rows = np.array([rows_of[tuple(o)] for o in whose[known].tolist()], np.int64)
            for name in ("means", "cholesky", "amplitudes"):
                getattr(around, name)[rows] = getattr(moved, name)[known]
        return around, who

    def _save(self, task: TileTask, found: Placed, owners: NDArray[np.int64] | None = None) -> None:
        if len(found):
            path = self.store.path(task.stage, task.tile.place, task.key)
            self.store.save(path, found, owners)

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

    def _reach(self, found: Placed) -> dict[str, float]:
        step, extents = np.asarray(self.fitter.stack.spacing), found.extents()
        low = np.floor(((found.means - extents) / step).min(0))
        high = np.ceil(((found.means + extents) / step).max(0))
        return dict(zip(REACH, [*low.tolist(), *high.tolist()], strict=True))


def timed(does: Callable[[TileTask], Outcome], task: TileTask) -> Outcome:
    """Do a task, and note what it took.

    Parameters
    ----------
    does : callable
        Does it.
    task : TileTask
        Of any stage.
    """
    import psutil

    began = time.perf_counter()
    outcome = does(task)
    seconds = time.perf_counter() - began - outcome.read_seconds
    memory = int(psutil.Process().memory_info().rss)
    return replace(outcome, seconds=round(seconds, 4), memory=memory)


def _part(first: Sequence[int], end: Sequence[int], low: Sequence[int]) -> tuple[slice, ...]:
    """Return where a box lies in a larger one that begins at `low`."""
    return tuple(slice(a - c, b - c) for a, b, c in zip(first, end, low, strict=True))


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
        "lowest": min(float(plane.min()) for plane in voxels),
        "highest": max(float(plane.max()) for plane in voxels),
        "voxels": float(voxels.size),
        "squared_error": math.fsum(errors),
        "seam_voxels": 0.0 if seams is None else float(np.count_nonzero(seams)),
        "seam_squared_error": math.fsum(beside),
    }
