"""The pages' cells as notebooks to download: what a reader sees, and runs without the build."""

from __future__ import annotations

import re
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

EXAMPLES = ("gallery",)
"""Pages of which each section stands for itself, and has a notebook of its own: one for all would
end at the first file that a reader has not."""


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
    for cell in notebook.cells:
        cell.metadata.pop("tags", None)  # which are for the build: a reader runs every cell
    return notebook


def examples_of(page: Path) -> dict[str, NotebookNode]:
    """Return a notebook for each section of a page, by its title.

    Parameters
    ----------
    page : Path
        One of `EXAMPLES`: text and the imports that all need, then a section for each example.

    Returns
    -------
    dict
        Without outputs.
    """
    whole = notebook_of(page)
    shared: list[NotebookNode] = []
    examples: dict[str, NotebookNode] = {}
    cells = shared
    for cell in whole.cells:
        if cell.cell_type == "markdown" and cell.source.startswith("## "):
            title = cell.source.splitlines()[0].removeprefix("## ")
            heading = nbformat.v4.new_markdown_cell(cell.source.removeprefix("#"))
            cells = [heading, *shared]
            examples[title] = nbformat.v4.new_notebook(cells=cells, metadata=whole.metadata)
        elif cells is not shared or cell.cell_type == "code":
            cells.append(cell)
    return examples


def file_name(title: str) -> str:
    """Return what the notebook of an example is called, of words from its title."""
    return "-".join(re.findall(r"\w+", title.lower()))


def write_notebooks(folder: Path) -> dict[str, Path]:
    """Write a notebook for each page that has cells to be seen; for each example in its place.

    Parameters
    ----------
    folder : Path
        Where they go, as the pages lie.

    Returns
    -------
    dict
        The files by the pages' names, as Sphinx has them; of an example, ``PAGE/EXAMPLE``.
    """
    written = {}
    for page in executed_pages():
        name = page.relative_to(DOCS).with_suffix("").as_posix()
        made = {name: notebook_of(page)}
        if name in EXAMPLES:
            made = {f"{name}/{file_name(t)}": one for t, one in examples_of(page).items()}
        for place, notebook in made.items():
            if any(cell.cell_type == "code" for cell in notebook.cells):
                path = folder / f"{place}.ipynb"
                path.parent.mkdir(parents=True, exist_ok=True)
                nbformat.write(notebook, path)
                written[place] = path
    return written
