"""Where the real stacks are, a small one to fit, and a look at what is left behind."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from notebook_rows import NotebookTable, note_marks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari_gaussfit.synthetic.phantoms import Phantom

CHECKOUT = Path(__file__).resolve().parents[1]

_scratch_config = pytest.StashKey[str]()


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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with files that take long, and keep in one process what shares fits, or the screen.

    Side by side, that is: tests of one file share fixtures, and a window that opens takes the keys
    from all others.
    """
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
    for item in items:
        note_marks(item)
        group = "windows" if item.get_closest_marker("gui") else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(config.stash[_scratch_config], ignore_errors=True)


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
