"""Which rows of a table a condition allows, as a person types it: "intensity > 200 and z < 3"."""

from __future__ import annotations

import operator
import re
from typing import TYPE_CHECKING

import numpy as np

from napari_gaussfit._napari.panel.columns import column_named
from napari_gaussfit.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pandas as pd
    from numpy.typing import NDArray

__all__ = ["EXAMPLE", "allowed_by"]

EXAMPLE = "intensity > 200 and z < 3"

_COMPARISONS: dict[str, Callable[[NDArray[np.float64], float], NDArray[np.bool_]]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
    "=": operator.eq,
}

_CONDITION = re.compile(r"(.+?)\s*(<=|>=|!=|==|<|>|=|\bhas\b)\s*(.*)")

_SIGNS = {"≤": "<=", "≥": ">=", "≠": "!="}


def allowed_by(text: str, table: pd.DataFrame) -> NDArray[np.bool_]:
    """Return which rows [K] a condition allows; all where there is none.

    Comparisons of columns with numbers (``<``, ``<=``, ``>``, ``>=``, ``=``, ``!=``) and of words
    (``=``, ``!=``, ``has``), joined by ``and``; and groups of these joined by ``or``. A column is
    called by its title, its name in files, or a part of these that no other has.

    Raises
    ------
    SettingsError
        If it is no such condition; says which part.
    """
    for sign, plain in _SIGNS.items():
        text = text.replace(sign, plain)
    if not text.strip():
        return np.ones(len(table), np.bool_)
    allowed = np.zeros(len(table), np.bool_)
    for group in re.split(r"\bor\b", text, flags=re.IGNORECASE):
        together = np.ones(len(table), np.bool_)
        for condition in re.split(r"\band\b|;", group, flags=re.IGNORECASE):
            together &= _compared(condition.strip(), table)
        allowed |= together
    return allowed


def _compared(condition: str, table: pd.DataFrame) -> NDArray[np.bool_]:
    parts = _CONDITION.fullmatch(condition)
    if parts is None:
        message = f"{condition!r} is no comparison; expected, for example, {EXAMPLE}"
        raise SettingsError(message)
    name = _column_called(parts[1], list(table.columns))
    sign, value = parts[2].replace("==", "="), parts[3].strip()
    if table[name].dtype.kind not in "iufb":
        return _words_compared(table[name], sign, value.strip("'\""))
    try:
        number = float(value.replace(",", "."))
    except ValueError:
        message = f"{value!r} is no number to compare {parts[1]} with; expected one, e.g. 200"
        raise SettingsError(message) from None
    if sign not in _COMPARISONS:
        message = f"{parts[1]} has numbers; compare them with <, <=, >, >=, = or !="
        raise SettingsError(message)
    return _COMPARISONS[sign](table[name].to_numpy(np.float64), number)


def _words_compared(words: pd.Series, sign: str, value: str) -> NDArray[np.bool_]:
    known = words.astype(object).fillna("").astype(str).str
    if sign == "has":
        return np.asarray(known.contains(value, case=False, regex=False), np.bool_)
    if sign not in {"=", "!="}:
        message = f"{words.name} has words; compare them with =, != or has"
        raise SettingsError(message)
    same = np.asarray(known.lower() == value.lower(), np.bool_)
    return same if sign == "=" else ~same


def _column_called(text: str, names: Sequence[str]) -> str:
    """Return the column that a person means."""
    wanted = _plain(text)
    called = {name: {_plain(name), _plain(column_named(name).title)} for name in names}
    exactly = [name for name in names if wanted in called[name]]
    if exactly:
        return exactly[0]
    # Error bars are called by their full names: "sd" before all others would be in the way.
    partly = [
        name
        for name in names
        if not name.startswith("sd_") and any(wanted in one for one in called[name])
    ]
    if len(partly) == 1:
        return partly[0]
    among = partly or [name for name in names if not name.startswith(("sd_", "cov_", "axis"))]
    said = ", ".join(column_named(name).title for name in among)
    message = f"{text.strip()!r} is {'several columns' if partly else 'no column'}; take of: {said}"
    raise SettingsError(message)


def _plain(text: str) -> str:
    return re.sub(r"[\s_]+", " ", text.strip().casefold())
