"""Where the real stacks are, a small one to fit, and a look at what is left behind."""

from __future__ import annotations

import functools
import gc
import os
import shutil
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from xdist.scheduler import LoadFileScheduling

from notebook_rows import NotebookTable, note_marks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari_gaussfit.synthetic.phantoms import Phantom

CHECKOUT = Path(__file__).resolve().parents[1]

_scratch_config = pytest.StashKey[str]()
_own_screen = pytest.StashKey[subprocess.Popen[bytes]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--notebook-table",
        type=Path,
        metavar="FILE",
        help="write the table of what the notebook has and which test of this run proves it",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Keep settings and sessions of napari, Qt and us out of the user's, before they are read."""
    table = config.getoption("--notebook-table")
    if table is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(NotebookTable(table), "notebook-table")
    folder = tempfile.mkdtemp(prefix="gaussfit-config-")
    config.stash[_scratch_config] = folder
    os.environ["XDG_CONFIG_HOME"] = folder
    os.environ["GAUSSFIT_SESSIONS"] = str(Path(folder, "sessions"))
    if hasattr(config, "workerinput") and shutil.which("Xvfb") is not None:
        config.stash[_own_screen] = _start_screen()


def _start_screen() -> subprocess.Popen[bytes]:
    """Open windows on a screen of this process: on one of all, a window takes the others' keys."""
    read, write = os.pipe()
    screen = subprocess.Popen(
        ["Xvfb", "-displayfd", str(write), "-screen", "0", "1280x1024x24", "-nolisten", "tcp"],
        pass_fds=[write],
        stderr=subprocess.DEVNULL,
    )
    os.close(write)
    with os.fdopen(read) as told:
        number = told.readline().strip()
    assert number, "Xvfb did not start"
    os.environ["DISPLAY"] = f":{number}"
    os.environ.pop("WAYLAND_DISPLAY", None)
    return screen


class _OneScreen(LoadFileScheduling):
    """All windows in one process of tests, where there is but one screen for all."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return "windows" if _opens_windows(file) else file


@functools.cache
def _opens_windows(file: str) -> bool:
    return "pytest.mark.gui" in (CHECKOUT / file).read_text(encoding="utf-8")


# Not by groups: with pytest 9.2, xdist 3.8 sees none (pytest-xdist's issue 1386), and says nothing.
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _OneScreen | None:
    """Keep in one process what shares fits, which is a file's, or the screen."""
    by_files = config.getoption("dist") == "loadfile"
    return _OneScreen(config, log) if by_files and shutil.which("Xvfb") is None else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with files that take long."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
    for item in items:
        note_marks(item)


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Iterator[None]:
    """Look for garbage neither while a million objects are imported, nor among them ever after."""
    del session
    gc.disable()
    yield
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(config.stash[_scratch_config], ignore_errors=True)
    screen = config.stash.get(_own_screen, None)
    if screen is not None:
        screen.terminate()
        screen.wait()


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The folder that holds pyproject.toml."""
    return CHECKOUT


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real stacks; without it the test is skipped."""
    named = os.environ.get("GAUSSFIT_DATA")
    if named is not None:
        if not Path(named).is_dir():
            pytest.fail(f"GAUSSFIT_DATA is {named}, which is no folder")
        return Path(named)
    beside = CHECKOUT.parent / "shared" / "data"
    if not beside.is_dir():
        pytest.skip("needs the real stacks: set GAUSSFIT_DATA, or put them in ../shared/data")
    return beside


@pytest.fixture(scope="session")
def stack_path(data_dir: Path) -> Callable[[str], Path]:
    """Find a real stack by its path under `data_dir`, for example ``nuclei/nuclei.tif``."""

    def find(name: str) -> Path:
        path = data_dir / name
        if not path.is_file():
            pytest.fail(f"{data_dir} holds no {name}")
        return path

    return find


@pytest.fixture(scope="session")
def small_beads() -> Phantom:
    """Beads in a stack that fits in a moment."""
    from napari_gaussfit.synthetic.phantoms import beads

    return beads(count=6, shape=(12, 40, 40))


@pytest.fixture
def nothing_left_behind() -> Iterator[None]:
    """Fail if a process or a thread of a fit outlives the test."""
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    yield
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline and (_processes(before) or _threads()):
        time.sleep(0.05)
    assert not _processes(before), "a process is left behind"
    assert not _threads(), "a thread is left behind"


def _processes(before: set[int]) -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process().children(recursive=True)
        if child.pid not in before and child.status() != psutil.STATUS_ZOMBIE
    ]


def _threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name == "gaussfit-mips"]
