"""The notebooks that pages offer run where only the package is: without the build's paths."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of notebooks, as the build writes them."""
    pytest.importorskip("myst_nb", reason="the documentation's packages are not installed")
    spec = importlib.util.spec_from_file_location("notebooks", DOCS / "notebooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folder = tmp_path_factory.mktemp("notebooks")
    module.write_notebooks(folder)
    return folder


def pages() -> list[str]:
    """The pages whose cells need no file."""
    texts = {page: page.read_text(encoding="utf-8") for page in DOCS.rglob("*.md")}
    found = [
        page.relative_to(DOCS).with_suffix("").as_posix()
        for page, text in texts.items()
        if "file_format: mystnb" in text and "_build" not in page.parts
    ]
    return sorted({*found} - {"gallery", "commands", "psf"})  # of examples; without cells to see


PHANTOMS = [f"gallery/phantom-{name}" for name in ("neurite", "beads", "nuclei", "gaussians-apart")]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")  # its own
@pytest.mark.parametrize("name", [*pages(), *PHANTOMS])
def test_the_cells_of_a_page_run_as_they_are_copied(
    name: str, written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nbformat: Any = pytest.importorskip("nbformat")
    notebook = nbformat.read(written / f"{name}.ipynb", as_version=4)
    monkeypatch.chdir(tmp_path)
    kept = [path for path in sys.path if Path(path or ".").resolve() not in {DOCS, DOCS.parent}]
    monkeypatch.setattr(sys, "path", kept)
    mpl.use("agg")  # a notebook has figures inline
    known: dict[str, Any] = {"__name__": "__main__"}
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    assert cells
    for source in cells:
        exec(compile(source, name, "exec"), known)
    plt.close("all")
