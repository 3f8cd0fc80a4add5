"""The course of a fit by tiles: its plan, its stages, its folder and its report.

What is done in a tile is for the work that it is given; this gives tasks to a pool as soon as those
which they wait for have ended, and goes on from wherever an earlier run was killed.
"""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from dataclasses import asdict, dataclass, field
from heapq import heappop, heappush
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_gaussfit.errors import OutputError, SettingsError
from napari_gaussfit.files import replacing
from napari_gaussfit.fitting.pools import DaskPool, Pool, SerialPool
from napari_gaussfit.fitting.tile_store import (
    LOG_NAME,
    Outcome,
    Stage,
    Status,
    TileStore,
    digest_of,
)
from napari_gaussfit.fitting.tile_tasks import TileTask, needs_of
from napari_gaussfit.formats.tiled import (
    INDEX_NAME,
    OBJECTS_NAME,
    PARTS_NAME,
    REACH,
    TILES_NAME,
    read_index,
    write_index,
    write_tiles,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from napari_gaussfit.fitting.pools import Work
    from napari_gaussfit.fitting.tile_fits import Levels
    from napari_gaussfit.fitting.tiles import Tile, Tiling
    from napari_gaussfit.stacks.lazy import LazyStack

    Place = tuple[int, int, int]

__all__ = ["OUTPUTS", "TilePlan", "TileProgress", "TileReport", "TileRun", "forget_tiles"]

PLAN_NAME, WORK_NAME = "plan.json", "work"

OUTPUTS = (INDEX_NAME, TILES_NAME, PARTS_NAME, OBJECTS_NAME, PLAN_NAME, LOG_NAME, WORK_NAME)
"""What a fit by tiles leaves in its folder, or has there meanwhile."""

TRIES = 3
"""Times that a task is tried before its tile is given up."""

STAGES = {Stage.FIT: "fitting", Stage.SEAMS: "seams", Stage.WRITE: "writing"}


@dataclass(frozen=True)
class TileProgress:
    """How far a fit by tiles has come.

    Parameters
    ----------
    stage : str
        "fitting", "seams" or "writing".
    done, running, total : int
        Tiles of this stage that have ended, those given to workers, and all.
    background, failed : int
        Those that held nothing but background, and those given up.
    gaussians : int
        Gaussians found so far.
    """

    stage: str
    done: int
    running: int
    total: int
    background: int
    failed: int
    gaussians: int


@dataclass(frozen=True)
class TileReport:
    """How a fit by tiles has ended.

    Parameters
    ----------
    out : Path
        The folder.
    gaussians, tiles, background_tiles : int
        Gaussians in all, tiles, and those that held nothing but background.
    failed : tuple of (str, str)
        Place of each tile that was given up ("0001-0002-0000"), and why.
    voxel_psnr : float
        PSNR of all voxels in dB, over the range of the stack.
    seam_psnr, interior_psnr : float
        Of those within half a halo of a seam, and of the others; NaN where there are none.
    """

    out: Path
    gaussians: int
    tiles: int
    background_tiles: int
    failed: tuple[tuple[str, str], ...]
    voxel_psnr: float
    seam_psnr: float
    interior_psnr: float


def forget_tiles(folder: Path) -> None:
    """Remove what a fit by tiles has left in a folder; nothing of a folder that has no plan of one.

    Parameters
    ----------
    folder : Path
        That another fit is to be written into.
    """
    try:
        plan = json.loads((folder / PLAN_NAME).read_text(encoding="utf-8"))
        own = {"stack", "tiles", "settings", "levels"} <= set(plan)
    except (OSError, ValueError, TypeError):
        return
    for name in OUTPUTS if own else ():
        if (folder / name).is_dir():
            shutil.rmtree(folder / name)
        else:
            (folder / name).unlink(missing_ok=True)


@dataclass(frozen=True, eq=False)
class TilePlan:
    """What a fit by tiles depends on, all together.

    Parameters
    ----------
    lazy : LazyStack
        What is fitted.
    tiling : Tiling
        Its tiles.
    settings : dict
        Of each tile's fit, as JSON types.
    levels : Levels
        Of the stack.
    parts : str
        Name of the folder of tables.
    content : dict
        All that the result depends on.
    """

    lazy: LazyStack
    tiling: Tiling
    settings: dict[str, Any]
    levels: Levels
    parts: str
    content: dict[str, Any]

    @classmethod
    def of(
        cls,
        lazy: LazyStack,
        tiling: Tiling,
        settings: Mapping[str, Any],
        levels: Levels,
        sample_digest: str,
        *,
        parts: str = PARTS_NAME,
    ) -> TilePlan:
        """Return the plan of a fit; see the class, and `Sample.digest`."""
        from napari_gaussfit import __version__

        content = {
            "stack": asdict(lazy.facts),
            "fill_nan": lazy.fill_nan,
            "dtype": str(lazy.dtype),
            "sample": sample_digest,
            "tiles": asdict(tiling),
            "settings": dict(settings),
            "levels": asdict(levels),
            "parts": parts,
            "version": __version__,
        }
        known = json.loads(json.dumps(content))
        return cls(lazy, tiling, known["settings"], levels, parts, known)

    def carry_out(
        self,
        folder: Path,
        work_with: Callable[[TileStore], Work],
        over: Sequence[Tile] = (),
        *,
        client: Any = None,
        resume: bool = False,
        progress: Callable[[TileProgress], object] | None = None,
    ) -> TileReport:
        """Do all that is still to be done, and write the folder.

        Parameters
        ----------
        folder : Path
            Made where there is none.
        work_with : callable
            Gives what does the tasks, from where working files are.
        over : sequence of Tile
            Tiles over seams that are gone over.
        client, resume, progress
            As for `fit_tiles`.
        """
        ended = self._begin(folder, resume=resume)
        if ended is not None:
            return ended
        work = work_with(TileStore(folder / WORK_NAME))
        pool: Pool = SerialPool() if client is None else DaskPool(client)
        run = TileRun(work, self.key, pool, progress, work.store.ended())
        try:
            run.stage(Stage.FIT, [*self.tiling.tiles()])
            run.stage(Stage.SEAMS, over)
            run.stage(Stage.WRITE, [*self.tiling.tiles()])
        finally:
            if isinstance(pool, DaskPool):
                pool.close()
        return self._finish(folder, run)

    @property
    def key(self) -> str:
        """A checksum of all that the result depends on."""
        return digest_of([self.content])

    def _begin(self, folder: Path, *, resume: bool) -> TileReport | None:
        """Make the folder, or see that it is this fit's; return its report if it has ended."""
        there = folder / PLAN_NAME
        if any((folder / name).exists() for name in OUTPUTS) and not resume:
            raise OutputError(
                f"{folder}: holds a fit by tiles; resume=True (--resume) goes on with it; or give "
                "another folder"
            )
        if there.is_file():
            self._refuse_another(there)
            if (folder / INDEX_NAME).is_file():
                report = read_index(folder)[2]
                if not report["failed"]:
                    _clear(folder)
                    return _report(folder, report)
        for part in (folder, folder / WORK_NAME, folder / self.parts):
            part.mkdir(parents=True, exist_ok=True)
        with replacing(there) as temporary:
            temporary.write_text(json.dumps(self.content, indent=1) + "\n", encoding="utf-8")
        return None

    def _refuse_another(self, path: Path) -> None:
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
            other = [name for name, value in self.content.items() if known.get(name) != value]
        except (ValueError, AttributeError) as error:
            raise SettingsError(f"{path}: is damaged; fit anew, into another folder") from error
        if other:
            raise SettingsError(
                f"{path.parent}: holds a fit by tiles with another {' and '.join(other)}; give "
                "that again, or another folder"
            )

    def _finish(self, folder: Path, run: TileRun) -> TileReport:
        """Write the index, and remove what was needed meanwhile, unless a tile is still missing."""
        written = {tile.place: outcome for tile, outcome in run.outcomes[Stage.WRITE]}
        failed = {
            f"{STAGES[stage]} {tile.name}": f"{_voxels(tile)}: {outcome.error}"
            for stage in (Stage.FIT, Stage.SEAMS, Stage.WRITE)
            for tile, outcome in run.outcomes[stage]
            if outcome.status is Status.FAILED
        }
        fitted = {tile.place: outcome for tile, outcome in run.outcomes[Stage.FIT]}
        rows = [_row(tile, fitted[tile.place], written[tile.place]) for tile in self.tiling.tiles()]
        report = _summary(rows, self.levels, failed)
        write_tiles(folder, rows)
        write_index(folder, self.lazy.facts, self.settings, report, parts=self.parts)
        # What a run that was killed was writing then.
        parts = {row["part"] for row in rows}
        for path in (folder / self.parts).iterdir():
            if path.name not in parts:
                path.unlink()
        if not failed:
            _clear(folder)
        return _report(folder, report)


@dataclass(eq=False)
class TileRun:
    """Gives the tasks of each stage to a pool as soon as those which they wait for have ended."""

    work: Work
    plan_key: str
    pool: Pool
    progress: Callable[[TileProgress], object] | None
    known: dict[str, Outcome]
    outcomes: dict[Stage, list[tuple[Tile, Outcome]]] = field(default_factory=dict)
    _keys: dict[tuple[Stage, Place], str] = field(default_factory=dict)
    _found: dict[tuple[Stage, Place], Outcome] = field(default_factory=dict)
    _counts: dict[Stage, Counter[str]] = field(
        default_factory=lambda: {stage: Counter() for stage in Stage}
    )

    def stage(self, stage: Stage, tiles: Sequence[Tile]) -> None:
        """Do what a stage asks for in all of its tiles."""
        tiling = self.work.over if stage is Stage.SEAMS else self.work.tiling
        part_of = {tile.place for tile in tiles}
        waits = stage is not Stage.WRITE
        missing = {
            tile.place: sum(one.place in part_of for one in tiling.earlier(tile)) if waits else 0
            for tile in tiles
        }
        ready: list[tuple[int, Tile]] = []
        for tile in tiles:
            if not missing[tile.place]:
                heappush(ready, (tile.colour, tile))
        running: dict[Place, int] = {}
        ended = 0
        while ended < len(tiles):
            for tile, outcome in self._step(stage, ready, running):
                ended += 1
                self._found[stage, tile.place] = outcome
                self._count(stage, outcome)
                for other in tiling.touching(tile) if waits else ():
                    if other.colour > tile.colour and other.place in missing:
                        missing[other.place] -= 1
                        if not missing[other.place]:
                            heappush(ready, (other.colour, other))
                self._tell(stage, len(running), len(tiles))
        self.outcomes[stage] = [(tile, self._found[stage, tile.place]) for tile in tiles]

    def _step(
        self, stage: Stage, ready: list[tuple[int, Tile]], running: dict[Place, int]
    ) -> Iterator[tuple[Tile, Outcome]]:
        """Fill the pool, and yield the tiles that have ended; those known from before first."""
        slots = self.pool.slots
        while ready and len(running) < slots:
            _, tile = heappop(ready)
            task = self._task(stage, tile)
            known = self.known.get(task.key) or self._untouched(task)
            if known is not None:
                yield tile, known
                return
            running[tile.place] = 1
            self.pool.submit(self.work, task)
        for task, outcome in self.pool.ended():
            place = task.tile.place
            if isinstance(outcome, BaseException):
                if running[place] < TRIES:
                    running[place] += 1
                    self.pool.submit(self.work, task)
                    continue
                outcome = Outcome(Status.FAILED, error=_words(outcome))  # noqa: PLW2901
            del running[place]
            self.work.store.log(task.key, stage, place, outcome)
            yield task.tile, outcome

    def _task(self, stage: Stage, tile: Tile) -> TileTask:
        """Return a task, with a key made of the keys of what it needs."""
        fits, seams = needs_of(stage, tile, self.work.tiling, self.work.over)
        needs = [(Stage.FIT, one.place) for one in fits]
        needs += [(Stage.SEAMS, one.place) for one in seams]
        needs = [need for need in needs if need in self._found]
        states = [
            "failed" if self._found[need].status is Status.FAILED else self._keys[need]
            for need in needs
        ]
        key = digest_of([self.plan_key, stage, tile.place, states])
        self._keys[stage, tile.place] = key
        files = [
            (place, self.work.store.path(one, place, self._keys[one, place]))
            for one, place in needs
            if self._found[one, place].gaussians
        ]
        of_fits = sum(self._found[need].gaussians > 0 for need in needs if need[0] is Stage.FIT)
        return TileTask(stage, tile, key, tuple(files[:of_fits]), tuple(files[of_fits:]))

    def _untouched(self, task: TileTask) -> Outcome | None:
        """Return what is known of a tile of background that no Gaussian reaches into."""
        if task.stage is not Stage.WRITE or task.fits or task.seams:
            return None
        fitted = self._found[Stage.FIT, task.tile.place]
        return fitted if fitted.status is Status.BACKGROUND else None

    def _tell(self, stage: Stage, running: int, total: int) -> None:
        if self.progress is not None:
            count = self._counts[stage]
            progress = TileProgress(
                STAGES[stage], count["ended"], running, total, count[Status.BACKGROUND],
                count[Status.FAILED], self._counts[Stage.FIT]["gaussians"],
            )  # fmt: skip
            self.progress(progress)

    def _count(self, stage: Stage, outcome: Outcome) -> None:
        self._counts[stage].update({"ended": 1, outcome.status: 1, "gaussians": outcome.gaussians})


def _clear(folder: Path) -> None:
    """Remove what was needed meanwhile, but for the log."""
    work = folder / WORK_NAME
    if (work / LOG_NAME).is_file():
        (work / LOG_NAME).replace(folder / LOG_NAME)
    shutil.rmtree(work, ignore_errors=True)


def _voxels(tile: Tile) -> str:
    sides = zip("zyx", tile.first, tile.end, strict=True)
    return "voxels " + ", ".join(f"{axis} {a} to {b - 1}" for axis, a, b in sides)


def _words(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _row(tile: Tile, fitted: Outcome, written: Outcome) -> dict[str, Any]:
    """Return a tile's row in the table of tiles."""
    numbers = written.numbers
    failed = Status.FAILED in (fitted.status, written.status)
    row: dict[str, Any] = {"tile": tile.name}
    for what, corner in (("first", tile.first), ("end", tile.end)):
        row |= {f"{what}_{axis}": n for axis, n in zip("zyx", corner, strict=True)}
    row |= {
        "status": str(Status.FAILED if failed else fitted.status),
        "gaussians": written.gaussians,
        "part": f"{tile.name}.parquet" if written.gaussians else "",
    }
    return row | {
        name: numbers.get(name, math.nan)
        for name in (
            *("lowest", "highest", "voxels", "squared_error", "seam_voxels", "seam_squared_error"),
            *REACH,
        )
    }


def _summary(
    rows: Sequence[dict[str, Any]], levels: Levels, failed: dict[str, str]
) -> dict[str, Any]:
    """Return the report of all tiles, as JSON types; None where a figure is not known."""
    measured = [row for row in rows if not math.isnan(row["voxels"])]
    lowest = min((row["lowest"] for row in measured), default=math.nan)
    highest = max((row["highest"] for row in measured), default=math.nan)
    total = {
        name: sum(row[name] for row in measured)
        for name in ("voxels", "squared_error", "seam_voxels", "seam_squared_error")
    }

    def psnr(squared_error: float, voxels: float) -> float | None:
        if not voxels or not squared_error or not highest > lowest:
            return None
        return 10 * math.log10((highest - lowest) ** 2 / (squared_error / voxels))

    # Of tiles of background the seams are not looked at; nor do they count as interior.
    fitted = [row for row in measured if row["status"] != Status.BACKGROUND]
    inner = sum(row["voxels"] - row["seam_voxels"] for row in fitted)
    inner_error = sum(row["squared_error"] - row["seam_squared_error"] for row in fitted)
    return {
        "gaussians": sum(row["gaussians"] for row in rows),
        "tiles": len(rows),
        "background_tiles": sum(row["status"] == Status.BACKGROUND for row in rows),
        "failed": failed,
        "voxel_psnr": psnr(total["squared_error"], total["voxels"]),
        "seam_psnr": psnr(total["seam_squared_error"], total["seam_voxels"]),
        "interior_psnr": psnr(inner_error, inner),
        "background": levels.background,
        "sample": levels.words,
        "lowest": lowest if measured else None,
        "highest": highest if measured else None,
    }


def _report(folder: Path, report: dict[str, Any]) -> TileReport:
    def known(name: str) -> float:
        return math.nan if report[name] is None else float(report[name])

    return TileReport(
        folder,
        report["gaussians"],
        report["tiles"],
        report["background_tiles"],
        tuple(report["failed"].items()),
        known("voxel_psnr"),
        known("seam_psnr"),
        known("interior_psnr"),
    )
