"""A batch: many files, one after another, a folder each and one table of them all.

Knows neither Qt nor the command line; what is done with a file is a function that it is given. A
file that fails does not stop the rest: its row says why.
"""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from enum import StrEnum
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_gaussfit.errors import GaussfitError, OutputError, SettingsError
from napari_gaussfit.files import replacing
from napari_gaussfit.formats.registry import FIT_READERS
from napari_gaussfit.formats.tiled import holds_tiles
from napari_gaussfit.jobs.fit_folder import REPORT_NAME, holds_fit
from napari_gaussfit.jobs.settings_file import SETTINGS_NAME, difference
from napari_gaussfit.stacks.readers import is_stack_file, stack_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

__all__ = [
    "SUMMARY_NAME",
    "Batch",
    "Item",
    "Row",
    "RowState",
    "Stopped",
    "expanded",
    "figures_of",
    "is_several",
    "items_of",
]

SUMMARY_NAME = "summary.csv"

WILD = "*?["
"""What makes a name a pattern, where no file is called so."""

FIGURES = ("heldout_mip_psnr", "voxel_psnr", "noise_psnr", "converged", "seconds")
"""Of a report, in the table of all files."""


class RowState(StrEnum):
    """What became of a file."""

    DONE = "done"
    KEPT = "done before"
    FAILED = "failed"
    STOPPED = "stopped"
    WAITING = "not begun"


class Stopped(Exception):  # noqa: N818 - a request, as KeyboardInterrupt is
    """Raised by what is done with a file when it was asked to stop."""


@dataclass(frozen=True)
class Item:
    """A file of a batch.

    Parameters
    ----------
    path : Path
        The stack that is read.
    folder : Path
        Where its results go.
    """

    path: Path
    folder: Path


@dataclass(frozen=True)
class Row:
    """A file's row in ``summary.csv``.

    Parameters
    ----------
    file, folder : str
        What was read, and where its results are.
    state : RowState
        What became of it.
    number : int or None
        How many there are of what was looked for.
    of : str
        What was looked for: "Gaussians", "spots", ...
    heldout_mip_psnr, voxel_psnr, noise_psnr : float or None
        Quality, as in the report.
    converged : bool or None
        Whether more steps would change the fit.
    seconds : float or None
        How long the fit took; None where there was none.
    error : str
        Why the file failed, empty where it did not.
    bytes : int or None
        Size of the file: with the next, by which a changed file is told.
    modified : str
        When the file was written last.
    """

    file: str
    folder: str
    state: RowState = RowState.WAITING
    number: int | None = None
    of: str = ""
    heldout_mip_psnr: float | None = None
    voxel_psnr: float | None = None
    noise_psnr: float | None = None
    converged: bool | None = None
    seconds: float | None = None
    error: str = ""
    bytes: int | None = None
    modified: str = ""


def is_several(given: Sequence[Path]) -> bool:
    """Tell whether these are a batch: more than one, a folder of stacks, or a pattern.

    Parameters
    ----------
    given : sequence of Path
        As they were typed.

    Returns
    -------
    bool
        Whether a batch is meant, even if it comes to one file.
    """
    return len(given) != 1 or _is_pattern(given[0]) or _is_folder_of_files(given[0])


def expanded(given: Iterable[Path], *, fits: bool = False) -> list[Path]:
    """Return the files that are meant: those named, those of folders, and those of patterns.

    Parameters
    ----------
    given : iterable of Path
        Files, folders (the stacks in them, not in folders of theirs), and patterns, which Windows'
        own prompt leaves to programs.
    fits : bool
        Whether fits and their folders count too.

    Returns
    -------
    list of Path
        Each once, in the order given, those of a folder or a pattern by name.

    Raises
    ------
    SettingsError
        If a folder holds no stack, or a pattern is of none.
    """

    def counts(path: Path) -> bool:
        return is_stack_file(path) or (fits and _is_fit(path))

    found: list[Path] = []
    for path in given:
        if _is_pattern(path):
            matches = sorted(map(Path, glob(str(path), recursive=True)))  # noqa: PTH207 - "**" too
            inside = [match for match in matches if counts(match)]
            what = "no TIFF or OME-Zarr is called so"
        elif _is_folder_of_files(path):
            inside = sorted(one for one in path.iterdir() if counts(one))
            what = "holds no TIFF or OME-Zarr"
        else:
            inside, what = [path], ""
        if not inside:
            raise SettingsError(f"{path}: {what}; give another name, folder or pattern")
        found += inside
    return list({path.resolve(): path for path in reversed(found)}.values())[::-1]


def items_of(paths: Sequence[Path], out: Path) -> list[Item]:
    """Return a folder for each file: named like it, or by more of its path if two would be one.

    Parameters
    ----------
    paths : sequence of Path
        The files and folders that were named.
    out : Path
        The folder of the batch.

    Returns
    -------
    list of Item
        In the same order.
    """
    whole = [path.absolute() for path in paths]
    above = Path(os.path.commonpath([path.parent for path in whole])) if whole else Path()
    beside = ["-".join(path.relative_to(above).parent.parts) for path in whole]
    names = [stack_name(path) for path in paths]
    for longer in (
        [
            f"{folder}-{name}" if folder else name
            for folder, name in zip(beside, names, strict=True)
        ],
        ["-".join(path.relative_to(above).parts) for path in whole],
    ):
        # Without regard to case: so do the disks of Windows and macOS.
        counts = Counter(name.lower() for name in names)
        names = [
            other if counts[name.lower()] > 1 else name
            for name, other in zip(names, longer, strict=True)
        ]
    return [Item(path, out / name) for path, name in zip(paths, names, strict=True)]


class Batch:
    """Files that are done one after another.

    Parameters
    ----------
    items : sequence of Item
        The stacks, and where the results of each go.
    out : Path
        The folder of the batch, which gets ``summary.csv``.
    asked : mapping
        What is asked for, as ``settings.toml`` in each folder will have it.
    resume : bool
        Whether files are kept that were done before, with the same settings.
    force : bool
        Whether results are replaced that are there: with `resume`, those of other settings.

    Raises
    ------
    OutputError
        If there is a table already, and it is neither to be replaced nor gone on from.
    """

    def __init__(
        self,
        items: Sequence[Item],
        out: Path,
        asked: Mapping[str, Any],
        *,
        resume: bool = False,
        force: bool = False,
    ) -> None:
        self.items, self.out, self._asked = items, out, asked
        self._resume, self._force = resume, force
        summary = out / SUMMARY_NAME
        if summary.exists() and not (resume or force):
            raise OutputError(
                f"{summary}: exists; --force replaces it, --resume goes on with what is missing"
            )
        self._before = _read_rows(summary) if resume else {}
        self.rows = [Row(str(item.path), item.folder.name) for item in items]

    def run(
        self, work: Callable[[Item, bool], Row], told: Callable[[int, Row | None], None]
    ) -> None:
        """Do them.

        Parameters
        ----------
        work : callable
            That does a file, going on with what its folder holds if the second argument is true,
            and returns what `figures_of` says of it; what it raises on purpose is the file's error,
            and `Stopped` ends the batch.
        told : callable
            Called with the number of a file as it begins, and None; and with its row as it ends.

        Raises
        ------
        KeyboardInterrupt
            Where `work` raises it; the table is written before.
        """
        for n, item in enumerate(self.items):
            told(n, None)
            row = replace(self.rows[n], **_stamp(item.path))
            try:
                self.rows[n] = self._kept(item, row) or _joined(
                    row, work(item, self._goes_on(item))
                )
            except (Stopped, KeyboardInterrupt) as ended:
                self._take(n, replace(row, state=RowState.STOPPED), told)
                if isinstance(ended, KeyboardInterrupt):
                    raise
                return
            except MemoryError:
                self.rows[n] = _failed(row, "not enough memory; crop or bin the stack")
            except (GaussfitError, OSError) as error:
                self.rows[n] = _failed(row, str(error))
            self._take(n, self.rows[n], told)

    def count(self, *states: RowState) -> int:
        """Return how many files are in one of these states."""
        return sum(row.state in states for row in self.rows)

    def _take(self, n: int, row: Row, told: Callable[[int, Row | None], None]) -> None:
        self.rows[n] = row
        self.out.mkdir(parents=True, exist_ok=True)
        _write_rows(self.out / SUMMARY_NAME, self.rows)
        told(n, row)

    def _goes_on(self, item: Item) -> bool:
        """Tell whether a folder holds something of these very settings that is not complete."""
        settings = item.folder / SETTINGS_NAME
        known = settings.is_file() and difference(settings, self._asked)
        return self._resume and item.folder.exists() and not known

    def _kept(self, item: Item, row: Row) -> Row | None:
        """Return the row of a file that was done before; None where it is to be done."""
        settings = item.folder / SETTINGS_NAME
        if not self._resume or not settings.is_file():
            return None
        before = self._before.get(row.file)
        other = difference(settings, self._asked)
        if (
            not other
            and before is not None
            and (before.bytes, before.modified)
            != (
                row.bytes,
                row.modified,
            )
        ):
            other = f"the file as it was on {before.modified}, and it has changed"
        if other and self._force:
            return None
        if other:
            raise OutputError(
                f"{item.folder}: is of {other}; --force replaces it, or give another folder"
            )
        if before is None or before.state not in (RowState.DONE, RowState.KEPT):
            return None
        return replace(before, state=RowState.KEPT)


TABLES = {
    "Gaussians": "gaussians.csv",
    "spots": "objects.csv",
    "cells": "objects.csv",
    "branches": "branches.csv",
}
"""Where what was looked for is counted."""


def figures_of(folder: Path, of: str) -> Row:
    """Return what a file's folder tells of its result.

    Parameters
    ----------
    folder : Path
        With a report, where there is one.
    of : str
        What was looked for, one of `TABLES`.

    Returns
    -------
    Row
        Done, without the file's name.
    """
    report: dict[str, Any] = {}
    if (folder / REPORT_NAME).is_file():
        report = json.loads((folder / REPORT_NAME).read_text(encoding="utf-8"))
    known: dict[str, Any] = {
        name: round(value, 4) if isinstance(value, float) else value
        for name in FIGURES
        if (value := report.get(name)) is not None
    }
    table, number = folder / TABLES[of], report.get(of.lower())
    if table.is_file():
        with table.open(encoding="utf-8") as lines:
            number = sum(1 for _ in lines) - 1
    return Row("", "", RowState.DONE, number, of, **known)


def _joined(row: Row, found: Row) -> Row:
    kept = ("file", "folder", "bytes", "modified")
    return replace(found, **{name: getattr(row, name) for name in kept})


def _failed(row: Row, why: str) -> Row:
    return replace(row, state=RowState.FAILED, error=" ".join(why.split()))


def _is_pattern(path: Path) -> bool:
    return not path.exists() and any(character in str(path) for character in WILD)


def _is_folder_of_files(path: Path) -> bool:
    return path.is_dir() and not is_stack_file(path) and not _is_fit(path)


def _is_fit(path: Path) -> bool:
    return path.suffix.lower() in FIT_READERS or holds_fit(path) or holds_tiles(path)


def _stamp(path: Path) -> dict[str, Any]:
    """Return size and time of a file, by which a changed one is told; nothing where it is gone."""
    try:
        inside = [one for one in path.rglob("*") if one.is_file()] if path.is_dir() else [path]
        facts = [one.stat() for one in inside]
    except OSError:
        return {}
    if not facts:
        return {}
    newest = datetime.fromtimestamp(max(fact.st_mtime for fact in facts), UTC)
    return {
        "bytes": sum(fact.st_size for fact in facts),
        "modified": newest.isoformat(timespec="milliseconds"),
    }


def _write_rows(path: Path, rows: Sequence[Row]) -> None:
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [one.name for one in fields(Row)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def _read_rows(path: Path) -> dict[str, Row]:
    """Read a table that `_write_rows` wrote, by the files' names; one that it did not has none."""
    if not path.is_file():
        return {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [_row_of(line) for line in csv.DictReader(file)]
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise OutputError(
            f"{path}: is no table of a batch ({error}); --force replaces it, or give another folder"
        ) from error
    return {row.file: row for row in rows}


def _row_of(line: dict[str, str]) -> Row:
    kinds: dict[str, Callable[[str], Any]] = {
        "state": RowState,
        "number": int,
        "bytes": int,
        "converged": lambda text: text == "True",
        **dict.fromkeys(("heldout_mip_psnr", "voxel_psnr", "noise_psnr", "seconds"), float),
    }
    given: dict[str, Any] = {
        name: kinds.get(name, str)(text) if text else (None if name in kinds else "")
        for name, text in line.items()
    }
    return Row(**given)
