"""What the page of the command line shows: its commands and options, from the parser itself."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING

from IPython.display import Markdown

from napari_gaussfit.cli.commands import PROGRAM, parser

if TYPE_CHECKING:
    from collections.abc import Iterator

OPTION = re.compile(r"(?<![-\w`])--[a-z][a-z-]*")
"""In a sentence, where typography would make a dash of its hyphens."""


def commands() -> Markdown:
    """Return a section for each command: what it does, how it is called, its options."""
    [found] = [one for one in parser()._actions if isinstance(one, argparse._SubParsersAction)]
    said = {one.dest: one.help or "" for one in found._choices_actions}
    sections = (_section(name, said[name], one) for name, one in found.choices.items())
    return Markdown("\n".join(line for section in sections for line in section))


def _section(name: str, said: str, command: argparse.ArgumentParser) -> Iterator[str]:
    yield f"\n## {PROGRAM} {name}\n"
    yield _coded(command.description or f"{said[:1].upper()}{said[1:]}.") + "\n"
    yield f"```\n{' '.join(_usage(command))}\n```\n"
    yield "| option | what it says |\n|---|---|"
    for action in command._actions:
        if not isinstance(action, argparse._HelpAction) and action.help != argparse.SUPPRESS:
            yield f"| {_called(action)} | {_cell(command, action)} |"
    if command.epilog:
        yield f"\n```\n{command.epilog.strip()}\n```"


def _usage(command: argparse.ArgumentParser) -> Iterator[str]:
    """Yield how a command is called, with what it cannot do without: a table has the rest."""
    formatter = command._get_formatter()
    yield command.prog
    for action in command._actions:
        wanted = action.metavar or action.dest.upper()
        if not action.option_strings:
            yield formatter._format_args(action, str(wanted))
        elif action.required:
            yield f"{action.option_strings[0]} {wanted}"
    yield "[options]"


def _coded(text: str) -> str:
    """Return a sentence with its options as code."""
    return OPTION.sub(lambda found: f"`{found[0]}`", text)


def _called(action: argparse.Action) -> str:
    """Return how an option or an argument is written."""
    names = action.option_strings or [""]
    wanted = action.metavar or (action.dest.upper() if action.nargs != 0 else "")
    values = " ".join(wanted) if isinstance(wanted, tuple) else str(wanted)
    if action.choices is not None and not action.metavar:
        values = " or ".join(map(str, action.choices))
    return ", ".join(f"`{f'{name} {values}'.strip()}`" for name in names)


def _cell(command: argparse.ArgumentParser, action: argparse.Action) -> str:
    text = command._get_formatter()._expand_help(action) if action.help else ""
    return _coded(text.replace("|", "\\|"))
