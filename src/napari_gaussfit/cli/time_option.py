"""`--time`: one time of a recording, a range, or all. Loads nothing heavy."""

from __future__ import annotations

import argparse

from napari_gaussfit.stacks.time_range import parse_times

__all__ = ["add_time_option"]


def add_time_option(parser: argparse.ArgumentParser, *, several: bool = False) -> None:
    """Add `--time` to a command.

    Parameters
    ----------
    parser : ArgumentParser
        The parser of the command that takes the option.
    several : bool
        Whether it takes more than one time.
    """
    if several:
        parser.add_argument(
            "--time", type=_times, metavar="T",
            help="which time point, from 0; a range such as 0:30:2, or all, makes tracks "
            "(the only one)",
        )  # fmt: skip
    else:
        parser.add_argument(
            "--time", type=int, metavar="T", help="which time point, from 0 (the only one)"
        )


def _times(text: str) -> int | slice:
    try:
        return parse_times(text)
    except ValueError:
        message = f"{text!r} is none: give a number from 0, a range such as 0:30:2, or all"
        raise argparse.ArgumentTypeError(message) from None
