"""What a window without torch has another process render."""

from __future__ import annotations

import threading
import time
from typing import IO, TYPE_CHECKING

import numpy as np
import pytest
from saved_fits import some_fit

from napari_gaussfit._napari.messages import Message
from napari_gaussfit._napari.mips import MipDrawer, ViewChoice
from napari_gaussfit._napari.process_job import start_child
from napari_gaussfit._napari.renderer import RemoteDrawer, Renderer, device_words, rendered
from napari_gaussfit.errors import FitError
from napari_gaussfit.io import formats

if TYPE_CHECKING:
    import subprocess

    from napari_gaussfit.phantoms import Phantom

pytestmark = pytest.mark.usefixtures("nothing_left_behind")


def test_another_process_draws_what_this_one_draws(small_beads: Phantom) -> None:
    here, there = MipDrawer(small_beads.stack), RemoteDrawer(small_beads.stack)
    for view in (ViewChoice(1), ViewChoice(None, 40.0, 10.0)):
        expected, found = (one.draw(small_beads.truth, view) for one in (here, there))
        assert (found.view, found.pixel) == (view, expected.pixel)
        np.testing.assert_array_equal(found.data, expected.data)
        np.testing.assert_array_equal(found.fit, expected.fit)
    there.close()


def test_another_process_renders_what_this_one_renders() -> None:
    fit = some_fit()
    np.testing.assert_array_equal(rendered(fit), formats.rendered(fit))


def test_the_device_is_said_in_words() -> None:
    with Renderer() as renderer:
        assert device_words("cpu", renderer) == "Runs on the CPU (numba)."
        assert device_words("nonsense", renderer).startswith("⚠ device='nonsense': expected")


def test_an_error_is_told_and_the_next_question_is_answered() -> None:
    with Renderer() as renderer:
        with pytest.raises(FitError, match="KeyError: 'no such sample'"):
            renderer.ask(Message("sample", {"name": "no such sample"}))
        answer = renderer.ask(Message("device", {"name": "cpu"}))
    assert answer.words["text"].startswith("Runs on the CPU")


def test_who_is_closed_while_it_works_says_so_at_once() -> None:
    renderer, told = Renderer(), []

    def ask() -> None:
        with pytest.raises(FitError) as error:
            renderer.ask(Message("sample", {"name": "neurite"}))
        told.append(str(error.value))

    thread = threading.Thread(target=ask)
    thread.start()
    time.sleep(0.5)
    began = time.monotonic()
    renderer.close()
    assert time.monotonic() - began < 1.0
    thread.join(5)
    assert told == ["rendering was given up"]


def test_who_is_closed_as_it_starts_leaves_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    renderer = Renderer()

    def start_and_close(errors: IO[bytes]) -> subprocess.Popen[bytes]:
        process = start_child(errors)
        renderer._closed = True  # what `close` does first
        return process

    monkeypatch.setattr("napari_gaussfit._napari.renderer.start_child", start_and_close)
    with pytest.raises(FitError, match="given up"):
        renderer.ask(Message("device", {"name": "cpu"}))
    with pytest.raises(FitError, match="given up"):
        renderer.ask(Message("device", {"name": "cpu"}))
