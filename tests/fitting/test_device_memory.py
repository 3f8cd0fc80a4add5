"""A GPU that has no room is met with a smaller try, the CPU, or a line that says what to do."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("numba_cuda", reason="numba-cuda is for Linux and Windows")

from napari_gaussfit import FitSettings, _kernels
from napari_gaussfit._kernels.cuda import Graphs, room_on
from napari_gaussfit.errors import GaussfitError, OutOfMemoryError
from napari_gaussfit.fitting import cuda_steps
from napari_gaussfit.fitting.cuda_relocation import CudaRelocation
from napari_gaussfit.fitting.memory import memory_line, predict_device_memory
from napari_gaussfit.fitting.state import OptimiserState
from napari_gaussfit.fitting.steps import Slab
from napari_gaussfit.fitting.trainer import Trainer
from napari_gaussfit.model.field import GaussianField
from napari_gaussfit.stacks.stack import Stack

GB = 10**9
CPU = torch.device("cpu")
STACK = Stack.from_array(np.arange(5 * 6 * 7, dtype=np.float32).reshape(5, 6, 7))
START = GaussianField.from_gaussians([((2.0, 3.0, n), np.eye(3), 50.0) for n in (1.0, 5.0)])


def no_room(*_: Any, **__: Any) -> None:
    """Fail as torch does."""
    message = "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of ..."
    raise torch.OutOfMemoryError(message)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU of 8 GB of which 2 are free, and one more is held in reserve by torch."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Thing 1")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (2 * GB, 8 * GB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 3 * GB)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 2 * GB)


@pytest.mark.usefixtures("gpu")
def test_what_torch_says_becomes_a_line_of_ours() -> None:
    with pytest.raises(MemoryError) as refused, room_on(torch.device("cuda", 0)):
        no_room()
    assert isinstance(refused.value, OutOfMemoryError)
    assert isinstance(refused.value, GaussfitError)
    assert str(refused.value) == (
        "no room is left on Thing 1, where 3 of 8 GB are free; crop or bin the stack, ask for "
        "fewer Gaussians, close what else uses the GPU, or use device='cpu'"
    )


def test_an_operation_without_room_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_kernels, "_backend_of", lambda _: no_room())
    ones = torch.ones(1, 3)
    with pytest.raises(OutOfMemoryError, match=r"no room is left on cpu; crop or bin the stack"):
        _kernels._sum(ones, torch.zeros(1, 6), torch.ones(1), 0.1, None, None)


def test_a_relocation_without_room_looks_at_fewer_planes() -> None:
    field = GaussianField(torch.zeros(40, 3), torch.zeros(40, 6), torch.ones(40))
    state = OptimiserState.begin([field], 1e-4).to(CPU)
    tried: list[tuple[int, int]] = []

    class Relocation(CudaRelocation):
        room = 2

        def _relocate(self) -> None:
            tried.append((self._grids.shape[0], self._most))
            if self._grids.shape[0] > self.room:
                no_room()

    relocation = Relocation(Graphs(CPU), state, torch.zeros(9, 4, 4), (2.0, 1.0, 1.0), Slab(9, 6))
    relocation(0, 0)
    assert tried == [(9, 6), (4, 3), (2, 1)]
    relocation(5, 0)
    assert tried[3:] == [(2, 1)], "it is known by now"
    assert relocation._grids.origins[0, 0] == 10.0
    relocation.room = 0
    with pytest.raises(torch.OutOfMemoryError):
        relocation(0, 0)


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_a_fit_without_room_stays_on_the_cpu_where_that_was_left_to_it(
    monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    settings = FitSettings(exactly=True, gaussians=4, views=2, held_out=1, device=device)
    with monkeypatch.context() as patch:
        patch.setattr(_kernels, "device_named", lambda _: CPU)
        patch.setattr(_kernels, "fallback", lambda _: None)
        patch.setattr(_kernels, "backend_name", lambda _: "numba-cuda")
        patch.setattr(cuda_steps.backend, "Volume", no_room)
        if device == "cuda":
            with pytest.raises(OutOfMemoryError, match=r"no room is left .* or use device='cpu'"):
                Trainer([STACK], settings, start=[START])
            return
        trainer = Trainer([STACK], settings, start=[START])
    [note] = trainer.notes
    assert note.startswith("device auto is the CPU here: no room is left on ")
    before = trainer.field.means.clone()
    trainer.step(0.0)
    assert not torch.equal(trainer.field.means, before)


@pytest.mark.usefixtures("gpu")
def test_a_fit_that_is_too_large_is_refused_before_it_moves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_kernels, "device_named", lambda _: torch.device("cuda", 0))
    monkeypatch.setattr(_kernels, "backend_name", lambda _: "numba-cuda")
    settings = FitSettings(exactly=True, gaussians=4, views=2, held_out=1, device="cuda")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (0, 8 * GB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 2 * GB)
    with pytest.raises(OutOfMemoryError, match=r"about 0.* GB are needed on Thing 1, where 0 of 8"):
        Trainer([STACK], settings, start=[START])


@pytest.mark.usefixtures("gpu")
def test_what_a_fit_takes_of_a_gpu_is_said_beside_that_of_the_computer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_kernels, "device_named", torch.device)
    lines = [memory_line([STACK], FitSettings(device=name)) for name in ("cuda", "cpu")]
    assert re.search(r" GB are free; 0\.\d+ GB on the GPU, where 3 GB are free\n$", lines[0])
    assert lines[1].endswith(" GB are free\n")
    assert "GPU" not in lines[1]
    voxels, settings = STACK.voxels.size, FitSettings(device="cuda")
    one, two = (predict_device_memory(voxels, settings, channels) for channels in (1, 2))
    assert f" {two / 1e9:.2g} GB on the GPU, " in memory_line([STACK, STACK], settings)
    assert two > one


def test_what_a_fit_takes_of_a_gpu_grows_with_stack_and_gaussians() -> None:
    few, many = FitSettings(exactly=True, gaussians=10), FitSettings(exactly=True, gaussians=10**6)
    small, large = (predict_device_memory(voxels, few) for voxels in (10**6, 10**9))
    assert small < GB
    assert 8 * GB < large < 11 * GB
    assert predict_device_memory(10**6, many) > small + GB // 2
