"""A number is what a person typed, or it is not taken."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from qtpy.QtCore import QLocale, Qt
from qtpy.QtTest import QTest

from napari_gaussfit._napari.panel.number_field import NumberField, number_from
from napari_gaussfit.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.gui

GERMAN, ENGLISH = "de_DE", "en_US"


@pytest.fixture
def make_field(qtbot: Any) -> Callable[..., NumberField]:
    """Make a field that shows 0.5, in the locale of that name."""

    def make(locale: str = ENGLISH) -> NumberField:
        field = NumberField(1e-6, 1e6)
        field.setLocale(QLocale(locale))
        qtbot.addWidget(field)
        field.show_value(0.5)
        field.selectAll()
        return field

    return make


@pytest.mark.parametrize(
    ("locale", "typed", "number", "shown"),
    [
        (ENGLISH, "0.25", 0.25, "0.25"),
        (ENGLISH, "0.02249186", 0.02249186, "0.02249186"),
        (ENGLISH, "0,065", 0.065, "0.065"),
        (ENGLISH, "1,5", 1.5, "1.5"),
        (ENGLISH, " .5e-1 ", 0.05, "0.05"),
        (ENGLISH, "0.123456789012345", 0.123456789012345, "0.123456789012345"),
        (GERMAN, "0,065", 0.065, "0,065"),
        (GERMAN, "0.065", 0.065, "0,065"),
        (GERMAN, "1,234", 1.234, "1,234"),
    ],
)
def test_a_number_is_taken_as_it_is_typed(
    make_field: Callable[..., NumberField], locale: str, typed: str, number: float, shown: str
) -> None:
    field, taken = make_field(locale), list[float]()
    field.committed.connect(taken.append)
    QTest.keyClicks(field, typed)
    assert not taken, "a number is not taken before it is typed to its end"
    QTest.keyClick(field, Qt.Key.Key_Return)
    assert taken == [number]
    assert field.value == number
    assert field.text() == shown
    assert not field.problem


@pytest.mark.parametrize(
    ("locale", "typed", "reason"),
    [
        (ENGLISH, "0", "not above 0"),
        (ENGLISH, "-1", "not above 0"),
        (ENGLISH, "1e-9", "not between 0.000001 and 1,000,000"),
        (ENGLISH, "nan", "no number"),
        (ENGLISH, "inf", "no number"),
        (ENGLISH, "1e999", "not between"),
        (ENGLISH, "1_0", "no number"),
        (ENGLISH, "0.1.2", "no number"),
        (ENGLISH, "", "no number"),
        (ENGLISH, "1,234", "could mean 1234 or 1.234"),
        (GERMAN, "1.234", "could mean 1234 or 1,234"),
    ],
)
def test_what_is_no_number_is_marked_and_not_taken(
    make_field: Callable[..., NumberField], locale: str, typed: str, reason: str
) -> None:
    field, taken = make_field(locale), list[float]()
    field.committed.connect(taken.append)
    QTest.keyClick(field, Qt.Key.Key_Delete)
    QTest.keyClicks(field, typed)
    QTest.keyClick(field, Qt.Key.Key_Return)
    assert reason in field.problem
    assert field.styleSheet()
    assert not taken
    assert field.value == 0.5

    QTest.keyClick(field, Qt.Key.Key_Escape)
    assert not field.problem
    assert not field.styleSheet()
    assert number_from(field.text(), field.locale().decimalPoint()) == 0.5


def test_a_number_that_is_not_edited_is_not_taken_anew(
    make_field: Callable[..., NumberField],
) -> None:
    field, taken = make_field(), list[float]()
    field.committed.connect(taken.append)
    field.show_value(1 / 3)
    QTest.keyClick(field, Qt.Key.Key_Return)
    assert not taken
    assert field.value == 1 / 3


def test_separators_of_thousands_are_not_guessed_at() -> None:
    with pytest.raises(SettingsError, match="no number"):
        number_from("1,234.5")


def test_a_field_may_take_what_is_below_zero(qtbot: Any) -> None:
    field, taken = NumberField(-1e12, 1e12), list[float]()
    qtbot.addWidget(field)
    field.committed.connect(taken.append)
    QTest.keyClicks(field, "-0.0025")
    QTest.keyClick(field, Qt.Key.Key_Return)
    assert taken == [-0.0025]
