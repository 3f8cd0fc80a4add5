"""Before a fit, the panel says how many Gaussians the stack would carry, and what others cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

from napari_gaussfit import Stack
from napari_gaussfit._napari.panel.how_many import DEFAULT, HowMany
from napari_gaussfit.synthetic.phantoms import beads

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.gui

COMPILING = 240.0


@pytest.fixture
def part(qtbot: Any) -> Any:
    part = HowMany()
    qtbot.addWidget(part)
    part.show()
    yield part
    part.close_down()


def test_without_a_stack_the_default_is_said_and_nothing_can_be_asked(part: HowMany) -> None:
    assert part.words.text() == DEFAULT
    assert not part.button.isEnabled()


def test_a_click_says_how_many_and_draws_what_others_would_reach(
    part: HowMany, wait_until: Callable[..., None]
) -> None:
    part.look_at(beads(count=12, shape=(20, 64, 64)).stack)
    QTest.mouseClick(part.button, Qt.MouseButton.LeftButton)
    assert not part.button.isEnabled()
    wait_until(part.button.isEnabled, COMPILING)
    said = part.words.text()
    assert said.startswith("Unless you say so, as many as the noise allows: about 1")
    assert "may be noise" in said
    [curve] = part._plot.getPlotItem().listDataItems()
    counts, psnr = curve.getOriginalDataset()
    assert counts[0] < 12 < counts[-1]
    assert psnr[0] < psnr[-1]


def test_what_was_said_of_another_stack_goes(
    part: HowMany, wait_until: Callable[..., None]
) -> None:
    part.look_at(beads(count=3, shape=(8, 24, 24)).stack)
    QTest.mouseClick(part.button, Qt.MouseButton.LeftButton)
    wait_until(part.button.isEnabled, COMPILING)
    assert part._plot.isVisible()
    part.look_at(Stack.from_array(np.arange(5 * 6 * 7, dtype=np.float32).reshape(5, 6, 7)))
    assert part.words.text() == DEFAULT
    assert not part._plot.isVisible()
