"""``napari-gaussfit completion``: what a shell needs to complete commands and options."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from napari_gaussfit.cli.exits import Exit
from napari_gaussfit.cli.options import add_manner
from napari_gaussfit.errors import OutputError

if TYPE_CHECKING:
    import argparse

__all__ = ["add_parser", "run"]

SHELLS = ("bash", "zsh", "tcsh")

EXAMPLES = """\
examples:
  napari-gaussfit completion bash > ~/.local/share/bash-completion/completions/napari-gaussfit
  napari-gaussfit completion zsh > ~/.zfunc/_napari-gaussfit"""


def add_parser(commands: Any) -> None:
    """Add the command to a command line."""
    parser = commands.add_parser(
        "completion", help="print what a shell needs to complete commands and options",
        epilog=EXAMPLES,
    )  # fmt: skip
    parser.add_argument("shell", choices=SHELLS, help="the shell")
    add_manner(parser, json=False)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the script, and return the exit code."""
    try:
        import shtab
    except ImportError as error:
        raise OutputError(
            "completion is written by shtab, which is not installed; install "
            "napari-gaussfit[completion]"
        ) from error
    from napari_gaussfit.cli.commands import parser

    sys.stdout.write(shtab.complete(parser(), shell=arguments.shell) + "\n")
    return Exit.DONE
