"""Workers of a fit by tiles: one against two, in turns, and what they do when they fit nothing."""

from __future__ import annotations

import json
import tempfile
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.large_stacks import Piece, assemble
from benchmarks.tables import Cell, Table
from napari_gaussfit import FitSettings, LazyStack, fit_tiles
from napari_gaussfit.jobs.cluster import processes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.options import Options

    Shape = tuple[int, int, int]

__all__ = ["Run", "measure", "piece_of", "settings_of", "workers_table"]

MIDDLE: Shape = (256, 512, 512)
TURNS = (1, 2, 2, 1)
"""Workers, in turns: whatever else the machine does comes to both."""


def measure(options: Options) -> list[Table]:
    """Fit a stack of 32 tiles by one worker and by two."""
    shape, tile = options.pick((MIDDLE, (128, 128, 128)), ((24, 64, 64), (24, 32, 32)))
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "workers.ome.zarr"
        assemble(path, piece_of("neurite", options), shape)
        return [workers_table(path, Path(scratch), options, tile, options.pick(TURNS, (1,)))]


def settings_of(options: Options) -> FitSettings:
    """Return the settings of a tile's fit."""
    return FitSettings(device="cpu", iterations=options.pick(None, 15))


def piece_of(name: str, options: Options) -> Piece:
    """Return what stacks are put together of."""
    return Piece.named(name, options.pick((40, 128, 128), (12, 40, 40)))


def workers_table(
    path: Path, folder: Path, options: Options, tile: Shape, turns: Sequence[int]
) -> Table:
    """Fit a stack by so many workers, one turn after another, into folders ``by-N`` of one.

    Two tiles of it are fitted before, so that all kernels are compiled: one worker would do that in
    the first turn, for 20 seconds, while the others wait.
    """
    end = (tile[0], tile[1], 2 * tile[2])
    two = LazyStack.open(path).part((0, 0, 0), end)
    fit_tiles(two, folder / "before", settings_of(options), tile=tile)
    runs: dict[int, list[Run]] = {}
    rows: list[tuple[Cell, ...]] = []
    for turn, workers in enumerate(turns):
        again = "" if workers not in runs else f"-{turn}"
        out = folder / f"by-{workers}{again}"
        run = Run.of(path, out, settings_of(options), tile, workers)
        runs.setdefault(workers, []).append(run)
        tiles = len(run.of_stage("fit", "done"))
        spent = (run.before, run.of_tasks / workers, run.waiting(workers), run.after)
        haze = sum(line["seconds"] for line in run.lines if line["stage"] == "wide")
        shown = (haze, tiles / run.seconds, run.memory / 1e9, run.psnr)
        rows.append((str(workers), tiles, run.seconds, *spent, *shown))
    return Table(
        "Workers of one core each",
        (
            "workers", "tiles", "s", "before tasks", "of tasks, a worker", "waiting, a worker",
            "after", "haze, s", "tiles a s", "GB a worker", "voxels, dB",
        ),
        tuple(rows),
        _notes(runs),
    )  # fmt: skip


def _notes(runs: dict[int, list[Run]]) -> tuple[str, ...]:
    """Say how much more two workers do than one, and how much of the time is not of tasks."""
    if not {1, 2} <= set(runs):
        return ()
    one, two = (sum(run.seconds for run in runs[n]) / len(runs[n]) for n in (1, 2))
    beside = [run.seconds / (run.of_tasks / n) - 1 for n in runs for run in runs[n]]
    words = (
        f"Two workers do {one / two:.2f} times the tiles a second of one. A run takes "
        f"{100 * min(beside):.1f} to {100 * max(beside):.1f} % more than its tasks."
    )
    return (words,)


@dataclass(frozen=True)
class Run:
    """A fit by tiles: when it began and ended, what its log tells, and the PSNR of all voxels."""

    began: float
    ended: float
    lines: list[dict[str, Any]]
    psnr: float

    @classmethod
    def of(
        cls, path: Path | LazyStack, out: Path, settings: FitSettings, tile: Shape, workers: int
    ) -> Run:
        """Fit with so many workers of a core each; with none, here."""
        with processes(workers, 1) if workers else nullcontext() as client:
            began = time.time()
            report = fit_tiles(path, out, settings, tile=tile, client=client)
            ended = time.time()
        lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
        return cls(began, ended, lines, report.voxel_psnr)

    @property
    def seconds(self) -> float:
        """All of it, but for the start of workers."""
        return self.ended - self.began

    @property
    def of_tasks(self) -> float:
        """Seconds that tasks took, added up."""
        return float(sum(_seconds(line) for line in self.lines))

    @property
    def before(self) -> float:
        """Seconds until the first task."""
        return float(min(line["began"] for line in self.lines)) - self.began

    @property
    def after(self) -> float:
        """Seconds after the last task."""
        return self.ended - float(max(line["began"] + _seconds(line) for line in self.lines))

    def waiting(self, workers: int) -> float:
        """Seconds between the first and the last task in which a worker, on average, did none."""
        return self.seconds - self.before - self.after - self.of_tasks / workers

    @property
    def memory(self) -> float:
        """Bytes of the largest process."""
        return float(max(line["memory"] for line in self.lines))

    def of_stage(self, stage: str, status: str) -> list[dict[str, Any]]:
        """The tasks of a stage that ended so."""
        return [line for line in self.lines if (line["stage"], line["status"]) == (stage, status)]


def _seconds(line: dict[str, Any]) -> float:
    return float(line["seconds"] + line["read_seconds"])
