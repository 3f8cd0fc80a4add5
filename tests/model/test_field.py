"""A field is its formula: values, covariances, principal axes, integrals."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from napari_gaussfit.errors import SettingsError
from napari_gaussfit.model.camera import axis_view
from napari_gaussfit.model.field import GaussianField
from napari_gaussfit.model.projection import render

COUNT, BACKGROUND = 12, 40.0


def covariances(count: int) -> np.ndarray:
    factors = np.random.default_rng(0).normal(size=(count, 3, 3))
    return factors @ factors.transpose(0, 2, 1) + 0.3 * np.eye(3)


@pytest.fixture
def field() -> GaussianField:
    rng = np.random.default_rng(1)
    return GaussianField.from_covariances(
        rng.uniform(0, 8, (COUNT, 3)),
        covariances(COUNT),
        rng.uniform(10, 200, COUNT),
        background=BACKGROUND,
        unit="pixel",
    )


def formula(field: GaussianField, points: np.ndarray) -> np.ndarray:
    """Evaluate f [B] at points [B, 3] in float64, as it stands in the documentation."""
    offsets = points[:, None] - field.means.double().numpy()
    precisions = np.linalg.inv(field.covariances.double().numpy())
    squares = np.einsum("bki,kij,bkj->bk", offsets, precisions, offsets)
    return field.background + np.exp(-squares / 2) @ field.amplitudes.double().numpy()


@pytest.mark.notebook("field", api="GaussianField.covariances")
def test_covariances_come_back(field: GaussianField) -> None:
    np.testing.assert_allclose(field.covariances, covariances(COUNT), rtol=1e-4, atol=1e-5)
    assert len(field) == COUNT
    assert field.unit == "pixel"


@pytest.mark.notebook("field", api="GaussianField.factors")
def test_factors_have_their_scales_in_entries_0_2_and_5() -> None:
    parameters = torch.tensor([[np.log(2.0), 0.1, np.log(3.0), 0.2, 0.3, np.log(4.0)]]).float()
    one = GaussianField(torch.zeros(1, 3), parameters, torch.ones(1))
    expected = [[2.0, 0.0, 0.0], [0.1, 3.0, 0.0], [0.2, 0.3, 4.0]]
    np.testing.assert_allclose(one.factors[0], expected, rtol=1e-6)


@pytest.mark.notebook("field", api="GaussianField.evaluate")
def test_values_are_those_of_the_formula(field: GaussianField) -> None:
    points = np.random.default_rng(2).uniform(-2, 10, (300, 3)).astype(np.float32)
    found = field.evaluate(torch.from_numpy(points)).numpy()
    off = np.abs(found - formula(field, points)).max() / 200
    assert off < 1e-5, f"off by {off:.1e} of the largest amplitude"


@pytest.mark.notebook("evaluate", api="GaussianField.evaluate")
def test_one_point_has_the_value_that_it_has_among_many(field: GaussianField) -> None:
    points = torch.from_numpy(np.random.default_rng(2).uniform(0, 8, (20, 3)).astype(np.float32))
    many = field.evaluate(points)
    for point, value in zip(points, many, strict=True):
        one = field.evaluate(point)
        assert one.shape == ()
        assert float(one) == pytest.approx(float(value), rel=1e-6)
    with pytest.raises(SettingsError, match=r"points has shape \(2, 2, 3\), expected"):
        field.evaluate(torch.zeros(2, 2, 3))


@pytest.mark.notebook("evaluate", api="GaussianField.from_gaussians")
def test_a_list_of_gaussians_is_their_sum() -> None:
    rng = np.random.default_rng(3)
    gaussians = [
        (rng.uniform(0, 8, 3), sigma, float(a))
        for sigma, a in zip(covariances(5), range(1, 6), strict=True)
    ]
    summed = GaussianField.from_gaussians(gaussians, background=7.0, unit="pixel")
    points = rng.uniform(-1, 9, (40, 3))
    expected = np.full(40, 7.0)
    for mean, sigma, amplitude in gaussians:
        for n, point in enumerate(points):
            offset = point - mean
            expected[n] += amplitude * np.exp(-offset @ np.linalg.solve(sigma, offset) / 2)
    found = summed.evaluate(torch.from_numpy(points.astype(np.float32)))
    np.testing.assert_allclose(found, expected, atol=5e-5)
    assert summed.unit == "pixel"
    assert len(GaussianField.from_gaussians([])) == 0


@pytest.mark.notebook("field", api="GaussianField")
def test_without_full_covariance_axes_are_those_of_the_stack(field: GaussianField) -> None:
    diagonal = GaussianField.from_covariances(
        field.means, field.covariances, field.amplitudes, full_covariance=False
    )
    for found, full in zip(diagonal.covariances, field.covariances, strict=True):
        np.testing.assert_allclose(found, torch.diag(full.diagonal()), rtol=1e-5, atol=1e-6)
    assert not diagonal.select(torch.arange(3)).full_covariance

    leaf = field.cholesky.clone().requires_grad_()
    masked = GaussianField(field.means, leaf, field.amplitudes, full_covariance=False)
    assert not masked.cholesky[:, [1, 3, 4]].any()
    masked.evaluate(field.means).sum().backward()
    assert leaf.grad is not None
    assert leaf.grad[:, [0, 2, 5]].any()
    assert not leaf.grad[:, [1, 3, 4]].any()


def test_voxels_are_values_at_their_centres(field: GaussianField) -> None:
    shape, spacing, origin = (4, 5, 6), (2.0, 1.5, 1.0), (0.5, -1.0, 2.0)
    points = np.stack(np.indices(shape), -1).reshape(-1, 3) * spacing + origin
    found = field.voxelise(shape, spacing, origin=origin).numpy()
    assert found.shape == shape
    off = np.abs(found.ravel() - formula(field, points)).max() / 200
    assert off < 1e-5, f"off by {off:.1e} of the largest amplitude"


def test_what_may_be_left_out_is_bounded_by_the_tolerance(field: GaussianField) -> None:
    rough, exact = (field.voxelise((12, 12, 12), (1, 1, 1), tolerance=t) for t in (1e-2, 1e-7))
    missing = float((rough - exact).abs().max() / field.amplitudes.max())
    assert 0 < missing < COUNT * 1e-2, f"{missing:.1e} of the largest amplitude is missing"


def test_values_are_differentiable_by_every_tensor(field: GaussianField) -> None:
    tensors = (field.means, field.cholesky, field.amplitudes)
    leaves = [t.clone().requires_grad_() for t in tensors]
    found = GaussianField(*leaves).evaluate(torch.full((1, 3), 4.0))
    found.sum().backward()
    for leaf in leaves:
        assert leaf.grad is not None
        assert leaf.grad.any()


def test_principal_axes_are_orthonormal_and_rebuild_the_covariance(field: GaussianField) -> None:
    sigmas, axes = field.principal()
    assert (sigmas.diff(dim=1) <= 0).all(), "descending"
    identity = axes @ axes.transpose(1, 2)
    np.testing.assert_allclose(identity, np.broadcast_to(np.eye(3), (COUNT, 3, 3)), atol=1e-5)
    rebuilt = axes.transpose(1, 2) @ torch.diag_embed(sigmas**2) @ axes
    np.testing.assert_allclose(rebuilt, field.covariances, rtol=1e-3, atol=1e-4)


def test_half_the_amplitude_is_left_half_a_width_away(field: GaussianField) -> None:
    one = field.select(torch.tensor([3]))
    _, axes = one.principal()
    for n in range(3):
        place = one.means + axes[:, n] * one.fwhm()[:, n, None] / 2
        above = float(one.evaluate(place) - BACKGROUND)
        assert above == pytest.approx(float(one.amplitudes) / 2, rel=1e-4)


def test_integrated_intensity_is_the_integral() -> None:
    one = GaussianField.from_covariances([[0, 0, 0]], covariances(1), [50.0])
    n, step = 120, 0.2
    values = one.voxelise((n, n, n), (step,) * 3, origin=(-step * (n - 1) / 2,) * 3)
    integral = float(values.double().sum()) * step**3
    assert float(one.integrated_intensities()) == pytest.approx(integral, rel=1e-3)


def test_gaussians_are_selected_by_mask_or_index(field: GaussianField) -> None:
    bright = field.amplitudes > field.amplitudes.median()
    chosen = field.select(bright)
    assert len(chosen) == int(bright.sum())
    assert torch.equal(chosen.amplitudes, field.amplitudes[bright])
    assert torch.equal(field.select(bright.nonzero()[:, 0]).cholesky, chosen.cholesky)
    assert (chosen.background, chosen.unit) == (field.background, field.unit)
    assert len(field.select(torch.zeros(COUNT, dtype=torch.bool))) == 0


def test_a_detached_copy_shares_nothing(field: GaussianField) -> None:
    leaf = GaussianField(field.means.requires_grad_(), field.cholesky, field.amplitudes)
    copy = leaf.detached()
    assert not copy.means.requires_grad
    copy.amplitudes.zero_()
    assert (field.amplitudes > 0).all()


def test_an_empty_field_is_its_background_everywhere() -> None:
    empty = GaussianField.from_covariances([], [], [], background=BACKGROUND)
    assert (empty.evaluate(torch.rand(5, 3)) == BACKGROUND).all()
    assert (empty.voxelise((2, 3, 4), (1, 1, 1)) == BACKGROUND).all()


@pytest.mark.parametrize(
    ("name", "shape"), [("means", (4, 2)), ("cholesky", (3, 6)), ("amplitudes", (4, 1))]
)
def test_shapes_that_do_not_belong_together_are_refused(name: str, shape: tuple[int, ...]) -> None:
    tensors = {"means": (4, 3), "cholesky": (4, 6), "amplitudes": (4,)} | {name: shape}
    with pytest.raises(SettingsError, match=rf"^{name} has shape .*, expected \(4,"):
        GaussianField(**{key: torch.zeros(size) for key, size in tensors.items()})


def test_a_covariance_that_is_none_is_refused_by_its_index() -> None:
    sigma = covariances(5)
    sigma[3] = np.diag([1.0, 1.0, -0.5])
    with pytest.raises(
        SettingsError, match=r"covariances\[3\] is not positive definite: .* is -0\.5"
    ):
        GaussianField.from_covariances(np.zeros((5, 3)), sigma, np.ones(5))


@pytest.mark.parametrize(
    ("means", "covariance", "amplitude", "said"),
    [
        ([0, math.nan, 0], 1.0, 1.0, "centre 0, nan, 0"),
        ([0, 0, 1e39], 1.0, 1.0, "centre 0, 0, inf"),  # in float32
        ([-1e17, 0, 0], 1.0, 1.0, "centre -1e+17"),
        ([0, 0, 0], math.nan, 1.0, "covariances[1] has an entry that is NaN"),
        ([0, 0, 0], 1e60, 1.0, "covariances[1] has an entry"),
        ([0, 0, 0], 1e-30, 1.0, "log-widths"),
        ([0, 0, 0], np.diag([1e20, 1.0, 1.0]), 1.0, "1e+10 times as long as wide"),
        ([0, 0, 0], 1.0, math.inf, "amplitude inf"),
        ([0, 0, 0], 1.0, -1e37, "amplitude -1e+37"),
    ],
)
def test_what_is_not_finite_or_beyond_float32_is_refused_by_its_index(
    means: list[float], covariance: Any, amplitude: float, said: str
) -> None:
    shape = covariance * np.eye(3) if np.ndim(covariance) == 0 else covariance
    with pytest.raises(SettingsError) as error:
        GaussianField.from_covariances([[1, 1, 1], means], [np.eye(3), shape], [1.0, amplitude])
    assert said in str(error.value)
    assert "Gaussian 1 of 2" in str(error.value) or "covariances[1]" in str(error.value)


@pytest.mark.parametrize("background", [math.nan, math.inf, -1e37])
def test_a_background_that_is_not_finite_is_refused(background: float) -> None:
    with pytest.raises(SettingsError, match="background="):
        GaussianField.from_covariances([[1, 1, 1]], [np.eye(3)], [1.0], background=background)


def test_a_gaussian_that_is_not_finite_leaves_the_others_as_they_are() -> None:
    """Of tensors that were made by hand, or learnt."""
    one = GaussianField(torch.ones(1, 3), torch.zeros(1, 6), torch.ones(1))
    spoilt = GaussianField(
        torch.tensor([[1.0, 1, 1], [math.nan, 1, 1]]), torch.zeros(2, 6), torch.ones(2)
    )
    bright = GaussianField(torch.ones(2, 3), torch.zeros(2, 6), torch.tensor([1.0, math.nan]))
    camera = axis_view((6, 7, 8), (0.5, 0.5, 0.5), 0)
    box = (np.full(3, -0.25), np.array([2.75, 3.25, 3.75]))
    for field in (spoilt, bright):
        for image in (
            lambda field: field.voxelise((6, 7, 8), (0.5, 0.5, 0.5)),
            lambda field: render(field, camera, box),
        ):
            torch.testing.assert_close(image(field), image(one), rtol=1e-3, atol=1e-6)
        with pytest.raises(SettingsError, match="Gaussian 1 of 2"):
            field.numpy()


def test_points_that_are_not_finite_are_refused(field: GaussianField) -> None:
    with pytest.raises(SettingsError, match="NaN or infinite"):
        field.evaluate(torch.tensor([[0.0, math.nan, 0.0]]))
