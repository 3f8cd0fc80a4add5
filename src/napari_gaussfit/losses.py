"""What a fit minimises: losses between a prediction and its target, in scaled intensities.

Predictions and targets are divided by the stack's range before they come here, so that a loss
weighs the same for every stack.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

DARKEST_RATE = 1e-3
"""A Poisson rate below this part of the range counts as this: its logarithm must exist."""


def squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Return the mean of (prediction - target)^2 over all elements."""
    difference = (prediction - target).reshape(-1)
    return torch.dot(difference, difference) / difference.numel()


def poisson_deviance(prediction: Tensor, target: Tensor) -> Tensor:
    """Return the mean Poisson deviance, 2 (t log(t / p) - (t - p)), over all elements.

    Half of it differs from the negative log-likelihood by a constant (McCullagh and Nelder,
    Generalized Linear Models, 1989, section 2.3); photons are proportional to intensity above
    the camera's offset, so pass intensities without it.
    """
    rate = prediction.clamp(min=DARKEST_RATE)
    counts = target.clamp(min=0.0)
    logarithm = torch.xlogy(counts, counts.clamp(min=DARKEST_RATE) / rate)
    return 2 * (logarithm - (counts - rate)).mean()


def dissimilarity(prediction: Tensor, target: Tensor) -> Tensor:
    """Return 1 - SSIM of two images [H, W] with range 1.

    The structural similarity of Wang et al. (2004) with a uniform 7 x 7 window and sample
    covariances, as scikit-image computes it, differentiable.
    """
    window, k1, k2 = 7, 0.01**2, 0.03**2

    def local_mean(image: Tensor) -> Tensor:
        return torch.nn.functional.avg_pool2d(image[None, None], window, stride=1)[0, 0]

    sample = window**2 / (window**2 - 1)
    x, y = prediction, target
    mx, my = local_mean(x), local_mean(y)
    vx = sample * (local_mean(x * x) - mx * mx)
    vy = sample * (local_mean(y * y) - my * my)
    vxy = sample * (local_mean(x * y) - mx * my)
    similarity = ((2 * mx * my + k1) * (2 * vxy + k2)) / ((mx * mx + my * my + k1) * (vx + vy + k2))
    return 1 - similarity.mean()


LOSSES = {"squared": squared_error, "poisson": poisson_deviance}
