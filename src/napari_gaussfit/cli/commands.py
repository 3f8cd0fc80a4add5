"""The command line: its commands, and what ends them.

Exit codes are those of `exits.Exit`. Heavy imports stand inside the functions of the commands'
modules, so that ``--help`` answers at once.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from napari_gaussfit.cli import demo, export, fit, found, info, measure, psf, render, spots
from napari_gaussfit.cli.exits import Exit
from napari_gaussfit.cli.options import Parser
from napari_gaussfit.cli.printing import printing
from napari_gaussfit.errors import GaussfitError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

__all__ = ["PROGRAM", "main", "parser"]

PROGRAM = "napari-gaussfit"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; the process's own by default.
    """
    with printing() as out:
        code = _ran(parser().parse_args(argv))
        out.flush()
        if out.error is not None and not isinstance(out.error, BrokenPipeError):
            _say(f"error: what was to be printed cannot be: {out.error.strerror}")
        return code or (Exit.NOT_WRITTEN if out.error is not None else Exit.DONE)


def _ran(arguments: argparse.Namespace) -> int:
    """Run a command; say what ends it, and return the exit code."""
    try:
        return int(arguments.run(arguments))
    except KeyboardInterrupt:
        _say("interrupted")
        return Exit.INTERRUPTED
    except (GaussfitError, OSError) as error:
        _say(f"error: {' '.join(str(error).split())}")
        return Exit.BAD_INPUT
    except MemoryError:
        _say("error: there is not enough memory; crop or bin the stack, or close other programs")
        return Exit.BAD_INPUT


def _say(line: str) -> None:
    print(f"{PROGRAM}: {line}", file=sys.stderr)


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    from napari_gaussfit import __version__

    program = Parser(prog=PROGRAM, description="Fit 3D Gaussians to a fluorescence stack.")
    program.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = program.add_subparsers(required=True, metavar="COMMAND")
    fit.add_parser(commands)
    found.add_parsers(commands)
    for command in (spots, render, export, info, measure, psf, demo):
        command.add_parser(commands)
    return program
