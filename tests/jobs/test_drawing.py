"""Pictures that a process of their own draws beside a fit."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import psutil
import pytest

from napari_gaussfit.fitting.fit import Fit
from napari_gaussfit.jobs import drawing as module
from napari_gaussfit.jobs.drawing import Drawer
from napari_gaussfit.jobs.drawings import (
    drawn,
    gaussians_drawing,
    history_drawing,
    noise_drawing,
    projections_drawing,
    spots_drawing,
    titled,
)
from napari_gaussfit.jobs.fit_folder import FitFolder
from napari_gaussfit.jobs.messages import Message
from napari_gaussfit.measure.noise import Noise
from napari_gaussfit.measure.photon_transfer import photon_transfer
from napari_gaussfit.plots.comparisons import Comparison
from napari_gaussfit.settings import FitSettings
from napari_gaussfit.synthetic.phantoms import beads

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from napari_gaussfit.stacks.stack import Stack

pytestmark = pytest.mark.usefixtures("nothing_left_behind")

PICTURES = ("projections.png", "history.png", "gaussians.png", "noise.png")

QUICK = FitSettings(gaussians=4, exactly=True, iterations=20, views=8, held_out=2)


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test of a process depends on the machine's cores."""
    monkeypatch.setattr(module, "thread_count", lambda: 2)


@pytest.fixture
def drawer() -> Iterator[Drawer]:
    with Drawer() as drawer:
        assert drawer.pid is not None
        yield drawer


@pytest.fixture(scope="module")
def stack() -> Stack:
    return beads(count=4, shape=(16, 40, 36), photons=300).stack


def history() -> Message:
    return history_drawing({"iteration": [10.0, 20.0], "loss": [2.0, np.nan]}, "micrometer")


def projections() -> Message:
    """Return the drawing of one row, which has no title yet."""
    data = np.linspace(0, 9, 48, dtype=np.float32).reshape(6, 8)
    return projections_drawing([Comparison("along z", data, data**1.1, (3.0, 4.0), 20.0)], "pixel")


def pictures(folder: FitFolder) -> dict[str, bytes]:
    """Fit into a folder, and return its pictures."""
    folder.path.mkdir()
    fit = Fit(folder.stacks, QUICK)
    for _ in fit:
        pass
    _, failed = folder.finish(fit)
    assert not failed
    return {name: (folder.path / name).read_bytes() for name in PICTURES}


def test_a_fits_pictures_are_the_same_bytes_whoever_draws_them(
    drawer: Drawer, stack: Stack, tmp_path: Path
) -> None:
    here = pictures(FitFolder(tmp_path / "here", (stack,)))
    there = pictures(FitFolder(tmp_path / "there", (stack,), drawer=drawer))
    assert here == there
    assert all(one.startswith(b"\x89PNG") for one in here.values())


def test_every_drawing_crosses_to_another_process(drawer: Drawer, stack: Stack) -> None:
    truth = beads(count=4, shape=(16, 40, 36)).truth
    flat = photon_transfer(np.zeros((2, 2, 2)))  # tells nothing
    for drawing in (
        history(),
        gaussians_drawing(truth),
        gaussians_drawing(truth.select(np.arange(0))),
        noise_drawing(photon_transfer(stack.voxels), Noise(2.9, 1.0)),
        noise_drawing(flat, None),
        spots_drawing(replace(stack, unit="pixel"), truth.numpy()),
    ):
        assert drawer.begin(drawing)() == drawn(drawing), drawing.kind


def test_a_picture_that_is_drawn_before_its_title_is_known_is_the_same(drawer: Drawer) -> None:
    finish = drawer.begin_untitled(projections())
    between = drawer.begin(history())
    title = "a stack: 4 Gaussians\nof 日本語, which the font lacks"
    assert finish(title)() == drawn(titled(projections(), title))
    assert between() == drawn(history())


def test_a_title_is_written_on_no_other_picture(drawer: Drawer) -> None:
    finish = drawer.begin_untitled(projections())
    broken = drawer.begin_untitled(Message("projections", {"unit": "pixel"}))("of nothing")
    with pytest.raises(KeyError, match="rows"):
        broken()
    assert finish("one row")() == drawn(titled(projections(), "one row"))


def test_a_picture_with_a_later_title_is_drawn_here_where_the_process_is_gone() -> None:
    expected = drawn(titled(projections(), "one row"))
    with Drawer() as drawer:
        psutil.Process(drawer.pid).kill()
        assert drawer.begin_untitled(projections())("one row")() == expected
        assert drawer.begin_untitled(projections())("one row")() == expected, "and not asked again"


def test_a_picture_with_a_later_title_is_drawn_here_after_the_process_has_ended() -> None:
    with Drawer() as drawer:
        finish = drawer.begin_untitled(projections())
        asked = finish("one row")
        drawer.end()
        late = finish("one row")
        assert asked() == late() == drawn(titled(projections(), "one row"))


def test_pictures_are_drawn_here_where_the_process_dies(drawer: Drawer) -> None:
    assert drawer.pid is not None
    first = drawer.begin(history())
    psutil.Process(drawer.pid).kill()
    later = drawer.begin(history())
    assert first() == later() == drawer.begin(history())() == drawn(history())


def test_what_cannot_be_drawn_is_raised_to_who_waits_and_the_next_is_drawn(drawer: Drawer) -> None:
    broken = drawer.begin(Message("history", {}, {}))
    fine = drawer.begin(history())
    with pytest.raises(KeyError, match="unit"):
        broken()
    assert fine() == drawn(history())


def test_pictures_are_drawn_here_where_no_process_can_be_had(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no more processes")

    monkeypatch.setattr(module, "start_child", refuse)
    with Drawer() as drawer:
        assert drawer.pid is None
        assert drawer.begin(history())() == drawn(history())


def test_one_core_draws_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "thread_count", lambda: 1)
    with Drawer() as drawer:
        assert drawer.pid is None
        assert drawer.begin(history())() == drawn(history())


def test_the_process_is_gone_at_the_end_whatever_is_still_asked_for(stack: Stack) -> None:
    many = noise_drawing(photon_transfer(stack.voxels), None)
    with Drawer() as drawer:
        assert drawer.pid is not None
        process = psutil.Process(drawer.pid)
        waiting = [drawer.begin(many) for _ in range(20)]
    assert not process.is_running()
    assert waiting[-1]() == drawn(many), "what is asked for late is drawn here"


def test_the_process_ends_with_whoever_started_it() -> None:
    code = (
        "import time; from napari_gaussfit.jobs import drawing; "
        "drawing.thread_count = lambda: 2; "
        "print(drawing.Drawer().pid, flush=True); time.sleep(60)"
    )
    asker = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert asker.stdout is not None
    process = psutil.Process(int(asker.stdout.readline()))
    asker.kill()
    asker.communicate()
    psutil.wait_procs([process], timeout=30)
    assert not process.is_running()


def test_a_command_of_its_own_loads_no_matplotlib_and_draws_all_the_same(tmp_path: Path) -> None:
    code = (
        "import sys; from napari_gaussfit.cli import main; "
        "from napari_gaussfit.jobs import drawing; drawing.thread_count = lambda: 2; "
        "sys.argv = ['napari-gaussfit', 'demo', '-o', sys.argv[1]]; "
        "code = main(); print('matplotlib' in sys.modules, file=sys.stderr); sys.exit(code)"
    )
    out = tmp_path / "demo"
    done = subprocess.run(
        [sys.executable, "-c", code, out], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "False", "its process of pictures has it"
    assert {name for name in PICTURES if (out / name).is_file()} == set(PICTURES)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no signals to send to a process")
def test_a_command_that_is_interrupted_twice_leaves_no_process(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "napari_gaussfit", "demo", "-o", str(tmp_path / "demo")]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "demo" / "fit.safetensors").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    children = psutil.Process(process.pid).children()
    for _ in range(2):  # as a terminal does, to all that it started
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.02)
    _, said = process.communicate(timeout=120)
    assert process.returncode in (0, 130), said
    assert "Traceback" not in said
    assert not [child for child in children if child.is_running()]
    assert not [path.name for path in (tmp_path / "demo").iterdir() if path.name.startswith(".")]


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"),
    reason="glibc gives memory back, others have their own ways",
)
def test_memory_that_was_let_go_of_is_not_cleared_again() -> None:
    code = (
        "import resource, sys, numpy as np; "
        "from napari_gaussfit.jobs.kept_memory import keep_freed_memory; "
        "sys.argv[1] == 'kept' and keep_freed_memory(); "
        "fault = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt; "
        "arrays = lambda: [np.ones(2**20) for _ in range(6)]; "
        "arrays(); first = fault(); [len(arrays()) for _ in range(5)]; print(fault() - first)"
    )
    pages = {
        how: int(subprocess.check_output([sys.executable, "-c", code, how], text=True))
        for how in ("kept", "usual")
    }
    assert pages["kept"] < 0.1 * pages["usual"], pages
