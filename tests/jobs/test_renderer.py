"""What a window without torch has another process render."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from typing import IO, TYPE_CHECKING

import numpy as np
import pytest

from napari_gaussfit.errors import FitError
from napari_gaussfit.jobs import renderer as rendering
from napari_gaussfit.jobs.children import start_child
from napari_gaussfit.jobs.messages import Message
from napari_gaussfit.jobs.pictures import MipDrawer, ViewChoice
from napari_gaussfit.jobs.renderer import RemoteDrawer, Renderer, device_words, rendered
from saved_fits import some_fit

if TYPE_CHECKING:
    import subprocess

    from napari_gaussfit.synthetic.phantoms import Phantom

pytestmark = pytest.mark.usefixtures("nothing_left_behind")


def test_another_process_draws_what_this_one_draws(small_beads: Phantom) -> None:
    here = MipDrawer([small_beads.stack])
    with closing(RemoteDrawer([small_beads.stack])) as there:
        for view in (ViewChoice(1), ViewChoice(None, 40.0, 10.0)):
            expected = here.draw([small_beads.truth], view)
            found = there.draw([small_beads.truth], view)
            assert (found.view, found.pixel) == (view, expected.pixel)
            # Alike to rounding.
            np.testing.assert_allclose(found.data, expected.data, rtol=1e-4)
            np.testing.assert_allclose(found.fit, expected.fit, rtol=1e-4)


def test_another_process_renders_what_this_one_renders() -> None:
    fit = some_fit()
    found = rendered(fit.fields, fit.stack)
    np.testing.assert_allclose(found, fit.voxelise(), rtol=1e-4)


def test_the_device_is_said_in_words() -> None:
    with Renderer() as renderer:
        assert device_words("cpu", renderer, needed=0) == "Runs on the CPU (numba)."
        automatic = device_words("auto", renderer, needed=0)
        assert automatic.startswith("Runs on") or "device auto is the CPU here: " in automatic
        assert ("CPU" in automatic) == ("; device auto is the CPU here: " in automatic)
        assert device_words("nonsense", renderer, needed=0).startswith(
            "⚠ device='nonsense': expected"
        )


def test_of_a_gpu_the_memory_that_a_fit_takes_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"text": "Runs on Thing 1 (numba-cuda)", "memory": 16_000_000_000}
    monkeypatch.setitem(rendering._DEVICES, "cuda", known)
    with Renderer() as renderer:
        said = device_words("cuda", renderer, needed=1_260_000_000)
    assert said == "Runs on Thing 1 (numba-cuda), takes about 1.3 of its 16 GB."


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

    monkeypatch.setattr("napari_gaussfit.jobs.renderer.start_child", start_and_close)
    with pytest.raises(FitError, match="given up"):
        renderer.ask(Message("device", {"name": "cpu"}))
    with pytest.raises(FitError, match="given up"):
        renderer.ask(Message("device", {"name": "cpu"}))
