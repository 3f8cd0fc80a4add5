"""Writing files so that nobody ever sees half of one."""

from __future__ import annotations

import os
import secrets
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from napari_gaussfit.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["replacing"]


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary name beside `path`, and rename it to `path` once it is wholly written.

    Parameters
    ----------
    path : path-like
        The file, or the folder, to write or to replace.

    Yields
    ------
    Path
        A new name in the same folder, with the same suffixes, for the ``with`` to write.

    Raises
    ------
    OutputError
        If the folder does not exist.

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
            _flush_to_disk(temporary)
            temporary.replace(target)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        temporary.unlink(missing_ok=True)


def _replace_folder(temporary: Path, target: Path) -> None:
    for file in temporary.rglob("*"):
        if file.is_file():
            _flush_to_disk(file)
    aside = temporary.with_name(f"{temporary.name}.old")
    if target.is_dir():
        target.rename(aside)
    try:
        temporary.rename(target)
    except OSError:
        if aside.exists():
            aside.rename(target)
        raise
    if aside.exists():
        shutil.rmtree(aside)


def _flush_to_disk(path: Path) -> None:
    # Without it, a power cut just after the rename may leave an empty file under the new name.
    with path.open("rb+") as file:
        os.fsync(file.fileno())
