"""``napari-gaussfit spots``: the spots of a stack, found and measured, into a folder."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_gaussfit.cli import tiles
from napari_gaussfit.cli.drawing import drawing
from napari_gaussfit.cli.exits import Exit
from napari_gaussfit.cli.inputs import opened, points_in, say_note
from napari_gaussfit.cli.options import (
    add_also,
    add_force,
    add_manner,
    add_out,
    add_settings_file,
    add_stack_options,
    add_stacks,
)
from napari_gaussfit.cli.overwriting import refuse_further
from napari_gaussfit.cli.printing import answer
from napari_gaussfit.cli.several import offer
from napari_gaussfit.errors import SettingsError
from napari_gaussfit.files import write_each
from napari_gaussfit.jobs.settings_file import SETTINGS_NAME, write_settings

if TYPE_CHECKING:
    import argparse

    from numpy.typing import NDArray
    from tqdm import tqdm

    from napari_gaussfit.jobs.drawing import Drawer
    from napari_gaussfit.objects.spots import Spots, SpotSettings
    from napari_gaussfit.stacks.stack import Stack

__all__ = ["add_parser", "run", "settings_of"]


EXAMPLES = """\
examples:
  napari-gaussfit spots stack.tif -o spots
  napari-gaussfit spots stack.tif -o spots --psf 1.4,520,1.518 --false-discoveries 0.001
  napari-gaussfit spots recording.tif -o tracks --time all
  napari-gaussfit spots A.tif B.tif 'plate/*.tif' -o spots"""


def add_parser(commands: Any) -> None:
    """Add the command that finds spots in a stack."""
    spots = commands.add_parser(
        "spots", help="find and measure spots, one Gaussian each", epilog=EXAMPLES
    )
    add_stacks(spots)
    add_out(spots)
    add_settings_file(spots)
    spots.add_argument(
        "--least-size", type=float, metavar="W", help="FWHM across z, in micrometers (2 voxels)"
    )
    spots.add_argument(
        "--largest-size", type=float, metavar="W",
        help="FWHM across z, in micrometers (6 voxels or 0.6)",
    )  # fmt: skip
    spots.add_argument(
        "--false-discoveries", type=float, metavar="SHARE", default=0.01,
        help="share of the spots that may be noise (0.01)",
    )  # fmt: skip
    spots.add_argument(
        "--likelihood", choices=("poisson", "squared"), default="poisson",
        help="counts of photons, or the same noise at all voxels of a spot (poisson)",
    )  # fmt: skip
    spots.add_argument(
        "--points", metavar="FILE", type=Path,
        help="a CSV of spots that are there in any case: napari's points, or objects.csv (none)",
    )  # fmt: skip
    spots.add_argument(
        "--psf", metavar="PSF",
        help="what light makes of a point, psf.json or NA,WAVELENGTH_NM,INDEX: spots are points "
        "(not known)",
    )  # fmt: skip
    add_also(spots, "beads.xml or .trackmate.csv for TrackMate, .geff, or any that export writes")
    spots.add_argument(
        "--reach", type=float, metavar="R",
        help="how far a spot may move from a time to the next, in micrometers (the spots tell)",
    )  # fmt: skip
    add_stack_options(spots, times=True)
    add_force(spots)
    tiles.add_options(spots)
    spots.add_argument(
        "--resume", action="store_true",
        help="go on with what was found in OUT by tiles, or of several times; of several files, "
        "keep those done before",
    )  # fmt: skip
    add_manner(spots)
    offer(spots, run, "spots")


def run(arguments: argparse.Namespace) -> int:
    """Find the spots of a stack into a folder, and return the exit code."""
    with drawing() as drawer:
        return _run(arguments, drawer)


def _run(arguments: argparse.Namespace, drawer: Drawer | None) -> int:
    from napari_gaussfit.jobs.fit_folder import checked_folder
    from napari_gaussfit.jobs.folders import SPOTS_OUTPUTS
    from napari_gaussfit.jobs.overwriting import refuse_to_replace

    path = checked_folder(arguments.out)
    settings = settings_of(arguments)
    read = [given for given in (arguments.stack, arguments.points) if given is not None]
    by_tiles = tiles.are_wanted(arguments)
    if drawer is not None and (by_tiles or isinstance(arguments.time, slice)):
        drawer.end()  # which has nothing to draw of these
    if isinstance(arguments.time, slice) and not by_tiles:
        return _spots_of_times(arguments, settings, path, read)
    if arguments.reach is not None:
        raise SettingsError("--reach is about several times; give them (--time all)")
    if by_tiles:
        return _spots_tiles(arguments, settings, path)
    if arguments.resume and not arguments.force:  # of a batch, which has looked what is there
        raise SettingsError(
            "--resume is for spots by tiles, or of several times; give --tile or --time all too, "
            "or leave it out"
        )
    targets = [path / name for name in SPOTS_OUTPUTS]
    refuse_to_replace(targets, inputs=read, force=arguments.force)
    refuse_further(arguments, "FIT_WRITERS")
    [stack] = opened(arguments, arguments.stack)
    for note in stack.notes:
        say_note(note)
    points = points_in(arguments.points, stack)
    _find(arguments, stack, settings, points, drawer)
    return Exit.DONE


def _spots_tiles(arguments: argparse.Namespace, settings: SpotSettings, path: Path) -> int:
    """Find the spots of a large stack."""
    if isinstance(arguments.time, slice):
        return tiles.run_times(
            arguments, path, lambda one, out: _spots_tiles(one, settings, out), links=True
        )
    code = tiles.run_spots(arguments, settings, path)
    tiles.answer_by_index(arguments, path, "spots")
    return code


def _spots_of_times(
    arguments: argparse.Namespace, settings: SpotSettings, path: Path, read: list[Path]
) -> int:
    """Find the spots of several times, and their tracks."""
    from napari_gaussfit.cli.spots_times import spots_of_times
    from napari_gaussfit.cli.times import Target, series_of

    refuse_further(arguments, "TRACK_WRITERS")
    target = Target(path, read, arguments.force, arguments.resume, arguments.also)
    series = series_of(arguments)
    points = points_in(arguments.points, series.read(0)[0])
    spots_of_times(series, target, settings, points=points, reach=arguments.reach)
    write_settings(path / SETTINGS_NAME, arguments.asked, "spots")
    return Exit.DONE


def settings_of(arguments: argparse.Namespace) -> SpotSettings:
    """Return what was asked for.

    Parameters
    ----------
    arguments : Namespace
        Of the command line.
    """
    from napari_gaussfit.cli.psf import psf_of
    from napari_gaussfit.objects.spots import SpotSettings

    return SpotSettings(
        least_size=arguments.least_size,
        largest_size=arguments.largest_size,
        false_discoveries=arguments.false_discoveries,
        likelihood=arguments.likelihood,
        psf=psf_of(arguments.psf),
    )


def _find(
    arguments: argparse.Namespace,
    stack: Stack,
    settings: SpotSettings,
    points: NDArray[Any] | None,
    drawer: Drawer | None,
) -> None:
    """Find the spots of a stack, write the folder, and say how many there are."""
    from napari_gaussfit.formats.registry import write_fit
    from napari_gaussfit.jobs.folders import SPOTS_OUTPUTS, spots_report, write_spots
    from napari_gaussfit.jobs.overwriting import claimed, refuse_to_replace
    from napari_gaussfit.model.field import GaussianField
    from napari_gaussfit.objects.spots import fit_spots, spots_table

    folder = arguments.out
    with claimed(folder):
        targets = [folder / name for name in SPOTS_OUTPUTS]
        refuse_to_replace(targets, force=arguments.force)
        with _bar() as bar:
            spots = fit_spots(stack, settings, points=points, meanwhile=bar.set_description_str)
        table, report = spots_table(spots, stack.spacing), spots_report(stack, spots, settings)
        sys.stdout.write("".join(f"{line}\n" for line in _lines(folder, stack, spots, settings)))
        fields = (GaussianField.from_numpy(spots.gaussians),)
        known = {"measurement": spots.measurement, "quality": spots.signal_to_noise}
        write_each(
            lambda: write_spots(folder, stack, table, spots.gaussians, report, drawer=drawer),
            lambda: write_settings(folder / SETTINGS_NAME, arguments.asked, "spots"),
            *(partial(write_fit, path, fields, stack.facts, **known) for path in arguments.also),
        )
    answer({"out": str(folder)} | report)
    written = ", ".join((*SPOTS_OUTPUTS, SETTINGS_NAME, *map(str, arguments.also)))
    sys.stdout.write(f"{folder}: wrote {written}\n")


def _bar() -> tqdm[Any]:
    """Return a line that says what is being done, and since when: nobody knows how many rounds."""
    from tqdm import tqdm

    # disable=None: silent where stderr is no terminal.
    return tqdm(
        desc="what may be spots is looked for", bar_format="{desc} [{elapsed}]", file=sys.stderr,
        disable=None, dynamic_ncols=True, leave=False,
    )  # fmt: skip


def _lines(folder: Path, stack: Stack, spots: Spots, settings: SpotSettings) -> list[str]:
    sizes, noise = spots.sizes, spots.noise
    asked = f"FWHM {sizes.least:.3g} to {sizes.largest:.3g} {stack.unit}s asked for"
    share = f"at most {100 * settings.false_discoveries:g} in 100 of them noise"
    return [
        f"{folder}: {len(spots):,} spots, {asked}",
        f"{share}: from {spots.threshold:.1f} standard deviations",
        f"noise: variance {noise.gain:.3g} x intensity {noise.intercept:+.3g}, estimated",
        *(f"note: {note}" for note in spots.notes),
    ]
