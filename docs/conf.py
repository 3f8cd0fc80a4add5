"""How `make docs` builds these pages: Sphinx, with pages that are executed as they are built."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING

from docutils import nodes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sphinx.application import Sphinx

HERE = Path(__file__).parent
CHECKOUT = HERE.parent
BUILT = HERE / "_build"

sys.path[:0] = [str(HERE), str(CHECKOUT)]
from benchmarks.stacks import data_folder  # noqa: E402
from hatch_build import project_urls, setting  # noqa: E402
from notebooks import EXAMPLES, file_name, write_notebooks  # noqa: E402

from tables import name_columns  # noqa: E402

project = "napari-gaussfit"
author = "napari-gaussfit contributors"
project_copyright = author
version = release = installed_version(project)

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx-mathjax-offline",
]
templates_path = ["_templates"]
exclude_patterns = ["_build"]

html_theme = "pydata_sphinx_theme"
html_title = f"{project} {release}"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_show_sourcelink = False
SINGLE = (
    *("index", "install", "start", "spots", "cells", "neurites", "tracks", "psf", "howto", "scale"),
    *("formats", "commands", "troubleshooting", "results", "measuring", "noise", "number"),
    *("glossary", "theory", "gallery", "performance", "gpu", "architecture", "notebook"),
    *("changelog", "tried"),
)
"""Pages without a list of sections beside them."""

html_sidebars: dict[str, list[str]] = {page: [] for page in SINGLE}
html_theme_options = {
    "logo": {"text": project},
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "navigation_with_keys": False,
    "show_prev_next": True,
    "header_links_before_dropdown": 8,
}

# Where the project is kept, once that is filled in (CONTRIBUTING.md, "Publishing").
URLS = project_urls(setting())
html_baseurl = setting().get("documentation", "")
html_theme_options["external_links"] = [
    {"name": name, "url": URLS[name]} for name in ("Repository", "Issues") if name in URLS
]

myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # numpydoc's sections give types with shapes and units
autosummary_generate = True
numpydoc_show_class_members = False
numpydoc_xref_param_type = False
copybutton_exclude = ".linenos, .gp, .go"

nb_execution_mode = "cache"
nb_execution_timeout = 240  # seconds a cell, on a busy machine
nb_execution_raise_on_error = False  # all pages are tried; a warning is an error at the end
nb_execution_show_tb = True
nb_merge_streams = True
nb_render_markdown_format = "myst"  # with tables, which the page of the command line is made of

# Pages import what draws for them from here, and the benchmarks' list of real stacks.
asked = os.environ.get("PYTHONPATH")
os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), str(CHECKOUT), *([asked] if asked else [])])

# What this environment lacks is no matter of a page's.
os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found"

# Kernels with no settings but these, and without their warning about local sockets.
os.environ["IPYTHONDIR"] = str(BUILT / "ipython")
_profile = BUILT / "ipython" / "profile_default"
_profile.mkdir(parents=True, exist_ok=True)
(_profile / "ipython_kernel_config.py").write_text(
    "c.IPKernelApp.log_level = 40\nc.IPKernelApp.matplotlib = 'inline'\n"
)


def _digest() -> str:
    """Return a name for all that decides what a page prints, the page itself aside."""
    digest = hashlib.blake2b(digest_size=8)
    sources = [*(CHECKOUT / "src").rglob("*.py"), *HERE.glob("*.py")]
    for path in sorted(sources):
        digest.update(path.relative_to(CHECKOUT).as_posix().encode() + path.read_bytes())
    digest.update(repr((sys.version, data_folder().is_dir())).encode())
    return digest.hexdigest()


nb_execution_cache_path = str(BUILT / "executed" / _digest())


NOTEBOOKS = write_notebooks(BUILT / "notebooks")


def offer_notebook(_app: Sphinx, page: str, source: list[str]) -> None:
    """Offer a page's cells as a notebook, below the page; each of the examples below its title."""
    if page in EXAMPLES:
        source[0] = re.sub(
            r"^## (.+)$",
            lambda found: f"{found[0]}\n\n{_download(f'{page}/{file_name(found[1])}', 'example')}",
            source[0],
            flags=re.MULTILINE,
        )
    if page in NOTEBOOKS:
        source[0] += f"\n\n{_download(page, 'page')}"


def _download(place: str, what: str) -> str:
    path = NOTEBOOKS[place].relative_to(HERE).as_posix()
    return f"{{download}}`This {what} as a notebook </{path}>`\n"


def describe_pictures(_app: Sphinx, page: nodes.document) -> None:
    """Say of what a cell drew where it stands, for those who cannot see it."""
    for image in page.findall(nodes.image):
        if not image.get("alt"):
            sections = [node for node in _above(image) if isinstance(node, nodes.section)]
            title = sections[0][0].astext() if sections else page.get("title", "")
            image["alt"] = f"What the code of the section “{title}” draws"


def _above(node: nodes.Node) -> Iterator[nodes.Node]:
    while node.parent is not None:
        node = node.parent
        yield node


def setup(app: Sphinx) -> None:
    """Execute pages anew when the code that they show has changed."""
    app.connect("source-read", offer_notebook)
    app.connect("doctree-read", describe_pictures)
    app.connect("doctree-read", name_columns)
    app.add_config_value("sources", _digest(), "env")
    kept = Path(nb_execution_cache_path)
    for old in kept.parent.glob("*"):
        if old != kept:
            shutil.rmtree(old)
