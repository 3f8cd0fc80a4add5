"""Where numba keeps the compiled kernels, and which of them it may still use.

Numba takes a kernel as stale by its own file alone. What it calls stands in others: with an older
copy of these compiled in, a kernel would compute what no source says any more. And where numba
finds no folder that can be written, in a read-only installation without a home, it raises an error.
"""

from __future__ import annotations

import atexit
import functools
import hashlib
import inspect
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import resolve_name
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from numba import njit
from numba.core.caching import CacheImpl

from napari_gaussfit.errors import OutputError

__all__ = [
    "functions_of",
    "is_temporary",
    "keep_kernels_of",
    "kernels_are_compiled",
    "njit",
    "sources_of",
    "stamp_of",
]

KERNELS = Path(__file__).parent
SOURCE = KERNELS.parents[1]
TEMPORARY = "napari-gaussfit-kernels-"


@dataclass(frozen=True)
class KernelLocator:
    """What numba asks about one kernel: in which folder it is kept, and of which code it is."""

    _py_file: str  # the name is numba's, which reads it for its warnings
    _line: int
    _folder: str

    def ensure_cache_path(self) -> None:
        """Make the folder."""
        Path(self._folder).mkdir(parents=True, exist_ok=True)

    def get_cache_path(self) -> str:
        """Return the folder."""
        return self._folder

    def get_source_stamp(self) -> str:
        """Return what differs where the kernel's code, or any that it calls, does."""
        return stamp_of(Path(self._py_file))

    def get_disambiguator(self) -> str:
        """Tell functions of one name in one file apart."""
        return str(self._line)


class KernelLocators:
    """Locators of the kernels, in numba's own order of folders, a temporary one last.

    Parameters
    ----------
    others : iterable of type
        Numba's locators, in the order in which it asks them.
    """

    def __init__(self, others: tuple[Any, ...]) -> None:
        self._others = others

    def from_function(self, function: Any, file: str) -> KernelLocator | None:
        """Return a function's locator; None leaves to numba what is in no file of the kernels."""
        if not (Path(file).is_relative_to(KERNELS) and Path(file).is_file()):
            return None
        found = (other.from_function(function, file) for other in self._others)
        locator = next(filter(None, found), None)
        if locator:
            folder = locator.get_cache_path()
        else:  # a folder a backend: modules of both have one name
            folder = str(temporary_folder() / Path(file).parent.name)
        return KernelLocator(file, function.__code__.co_firstlineno, folder)


def keep_kernels_of(cache: Any) -> None:
    """Have numba keep kernels so, before the first is decorated.

    Parameters
    ----------
    cache : type
        `CacheImpl` of numba, for the CPU, or of numba-cuda.
    """
    # Newer versions of numba have a setting for this, but for all packages of a process at once.
    locators = cache._locator_classes  # noqa: SLF001
    locators.insert(0, KernelLocators(tuple(locators)))


@functools.cache
def stamp_of(source: Path) -> str:
    """Return a digest of a module's source and of all that it imports of this package."""
    digest = hashlib.sha256()
    for path in sorted(sources_of(source)):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def sources_of(source: Path) -> set[Path]:
    """Return a module's file and those of this package that it imports, or they in their turn."""
    found: set[Path] = set()
    ahead = [source]
    while ahead:
        path = ahead.pop()
        if path not in found:
            found.add(path)
            ahead += imported_by(path)
    return found


IMPORT = re.compile(
    r"^ *(?:from +(?P<module>\S+) +)?import +(?P<names>\([^)]*\)|[^\n]*)", re.MULTILINE
)
NAME = re.compile(r"([\w.]+)(?:\s+as\s+\w+)?")


def names_imported(source: str) -> Iterator[tuple[str, str]]:
    """Yield the module and the name of each that a source imports, the module "" of ``import x``.

    By their lines, in a tenth of the time that the whole syntax takes: this is asked in each
    process that loads a kernel. Of a text that looks like an import, it is one more.
    """
    for found in IMPORT.finditer(re.sub(r"#.*|\\\n", "", source)):
        for name in NAME.finditer(found["names"]):
            yield found["module"] or "", name[1]


@functools.cache
def imported_by(source: Path) -> frozenset[Path]:
    """Return the files of this package that a module names in its import statements."""
    within = ".".join(source.relative_to(SOURCE).parent.parts)

    def names() -> Iterator[str]:
        for given, name in names_imported(source.read_text(encoding="utf-8")):
            module = resolve_name(given, within) if given else ""
            yield from (module, f"{module}.{name}") if module else (name,)

    files = {SOURCE.joinpath(*name.split(".")).with_suffix(".py") for name in names()}
    return frozenset(
        file for file in files if file.is_relative_to(KERNELS.parent) and file.is_file()
    )


@functools.cache
def temporary_folder() -> Path:
    """Return a folder for kernels that is this user's alone, since what lies there is run.

    Raises
    ------
    OutputError
        If there is none that can be written.
    """
    # On Windows, the folder for temporary files is the user's own.
    user = os.getuid() if hasattr(os, "getuid") else None
    try:
        home = Path(tempfile.gettempdir()) / f"{TEMPORARY}{'own' if user is None else user}"
        home.mkdir(mode=0o700, exist_ok=True)
        found = home.lstat()
        if user is not None and (
            not stat.S_ISDIR(found.st_mode) or found.st_uid != user or found.st_mode & 0o077
        ):
            home = _folder_of_this_process()
    except FileExistsError:
        home = _folder_of_this_process()
    except OSError as error:
        raise OutputError(
            f"no folder for compiled kernels can be written ({error}): neither in the "
            "installation, nor in the home, nor for temporary files; set NUMBA_CACHE_DIR to one"
        ) from error
    # Installations do not share kernels: two versions would overwrite each other's all the time.
    return home / hashlib.sha256(bytes(KERNELS)).hexdigest()[:16]


def _folder_of_this_process() -> Path:
    """Return a fresh folder, removed when the process ends: somebody else has the usual name."""
    home = Path(tempfile.mkdtemp(prefix=TEMPORARY))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    return home


def is_temporary(folder: Path) -> bool:
    """Tell whether kernels are kept in a folder that is not here to stay."""
    return any(part.startswith(TEMPORARY) for part in folder.parts)


keep_kernels_of(CacheImpl)


def functions_of(module: ModuleType) -> list[FunctionType]:
    """Return the functions that a module defines."""
    functions = (value for _, value in inspect.getmembers(module, inspect.isfunction))
    return [function for function in functions if function.__module__ == module.__name__]


def kernels_are_compiled() -> bool:
    """Tell whether Numba's cache holds the kernel that takes longest, newer than its sources."""
    from napari_gaussfit._kernels.cpu import mip_kernels

    sources = sources_of(Path(mip_kernels.__file__))
    cache = Path(str(mip_kernels.find_modes.stats.cache_path))
    newest = max((f.stat().st_mtime for f in cache.glob("mip_kernels.find_modes-*.nbi")), default=0)
    return newest > max(source.stat().st_mtime for source in sources)
