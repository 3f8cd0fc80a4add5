"""A fit by tiles that a window asks for: what is asked, and what it hears while that is done."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["FolderState", "Pace", "RenderTask", "TilesTask", "folder_state", "progress_words"]

LEAST_SECONDS = 2.0
"""After which the time that is left can be told by what was done."""


@dataclass(frozen=True)
class TilesTask:
    """A fit by tiles.

    Parameters
    ----------
    source : str
        Path of the stack.
    out : str
        The folder of the result.
    settings : dict
        Of each tile's fit, `FitSettings.to_dict`.
    channels : list of (int or None)
        The channels that share their Gaussians; None where there is no choice.
    time, position : int or None
        Which time and which image of the file.
    spacing : list of float or None
        (dz, dy, dx) in micrometers, in place of what the file says.
    part : list of two lists of int, or None
        The first voxel (z, y, x) that is fitted and the one behind the last; all of them if None.
    tile : list of int or None
        Voxels of a tile; None for those that it has by default.
    psf : dict or None
        The point spread function, `Psf.to_dict`.
    workers : int or None
        Processes; None for as many as cores and memory allow.
    scheduler : str or None
        Address of a cluster that is there, in place of processes of its own.
    resume : bool
        Whether to go on with what is in the folder.
    spots : dict or None
        What is asked of spots, as `SpotSettings` has it; None where structure is fitted.
    """

    source: str
    out: str
    settings: dict[str, Any]
    channels: list[int | None]
    time: int | None = None
    position: int | None = None
    spacing: list[float] | None = None
    part: list[list[int]] | None = None
    tile: list[int] | None = None
    psf: dict[str, Any] | None = None
    workers: int | None = None
    scheduler: str | None = None
    resume: bool = False
    spots: dict[str, Any] | None = None

    @property
    def what(self) -> str:
        """What is looked for."""
        return "Gaussians" if self.spots is None else "spots"


@dataclass(frozen=True)
class RenderTask:
    """The volume of a fit by tiles, written as OME-Zarr in several resolutions.

    Parameters
    ----------
    fit : str
        The folder of the fit.
    path : str
        The folder to write or to replace.
    """

    fit: str
    path: str


@dataclass(frozen=True)
class FolderState:
    """What there is of a fit by tiles in a folder.

    Parameters
    ----------
    begun : bool
        Whether there is any.
    goes_on : bool
        Whether something of it is still to be done.
    ended : bool
        Whether it can be read, maybe without tiles that failed.
    """

    begun: bool = False
    goes_on: bool = False
    ended: bool = False


def folder_state(path: str) -> FolderState:
    """Return what there is of a fit by tiles in a folder.

    Parameters
    ----------
    path : str
        Of a folder, or of nothing; "" is none.
    """
    from napari_gaussfit.fitting.tile_runs import PLAN_NAME, WORK_NAME
    from napari_gaussfit.formats.tiled import holds_tiles

    folder = Path(path)
    ended = bool(path) and holds_tiles(folder)
    begun = bool(path) and (folder / PLAN_NAME).is_file()
    return FolderState(begun or ended, begun and (folder / WORK_NAME).is_dir(), ended)


class Pace:
    """How long a stage of a fit by tiles still takes, by what its tiles have taken."""

    def __init__(self) -> None:
        self._stage = ""
        self._begun, self._from = 0.0, 0

    def left(self, stage: str, done: int, total: int) -> float | None:
        """Return the seconds that are left of a stage, None where that cannot be told yet.

        Parameters
        ----------
        stage : str
            The name of the stage.
        done, total : int
            Tiles that have ended, and all.
        """
        now = time.monotonic()
        if stage != self._stage:
            self._stage, self._begun, self._from = stage, now, done
        passed, since = now - self._begun, done - self._from
        if passed < LEAST_SECONDS or not since or done == total:
            return None
        return (total - done) * passed / since


def progress_words(words: Mapping[str, Any], left: str) -> str:
    """Return how far a fit by tiles has come.

    Parameters
    ----------
    words : mapping
        As `TileProgress` has them, and ``what`` is looked for: "Gaussians" or "spots".
    left : str
        The time that is left, "" where it is not known.
    """
    rest = words["total"] - words["done"] - words["running"]
    more = [f"{words[name]:,} {name}" for name in ("background", "failed") if words[name]]
    return (
        f"{words['stage'].capitalize()}: {words['done']:,} of {words['total']:,} tiles done"
        f"{''.join(f' ({text})' for text in [', '.join(more)] if text)}, "
        f"{words['running']:,} running, {max(0, rest):,} left"
        f"{f', {left} left' if left else ''}; {words['gaussians']:,} {words['what']}"
    )
