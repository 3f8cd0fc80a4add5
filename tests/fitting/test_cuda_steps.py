"""Which steps run as they are, which are captured, which are replays; the rest needs a device.

What a step computes is tested in the simulator: `_kernels/simulated.py`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("numba_cuda", reason="numba-cuda is for Linux and Windows")

from napari_gaussfit import _kernels
from napari_gaussfit._kernels.cuda import Graphs
from napari_gaussfit.fitting.cuda_steps import CudaSteps
from napari_gaussfit.fitting.objective import Drawn
from napari_gaussfit.fitting.trainer import Trainer
from napari_gaussfit.model.field import GaussianField
from napari_gaussfit.settings import FitSettings
from napari_gaussfit.stacks.stack import Stack


class Log:
    """Stands for CUDA's graphs: writes down what happens to them."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.capturing = False

    def graph(self) -> Any:
        log = self

        class Graph:
            def replay(self) -> None:
                log.events.append("replay")

        return Graph()

    @contextlib.contextmanager
    def capture(self, _graph: Any, *, capture_error_mode: str) -> Iterator[None]:
        assert capture_error_mode == "thread_local", "other threads may use the device meanwhile"
        self.capturing = True
        yield
        self.capturing = False

    def take(self, *, search: bool) -> None:
        how = "capture" if self.capturing else "run"
        self.events.append(f"{how} with{'' if search else 'out'} search")


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    log = Log()
    monkeypatch.setattr(torch.cuda, "CUDAGraph", log.graph)
    monkeypatch.setattr(torch.cuda, "graph", log.capture)
    return log


def steps_of(log: Log, monkeypatch: pytest.MonkeyPatch, *, graphs: bool) -> CudaSteps:
    stack = Stack.from_array(np.arange(5 * 6 * 7, dtype=np.float32).reshape(5, 6, 7))
    with monkeypatch.context() as patch:
        patch.setattr(_kernels, "backend_name", lambda _: "numba-cuda")
        settings = FitSettings(exactly=True, gaussians=3, views=2, held_out=1, device="cpu")
        start = GaussianField(torch.zeros(3, 3), torch.zeros(3, 6), torch.ones(3))
        steps = Trainer([stack], settings, start=[start]).steps
    assert isinstance(steps, CudaSteps)
    monkeypatch.setattr(steps, "_take", log.take)
    monkeypatch.setattr(steps.graphs, "_captures", graphs)
    return steps


def test_each_kind_of_step_runs_once_and_is_captured_once(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = steps_of(log, monkeypatch, graphs=True)
    for search in (True, False, True, False, True):
        steps.take(Drawn([0], [1], search), 0.1)
    assert log.events == [
        "run with search",
        "run without search",
        "capture with search",
        "replay",
        "capture without search",
        "replay",
        "replay",
    ]


def test_work_that_failed_is_not_captured_before_it_has_run(log: Log) -> None:
    graphs = Graphs(torch.device("cuda", 0))

    def fail() -> None:
        message = "CUDA out of memory"
        raise torch.OutOfMemoryError(message)

    with pytest.raises(torch.OutOfMemoryError):
        graphs.run("work", fail)
    for _ in range(3):
        graphs.run("work", lambda: log.take(search=True))
    assert log.events == ["run with search", "capture with search", "replay", "replay"]
    graphs.forget("work")
    graphs.run("work", lambda: log.take(search=False))
    assert log.events[-1] == "run without search", "work of another shape"


def test_without_a_device_every_step_runs(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = steps_of(log, monkeypatch, graphs=False)
    for _ in range(3):
        steps.take(Drawn([0], [1], True), 0.1)
    assert log.events == ["run with search"] * 3


def test_what_a_step_looks_at_is_written_where_its_graph_reads(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = steps_of(log, monkeypatch, graphs=True)
    places = []
    for bricks in ([2, 5], [4, 1]):
        steps.take(Drawn(bricks, [3], True), 0.25)
        places.append(steps._chosen["bricks"].data_ptr())
        assert steps._chosen["bricks"].tolist() == bricks
    assert places[0] == places[1], "a graph would read the old place"
    assert steps._rates.tolist() == [0.25] * 10


def test_steps_of_another_number_of_gaussians_are_captured_anew(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = steps_of(log, monkeypatch, graphs=True)
    for _ in range(3):
        steps.take(Drawn([0], [1], True), 0.1)
    assert log.events[-1] == "replay"
    graphs = steps.graphs
    # A spot in a corner that the three Gaussians in another one do not reach.
    voxels = steps._objective.channels[0].voxels
    voxels[3:, 3:5, 4:6] += 5.0
    steps.recount(0, 0, room=50)
    assert steps.graphs is not graphs
    assert not torch.equal(steps.state.means, torch.zeros(3, 3))
    assert all(len(g[0]) == len(steps.state.means) for g in steps._gradients)
    monkeypatch.setattr(steps.graphs, "_captures", True)
    steps.take(Drawn([0], [1], True), 0.1)
    assert log.events[-1] == "run with search"


def test_steps_stay_captured_where_no_gaussian_comes_or_goes(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = steps_of(log, monkeypatch, graphs=True)
    graphs, means = steps.graphs, steps.state.means
    steps.recount(0, 3, room=0)
    assert steps.graphs is graphs
    assert steps.state.means is means
