"""What README and the pages of docs call by name is there: pages, options, parts of the panel."""

from __future__ import annotations

import argparse
import ast
import builtins
import importlib
import importlib.util
import itertools
import re
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_gaussfit.cli import commands
from napari_gaussfit.fitting.snapshot import HISTORY_KEYS
from napari_gaussfit.measure.report import Report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CHECKOUT = Path(__file__).parents[1]
DOCS = CHECKOUT / "docs"
PAGES = [CHECKOUT / "README.md", CHECKOUT / "CONTRIBUTING.md"] + [
    page
    for page in sorted(DOCS.rglob("*.md"))
    if not {"_build", "generated"} & set(page.parts) and page.name != "changelog.md"
]
# Of the benchmarks, which have a parser of their own, and of pip.
WITH_OTHER_OPTIONS = {CHECKOUT / "CONTRIBUTING.md"} | {
    DOCS / name for name in ("gpu.md", "performance.md", "install.md", "scale.md")
}


def name(page: Path) -> str:
    """A page's path in the checkout."""
    return page.relative_to(CHECKOUT).as_posix()


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def options_of(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Yield a parser's options, and those of its commands."""
    for action in parser._actions:
        yield from action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from options_of(command)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_what_a_page_links_to_is_there(page: Path) -> None:
    links = re.findall(r"\]\((?!\w+:)([^)#]+)[^)]*\)", text_of(page))
    places = {link: page.parent / link for link in links}
    missing = {
        link
        for link, place in places.items()
        # Of an executed page, or made by the build.
        if not (place.exists() or place.with_suffix(".md").exists())
    }
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_the_headings_of_a_page_go_down_one_level_at_a_time(page: Path) -> None:
    code = re.compile(r"^(`{3,}|:{3,}\{code).*?^\1", re.MULTILINE | re.DOTALL)
    marks = re.findall(r"^(#+) ", code.sub("", text_of(page)), flags=re.MULTILINE)
    levels = [len(mark) for mark in marks]
    assert levels[0] == 1
    assert all(below <= above + 1 for above, below in itertools.pairwise(levels)), levels


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_a_page_names_no_folder_of_the_machine_that_wrote_it(page: Path) -> None:
    written = re.findall(r"^Written by `.*", text_of(page), flags=re.MULTILINE)
    assert not [line for line in written if re.search(r"[ =]/\w|[ =]\w:\\", line)]


def test_the_map_of_the_code_has_every_folder_and_what_lies_in_none() -> None:
    mapped = text_of(CHECKOUT / "CONTRIBUTING.md").split("## A map of the code")[1]
    mapped = mapped.split("Imports run downwards")[0]
    package = CHECKOUT / "src" / "napari_gaussfit"
    folders = {path.parent.relative_to(package).as_posix() for path in package.rglob("*.py")}
    lines = set(re.findall(r"^ +([\w/]+)/ ", mapped, re.MULTILINE))
    named = set(re.findall(r"(?<![\w*])\w+\.py\b", mapped))
    assert not folders - {"."} - lines
    assert not {path.name for path in package.glob("*.py")} - {"__init__.py"} - named
    gone = {name for name in named if not list(package.rglob(name))}
    assert not gone, "named in the map, and nowhere in the package"


@pytest.mark.parametrize("page", sorted({*PAGES} - WITH_OTHER_OPTIONS), ids=name)
def test_the_command_line_has_the_options_that_a_page_names(page: Path) -> None:
    own = re.sub(r"^Written by `python -m benchmarks.*$", "", text_of(page), flags=re.MULTILINE)
    named = set(re.findall(r"(?<![-\w|])--[a-z][a-z-]+", own))
    missing = named - set(options_of(commands.parser()))
    assert not missing


# What is bold on these pages is written so in the panel or in napari's menus.
@pytest.mark.gui
@pytest.mark.parametrize("page", [DOCS / "start.md", DOCS / "troubleshooting.md"], ids=name)
def test_the_panel_calls_things_as_a_page_does(
    page: Path, make_napari_viewer: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from qtpy.QtWidgets import (
        QAbstractButton,
        QComboBox,
        QDialog,
        QLabel,
        QMenu,
        QTabWidget,
        QWidget,
    )
    from superqt.utils import WorkerBase

    monkeypatch.setenv("NAPARI_STRICT_QT", "1")
    viewer = make_napari_viewer()
    viewer.add_image(np.random.default_rng(0).random((2, 8, 9, 10)), name="a time series")
    _, panel = viewer.window.add_plugin_dock_widget("napari-gaussfit")

    def words(widget: QWidget) -> Iterator[str]:
        for label in widget.findChildren(QLabel):
            yield label.text()
        for button in widget.findChildren(QAbstractButton):
            yield button.text()
        for choices in widget.findChildren(QComboBox):
            yield from (choices.itemText(n) for n in range(choices.count()))
        for tabs in widget.findChildren(QTabWidget):
            yield from (tabs.tabText(n) for n in range(tabs.count()))

    def entries(menu: QMenu) -> Iterator[str]:
        menu.aboutToShow.emit()
        for action in menu.actions():
            yield action.text()
            if action.menu() is not None:
                yield from entries(action.menu())

    window = viewer.window
    panel.findChild(QAbstractButton, "gaussfit_help").click()
    shown = [
        *words(panel),
        *(word for dialog in panel.window().findChildren(QDialog) for word in words(dialog)),
        *entries(window.file_menu),
        *entries(window.plugins_menu),
        "File",
        "Plugins",
    ]
    known = "\n".join(shown).lower()
    bold = re.findall(r"\*\*([^*]+)\*\*", text_of(page))
    assert bold
    parts = {part.removeprefix("the ") for words in bold for part in re.split(r" > |: ", words)}
    missing = {part for part in parts if part.lower() not in known}
    assert not missing
    # As napari does when it ends: the panel looks at the stack in a thread.
    WorkerBase.await_workers()


def test_every_key_of_a_report_is_explained() -> None:
    keys = {field.name for field in fields(Report)} | {*HISTORY_KEYS}
    explained = re.findall(r"`(\w+)`", text_of(DOCS / "results.md"))
    assert not (keys | {"other_channels", "settings", "history"}) - {*explained}


def test_every_kind_of_column_of_a_table_is_explained() -> None:
    table = text_of(DOCS / "formats.md").split("## The table, column by column")[1]
    for column in (
        *("axis-0", "z, y, x", "cov_zz", "cov_xx", "sigma_1", "fwhm", "axis_1_z", "axis_3_x"),
        *("integrated_intensity", "amplitude_0", "integrated_intensity_0", "unit"),
        *("sd_z, sd_y, sd_x", "sd_amplitude_0", "sd_fwhm_3", "reduced_chi2", "flags"),
    ):
        assert column in table.split("## ")[0], column


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_a_notebook_needs_no_inner_module_for_what_a_page_shows(page: Path) -> None:
    fence = r"^```(?:python|\{code-cell\}[^\n]*)\n(.*?)^```"
    cells = re.findall(fence, text_of(page), re.DOTALL | re.MULTILINE)
    shown = "".join(cell for cell in cells if ":tags: [remove-input]" not in cell)
    imported = re.findall(r"^(?:from|import) (napari_gaussfit[\w.]*)", shown, re.MULTILINE)
    assert set(imported) <= {"napari_gaussfit", "napari_gaussfit.errors"}


def imported_by(tree: ast.AST) -> set[str]:
    """Return the packages that a cell imports."""
    names = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    return {name.partition(".")[0] for name in names}


def bound_by(tree: ast.AST) -> set[str]:
    """Return the names that a cell gives something."""
    bound = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            bound.add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            bound.add(node.name)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            bound |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ExceptHandler) and node.name:
            bound.add(node.name)
    return bound


@pytest.fixture(scope="module")
def notebooks() -> Any:
    """What the build writes the pages' notebooks with."""
    pytest.importorskip("myst_nb", reason="the documentation's packages are not installed")
    spec = importlib.util.spec_from_file_location("notebooks", DOCS / "notebooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_by_itself(notebook: Any) -> None:
    """Check that a notebook uses what its own cells bind, and imports nothing of the build's."""
    known, foreign = {*dir(builtins), "__file__"}, set()
    for cell in notebook.cells:
        assert not cell.metadata.get("tags"), "a tag of the build's, by which others run no cell"
        if cell.cell_type == "code":
            tree = ast.parse(cell.source)
            known |= bound_by(tree)
            used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
            assert not used - known, f"of another cell:\n{cell.source}"
            foreign |= imported_by(tree) & {"benchmarks", "drawing", "found", "gallery", "tests"}
    assert not foreign


@pytest.mark.parametrize(
    "page", [p for p in PAGES if "file_format: mystnb" in text_of(p)], ids=name
)
def test_a_pages_notebook_needs_nothing_that_only_the_build_has(page: Path, notebooks: Any) -> None:
    run_by_itself(notebooks.notebook_of(page))


def test_each_example_of_the_gallery_is_a_notebook_of_its_own(
    notebooks: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(DOCS))
    monkeypatch.syspath_prepend(str(CHECKOUT))
    entries = importlib.import_module("gallery").ENTRIES.values()
    examples = notebooks.examples_of(DOCS / "gallery.md")
    assert [*examples] == [entry.title for entry in entries]
    for entry in entries:
        run_by_itself(examples[entry.title])
        code = [cell.source for cell in examples[entry.title].cells if cell.cell_type == "code"]
        assert entry.call in "\n".join(code)
        assert code[-1].endswith("draw_projections(result, stack)")
    written = notebooks.write_notebooks(tmp_path)
    files = [written[f"gallery/{notebooks.file_name(entry.title)}"] for entry in entries]
    assert len({*files}) == len(files)
    assert all(file.is_file() for file in files)


def test_the_page_of_the_command_line_has_a_table_for_each_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("myst_nb", reason="the documentation's packages are not installed")
    parsers = importlib.import_module("myst_parser.parsers.mdit")
    config = importlib.import_module("myst_parser.config.main")
    html = importlib.import_module("markdown_it.renderer").RendererHTML
    monkeypatch.syspath_prepend(str(DOCS))
    monkeypatch.setenv("COLUMNS", "80")
    [kind] = re.findall(r"nb_render_markdown_format = .(\w+)", text_of(DOCS / "conf.py"))
    only = {"commonmark_only": kind == "commonmark", "gfm_only": kind == "gfm"}
    parser = parsers.create_md_parser(config.MdParserConfig(**only), html)
    page = parser.render(importlib.import_module("reference").commands().data)
    assert page.count("<table>") == page.count("<h2>") >= 10
    assert "|" not in re.sub(r"<(code|pre).*?</\1>", "", page, flags=re.DOTALL)


@pytest.mark.parametrize("columns", [9, 10])
def test_a_row_too_wide_for_a_telephone_names_each_of_its_numbers(
    columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("myst_nb", reason="the documentation's packages are not installed")
    monkeypatch.syspath_prepend(str(DOCS))
    names = [f"column {n}" for n in range(columns)]
    lines = names, ["---"] * columns, [f"{n}.5" for n in range(columns)], ["last", "9.5"]
    core, parser = map(importlib.import_module, ("docutils.core", "myst_parser.docutils_"))
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    page = core.publish_doctree(text, parser=parser.Parser())
    importlib.import_module("tables").name_columns(None, page)
    html = core.publish_from_doctree(page, writer="html5").decode()
    wanted = names[1:] * 2 if columns == 10 else []
    assert re.findall(r'<span class="column">(.*?) </span>', html) == wanted
    assert ('class="sheets' in html) == (columns == 10)
    if wanted:
        assert '<span class="column">column 9 </span>9.5' in html
    styles = text_of(DOCS / "_static" / "pages.css")
    assert {".sheets", ".column"} <= {*re.findall(r"\.\w+", styles)}


def test_the_gallery_shows_the_call_that_made_each_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS))
    monkeypatch.syspath_prepend(str(CHECKOUT))
    entries = importlib.import_module("gallery").ENTRIES
    sections = dict(
        section.split("\n", 1) for section in text_of(DOCS / "gallery.md").split("\n## ")[1:]
    )
    assert {entry.title for entry in entries.values()} == {*sections}
    for name, entry in entries.items():
        assert f"\n{entry.call}\n" in sections[entry.title]
        assert f'gallery.show("{name}"' in sections[entry.title]
