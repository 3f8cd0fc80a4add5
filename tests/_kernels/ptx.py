"""Compiling CUDA kernels to PTX without a GPU: `python ptx.py 7.5 9.0`, run by `test_cuda.py`.

Every kernel is compiled with the types that it is launched with, and must have no f64 arithmetic
but where that is meant. Numba's part, nine tenths of the time, is done once for all capabilities.
In a process of its own, as it takes the place of the device that numba would ask for its compute
capability. With `--folder`, the PTX is left there, for `ptxas -v` to tell registers and spills.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numba
import numba.cuda.dispatcher
import numpy as np
import torch
from numba import cuda, types
from numba.cuda.codegen import CUDACodeLibrary
from scenes import FIELDS, make_grid, make_rays

from napari_gaussfit._kernels.cpu.spline import SplineVolume
from napari_gaussfit._kernels.cuda import (
    Graphs,
    backend,
    grid_kernels,
    mip_kernels,
    objective,
    ray_kernels,
    relocation,
)
from napari_gaussfit._kernels.cuda import device as cuda_device
from napari_gaussfit._kernels.cuda import mip as cuda_mip
from napari_gaussfit._kernels.shared.gaussian import exp2_negative
from napari_gaussfit.fitting.cuda_relocation import CudaRelocation
from napari_gaussfit.fitting.state import OptimiserState
from napari_gaussfit.fitting.steps import Slab

KERNELS = (cuda_device, grid_kernels, mip_kernels, objective, ray_kernels, relocation)
LAUNCHING = (cuda_device, backend, objective, relocation, cuda_mip)
IN_DOUBLE = {
    "cuda.relocation.spread",
    "cuda.relocation.cost_of_each",
    "cuda.relocation.choose",
    "cuda.relocation.put_each_down",
}
"""Kernels of a relocation, one in 25 steps: costs are differences in which most digits cancel."""
ELEMENTS = {
    torch.float32: types.float32,
    torch.float64: types.float64,
    torch.int32: types.int32,
    torch.int64: types.int64,
    torch.uint8: types.uint8,
}
Signatures = dict[Any, tuple[Any, ...]]


class Device:
    """Stands for the GPU that is not there."""

    def __init__(self, compute_capability: tuple[int, int]) -> None:
        self.compute_capability = compute_capability


def all_kernels() -> dict[str, Any]:
    """Every kernel of the backend, by its name."""
    return {
        f"{module.__name__.partition('._kernels.')[2]}.{name}": value
        for module in KERNELS
        for name, value in vars(module).items()
        if hasattr(value, "py_func")
        and value.py_func.__module__ == module.__name__
        and not value.targetoptions.get("device")
    }


def numba_type(argument: object) -> Any:
    """The type that numba gives an argument of a launch."""
    if isinstance(argument, tuple):
        return types.BaseTuple.from_types([numba_type(one) for one in argument], tuple)
    if isinstance(argument, torch.Tensor):
        assert argument.is_contiguous()
        return types.Array(ELEMENTS[argument.dtype], argument.ndim, "C")
    if isinstance(argument, np.int32):
        return types.int32
    assert isinstance(argument, np.float32), f"{type(argument)} would be 64 bits wide"
    return types.float32


def launched_types() -> Signatures:
    """What each kernel is launched with, by calling everything with launches left out."""
    found: Signatures = {}

    def recorded(kernel: Any, _blocks: Any, _threads: Any, *given: Any) -> None:
        signature = tuple(map(numba_type, given))
        assert found.setdefault(kernel, signature) == signature, "launched with various types"

    for module in LAUNCHING:
        module.launch = recorded
    field = FIELDS["overlapping"](seed=0)
    leaves = (field.means, field.cholesky, field.amplitudes)
    packed, rays = backend.pack(*leaves, 1e-5), make_rays("pinhole", (10, 11))
    mip = backend.MipEvaluation(rays, 0.5)
    mip.forward(packed)
    cuda_mip.FEW_TILES = 0
    for evaluation in (
        backend.PointEvaluation(torch.rand(100, 3)),
        backend.PointEvaluation(torch.rand(2 * backend.DENSE_POINTS, 3)),
        backend.GridEvaluation(make_grid((8, 9, 10))),
        mip,
        backend.SoftMipEvaluation(rays, 0.5),
        backend.LineIntegralEvaluation(rays),
    ):
        moments = evaluation.backward(packed, torch.ones_like(evaluation.forward(packed)))
    backend.unpack_gradient(moments, packed)
    voxels, spacing = np.zeros((2, 3, 4), np.float32), np.ones(3, np.float32)
    volume = backend.Volume(SplineVolume(voxels, spacing), packed.device)
    mip.target_of([volume])
    backend.maxima(volume, mip.views)
    count = len(field.means)
    state = (torch.zeros(count, 10), torch.zeros(count, 10), torch.zeros(count))
    backend.adam_step(leaves, leaves, state, torch.ones(10))
    backend.widen(field.cholesky, torch.ones(3), 0.7)
    relocate(leaves, state)
    lose(mip.views)
    return found


def lose(views: backend.Views) -> None:
    """Call what a step calls for its losses."""
    one = torch.ones(1)
    losses = backend.Losses(
        darkest=1e-3, zero=[0.0], rules=(0.0, 0.0, 0.0, 0.0), background=one, cutoff=one
    )
    which, numbers = torch.zeros(1, dtype=torch.int64), torch.ones(1, 3, dtype=torch.int32)
    voxels = torch.ones(1, 2, 2, 2)
    bricks = backend.BrickTables(voxels, numbers, numbers, one, one)
    losses.of_bricks(bricks, which, voxels)
    backend.selected(views, which)
    drawn = backend.Drawn(views, which, one, one)
    losses.of_views(drawn, views.near, views.near, first=False)


def relocate(leaves: tuple[torch.Tensor, ...], state: tuple[torch.Tensor, ...]) -> None:
    """Call all that a relocation calls."""
    tensors = (torch.zeros(len(leaves[0])),) * 2
    means, cholesky, amplitudes = leaves
    steps = OptimiserState(means, cholesky, amplitudes.repeat(2, 1), *state, *tensors)
    voxels = torch.zeros(2, 3, 4, 5)
    CudaRelocation(Graphs(voxels.device), steps, voxels, (1.0, 1.0, 1.0), Slab(2, 1))(0, 0)


def compiled(kernel: Any, signature: tuple[Any, ...], capabilities: list[str]) -> dict[str, str]:
    """Return a kernel's PTX by compute capability."""
    libraries = []

    def kept(library: Any, cc: tuple[int, int]) -> Any:
        libraries.append(library)
        return translate(library, cc)

    translate = CUDACodeLibrary.get_asm_strs
    with patch.object(CUDACodeLibrary, "get_asm_strs", kept):
        cuda.compile(
            kernel.py_func,
            signature,
            cc=as_pair(capabilities[0]),
            output="ptx",
            abi="numba",
            device=False,
            fastmath=True,
        )
    [library] = libraries
    return {name: "".join(translate(library, as_pair(name))) for name in capabilities}


def as_pair(capability: str) -> tuple[int, int]:
    """Read "9.0"."""
    major, minor = capability.split(".")
    return int(major), int(minor)


def main(capabilities: list[str], folder: Path | None) -> None:
    """Compile every kernel and print a line for each."""
    cc = as_pair(capabilities[0])
    numba.cuda.dispatcher.get_current_device = lambda: Device(cc)
    # As in a fit, whose kernels for the CPU are compiled first: numba must not take what it then
    # knows of a function that both have for what CUDA's is.
    numba.njit(lambda x: exp2_negative(x))(np.float32(-1.0))  # noqa: PLW0108 - it is the call
    signatures = launched_types()
    for name, kernel in all_kernels().items():
        for capability, ptx in compiled(kernel, signatures[kernel], capabilities).items():
            doubles = re.findall(r".*\.f64.*", ptx)
            assert name in IN_DOUBLE or not doubles, f"{name} has f64 arithmetic: {doubles[:5]}"
            assert ".visible .entry" in ptx, f"{name}: no entry"
            target = f".target sm_{capability.replace('.', '')}"
            assert target in ptx, f"{name}: not for {capability}"
            if folder is not None:
                (folder / f"{name}.{capability}.ptx").write_text(ptx)
            sys.stdout.write(f"{name} for {capability} ok\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("capabilities", nargs="+", metavar="CAPABILITY")
    parser.add_argument("--folder", type=Path)
    asked = parser.parse_args()
    main(asked.capabilities, asked.folder)
