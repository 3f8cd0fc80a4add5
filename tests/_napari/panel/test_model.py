"""Every setting of a fit has its control in the panel."""

from __future__ import annotations

from typing import Any

import pytest
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QCheckBox, QLabel, QPushButton, QWidget

from napari_gaussfit._napari.panel.model import BUTTONS, ModelPart
from napari_gaussfit._napari.panel.number_field import NumberField
from napari_gaussfit.settings import MOST_UNASKED, SETTINGS, FitSettings

pytestmark = pytest.mark.gui

OTHERS = FitSettings(
    shape="point",
    gaussians=7,
    exactly=True,
    quality="fine",
    objective="mip",
    loss="poisson",
    ssim_weight=0.25,
    iterations=90,
    max_seconds=1.5,
    views=40,
    held_out=3,
    full_covariance=False,
    background=-2.5,
    device="cpu",
    seed=2**63 - 1,
    gain=2.3,
    offset=100.0,
    read_noise=1.5,
)
"""Each as nobody has it who chooses nothing."""


@pytest.fixture
def part(qtbot: Any) -> ModelPart:
    """The part of the panel that says how to fit, its advanced settings in sight."""
    part = ModelPart()
    qtbot.addWidget(part)
    part.show()
    assert not field(part, "seed").isVisible()
    QTest.mouseClick(advanced(part), Qt.MouseButton.LeftButton)
    assert field(part, "seed").isVisible()
    return part


def field(part: ModelPart, name: str) -> NumberField:
    found = part.findChild(NumberField, f"gaussfit_{name}")
    assert found is not None, f"nowhere to give {name}"
    return found


def advanced(part: ModelPart) -> QPushButton:
    return part.findChild(QPushButton, "gaussfit_advanced")


def give(part: ModelPart, name: str, typed: str) -> None:
    """Type into a field, in place of what is there."""
    field(part, name).selectAll()
    QTest.keyClicks(field(part, name), typed or "\b")
    QTest.keyClick(field(part, name), Qt.Key.Key_Return)


def labels(part: ModelPart) -> set[str]:
    return {one.text() for one in part.findChildren(QLabel)}


def test_every_setting_can_be_chosen(part: ModelPart) -> None:
    defaults = FitSettings()
    assert [n for n in SETTINGS if getattr(OTHERS, n) == getattr(defaults, n)] == [*BUTTONS]
    part.settings = OTHERS
    assert part.settings == OTHERS
    assert advanced(part).text() == "▾ Advanced (11 changed)"


def test_who_chooses_nothing_has_the_defaults(part: ModelPart) -> None:
    part.suggest(500)
    assert part.settings == FitSettings(gaussians=MOST_UNASKED)
    assert advanced(part).text() == "▾ Advanced"


def test_what_is_typed_is_set(part: ModelPart) -> None:
    part.suggest(500)
    fields = [n for n in SETTINGS if part.findChild(NumberField, f"gaussfit_{n}") is not None]
    for name in fields:
        give(part, name, str(getattr(OTHERS, name)))
    QTest.mouseClick(
        part.findChild(QCheckBox, "gaussfit_full_covariance"), Qt.MouseButton.LeftButton
    )
    chosen = {"gaussians": MOST_UNASKED, "full_covariance": False}
    chosen |= {name: getattr(OTHERS, name) for name in fields}
    assert len(chosen) == 12
    assert part.settings == FitSettings(**chosen)
    for name in ("iterations", "max_seconds", "background", "read_noise", "offset", "gain"):
        give(part, name, "")
        assert getattr(part.settings, name) is None


def test_a_number_is_suggested_to_who_wants_exactly_one(part: ModelPart) -> None:
    exactly = part.findChild(QCheckBox, "gaussfit_exactly")
    part.suggest(500)
    place = part._count.native.geometry()
    assert "Gaussians, at most" in labels(part)
    QTest.mouseClick(exactly, Qt.MouseButton.LeftButton)
    assert part.settings == FitSettings(gaussians=500, exactly=True)
    assert "Gaussians" in labels(part)
    assert "Gaussians, at most" not in labels(part), "it is no cap"
    QTest.qWait(50)
    assert part._count.native.geometry() == place, "nothing moves under the mouse"
    part.suggest(700)
    assert part.settings.gaussians == 700
    QTest.mouseClick(exactly, Qt.MouseButton.LeftButton)
    assert part.settings == FitSettings(gaussians=MOST_UNASKED)


@pytest.mark.parametrize(
    ("name", "typed", "said"),
    [
        ("seed", "1.5", "Seed: '1.5' is no whole number"),
        ("views", "1", "Views: '1' is not between 2 and 10,000"),
        ("ssim_weight", "nan", "SSIM weight: 'nan' is no number"),
        ("seed", "", "Seed: '' is no whole number"),
        ("held_out", "60", "held_out=60: expected fewer than views=60"),
        ("offset", "100", "offset=100.0: expected a gain beside it"),
    ],
)
def test_what_cannot_be_meant_is_said(part: ModelPart, name: str, typed: str, said: str) -> None:
    assert part.problem == ""
    give(part, name, typed)
    assert part.problem.startswith(said)


def test_every_control_says_what_it_is_for(part: ModelPart) -> None:
    for name, setting in SETTINGS.items():
        control = part.findChild(QWidget, f"gaussfit_{name}")
        if control is not None:
            assert control.toolTip().lower().startswith(setting.help.lower()), name
