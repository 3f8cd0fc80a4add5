"""CSV tables of what was found, a row each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from napari_gaussfit.files import replacing

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

__all__ = ["write_columns"]


def write_columns(path: str | os.PathLike[str], columns: Mapping[str, Any]) -> None:
    """Write a table of columns, with all the digits that float64 has.

    Parameters
    ----------
    path : path-like
        The file to write or to replace.
    columns : mapping
        Arrays of one length, or a value for all rows, by name.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    arrays = {name: value for name, value in columns.items() if not isinstance(value, str)}
    same = {name: value for name, value in columns.items() if isinstance(value, str)}
    with replacing(path) as temporary:
        pd.DataFrame(arrays).assign(**same).to_csv(temporary, index=False, lineterminator="\n")
