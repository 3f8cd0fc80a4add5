"""Work split over threads: all of it is done once, and nothing more after an error."""

from __future__ import annotations

import threading
import time

import pytest

from napari_gaussfit import _threads
from napari_gaussfit._threads import THREADS, in_more_threads, run_pieces, thread_count


@pytest.fixture
def four_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let work be split as on four cores, however many there are."""
    monkeypatch.setattr(_threads, "thread_count", lambda: 4)


@pytest.mark.usefixtures("four_threads")
def test_work_within_work_is_all_done_once() -> None:
    done: list[tuple[int, int]] = []

    def outer(first: int, _end: int) -> None:
        def inner(begin: int, end: int) -> None:
            done.extend((first, n) for n in range(begin, end))

        run_pieces(inner, 50)

    run_pieces(outer, 20, most=1)

    assert sorted(done) == [(a, b) for a in range(20) for b in range(50)]


@pytest.mark.usefixtures("four_threads")
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_after_an_error_no_other_piece_is_begun(error: type[BaseException]) -> None:
    begun: list[int] = []
    caller = threading.get_ident()

    def fail(first: int, _end: int) -> None:
        begun.append(first)
        time.sleep(0.01)
        if threading.get_ident() == caller:
            raise error

    with pytest.raises(error):
        run_pieces(fail, 1000, most=1)

    assert len(begun) <= 8


def test_more_threads_are_for_a_while_and_no_more_than_cores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(THREADS, "1")
    monkeypatch.setattr(_threads, "_cores", lambda: 3)
    _threads._usual_threads.cache_clear()
    with in_more_threads(2):
        assert thread_count() == 2
        with in_more_threads(9):
            assert thread_count() == 3
    assert thread_count() == 1
    _threads._usual_threads.cache_clear()
