"""The part of a page that a run writes: between two markers, and nowhere else."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.tables import Table

BEGIN = "<!-- benchmarks: begin -->"
END = "<!-- benchmarks: end -->"


class PageError(Exception):
    """A page has no place for figures."""


def write_tables(page: Path, tables: Sequence[Table], command: str) -> None:
    """Put tables in place of what lies between the markers of a page.

    Raises
    ------
    PageError
        If the page does not hold each marker once, in order.
    """
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in after:
        message = f"{page}: expected {BEGIN} and after it {END}, each once"
        raise PageError(message)
    parts = [f"Written by `{command}`.", *(table.markdown() for table in tables)]
    middle = "\n\n".join(part.strip() for part in parts)
    page.write_text(f"{before}{BEGIN}\n\n{middle}\n\n{END}{after}", encoding="utf-8")
