"""The course of a fit by tiles: which task is given to a pool when, and what is known by then.

A task is given as soon as those whose results it reads have ended, of whatever stage: no worker
waits for the last tile of a colour, or of a stage, while there is something to do elsewhere. Only
what is wide waits for all looks, and all fits wait for that.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

from napari_gaussfit.fitting.tile_counts import shared
from napari_gaussfit.fitting.tile_needs import OF_ALL, needed_by, needs_of
from napari_gaussfit.fitting.tile_store import Outcome, Stage, Status, digest_of
from napari_gaussfit.fitting.tile_tasks import LIT, TileTask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from napari_gaussfit.fitting.pools import Pool, Work
    from napari_gaussfit.fitting.tiles import Tile

    Place = tuple[int, int, int]
    Named = tuple[Stage, Place]

__all__ = ["STAGES", "TileCourse", "TileProgress"]

TRIES = 3
"""Times that a task is tried before its tile is given up."""

STAGES = {
    Stage.LOOK: "looking",
    Stage.WIDE: "haze",
    Stage.FIT: "fitting",
    Stage.SEAMS: "seams",
    Stage.MEASURE: "measuring",
    Stage.WRITE: "writing",
}


@dataclass(frozen=True)
class TileProgress:
    """How far a fit by tiles has come.

    Parameters
    ----------
    stage : str
        "looking", "haze", "fitting", "seams", "measuring" or "writing".
    done, running, total : int
        Tiles of this stage that have ended, those given to workers, and all.
    background, failed : int
        Those that held nothing but background, and those given up.
    gaussians : int
        Gaussians found so far.
    file : Path or None
        Working file of the Gaussians that the tile which has just ended commits, while tiles are
        fitted; `TileStore.load` reads it.
    """

    stage: str
    done: int
    running: int
    total: int
    background: int
    failed: int
    gaussians: int
    file: Path | None = None


@dataclass(eq=False)
class TileCourse:
    """Gives the tasks of all stages to a pool, each as soon as those that it needs have ended."""

    work: Work
    plan_key: str
    pool: Pool
    progress: Callable[[TileProgress], object] | None
    known: dict[str, Outcome]
    outcomes: dict[Stage, list[tuple[Tile, Outcome]]] = field(default_factory=dict)
    _totals: dict[Stage, int] = field(default_factory=dict)
    _keys: dict[Named, str] = field(default_factory=dict)
    _found: dict[Named, Outcome] = field(default_factory=dict)
    _reached: Callable[[Tile], bool] | None = None
    _shares: dict[Place, int] | None = None
    _counts: dict[Stage, Counter[str]] = field(
        default_factory=lambda: {stage: Counter() for stage in Stage}
    )

    def run(self) -> None:
        """Do what all stages ask for, in all of their tiles."""
        stages = [*self.work.stages]
        alone = [one for one in stages if one[0] in {Stage.LOOK, Stage.WIDE}]
        for one in alone:
            self._do([one])
        self._do(stages[len(alone) :])

    def _do(self, stages: Sequence[tuple[Stage, Sequence[Tile]]]) -> None:
        """Do some stages, whose tasks need no others that have not been done yet."""
        self._totals = {stage: len(tiles) for stage, tiles in stages}
        of = {
            (stage, tile.place): (n, tile.colour, tile)
            for n, (stage, tiles) in enumerate(stages)
            for tile in tiles
        }
        around = self.work.tiling, self.work.over
        missing = {named: sum(need in of for need in needs_of(*named, *around)) for named in of}
        ready = [of[named] for named, needs in missing.items() if not needs]
        heapify(ready)
        running: dict[Named, int] = {}
        ended = 0
        while ended < len(missing):
            for named, outcome in self._step([*self._totals], ready, running):
                ended += 1
                self._found[named] = outcome
                self._count(named[0], outcome)
                for other in needed_by(*named, *around):
                    if other in missing:
                        missing[other] -= 1
                        if not missing[other]:
                            heappush(ready, of[other])
                self._tell(named, running)
        for stage, tiles in stages:
            self.outcomes[stage] = [(tile, self._found[stage, tile.place]) for tile in tiles]

    def _step(
        self, stages: Sequence[Stage], ready: list[tuple[int, int, Tile]], running: dict[Named, int]
    ) -> Iterator[tuple[Named, Outcome]]:
        """Fill the pool, and yield the tasks that have ended; those known from before first."""
        slots = self.pool.slots
        while ready and len(running) < slots:
            number, _, tile = heappop(ready)
            task = self._task(stages[number], tile)
            known = self.known.get(task.key) or self._untouched(task)
            if known is not None:
                yield task.named, known
                return
            running[task.named] = 1
            self.pool.submit(self.work, task, len(running) + len(ready))
        for task, outcome in self.pool.ended():
            if isinstance(outcome, BaseException):
                if running[task.named] < TRIES:
                    running[task.named] += 1
                    self.pool.submit(self.work, task, len(running) + len(ready))
                    continue
                outcome = Outcome(Status.FAILED, error=_words(outcome))  # noqa: PLW2901
            del running[task.named]
            self.work.store.log(task.key, *task.named, outcome)
            yield task.named, outcome

    def _task(self, stage: Stage, tile: Tile) -> TileTask:
        """Return a task, with a key made of the keys of what it needs."""
        needs = [*self._needed(stage, tile)]
        states = [
            "failed" if self._found[need].status is Status.FAILED else self._keys[need]
            for need in needs
        ]
        count = self._count_of(stage, tile)
        key = digest_of([self.plan_key, stage, tile.place, states, count])
        self._keys[stage, tile.place] = key
        files = tuple(
            (one, place, self._path(one, place))
            for one, place in needs
            if self._found[one, place].left_file
        )
        dark = () if stage is not Stage.WIDE else tuple(self._dark())
        return TileTask(stage, tile, key, files, dark, count)

    def _count_of(self, stage: Stage, tile: Tile) -> int | None:
        """Return how many Gaussians a tile commits, where all have a number together."""
        if stage is not Stage.FIT or self.work.count is None:
            return None
        if self._shares is None:
            wide = self._found.get((Stage.WIDE, OF_ALL))
            left = self.work.count - (wide.gaussians if wide else 0)
            looks = self.outcomes[Stage.LOOK]
            self._shares = shared(left, {t.place: o.numbers.get(LIT, 0.0) for t, o in looks})
        return self._shares[tile.place]

    def _path(self, stage: Stage, place: Place) -> Path:
        return self.work.store.path(stage, place, self._keys[stage, place])

    def _needed(self, stage: Stage, tile: Tile) -> Iterator[Named]:
        """Yield the tasks that one needs, of those that were done."""
        for need in needs_of(stage, tile.place, self.work.tiling, self.work.over):
            if need in self._found and (need[0] is not Stage.WIDE or self._is_hazy(tile)):
                yield need

    def _is_hazy(self, tile: Tile) -> bool:
        """Tell whether what is wide reaches into a tile; if it failed, that it may."""
        found = self._found[Stage.WIDE, OF_ALL]
        if found.status is Status.FAILED or not found.gaussians:
            return found.status is Status.FAILED
        if self._reached is None:
            self._reached = self.work.reached(self._path(Stage.WIDE, OF_ALL))
        return self._reached(tile)

    def _dark(self) -> Iterator[tuple[Tile, tuple[float, ...]]]:
        """Yield the tiles of background, with the means of their channels."""
        for tile, outcome in self.outcomes[Stage.LOOK]:
            if outcome.status is Status.BACKGROUND:
                means = (v for name, v in outcome.numbers.items() if name.startswith("mean"))
                yield tile, tuple(means)

    def _untouched(self, task: TileTask) -> Outcome | None:
        """Return what is known beforehand of a tile that no Gaussian reaches into."""
        looked = self._found.get((Stage.LOOK, task.tile.place))
        if task.stage is Stage.FIT and looked and looked.status is Status.BACKGROUND:
            return looked
        if task.files or task.stage not in {Stage.SEAMS, Stage.MEASURE, Stage.WRITE}:
            return None
        if task.stage is not Stage.WRITE:
            return Outcome(Status.DONE)
        fitted = self._found[Stage.FIT, task.tile.place]
        return fitted if fitted.status is Status.BACKGROUND else None

    def _tell(self, ended: Named, running: dict[Named, int]) -> None:
        """Say how far the first stage is in which something is left, or which has just ended."""
        if self.progress is None:
            return
        stage = next(
            one
            for one, total in self._totals.items()
            if one is ended[0] or self._counts[one]["ended"] < total
        )
        count = self._counts[stage]
        found = stage is ended[0] is Stage.FIT and self._found[ended].left_file
        self.progress(
            TileProgress(
                STAGES[stage],
                count["ended"],
                sum(one is stage for one, _ in running),
                self._totals[stage],
                count[Status.BACKGROUND],
                count[Status.FAILED],
                self._counts[Stage.FIT]["gaussians"],
                self._path(*ended) if found else None,
            )
        )

    def _count(self, stage: Stage, outcome: Outcome) -> None:
        self._counts[stage].update({"ended": 1, outcome.status: 1, "gaussians": outcome.gaussians})


def _words(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
