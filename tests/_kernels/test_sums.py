"""f at points and on grids is the sum of the Gaussians, and so is its gradient."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scenes import CUTOFF, Field, assert_agrees

from napari_gaussfit import _kernels
from napari_gaussfit._kernels import Grid, reference


def test_f_at_points_agrees_with_the_reference(field: Field) -> None:
    count = 100 if field.many else 2500
    generator = torch.Generator().manual_seed(3)
    points = torch.rand(count, 3, generator=generator) * torch.tensor([24.0, 20.0, 28.0])
    assert_agrees(
        field,
        lambda *p: _kernels.evaluate(*p, points, cutoff=CUTOFF),
        lambda *p: reference.evaluate(*p, points.double()),
    )


def test_f_on_a_grid_agrees_with_the_reference(field: Field, grid: Grid) -> None:
    assert_agrees(
        field,
        lambda *p: _kernels.voxelise(*p, grid, cutoff=CUTOFF),
        lambda *p: reference.voxelise(*p, grid),
    )


@pytest.mark.parametrize("count", [0, 1, 127, 128, 129])
def test_any_number_of_points_will_do(overlapping: Field, count: int) -> None:
    points = torch.rand(count, 3) * 20
    found = _kernels.evaluate(*overlapping.leaves(torch.float32), points, cutoff=CUTOFF)
    true = reference.evaluate(*overlapping.leaves(torch.float64), points.double())
    torch.testing.assert_close(found.double(), true, rtol=1e-5, atol=1e-5)


def test_negative_amplitudes_are_added_like_others(overlapping: Field, fine_grid: Grid) -> None:
    overlapping.amplitudes[::2] *= -1
    assert_agrees(
        overlapping,
        lambda *p: _kernels.voxelise(*p, fine_grid, cutoff=CUTOFF),
        lambda *p: reference.voxelise(*p, fine_grid),
    )


def test_what_a_gaussian_adds_below_the_cutoff_is_all_that_is_left_out(overlapping: Field) -> None:
    points = torch.rand(2000, 3) * torch.tensor([24.0, 20.0, 28.0])
    leaves = overlapping.leaves(torch.float32)
    whole = _kernels.evaluate(*leaves, points, cutoff=1e-9)
    cut = _kernels.evaluate(*leaves, points, cutoff=1e-2)
    assert float((whole - cut).detach().abs().max()) <= 1e-2 * len(overlapping.means)


def test_rounding_does_not_add_up_over_a_gaussian_of_two_thousand_rows() -> None:
    """Down a column of voxels u follows from row to row."""
    tall = Field(
        "tall",
        torch.tensor([[1.3, 962.6, 12.1]]),
        torch.tensor([[1.1, 68.0, 5.43, 0.2, 4.5, 1.8]]),
        torch.ones(1),
    )
    grid = Grid(np.zeros(3, np.float32), np.ones(3, np.float32), (3, 2048, 24))
    found = _kernels.voxelise(*tall.leaves(torch.float32), grid, cutoff=CUTOFF)
    true = reference.voxelise(*tall.leaves(torch.float64), grid)
    assert float((found - true).detach().abs().max()) < 2e-6


@pytest.mark.parametrize("first", [0, 18, 500])
def test_a_brick_that_few_gaussians_touch_is_a_part_of_the_whole(
    overlapping: Field, first: int
) -> None:
    spacing = np.ones(3, np.float32)
    whole = Grid(np.zeros(3, np.float32), spacing, (24, 20, 28))
    brick = Grid(np.array([first, 0, 0], np.float32), spacing, (4, 6, 5))
    weights = torch.linspace(-1, 1, 120).reshape(brick.shape)
    leaves, others = overlapping.leaves(torch.float32), overlapping.leaves(torch.float32)
    found = _kernels.voxelise(*leaves, brick, cutoff=CUTOFF)
    gradients = torch.autograd.grad(found, leaves, weights)
    everywhere = _kernels.voxelise(*others, whole, cutoff=CUTOFF)
    expected = torch.zeros(brick.shape)
    if first < 24:
        expected = everywhere[first : first + 4, :6, :5]
        for one, other in zip(
            gradients, torch.autograd.grad(expected, others, weights), strict=True
        ):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    else:
        assert all(not gradient.any() for gradient in gradients)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
