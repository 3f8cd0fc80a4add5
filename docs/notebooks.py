"""The pages' cells as notebooks to download: what a reader sees, and runs without the build."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
from myst_nb.core.read import read_myst_markdown_notebook
from myst_parser.config.main import MdParserConfig

if TYPE_CHECKING:
    from nbformat import NotebookNode

DOCS = Path(__file__).parent
UNSEEN = {"remove-cell", "remove-input"}
"""Tags of cells whose code no reader sees: checks, and pictures of stacks that stay at home."""


def executed_pages() -> list[Path]:
    """Return the pages whose code is run by the build."""
    pages = (page for page in sorted(DOCS.rglob("*.md")) if "_build" not in page.parts)
    return [page for page in pages if "file_format: mystnb" in page.read_text(encoding="utf-8")]


def notebook_of(page: Path) -> NotebookNode:
    """Return a page's text and the cells that a reader sees.

    Parameters
    ----------
    page : Path
        In MyST Markdown.

    Returns
    -------
    NotebookNode
        Without outputs.
    """
    text = page.read_text(encoding="utf-8")
    notebook = read_myst_markdown_notebook(text, MdParserConfig(), add_source_map=False)
    notebook.cells = [
        cell for cell in notebook.cells if not UNSEEN & set(cell.metadata.get("tags", ()))
    ]
    return notebook


def write_notebooks(folder: Path) -> dict[str, Path]:
    """Write a notebook for each page that has cells to be seen.

    Parameters
    ----------
    folder : Path
        Where they go, as the pages lie.

    Returns
    -------
    dict
        The files by the pages' names, as Sphinx has them.
    """
    written = {}
    for page in executed_pages():
        notebook = notebook_of(page)
        if any(cell.cell_type == "code" for cell in notebook.cells):
            name = page.relative_to(DOCS).with_suffix("").as_posix()
            path = folder / f"{name}.ipynb"
            path.parent.mkdir(parents=True, exist_ok=True)
            nbformat.write(notebook, path)
            written[name] = path
    return written
