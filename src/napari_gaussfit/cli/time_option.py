"""`--time`: one time of a recording, a range, or all. Loads nothing heavy."""

from __future__ import annotations

import argparse

__all__ = ["add_time_option", "parse_times"]

ALL = "all"


def add_time_option(parser: argparse.ArgumentParser, *, several: bool = False) -> None:
    """Add `--time` to a command.

    Parameters
    ----------
    parser : ArgumentParser
        Of the command.
    several : bool
        Whether it takes more than one time.
    """
    if several:
        parser.add_argument(
            "--time", type=_times, metavar="T",
            help="which time point, from 0; a range such as 0:30:2, or all, makes tracks",
        )  # fmt: skip
    else:
        parser.add_argument("--time", type=int, metavar="T", help="which time point, from 0")


def parse_times(text: str) -> int | slice:
    """Return which times are meant: "3" is one, "all" and "0:30:2" are several.

    Parameters
    ----------
    text : str
        As it was typed.

    Returns
    -------
    int or slice
        Of the file's times.

    Raises
    ------
    ValueError
        If it is neither.
    """
    if text.strip().lower() == ALL:
        return slice(None)
    if ":" not in text:
        return int(text)
    parts = [int(part) if part.strip() else None for part in text.split(":")]
    if len(parts) > 3 or any(part is not None and part < 0 for part in parts) or parts[2:] == [0]:
        message = f"{text} is no range of times"
        raise ValueError(message)
    return slice(*parts)


def _times(text: str) -> int | slice:
    try:
        return parse_times(text)
    except ValueError:
        message = f"{text!r} is none: give a number from 0, a range such as 0:30:2, or all"
        raise argparse.ArgumentTypeError(message) from None
