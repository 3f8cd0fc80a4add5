"""The command line: fit, spots, trace, cells, render, export, info, measure, psf, demo.

Exit codes: 0 done; 2 bad input or bad settings, one line on stderr; 3 a fit has ended, but a file
or what was printed could not be written; 130 interrupted, with the fit so far saved. Heavy imports
stand inside the functions, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from napari_gaussfit.cli import cells, tiles, trace
from napari_gaussfit.cli.printing import printing
from napari_gaussfit.cli.time_option import add_time_option
from napari_gaussfit.errors import GaussfitError, SettingsError
from napari_gaussfit.settings import SETTINGS, FitSettings, Setting

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from napari_gaussfit.cli.folder import FitFolder
    from napari_gaussfit.fitting.fit import Fit
    from napari_gaussfit.fitting.result import FitResult
    from napari_gaussfit.measure.constraints import Constraints
    from napari_gaussfit.measure.psf import Psf
    from napari_gaussfit.model.camera import Camera
    from napari_gaussfit.model.field import GaussianField
    from napari_gaussfit.objects.search import SpotSettings
    from napari_gaussfit.stacks.facts import StackFacts
    from napari_gaussfit.stacks.stack import Stack

    Points = NDArray[np.float64] | None

__all__ = ["main"]

PROGRAM = "napari-gaussfit"
DONE, BAD_INPUT, NOT_WRITTEN, INTERRUPTED = 0, 2, 3, 130
DEMO_FOLDER = "napari-gaussfit-demo"
LARGEST_PICTURE = 2048
"""Pixels a side, at most, of a view that is no axis's."""

MOST_PIXELS = 2**28
"""Of a view along an axis: 16,384 x 16,384, which takes seconds and a few GB of memory."""

LETTERS = {"gaussians": "N", "iterations": "N", "max_seconds": "S", "ssim_weight": "W"} | {
    "views": "N",
    "held_out": "N",
    "background": "LEVEL",
    "seed": "S",
    "gain": "G",
    "offset": "LEVEL",
    "read_noise": "SD",
}
"""What stands for a setting's value in the help."""


CONSTRAINTS = {
    "shape": ("any", "aligned", "sphere", "point"),
    "widths": ("free", "shared", "given"),
    "centres": ("free", "given"),
}
"""What `Constraints` may say; the first is what it says by itself."""

DETECTOR = ("gain", "offset", "read_noise")


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_INPUT, f"{self.prog}: error: {message} ({self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; the process's own by default.
    """
    with printing() as out:
        code = _ran(_parser().parse_args(argv))
        out.flush()
        if out.error is not None and not isinstance(out.error, BrokenPipeError):
            _say(f"error: what was to be printed cannot be: {out.error.strerror}")
        return code or (NOT_WRITTEN if out.error is not None else DONE)


def _ran(arguments: argparse.Namespace) -> int:
    """Run a command; say what ends it, and return the exit code."""
    try:
        return int(arguments.run(arguments))
    except KeyboardInterrupt:
        _say("interrupted")
        return INTERRUPTED
    except (GaussfitError, OSError) as error:
        _say(f"error: {' '.join(str(error).split())}")
        return BAD_INPUT
    except MemoryError:
        _say("error: there is not enough memory; crop or bin the stack, or close other programs")
        return BAD_INPUT


def _say(line: str) -> None:
    print(f"{PROGRAM}: {line}", file=sys.stderr)


def _note(line: str) -> None:
    print(f"note: {line}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    from napari_gaussfit import __version__

    parser = _Parser(prog=PROGRAM, description="Fit 3D Gaussians to a fluorescence stack.")
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    fit = commands.add_parser("fit", help="fit a stack and write table, report and picture")
    fit.add_argument("stack", metavar="STACK", type=Path, help="a TIFF or OME-Zarr of z, y, x")
    fit.add_argument("-o", "--out", metavar="OUT", type=Path, required=True, help="folder to write")
    _add_settings(fit)
    _add_stack_options(fit, several=True, times=True)
    fit.add_argument("--resume", action="store_true", help="go on from the fit in OUT")
    tiles.add_options(fit)
    _add_force(fit)
    fit.set_defaults(run=_fit)

    _add_findings(commands)
    render = commands.add_parser("render", help="write a projection or the volume of a fit")
    render.add_argument("fit", metavar="FIT", type=Path, help="fit.safetensors, or its folder")
    render.add_argument(
        "-o", "--out", metavar="IMAGE", type=Path, required=True,
        help=".tif (raw intensity) or .png (to look at)",
    )  # fmt: skip
    render.add_argument("--view", choices=("z", "y", "x"), help="axis to look along (z)")
    render.add_argument("--azimuth", type=float, metavar="A", help="degrees about y, from z")
    render.add_argument("--elevation", type=float, metavar="E", help="degrees towards y")
    render.add_argument("--mode", choices=("mip", "soft-mip", "sum"), help="projection (mip)")
    render.add_argument(
        "--volume", action="store_true", help="all voxels, as an OME-TIFF or OME-Zarr"
    )
    render.add_argument(
        "--deconvolved", action="store_true", help="without the blur of the PSF it was fitted with"
    )
    render.add_argument(
        "--sampling", type=float, nargs=3, metavar=("DZ", "DY", "DX"),
        help="micrometers a voxel of what is written (the stack's)",
    )  # fmt: skip
    _add_force(render)
    render.set_defaults(run=_render)

    export = commands.add_parser("export", help="write a fit in another format")
    export.add_argument(
        "fit", metavar="FIT", type=Path,
        help="fit.safetensors, or its folder; or .ply; with its stack or box, .csv or .pt",
    )  # fmt: skip
    export.add_argument(
        "-o", "--out", metavar="FILE", type=Path, required=True,
        help=".csv (table), .ply (Gaussians), .ome.tif or .ome.zarr (volume), .safetensors",
    )  # fmt: skip
    of = export.add_mutually_exclusive_group()
    of.add_argument("--stack", metavar="STACK", type=Path, help="the stack that was fitted")
    of.add_argument(
        "--box", type=float, nargs=3, metavar=("Z", "Y", "X"),
        help="in place of --stack, with --spacing: its size in micrometers",
    )  # fmt: skip
    export.add_argument(
        "--residual", action="store_true", help="write the stack minus the fit, as a volume"
    )
    _add_stack_options(export, several=True)
    _add_force(export)
    export.set_defaults(run=_export)

    info = commands.add_parser("info", help="say what this machine, a stack or a fit is")
    info.add_argument("path", metavar="STACK|FIT", type=Path, nargs="?")
    _add_stack_options(info)
    info.set_defaults(run=_info)

    _add_measure(commands)
    _add_psf(commands)
    _add_demo(commands)
    return parser


def _add_measure(commands: Any) -> None:
    measure = commands.add_parser("measure", help="write a fit's Gaussians with error bars")
    measure.add_argument("fit", metavar="FIT", type=Path, help="a fit, its folder, or a table")
    measure.add_argument("stack", metavar="STACK", type=Path, help="the stack that was fitted")
    measure.add_argument(
        "-o", "--out", metavar="OUT", type=Path, required=True, help=".csv, the table to write"
    )
    for name in DETECTOR:
        measure.add_argument(
            f"--{name.replace('_', '-')}", dest=name, **_option(name, SETTINGS[name])
        )
    _add_psf_option(measure)
    for name, words in (
        ("shape", "of objects: any, aligned (axes along z, y, x), sphere, or point (needs a PSF)"),
        ("widths", "free, shared (the same for all), or given (as they are)"),
        ("centres", "free, or given (as they are)"),
    ):
        choices = CONSTRAINTS[name]
        measure.add_argument(f"--{name}", choices=choices, default=choices[0], help=words)
    _add_stack_options(measure, several=True)
    _add_force(measure)
    measure.set_defaults(run=_measure)


def _add_psf(commands: Any) -> None:
    psf = commands.add_parser("psf", help="measure the point spread function from beads")
    psf.add_argument(
        "beads", metavar="BEADS", type=Path, nargs="?",
        help="a stack of beads; none, for what light allows",
    )  # fmt: skip
    psf.add_argument("-o", "--out", metavar="OUT", type=Path, required=True, help="folder to write")
    psf.add_argument("--na", type=float, metavar="NA", help="numerical aperture")
    psf.add_argument("--wavelength", type=float, metavar="NM", help="of the light, in nm")
    psf.add_argument("--index", type=float, metavar="N", help="of the immersion (1.518, oil)")
    psf.add_argument("--pinhole", type=float, metavar="AU", help="in Airy units, if confocal")
    _add_stack_options(psf)
    _add_force(psf)
    psf.set_defaults(run=_psf)


def _add_demo(commands: Any) -> None:
    demo = commands.add_parser("demo", help="fit a built-in phantom and compare with the truth")
    demo.add_argument("-o", "--out", metavar="OUT", type=Path, default=Path(DEMO_FOLDER))
    _add_force(demo)
    demo.set_defaults(run=_demo)


def _add_findings(commands: Any) -> None:
    """Add the commands that find objects in a fit."""
    for name, about, options in (
        ("trace", "trace neurites and write SWC, a table of branches and a picture", trace),
        ("cells", "group Gaussians into cells or nuclei; write labels and a table", cells),
    ):
        found = commands.add_parser(name, help=about)
        found.add_argument(
            "stack", metavar="STACK|FIT", type=Path,
            help="a stack, which is fitted first as by fit; or a fit, or its folder",
        )  # fmt: skip
        found.add_argument(
            "-o", "--out", metavar="OUT", type=Path, required=True, help="folder to write"
        )
        options.add_options(found)
        _add_also(found, options.ALSO)
        _add_settings(found)
        _add_stack_options(found)
        _add_force(found)
        found.set_defaults(run=_find, resume=False, options=options)
    _add_spots(commands)


def _add_spots(commands: Any) -> None:
    """Add the command that finds spots in a stack."""
    spots = commands.add_parser("spots", help="find and measure spots, one Gaussian each")
    spots.add_argument("stack", metavar="STACK", type=Path, help="a TIFF or OME-Zarr of z, y, x")
    spots.add_argument(
        "-o", "--out", metavar="OUT", type=Path, required=True, help="folder to write"
    )
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
        help="a CSV of spots that are there in any case: napari's points, or objects.csv",
    )  # fmt: skip
    spots.add_argument(
        "--psf", metavar="PSF",
        help="what light makes of a point, psf.json or NA,WAVELENGTH_NM,INDEX: spots are points",
    )  # fmt: skip
    _add_also(spots, "beads.xml or .trackmate.csv for TrackMate, .geff, or any that export writes")
    spots.add_argument(
        "--reach", type=float, metavar="R",
        help="how far a spot may move from a time to the next, in micrometers (the spots tell)",
    )  # fmt: skip
    _add_stack_options(spots, times=True)
    _add_force(spots)
    tiles.add_options(spots)
    spots.add_argument(
        "--resume", action="store_true",
        help="go on with what was found in OUT by tiles, or of several times",
    )  # fmt: skip
    spots.set_defaults(run=_spots)


def _add_also(parser: argparse.ArgumentParser, names: str) -> None:
    parser.add_argument(
        "--also", metavar="FILE", type=Path, nargs="+", default=(),
        help=f"further files, by their names: {names}",
    )  # fmt: skip


def _add_force(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--force", action="store_true", help="replace what exists")


def _add_settings(parser: argparse.ArgumentParser) -> None:
    for name, setting in SETTINGS.items():
        option = _option(name, setting)
        parser.add_argument(f"--{name.replace('_', '-')}", dest=name, default=None, **option)
    parser.add_argument(
        "--points", metavar="FILE", type=Path,
        help="a CSV of positions to begin at: napari's points, or gaussians.csv",
    )  # fmt: skip
    _add_psf_option(parser)


def _add_psf_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--psf", metavar="PSF",
        help="what light makes of a point, psf.json or NA,WAVELENGTH_NM,INDEX: nothing is "
        "narrower, and objects have widths of their own",
    )  # fmt: skip


def _option(name: str, setting: Setting) -> dict[str, Any]:
    """Return how a setting is given: `refine` by the fit to go on from, the others by a value."""
    if name == "refine":
        return {"type": Path, "metavar": "FIT", "help": setting.help}
    default = setting.without or getattr(FitSettings, name)
    words = {"help": f"{setting.help} ({default})"}
    if setting.choices:
        return {"choices": tuple(setting.choices)} | words
    if setting.kind is bool:
        return {"action": argparse.BooleanOptionalAction, "help": setting.help}
    return {"type": setting.kind, "metavar": LETTERS[name]} | words


def _add_stack_options(
    parser: argparse.ArgumentParser, *, several: bool = False, times: bool = False
) -> None:
    parser.add_argument(
        "--channel", type=int, metavar="C", nargs="+" if several else 1,
        help="which channel, from 0" + "; several share their Gaussians" * several,
    )  # fmt: skip
    add_time_option(parser, several=times)
    parser.add_argument("--position", type=int, metavar="P", help="which image of several, from 0")
    parser.add_argument(
        "--spacing", type=float, nargs=3, metavar=("DZ", "DY", "DX"), help="micrometers a voxel"
    )
    parser.add_argument(
        "--fill-nan", type=float, metavar="VALUE", help="put this in place of NaN and infinities"
    )


def _opened(arguments: argparse.Namespace, path: Path) -> tuple[Stack, ...]:
    """Return the channels that were chosen, or the one that there is."""
    from napari_gaussfit.stacks.stack import Stack

    return tuple(
        Stack.open(
            path,
            channel=channel,
            time=arguments.time,
            position=arguments.position,
            spacing=arguments.spacing,
            fill_nan=arguments.fill_nan,
        )
        for channel in arguments.channel or (None,)
    )


def _fit(arguments: argparse.Namespace) -> int:
    from napari_gaussfit.cli.folder import REPLACED, FitFolder, checked_folder, holds_fit
    from napari_gaussfit.cli.overwriting import refuse_to_replace
    from napari_gaussfit.cli.psf import psf_of
    from napari_gaussfit.fitting.fit import Fit
    from napari_gaussfit.formats.registry import fit_path

    given = {name: value for name in SETTINGS if (value := getattr(arguments, name)) is not None}
    if "refine" in given:
        given["refine"] = True
    path = checked_folder(arguments.out)
    if tiles.are_wanted(arguments):
        return tiles.run_fit(arguments, given, path)
    refine = None if arguments.refine is None else fit_path(arguments.refine)
    read = [given for given in (arguments.stack, arguments.points, refine) if given is not None]
    if isinstance(arguments.time, slice):
        return _fit_times(arguments, given, path, read)
    goes_on = arguments.resume and holds_fit(path)
    refuse_to_replace(
        [path / name for name in REPLACED], inputs=read, force=arguments.force or goes_on,
        instead=", --resume goes on with it" * holds_fit(path),
    )  # fmt: skip
    settings = FitSettings()
    if not goes_on:  # which has its settings in the folder
        settings = FitSettings(**given)
        _refuse_missing_device(settings)
    elif refine is not None:
        raise SettingsError(
            f"--refine begins a fit from {refine}, --resume goes on with the one in "
            f"{path}; leave one of them out"
        )
    psf = psf_of(arguments.psf)
    _refuse_too_large(arguments.stack, len(arguments.channel or (0,)), arguments.position)
    stacks = _opened(arguments, arguments.stack)
    for note in dict.fromkeys(note for stack in stacks for note in stack.notes):
        _note(note)
    if psf is not None:
        psf.in_unit(stacks[0].unit)  # which refuses a stack without a spacing
    points = _points(arguments.points, stacks[0])
    folder = FitFolder(path, stacks)
    if goes_on:
        return _go_on(folder, given, points, psf)
    start = _start(refine, stacks)
    if arguments.resume:
        _note(f"{path} holds no fit to go on from; a new one begins")
    fit = Fit(stacks, settings, start=start, points=points, psf=psf)
    return _begin(fit, folder, force=arguments.force)


def _fit_times(
    arguments: argparse.Namespace, given: dict[str, Any], path: Path, read: list[Path]
) -> int:
    """Fit several times, each from the one before."""
    from napari_gaussfit.cli.psf import psf_of
    from napari_gaussfit.cli.times import Target, fit_times, series_of

    target = Target(path, read, arguments.force, arguments.resume)
    _refuse_missing_device(FitSettings(**given))
    _refuse_too_large(arguments.stack, len(arguments.channel or (0,)), arguments.position)
    psf, series = psf_of(arguments.psf), series_of(arguments)
    stacks = series.read(0)
    points = _points(arguments.points, stacks[0])
    start = _start(arguments.refine, stacks)
    fit_times(series, target, given, start=start, points=points, psf=psf)
    return DONE


def _find(arguments: argparse.Namespace) -> int:
    """Find objects in a fit, made first where a stack is given, and write them into a folder."""
    from napari_gaussfit.cli.folder import FIT_NAME, checked_folder, holds_fit
    from napari_gaussfit.cli.overwriting import refuse_to_replace
    from napari_gaussfit.formats.registry import FIT_READERS
    from napari_gaussfit.formats.tiled import holds_tiles

    given, folder = arguments.stack, checked_folder(arguments.out)
    _refuse_further(arguments, arguments.options.WRITERS)
    targets = [folder / name for name in arguments.options.OUTPUTS]
    refuse_to_replace(targets, force=arguments.force)
    if given.suffix.lower() in FIT_READERS or holds_fit(given) or holds_tiles(given):
        saved = _loaded(given)
    else:
        if arguments.gaussians is None:
            _refuse_too_large(given, 1, arguments.position)
            arguments.gaussians = arguments.options.gaussians_for(_opened(arguments, given)[0])
            arguments.exactly = True
        code = _fit(arguments)
        if code != DONE:
            return code
        saved = _loaded(folder / FIT_NAME)
    if len(saved.fields) > 1:
        raise SettingsError(
            f"{given}: is a fit of {len(saved.fields)} channels; give a fit of one of them, or "
            "the stack with --channel"
        )
    folder.mkdir(parents=True, exist_ok=True)
    arguments.options.write(saved, arguments, folder)
    return DONE


def _refuse_further(arguments: argparse.Namespace, table: str) -> None:
    """Refuse names of further files before anything is computed."""
    from napari_gaussfit.cli.overwriting import refuse_to_replace
    from napari_gaussfit.formats import registry
    from napari_gaussfit.stacks.ome_zarr import refuse_foreign_folder

    for path in arguments.also:
        registry.writer_of(path, getattr(registry, table))
        refuse_foreign_folder(path)
    refuse_to_replace(arguments.also, inputs=[arguments.stack], force=arguments.force)


def _spots(arguments: argparse.Namespace) -> int:
    from napari_gaussfit.cli import spots
    from napari_gaussfit.cli.folder import checked_folder
    from napari_gaussfit.cli.overwriting import refuse_to_replace

    path = checked_folder(arguments.out)
    settings = spots.settings_of(arguments)
    read = [given for given in (arguments.stack, arguments.points) if given is not None]
    by_tiles = tiles.are_wanted(arguments)
    if isinstance(arguments.time, slice):
        return _spots_of_times(arguments, settings, path, read)
    if arguments.reach is not None:
        raise SettingsError("--reach is about several times; give them (--time all)")
    if by_tiles:
        return tiles.run_spots(arguments, settings, path)
    if arguments.resume:
        raise SettingsError(
            "--resume is for spots by tiles, or of several times; give --tile or --time all too, "
            "or leave it out"
        )
    targets = [path / name for name in spots.OUTPUTS]
    refuse_to_replace(targets, inputs=read, force=arguments.force)
    _refuse_further(arguments, "FIT_WRITERS")
    [stack] = _opened(arguments, arguments.stack)
    for note in stack.notes:
        _note(note)
    points = _points(arguments.points, stack)
    spots.run(stack, path, settings, points, also=arguments.also, force=arguments.force)
    return DONE


def _spots_of_times(
    arguments: argparse.Namespace, settings: SpotSettings, path: Path, read: list[Path]
) -> int:
    """Find the spots of several times, and their tracks."""
    from napari_gaussfit.cli.times import Target, series_of, spots_of_times

    if arguments.also:
        raise SettingsError("--also is of one time; leave it out, or give one (--time 0)")
    target = Target(path, read, arguments.force, arguments.resume)
    series = series_of(arguments)
    points = _points(arguments.points, series.read(0)[0])
    spots_of_times(series, target, settings, points=points, reach=arguments.reach)
    return DONE


def _begin(fit: Fit, folder: FitFolder, *, force: bool) -> int:
    from napari_gaussfit.cli.folder import REPLACED
    from napari_gaussfit.cli.overwriting import claimed, refuse_to_replace
    from napari_gaussfit.cli.run import run

    with claimed(folder.path):
        # Once more: another fit may have ended there since.
        refuse_to_replace([folder.path / name for name in REPLACED], force=force)
        return run(fit, folder, resumed=False)


def _go_on(folder: FitFolder, given: dict[str, Any], points: Points, psf: Psf | None) -> int:
    """Go on with the fit in a folder, by its own settings, from its own points."""
    from napari_gaussfit.cli.folder import check_points, is_finished, resumed_settings
    from napari_gaussfit.cli.overwriting import claimed
    from napari_gaussfit.cli.run import run
    from napari_gaussfit.fitting.fit import Fit

    with claimed(folder.path):
        saved = folder.saved()
        settings = resumed_settings(saved, given)
        check_points(saved, points)
        if is_finished(saved, settings):
            steps = saved.report.iterations
            print(f"{folder.path}: this fit is finished, after {steps} steps")
            return DONE
        fit = Fit(folder.stacks, settings, psf=psf)
        fit.restore(saved)
        return run(fit, folder, resumed=True)


def _points(path: Path | None, stack: Stack) -> Points:
    from napari_gaussfit.formats.csv import read_points

    return None if path is None else read_points(path, stack)


def _start(path: Path | None, stacks: tuple[Stack, ...]) -> tuple[GaussianField, ...] | None:
    """Return the Gaussians of a fit of such a stack as this one."""
    if path is None:
        return None
    saved, stack = _loaded(path, stacks[0].facts), stacks[0]
    for what, found, wanted in (
        ("shape", saved.stack.shape, stack.shape),
        ("spacing", saved.stack.spacing, stack.spacing),
        ("unit", saved.stack.unit, stack.unit),
        ("number of channels", len(saved.fields), len(stacks)),
    ):
        if found != wanted:
            raise SettingsError(
                f"--refine {path}: is the fit of a stack of {what} {found}, this one's is {wanted};"
                " give a fit of this stack, or of one like it"
            )
    return saved.fields


def _refuse_missing_device(settings: FitSettings) -> None:
    from napari_gaussfit._kernels import device_named

    device_named(settings.device)


def _refuse_too_large(path: Path, channels: int, position: int | None) -> None:
    """Refuse a stack whose fit has no room, before its voxels are read."""
    from napari_gaussfit.fitting.memory import refuse_what_memory_cannot_hold
    from napari_gaussfit.stacks.stack import read_layout

    layout = read_layout(path, position=position)
    depth, rows, columns = layout.stack_shape
    nbytes = channels * layout.stack_nbytes
    refuse_what_memory_cannot_hold(str(path), (channels * depth, rows, columns), nbytes)


def _loaded(path: Path, stack: StackFacts | None = None) -> FitResult:
    """Read a fit, and say what was assumed."""
    from napari_gaussfit.fitting.result import load

    saved = load(path, stack)
    for note in saved.notes:
        _note(note)
    return saved


def _refuse_to_destroy(arguments: argparse.Namespace, stack: Path | None = None) -> None:
    """Refuse a target that exists, is what is read, or is a folder of somebody else's."""
    from napari_gaussfit.cli.overwriting import refuse_to_replace
    from napari_gaussfit.formats.registry import fit_path
    from napari_gaussfit.stacks.ome_zarr import refuse_foreign_folder

    read = [fit_path(arguments.fit), *([] if stack is None else [stack])]
    refuse_to_replace([arguments.out], inputs=read, force=arguments.force)
    refuse_foreign_folder(arguments.out)


def _render(arguments: argparse.Namespace) -> int:
    from napari_gaussfit.formats.image import checked_image_path, write_image
    from napari_gaussfit.formats.registry import VOLUME_SUFFIXES

    angles = arguments.azimuth is not None or arguments.elevation is not None
    if arguments.volume:
        if angles or arguments.view or arguments.mode:
            raise SettingsError("--volume has neither view, angles nor mode; leave these out")
        if arguments.out.suffix.lower() not in VOLUME_SUFFIXES:
            raise SettingsError(
                f"--volume {arguments.out}: expected a name that ends in .ome.tif or .ome.zarr"
            )
        _refuse_to_destroy(arguments)
        if not tiles.exported(arguments.fit, arguments.out):
            _rendered(arguments).export(arguments.out)
        return DONE
    if angles and arguments.view:
        raise SettingsError("--view and --azimuth, --elevation are two ways to say it; choose one")
    target = checked_image_path(arguments.out)
    _refuse_to_destroy(arguments)
    saved = _rendered(arguments)
    camera = _camera(arguments, saved.stack, square=angles or target.suffix.lower() == ".png")
    image = saved.render(camera, mode=arguments.mode or "mip")
    write_image(target, image, pixel=camera.pixel, unit=saved.stack.unit)
    return DONE


def _rendered(arguments: argparse.Namespace) -> FitResult:
    """Return the fit to render, without its blur and in other voxels where that is asked for."""
    from napari_gaussfit.fitting.result import FitResult

    saved = _loaded(arguments.fit)
    if arguments.deconvolved:
        return saved.deconvolved(arguments.sampling)
    if arguments.sampling is None:
        return saved
    return FitResult(saved.fields, saved.stack.sampled(arguments.sampling))


def _camera(arguments: argparse.Namespace, stack: StackFacts, *, square: bool) -> Camera:
    """Return the view asked for; along an axis, its pixels are the voxels' unless `square`."""
    from napari_gaussfit.model.camera import AXIS_NAMES, axis_view, orbit_view

    finest = min(stack.spacing)
    if arguments.azimuth is not None or arguments.elevation is not None:
        return orbit_view(
            stack.box, arguments.azimuth or 0.0, arguments.elevation or 0.0, finest,
            largest_side=LARGEST_PICTURE,
        )  # fmt: skip
    axis = arguments.view or "z"
    along = axis_view(stack.shape, stack.spacing, AXIS_NAMES.index(axis))
    rows, columns = along.shape
    if square:
        rows, columns = (
            math.ceil(n * size / finest) for n, size in zip(along.shape, along.pixel, strict=True)
        )
    if rows * columns > MOST_PIXELS:
        raise SettingsError(
            f"--view {axis}: the view along {axis} has {rows:,} x {columns:,} pixels, more than "
            f"{MOST_PIXELS:,}; look from an angle (--azimuth 0), at {LARGEST_PICTURE} a side"
        )
    if not square:
        return along
    return replace(along, shape=(rows, columns), pixel=(finest, finest), axis=None)


def _export(arguments: argparse.Namespace) -> int:
    from napari_gaussfit.formats.registry import writer_of

    writer_of(arguments.out)
    _refuse_to_destroy(arguments, arguments.stack)
    if not arguments.residual and tiles.exported(arguments.fit, arguments.out):
        return DONE
    stacks = () if arguments.stack is None else _opened(arguments, arguments.stack)
    saved = _loaded(arguments.fit, stacks[0].facts if stacks else _given_box(arguments))
    if not arguments.residual:
        saved.export(arguments.out)
        return DONE
    if not stacks:
        raise SettingsError("--residual needs the stack that was fitted; give it too (--stack)")
    saved.export(arguments.out, residual_of=stacks)
    return DONE


def _given_box(arguments: argparse.Namespace) -> StackFacts | None:
    """Return the stack that --box and --spacing describe, for fits that do not tell theirs."""
    from napari_gaussfit.stacks.facts import StackFacts

    if arguments.box is None:
        if (arguments.spacing, arguments.channel, arguments.time) != (None, None, None):
            raise SettingsError(
                "--spacing, --channel and --time are about a stack; give it too (--stack)"
            )
        return None
    if arguments.spacing is None:
        raise SettingsError("--box needs --spacing DZ DY DX too: they make the number of voxels")
    return StackFacts.of_size(arguments.fit.stem, arguments.box, arguments.spacing)


def _info(arguments: argparse.Namespace) -> int:
    from napari_gaussfit.cli import info
    from napari_gaussfit.formats.registry import FIT_READERS
    from napari_gaussfit.formats.tiled import holds_tiles
    from napari_gaussfit.stacks.stack import is_stack_file, read_layout

    path = arguments.path
    if path is None:
        lines = info.of_machine()
    elif holds_tiles(path):
        lines = info.of_tiles(path)
    elif path.suffix.lower() in FIT_READERS or (path.is_dir() and not is_stack_file(path)):
        lines = info.of_fit(_loaded(path))
    else:
        layout = read_layout(path, position=arguments.position)
        lines = info.of_layout(layout)
        [channel] = arguments.channel or [None]
        choice = info.open_choice(layout, channel, arguments.time)
        if choice:
            lines += [("to choose", choice), *(("note", note) for note in layout.notes)]
        elif tiles.is_large(layout.stack_shape):
            lines += info.of_large_stack(tiles.opened(arguments, path))
        else:
            lines += info.of_stack(*_opened(arguments, path))
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        print(f"{name:<{width}}  {value}")
    return DONE


def _measure(arguments: argparse.Namespace) -> int:
    from napari_gaussfit.measure.measurement import summary
    from napari_gaussfit.measure.noise import given_noise

    if arguments.out.suffix.lower() != ".csv":
        raise SettingsError(f"{arguments.out}: expected a name that ends in .csv, for a table")
    _refuse_to_destroy(arguments, arguments.stack)
    detector = FitSettings(**{name: getattr(arguments, name) for name in DETECTOR})
    stacks = _opened(arguments, arguments.stack)
    saved = _loaded(arguments.fit, stacks[0].facts)
    noise = given_noise(detector, stacks[0].voxels)
    result = saved.measured(stacks, noise=noise, constraints=_constraints(arguments, saved))
    result.export(arguments.out)
    print(f"{arguments.out}: {summary(result.measurement)}")
    return DONE


def _constraints(arguments: argparse.Namespace, saved: FitResult) -> Constraints:
    """Return what is known of Gaussians, as options say; what the fit knew of light counts too."""
    from napari_gaussfit.cli.psf import psf_of
    from napari_gaussfit.measure.constraints import Constraints

    psf = psf_of(arguments.psf)
    return Constraints(
        shape=arguments.shape,
        widths=arguments.widths,
        centres=arguments.centres,
        psf=saved.psf if psf is None else psf,
    )


def _psf(arguments: argparse.Namespace) -> int:
    from napari_gaussfit.cli.psf import run_psf

    run_psf(arguments, lambda path: _opened(arguments, path)[0])
    return DONE


def _demo(arguments: argparse.Namespace) -> int:
    from napari_gaussfit.cli import demo
    from napari_gaussfit.cli.folder import REPLACED, FitFolder, checked_folder
    from napari_gaussfit.cli.overwriting import refuse_to_replace
    from napari_gaussfit.fitting.fit import Fit

    folder = checked_folder(arguments.out)
    written = (demo.STACK_NAME, demo.TRUTH_NAME, *REPLACED)
    refuse_to_replace([folder / name for name in written], force=arguments.force)
    phantom, settings = demo.problem()
    fit = Fit(phantom.stack, settings)
    code = _begin(fit, FitFolder(folder, (phantom.stack,)), force=arguments.force)
    if code == DONE:
        demo.compare(folder, phantom)
        demo.show(folder)
    return code
