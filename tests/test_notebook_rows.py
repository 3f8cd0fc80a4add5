"""Every row of the notebook's table is proven by a test, and names something public."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from notebook_rows import ROWS

LINE = re.compile(
    r"\| (?:`(?P<row>[\w-]+)`|) \| .* \| \{py:obj\}`(?P<api>[\w.]+) <[\w.]+>` \| `(?P<test>.+)`"
)


@pytest.fixture(scope="module")
def table(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The table of a run that collects only."""
    path = tmp_path_factory.mktemp("table") / "table.md"
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "-m", "notebook", "--notebook-table", str(path), "tests"],
        cwd=checkout,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return path.read_text(encoding="utf-8")


def test_every_row_has_a_test(table: str) -> None:
    proven = {found["row"] for line in table.splitlines() if (found := LINE.match(line))}
    missing = [row for row in ROWS if row not in proven]
    assert not missing, f"no test carries the mark of {', '.join(missing)}"


def test_every_proof_names_something_public(table: str) -> None:
    named = {found["api"] for line in table.splitlines() if (found := LINE.match(line))}
    unknown = sorted(name for name in named if not is_public(name))
    assert not unknown, f"not found in the package: {', '.join(unknown)}"


def is_public(name: str) -> bool:
    """Tell whether a dotted name leads to something in the package, and has no underscore."""
    top, _, rest = name.partition(".")
    if top not in {"benchmarks", "napari_gaussfit"}:
        top, rest = "napari_gaussfit", name
    parts = rest.split(".")
    if any(part.startswith("_") for part in parts):
        return False
    for count in range(len(parts), -1, -1):
        try:
            found = importlib.import_module(".".join([top, *parts[:count]]))
        except ModuleNotFoundError:
            continue
        return has(found, parts[count:])
    return False


def has(thing: Any, path: list[str]) -> bool:
    """Tell whether a path of attributes exists; fields of a dataclass count as its own."""
    if not path:
        return True
    if path[0] in getattr(thing, "__dataclass_fields__", {}) and len(path) == 1:
        return True
    return hasattr(thing, path[0]) and has(getattr(thing, path[0]), path[1:])


@pytest.mark.parametrize(
    ("name", "public"),
    [
        ("GaussianField", True),
        ("napari_gaussfit.model.field.GaussianField.evaluate", True),
        ("GaussianField.means", True),
        ("model.camera.orbit", True),
        ("benchmarks.points", True),
        ("model.camera._framed", False),
        ("model.camera.orbits", False),
        ("model.field.GaussianField.nothing", False),
    ],
)
def test_public_names_are_told_from_others(name: str, public: bool) -> None:
    assert is_public(name) is public
