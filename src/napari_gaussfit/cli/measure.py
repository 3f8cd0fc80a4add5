"""``napari-gaussfit measure``: a fit's Gaussians with error bars."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_gaussfit.cli.exits import Exit
from napari_gaussfit.cli.inputs import loaded, opened
from napari_gaussfit.cli.options import (
    add_force,
    add_manner,
    add_psf_option,
    add_stack_options,
    option_of,
)
from napari_gaussfit.cli.overwriting import refuse_to_destroy
from napari_gaussfit.cli.printing import answer
from napari_gaussfit.errors import SettingsError
from napari_gaussfit.settings import SETTINGS, FitSettings

if TYPE_CHECKING:
    import argparse

    from tqdm import tqdm

    from napari_gaussfit.fitting.result import FitResult
    from napari_gaussfit.measure.constraints import Constraints

__all__ = ["add_parser", "run"]

CONSTRAINTS = {
    "shape": ("any", "aligned", "sphere", "point"),
    "widths": ("free", "shared", "given"),
    "centres": ("free", "given"),
}
"""What `Constraints` may say; the first is what it says by itself."""

DETECTOR = ("gain", "offset", "read_noise")


EXAMPLES = """\
examples:
  napari-gaussfit measure out stack.tif -o measured.csv
  napari-gaussfit measure spots.csv stack.tif -o measured.csv --shape sphere --widths shared"""


def add_parser(commands: Any) -> None:
    """Add the command to a command line."""
    measure = commands.add_parser(
        "measure", help="write a fit's Gaussians with error bars", epilog=EXAMPLES
    )
    measure.add_argument("fit", metavar="FIT", type=Path, help="a fit, its folder, or a table")
    measure.add_argument("stack", metavar="STACK", type=Path, help="the stack that was fitted")
    measure.add_argument(
        "-o", "--out", metavar="OUT", type=Path, required=True, help=".csv, the table to write"
    )
    for name in DETECTOR:
        measure.add_argument(
            f"--{name.replace('_', '-')}", dest=name, **option_of(name, SETTINGS[name])
        )
    add_psf_option(measure)
    for name, words in (
        ("shape", "of objects: any, aligned (axes along z, y, x), sphere, or point (needs a PSF)"),
        ("widths", "free, shared (the same for all), or given (as they are)"),
        ("centres", "free, or given (as they are)"),
    ):
        choices = CONSTRAINTS[name]
        measure.add_argument(
            f"--{name}", choices=choices, default=choices[0], help=f"{words} ({choices[0]})"
        )
    add_stack_options(measure, several=True)
    add_force(measure)
    add_manner(measure)
    measure.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure a fit, and return the exit code."""
    from napari_gaussfit.measure.measurement import summary
    from napari_gaussfit.measure.noise import given_noise

    if arguments.out.suffix.lower() != ".csv":
        raise SettingsError(f"{arguments.out}: expected a name that ends in .csv, for a table")
    refuse_to_destroy(arguments, arguments.stack)
    detector = FitSettings(**{name: getattr(arguments, name) for name in DETECTOR})
    stacks = opened(arguments, arguments.stack)
    saved = loaded(arguments.fit, stacks[0].facts)
    noise = given_noise(detector, stacks[0].voxels)
    constraints = _constraints(arguments, saved)
    with _bar(told=constraints is not None) as bar:

        def told(steady: int, count: int) -> None:
            bar.total = count
            bar.update(steady - bar.n)

        result = saved.measured(stacks, noise=noise, constraints=constraints, told=told)
    result.export(arguments.out)
    print(f"{summary(result.measurement)}\nwrote {arguments.out}")
    answer({"out": str(arguments.out), "measured": summary(result.measurement)})
    return Exit.DONE


def _bar(*, told: bool) -> tqdm[Any]:
    """Return a bar of how many Gaussians are steady, if that is told.

    It goes back where they are refined again.
    """
    from tqdm import tqdm

    return tqdm(
        desc="measuring", unit="Gaussian", file=sys.stderr,
        disable=None if told else True,  # None: where stderr is no terminal
        dynamic_ncols=True, bar_format="{desc}: {n_fmt} of {total_fmt} steady [{elapsed}]",
    )  # fmt: skip


def _constraints(arguments: argparse.Namespace, saved: FitResult) -> Constraints | None:
    """Return what is known of Gaussians, as options say; what the fit knew of light counts too.

    Where nothing is, they are measured as `FitResult.measured` does.
    """
    from napari_gaussfit.cli.psf import psf_of
    from napari_gaussfit.measure.constraints import Constraints

    psf = psf_of(arguments.psf)
    known = Constraints(
        shape=arguments.shape,
        widths=arguments.widths,
        centres=arguments.centres,
        psf=saved.psf if psf is None else psf,
    )
    return None if known == Constraints() else known
