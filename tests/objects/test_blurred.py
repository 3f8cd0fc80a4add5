"""The derivatives of a blurred field are those of the field that is blurred."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_gaussfit import GaussianField
from napari_gaussfit.model.gaussians import Gaussians
from napari_gaussfit.objects.blurred import BlurredField

STEP = 1e-3


@pytest.fixture
def field() -> GaussianField:
    rng = np.random.default_rng(0)
    roots = 0.3 * rng.normal(size=(40, 3, 3))
    covariances = roots @ roots.transpose(0, 2, 1) + 0.1 * np.eye(3)
    places = rng.uniform(0, 5, (40, 3))
    return GaussianField.from_covariances(places, covariances, rng.uniform(1, 5, 40), background=7)


@pytest.fixture
def points() -> np.ndarray:
    return np.random.default_rng(1).uniform(0, 5, (100, 3))


def test_without_blur_it_is_the_field_without_its_background(
    field: GaussianField, points: np.ndarray
) -> None:
    found = BlurredField.of(field.numpy()).values(points)
    expected = field.evaluate(torch.tensor(points, dtype=torch.float32)).numpy() - 7
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_gradient_and_hessian_are_those_of_finite_differences(
    field: GaussianField, points: np.ndarray
) -> None:
    blurred = BlurredField.of(field.numpy(), 0.3)
    found = blurred.derivatives(points)
    for axis in range(3):
        there = [blurred.derivatives(points + n * STEP * np.eye(3)[axis]) for n in (1, -1)]
        slope = (there[0].value - there[1].value) / (2 * STEP)
        bend = (there[0].gradient - there[1].gradient) / (2 * STEP)
        np.testing.assert_allclose(found.gradient[:, axis], slope, atol=3e-3)
        np.testing.assert_allclose(found.hessian[:, axis], bend, atol=2e-2)


def test_a_gaussian_blurred_is_wider_and_keeps_its_integral() -> None:
    one = Gaussians.from_covariances([[0, 0, 0]], [np.eye(3)], [8.0])
    peak = BlurredField.of(one, np.sqrt(3.0)).values(np.zeros((1, 3)))
    assert peak[0] == pytest.approx(1.0)


def test_no_points_have_no_values(field: GaussianField) -> None:
    assert BlurredField.of(field.numpy()).values(np.empty((0, 3))).shape == (0,)
