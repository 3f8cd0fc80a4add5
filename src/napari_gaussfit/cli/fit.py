"""``napari-gaussfit fit``: a stack, several times or channels of it, into a folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_gaussfit.cli import tiles
from napari_gaussfit.cli.drawing import drawing
from napari_gaussfit.cli.exits import Exit
from napari_gaussfit.cli.inputs import (
    opened,
    points_in,
    refuse_missing_device,
    refuse_too_large,
    say_note,
    start_in,
)
from napari_gaussfit.cli.options import (
    add_also,
    add_force,
    add_manner,
    add_out,
    add_settings,
    add_settings_file,
    add_stack_options,
    add_stacks,
)
from napari_gaussfit.cli.overwriting import refuse_further
from napari_gaussfit.cli.several import offer
from napari_gaussfit.errors import SettingsError
from napari_gaussfit.jobs.settings_file import SETTINGS_NAME, read_settings, write_settings
from napari_gaussfit.settings import SETTINGS, FitSettings

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from napari_gaussfit.cli.inputs import Points
    from napari_gaussfit.fitting.fit import Fit
    from napari_gaussfit.jobs.drawing import Drawer
    from napari_gaussfit.jobs.fit_folder import FitFolder
    from napari_gaussfit.measure.psf import Psf

__all__ = ["add_parser", "begin", "run"]


EXAMPLES = """\
examples:
  napari-gaussfit fit stack.tif -o out
  napari-gaussfit fit stack.tif -o out --quality preview --channel 0
  napari-gaussfit fit stack.tif -o again --settings out/settings.toml
  napari-gaussfit fit A.tif B.tif 'plate/*.tif' -o fits"""


def add_parser(commands: Any) -> None:
    """Add the command to a command line."""
    fit = commands.add_parser(
        "fit", help="fit a stack, or many, and write table, report and picture", epilog=EXAMPLES
    )
    add_options(fit)
    add_also(fit, "of several times: tracks.xml or .trackmate.csv for TrackMate, .geff")
    offer(fit, run, "Gaussians")


def add_options(fit: argparse.ArgumentParser) -> None:
    """Add what a fit is told; a batch of fits is told the same."""
    add_stacks(fit)
    add_out(fit)
    add_settings_file(fit)
    add_settings(fit)
    add_stack_options(fit, several=True, times=True)
    fit.add_argument(
        "--resume", action="store_true",
        help="go on from the fit in OUT; of several files, keep those done before",
    )  # fmt: skip
    tiles.add_options(fit)
    add_force(fit)
    add_manner(fit)


def run(arguments: argparse.Namespace) -> int:
    """Fit a stack into a folder, and return the exit code."""
    with drawing() as drawer:
        return _run(arguments, drawer)


def _run(arguments: argparse.Namespace, drawer: Drawer | None) -> int:
    from napari_gaussfit.cli.psf import psf_of
    from napari_gaussfit.fitting.fit import Fit
    from napari_gaussfit.formats.registry import fit_path
    from napari_gaussfit.jobs.fit_folder import REPLACED, FitFolder, checked_folder, holds_fit
    from napari_gaussfit.jobs.overwriting import refuse_to_replace

    given = {name: value for name in SETTINGS if (value := getattr(arguments, name)) is not None}
    if "refine" in given:
        given["refine"] = True
    path = checked_folder(arguments.out)
    by_tiles = tiles.are_wanted(arguments)
    if drawer is not None and (by_tiles or isinstance(arguments.time, slice)):
        drawer.end()  # which has nothing to draw of these
    if by_tiles:
        return _fit_tiles(arguments, given, path)
    refine = None if arguments.refine is None else fit_path(arguments.refine)
    read = [given for given in (arguments.stack, arguments.points, refine) if given is not None]
    if isinstance(arguments.time, slice):
        return _fit_times(arguments, given, path, read)
    if arguments.also:
        raise SettingsError("--also is of several times; give --time all too, or export the fit")
    goes_on = arguments.resume and holds_fit(path)
    refuse_to_replace(
        [path / name for name in REPLACED], inputs=read, force=arguments.force or goes_on,
        instead=", --resume goes on with it" * holds_fit(path),
    )  # fmt: skip
    settings = FitSettings()
    if not goes_on:  # which has its settings in the folder
        settings = FitSettings(**given)
        refuse_missing_device(settings)
    elif refine is not None:
        raise SettingsError(
            f"--refine begins a fit from {refine}, --resume goes on with the one in "
            f"{path}; leave one of them out"
        )
    psf = psf_of(arguments.psf)
    refuse_too_large(arguments.stack, len(arguments.channel or (0,)), arguments.position)
    stacks = opened(arguments, arguments.stack)
    for note in dict.fromkeys(note for stack in stacks for note in stack.notes):
        say_note(note)
    if psf is not None:
        psf.in_unit(stacks[0].unit)  # which refuses a stack without a spacing
    points = points_in(arguments.points, stacks[0])
    folder = FitFolder(path, stacks, arguments.asked, drawer)
    if goes_on:
        return _go_on(folder, given, points, psf)
    start = start_in(refine, stacks)
    if arguments.resume:
        say_note(f"{path} holds no fit to go on from; a new one begins")
    fit = Fit(stacks, settings, start=start, points=points, psf=psf)
    return begin(fit, folder, force=arguments.force)


def _fit_tiles(arguments: argparse.Namespace, given: dict[str, Any], path: Path) -> int:
    """Fit a large stack."""
    if isinstance(arguments.time, slice):
        return tiles.run_times(arguments, path, lambda one, out: _fit_tiles(one, given, out))
    code = tiles.run_fit(arguments, given, path)
    tiles.answer_by_index(arguments, path, "fit")
    return code


def _fit_times(
    arguments: argparse.Namespace, given: dict[str, Any], path: Path, read: list[Path]
) -> int:
    """Fit several times, each from the one before."""
    from napari_gaussfit.cli.fit_times import fit_times
    from napari_gaussfit.cli.psf import psf_of
    from napari_gaussfit.cli.times import Target, series_of

    refuse_further(arguments, "TRACK_WRITERS")
    target = Target(path, read, arguments.force, arguments.resume, arguments.also)
    refuse_missing_device(FitSettings(**given))
    refuse_too_large(arguments.stack, len(arguments.channel or (0,)), arguments.position)
    psf, series = psf_of(arguments.psf), series_of(arguments)
    stacks = series.read(0)
    points = points_in(arguments.points, stacks[0])
    start = start_in(arguments.refine, stacks)
    fit_times(series, target, given, start=start, points=points, psf=psf)
    write_settings(path / SETTINGS_NAME, arguments.asked, "fit")
    return Exit.DONE


def begin(fit: Fit, folder: FitFolder, *, force: bool, needed: Sequence[str] = ()) -> int:
    """Run a fit into a folder that is claimed meanwhile, and return the exit code.

    Modules that are `needed` afterwards are loaded beside it.
    """
    from napari_gaussfit.cli import run as running
    from napari_gaussfit.jobs.fit_folder import REPLACED
    from napari_gaussfit.jobs.overwriting import claimed, refuse_to_replace

    with claimed(folder.path):
        # Once more: another fit may have ended there since.
        refuse_to_replace([folder.path / name for name in REPLACED], force=force)
        return running.run(fit, folder, resumed=False, needed=needed)


def _go_on(folder: FitFolder, given: dict[str, Any], points: Points, psf: Psf | None) -> int:
    """Go on with the fit in a folder, by its own settings, from its own points."""
    from napari_gaussfit.cli import run as running
    from napari_gaussfit.fitting.fit import Fit
    from napari_gaussfit.jobs.fit_folder import check_points, is_finished, resumed_settings
    from napari_gaussfit.jobs.overwriting import claimed

    settings_file = folder.path / SETTINGS_NAME
    if settings_file.is_file():  # what is given to go on may be less
        folder = replace(folder, asked=read_settings(settings_file))
    with claimed(folder.path):
        saved = folder.saved()
        settings = resumed_settings(saved, given)
        check_points(saved, points)
        if is_finished(saved, settings):
            steps = saved.report.iterations
            print(f"{folder.path}: this fit is finished, after {steps} steps")
            return Exit.DONE
        fit = Fit(folder.stacks, settings, psf=psf)
        fit.restore(saved)
        return running.run(fit, folder, resumed=True)
