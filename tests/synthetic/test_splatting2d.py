"""The demo in two dimensions: three Gaussians in 32 x 32 pixels are found, all of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_gaussfit.synthetic.splatting2d import (
    Gaussians2D,
    fit_image,
    splatting_loss,
    three_gaussians,
)

SHAPE = (32, 32)

Found = tuple[Gaussians2D, list[float]]


@pytest.fixture(scope="module")
def found() -> Found:
    return fit_image(three_gaussians().image(SHAPE), 3)


def test_values_are_those_of_the_formula() -> None:
    gaussians = three_gaussians()
    points = np.random.default_rng(0).uniform(0, 32, (50, 2))
    offsets = points[:, None] - gaussians.means.numpy()
    precisions = np.linalg.inv(gaussians.covariances.numpy())
    squares = np.einsum("bki,kij,bkj->bk", offsets, precisions, offsets)
    expected = np.exp(-squares / 2) @ gaussians.amplitudes.numpy()
    np.testing.assert_allclose(gaussians.evaluate(torch.from_numpy(points)), expected, rtol=1e-12)


def test_pixels_are_values_at_their_centres() -> None:
    image = three_gaussians().image((5, 7))
    assert image.shape == (5, 7)
    point = torch.tensor([[3.0, 6.0]], dtype=torch.float64)
    assert float(image[3, 6]) == pytest.approx(float(three_gaussians().evaluate(point)))


def test_the_loss_has_the_gradient_of_finite_differences() -> None:
    target, start = three_gaussians().image((12, 12)), three_gaussians()

    def loss(means: torch.Tensor, cholesky: torch.Tensor, amplitudes: torch.Tensor) -> torch.Tensor:
        return splatting_loss(Gaussians2D(means, cholesky, amplitudes), target)

    parts = (start.means + 0.7, start.cholesky - 0.1, start.amplitudes * 0.8)
    leaves = tuple(part.clone().requires_grad_() for part in parts)
    assert torch.autograd.gradcheck(loss, leaves)


@pytest.mark.notebook("splatting-2d", api="synthetic.splatting2d.fit_image")
def test_all_three_centres_are_found_within_a_tenth_of_a_pixel(found: Found) -> None:
    away = torch.cdist(three_gaussians().means, found[0].means)
    worst = float(away.amin(1).max())
    assert worst < 0.1, f"a centre is {worst:.3g} pixels off"
    assert len(away.argmin(1).unique()) == 3


@pytest.mark.notebook("splatting-2d", api="synthetic.splatting2d.splatting_loss")
def test_the_picture_ends_above_50_db(found: Found) -> None:
    target = three_gaussians().image(SHAPE)
    error = float(splatting_loss(found[0], target))
    decibels = 10 * np.log10(float(target.max() - target.min()) ** 2 / error)
    assert decibels > 50, f"{decibels:.1f} dB"
    assert found[1][-1] < found[1][0], "the history is that of the loss"


def test_covariances_turn_as_those_of_the_truth(found: Found) -> None:
    truth = three_gaussians()
    partner = torch.cdist(truth.means, found[0].means).argmin(1)
    off = float((found[0].covariances[partner] - truth.covariances).abs().max())
    assert off < 0.01, f"off by {off:.2g} pixels squared"
