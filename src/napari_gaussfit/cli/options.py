"""What several commands are told: settings of a fit, which stack, whether files are replaced."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NoReturn

from napari_gaussfit.cli.exits import Exit
from napari_gaussfit.cli.time_option import add_time_option
from napari_gaussfit.errors import SettingsError
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


NOT_ASKED = {
    *("force", "resume", "settings", "json", "quiet", "verbose"),
    *("help", "out", "also", "workers", "scheduler"),
}
"""Options that say how a command is run, and not what is asked of it."""


class Parser(argparse.ArgumentParser):
    """Takes whole names only, and says what is wrong in one line, without the usage."""

    def __init__(self, **given: Any) -> None:
        given.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **given)

    def parse_known_args(  # type: ignore[override]
        self, args: Any = None, namespace: Any = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse, and refuse here what is not known: the program's own help tells of no options."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown

    def error(self, message: str) -> NoReturn:
        """End with one line."""
        self.exit(Exit.BAD_INPUT, f"{self.prog}: error: {message} ({self.prog} --help)\n")

    def asked(self, arguments: argparse.Namespace) -> dict[str, Any]:
        """Return what was asked for, by options or by default, as ``settings.toml`` has it.

        Parameters
        ----------
        arguments : Namespace
            That this parser made.
        """
        values = {}
        for name in self._askable():
            value = getattr(arguments, name)
            if value is None and name in SETTINGS and name != "refine":
                value = getattr(FitSettings, name)
            values[name] = _kept(value)
        return values

    def take_settings(self, path: Path) -> None:
        """Let a settings file stand for the options that are not given.

        Parameters
        ----------
        path : Path
            That ``settings.toml`` of a result is, or a person wrote.

        Raises
        ------
        FormatError
            If it cannot be read.
        SettingsError
            If it has a name that is no option of this command, or a value that this cannot be.
        """
        from napari_gaussfit.jobs.settings_file import read_settings

        known = self._askable()
        for name, value in read_settings(path).items():
            if name not in known:
                raise SettingsError(
                    f"{path}: {name}: no such setting of {self.prog}; there are {', '.join(known)}"
                )
            self.set_defaults(**{name: _taken(known[name], value, path)})

    def _askable(self) -> dict[str, argparse.Action]:
        return {
            action.dest: action
            for action in self._actions
            if action.option_strings and action.dest not in NOT_ASKED
        }


def _kept(value: Any) -> Any:
    """Return the value of an option as TOML has it; a file by its whole path."""
    if isinstance(value, slice):
        parts = (value.start, value.stop, value.step)
        return ":".join("" if part is None else str(part) for part in parts)
    if isinstance(value, Path) or (isinstance(value, str) and Path(value).is_file()):
        return str(Path(value).resolve())
    return value


def _taken(action: argparse.Action, value: Any, path: Path) -> Any:
    """Return a value of a settings file as the option would have it."""
    where = f"{path}: {action.dest} = {value!r}"
    if action.nargs == 0:
        if not isinstance(value, bool):
            raise SettingsError(f"{where}: expected true or false")
        return value
    several = action.nargs is not None
    values = value if isinstance(value, list) else [value]
    if (not several and isinstance(value, list)) or (
        isinstance(action.nargs, int) and len(values) != action.nargs
    ):
        raise SettingsError(f"{where}: expected {action.nargs if several else 'one value'}")
    kind = action.type if callable(action.type) else str
    try:
        taken = [kind(str(one)) for one in values]
    except (ValueError, TypeError, argparse.ArgumentTypeError) as error:
        raise SettingsError(f"{where}: is not what --{action.dest.replace('_', '-')} takes") from (
            error
        )
    for one in taken:
        if action.choices is not None and one not in action.choices:
            choices = ", ".join(map(repr, action.choices))
            raise SettingsError(f"{where}: expected one of {choices}")
    return taken if several else taken[0]


def add_stacks(parser: argparse.ArgumentParser, *, fits: bool = False) -> None:
    """Add what is read, one or many."""
    what = "a TIFF or OME-Zarr of z, y, x"
    if fits:
        what += ", which is fitted first as by fit; or a fit, or its folder"
    parser.add_argument(
        "stacks", metavar="STACK|FIT" if fits else "STACK", type=Path, nargs="+",
        help=f"{what}; several, a folder, or a pattern ('plate/*.tif') are a batch",
    )  # fmt: skip


def add_out(parser: argparse.ArgumentParser) -> None:
    """Add the folder that results go to."""
    parser.add_argument(
        "-o", "--out", metavar="OUT", type=Path, required=True,
        help="folder to write; of several files, with a folder each and summary.csv",
    )  # fmt: skip


def add_settings_file(parser: argparse.ArgumentParser) -> None:
    """Add a file that stands for options."""
    parser.add_argument(
        "--settings", metavar="FILE", type=Path,
        help="settings.toml of a result: stands for the options that are not given (none)",
    )  # fmt: skip


def add_manner(parser: argparse.ArgumentParser, *, json: bool = True) -> None:
    """Add how much is said."""
    parser.add_argument("-q", "--quiet", action="store_true", help="say nothing but errors")
    parser.add_argument(
        "-v", "--verbose", action="count", default=0,
        help="log what is done, on stderr; -vv in detail",
    )  # fmt: skip
    if json:
        parser.add_argument(
            "--json", action="store_true", help="print one JSON object, and words on stderr"
        )


def add_settings(parser: argparse.ArgumentParser, *, gaussians: str | None = None) -> None:
    """Add the settings of a fit, and where and by what light it begins.

    Parameters
    ----------
    parser : ArgumentParser
        The parser of a command that fits.
    gaussians : str, optional
        How many Gaussians there are if nothing is said, where that is not as for ``fit``.
    """
    for name, setting in SETTINGS.items():
        option = option_of(name, setting)
        if name == "gaussians" and gaussians is not None:
            option["help"] = f"how many Gaussians the fit may use ({gaussians})"
        parser.add_argument(f"--{name.replace('_', '-')}", dest=name, default=None, **option)
    parser.add_argument(
        "--points", metavar="FILE", type=Path,
        help="a CSV of positions to begin at: napari's points, or gaussians.csv (none)",
    )  # fmt: skip
    add_psf_option(parser)


def add_stack_options(
    parser: argparse.ArgumentParser, *, several: bool = False, times: bool = False
) -> None:
    """Add which stack of a file is meant, and what its file does not tell."""
    parser.add_argument(
        "--channel", type=_channel, metavar="C", nargs="+" if several else 1,
        help="which channel, from 0 or by its name"
        f"{'; several share their Gaussians' * several} (the only one)",
    )  # fmt: skip
    add_time_option(parser, several=times)
    parser.add_argument(
        "--position", type=int, metavar="P", help="which image of several, from 0 (the first)"
    )
    parser.add_argument(
        "--spacing", type=float, nargs=3, metavar=("DZ", "DY", "DX"),
        help="micrometers a voxel (what the file says)",
    )  # fmt: skip
    parser.add_argument(
        "--fill-nan", type=float, metavar="VALUE",
        help="put this in place of NaN and infinities (refused)",
    )  # fmt: skip


def _channel(text: str) -> int | str:
    """Return a channel's number, or its name."""
    return int(text) if text.removeprefix("-").isdecimal() else text


def add_psf_option(parser: argparse.ArgumentParser) -> None:
    """Add the point spread function."""
    parser.add_argument(
        "--psf", metavar="PSF",
        help="what light makes of a point, psf.json or NA,WAVELENGTH_NM,INDEX: nothing is "
        "narrower, and objects have widths of their own (not known)",
    )  # fmt: skip


def add_also(parser: argparse.ArgumentParser, names: str) -> None:
    """Add further files to write."""
    parser.add_argument(
        "--also", metavar="FILE", type=Path, nargs="+", default=(),
        help=f"further files, by their names: {names} (none)",
    )  # fmt: skip


def add_force(parser: argparse.ArgumentParser) -> None:
    """Add that files may be replaced."""
    parser.add_argument("--force", action="store_true", help="replace what exists")


def option_of(name: str, setting: Setting) -> dict[str, Any]:
    """Return how a setting is given: `refine` by the fit to go on from, the others by a value."""
    if name == "refine":
        return {"type": Path, "metavar": "FIT", "help": f"{setting.help} (none)"}
    default = setting.without or getattr(FitSettings, name)
    words = {"help": f"{setting.help} ({default})"}
    if setting.choices:
        return {"choices": tuple(setting.choices)} | words
    if setting.kind is bool:
        shown = setting.without or ("yes" if default else "no")
        words = {"help": f"{setting.help} ({shown})"}
        return {"action": argparse.BooleanOptionalAction} | words
    return {"type": setting.kind, "metavar": LETTERS[name]} | words
