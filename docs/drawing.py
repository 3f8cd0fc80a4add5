"""What the pages of this documentation show tables with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def table(rows: Iterable[Mapping[str, Any]], **formats: str) -> Any:
    """Return rows as a table for the page.

    Parameters
    ----------
    rows : iterable of mapping
        Values by column.
    **formats : str
        How to print a column's numbers, as in ``seconds="{:.1f}"``.
    """
    import pandas as pd

    return pd.DataFrame([*rows]).style.format({**formats}, na_rep="–").hide(axis="index")
