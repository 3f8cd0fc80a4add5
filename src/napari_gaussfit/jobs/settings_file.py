"""``settings.toml``: what was asked for, beside what was found, so that it can be asked for again.

Options of the command line by their names, a value each: the file is the same from the prompt and
from the window, and ``--settings`` reads it.
"""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any

from napari_gaussfit.errors import FormatError
from napari_gaussfit.files import replacing

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["SETTINGS_NAME", "difference", "read_settings", "write_settings"]

SETTINGS_NAME = "settings.toml"

MAY_DIFFER = ("device", "max_seconds")
"""Settings that limit a run, and leave the result the same."""


def write_settings(path: Path, asked: Mapping[str, Any], command: str) -> None:
    """Write what was asked for.

    Parameters
    ----------
    path : Path
        The file to write or to replace.
    asked : mapping
        Values by name: text, numbers, truth values and lists of them. None is left out: TOML has no
        word for it.
    command : str
        What it was asked of, for the line that says how to repeat it.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    import tomli_w

    from napari_gaussfit import __version__

    again = f"napari-gaussfit {command} STACK -o OUT --settings {SETTINGS_NAME}"
    values = {name: _plain(value) for name, value in asked.items() if value is not None}
    with replacing(path) as temporary:
        temporary.write_text(
            f"# Of napari-gaussfit {__version__}. The same again: {again}\n{tomli_w.dumps(values)}",
            encoding="utf-8",
        )


def read_settings(path: Path) -> dict[str, Any]:
    """Read what `write_settings` or a person wrote.

    Parameters
    ----------
    path : Path
        The TOML file that holds the settings.

    Returns
    -------
    dict
        Values by name, unchecked.

    Raises
    ------
    FormatError
        If it cannot be read, is no TOML, or holds tables.
    """
    try:
        with path.open("rb") as file:
            values = tomllib.load(file)
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FormatError(f"{path}: is no TOML: {error}") from error
    for name, value in values.items():
        if isinstance(value, dict):
            raise FormatError(
                f"{path}: [{name}] is a table; give all settings without one, name = value"
            )
    return values


def difference(path: Path, asked: Mapping[str, Any]) -> str:
    """Say how a settings file differs from what is asked for now.

    Parameters
    ----------
    path : Path
        A file that `write_settings` wrote.
    asked : mapping
        As `write_settings` takes it.

    Returns
    -------
    str
        Of the first setting that differs; empty where none does but those that only limit a run.

    Raises
    ------
    FormatError
        If it cannot be read.
    """
    known = read_settings(path)
    wanted = {name: _plain(value) for name, value in asked.items() if value is not None}
    for name in sorted((known.keys() | wanted.keys()) - set(MAY_DIFFER)):
        was, now = known.get(name), wanted.get(name)
        if was != now:
            return f"{name}={_said(was)}, not {_said(now)}"
    return ""


def _said(value: Any) -> str:
    return "the default" if value is None else repr(value)


def _plain(value: Any) -> Any:
    return [_plain(one) for one in value] if isinstance(value, (list, tuple)) else value
