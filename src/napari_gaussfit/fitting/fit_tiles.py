"""Fits of large stacks, by tiles: `fit_tiles`, from a stack to a folder that `load` reads.

The folder goes on from wherever a run was killed, and ends in the same bytes, whatever the order of
the tiles and the number of workers.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_gaussfit.errors import SettingsError
from napari_gaussfit.fitting.tile_fits import Levels, TileFitter, checked_settings
from napari_gaussfit.fitting.tile_runs import TilePlan, TileProgress, TileReport
from napari_gaussfit.fitting.tile_tasks import TileWork
from napari_gaussfit.fitting.tiles import Tiling, default_core, default_halo
from napari_gaussfit.formats.tiled import require_pyarrow
from napari_gaussfit.settings import FitSettings
from napari_gaussfit.stacks.lazy import LazyStack

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from napari_gaussfit.stacks.stack import Stack

__all__ = ["TileProgress", "TileReport", "checked_core", "fit_tiles", "lazy_stack"]


def fit_tiles(
    stack: LazyStack | Stack | str | os.PathLike[str],
    out: str | os.PathLike[str],
    settings: FitSettings | None = None,
    *,
    tile: Sequence[int] | None = None,
    client: Any = None,
    resume: bool = False,
    progress: Callable[[TileProgress], object] | None = None,
) -> TileReport:
    """Fit a stack by tiles, and write what is found into a folder.

    Parameters
    ----------
    stack : LazyStack, Stack or path-like
        What is fitted, one channel.
    out : path-like
        The folder; made where there is none.
    settings : FitSettings, optional
        Of each tile's fit; the number of Gaussians is the most that a tile may have.
    tile : sequence of int, optional
        Voxels (z, y, x) of a tile; by default 128 where the spacing is finest, and as long along
        the other axes.
    client : dask.distributed.Client, optional
        Whose workers fit; they must see the stack's file and the folder by these paths. Without
        one, all is done here, one tile after another.
    resume : bool
        Whether to go on with what is in the folder.
    progress : callable, optional
        Called with a `TileProgress` as tiles end.

    Returns
    -------
    TileReport
        What `load` finds in the folder.

    Raises
    ------
    SettingsError
        If a setting cannot be had by tiles, tiles are too small, or `resume` is asked for and
        what is in the folder is of another stack, other settings or another version.
    OutputError
        If there is a fit in the folder already, or it cannot be written.
    """
    require_pyarrow()
    lazy = lazy_stack(stack)
    checked = checked_settings(settings or FitSettings())
    tiling = Tiling.of(lazy.shape, checked_core(lazy, tile), default_halo(lazy.spacing))
    sample = lazy.sample()
    levels = Levels.of(sample, checked.background)
    fitter = TileFitter(lazy, tiling, checked, levels)
    over, over_tiles = tiling.over_seams()
    plan = TilePlan.of(lazy, tiling, checked.to_dict(), levels, sample.digest)
    folder = Path(out)
    return plan.carry_out(
        folder,
        lambda store: TileWork(fitter, over, store, folder),
        over_tiles,
        client=client,
        resume=resume,
        progress=progress,
    )


def lazy_stack(stack: LazyStack | Stack | str | os.PathLike[str]) -> LazyStack:
    """Return a stack that is read box by box.

    Parameters
    ----------
    stack : LazyStack, Stack or path-like
        It itself, one that is in memory, or a file.

    Returns
    -------
    LazyStack
        Of one channel.
    """
    from napari_gaussfit.stacks.stack import Stack

    if isinstance(stack, LazyStack):
        return stack
    return LazyStack.of_stack(stack) if isinstance(stack, Stack) else LazyStack.open(stack)


def checked_core(stack: LazyStack, tile: Sequence[int] | None) -> tuple[int, int, int]:
    """Return the voxels of a tile's core.

    Parameters
    ----------
    stack : LazyStack
        Whose spacing counts where none are asked for.
    tile : sequence of int or None
        What was asked for.

    Returns
    -------
    tuple of int
        Along z, y and x.

    Raises
    ------
    SettingsError
        If these are not three whole numbers of 2 or more.
    """
    if tile is None:
        return default_core(stack.spacing)
    sizes = [int(n) for n in tile]
    if len(sizes) != 3 or min(sizes) < 2 or sizes != [*tile]:
        raise SettingsError(
            f"tile={tuple(tile)!r}: expected three whole numbers of 2 or more, the voxels of a "
            "tile along z, y and x, e.g. tile=(64, 128, 128) (--tile 64 128 128)"
        )
    return sizes[0], sizes[1], sizes[2]
