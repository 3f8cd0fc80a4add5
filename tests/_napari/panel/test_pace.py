"""How often a window looks at a fit: as often in the mean, with turns of its own between."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

from napari_gaussfit._napari.worker import FASTEST_MS, PERIOD_PER_DRAWING, FitWorker

pytestmark = [pytest.mark.gui, pytest.mark.usefixtures("qtbot")]

FASTEST = FASTEST_MS / 1000

Period = Callable[[float, float], float]


@pytest.fixture
def period(monkeypatch: pytest.MonkeyPatch) -> Iterator[Period]:
    """What lies from an update, at a time and drawn for so long, to the next look; in seconds."""
    clock = SimpleNamespace(now=0.0)
    fake = SimpleNamespace(perf_counter=lambda: clock.now)
    worker = FitWorker()
    worker._timer.start(10**6)
    monkeypatch.setattr("napari_gaussfit._napari.worker.time", fake)

    def after(began: float, drawing: float) -> float:
        clock.now, worker._drawing_since = began + drawing, began
        worker._rest()
        return drawing + worker._timer.interval() / 1000

    worker._due = 100.0  # as when a fit begins
    for number in range(6):
        after(100.0 + number * FASTEST, 0.01)
    yield after
    worker._timer.stop()
    worker.close()


def test_updates_that_come_in_time_are_as_far_apart_as_is_meant(period: Period) -> None:
    for number in range(6, 9):
        assert period(100.0 + number * FASTEST, 0.01) == pytest.approx(FASTEST, abs=0.002)


def test_what_comes_late_is_made_up_for(period: Period) -> None:
    late = 100.0 + 6 * FASTEST + 0.1
    assert period(late, 0.01) == pytest.approx(FASTEST - 0.1, abs=0.002)


def test_after_a_long_rest_no_more_comes_than_a_few_looks_would_have_brought(
    period: Period,
) -> None:
    at, soon = 200.0, 0
    while (apart := period(at, 0.01)) < FASTEST - 0.01:
        at, soon = at + apart, soon + 1
    assert 1 <= soon <= 4


@pytest.mark.parametrize("late", [0.0, 0.5])
def test_the_window_has_its_own_turns_however_late_a_fit_is(period: Period, late: float) -> None:
    drawing = 0.15
    apart = period(100.0 + 6 * FASTEST + late, drawing)
    assert apart == pytest.approx(PERIOD_PER_DRAWING * drawing, abs=0.002)
