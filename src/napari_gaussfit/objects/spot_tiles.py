"""Spots of a large stack, by tiles: `fit_spot_tiles`, from a stack to a folder of tables.

Spots need no seams: each tile finds and measures the spots that it sees, with those that its
neighbours have found before among them, and commits the ones that are new.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_gaussfit.errors import FormatError
from napari_gaussfit.fitting.fit_tiles import checked_core, lazy_stack
from napari_gaussfit.fitting.pools import warm_up
from napari_gaussfit.fitting.tile_runs import SampledStack, TilePlan
from napari_gaussfit.fitting.tile_starts import TileStart
from napari_gaussfit.fitting.tile_store import Outcome, Stage, Status, TileStore
from napari_gaussfit.fitting.tile_tasks import timed
from napari_gaussfit.fitting.tiles import Tiling, default_halo
from napari_gaussfit.formats.tiled import (
    OBJECTS_NAME,
    REACH,
    REACH_SIGMAS,
    placed,
    read_index,
    read_tables,
    require_pyarrow,
    write_table,
)
from napari_gaussfit.measure.table import AXES, COVARIANCES, VOXEL_AXES, gaussians_of
from napari_gaussfit.objects.sizes import Sizes
from napari_gaussfit.objects.spots import SpotSettings, fit_spots, spots_table
from napari_gaussfit.objects.tracks import tracks_of
from napari_gaussfit.stacks.stack import Stack

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping, Sequence

    import pandas as pd
    from numpy.typing import ArrayLike, NDArray

    from napari_gaussfit.fitting.tile_course import TileProgress
    from napari_gaussfit.fitting.tile_runs import TileReport
    from napari_gaussfit.fitting.tile_tasks import TileTask
    from napari_gaussfit.fitting.tiles import Tile
    from napari_gaussfit.objects.tracks import Tracks
    from napari_gaussfit.stacks.lazy import LazyStack

__all__ = ["SpotWork", "fit_spot_tiles", "link_spot_tiles"]


HALO = 2.0
"""Widths of the largest spot that a tile sees beyond its core at least."""

SAME = 1.0
"""Widths of a spot within which one that a neighbour has found is the same."""


def fit_spot_tiles(  # noqa: PLR0913 - a name for each thing that may be given
    stack: LazyStack | Stack | str | os.PathLike[str],
    out: str | os.PathLike[str],
    settings: SpotSettings | None = None,
    *,
    tile: Sequence[int] | None = None,
    points: ArrayLike | None = None,
    client: Any = None,
    resume: bool = False,
    progress: Callable[[TileProgress], object] | None = None,
) -> TileReport:
    """Find the spots of a stack by tiles, and write their tables into a folder.

    Parameters
    ----------
    stack : LazyStack, Stack or path-like
        What is searched, one channel.
    out : path-like
        The folder; made where there is none.
    settings : SpotSettings, optional
        The defaults if None.
    tile : sequence of int, optional
        Voxels (z, y, x) of a tile; by default as for `fit_tiles`.
    points : array-like, shape [P, 3], optional
        Positions (z, y, x in the stack's unit) that are candidates in any case.
    client : dask.distributed.Client, optional
        What runs the tiles; this process does, one after the other, if None.
    resume : bool
        Whether to go on with what an earlier run of the same search left in the folder.
    progress : callable, optional
        Called with a `TileProgress` as tiles end.

    Returns
    -------
    TileReport
        ``gaussians`` is the number of spots; there is no PSNR of them.

    Raises
    ------
    SettingsError, OutputError
        As for `fit_tiles`.
    """
    require_pyarrow()
    warm_up(client, SpotWork.__module__)
    lazy, asked = lazy_stack(stack), settings or SpotSettings()
    tiling = Tiling.of(lazy.shape, checked_core(lazy, tile), _halo(lazy, asked))
    settled = asdict(asked) | {"psf": None if asked.psf is None else asked.psf.to_dict()}
    begins = TileStart.of(points, None, lazy.facts, 1)
    plan = TilePlan.of(
        [SampledStack.of(lazy)], tiling, settled, parts=OBJECTS_NAME, start=begins.digest
    )
    folder = Path(out)
    return plan.carry_out(
        folder,
        lambda store: SpotWork(
            lazy, tiling, asked, TileStore(store.folder, ".parquet"), folder, begins
        ),
        client=client,
        resume=resume,
        progress=progress,
    )


def link_spot_tiles(
    folders: Mapping[int, Path], out: Path, *, reach: float | None = None
) -> Tracks:
    """Link the spots of several times, each found by tiles, and write the table of all.

    Every spot is linked by where it is. ``objects.parquet`` in `out` has a part a time, with a
    column ``track``.

    Parameters
    ----------
    folders : mapping of int to Path
        By its number, where the result of each time is.
    out : Path
        The folder that is written into.
    reach : float, optional
        How far a spot may move from one time to the next, in the stack's unit; if None, by what
        spots move by.

    Returns
    -------
    Tracks
        Which spots are one.
    """
    import pandas as pd

    unit = read_index(next(iter(folders.values())))[0].unit
    tables = {number: [*read_tables(folder)] for number, folder in folders.items()}
    whole = {n: pd.concat(parts, ignore_index=True) for n, parts in tables.items() if parts}
    empty = pd.DataFrame(columns=[*AXES, *COVARIANCES, "amplitude"], dtype=np.float64)
    found = [gaussians_of(whole.get(number, empty), unit) for number in folders]
    tracks = tracks_of(found, [np.zeros(3)] * len(found), [*folders], reach=reach)
    (out / OBJECTS_NAME).mkdir(exist_ok=True)
    for before in (out / OBJECTS_NAME).glob("*.parquet"):
        before.unlink()
    for number, numbers in zip(folders, tracks.numbers, strict=True):
        if number in whole:
            table = whole[number].assign(index=np.arange(len(numbers)), track=numbers)
            write_table(out / OBJECTS_NAME / f"{number:04d}.parquet", table)

    return tracks


def _halo(stack: LazyStack, settings: SpotSettings) -> tuple[int, int, int]:
    largest = Sizes.of(stack.facts, settings.least_size, settings.largest_size).largest
    z, y, x = (
        max(least, math.ceil(HALO * largest / step))
        for least, step in zip(default_halo(stack.spacing), stack.spacing, strict=True)
    )
    return z, y, x


@dataclass(frozen=True, eq=False)
class SpotWork:
    """Finds the spots of tiles.

    Parameters
    ----------
    stack : LazyStack
        Read box by box.
    tiling : Tiling
        How the stack is divided into tiles.
    settings : SpotSettings
        What is looked for.
    store : TileStore
        Of working files, which are tables.
    out : Path
        Folder of the result.
    start : TileStart
        Points that are candidates in any case.
    """

    stack: LazyStack
    tiling: Tiling
    settings: SpotSettings
    store: TileStore
    out: Path
    start: TileStart = field(default_factory=TileStart)

    @property
    def over(self) -> Tiling:
        """Nothing is done over seams."""
        return self.tiling

    @property
    def count(self) -> None:
        """Each tile has as many spots as it has."""
        return None

    @property
    def stages(self) -> list[tuple[Stage, list[Tile]]]:
        """What is done in turn, and in which tiles."""
        tiles = [*self.tiling.tiles()]
        return [(Stage.FIT, tiles), (Stage.WRITE, tiles)]

    def do(self, task: TileTask) -> Outcome:
        """Do a task.

        Parameters
        ----------
        task : TileTask
            To find the spots of a tile, or to write its part of the result.

        Returns
        -------
        Outcome
            How it ended, with the number of spots that the tile commits.
        """
        return timed(self._find if task.stage is Stage.FIT else self._write, task)

    def reached(self, path: Path) -> Callable[[Tile], bool]:
        """Tell of no tile, since nothing is wider than tiles see.

        Parameters
        ----------
        path : Path
            The file of what is wider than a tile sees.

        Returns
        -------
        callable
            Says of every tile that nothing wide reaches it.
        """
        del path
        return lambda _: False

    def _find(self, task: TileTask) -> Outcome:
        tile = task.tile
        began = time.perf_counter()
        voxels = self.stack.read(tile.low, tile.high)
        read = round(time.perf_counter() - began, 4)
        numbers = {"lowest": float(voxels.min()), "highest": float(voxels.max())}
        if numbers["lowest"] == numbers["highest"]:
            return Outcome(Status.BACKGROUND, 0, numbers, read_seconds=read)
        found = self._committed(tile, voxels, [path for _, path in task.of(Stage.FIT)])
        if len(found):
            write_table(self.store.path(task.stage, tile.place, task.key), found)
        return Outcome(Status.DONE, len(found), numbers, read_seconds=read)

    def _committed(self, tile: Tile, voxels: NDArray[Any], earlier: Sequence[Path]) -> pd.DataFrame:
        """Return the table of the spots that a tile commits, positions from the stack's first."""
        spacing = self.stack.spacing
        part = Stack.from_array(voxels, spacing=spacing, unit=self.stack.facts.unit, name="a tile")
        low = np.asarray(tile.low)
        known = np.concatenate(
            [np.empty((0, 3)), *(self._load(path)[[*VOXEL_AXES]].to_numpy() for path in earlier)]
        )
        inside = ((known >= low - 0.5) & (known <= np.asarray(tile.high) - 0.5)).all(1)
        earlier_ones = points = (known[inside] - low) * spacing
        if self.start.points is not None:
            given = self.start.points_of(tile, self.tiling, self.stack.facts)[0]
            points = np.concatenate([points, given])
        spots = fit_spots(part, self.settings, points=points if len(points) else None)
        table = spots_table(spots, spacing)
        new = _new(table, earlier_ones)
        mine = self.tiling.committed(tile, table[[*VOXEL_AXES]].to_numpy() + low)
        return placed(table[new & mine].copy(), tile.low, spacing)

    def _write(self, task: TileTask) -> Outcome:
        import pandas as pd

        tables = [self._load(path) for _, path in task.of(Stage.FIT)]
        if not tables:
            return Outcome(Status.DONE)
        table = pd.concat(tables, ignore_index=True)
        places = self.tiling.places_of(table[[*VOXEL_AXES]].to_numpy())
        mine = table[(places == task.tile.place).all(1)]
        if not len(mine):
            return Outcome(Status.DONE)
        mine = mine.assign(index=np.arange(len(mine)), **self.stack.facts.place)
        write_table(self.out / OBJECTS_NAME / f"{task.tile.name}.parquet", mine)
        return Outcome(Status.DONE, len(mine), self._reach(mine))

    def _load(self, path: Path) -> pd.DataFrame:
        import pandas as pd

        try:
            return pd.read_parquet(path)
        except (OSError, ValueError) as error:
            raise FormatError(
                f"{path}: a working file of the fit is missing or damaged; --resume finds its "
                "spots again"
            ) from error

    def _reach(self, table: pd.DataFrame) -> dict[str, float]:
        variances = table[[name for name, (i, j) in COVARIANCES.items() if i == j]].to_numpy()
        step, means = np.asarray(self.stack.spacing), table[[*AXES]].to_numpy()
        low = np.floor(((means - REACH_SIGMAS * np.sqrt(variances)) / step).min(0))
        high = np.ceil(((means + REACH_SIGMAS * np.sqrt(variances)) / step).max(0))
        return dict(zip(REACH, [*low.tolist(), *high.tolist()], strict=True))


def _new(table: pd.DataFrame, points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tell which spots [K] are none that a neighbour has found: one is taken for each point."""
    from scipy.optimize import linear_sum_assignment

    new = np.ones(len(table), np.bool_)
    if not len(points) or not len(table):
        return new
    means, widths = table[[*AXES]].to_numpy(), table["fwhm_1"].to_numpy()
    distances = np.linalg.norm(means[:, None] - points, axis=-1) / (SAME * widths[:, None])
    spot, point = linear_sum_assignment(np.minimum(distances, 2.0))
    new[spot[distances[spot, point] <= 1]] = False
    return new
