"""``napari-gaussfit fit`` of a large stack: by tiles, on the cores of this machine or a cluster."""

from __future__ import annotations

import math
import signal
import sys
from contextlib import closing, contextmanager
from copy import copy
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any

from napari_gaussfit.cli.printing import answer, answering_elsewhere
from napari_gaussfit.errors import SettingsError
from napari_gaussfit.jobs.cluster import connected, own_cluster, workers_that_fit
from napari_gaussfit.stacks.large import LARGE, is_large

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tqdm import tqdm

    from napari_gaussfit.fitting.tile_course import TileProgress
    from napari_gaussfit.fitting.tile_runs import TileReport
    from napari_gaussfit.objects.spots import SpotSettings
    from napari_gaussfit.stacks.lazy import LazyStack

__all__ = [
    "add_options",
    "answer_by_index",
    "are_wanted",
    "exported",
    "opened",
    "residual_exported",
    "run_fit",
    "run_spots",
    "run_times",
]

DONE, TILES_FAILED = 0, 3


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what a fit by tiles can be told.

    Parameters
    ----------
    parser : ArgumentParser
        Of ``fit`` or ``spots``.
    """
    group = parser.add_argument_group("large stacks, by tiles")
    group.add_argument(
        "--tile", type=int, nargs=3, metavar=("DZ", "DY", "DX"),
        help=f"by tiles of so many voxels (128 where the spacing is finest, from {LARGE:,} "
        "voxels on)",
    )  # fmt: skip
    group.add_argument("--no-tiles", action="store_true", help="in one piece, however large")
    group.add_argument(
        "--workers", type=int, metavar="N", help="processes (as many as cores and memory allow)"
    )
    group.add_argument(
        "--scheduler", metavar="ADDRESS", help="of a dask cluster, tcp://host:8786 (none)"
    )


def are_wanted(arguments: argparse.Namespace) -> bool:
    """Tell whether a stack is to be fitted by tiles.

    Parameters
    ----------
    arguments : Namespace
        Of ``fit`` or ``spots``, or of a command that fits first, which has no such options.

    Raises
    ------
    SettingsError
        If options are given that exclude each other, or the size of tiles beside something that
        cannot be had by tiles.
    """
    if not hasattr(arguments, "no_tiles"):
        return False
    asked = [
        f"--{name}"
        for name in ("tile", "workers", "scheduler")
        if getattr(arguments, name) is not None
    ]
    if arguments.no_tiles:
        if asked:
            raise SettingsError(f"--no-tiles and {asked[0]} exclude each other; leave one out")
        return False
    if getattr(arguments, "also", ()):
        if asked:
            raise SettingsError(f"--also cannot be had by tiles; leave out {asked[0]}, or that")
        return False
    return bool(asked) or _is_large(arguments)


def _is_large(arguments: argparse.Namespace) -> bool:
    from napari_gaussfit.stacks.readers import read_layout

    return is_large(read_layout(arguments.stack, position=arguments.position).stack_shape)


def run_times(
    arguments: argparse.Namespace,
    folder: Path,
    run: Callable[[argparse.Namespace, Path], int],
    *,
    links: bool = False,
) -> int:
    """Look at several times by tiles, one after the other, each in a folder of its own.

    Parameters
    ----------
    arguments : Namespace
        Of ``fit`` or ``spots``, with a range of times.
    folder : Path
        In which each time gets a folder, by its number.
    run : callable
        Given arguments of one time and its folder, returns the exit code.
    links : bool
        Whether what is found is spots, which are linked from time to time.

    Returns
    -------
    int
        The exit code: 3 where tiles failed.
    """
    from napari_gaussfit.files import write_table
    from napari_gaussfit.fitting.tile_runs import OUTPUTS
    from napari_gaussfit.formats.tiled import OBJECTS_NAME
    from napari_gaussfit.jobs.overwriting import refuse_to_replace
    from napari_gaussfit.jobs.time_folder import TRACKS_NAME, tracks_report
    from napari_gaussfit.objects.spot_tiles import link_spot_tiles
    from napari_gaussfit.stacks.readers import read_layout

    count = read_layout(arguments.stack, position=arguments.position).times
    times = range(*arguments.time.indices(count))
    if not times:
        raise SettingsError(
            f"--time: none of the {count} times of {arguments.stack} is among those; they are 0 to "
            f"{count - 1}"
        )
    folders = {time: folder / f"{time:04d}" for time in times}
    # Before hours have gone into the times that come first.
    linked = [folder / OBJECTS_NAME, folder / TRACKS_NAME] if links else []
    refuse_to_replace(
        [*linked, *(one / name for one in folders.values() for name in OUTPUTS)],
        inputs=[arguments.stack],
        force=arguments.force or arguments.resume, instead=", --resume goes on with it",
    )  # fmt: skip
    codes = []
    for time, one in folders.items():
        of_time = copy(arguments)
        of_time.time = time if count > 1 else None
        of_time.asked = arguments.asked | {"time": time}
        with answering_elsewhere():
            codes.append(run(of_time, one))
    said: dict[str, Any] = {"times": {str(n): str(one) for n, one in folders.items()}}
    if links:
        tracks = link_spot_tiles(folders, folder, reach=arguments.reach)
        write_table(folder / TRACKS_NAME, tracks.table())
        said |= tracks_report(tracks)
        sys.stdout.write(
            f"{folder}: {sum(map(len, tracks.numbers)):,} spots at {len(tracks.times)} times in "
            f"{len(tracks):,} tracks; wrote {OBJECTS_NAME} of all times, {TRACKS_NAME}\n"
        )
    elif len(folders) > 1:
        sys.stderr.write(
            f"note: {folder}: each time is a fit of its own, whose Gaussians are not linked to the "
            "next one's, since they begin anew; spots by tiles are (napari-gaussfit spots), and so "
            "are Gaussians of a fit in one piece (--no-tiles)\n"
        )
    answer({"out": str(folder)} | said)
    return max(codes)


def run_fit(arguments: argparse.Namespace, given: dict[str, Any], folder: Path) -> int:
    """Fit a stack by tiles into a folder, and say how it went.

    Parameters
    ----------
    arguments : Namespace
        The arguments of the command, as they were parsed.
    given : dict
        Settings that were given, by name.
    folder : Path
        Made where there is none.

    Returns
    -------
    int
        The exit code: 3 where tiles failed.
    """
    from napari_gaussfit._kernels import device_named
    from napari_gaussfit.cli.psf import psf_of
    from napari_gaussfit.fitting.fit_tiles import fit_tiles
    from napari_gaussfit.settings import FitSettings

    settings = FitSettings(**given)
    device_named(settings.device)
    psf, start = psf_of(arguments.psf), arguments.refine
    fits = partial(fit_tiles, settings=settings, psf=psf, start=start)
    return _run(arguments, folder, fits, "Gaussians")


def run_spots(arguments: argparse.Namespace, settings: SpotSettings, folder: Path) -> int:
    """Find the spots of a stack by tiles, and say how it went.

    Parameters
    ----------
    arguments : Namespace
        The arguments of the command, as they were parsed.
    settings : SpotSettings
        What is looked for.
    folder : Path
        Made where there is none.

    Returns
    -------
    int
        The exit code: 3 where tiles failed.
    """
    from napari_gaussfit.objects.spot_tiles import fit_spot_tiles

    return _run(arguments, folder, partial(fit_spot_tiles, settings=settings), "spots")


def _run(
    arguments: argparse.Namespace, folder: Path, fits: Callable[..., TileReport], what: str
) -> int:
    from napari_gaussfit.fitting.tile_runs import OUTPUTS, forget_tiles
    from napari_gaussfit.formats.csv import read_points
    from napari_gaussfit.jobs.overwriting import claimed, refuse_to_replace

    given = (arguments.stack, arguments.points, getattr(arguments, "refine", None))
    refuse_to_replace(
        [folder / name for name in OUTPUTS], inputs=[path for path in given if path is not None],
        force=arguments.force or arguments.resume, instead=", --resume goes on with it",
    )  # fmt: skip
    stacks = [
        opened(arguments, arguments.stack, channel) for channel in arguments.channel or (None,)
    ]
    stack = stacks[0]
    for note in dict.fromkeys(note for one in stacks for note in one.notes):
        sys.stderr.write(f"note: {note}\n")
    points = None if arguments.points is None else read_points(arguments.points, stack.facts)
    if arguments.tile is None:
        sys.stderr.write(
            f"note: its {prod(stack.shape):,} voxels are looked at by tiles; --tile DZ DY DX sets "
            "their size, --no-tiles takes all in one piece\n"
        )
    with claimed(folder), _termination_interrupts(folder):
        if arguments.force and not arguments.resume:
            forget_tiles(folder)
        with _client(arguments, stack) as client, closing(_Bar()) as bar:
            report = fits(
                stacks if len(stacks) > 1 else stack, folder, tile=arguments.tile, points=points,
                client=client, resume=arguments.resume, progress=bar.show,
            )  # fmt: skip
    sys.stdout.write("".join(f"{line}\n" for line in _lines(report, what)))
    return TILES_FAILED if report.failed else DONE


def opened(arguments: argparse.Namespace, path: Path, channel: int | None) -> LazyStack:
    """Open a channel, or the one that there is, without reading it.

    Parameters
    ----------
    arguments : Namespace
        With the options of a stack.
    path : Path
        The file that is read.
    channel : int or None
        The channel that is chosen, None where there is one.

    Returns
    -------
    LazyStack
        One channel.
    """
    from napari_gaussfit.stacks.lazy import LazyStack

    return LazyStack.open(
        path,
        channel=channel,
        time=arguments.time,
        position=arguments.position,
        spacing=arguments.spacing,
        fill_nan=arguments.fill_nan,
    )


@contextmanager
def _termination_interrupts(folder: Path) -> Iterator[None]:
    """Let SIGTERM end a run as SIGINT does: workers end with it, and what is done stays."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        sys.stderr.write(f"{folder}: --resume goes on with it\n")
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def exported(fit: Path, out: Path) -> bool:
    """Write a fit by tiles in another format, if it is one, and the format is written by boxes.

    Parameters
    ----------
    fit : Path
        A fit, or its folder.
    out : Path
        The file that is written; its suffix chooses the format.

    Returns
    -------
    bool
        Whether it was written.
    """
    from napari_gaussfit.formats.tiled import holds_tiles
    from napari_gaussfit.formats.tiled_export import EXPORTS

    writes = EXPORTS.get(out.suffix.lower())
    if writes is None or not holds_tiles(fit):
        return False
    writes(fit, out)
    return True


def residual_exported(arguments: argparse.Namespace) -> bool:
    """Write the stack minus a fit by tiles, if it is one, and the format is written by boxes.

    Parameters
    ----------
    arguments : Namespace
        Of ``export``, with a stack.

    Returns
    -------
    bool
        Whether it was written.
    """
    from napari_gaussfit.formats.tiled import holds_tiles
    from napari_gaussfit.formats.tiled_export import EXPORTS, export_volume

    by_boxes = EXPORTS.get(arguments.out.suffix.lower()) is export_volume
    if not by_boxes or not holds_tiles(arguments.fit):
        return False
    stacks = [
        opened(arguments, arguments.stack, channel) for channel in arguments.channel or (None,)
    ]
    export_volume(arguments.fit, arguments.out, residual_of=stacks)
    return True


@contextmanager
def _client(arguments: argparse.Namespace, stack: LazyStack) -> Iterator[Any]:
    """Give the client of a cluster, None where one process does it all."""
    if arguments.workers is not None and arguments.scheduler is not None:
        raise SettingsError("--workers and --scheduler exclude each other; leave one out")
    if arguments.scheduler is not None:
        with connected(arguments.scheduler) as client:
            sys.stderr.write(
                f"cluster: {arguments.scheduler}; dashboard: {client.dashboard_link}\n"
            )
            yield client
        return
    channels = len(arguments.channel or (0,))
    count = arguments.workers
    if count is None:
        count = workers_that_fit(stack, arguments.tile, channels)
    with own_cluster(count) as client:
        if client is not None:
            sys.stderr.write(f"{count} workers; dashboard: {client.dashboard_link}\n")
        yield client


class _Bar:
    """A bar a stage, where stderr is a terminal."""

    def __init__(self) -> None:
        self._stage = ""
        self._bar: tqdm[Any] | None = None

    def close(self) -> None:
        """End the bar of the last stage."""
        if self._bar is not None:
            self._bar.close()

    def show(self, progress: TileProgress) -> None:
        """Show how far a fit has come."""
        from tqdm import tqdm

        from napari_gaussfit.model.gaussians import counted

        if self._bar is None or progress.stage != self._stage:
            self.close()
            self._stage = progress.stage
            self._bar = tqdm(
                total=progress.total, desc=progress.stage, unit="tile", file=sys.stderr,
                disable=None, dynamic_ncols=True,
            )  # fmt: skip
        failed = f", {progress.failed} failed" if progress.failed else ""
        self._bar.set_postfix_str(
            f"{progress.running} running, {progress.background} background{failed}, "
            f"{counted(progress.gaussians)}",
            refresh=False,
        )
        self._bar.update(progress.done - self._bar.n)


def _lines(report: TileReport, what: str) -> Iterator[str]:
    known = [one for one in (report.voxel_psnr, *report.other_psnrs) if math.isfinite(one)]
    psnr = f", voxels {', '.join(f'{one:.2f}' for one in known)} dB" if known else ""
    if math.isfinite(report.seam_psnr) and math.isfinite(report.interior_psnr):
        psnr += (
            f" (beside seams {report.seam_psnr:.2f} dB, elsewhere {report.interior_psnr:.2f} dB)"
        )
    yield (
        f"{report.out}: {report.gaussians:,} {what} in {report.tiles:,} tiles, "
        f"{report.background_tiles:,} of which hold nothing but background{psnr}"
    )
    if report.measured:
        yield f"measured: {report.measured:,}, of tiles where most Gaussians stand for themselves"
    for tile, why in report.failed:
        yield f"failed: {tile}, {why}"
    if report.failed:
        yield f"{len(report.failed)} tiles failed; --resume tries these again"


def answer_by_index(arguments: argparse.Namespace, folder: Path, command: str) -> None:
    """Leave the settings beside tiles that are done, and answer with their report.

    Parameters
    ----------
    arguments : argparse.Namespace
        The command's options, with what was asked for.
    folder : Path
        Folder of the tiles.
    command : str
        The command that the settings are of.
    """
    from napari_gaussfit.formats.tiled import read_index
    from napari_gaussfit.jobs.settings_file import SETTINGS_NAME, write_settings

    write_settings(folder / SETTINGS_NAME, arguments.asked, command)
    _, _, report = read_index(folder)
    answer({"out": str(folder)} | report)
