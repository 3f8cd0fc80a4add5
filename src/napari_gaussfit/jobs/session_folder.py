"""A folder in which results are kept while a window is open, and what is found of one that crashed.

A lock tells folders of windows that live from those that nobody holds any more: it falls with its
process, however that ends.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from napari_gaussfit.errors import GaussfitError
from napari_gaussfit.files import write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from napari_gaussfit.fitting.result import FitResult

__all__ = ["About", "LeftOver", "SessionFolder", "left_over", "now", "sessions_root"]

ROOT_VARIABLE = "GAUSSFIT_SESSIONS"
"""The environment variable that names the folder, in place of one in the user's data folder."""

_LOCK, _FIT, _ABOUT = "lock", ".safetensors", ".json"


@dataclass(frozen=True)
class About:
    """What is kept of a result beside its fits.

    Parameters
    ----------
    name : str
        What a person calls it.
    made : str
        When it came to rest, as ISO 8601 has it.
    path : str
        The file of its stack, "" where there is none.
    kind : str
        What was looked for: "fit", "spots", "spot times", "cells", "neurites" or "times".
    words : dict
        What else it takes to show it again; JSON types.
    parts : int
        How many fits it has: one, but for a recording, a time each.
    """

    name: str
    made: str
    path: str = ""
    kind: str = "fit"
    words: dict[str, Any] = field(default_factory=dict)
    parts: int = 1


def now() -> datetime:
    """Return the time of day where the user is."""
    return datetime.now(UTC).astimezone()


def sessions_root() -> Path:
    """Return the folder that holds those of all sessions."""
    import platformdirs

    named = os.environ.get(ROOT_VARIABLE)
    if named:
        return Path(named)
    return platformdirs.user_data_path("napari-gaussfit", appauthor=False) / "sessions"


class SessionFolder:
    """Keeps results as files, one thread writing them one after another.

    The folder is made with the first result.

    Parameters
    ----------
    failed : callable
        Told, in that thread, why a result was not kept.
    root : Path, optional
        In which the folder is made; `sessions_root` by default.
    """

    def __init__(self, failed: Callable[[str], None], root: Path | None = None) -> None:
        self._failed, self._root = failed, root
        self._writing = ThreadPoolExecutor(1, "gaussfit-session")
        self._lock: FileLock | None = None
        self.path: Path | None = None

    def keep(self, key: str, fits: Sequence[FitResult], about: About) -> None:
        """Write a result, or write it anew."""
        self._writing.submit(self._write, key, tuple(fits), about)

    def drop(self, key: str) -> None:
        """Keep a result no more."""
        self._writing.submit(self._remove, key)

    def settle(self) -> None:
        """Wait until all is written."""
        self._writing.submit(lambda: None).result()

    def close(self) -> None:
        """Remove the folder with all that is in it: the window is closed in order."""
        self._writing.shutdown(wait=True, cancel_futures=True)
        if self.path is not None and self._lock is not None:
            _discard(self.path, self._lock)
        self.path = self._lock = None

    def _write(self, key: str, fits: tuple[FitResult, ...], about: About) -> None:
        try:
            folder = self._folder()
            for part, fit in enumerate(fits):
                fit.save(folder / _fit_name(key, part))
            write_json(folder / f"{key}{_ABOUT}", asdict(about))
        except (GaussfitError, OSError) as error:
            self._failed(str(error))

    def _remove(self, key: str) -> None:
        if self.path is not None:
            for path in (self.path / f"{key}{_ABOUT}", *self.path.glob(f"{key}*{_FIT}")):
                with suppress(OSError):
                    path.unlink(missing_ok=True)

    def _folder(self) -> Path:
        if self.path is None or not self.path.is_dir():
            root = self._root or sessions_root()
            path = root / f"{now():%Y-%m-%d_%H-%M-%S}-{secrets.token_hex(4)}"
            path.mkdir(parents=True)
            self._lock = _lock_of(path)
            self._lock.acquire(blocking=False)
            self.path = path
        return self.path


@dataclass(frozen=True, eq=False)
class LeftOver:
    """What a window has left that was not closed in order.

    Parameters
    ----------
    path : Path
        The folder of the session that was not closed.
    results : tuple of (str, About)
        Keys of its results, and what is known of them, the oldest first.
    lock : FileLock
        Held, so that no other window offers them too.
    """

    path: Path
    results: tuple[tuple[str, About], ...]
    lock: FileLock

    @property
    def words(self) -> str:
        """How many there are, and since when."""
        first = datetime.fromisoformat(self.results[0][1].made)
        today = first.date() == now().date()
        count = len(self.results)
        when = f"{first:%H:%M}" if today else f"{first:%Y-%m-%d %H:%M}"
        return f"{count} result{'s' * (count != 1)} from {when}"

    def fits(self) -> Iterator[tuple[About, tuple[FitResult, ...] | str]]:
        """Yield each result's fits as they were kept, or why it cannot be read."""
        from napari_gaussfit.fitting.result import load

        for key, about in self.results:
            try:
                paths = [self.path / _fit_name(key, part) for part in range(about.parts)]
                yield about, tuple(load(path) for path in paths)
            except GaussfitError as error:
                yield about, str(error)

    def discard(self) -> None:
        """Remove them."""
        _discard(self.path, self.lock)

    def leave(self) -> None:
        """Let them lie for the next window."""
        self.lock.release()


def left_over(root: Path | None = None) -> list[LeftOver]:
    """Return what windows have left that live no more; what has no result is cleared away."""
    folder, found = root or sessions_root(), []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if not path.is_dir():
            continue
        lock = _lock_of(path)
        try:
            lock.acquire(blocking=False)
        except (Timeout, OSError):
            continue  # of a window that lives
        results = tuple(sorted(_results_in(path), key=lambda one: one[1].made))
        if results:
            found.append(LeftOver(path, results, lock))
        else:
            _discard(path, lock)
    return found


def _results_in(folder: Path) -> Iterator[tuple[str, About]]:
    """Yield the results that were written wholly; what was being written then has no words yet."""
    for path in folder.glob(f"*{_ABOUT}"):
        with suppress(OSError, ValueError, TypeError):
            about = About(**json.loads(path.read_text(encoding="utf-8")))
            datetime.fromisoformat(about.made)
            names = [_fit_name(path.stem, part) for part in range(about.parts)]
            if all((folder / name).is_file() for name in names):
                yield path.stem, about


def _fit_name(key: str, part: int) -> str:
    """Return the name of a fit of a result; most have one."""
    return f"{key}-{part:04d}{_FIT}" if part else f"{key}{_FIT}"


def _lock_of(folder: Path) -> FileLock:
    return FileLock(folder / _LOCK, thread_local=False)


def _discard(folder: Path, lock: FileLock) -> None:
    lock.release()
    shutil.rmtree(folder, ignore_errors=True)
