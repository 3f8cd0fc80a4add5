"""Tables that are too wide for a telephone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from docutils import nodes

if TYPE_CHECKING:
    from sphinx.application import Sphinx

__all__ = ["COLUMNS_OF_SHEETS", "name_columns"]

COLUMNS_OF_SHEETS = 10
"""Columns of a table of which a telephone shows no row whole; see `_static/pages.css`."""


def name_columns(_app: Sphinx, page: nodes.document) -> None:
    """Have each number of a wide table say its column, for screens where a row is a sheet."""
    for table in page.findall(nodes.table):
        names, *rows = (row.children for row in table.findall(nodes.row))
        if len(names) < COLUMNS_OF_SHEETS:
            continue
        table["classes"].append("sheets")
        for row in rows:
            for cell, name in zip(row[1:], names[1:], strict=True):
                for paragraph in cell.findall(nodes.paragraph):
                    label = nodes.inline(text=f"{name.astext()} ", classes=["column"])
                    paragraph.insert(0, label)
