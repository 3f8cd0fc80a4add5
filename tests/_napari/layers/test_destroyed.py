"""What is done when Qt destroys something is done, also where all of it is garbage by then."""

from __future__ import annotations

import gc

import pytest
from qtpy.QtCore import QCoreApplication, QEvent, QObject

from napari_gaussfit._napari.layers.destroyed import _TO_DO, when_destroyed

pytestmark = pytest.mark.gui


class Owner(QObject):
    """Has a list that outlives it, and a cycle that only the collector ends."""

    def __init__(self, done: list[str]) -> None:
        super().__init__()
        self.itself = self
        when_destroyed(self, lambda: done.append("done"))


@pytest.mark.usefixtures("qapp")
def test_what_is_garbage_with_its_owner_is_done_and_let_go() -> None:
    done: list[str] = []
    before = len(_TO_DO)
    Owner(done)
    gc.collect()
    assert done == ["done"]
    assert len(_TO_DO) == before


@pytest.mark.usefixtures("qapp")
def test_what_is_garbage_with_all_above_it_is_done() -> None:
    done: list[str] = []
    before = len(_TO_DO)
    parent = QObject()
    parent.itself = parent
    Owner(done).setParent(parent)
    del parent
    gc.collect()
    assert done == ["done"]
    assert len(_TO_DO) == before


@pytest.mark.usefixtures("qapp")
def test_what_qt_destroys_itself_is_done_once() -> None:
    done: list[str] = []
    parent = QObject()
    child = Owner(done)
    child.setParent(parent)
    parent.deleteLater()
    del child
    QCoreApplication.sendPostedEvents(parent, QEvent.Type.DeferredDelete)
    gc.collect()
    assert done == ["done"]
