"""The losses are their formulas, and their gradients those of the formulas."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from napari_gaussfit._kernels.geometry import Grid
from napari_gaussfit._kernels.reference import voxelise
from napari_gaussfit._kernels.shared.step import loss_of
from napari_gaussfit.fitting.losses import (
    DARKEST_RATE,
    LOSSES,
    dissimilarity,
    poisson_deviance,
    squared_error,
    voxel_loss,
)
from napari_gaussfit.measure.metrics import ssim
from napari_gaussfit.model.field import GaussianField

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


@pytest.fixture
def images() -> tuple[Tensor, Tensor]:
    """A prediction and a target [12, 14] between 0.05 and 1, float64."""
    generator = torch.Generator().manual_seed(0)
    target = 0.05 + 0.9 * torch.rand(12, 14, generator=generator, dtype=torch.float64)
    noise = torch.randn(12, 14, generator=generator, dtype=torch.float64)
    return (target + 0.05 * noise).clamp(0.02, 1), target


def test_squared_error_is_the_mean_square(images: tuple[Tensor, Tensor]) -> None:
    prediction, target = (image.numpy() for image in images)
    expected = np.square(prediction - target).mean()
    assert float(squared_error(*images)) == pytest.approx(expected, rel=1e-12)


def test_poisson_deviance_is_that_of_the_textbook(images: tuple[Tensor, Tensor]) -> None:
    p, t = (image.numpy() for image in images)
    expected = 2 * (t * np.log(t / p) - (t - p)).mean()
    assert float(poisson_deviance(*images)) == pytest.approx(expected, rel=1e-12)


def test_poisson_deviance_is_least_at_the_target(images: tuple[Tensor, Tensor]) -> None:
    prediction, target = images
    assert float(poisson_deviance(target, target)) == pytest.approx(0.0, abs=1e-12)
    assert float(poisson_deviance(prediction, target)) > 0


def test_poisson_deviance_is_finite_where_there_is_no_light() -> None:
    dark = torch.tensor([0.0, -0.01, 0.5])
    for prediction in (dark, torch.zeros(3), -torch.ones(3)):
        assert poisson_deviance(prediction, dark).isfinite()


def test_dissimilarity_is_scikit_images(images: tuple[Tensor, Tensor]) -> None:
    from skimage.metrics import structural_similarity

    prediction, target = (image.numpy() for image in images)
    expected = 1 - structural_similarity(target, prediction, data_range=1.0)
    found = float(dissimilarity(*images))
    assert found == pytest.approx(expected, abs=1e-9), f"off by {found - expected:.1e}"


@pytest.mark.parametrize("shape", [(6, 5), (6, 20), (20, 3)])
def test_dissimilarity_of_small_images_is_the_reports(shape: tuple[int, int]) -> None:
    """Views of a small stack, at half its resolution, are smaller than a window."""
    one, other = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    expected = 1 - ssim(one.numpy(), other.numpy(), (0.0, 1.0))
    assert float(dissimilarity(one, other)) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("loss", [*LOSSES.values(), dissimilarity])
def test_gradients_are_those_of_finite_differences(
    images: tuple[Tensor, Tensor], loss: Callable[[Tensor, Tensor], Tensor]
) -> None:
    prediction, target = images
    corner = prediction[:8, :9].clone()
    assert torch.autograd.gradcheck(lambda p: loss(p, target[:8, :9]), (corner.requires_grad_(),))


@pytest.mark.parametrize("loss", [*LOSSES.values(), dissimilarity])
def test_a_perfect_prediction_costs_nothing(
    images: tuple[Tensor, Tensor], loss: Callable[[Tensor, Tensor], Tensor]
) -> None:
    assert float(loss(images[1], images[1])) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.notebook("voxel-loss", api="fitting.losses.voxel_loss")
@pytest.mark.parametrize("planes", [None, 1, 4])
@pytest.mark.parametrize("loss", LOSSES)
def test_the_loss_over_voxels_has_the_gradient_of_the_formula_in_any_batches(
    planes: int | None, loss: str
) -> None:
    generator = torch.Generator().manual_seed(1)
    shape, spacing = (9, 8, 7), (0.5, 0.25, 0.25)
    means = torch.rand(6, 3, generator=generator) * 2
    cholesky = torch.randn(6, 6, generator=generator) * 0.1 - 0.5
    amplitudes = torch.rand(6, generator=generator) + 0.5
    voxels = 0.2 + torch.rand(shape, generator=generator)

    leaves = [part.clone().requires_grad_() for part in (means, cholesky, amplitudes)]
    found = voxel_loss(
        GaussianField(*leaves, background=0.1), voxels, spacing, planes=planes, loss=loss
    )
    found.backward()
    exact = [part.double().requires_grad_() for part in (means, cholesky, amplitudes)]
    grid = Grid(np.zeros(3, np.float32), np.asarray(spacing, np.float32), shape)
    expected = LOSSES[loss](0.1 + voxelise(*exact, grid), voxels.double())
    expected.backward()

    assert found.item() == pytest.approx(expected.item(), rel=1e-4)
    for leaf, true in zip(leaves, exact, strict=True):
        assert leaf.grad is not None
        assert true.grad is not None
        off = float((leaf.grad - true.grad).abs().max() / true.grad.abs().max())
        assert off < 1e-3, f"a gradient is off by {off:.1e}"


@pytest.mark.parametrize(("loss", "darkest"), [("squared", 0.0), ("poisson", DARKEST_RATE)])
def test_kernels_lose_what_tensors_do(loss: str, darkest: float) -> None:
    """Value and derivative by the prediction, also of dark predictions and of targets below 0."""
    predictions = torch.tensor([0.9, 0.2, 1e-2, 1e-5, -0.1, 0.5], dtype=torch.float64)
    targets = torch.tensor([0.7, 0.3, 0.0, 0.2, 0.1, -0.05], dtype=torch.float64)
    for prediction, target in zip(predictions, targets, strict=True):
        leaf = prediction.clone().requires_grad_()
        value = LOSSES[loss](leaf[None], target[None])
        (derivative,) = torch.autograd.grad(value, leaf)
        found, slope, _ = loss_of(prediction.item(), target.item(), 0.0, darkest)
        assert found == pytest.approx(value.item(), rel=1e-6)
        assert slope == pytest.approx(derivative.item(), rel=1e-6)
