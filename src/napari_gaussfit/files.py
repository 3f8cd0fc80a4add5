"""Writing files so that nobody ever sees half of one, and a full disk or a held file is said so.

A name on Windows is held by whoever has the file open: a spreadsheet, or for a moment a scanner.
"""

from __future__ import annotations

import csv
import errno
import json
import math
import os
import secrets
import shutil
import time
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_gaussfit.errors import IncompleteError, OutOfSpaceError, OutputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import pandas as pd
    from numpy.typing import NDArray

__all__ = [
    "json_text",
    "patiently",
    "replacing",
    "size_words",
    "write_columns",
    "write_each",
    "write_json",
    "write_table",
]

PATIENCE_SECONDS = 2.0
"""How long a name that another program holds is tried for: scanners let go within a second."""

_PAUSE_SECONDS = 0.05

_OUT_OF_SPACE = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def replacing(path: str | os.PathLike[str], nbytes: int | None = None) -> Iterator[Path]:
    """Give a temporary name beside `path`, and rename it to `path` once it is wholly written.

    Parameters
    ----------
    path : path-like
        The file, or the folder, to write or to replace.
    nbytes : int, optional
        How large it will be, for the message where there is no room for it.

    Yields
    ------
    Path
        A new name in the same folder, with the same suffixes, for the ``with`` to write.

    Raises
    ------
    OutOfSpaceError
        If the disk is full.
    OutputError
        If the folder does not exist, it cannot be written into, or `path` is held by another
        program for longer than `PATIENCE_SECONDS`.

    Notes
    -----
    If the body raises, what it wrote is removed and `path` is as it was before. A folder that is
    replaced by another is moved aside for that moment: no system swaps two.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise OutputError(
            f"{target}: there is no folder {target.parent} to write into; create it first"
        )
    suffixes = "".join(target.suffixes)
    stem = target.name.removesuffix(suffixes)
    temporary = target.with_name(f".{stem}-{secrets.token_hex(4)}{suffixes}")
    try:
        yield temporary
        if temporary.is_dir():
            _replace_folder(temporary, target)
        else:
            patiently(lambda: _flush_to_disk(temporary))
            patiently(lambda: temporary.replace(target))
    except OutputError:
        raise
    except OSError as error:
        raise _said(target, temporary, error, nbytes) from error
    finally:
        with suppress(OSError):
            patiently(lambda: _remove(temporary))


def patiently(action: Callable[[], object]) -> None:
    """Do what fails while another program holds a file, trying for `PATIENCE_SECONDS`.

    Parameters
    ----------
    action : callable
        Tried again after a PermissionError.

    Raises
    ------
    PermissionError
        If it fails to the end.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            action()
        except PermissionError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(_PAUSE_SECONDS)
        else:
            return


def size_words(nbytes: float) -> str:
    """Return a size as people say it, in MB or GB.

    Parameters
    ----------
    nbytes : float
        Size of the file or array, in bytes.

    Returns
    -------
    str
        With its unit.
    """
    return f"{nbytes / 1e9:.3g} GB" if nbytes >= 1e9 else f"{nbytes / 1e6:.3g} MB"


def _said(target: Path, temporary: Path, error: OSError, nbytes: int | None) -> OutputError:
    """Return the line that says why a file could not be written, and what to do."""
    reason = " ".join((error.strerror or str(error)).split())
    # numpy writes arrays past the system's own words: "1000 requested and 300 written".
    if error.errno in _OUT_OF_SPACE or (error.errno is None and "requested and" in reason):
        free = size_words(shutil.disk_usage(target.parent).free + _size(temporary))
        needed = f"it needs {size_words(nbytes)}, and " if nbytes is not None else ""
        return OutOfSpaceError(
            f"{target}: there is no room for it: {needed}{free} are free on its disk; "
            "make room there"
        )
    if isinstance(error, PermissionError):
        return OutputError(
            f"{target}: is held by another program, or may not be written by this user "
            f"({reason}); close it there, then write it again"
        )
    return OutputError(f"{target}: cannot be written: {reason}")


def _size(path: Path) -> int:
    files = [path, *path.rglob("*")] if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _replace_folder(temporary: Path, target: Path) -> None:
    for file in temporary.rglob("*"):
        if file.is_file():
            patiently(partial(_flush_to_disk, file))
    aside = temporary.with_name(f"{temporary.name}.old")
    if target.is_dir():
        patiently(lambda: target.rename(aside))
    try:
        patiently(lambda: temporary.rename(target))
    except OSError:
        if aside.exists():
            aside.rename(target)
        raise
    with suppress(OSError):  # the new folder is in its place, whatever holds on to the old one
        patiently(lambda: _remove(aside))


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _flush_to_disk(path: Path) -> None:
    # Without it, a power cut just after the rename may leave an empty file under the new name.
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def write_each(*writes: Callable[[], object]) -> None:
    """Write all files that can be written, whichever of them cannot.

    Parameters
    ----------
    *writes : callable
        Each writes a file or several, in this order: what is needed most is the first.

    Raises
    ------
    IncompleteError
        In the end, if a file could not be written; with what kept each of them.
    """
    failed = []
    for write in writes:
        try:
            write()
        except OutputError as error:
            failed.append(error)
    if failed:
        raise IncompleteError("; ".join(map(str, failed))) from failed[0]


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON types, null for what is not known, whole or not at all.

    Parameters
    ----------
    path : Path
        The file to write or to replace.
    content : dict
        With NaN and infinities, which JSON has not.
    """
    with replacing(path) as temporary:
        temporary.write_text(json_text(content) + "\n", encoding="utf-8")


def json_text(content: dict[str, Any]) -> str:
    """Return JSON types as text, null for what is not known.

    Parameters
    ----------
    content : dict
        With NaN and infinities, which JSON has not.
    """
    return json.dumps(_finite(content), indent=1, ensure_ascii=False, allow_nan=False)


def write_columns(path: str | os.PathLike[str], columns: Mapping[str, NDArray[Any]]) -> None:
    """Write a table as CSV, whole or not at all: byte for byte as `write_table`, without pandas.

    Parameters
    ----------
    path : path-like
        The file to write or to replace.
    columns : mapping of str to ndarray, shape [K]
        By name, whole numbers, text, or numbers in float64, which are written with all the digits
        that they have. Of NaN nothing is.
    """
    cells = (
        ["" if cell != cell else cell for cell in column.tolist()]  # noqa: PLR0124 - NaN alone
        for column in columns.values()
    )
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(columns)
        rows.writerows(zip(*cells, strict=True))


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV, whole or not at all.

    Parameters
    ----------
    path : Path
        The file to write or to replace.
    table : DataFrame
        The table, whose index is not written.
    """
    with replacing(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")


def _finite(value: Any) -> Any:
    """Return JSON types with null for what is not known: JSON has no NaN and no infinity."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
