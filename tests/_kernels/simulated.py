"""CUDA kernels in numba's simulator, against the float64 reference: run by `test_cuda.py`.

In a process of its own, with NUMBA_ENABLE_CUDASIM=1: numba chooses when it is imported. A CPU
thread stands for each CUDA thread, see `simulator.py`, so that fields are small and images are a
few tiles.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import simulator
import torch
from hostile_gaussians import FAR, spoilt, with_far_ones
from numba import cuda as numba_cuda
from numba.cuda.simulator import kernel
from scenes import (
    CUTOFF,
    FIELDS,
    SIZE,
    Field,
    Operation,
    assert_agrees,
    assert_gradients_agree,
    make_grid,
    make_rays,
)
from torch import Tensor

from napari_gaussfit import _kernels
from napari_gaussfit._kernels import Rays, reference
from napari_gaussfit._kernels.cpu import backend as cpu
from napari_gaussfit._kernels.cpu.spline import SplineVolume
from napari_gaussfit._kernels.cuda import backend as cuda
from napari_gaussfit._kernels.cuda import device as cuda_device
from napari_gaussfit._kernels.cuda import (
    grid_kernels,
    mip_kernels,
    mode_kernels,
    ray_kernels,
    refinement_kernels,
)
from napari_gaussfit._kernels.cuda import mip as cuda_mip
from napari_gaussfit._kernels.cuda import objective as cuda_objective
from napari_gaussfit._kernels.cuda import refinement as cuda_refinement
from napari_gaussfit._kernels.cuda import relocation as cuda_relocation
from napari_gaussfit._kernels.cuda.device import launch
from napari_gaussfit._kernels.shared import step
from napari_gaussfit.fitting import (
    cuda_relocation as fit_relocation,
)
from napari_gaussfit.fitting import (
    objective,
    relocation,
)
from napari_gaussfit.fitting import (
    trainer as training,
)
from napari_gaussfit.fitting.bounds import keep_above, widen
from napari_gaussfit.fitting.cuda_steps import CudaSteps
from napari_gaussfit.fitting.losses import DARKEST_RATE, LOSSES
from napari_gaussfit.fitting.steps import CpuSteps
from napari_gaussfit.fitting.trainer import Trainer
from napari_gaussfit.measure import refinement as cpu_refinement
from napari_gaussfit.measure.constraints import Constraints
from napari_gaussfit.measure.metrics import psnr
from napari_gaussfit.measure.noise import Noise
from napari_gaussfit.measure.refinement import refine
from napari_gaussfit.model.field import GaussianField
from napari_gaussfit.model.gaussians import Gaussians
from napari_gaussfit.settings import FitSettings
from napari_gaussfit.stacks.stack import Stack
from napari_gaussfit.synthetic.phantoms import beads

KERNELS = (
    cuda_device,
    grid_kernels,
    mip_kernels,
    mode_kernels,
    cuda_objective,
    ray_kernels,
    refinement_kernels,
    cuda_relocation,
)
LAUNCHING = (cuda_device, cuda, cuda_objective, cuda_refinement, cuda_relocation, cuda_mip)
SMALL = {"overlapping": 10, "elongated": 8, "tiny": 12, "outside": 10, "one": 1}
OF_PEAK = 1e-3
"""How far a MIP may be from the CPU's: on a flat top, four evaluations do not reach the mode."""


@pytest.fixture(scope="session", autouse=True)
def every_kernel_runs(pytestconfig: pytest.Config) -> Iterator[None]:
    """At the end of all tests (not of some, by -k), every kernel has been launched."""
    assert cuda_device.SIMULATED
    assert kernel.BlockManager.run is simulator.run_block
    launched: set[str] = set()

    def recorded(kernel: Any, *given: Any) -> None:
        # By where it stands: kernels that are made of one function have its name in common.
        launched.update(
            f"{module.__name__}.{name}"
            for module in KERNELS
            for name, value in vars(module).items()
            if value is kernel
        )
        launch(kernel, *given)

    with pytest.MonkeyPatch.context() as patch:
        for module in LAUNCHING:
            patch.setattr(module, "launch", recorded)
        yield
    kernels = {
        f"{module.__name__}.{name}"
        for module in KERNELS
        for name, value in vars(module).items()
        if getattr(value, "_device", True) is False and value.fn.__module__ == module.__name__
    }
    assert len(kernels) > 20
    if pytestconfig.getoption("keyword"):
        return
    assert kernels <= launched, f"never launched: {kernels - launched}"


@pytest.fixture(autouse=True)
def cuda_in_place_of_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Public operations on CPU tensors go to the CUDA backend."""
    monkeypatch.setattr(_kernels, "_backend_of", lambda _: cuda)


@pytest.fixture(params=SMALL)
def small(request: pytest.FixtureRequest) -> Field:
    """Every kind of field in turn, with few Gaussians."""
    return few(request.param)


@pytest.fixture(params=["orthographic", "pinhole"])
def image(request: pytest.FixtureRequest) -> Rays:
    return make_rays(request.param, (9, 10))


def few(kind: str) -> Field:
    field, count = FIELDS[kind](seed=sorted(FIELDS).index(kind)), SMALL[kind]
    return replace(
        field,
        means=field.means[:count],
        cholesky=field.cholesky[:count],
        amplitudes=field.amplitudes[:count],
    )


@pytest.mark.parametrize("of", [-1, 1], ids=["the thread before", "the thread after"])
@pytest.mark.parametrize("waits", [True, False])
def test_what_is_read_without_a_barrier_is_not_there_yet(*, waits: bool, of: int) -> None:
    """In one of two rounds, whichever thread was to wait: tests here then miss a barrier."""

    @numba_cuda.jit
    def handed_on(written: Any, read: Any) -> None:
        thread = numba_cuda.threadIdx.x
        for n in range(2):
            written[n, thread] = 1
            if waits:
                numba_cuda.syncthreads()
            read[n, thread] = written[n, (thread + of) % numba_cuda.blockDim.x]
            numba_cuda.syncthreads()

    read = torch.zeros(2, 8)
    launch(handed_on, (1, 1, 1), 8, torch.zeros(2, 8), read)
    assert read.min(1).values.all() == waits
    assert read.any()


def test_a_kernel_that_fails_says_so() -> None:
    @numba_cuda.jit
    def failing() -> None:
        numba_cuda.syncthreads()
        raise RuntimeError(numba_cuda.threadIdx.x)

    with pytest.raises(RuntimeError, match="7"):
        launch(failing, (1, 1, 1), 8)


def some_points(count: int) -> Tensor:
    return torch.rand(count, 3, generator=torch.Generator().manual_seed(3)) * torch.tensor(SIZE)


@pytest.mark.parametrize("dense_points", [0, 4096], ids=["culled", "dense"])
def test_f_at_points(small: Field, dense_points: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "DENSE_POINTS", dense_points)
    points = some_points(70)
    assert_agrees(
        small,
        lambda *p: _kernels.evaluate(*p, points, cutoff=CUTOFF),
        lambda *p: reference.evaluate(*p, points.double()),
    )


def test_f_on_a_grid(small: Field) -> None:
    grid = make_grid((5, 9, 18))
    assert_agrees(
        small,
        lambda *p: _kernels.voxelise(*p, grid, cutoff=CUTOFF),
        lambda *p: reference.voxelise(*p, grid),
    )


def test_soft_mip(small: Field, image: Rays) -> None:
    assert_agrees(
        small,
        lambda *p: _kernels.soft_mip(*p, image, cutoff=CUTOFF, temperature=0.1),
        lambda *p: reference.soft_mip(*p, image, 0.1),
    )


def test_line_integral(small: Field, image: Rays) -> None:
    assert_agrees(
        small,
        lambda *p: _kernels.line_integral(*p, image, cutoff=CUTOFF),
        lambda *p: reference.line_integral(*p, image),
    )


@pytest.mark.parametrize("what", ["a mean that is NaN", "a width beyond float32", "2 of 1e+16"])
def test_a_gaussian_that_is_not_finite_is_nowhere(
    what: str, image: Rays, monkeypatch: pytest.MonkeyPatch
) -> None:
    field, points = few("overlapping"), some_points(20)
    grown = (with_far_ones if what in FAR else spoilt)(field, what).leaves(torch.float32)
    leaves = field.leaves(torch.float32)
    if what in FAR:  # unlike a device's exp2, the simulator's never is 0
        monkeypatch.setattr(cuda, "DENSE_POINTS", 0)
    grid = make_grid((2, 5, 9))
    operations: list[Operation] = [
        lambda *p: _kernels.evaluate(*p, points, cutoff=CUTOFF),
        lambda *p: _kernels.voxelise(*p, grid, cutoff=CUTOFF),
        lambda *p: _kernels.mip(*p, image, cutoff=CUTOFF, bin_step=1.0),
        lambda *p: _kernels.line_integral(*p, image, cutoff=CUTOFF),
    ]
    for operation in operations:
        value, expected = operation(*grown), operation(*leaves)
        torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-6)
        for found in torch.autograd.grad(value.sum(), grown):
            assert torch.isfinite(found).all()
            assert not found[[0, -1]].any()


def test_line_integral_of_gaussians_far_wider_than_the_box(image: Rays) -> None:
    field = few("overlapping")
    field.cholesky.zero_()
    field.cholesky[:, [0, 2, 5]] = math.log(300.0)
    assert_agrees(
        field,
        lambda *p: _kernels.line_integral(*p, image, cutoff=CUTOFF),
        lambda *p: reference.line_integral(*p, image),
    )


@pytest.fixture(autouse=True)
def images_of_many_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if they had: of the kernels with several threads a pixel there are tests of their own."""
    monkeypatch.setattr(cuda_mip, "FEW_TILES", 0)


@pytest.fixture
def images_of_few_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """With two threads a pixel: the simulator has a thread of Python for each."""
    monkeypatch.setattr(cuda_mip, "FEW_TILES", 1 << 30)
    monkeypatch.setattr(mode_kernels, "SPLIT", 2)
    searching = mode_kernels.make_along_rays(2, searching=True)
    monkeypatch.setattr(mode_kernels, "find_modes_split", searching)
    climbing = mode_kernels.make_along_rays(2, searching=False)
    monkeypatch.setattr(mode_kernels, "climb_split", climbing)


def test_mip_is_the_cpu_backends_and_its_gradient_that_of_f_there(
    small: Field, image: Rays
) -> None:
    single, double = small.leaves(torch.float32), small.leaves(torch.float64)
    evaluation = cuda.MipEvaluation(image, small.narrowest)
    packed = cuda.pack(*single, CUTOFF)
    value = evaluation.forward(packed)
    own = cpu.MipEvaluation(image, small.narrowest).forward(cpu.pack(*single, CUTOFF))
    worst = float((value - own).abs().max() / own.max())
    assert worst < OF_PEAK, f"off by {worst:.1e} of the peak"
    weights = torch.randn(value.shape, generator=torch.Generator().manual_seed(4))
    d_means, d_cholesky, d_amplitudes = cuda.unpack_gradient(
        evaluation.backward(packed, weights), packed
    )
    o, d = reference.origins_and_directions(image, torch.float64)
    near, far = reference.clip(image, torch.float64)
    points = (o + evaluation.depth[0, ..., None].double() * d).reshape(-1, 3)
    f = torch.where(near < far, reference.evaluate(*double, points).reshape(image.shape), 0.0)
    true = torch.autograd.grad((f * weights.double()).sum(), double)
    assert_gradients_agree((d_means, d_cholesky, d_amplitudes[0]), true)


def test_mip_climbs_from_where_it_is_told_to(image: Rays) -> None:
    leaves = few("overlapping").leaves(torch.float32)
    first = cuda.MipEvaluation(image, 1.0)
    found = first.forward(cuda.pack(*leaves, CUTOFF))
    again = _kernels.mip(*leaves, image, cutoff=CUTOFF, bin_step=1.0, start=first.depth[0])
    torch.testing.assert_close(again.detach(), found, rtol=1e-5, atol=1e-6)


def test_a_volume_is_read_where_the_cpu_reads_it(image: Rays) -> None:
    voxels = np.random.default_rng(0).normal(1.0, 0.3, (7, 9, 11)).astype(np.float32)
    spline = SplineVolume(voxels, np.divide(SIZE, voxels.shape, dtype=np.float32))
    leaves = few("overlapping").leaves(torch.float32)
    evaluation = cuda.MipEvaluation(image, 1.0)
    evaluation.forward(cuda.pack(*leaves, CUTOFF))
    found = evaluation.target_of([cuda.Volume(spline, torch.device("cpu"))])
    true = np.zeros(image.shape, np.float32)
    spline.sample(image, evaluation.depth[0].numpy(), true, 0, image.shape[0])
    assert np.ptp(true) > 0.5, "the volume is not flat there"
    np.testing.assert_allclose(found.numpy(), true, atol=1e-5)


def test_a_volumes_maxima_are_the_cpus() -> None:
    """In views of two sizes, and beside the box nothing."""
    voxels = np.random.default_rng(0).normal(1.0, 0.3, (5, 6, 7)).astype(np.float32)
    spline = SplineVolume(voxels, np.divide(SIZE, voxels.shape, dtype=np.float32))
    views = [make_rays("orthographic", (6, 7)), make_rays("pinhole", (5, 8))]
    device = torch.device("cpu")
    found = cuda.maxima(cuda.Volume(spline, device), cuda.Views.of(views, 1.0, device))
    for image, rays in zip(found.numpy(), views, strict=True):
        rows, width = rays.shape
        expected = spline.mip(rays)[0]
        assert (expected == 0).any()
        assert (expected > 1).any()
        np.testing.assert_allclose(image[:rows, :width], expected, atol=3e-4)
        assert not image[rows:].any()
        assert not image[:, width:].any()


@pytest.mark.usefixtures("images_of_few_tiles")
def test_several_threads_a_pixel_find_what_one_does(image: Rays) -> None:
    """In more bins than shared memory holds, too."""
    packed = cuda.pack(*few("overlapping").leaves(torch.float32), CUTOFF)
    evaluation = cuda.MipEvaluation(image, 0.4)
    found = evaluation.forward(packed)
    own = cpu.MipEvaluation(image, 0.4).forward(
        cpu.pack(*few("overlapping").leaves(torch.float32), CUTOFF)
    )
    assert int(evaluation.views.searches[0, mip_kernels.BIN_COUNT]) > mode_kernels.BINS_OF_SPLIT
    worst = float((found - own).abs().max() / own.max())
    assert worst < OF_PEAK, f"off by {worst:.1e} of the peak"
    again = cuda.MipEvaluation(image, 0.4, evaluation.depth[0]).forward(packed)
    torch.testing.assert_close(again, found, rtol=1e-5, atol=1e-6)


def test_long_rays_are_searched_in_pieces(image: Rays) -> None:
    """More bins than shared memory holds."""
    leaves = few("tiny").leaves(torch.float32)
    table = cuda.Views.of([image], 0.15, torch.device("cpu"))
    assert int(table.searches[0, mip_kernels.BIN_COUNT]) > 2 * mode_kernels.BINS
    found = _kernels.mip(*leaves, image, cutoff=CUTOFF, bin_step=0.15)
    own = cpu.MipEvaluation(image, 0.15).forward(cpu.pack(*leaves, CUTOFF))
    worst = float((found - own).abs().max().detach() / own.max())
    assert worst < OF_PEAK, f"off by {worst:.1e} of the peak"


def assert_mip_of_a_crowd_is_the_cpus() -> None:
    """Hold the MIP of more Gaussians than a block has threads against the CPU backend's."""
    field = FIELDS["overlapping"](seed=2)
    leaves = [torch.cat([p, p.flip(0)]) for p in field.leaves(torch.float32)]
    assert len(leaves[0]) > mode_kernels.TILE_PIXELS
    rays = make_rays("orthographic", (4, 4))
    found = _kernels.mip(*leaves, rays, cutoff=CUTOFF, bin_step=2.0)
    own = cpu.MipEvaluation(rays, 2.0).forward(cpu.pack(*leaves, CUTOFF))
    worst = float((found - own).abs().max().detach() / own.max())
    assert worst < OF_PEAK, f"off by {worst:.1e} of the peak"


def test_crowded_tiles_take_their_gaussians_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """More Gaussians at a tile than shared memory holds."""
    for module in (cuda_device, mode_kernels):
        monkeypatch.setattr(module, "SHARE", 1)
    monkeypatch.setattr(mode_kernels, "FOUND", mode_kernels.TILE_PIXELS)
    searching = mode_kernels.make_along_rays(1, searching=True)
    monkeypatch.setattr(mode_kernels, "find_modes", searching)
    assert_mip_of_a_crowd_is_the_cpus()


def test_a_climb_that_more_gaussians_reach_than_are_kept_looks_at_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mode_kernels, "KEPT", 1)
    searching = mode_kernels.make_along_rays(1, searching=True)
    monkeypatch.setattr(mode_kernels, "find_modes", searching)
    assert_mip_of_a_crowd_is_the_cpus()


def test_a_cell_whose_list_is_too_long_takes_the_larger_cells(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mip_kernels, "LEAST_ROOM", 1)
    monkeypatch.setattr(mip_kernels, "ROOM", 1000)
    assert_mip_of_a_crowd_is_the_cpus()


def test_tiles_work_on_a_few_records_at_a_time(
    monkeypatch: pytest.MonkeyPatch, image: Rays
) -> None:
    """More Gaussians at a tile than are copied to shared memory at once."""
    for module in (cuda_device, ray_kernels, mode_kernels, grid_kernels):
        monkeypatch.setattr(module, "RECORDS", 4)
    monkeypatch.setattr(cuda, "DENSE_POINTS", 0)
    field, points, grid = few("overlapping"), some_points(20), make_grid((3, 4, 5))
    assert_agrees(
        field,
        lambda *p: _kernels.evaluate(*p, points, cutoff=CUTOFF),
        lambda *p: reference.evaluate(*p, points.double()),
    )
    assert_agrees(
        field,
        lambda *p: _kernels.voxelise(*p, grid, cutoff=CUTOFF),
        lambda *p: reference.voxelise(*p, grid),
    )
    assert_agrees(
        field,
        lambda *p: _kernels.soft_mip(*p, image, cutoff=CUTOFF, temperature=0.1),
        lambda *p: reference.soft_mip(*p, image, 0.1),
    )
    assert_agrees(
        field,
        lambda *p: _kernels.line_integral(*p, image, cutoff=CUTOFF),
        lambda *p: reference.line_integral(*p, image),
    )


def test_views_and_channels_go_in_one_launch() -> None:
    """Two channels in two views of different sizes: each image is what it is by itself."""
    field = few("overlapping")
    means, cholesky, _ = field.leaves(torch.float32)
    amplitudes = torch.stack([field.amplitudes, field.amplitudes.flip(0)]).requires_grad_()
    views = [make_rays("orthographic", (6, 9)), make_rays("pinhole", (8, 5))]
    table = cuda.Views.of(views, 1.0, torch.device("cpu"))
    together = cuda.MipEvaluation(table)
    packed = cuda.pack(means, cholesky, amplitudes, CUTOFF)
    images = together.forward(packed)
    assert images.shape == (4, 8, 9)
    weights = torch.randn(images.shape, generator=torch.Generator().manual_seed(6))
    found = cuda.unpack_gradient(together.backward(packed, weights), packed)
    gradients = [torch.zeros_like(p) for p in (means, cholesky, amplitudes)]
    for n, image in enumerate(images):
        channel, view = divmod(n, 2)
        rows, width = views[view].shape
        own = cuda.pack(means, cholesky, amplitudes[channel], CUTOFF)
        alone = cuda.MipEvaluation(views[view], 1.0)
        torch.testing.assert_close(image[:rows, :width], alone.forward(own), rtol=1e-5, atol=1e-6)
        assert not image[rows:].any()
        assert not image[:, width:].any()
        moments = alone.backward(own, weights[n, :rows, :width])
        d_means, d_cholesky, d_amplitudes = cuda.unpack_gradient(moments, own)
        gradients[0] += d_means
        gradients[1] += d_cholesky
        gradients[2][channel] += d_amplitudes[0]
    assert_gradients_agree(found, [g.detach() for g in gradients])


def test_tables_of_chosen_views_are_those_of_all() -> None:
    views = [make_rays("orthographic", (6, 9)), make_rays("pinhole", (8, 5))]
    table, which = cuda.Views.of(views, 1.0, torch.device("cpu")), torch.tensor([1, 0, 1])
    found, known = cuda.selected(table, which), table.select(which)
    for name in ("frames", "solves", "sizes", "searches", "near", "far"):
        assert torch.equal(getattr(found, name), getattr(known, name)), name


def test_grids_go_in_one_launch() -> None:
    leaves = few("overlapping").leaves(torch.float32)
    whole = make_grid((4, 6, 10))
    half = replace(whole, origin=whole.origin + 2 * whole.spacing, shape=(3, 5, 7))
    packed = cuda.pack(*leaves, CUTOFF)
    volumes = cuda.GridEvaluation(cuda.Grids.of([whole, half], packed.device)).forward(packed)
    for volume, grid in zip(volumes, (whole, half), strict=True):
        z, y, x = grid.shape
        alone = cuda.GridEvaluation(grid).forward(packed)
        torch.testing.assert_close(volume[:z, :y, :x], alone, rtol=1e-6, atol=1e-6)
        assert not volume[z:].any()
        assert not volume[:, y:].any()
        assert not volume[:, :, x:].any()


def test_a_field_without_gaussians_is_zero(image: Rays) -> None:
    nothing = [torch.zeros(0, 3), torch.zeros(0, 6), torch.zeros(0)]
    leaves = [p.requires_grad_() for p in nothing]
    values = [
        _kernels.evaluate(*leaves, some_points(5), cutoff=CUTOFF),
        _kernels.voxelise(*leaves, make_grid((2, 3, 4)), cutoff=CUTOFF),
        _kernels.mip(*leaves, image, cutoff=CUTOFF, bin_step=1.0),
        _kernels.soft_mip(*leaves, image, cutoff=CUTOFF, temperature=0.1),
        _kernels.line_integral(*leaves, image, cutoff=CUTOFF),
    ]
    for value in values:
        assert not value.detach().any()
        for leaf, gradient in zip(leaves, torch.autograd.grad(value.sum(), leaves), strict=True):
            assert gradient.shape == leaf.shape


@pytest.mark.parametrize("channels", [1, 2])
def test_steps_of_adam_agree_with_the_reference(channels: int) -> None:
    field = few("overlapping")
    count, coordinates = len(field.means), 9 + channels
    generator = torch.Generator().manual_seed(5)
    rates = torch.linspace(0.01, 0.1, coordinates)
    means, cholesky, amplitudes = (p.detach().clone() for p in field.leaves(torch.float64))
    true = means, cholesky, amplitudes * torch.arange(1.0, channels + 1)[:, None]
    found = tuple(p.float() for p in true)
    shapes = ((count, coordinates), (count, coordinates), (count,))
    found_moments = tuple(torch.zeros(shape) for shape in shapes)
    true_moments = tuple(torch.zeros(shape, dtype=torch.float64) for shape in shapes)
    for _ in range(3):
        gradients = tuple(torch.randn(p.shape, generator=generator) for p in found)
        _kernels.adam_step(found, gradients, found_moments, rates)
        reference.adam_step(
            true,
            tuple(g.double() for g in gradients),
            true_moments,
            rates.double(),
            decays=(float(step.FIRST_DECAY), float(step.SECOND_DECAY)),
            longest_step=float(step.LONGEST_LOG_STEP),
        )
    for a, b in zip((*found, *found_moments), (*true, *true_moments), strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-4)


def test_lists_hold_just_the_gaussians_that_reach_each_cell() -> None:
    generator = np.random.default_rng(3)
    low = generator.integers(-3, 12, (1, 300, 3))
    boxes = np.stack([low, low + generator.integers(-1, 5, low.shape)], 3).reshape(1, 300, 6)
    lists = cuda_device.Lists(torch.from_numpy(boxes.astype(np.int32)), (4, 8, 5), (7, 9, 11))
    number = 0
    for z in range(2):
        for y in range(2):
            for x in range(3):
                cell = np.array([z * 4, y * 8, x * 5])
                end = cell + np.array([3, 7, 4])
                met = ((end >= boxes[0, :, ::2]) & (cell <= boxes[0, :, 1::2])).all(1)
                count = int(lists.counts[0, number])
                assert lists.lists[0, number, :count].tolist() == np.flatnonzero(met).tolist()
                number += 1


def test_widening_is_that_of_density() -> None:
    """Also of Gaussians that are narrow in one direction between the axes."""
    spacing = (2.0, 0.5, 1.0)
    fields = [few(kind) for kind in ("tiny", "elongated", "overlapping")]
    cholesky = torch.cat([field.cholesky for field in fields])
    found, true = cholesky.clone(), cholesky.clone()
    cuda.widen(found, torch.tensor(spacing), 0.7)
    widen(true, spacing, 0.7)
    assert not torch.equal(true, cholesky)
    torch.testing.assert_close(found, true, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("slant", [0.0, 0.3], ids=["along the axes", "turned"])
def test_what_is_narrower_than_a_psf_is_widened_as_on_the_cpu(slant: float) -> None:
    floor = torch.tensor([[1.5, 0.0, 0.0], [slant, 0.6, 0.0], [-slant, slant, 0.8]])
    fields = [few(kind) for kind in ("tiny", "elongated", "overlapping")]
    found = torch.cat([field.cholesky for field in fields])
    before, true = found.clone(), found.clone()
    steps = SimpleNamespace(state=SimpleNamespace(cholesky=found), _device=torch.device("cpu"))
    CudaSteps.keep_above(cast("CudaSteps", steps), floor)
    keep_above(true, floor)
    assert not torch.equal(true, before)
    torch.testing.assert_close(found, true, rtol=1e-3, atol=1e-3)


def test_places_that_lack_a_gaussian_are_the_cpus() -> None:
    residual = np.random.default_rng(2).standard_normal((5, 8, 9)).astype(np.float32)
    filters = fit_relocation.filters_on((2.0, 1.0, 1.0), torch.device("cpu"))
    for most in (3, 100):
        found = cuda.sites(torch.from_numpy(residual), filters, most)
        own = relocation.sites(residual, most)
        count = len(own.gains)
        assert count == most or not found.gains[count:].any()
        places = np.stack(np.unravel_index(found.places[:count].numpy(), residual.shape), 1)
        assert np.array_equal(places, own.voxels)
        np.testing.assert_allclose(found.gains[:count], own.gains, rtol=1e-4)
        shapes = np.asarray(relocation.SHAPES)[found.which[found.places[:count].long()]]
        assert np.array_equal(shapes, own.sigmas)


@pytest.mark.parametrize("kind", ["overlapping", "one and its copy"])
def test_what_taking_a_gaussian_away_costs_is_what_it_is_on_the_cpu(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of more than there are neighbours, and of two, of which either makes up for the other."""
    for module in (relocation, cuda_relocation):
        monkeypatch.setattr(module, "NEIGHBOURS", 5)
    field = FIELDS["overlapping"](seed=4) if kind == "overlapping" else few("one")
    parameters = (field.means, field.cholesky, field.amplitudes)
    if kind == "overlapping":
        leaves = [p[:9].contiguous() for p in parameters]
    else:
        leaves = [torch.cat([p, p]) for p in parameters]
    scale = torch.tensor([(2 * math.pi) ** 1.5], dtype=torch.float64)
    costs, neighbours, shares = cuda.removal_costs(*leaves, scale)
    own, own_neighbours, own_shares = relocation.removal_costs(GaussianField(*leaves))
    alone = scale * leaves[2].double() ** 2
    torch.testing.assert_close(costs / alone, own / alone, rtol=1e-5, atol=1e-9)
    for k, (near, own_near) in enumerate(zip(neighbours, own_neighbours, strict=True)):
        order, own_order = near.argsort(), own_near.argsort()
        assert torch.equal(near[order].long(), own_near[own_order])
        torch.testing.assert_close(shares[k][order], own_shares[k][own_order], rtol=1e-4, atol=1e-4)


def spots(channels: int, centres: list[tuple[float, float, float]]) -> tuple[Any, Any]:
    """Spots on a ground, with the noise of photons, and where to begin: a little off."""
    places, sigma = np.array(centres), np.array([1.0, 1.1, 1.2])
    voxels = np.indices((7, 9, 11 if len(centres) == 1 else 18)).astype(float)
    away = (voxels - places[:, :, None, None, None]) / sigma[:, None, None, None]
    light = np.exp(-0.5 * (away**2).sum(1))
    source, stacks, begun = np.random.default_rng(2), [], []
    for c in range(channels):
        heights = (1 + c) * np.array([200.0, 150.0, 120.0])[: len(centres)]
        rate = 20 + np.tensordot(heights, light, 1)
        stacks.append(Stack.from_array(source.poisson(rate).astype(np.float32)))
        cholesky = np.zeros((len(centres), 6))
        cholesky[:, [0, 2, 5]] = np.log(1.1 * sigma)
        begun.append(Gaussians(places + 0.2, cholesky, 0.8 * heights, 15.0, "pixel"))
    return begun, stacks


@pytest.mark.parametrize(
    ("channels", "likelihood", "centres"),
    [
        (1, "poisson", [(3.2, 4.1, 5.3)]),
        (1, "even", [(3.2, 4.1, 5.3)]),
        (2, "squared", [(3.2, 4.1, 5.3)]),
        (1, "poisson", [(3.2, 4.1, 4.3), (2.9, 4.2, 11.8), (3.4, 4.2, 13.9)]),
    ],
    ids=["one", "even", "two channels", "two together and another's light"],
)
def test_gaussians_are_refined_as_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch, channels: int, likelihood: Any, centres: Any
) -> None:
    """Numbers and error bars: of the information, and where no noise is known of the sandwich."""
    begun, stacks = spots(channels, centres)
    noise = None if likelihood == "squared" else Noise(1.0)
    options: Any = {"likelihood": likelihood, "noise": noise}
    own = refine(begun, stacks, **options)
    monkeypatch.setattr(_kernels, "device_named", lambda _: torch.device("cpu"))
    monkeypatch.setattr(_kernels, "backend_name", lambda _: "numba-cuda")
    found = refine(begun, stacks, **options, device="cuda")
    assert found.notes == ("refined on cpu; groups of more than 4 on the CPU",)
    assert (own.steps > 0).all()
    assert np.array_equal(found.steps, own.steps)
    for one, known in zip(found.gaussians, own.gaussians, strict=True):
        np.testing.assert_allclose(one.means, known.means, atol=1e-4)
        np.testing.assert_allclose(one.cholesky, known.cholesky, atol=1e-4)
        np.testing.assert_allclose(one.amplitudes, known.amplitudes, rtol=1e-4)
    np.testing.assert_allclose(found.backgrounds, own.backgrounds, rtol=1e-4)
    spread, known_spread = (
        np.sqrt(np.diagonal(one.covariances, axis1=1, axis2=2)) for one in (found, own)
    )
    np.testing.assert_allclose(spread, known_spread, rtol=1e-4)
    np.testing.assert_allclose(found.reduced_chi2, own.reduced_chi2, rtol=1e-4)


def test_a_batch_is_sent_what_its_blocks_take_and_the_stack_is_sent_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun, stacks = spots(1, [(3.2, 4.1, 4.3), (2.9, 4.2, 11.8), (3.4, 4.2, 16.9)])
    own = refine(begun, stacks, noise=Noise(1.0))
    sent: list[tuple[int, int, int]] = []

    def launched(*given: Any) -> None:
        _, _, _, stack, *_, gaussians, _, _, found = given
        sent.append((id(stack), len(gaussians[0]), len(found[2])))
        device_launch(*given)

    device_launch = cuda_refinement.launch
    monkeypatch.setattr(cuda_refinement, "launch", launched)
    monkeypatch.setattr(cuda_refinement, "BATCH", 1)
    monkeypatch.setattr(
        cpu_refinement, "refine_blocks", cuda_refinement.Refiner(torch.device("cpu"))
    )
    found = refine(begun, stacks, noise=Noise(1.0))
    stack_sent, known, refined = zip(*sent, strict=True)
    assert len(set(stack_sent)) == 1
    assert set(refined) == {1, 2}, "a block's own, of the three that there are"
    assert set(known) == {2, 3}, "and those that reach it"
    np.testing.assert_allclose(found.gaussians[0].means, own.gaussians[0].means, atol=1e-4)
    np.testing.assert_allclose(
        found.gaussians[0].amplitudes, own.gaussians[0].amplitudes, rtol=1e-4
    )


def test_groups_of_many_are_refined_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside others that are not."""
    monkeypatch.setattr(cuda_refinement, "FEW", cuda_refinement.ONE_GAUSSIAN)
    begun, stacks = spots(1, [(3.2, 4.1, 4.3), (2.9, 4.2, 11.8), (3.4, 4.2, 13.9)])
    own = refine(begun, stacks, noise=Noise(1.0))
    monkeypatch.setattr(
        cpu_refinement, "refine_blocks", cuda_refinement.Refiner(torch.device("cpu"))
    )
    found = refine(begun, stacks, noise=Noise(1.0))
    np.testing.assert_allclose(found.gaussians[0].means, own.gaussians[0].means, atol=1e-4)
    assert np.array_equal(found.steps, own.steps)


def test_what_is_constrained_stays_on_the_cpu_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_kernels, "device_named", lambda _: torch.device("cpu"))
    monkeypatch.setattr(_kernels, "backend_name", lambda _: "numba-cuda")
    begun, stacks = spots(1, [(3.2, 4.1, 5.3)])
    options: Any = {"noise": Noise(1.0), "constraints": Constraints(centres="given")}
    found = refine(begun, stacks, **options, device="cuda")
    assert "refined on the CPU: constraints are not kept on a GPU" in found.notes


SHAPE = (6, 12, 14)
SAME_DECIBELS = 0.1
BACKEND_OF = _kernels._backend_of


@contextmanager
def cpu_backend(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Operations on CPU tensors go to the CPU's backend, as they do elsewhere."""
    with monkeypatch.context() as patch:
        patch.setattr(_kernels, "_backend_of", BACKEND_OF)
        yield


def trained(
    monkeypatch: pytest.MonkeyPatch,
    backend: str,
    steps: int,
    *,
    scale: float = 1.0,
    channels: int = 1,
    **settings: Any,
) -> Trainer:
    """A trainer after some steps, whose tensors are the CPU's and whose backend is as told.

    Of two channels the second is darker, on a brighter ground, and lacks a part of the first.
    """
    with cpu_backend(monkeypatch), monkeypatch.context() as patch:
        patch.setattr(_kernels, "backend_name", lambda _: backend)
        few = {
            "gaussians": 4,
            "exactly": True,
            "iterations": 20,
            "views": 4,
            "held_out": 1,
            "device": "cpu",
        }
        stack = beads(count=3, shape=SHAPE).stack
        dz, dy, dx = (scale * step for step in stack.spacing)
        stack = replace(stack, spacing=(dz, dy, dx))
        stacks = [stack, replace(stack, voxels=np.roll(0.5 * stack.voxels + 70, 3, 2))][:channels]
        trainer = Trainer(stacks, FitSettings(**few | settings))
        assert isinstance(trainer.steps, CpuSteps if backend == "numba" else CudaSteps)
        for n in range(steps):
            trainer.step(n / steps)
        return trainer


def test_a_fit_ends_where_the_cpus_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same seed, within a tenth of a decibel."""
    found = []
    for backend in ("numba", "numba-cuda"):
        trainer = trained(monkeypatch, backend, 10)
        stack = trainer.objective.channels[0].working.original
        volume = trainer.field.voxelise(SHAPE, stack.spacing)
        found.append(psnr(stack.voxels, volume.numpy(), stack.value_range))
    before = trained(monkeypatch, "numba", 0).field.voxelise(SHAPE, stack.spacing).numpy()
    gained = found[0] - psnr(stack.voxels, before, stack.value_range)
    assert gained > 2 * SAME_DECIBELS, f"ten steps gained {gained:.2f} dB only"
    apart = abs(found[1] - found[0])
    assert apart < SAME_DECIBELS, f"{found[0]:.2f} dB and {found[1]:.2f} dB"


@pytest.mark.parametrize(
    "settings",
    [
        {"objective": "voxels", "loss": "poisson", "full_covariance": False},
        {"objective": "mip", "ssim_weight": 0.5},
        {"background": 90.0},
    ],
    ids=["voxels", "mip", "both"],
)
def test_steps_of_every_kind_are_the_cpus(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    """And find what they find, on bricks of uneven sizes, several at once.

    The device's stack has voxels of 10^25 micrometers, whose squares float32 does not hold.
    """
    monkeypatch.setattr(objective, "VOXELS_PER_STEP", 500)
    monkeypatch.setattr(objective, "BRICK", (6, 8, 8))
    own = trained(monkeypatch, "numba", 0, **settings)
    found = trained(monkeypatch, "numba-cuda", 0, scale=1e25, **settings)
    assert len(own.objective.bricks) == 4
    # What was found is read in every tenth step.
    own.iteration = found.iteration = training.HISTORY_EVERY - 1
    assert_step_is_the_cpus(found, own, monkeypatch, rel=3e-3)


def assert_step_is_the_cpus(
    found: Trainer, own: Trainer, monkeypatch: pytest.MonkeyPatch, *, rel: float
) -> None:
    """Take a step of both, and hold what it changes and finds together."""
    values = found.step(0.0)
    with cpu_backend(monkeypatch):
        expected = own.step(0.0)
    first = own.steps.state.first
    apart = float((found.steps.state.first - first).norm() / first.norm())
    assert apart < rel, f"gradients, in each Gaussian's own frame, are {apart:.1e} apart"
    state, known_state = found.steps.state, own.steps.state
    torch.testing.assert_close(state.background.double(), known_state.background, rtol=0, atol=1e-5)
    torch.testing.assert_close(state.cutoff.double(), known_state.cutoff, rtol=1e-3, atol=0)
    for value, known in (
        (values.loss, expected.loss),
        (10 ** (-values.train_psnr / 20), 10 ** (-expected.train_psnr / 20)),
        (10 ** (-values.voxel_psnr / 20), 10 ** (-expected.voxel_psnr / 20)),
        *zip(values.gradient_norms, expected.gradient_norms, strict=True),
    ):
        assert value == pytest.approx(known, rel=rel, nan_ok=True), (values, expected)


@pytest.mark.parametrize(
    "settings",
    [
        {"objective": "voxels", "loss": "poisson", "full_covariance": False},
        {"objective": "mip", "ssim_weight": 0.5},
        {},
    ],
    ids=["voxels", "mip", "both"],
)
def test_steps_of_two_channels_are_the_cpus(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    """And what a second step finds, whose climb begins where the first one ended.

    A brick a step: after each the background follows on the CPU, on a device after all of a step.
    And all of every Gaussian: where one is cut off, devices take other voxels beyond.
    """
    monkeypatch.setattr(objective, "VOXELS_PER_STEP", 250)
    monkeypatch.setattr(objective, "BRICK", (6, 8, 8))
    settings = {"views": 2, "channels": 2} | settings
    own, found = (trained(monkeypatch, name, 0, **settings) for name in ("numba", "numba-cuda"))
    assert found.steps.state.amplitudes.shape == (2, 4)
    for n in (training.HISTORY_EVERY - 1, 2 * training.HISTORY_EVERY - 1):
        for trainer in (own, found):
            trainer.iteration = n
            trainer.steps.state.cutoff.fill_(1e-8)
        assert_step_is_the_cpus(found, own, monkeypatch, rel=1e-4)


def test_two_channels_on_a_grid_are_the_references() -> None:
    field, grid = few("overlapping"), make_grid((4, 6, 9))
    means, cholesky, amplitudes = field.leaves(torch.float32)
    light = torch.stack([amplitudes, amplitudes.flip(0)]).detach()
    packed = cuda.pack(means, cholesky, light, CUTOFF)
    evaluation = cuda.GridEvaluation(grid)
    volumes = evaluation.forward(packed)
    weights = torch.randn(volumes.shape, generator=torch.Generator().manual_seed(7))
    found = cuda.unpack_gradient(evaluation.backward(packed, weights), packed)
    leaves = [p.detach().double().requires_grad_() for p in (means, cholesky, light)]
    true = torch.stack([reference.voxelise(*leaves[:2], one, grid) for one in leaves[2]])
    torch.testing.assert_close(volumes.double(), true.detach(), rtol=1e-4, atol=1e-5)
    assert_gradients_agree(found, torch.autograd.grad((true * weights.double()).sum(), leaves))


@pytest.mark.parametrize("name", LOSSES)
def test_losses_of_two_channels_are_those_of_torch_in_float64(name: str) -> None:
    """Of two bricks of two sizes each, on grounds of their own."""
    source = torch.Generator().manual_seed(8)
    voxels, prediction = (torch.rand(2, *n, generator=source) for n in ((3, 4, 5), (2, 3, 4, 5)))
    shapes = torch.tensor([[3, 4, 5], [2, 3, 4]], dtype=torch.int32)
    counts, one = shapes.prod(1).float(), torch.ones(2)
    background, cutoff, zero = torch.tensor([0.1, 0.3]), torch.zeros(2), (0.05, 0.4)
    losses = cuda.Losses(
        darkest=DARKEST_RATE if name == "poisson" else 0.0,
        zero=zero if name == "poisson" else (0.0, 0.0),
        rules=(0.01, 0.02, 1e-5, 1e-3),
        background=background,
        cutoff=cutoff,
    )
    bricks = cuda.BrickTables(voxels, torch.zeros_like(shapes), shapes, counts, one)
    leaf = prediction.double().requires_grad_()
    parts = [tuple(slice(int(end)) for end in shape) for shape in shapes]
    true = []
    for c in range(2):
        ground = background[c].double() + (zero[c] if name == "poisson" else 0.0)
        known = voxels[c].double() + (zero[c] if name == "poisson" else 0.0)
        each = [LOSSES[name](leaf[c, n][p] + ground, known[p]) for n, p in enumerate(parts)]
        true.append(torch.stack(each).mean())
    (right,) = torch.autograd.grad(true[0] + true[1], leaf)
    found = losses.of_bricks(bricks, torch.arange(2), prediction.flatten(0, 1))
    torch.testing.assert_close(found.double(), right.flatten(0, 1), rtol=1e-4, atol=1e-7)
    total = torch.stack(true).detach()
    torch.testing.assert_close(losses.found[:, 0].double(), total, rtol=1e-4, atol=0)
    assert float(cutoff.min()) > 0
    assert not torch.equal(background, torch.tensor([0.1, 0.3]))


@pytest.mark.parametrize("channels", [1, 2])
def test_relocation_moves_whom_the_cpu_moves_to_the_same_places(
    monkeypatch: pytest.MonkeyPatch, channels: int
) -> None:
    """Of a slab of the stack that begins anywhere, and sparing the first Gaussians."""
    monkeypatch.setattr(training, "RELOCATION_VOXELS", 4 * math.prod(SHAPE[1:]))
    monkeypatch.setattr(training, "RELOCATED_FRACTION", 0.5)
    for module in (relocation, cuda_relocation):
        monkeypatch.setattr(module, "NEIGHBOURS", 5)
    settings, kept = {"gaussians": 14, "objective": "voxels", "channels": channels}, 4
    own, found = (trained(monkeypatch, name, 0, **settings) for name in ("numba", "numba-cuda"))
    state = {name: tensor.clone() for name, tensor in own.state().items()}
    source = torch.Generator().manual_seed(3)
    state["amplitudes"] *= torch.rand(14, generator=source) ** 4
    state["first"], state["age"] = torch.ones(14, 9 + channels), torch.ones(14)
    for trainer in (own, found):
        trainer.restore(state)
        trainer.kept = kept
    found.steps.relocate(found._draw_slab(), kept)
    with cpu_backend(monkeypatch):
        own.steps.relocate(own._draw_slab(), kept)
    moved = own.steps.state.age == 0
    assert 0 < int(moved.sum()) < 14 - kept, f"{int(moved.sum())} of {14 - kept} moved"
    assert not moved[:kept].any()
    assert torch.equal(moved, found.steps.state.age == 0)
    for name in training.STATE_TENSORS:
        one, other = (getattr(trainer.steps.state, name) for trainer in (own, found))
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("channels", [1, 2])
def test_held_out_views_are_as_good_as_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch, channels: int
) -> None:
    """Each in its turn, and all of them together, of one field."""
    settings = {"views": 6, "held_out": 3, "channels": channels}
    own, found = (trained(monkeypatch, name, 0, **settings) for name in ("numba", "numba-cuda"))
    for n in (0, 10):
        own.iteration = found.iteration = n
        with cpu_backend(monkeypatch):
            expected = own.held_out_psnr()
        assert found.held_out_psnr() == pytest.approx(expected, abs=0.01)
    known = own.objective.state()["held_out_psnr"]
    assert known[0] != pytest.approx(known[1], abs=0.1), "the views tell apart nothing"


def test_a_captured_fit_goes_on_from_its_state(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = trained(monkeypatch, "numba-cuda", 2)
    first = trained(monkeypatch, "numba-cuda", 1)
    # `trained` spreads progress over its steps; here only what is restored is compared.
    again = trained(monkeypatch, "numba-cuda", 0)
    again.restore(first.state())
    assert again.iteration == 1 < whole.iteration
    for name in ("first", "second", "age", "amplitudes", "background", "cutoff"):
        known, restored = (getattr(trainer.steps.state, name) for trainer in (first, again))
        torch.testing.assert_close(restored, known, rtol=1e-6, atol=0, msg=name)
