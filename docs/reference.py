"""What the page of the command line shows: its commands and options, from the parser itself."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from IPython.display import Markdown

from napari_gaussfit.cli.commands import PROGRAM, parser

if TYPE_CHECKING:
    from collections.abc import Iterator


def commands() -> Markdown:
    """Return a section for each command: what it does, how it is called, its options."""
    [found] = [one for one in parser()._actions if isinstance(one, argparse._SubParsersAction)]
    said = {one.dest: one.help or "" for one in found._choices_actions}
    sections = (_section(name, said[name], one) for name, one in found.choices.items())
    return Markdown("\n".join(line for section in sections for line in section))


def _section(name: str, said: str, command: argparse.ArgumentParser) -> Iterator[str]:
    yield f"\n## {PROGRAM} {name}\n"
    yield (command.description or f"{said[:1].upper()}{said[1:]}.") + "\n"
    yield f"```\n{command.format_usage().removeprefix('usage: ').strip()}\n```\n"
    yield "| option | what it says |\n|---|---|"
    for action in command._actions:
        if not isinstance(action, argparse._HelpAction) and action.help != argparse.SUPPRESS:
            yield f"| {_called(action)} | {_cell(command, action)} |"
    if command.epilog:
        yield f"\n```\n{command.epilog.strip()}\n```"


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
    return text.replace("|", "\\|")
