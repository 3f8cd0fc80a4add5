"""Compiling CUDA kernels without a GPU: `ptx.py 7.5 9.0`, run by `test_cuda.py`.

Every kernel is compiled with the types that it is launched with, and must have no f64 arithmetic
but where that is meant. Numba's part, most of the time, is done once for all capabilities. For the
first of them kernels are linked too, as for a launch: blocks must have room in shared memory, and
threads in their registers. In a process of its own, as it takes the place of the device that numba
would ask for its compute capability. With `--folder`, the PTX is left there.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch
from benchmarks.gpu import refined_on, spots_to_refine
from benchmarks.gpu_code import library_of, numba_type, pretend, ptx_of, resources_of
from scenes import FIELDS, make_grid, make_rays

from napari_gaussfit._kernels.cpu.refinement_kernels import BlockScene
from napari_gaussfit._kernels.cpu.spline import SplineVolume
from napari_gaussfit._kernels.cuda import (
    Graphs,
    backend,
    grid_kernels,
    mip_kernels,
    mode_kernels,
    objective,
    ray_kernels,
    refinement,
    refinement_kernels,
    relocation,
)
from napari_gaussfit._kernels.cuda import device as cuda_device
from napari_gaussfit._kernels.cuda import mip as cuda_mip
from napari_gaussfit._kernels.shared.gaussian import exp2_negative
from napari_gaussfit.fitting.cuda_relocation import CudaRelocation
from napari_gaussfit.fitting.state import OptimiserState
from napari_gaussfit.fitting.steps import Slab
from napari_gaussfit.measure import refinement as measuring

KERNELS = (
    cuda_device,
    grid_kernels,
    mip_kernels,
    mode_kernels,
    objective,
    ray_kernels,
    refinement_kernels,
    relocation,
)
LAUNCHING = (cuda_device, backend, objective, refinement, relocation, cuda_mip)
IN_DOUBLE = {
    "cuda.refinement_kernels.refine_one",
    "cuda.refinement_kernels.refine_few",
    "cuda.relocation.spread",
    "cuda.relocation.cost_of_each",
    "cuda.relocation.choose",
    "cuda.relocation.put_each_down",
}
"""Kernels that solve equations, of refinement, and of a relocation, one in 25 steps: costs and
error bars are what is left of large numbers."""
Signatures = dict[Any, tuple[Any, ...]]


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
    mip, start = backend.MipEvaluation(rays, 0.5), torch.zeros(rays.shape)
    mip.forward(packed)
    backend.MipEvaluation(rays, 0.5, start).forward(packed)
    cuda_mip.FEW_TILES = 0
    for evaluation in (
        backend.PointEvaluation(torch.rand(100, 3)),
        backend.PointEvaluation(torch.rand(2 * backend.DENSE_POINTS, 3)),
        backend.GridEvaluation(make_grid((8, 9, 10))),
        backend.MipEvaluation(rays, 0.5, start),
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
    refine()
    return found


def refine() -> None:
    """Call what refines single Gaussians and groups of a few."""
    ends = np.array([[0, 2, 0, 2, 0, 2]] * 3)
    members, nobody = (np.array([0, 1, 3]), np.arange(3)), (np.zeros(3, np.int64), np.arange(0))
    scene = BlockScene(
        np.ones((1, 3, 3, 3), np.float32),
        ends[:2],
        ends,
        members,
        nobody,
        (np.zeros((3, 9)), np.ones((1, 3))),
        np.zeros((2, 1)),
        np.ones(4),
    )
    refinement.Refiner(torch.device("cpu"))(scene, 1, np.zeros((3, 3)))


def agree_as_compiled() -> None:
    """Run a grid, a MIP and a refinement as compiled, each block's threads, against the CPU's."""
    from benchmarks.gpu_cost import Counting

    from napari_gaussfit._kernels.cpu import backend as cpu

    field = FIELDS["overlapping"](seed=0)
    leaves, rays, grid = (
        (field.means, field.cholesky, field.amplitudes),
        make_rays("pinhole", (10, 11)),
        make_grid((8, 9, 20)),
    )
    counting, own = Counting(), cpu.pack(*leaves, 1e-5)
    with counting.watched():
        packed = backend.pack(*leaves, 1e-5)
        volume = backend.GridEvaluation(grid)
        values = volume.forward(packed)
        moments = volume.backward(packed, torch.ones_like(values))
        mip = backend.MipEvaluation(rays, 0.5).forward(packed)
    other = cpu.GridEvaluation(grid)
    true = other.forward(own)
    gathered = torch.as_tensor(np.array(other.backward(own, torch.ones_like(true))))
    pairs = (
        ("a grid", values, true, 1e-4),
        ("its moments", moments[0], gathered, 1e-3),
        ("a MIP", mip, cpu.MipEvaluation(rays, 0.5).forward(own), 1e-3),
    )
    for name, found, known, most in pairs:
        apart = float((found - known).abs().max() / known.abs().max())
        assert apart < most, f"{name} is {apart:.1e} off as compiled"
        sys.stdout.write(f"{name} as compiled ok\n")
    start, stack, noise = spots_to_refine((1, 1, 1), 1)
    own = measuring.refine([start], [stack], noise=noise, most_steps=1)
    with counting.watched():
        found = refined_on(torch.device("cpu"), start, stack, noise, most_steps=1)
    assert np.array_equal(found.steps, own.steps)
    for name in ("means", "cholesky", "amplitudes"):
        one, known = getattr(found.gaussians[0], name), getattr(own.gaussians[0], name)
        np.testing.assert_allclose(one, known, rtol=1e-5, atol=1e-5)
    variances = (np.diagonal(one.covariances, axis1=1, axis2=2) for one in (found, own))
    np.testing.assert_allclose(*variances, rtol=1e-4)
    sys.stdout.write("a refinement as compiled ok\n")
    assert {"cuda.grid_kernels.voxelise", "cuda.mode_kernels.find_modes"} & set(counting.counts)


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


def main(capabilities: list[str], folder: Path | None) -> None:
    """Compile every kernel and print a line for each."""
    pretend(capabilities[0])
    # As in a fit, whose kernels for the CPU are compiled first: numba must not take what it then
    # knows of a function that both have for what CUDA's is.
    numba.njit(lambda x: exp2_negative(x))(np.float32(-1.0))  # noqa: PLW0108 - it is the call
    agree_as_compiled()
    signatures = launched_types()
    for name, kernel in all_kernels().items():
        library = library_of(kernel, signatures[kernel])
        taken = resources_of(library, capabilities[0])
        crowded = kernel.targetoptions.get("max_registers") is not None
        assert crowded or not taken.stack, f"{name} has not enough registers: {taken}"
        sys.stdout.write(f"{name} linked: {taken}\n")
        for capability in capabilities:
            ptx = ptx_of(library, capability)
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
