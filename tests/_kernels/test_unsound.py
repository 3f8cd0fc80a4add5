"""A Gaussian that is not finite is nowhere: every kernel gives what it gives without it."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
import torch
from hostile_gaussians import FAR, UNSOUND, spoilt, with_far_ones
from scenes import CUTOFF, FIELDS, SIZE, Field, Operation, make_grid, make_rays

from napari_gaussfit import _kernels
from napari_gaussfit._kernels.cpu import backend
from napari_gaussfit._kernels.cpu.spline import SplineVolume
from napari_gaussfit._kernels.shared.gaussian import FACTOR, RADIUS2
from napari_gaussfit.errors import StackError

POINTS = torch.rand(300, 3, generator=torch.Generator().manual_seed(3)) * torch.tensor(SIZE)
GRID = make_grid((6, 20, 40))
FLAT, DEEP = make_rays("orthographic", (20, 30)), make_rays("pinhole", (20, 30))

OPERATIONS: dict[str, Operation] = {
    "points": lambda *p: _kernels.evaluate(*p, POINTS, cutoff=CUTOFF),
    "grid": lambda *p: _kernels.voxelise(*p, GRID, cutoff=CUTOFF),
    "mip": lambda *p: _kernels.mip(*p, FLAT, cutoff=CUTOFF, bin_step=1.0),
    "mip of a pinhole": lambda *p: _kernels.mip(*p, DEEP, cutoff=CUTOFF, bin_step=1.0),
    "soft mip": lambda *p: _kernels.soft_mip(*p, FLAT, cutoff=CUTOFF, temperature=0.1),
    "line integral": lambda *p: _kernels.line_integral(*p, DEEP, cutoff=CUTOFF),
}


@pytest.fixture
def field() -> Field:
    return FIELDS["overlapping"](seed=5)


def value_and_gradients(field: Field, operation: Operation) -> list[torch.Tensor]:
    leaves = field.leaves(torch.float32)
    value = operation(*leaves)
    weights = torch.randn(value.shape, generator=torch.Generator().manual_seed(1))
    return [value.detach(), *torch.autograd.grad((value * weights).sum(), leaves)]


def assert_as_without(field: Field, grown: Field, name: str) -> None:
    """Hold a field with a Gaussian more at each end against that without them."""
    value, *gradients = value_and_gradients(grown, OPERATIONS[name])
    expected, *true = value_and_gradients(field, OPERATIONS[name])
    if name == "soft mip":  # where each Gaussian that is not seen counts as a peak of 0
        assert torch.isfinite(value).all()
    else:
        torch.testing.assert_close(value, expected, rtol=0, atol=0)
    for found, own in zip(gradients, true, strict=True):
        assert not found[[0, -1]].any(), "what is nowhere has no gradient"
        if name != "soft mip":
            torch.testing.assert_close(found[1:-1], own, rtol=0, atol=0)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("what", UNSOUND)
def test_a_gaussian_that_is_not_finite_is_nowhere(field: Field, what: str, operation: str) -> None:
    assert_as_without(field, spoilt(field, what), operation)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("where", FAR)
def test_a_gaussian_far_away_adds_nothing(field: Field, where: str, operation: str) -> None:
    assert_as_without(field, with_far_ones(field, where), operation)


def test_gaussians_far_away_cost_nothing() -> None:
    """A thousand of them beside a million voxels and as many pixels: less than a second's work."""
    field = with_far_ones(FIELDS["one"](seed=1), "2 of 1e+16")
    many = [p[[0] * 1000].detach() for p in field.leaves(torch.float32)]
    many[0][:500, 2] = 1e5
    for side in (2, 100):  # with the kernels compiled at the second time
        grid, rays = make_grid((side, side, side)), make_rays("orthographic", (side**2, side))
        began = time.process_time()
        assert not _kernels.voxelise(*many, grid, cutoff=CUTOFF).any()
        assert not _kernels.mip(*many, rays, cutoff=CUTOFF, bin_step=1.0).any()
    assert time.process_time() - began < 1.0


def test_what_is_nowhere_is_packed_in_finite_numbers(field: Field) -> None:
    packed = backend.pack(*spoilt(field, "a width that is NaN").leaves(torch.float32), CUTOFF)
    assert np.isfinite(packed).all()
    assert (packed[[0, -1], RADIUS2] < 0).all()
    assert (packed[1:-1, RADIUS2] > 0).all()
    assert (packed[:, [FACTOR, FACTOR + 2, FACTOR + 5]] > 0).all()


@pytest.mark.parametrize("width", [1e3, 1e5, 1e8])
def test_a_gaussian_far_wider_than_the_box_is_its_amplitude_there(width: float) -> None:
    means, amplitudes = torch.tensor([[10.0, 10.0, 10.0]]), torch.tensor([2.5])
    cholesky = torch.zeros(1, 6)
    cholesky[:, [0, 2, 5]] = math.log(width)
    for name in ("points", "grid", "mip", "mip of a pinhole"):
        value = OPERATIONS[name](means, cholesky, amplitudes)
        seen = value[value > 0]
        assert len(seen) > 0.2 * value.numel(), name
        torch.testing.assert_close(seen, torch.full_like(seen, 2.5), rtol=1e-3, atol=0.0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -3.4e38, 3.4e38])
def test_a_stack_that_is_not_finite_has_no_spline(value: float) -> None:
    voxels = np.random.default_rng(1).random((4, 5, 6)).astype(np.float32)
    voxels[1, 2, 3] = value
    with pytest.raises(StackError, match="finite"):
        SplineVolume(voxels, np.ones(3, np.float32))
