"""What a command must not write over: what exists, what it reads, what another fit writes."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from napari_gaussfit.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

__all__ = ["LOCK_NAME", "claimed", "refuse_to_replace"]

LOCK_NAME, _OWNER_NAME = ".napari-gaussfit.lock", ".napari-gaussfit.pid"
"""The system's lock is on the first, and ends with its process; the second says which that is."""


def refuse_to_replace(
    targets: Iterable[Path], *, inputs: Iterable[Path] = (), force: bool = False, instead: str = ""
) -> None:
    """Check that writing destroys nothing.

    Parameters
    ----------
    targets : iterable of Path
        The files that are to be written.
    inputs : iterable of Path
        The files and folders that are read: never written over, nor into, whatever is forced.
    force : bool
        Whether targets that exist may be replaced.
    instead : str
        What else there is to do, for the message.

    Raises
    ------
    OutputError
        If a target is one of the inputs or inside of it, or exists.
    """
    read = {given.resolve(): given for given in inputs}
    for target in targets:
        place = target.resolve()
        for above in (place, *place.parents):
            if above in read:
                raise OutputError(
                    f"{target}: would write over {read[above]}, which is read; give another place"
                )
        if target.exists() and not force:
            raise OutputError(f"{target}: exists; --force replaces it{instead}")


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Keep other fits from writing into a folder, until this one has ended or was killed.

    Parameters
    ----------
    folder : Path
        Made where there is none.

    Raises
    ------
    OutputError
        If another fit is writing into it, or it cannot be made or written into.
    """
    from filelock import FileLock, Timeout

    owner, made = folder / _OWNER_NAME, not folder.exists()
    lock = FileLock(folder / LOCK_NAME, timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise OutputError(
            f"{folder}: another fit is writing into it{_process_named(owner)}; "
            "let it end, or give another folder"
        ) from error
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written into: {error.strerror}") from error
    try:
        with suppress(OSError):  # on a full disk the lock alone must do
            owner.write_text(str(os.getpid()))
        yield
    finally:
        for path in (owner, folder / LOCK_NAME):
            with suppress(OSError):  # Windows has the lock removed as it is released
                path.unlink(missing_ok=True)
        lock.release()
        if made:
            with suppress(OSError):  # which holds something, as it should
                folder.rmdir()


def _process_named(owner: Path) -> str:
    with suppress(OSError):
        return f" (process {owner.read_text()})"
    return ""
