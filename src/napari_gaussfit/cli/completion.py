"""``napari-gaussfit completion``: what a shell needs to complete commands and options."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_gaussfit.cli.exits import Exit
from napari_gaussfit.cli.options import add_manner
from napari_gaussfit.errors import OutputError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

__all__ = ["add_parser", "run"]

SHELLS = ("bash", "zsh", "tcsh")

FILES = ("PSF",)
"""What stands for files beside other words, which no type tells."""

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

    whole = parser()
    for action in _actions(whole):
        if action.type is Path or action.metavar in FILES:
            # Where nothing is said, shells complete no file either.
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    sys.stdout.write(shtab.complete(whole, shell=arguments.shell) + "\n")
    return Exit.DONE


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Yield what a parser takes, and what its commands take."""
    for action in parser._actions:  # noqa: SLF001 - argparse has no public way to list them
        yield action
        if isinstance(action.choices, dict):
            for command in action.choices.values():
                yield from _actions(command)
