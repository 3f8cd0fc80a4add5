"""The documentation's pages in a window beside the panel: the one that is about the tab shown."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QDialog, QPushButton, QTextBrowser, QToolButton, QVBoxLayout

if TYPE_CHECKING:
    from collections.abc import Callable

    from qtpy.QtWidgets import QTabWidget

__all__ = ["PAGES", "HelpButton", "page_text"]

PAGES = {
    "Setup": "start.md",
    "Progress": "start.md",
    "Details": "results.md",
    "Table": "results.md",
    "Results": "results.md",
    "Objects": "cells.md",
    "Spots": "spots.md",
}
"""Which page is about which tab."""

_PACKAGE = Path(__file__).parents[2]
_PLACES = _PACKAGE / "docs", _PACKAGE.parents[1] / "docs"
"""In an installed package, and in a checkout."""

SIZE = 720, 800


def page_text(name: str) -> str:
    """Return a page as plain Markdown: without its pictures, and what is run to build it."""
    path = next((place / name for place in _PLACES if (place / name).is_file()), None)
    if path is None:
        return f"The page {name} is not part of this installation: see docs/{name} of the project."
    text = path.read_text(encoding="utf-8")
    text = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)
    text = re.sub(r"^```\{.*?^```\n", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"!\[[^\]]*\]\([^)]*\)\n?", "", text)
    # Tabs become parts one after the other.
    text = re.sub(r"^:{3,}\{tab-item\} (.*)$", r"**\1**", text, flags=re.MULTILINE)
    text = re.sub(r"^:[\w-]+:.*\n|^:{3,}.*\n", "", text, flags=re.MULTILINE)
    return re.sub(r"\{[\w:]+\}`([^`<]+?)(?:\s*<[^>]*>)?`", r"`\1`", text)


class HelpButton(QToolButton):
    """Opens the page about the tab that is shown.

    Parameters
    ----------
    tabs : QTabWidget
        The panel's, in whose corner the button stands.
    """

    def __init__(self, tabs: QTabWidget) -> None:
        super().__init__()
        self._tabs = tabs
        self._window: QDialog | None = None
        self._text = QTextBrowser()
        self._tour: QPushButton | None = None
        self.setText("?")
        self.setObjectName("gaussfit_help")
        self.setAccessibleName("Help")
        self.setToolTip("Read about this tab (F1).")
        self.setShortcut("F1")
        self.clicked.connect(self.show_page)
        tabs.setCornerWidget(self)

    def offer_tour(self, start: Callable[[], object]) -> None:
        """Offer a tour of the panel, below each page."""
        self._tour = QPushButton("Take a tour of the panel")
        self._tour.setObjectName("gaussfit_tour")
        self._tour.setToolTip("Its parts, one after another.")
        self._tour.clicked.connect(start)

    def show_page(self) -> None:
        """Show the page about the tab, in a window that may stay open."""
        if self._window is None:
            self._window = QDialog(self.window())
            self._window.resize(*SIZE)
            self._text.setOpenExternalLinks(True)
            self._text.setOpenLinks(False)
            box = QVBoxLayout(self._window)
            box.addWidget(self._text)
            if self._tour is not None:
                box.addWidget(self._tour)
                self._tour.clicked.connect(self._window.hide)
        title = self._tabs.tabText(self._tabs.currentIndex())
        self._window.setWindowTitle(f"Gaussian fit: {title}")
        self._text.setMarkdown(page_text(PAGES.get(title, "start.md")))
        self._window.show()
        self._window.raise_()
