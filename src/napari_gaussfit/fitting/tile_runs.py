"""A fit by tiles as a whole: its plan, its folder and its report.

What is done in a tile is for the work that it is given, and when, for `tile_course`; this goes on
from wherever an earlier run was killed.
"""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_gaussfit.errors import OutputError, SettingsError
from napari_gaussfit.files import replacing
from napari_gaussfit.fitting.pools import DaskPool, Pool, SerialPool
from napari_gaussfit.fitting.tile_course import STAGES, TileCourse
from napari_gaussfit.fitting.tile_levels import Levels
from napari_gaussfit.fitting.tile_store import (
    LOG_NAME,
    Outcome,
    Stage,
    Status,
    TileStore,
    digest_of,
)
from napari_gaussfit.formats.tiled import (
    INDEX_NAME,
    OBJECTS_NAME,
    PARTS_NAME,
    REACH,
    TILES_NAME,
    WIDE_PART,
    numbered,
    read_index,
    write_index,
    write_tiles,
)
from napari_gaussfit.measure.photon_transfer import photon_transfer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from napari_gaussfit.fitting.pools import Work
    from napari_gaussfit.fitting.tile_course import TileProgress
    from napari_gaussfit.fitting.tiles import Tile, Tiling
    from napari_gaussfit.measure.noise import Noise
    from napari_gaussfit.stacks.facts import StackFacts
    from napari_gaussfit.stacks.lazy import LazyStack, Sample

__all__ = [
    "OUTPUTS",
    "SampledStack",
    "TilePlan",
    "TileReport",
    "forget_tiles",
]

PLAN_NAME, WORK_NAME = "plan.json", "work"

OUTPUTS = (INDEX_NAME, TILES_NAME, PARTS_NAME, OBJECTS_NAME, PLAN_NAME, LOG_NAME, WORK_NAME)
"""What a fit by tiles leaves in its folder, or has there meanwhile."""


@dataclass(frozen=True)
class TileReport:
    """How a fit by tiles has ended.

    Parameters
    ----------
    out : Path
        The folder that the result lies in.
    gaussians, tiles, background_tiles : int
        Gaussians in all, tiles, and those that held nothing but background.
    failed : tuple of (str, str)
        Place of each tile that was given up ("0001-0002-0000"), and why.
    voxel_psnr : float
        PSNR of all voxels in dB, over the range of the stack; of several channels, of the first.
    seam_psnr, interior_psnr : float
        Of those within half a halo of a seam, and of the others; NaN where there are none.
    other_psnrs : tuple of float
        PSNR of all voxels of each other channel.
    measured : int
        Gaussians that were measured, which have error bars.
    """

    out: Path
    gaussians: int
    tiles: int
    background_tiles: int
    failed: tuple[tuple[str, str], ...]
    voxel_psnr: float
    seam_psnr: float
    interior_psnr: float
    other_psnrs: tuple[float, ...] = ()
    measured: int = 0


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
class SampledStack:
    """A channel, and what a sample of it tells.

    Parameters
    ----------
    stack : LazyStack
        Read box by box.
    sample : Sample
        The voxels that were read to judge the stack by.
    levels : Levels
        The background and noise of the sample.
    noise : Noise or None
        Of the stack; None where it cannot be told.
    """

    stack: LazyStack
    sample: Sample
    levels: Levels
    noise: Noise | None

    @classmethod
    def of(cls, stack: LazyStack, background: float | None = None) -> SampledStack:
        """Read the sample of a stack.

        Parameters
        ----------
        stack : LazyStack
            The stack that is sampled; one channel.
        background : float, optional
            Raw intensity, where it is known.
        """
        sample = stack.sample()
        curve = photon_transfer(np.concatenate(sample.boxes))
        return cls(stack, sample, Levels.of(sample, curve, background), curve.noise)


@dataclass(frozen=True, eq=False)
class TilePlan:
    """What a fit by tiles depends on, all together.

    Parameters
    ----------
    facts : StackFacts
        What is fitted; of several channels, without a channel's number.
    tiling : Tiling
        How the stack is divided into tiles.
    settings : dict
        Of each tile's fit, as JSON types.
    levels : tuple of Levels
        The background and noise of each channel.
    parts : str
        Name of the folder of tables.
    content : dict
        All that the result depends on.
    """

    facts: StackFacts
    tiling: Tiling
    settings: dict[str, Any]
    levels: tuple[Levels, ...]
    parts: str
    content: dict[str, Any]

    @classmethod
    def of(
        cls,
        sampled: Sequence[SampledStack],
        tiling: Tiling,
        settings: Mapping[str, Any],
        *,
        parts: str = PARTS_NAME,
        **more: Any,
    ) -> TilePlan:
        """Return the plan of a fit; see the class. All that is given beside must be JSON types."""
        from napari_gaussfit import __version__

        content = {
            "stack": [asdict(one.stack.facts) for one in sampled],
            "fill_nan": [one.stack.fill_nan for one in sampled],
            "dtype": [str(one.stack.dtype) for one in sampled],
            "sample": [one.sample.digest for one in sampled],
            "tiles": asdict(tiling),
            "settings": dict(settings),
            "levels": [asdict(one.levels) for one in sampled],
            "parts": parts,
            "version": __version__,
            **more,
        }
        known = json.loads(json.dumps(content))
        facts = sampled[0].stack.facts
        if len(sampled) > 1:
            facts = replace(facts, channel=None)
        levels = tuple(one.levels for one in sampled)
        return cls(facts, tiling, known["settings"], levels, parts, known)

    def carry_out(
        self,
        folder: Path,
        work_with: Callable[[TileStore], Work],
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
        client, resume, progress
            Who does the work, whether to go on, and who hears of it, as for `fit_tiles`.
        """
        ended = self._begin(folder, resume=resume)
        if ended is not None:
            return ended
        work = work_with(TileStore(folder / WORK_NAME))
        pool: Pool = SerialPool() if client is None else DaskPool(client)
        course = TileCourse(work, self.key, pool, progress, work.store.ended())
        try:
            course.run()
        finally:
            if isinstance(pool, DaskPool):
                pool.close()
        return self._finish(folder, course.outcomes)

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

    def _finish(
        self, folder: Path, outcomes: Mapping[Stage, Sequence[tuple[Tile, Outcome]]]
    ) -> TileReport:
        """Write the index, and remove what was needed meanwhile, unless a tile is still missing."""
        written = {tile.place: outcome for tile, outcome in outcomes[Stage.WRITE]}
        failed = {
            f"{STAGES[stage]} {tile.name}": f"{_voxels(tile)}: {outcome.error}"
            for stage in outcomes
            for tile, outcome in outcomes[stage]
            if outcome.status is Status.FAILED
        }
        fitted = {tile.place: outcome for tile, outcome in outcomes[Stage.FIT]}
        channels = len(self.levels)
        rows = [
            _row(tile, fitted[tile.place], written[tile.place], channels)
            for tile in self.tiling.tiles()
        ]
        report = _summary(rows, self.levels, failed)
        wide = outcomes.get(Stage.WIDE, [])
        for _, outcome in wide:
            if outcome.gaussians:
                rows.append(_wide_row(rows[0], self.tiling, outcome))
                report["gaussians"] += outcome.gaussians
                report["wide"] = outcome.gaussians
        write_tiles(folder, rows)
        psf = self.content.get("psf")
        write_index(folder, self.facts, self.settings, report, parts=self.parts, psf=psf)
        # What a run that was killed was writing then.
        parts = {row["part"] for row in rows}
        for path in (folder / self.parts).iterdir():
            if path.name not in parts:
                path.unlink()
        if not failed:
            _clear(folder)
        return _report(folder, report)


def _clear(folder: Path) -> None:
    """Remove what was needed meanwhile, but for the log."""
    work = folder / WORK_NAME
    if (work / LOG_NAME).is_file():
        (work / LOG_NAME).replace(folder / LOG_NAME)
    shutil.rmtree(work, ignore_errors=True)


def _voxels(tile: Tile) -> str:
    sides = zip("zyx", tile.first, tile.end, strict=True)
    return "voxels " + ", ".join(f"{axis} {a} to {b - 1}" for axis, a, b in sides)


_OF_CHANNELS = (
    "lowest", "highest", "voxels", "squared_error", "seam_voxels", "seam_squared_error"
)  # fmt: skip


def _row(tile: Tile, fitted: Outcome, written: Outcome, channels: int) -> dict[str, Any]:
    """Return a tile's row in the table of tiles."""
    numbers = written.numbers
    failed = Status.FAILED in (fitted.status, written.status)
    row: dict[str, Any] = {"tile": tile.name}
    for what, corner in (("first", tile.first), ("end", tile.end)):
        row |= {f"{what}_{axis}": n for axis, n in zip("zyx", corner, strict=True)}
    row |= {
        "status": str(Status.FAILED if failed else fitted.status),
        "gaussians": written.gaussians,
        "measured": int(numbers.get("measured", 0)),
        "part": f"{tile.name}.parquet" if written.gaussians else "",
    }
    of_channels = [f"{name}{numbered(n)}" for n in range(channels) for name in _OF_CHANNELS]
    return row | {name: numbers.get(name, math.nan) for name in (*of_channels, *REACH)}


def _wide_row(like: dict[str, Any], tiling: Tiling, outcome: Outcome) -> dict[str, Any]:
    """Return the row of what is wider than tiles see."""
    row = dict.fromkeys(like, math.nan) | {"tile": "wide", "status": "wide", "measured": 0}
    for axis, size in zip("zyx", tiling.shape, strict=True):
        row |= {f"first_{axis}": 0, f"end_{axis}": size}
    row |= {"gaussians": outcome.gaussians, "part": WIDE_PART}
    return row | {name: outcome.numbers[name] for name in REACH}


def _summary(
    rows: Sequence[dict[str, Any]], levels: Sequence[Levels], failed: dict[str, str]
) -> dict[str, Any]:
    """Return the report of all tiles, as JSON types; None where a figure is not known."""
    first, *others = (_of_channel(rows, n, level) for n, level in enumerate(levels))
    several = {"other_channels": others} if others else {}
    return {
        "gaussians": sum(row["gaussians"] for row in rows),
        "measured": sum(row["measured"] for row in rows),
        "tiles": len(rows),
        "background_tiles": sum(row["status"] == Status.BACKGROUND for row in rows),
        "failed": failed,
        **first,
        **several,
    }


def _of_channel(rows: Sequence[dict[str, Any]], n: int, level: Levels) -> dict[str, Any]:
    """Return what is known of the voxels of a channel."""
    known = [
        {name: row[f"{name}{numbered(n)}"] for name in _OF_CHANNELS} | {"status": row["status"]}
        for row in rows
    ]
    measured = [row for row in known if not math.isnan(row["voxels"])]
    lowest = min((row["lowest"] for row in measured), default=math.nan)
    highest = max((row["highest"] for row in measured), default=math.nan)

    def psnr(part: str, those: Sequence[dict[str, Any]]) -> float | None:
        voxels = sum(row[f"{part}voxels"] for row in those)
        error = sum(row[f"{part}squared_error"] for row in those)
        if not voxels or not error or not highest > lowest:
            return None
        return 10 * math.log10((highest - lowest) ** 2 / (error / voxels))

    for row in measured:
        for name in ("voxels", "squared_error"):
            row[f"inner_{name}"] = row[name] - row[f"seam_{name}"]
    # Of tiles of background the seams are not looked at; nor do they count as interior.
    fitted = [row for row in measured if row["status"] != Status.BACKGROUND]
    return {
        "voxel_psnr": psnr("", measured),
        "seam_psnr": psnr("seam_", measured),
        "interior_psnr": psnr("inner_", fitted),
        "background": level.background,
        "sample": level.words,
        "lowest": lowest if measured else None,
        "highest": highest if measured else None,
    }


def _report(folder: Path, report: dict[str, Any]) -> TileReport:
    def known(of: dict[str, Any], name: str) -> float:
        return math.nan if of[name] is None else float(of[name])

    return TileReport(
        folder,
        report["gaussians"],
        report["tiles"],
        report["background_tiles"],
        tuple(report["failed"].items()),
        known(report, "voxel_psnr"),
        known(report, "seam_psnr"),
        known(report, "interior_psnr"),
        tuple(known(one, "voxel_psnr") for one in report.get("other_channels", ())),
        report["measured"],
    )
