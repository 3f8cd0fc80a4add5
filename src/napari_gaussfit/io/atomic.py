"""Writing files so that nobody ever sees half of one."""

from __future__ import annotations

import os
import secrets
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
        The file to write or to replace.

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
    If the body raises, the temporary file is removed and `path` is as it was before.
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
        _flush_to_disk(temporary)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _flush_to_disk(path: Path) -> None:
    # Without it, a power cut just after the rename may leave an empty file under the new name.
    with path.open("rb+") as file:
        os.fsync(file.fileno())
