"""Derivatives of fields are those of the formulas in float64, or an error says why not."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from napari_gaussfit._kernels import dense, reference
from napari_gaussfit.errors import SettingsError
from napari_gaussfit.model.camera import look_at, orbit_view
from napari_gaussfit.model.field import GaussianField
from napari_gaussfit.model.projection import render, search_step

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

BOX = (np.array([-0.5, -0.5, -0.5]), np.array([6.5, 5.5, 7.5]))
SHAPE, SPACING = (4, 5, 6), (1.6, 1.1, 1.2)
POINTS = torch.tensor([[1.0, 2.0, 3.0], [2.5, 2.0, 2.0], [4.0, 3.5, 5.0]])
CAMERAS = {
    "orthographic": orbit_view(BOX, 30.0, 20.0, 1.5),
    "pinhole": look_at((-15.0, 5.0, 1.0), (3, 2, 3), shape=(5, 6), field_of_view=40.0),
}


@pytest.fixture
def field() -> GaussianField:
    """Five overlapping Gaussians of every orientation."""
    rng = np.random.default_rng(3)
    factors = rng.normal(size=(5, 3, 3)) * 0.5
    sigma = factors @ factors.transpose(0, 2, 1) + 0.6 * np.eye(3)
    means = rng.uniform(BOX[0] + 0.5, BOX[1] - 0.5, (5, 3))
    return GaussianField.from_covariances(means, sigma, rng.uniform(2, 10, 5), background=3.0)


def mip_of(field: GaussianField, camera: str) -> Tensor:
    return render(field, CAMERAS[camera], BOX)


LOSSES = {
    "evaluate": lambda field: field.evaluate(POINTS, tolerance=1e-12).square().sum(),
    "voxelise": lambda field: field.voxelise(SHAPE, SPACING, tolerance=1e-12).square().sum(),
    "mip, orthographic": lambda field: mip_of(field, "orthographic").square().sum(),
    "mip, pinhole": lambda field: mip_of(field, "pinhole").square().sum(),
    "sum": lambda field: render(field, CAMERAS["orthographic"], BOX, mode="sum").square().sum(),
    "soft-mip": lambda field: (
        render(field, CAMERAS["orthographic"], BOX, mode="soft-mip", temperature=1.0).square().sum()
    ),
}


def of(numbers: Tensor) -> GaussianField:
    """Return the field of all its numbers in a row."""
    count = len(numbers) // 10
    means, cholesky, amplitudes = numbers.split((3 * count, 6 * count, count))
    return GaussianField(means.reshape(-1, 3), cholesky.reshape(-1, 6), amplitudes, 3.0)


def numbers_of(field: GaussianField) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in field.tensors])


def hessian_by_differences(loss: Callable[[GaussianField], Tensor], numbers: Tensor) -> Tensor:
    """Return the Hessian in float64, by differences of first derivatives."""
    columns = []
    for n in range(len(numbers)):
        slopes = []
        for step in (1e-5, -1e-5):
            moved = numbers.clone()
            moved[n] += step
            moved.requires_grad_()
            slopes.append(torch.autograd.grad(loss(of(moved)), moved)[0])
        columns.append((slopes[0] - slopes[1]) / 2e-5)
    return torch.stack(columns)


def test_second_derivatives_of_one_gaussian_are_those_of_the_formula() -> None:
    """-P a at the centre, where P is the inverse of the covariance: once zeros, without a word."""
    covariance = np.diag([1 / 25, 1 / 41, 1 / 78])
    field = GaussianField.from_covariances([[0.0, 0.0, 0.0]], [covariance], [1.0])
    means = field.means.clone().requires_grad_()
    moved = GaussianField(means, field.cholesky, field.amplitudes)
    (slope,) = torch.autograd.grad(moved.evaluate([0.0, 0.0, 0.0]), means, create_graph=True)
    rows = [torch.autograd.grad(slope[0, n], means, retain_graph=True)[0][0] for n in range(3)]
    torch.testing.assert_close(
        torch.stack(rows), torch.diag(torch.tensor([-25.0, -41.0, -78.0])), rtol=1e-4, atol=1e-3
    )


@pytest.mark.parametrize("name", LOSSES)
def test_second_derivatives_are_those_of_float64(field: GaussianField, name: str) -> None:
    loss, numbers = LOSSES[name], numbers_of(field)
    true = hessian_by_differences(loss, numbers.double())
    found = torch.autograd.functional.hessian(lambda row: loss(of(row)), numbers)
    off = float((found.double() - true).abs().max() / true.abs().max())
    assert off < 1e-4, f"{name} is off by {off:.2g} of the largest"


@pytest.mark.parametrize("camera", CAMERAS)
def test_mip_in_float64_is_that_of_a_dense_march(field: GaussianField, camera: str) -> None:
    exact = field.to(torch.float64)
    rays = CAMERAS[camera].rays(BOX)
    true = reference.mip(*exact.tensors, rays) + 3.0
    found = render(exact, CAMERAS[camera], BOX)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, true, rtol=1e-8, atol=0)


def test_field_in_float64_is_computed_in_float64(field: GaussianField) -> None:
    exact = field.to(torch.float64)
    true = reference.evaluate(*exact.tensors, POINTS.double()) + 3.0
    found = exact.evaluate(POINTS)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, true, rtol=1e-14, atol=0)
    voxels = exact.voxelise(SHAPE, SPACING)
    centre = exact.evaluate([2 * 1.6, 3 * 1.1, 4 * 1.2])
    torch.testing.assert_close(voxels[2, 3, 4], centre, rtol=1e-14, atol=0)


def test_parts_of_a_large_float64_evaluation_are_its_whole(
    field: GaussianField, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = field.to(torch.float64)
    whole = exact.voxelise(SHAPE, SPACING)
    monkeypatch.setattr(dense, "PAIRS_AT_ONCE", 35)
    torch.testing.assert_close(exact.voxelise(SHAPE, SPACING), whole, rtol=1e-15, atol=0)


def test_tensors_of_two_types_are_refused(field: GaussianField) -> None:
    mixed = GaussianField(field.means.double(), field.cholesky, field.amplitudes)
    with pytest.raises(SettingsError, match="are float64, float32, float32; expected all float32"):
        mixed.evaluate(POINTS)
    with pytest.raises(SettingsError, match="expected all float32 or all float64"):
        field.to(torch.float16).voxelise(SHAPE, SPACING)


def test_gradient_by_points_is_the_slope_there(field: GaussianField) -> None:
    points = POINTS.clone().requires_grad_()
    (found,) = torch.autograd.grad(field.evaluate(points).sum(), points)
    exact, step = field.to(torch.float64), 1e-5
    for axis in range(3):
        shift = step * torch.eye(3, dtype=torch.float64)[axis]
        rise = exact.evaluate(POINTS + shift) - exact.evaluate(POINTS - shift)
        torch.testing.assert_close(found[:, axis].double(), rise / (2 * step), rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # its jvp
def test_torch_func_gives_gradients_and_hessians(field: GaussianField) -> None:
    numbers = numbers_of(field)
    for name in ("evaluate", "voxelise", "sum", "soft-mip"):
        loss = LOSSES[name]
        learnt = numbers.clone().requires_grad_()
        (plain,) = torch.autograd.grad(loss(of(learnt)), learnt)
        of_row = lambda row, loss=loss: loss(of(row))  # noqa: E731
        torch.testing.assert_close(torch.func.grad(of_row)(numbers), plain, rtol=1e-4, atol=1e-3)
        direction = torch.ones_like(numbers)
        _, along = torch.func.jvp(of_row, (numbers,), (direction,))
        torch.testing.assert_close(along, plain.sum(), rtol=1e-4, atol=1e-3)
    by_func = torch.func.hessian(lambda row: LOSSES["evaluate"](of(row)))(numbers)
    by_autograd = torch.autograd.functional.hessian(
        lambda row: LOSSES["evaluate"](of(row)), numbers
    )
    torch.testing.assert_close(by_func, by_autograd, rtol=1e-4, atol=1e-3)


def test_vmap_over_points_and_over_fields(field: GaussianField) -> None:
    by_point = torch.func.vmap(field.evaluate)(POINTS)
    torch.testing.assert_close(by_point, field.evaluate(POINTS), rtol=1e-4, atol=1e-5)
    several = torch.stack([numbers_of(field), numbers_of(field) * 1.01])
    by_field = torch.func.vmap(lambda row: of(row).evaluate(POINTS))(several)
    for row, values in zip(several, by_field, strict=True):
        torch.testing.assert_close(values, of(row).evaluate(POINTS), rtol=1e-4, atol=1e-5)


def test_mip_says_that_it_has_no_transform(field: GaussianField) -> None:
    with pytest.raises(SettingsError, match=r"the MIP has none of torch\.func's transforms"):
        torch.func.grad(lambda row: mip_of(of(row), "pinhole").sum())(numbers_of(field))
    soft = partial(render, camera=CAMERAS["pinhole"], box=BOX, mode="soft-mip")
    with pytest.raises(SettingsError, match="temperature=None: under a transform"):
        torch.func.grad(lambda row: soft(of(row)).sum())(numbers_of(field))


def test_second_derivatives_without_room_are_refused(
    field: GaussianField, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dense, "FLOATS_A_PAIR", 1e12)
    learnt = numbers_of(field).requires_grad_()
    with pytest.raises(SettingsError, match=r"15 pairs take about .* GB of memory"):
        torch.autograd.grad(LOSSES["evaluate"](of(learnt)), learnt, create_graph=True)


def test_search_for_maxima_looks_as_finely_in_either_type(field: GaussianField) -> None:
    camera = CAMERAS["pinhole"]
    exact = search_step(field.to(torch.float64), camera, BOX)
    assert search_step(field, camera, BOX) == pytest.approx(exact, rel=1e-5)
