"""The part of a page that a run writes: between two markers, and nowhere else."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.tables import Table


class PageError(Exception):
    """A page has no place for figures."""


def write_tables(
    page: Path, tables: Sequence[Table], command: str, *, part: str = "benchmarks"
) -> None:
    """Put tables in place of what lies between a part's markers of a page.

    The page names the command that wrote them, without where else it wrote: a file of the machine
    that it ran on says nothing to a reader.

    Raises
    ------
    PageError
        If the page does not hold each marker once, in order.
    """
    begin_mark, end_mark = f"<!-- {part}: begin -->", f"<!-- {part}: end -->"
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(begin_mark)
    _, end, after = rest.partition(end_mark)
    if not begin or not end or begin_mark in rest or end_mark in after:
        message = f"{page}: expected {begin_mark} and after it {end_mark}, each once"
        raise PageError(message)
    told = re.sub(r" --json[ =]\S+", "", command)
    parts = [f"Written by `{told}`.", *(table.markdown() for table in tables)]
    middle = "\n\n".join(one.strip() for one in parts)
    page.write_text(f"{before}{begin_mark}\n\n{middle}\n\n{end_mark}{after}", encoding="utf-8")
