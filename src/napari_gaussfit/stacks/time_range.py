"""Which times of a recording are meant by what a person types. Loads nothing heavy."""

from __future__ import annotations

__all__ = ["parse_times"]

ALL = "all"


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
