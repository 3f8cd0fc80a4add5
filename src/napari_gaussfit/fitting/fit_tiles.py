"""Fits of large stacks, by tiles: `fit_tiles`, from a stack to a folder that `load` reads.

The folder goes on from wherever a run was killed, and ends in the same bytes, whatever the order of
the tiles and the number of workers.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from napari_gaussfit.errors import SettingsError
from napari_gaussfit.fitting.pools import warm_up
from napari_gaussfit.fitting.tile_course import TileProgress
from napari_gaussfit.fitting.tile_fits import TileFitter, checked_settings
from napari_gaussfit.fitting.tile_runs import SampledStack, TilePlan, TileReport
from napari_gaussfit.fitting.tile_starts import TileStart
from napari_gaussfit.fitting.tile_tasks import TileWork
from napari_gaussfit.fitting.tiles import Tiling, default_core, default_halo
from napari_gaussfit.formats.tiled import require_pyarrow
from napari_gaussfit.measure.noise import given_noise
from napari_gaussfit.settings import FitSettings
from napari_gaussfit.stacks.lazy import LazyStack

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike

    from napari_gaussfit.measure.psf import Psf
    from napari_gaussfit.stacks.stack import Stack

    Given = LazyStack | Stack | str | os.PathLike[str]

__all__ = ["TileProgress", "TileReport", "checked_core", "fit_tiles", "lazy_stack", "lazy_stacks"]


def fit_tiles(  # noqa: PLR0913 - a name for each thing that may be given
    stack: Given | Sequence[Given],
    out: str | os.PathLike[str],
    settings: FitSettings | None = None,
    *,
    tile: Sequence[int] | None = None,
    psf: Psf | None = None,
    points: ArrayLike | None = None,
    start: str | os.PathLike[str] | None = None,
    client: Any = None,
    resume: bool = False,
    progress: Callable[[TileProgress], object] | None = None,
) -> TileReport:
    """Fit a stack by tiles, and write what is found into a folder.

    Parameters
    ----------
    stack : LazyStack, Stack or path-like, or a sequence of these
        What is fitted; or the channels of one recording, which share means and covariances.
    out : path-like
        The folder; made where there is none.
    settings : FitSettings, optional
        Of each tile's fit; the number of Gaussians is the most that a tile may have, or, with
        ``exactly``, that of all tiles, which share it by how much of each
        stands out of the noise. Gaussians are
        measured, for error bars, in each tile where most of them stand for themselves, unless
        ``measure`` says otherwise.
    tile : sequence of int, optional
        Voxels (z, y, x) of a tile; by default 128 where the spacing is finest, and as long along
        the other axes.
    psf : Psf, optional
        The point spread function, see `Fit`.
    points : array-like, shape [P, 3], optional
        Positions (z, y, x in the stack's unit) at which Gaussians begin, see `Fit`.
    start : path-like, optional
        A fit of this stack, a file or a folder, that is gone on from; with ``refine=True``.
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
        If a setting cannot be had by tiles, tiles are too small, channels differ in shape, or
        `resume` is asked for and what is in the folder is of another stack, other settings or
        another version.
    OutputError
        If there is a fit in the folder already, or it cannot be written.
    """
    require_pyarrow()
    warm_up(client, TileFitter.__module__)
    stacks = lazy_stacks(stack)
    facts = stacks[0].facts
    begins = TileStart.of(points, start, facts, len(stacks))
    checked = checked_settings(settings or FitSettings(), begins, len(stacks))
    if psf is not None:
        psf.in_unit(facts.unit)  # which refuses a stack without a spacing
    tiling = Tiling.of(facts.shape, checked_core(stacks[0], tile), default_halo(facts.spacing))
    sampled = [SampledStack.of(one, checked.background) for one in stacks]
    voxels = np.concatenate([box.reshape(-1) for box in sampled[0].sample.boxes])
    noise = given_noise(checked, voxels) or sampled[0].noise
    fitter = TileFitter(
        tuple(stacks), tiling, checked, tuple(one.levels for one in sampled), psf, begins, noise
    )
    over, _ = tiling.over_seams()
    plan = TilePlan.of(
        sampled, tiling, checked.to_dict(),
        noise=None if noise is None else asdict(noise),
        psf=None if psf is None else psf.to_dict(),
        start=begins.digest,
    )  # fmt: skip
    folder = Path(out)
    return plan.carry_out(
        folder,
        lambda store: TileWork(fitter, over, store, folder),
        client=client,
        resume=resume,
        progress=progress,
    )


def lazy_stacks(given: Given | Sequence[Given]) -> list[LazyStack]:
    """Return the channels of a stack, read box by box.

    Parameters
    ----------
    given : LazyStack, Stack or path-like, or a list or tuple of these
        One, or the channels of a recording.

    Returns
    -------
    list of LazyStack
        Of one shape and spacing.

    Raises
    ------
    SettingsError
        If there are none, or they differ in shape, spacing or unit.
    """
    several = [*given] if isinstance(given, (list, tuple)) else [cast("Given", given)]
    stacks = [lazy_stack(one) for one in several]
    if not stacks:
        raise SettingsError("no stack was given; give one, or the channels of one")
    first = stacks[0].facts
    for one in stacks[1:]:
        for name in ("shape", "spacing", "unit"):
            found, expected = getattr(one.facts, name), getattr(first, name)
            if found != expected:
                raise SettingsError(
                    f"{one.facts.name}: has {name} {found}, the first channel {expected}; channels "
                    "of one recording have one"
                )
    return stacks


def lazy_stack(stack: Given) -> LazyStack:
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
