"""Tables of what was measured, as text, as markdown and as JSON types."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Cell = str | int | float | None


@dataclass(frozen=True)
class Table:
    """Rows under a header. `notes` say what a reader must know to judge the figures."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The table as JSON types: a dictionary a row."""
        rows = [dict(zip(self.header, row, strict=True)) for row in self.rows]
        return {"title": self.title, "rows": rows, "notes": list(self.notes)}

    @classmethod
    def from_dict(cls, known: dict[str, Any]) -> Table:
        """The table that `to_dict` gave."""
        rows = known["rows"]
        header = tuple(rows[0]) if rows else ()
        return cls(
            known["title"],
            header,
            tuple(tuple(row.values()) for row in rows),
            tuple(known["notes"]),
        )

    def text(self) -> str:
        """The table for a terminal."""
        lines = _aligned([self.header, *(tuple(map(shown, row)) for row in self.rows)])
        return "\n".join([self.title, "-" * len(self.title), *lines, *self.notes, ""])

    def markdown(self) -> str:
        """The table for a page."""
        cells = [self.header, *(tuple(map(shown, row)) for row in self.rows)]
        lines = ["| " + " | ".join(row) + " |" for row in cells]
        # Beneath the header: the first column names things, the others hold figures.
        lines.insert(1, "|---" + "|---:" * (len(self.header) - 1) + "|")
        return "\n".join([f"### {self.title}", "", *lines, "", *_paragraphs(self.notes)])


def shown(cell: Cell) -> str:
    """A cell as it is printed: three significant digits, whole numbers in groups."""
    if cell is None:
        return "-"
    if isinstance(cell, str):
        return cell
    if isinstance(cell, int) or abs(cell) >= 1000:
        return f"{cell:,.0f}"
    digits = f"{cell:.3g}"
    return f"{cell:.1f}" if 10 <= abs(cell) < 100 else digits


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if n == 0 else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _paragraphs(notes: tuple[str, ...]) -> list[str]:
    return [line for note in notes for line in (note, "")]
