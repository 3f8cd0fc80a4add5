"""`napari-gaussfit psf`: a point spread function from beads, or from the optics alone."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_gaussfit.cli.exits import Exit
from napari_gaussfit.cli.inputs import opened
from napari_gaussfit.cli.options import add_force, add_manner, add_stack_options
from napari_gaussfit.cli.printing import answer
from napari_gaussfit.errors import SettingsError

if TYPE_CHECKING:
    import argparse

    from napari_gaussfit.measure.optics import Optics
    from napari_gaussfit.measure.psf import Psf

__all__ = ["add_parser", "optics_of", "psf_of", "run"]

PSF_FILES = ("psf.json", "psf.csv", "psf.png", "psf.pdf")
"""What the command leaves in its folder; of optics alone, the first."""


EXAMPLES = """\
examples:
  napari-gaussfit psf beads.tif -o psf --na 1.4 --wavelength 520
  napari-gaussfit psf -o psf --na 1.4 --wavelength 520 --index 1.518"""


def add_parser(commands: Any) -> None:
    """Add the command to a command line."""
    psf = commands.add_parser(
        "psf", help="measure the point spread function from beads", epilog=EXAMPLES
    )
    psf.add_argument(
        "beads", metavar="BEADS", type=Path, nargs="?",
        help="a stack of beads; none, for what light allows",
    )  # fmt: skip
    psf.add_argument("-o", "--out", metavar="OUT", type=Path, required=True, help="folder to write")
    psf.add_argument("--na", type=float, metavar="NA", help="numerical aperture (not known)")
    psf.add_argument(
        "--wavelength", type=float, metavar="NM", help="of the light, in nm (not known)"
    )
    psf.add_argument("--index", type=float, metavar="N", help="of the immersion (1.518, oil)")
    psf.add_argument(
        "--pinhole", type=float, metavar="AU", help="in Airy units, if confocal (none)"
    )
    add_stack_options(psf)
    add_force(psf)
    add_manner(psf)
    psf.set_defaults(run=run)


def optics_of(arguments: argparse.Namespace) -> Optics | None:
    """Return the optics that options describe, None where there are none.

    Raises
    ------
    SettingsError
        If they do not make a microscope.
    """
    given = (arguments.na, arguments.wavelength)
    if given == (None, None):
        if (arguments.index, arguments.pinhole) != (None, None):
            raise SettingsError("--index and --pinhole need --na and --wavelength beside them")
        return None
    if None in given:
        raise SettingsError("--na and --wavelength make the optics together; give both")
    from napari_gaussfit.measure.optics import Optics

    index = 1.518 if arguments.index is None else arguments.index
    return Optics(arguments.na, arguments.wavelength, index, arguments.pinhole)


def psf_of(given: str | None) -> Psf | None:
    """Return the point spread function that --psf names, None where there is none.

    Parameters
    ----------
    given : str or None
        A file that the psf command wrote, or ``NA,WAVELENGTH_NM,INDEX``.

    Raises
    ------
    SettingsError
        If three numbers do not make a microscope.
    FormatError
        If there is no such file, or it holds no point spread function.
    """
    if given is None:
        return None
    from napari_gaussfit.measure.psf import Psf

    try:
        return Psf.named(given)
    except SettingsError as error:
        raise SettingsError(f"--psf {error}") from error


def run(arguments: argparse.Namespace) -> int:
    """Measure a point spread function, write it, and return the exit code."""
    from napari_gaussfit.files import replacing
    from napari_gaussfit.jobs.fit_folder import checked_folder
    from napari_gaussfit.jobs.overwriting import refuse_to_replace
    from napari_gaussfit.measure.beads import measure_beads
    from napari_gaussfit.measure.psf import Psf

    optics, folder = optics_of(arguments), checked_folder(arguments.out)
    names = PSF_FILES if arguments.beads is not None else PSF_FILES[:1]
    read = [] if arguments.beads is None else [arguments.beads]
    refuse_to_replace([folder / name for name in names], inputs=read, force=arguments.force)
    if arguments.beads is None:
        if optics is None:
            raise SettingsError("give a stack of beads, or the optics (--na, --wavelength)")
        psf = Psf.of_optics(optics)
        folder.mkdir(parents=True, exist_ok=True)
        psf.save(folder / PSF_FILES[0])
        _say(folder, psf, optics)
        print(f"{folder}: wrote {PSF_FILES[0]}")
        return Exit.DONE
    [stack] = opened(arguments, arguments.beads)
    beads = measure_beads(stack)
    psf = beads.psf()
    folder.mkdir(parents=True, exist_ok=True)
    psf.save(folder / PSF_FILES[0])
    with replacing(folder / PSF_FILES[1]) as temporary:
        beads.table().to_csv(temporary, index=False, lineterminator="\n")
    from napari_gaussfit.plots.psf import draw_psf

    figure = draw_psf(beads, optics)
    for name in PSF_FILES[2:]:
        with replacing(folder / name) as temporary:
            figure.savefig(temporary)
    _say(folder, psf, optics)
    print(f"{folder}: wrote {', '.join(names)}")
    for k, why in enumerate(beads.refused):
        if why:
            z, y, x = beads.measurement.gaussians[0].means[k]
            print(f"note: the bead at {z:.4g}, {y:.4g}, {x:.4g} does not count: {why}")
    return Exit.DONE


def _say(folder: Path, psf: Psf, optics: Optics | None) -> None:
    beads = f"{psf.beads} bead{'s' * (psf.beads != 1)}" if psf.beads else "by the optics"
    widths = (
        f"{axis} {1000 * width:.0f}" + (f" ± {1000 * sd:.0f}" if not math.isnan(sd) else "")
        for axis, width, sd in zip("zyx", psf.fwhm, psf.sd, strict=True)
    )
    print(f"{folder}: {beads}, FWHM along {', '.join(widths)} nm")
    answer({"out": str(folder), "beads": psf.beads, "fwhm": [*psf.fwhm], "sd": [*psf.sd]})
    if psf.beads and optics is not None:
        allowed = (f"{axis} {1000 * w:.0f}" for axis, w in zip("zyx", optics.fwhm, strict=True))
        print(f"light allows {', '.join(allowed)} nm")
