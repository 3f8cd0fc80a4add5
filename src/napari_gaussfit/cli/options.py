"""What several commands are told: settings of a fit, which stack, whether files are replaced."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NoReturn

from napari_gaussfit.cli.exits import Exit
from napari_gaussfit.cli.time_option import add_time_option
from napari_gaussfit.settings import SETTINGS, FitSettings, Setting

__all__ = [
    "Parser",
    "add_also",
    "add_force",
    "add_psf_option",
    "add_settings",
    "add_stack_options",
    "option_of",
]

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


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        """End with one line."""
        self.exit(Exit.BAD_INPUT, f"{self.prog}: error: {message} ({self.prog} --help)\n")


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add the settings of a fit, and where and by what light it begins."""
    for name, setting in SETTINGS.items():
        option = option_of(name, setting)
        parser.add_argument(f"--{name.replace('_', '-')}", dest=name, default=None, **option)
    parser.add_argument(
        "--points", metavar="FILE", type=Path,
        help="a CSV of positions to begin at: napari's points, or gaussians.csv",
    )  # fmt: skip
    add_psf_option(parser)


def add_stack_options(
    parser: argparse.ArgumentParser, *, several: bool = False, times: bool = False
) -> None:
    """Add which stack of a file is meant, and what its file does not tell."""
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


def add_psf_option(parser: argparse.ArgumentParser) -> None:
    """Add the point spread function."""
    parser.add_argument(
        "--psf", metavar="PSF",
        help="what light makes of a point, psf.json or NA,WAVELENGTH_NM,INDEX: nothing is "
        "narrower, and objects have widths of their own",
    )  # fmt: skip


def add_also(parser: argparse.ArgumentParser, names: str) -> None:
    """Add further files to write."""
    parser.add_argument(
        "--also", metavar="FILE", type=Path, nargs="+", default=(),
        help=f"further files, by their names: {names}",
    )  # fmt: skip


def add_force(parser: argparse.ArgumentParser) -> None:
    """Add that files may be replaced."""
    parser.add_argument("--force", action="store_true", help="replace what exists")


def option_of(name: str, setting: Setting) -> dict[str, Any]:
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
