"""What a fit minimises: losses between a prediction and its target.

A fit divides predictions and targets by the stack's range before they come here, so that a loss
weighs the same for every stack.

The Poisson deviance's formula stands in `_kernels.shared.step`, and is the kernels' too. Beside it
there are two things that kernels and tensors cannot have in common: a kernel has the derivative in
closed form, which autograd finds here; and a mean of squares is one operation of torch's, in little
more than half of the time of a difference squared element by element and then summed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from napari_gaussfit._kernels.shared.step import half_deviance

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from napari_gaussfit.model.field import GaussianField

DARKEST_RATE = 1e-3
"""Smallest Poisson rate, in parts of the range: lower ones count as this, for the logarithm. The
derivative goes through, or a prediction below it would stay there."""


WINDOW = 7
"""Pixels a side of the windows over which SSIM is taken."""


def squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Return the mean of (prediction - target)^2 over all elements.

    Parameters
    ----------
    prediction : Tensor
        Predicted intensities p, of any shape, in parts of the stack's range.
    target : Tensor
        Measured intensities t, of the same shape.

    Returns
    -------
    Tensor
        The mean, of shape [].
    """
    difference = (prediction - target).reshape(-1)
    return torch.dot(difference, difference) / difference.numel()


def poisson_deviance(prediction: Tensor, target: Tensor) -> Tensor:
    """Return the mean Poisson deviance, 2 (t log(t / p) - (t - p)), over all elements.

    Half of it differs from the negative log-likelihood by a constant (McCullagh and Nelder,
    Generalized Linear Models, 1989, section 2.3). The rate p includes the background: with the
    background subtracted and negative values clamped, half of the noise would be cut away, and up
    to half of a faint spot with it. A target below 0, which read noise or interpolation makes, is
    kept: the likelihood is linear in it, and clamped it would brighten dark regions.

    Parameters
    ----------
    prediction : Tensor
        Predicted intensities p, of any shape, in parts of the stack's range.
    target : Tensor
        Measured intensities t, of the same shape.

    Returns
    -------
    Tensor
        The mean, of shape [].
    """
    rate = prediction + (prediction.clamp(min=DARKEST_RATE) - prediction).detach()
    least = torch.xlogy(target, target.clamp(min=DARKEST_RATE))
    half: Tensor = half_deviance(target, rate, rate.log(), least)
    return 2 * half.mean()


def voxel_loss(
    field: GaussianField,
    voxels: Tensor,
    spacing: Sequence[float],
    *,
    planes: int | None = None,
    loss: str = "squared",
) -> Tensor:
    """Return the mean loss of a field over the voxels of a stack, plane by plane if asked to.

    Differentiable by the field's tensors, in batches too: their sum is one graph, and the memory of
    a batch is that of its planes alone.

    Parameters
    ----------
    field : GaussianField
        Gaussians and background, in the stack's unit and raw intensity.
    voxels : Tensor, shape [Z, Y, X]
        Raw intensities of the stack.
    spacing : sequence of float
        Voxel spacing (dz, dy, dx).
    planes : int, optional
        Number of planes in a batch; all by default.
    loss : str
        Name of a loss in `LOSSES`.

    Returns
    -------
    Tensor
        The mean loss, of shape [].

    Examples
    --------
    >>> import torch
    >>> from napari_gaussfit import GaussianField
    >>> field = GaussianField.from_gaussians([((1.0, 1.0, 1.0), torch.eye(3), 2.0)])
    >>> float(voxel_loss(field, field.voxelise((3, 3, 3), (1, 1, 1)), (1, 1, 1), planes=2))
    0.0
    """
    depth = len(voxels)
    step = planes or depth
    total = voxels.new_zeros(())
    for first in range(0, depth, step):
        batch = voxels[first : first + step]
        prediction = field.voxelise_planes(first, first + step, voxels.shape, spacing)
        total = total + LOSSES[loss](prediction, batch) * (len(batch) / depth)
    return total


def dissimilarity(prediction: Tensor, target: Tensor, shares: Tensor | None = None) -> Tensor:
    """Return 1 - SSIM of two images [H, W] with range 1.

    The structural similarity of Wang et al. (2004) with a uniform 7 x 7 window and sample
    covariances, as scikit-image computes it, differentiable. Images narrower than a window are
    padded with their last pixel, as for `metrics.ssim`.

    Parameters
    ----------
    prediction, target : Tensor, shape [H, W]
        Images in parts of the stack's range.
    shares : Tensor, shape [H - 6, W - 6], optional
        Weight of each window, 1 in all; even by default.

    Returns
    -------
    Tensor
        1 - SSIM, of shape []; 0 where both images are the same.
    """
    window, k1, k2 = WINDOW, 0.01**2, 0.03**2

    def local_mean(image: Tensor) -> Tensor:
        return torch.nn.functional.avg_pool2d(image[None, None], window, stride=1)[0, 0]

    sample = window**2 / (window**2 - 1)
    x, y = prediction, target
    short = [0, max(0, window - target.shape[1]), 0, max(0, window - target.shape[0])]
    if any(short):
        x, y = (
            torch.nn.functional.pad(image[None], short, mode="replicate")[0] for image in (x, y)
        )
    mx, my = local_mean(x), local_mean(y)
    vx = sample * (local_mean(x * x) - mx * mx)
    vy = sample * (local_mean(y * y) - my * my)
    vxy = sample * (local_mean(x * y) - mx * my)
    similarity = ((2 * mx * my + k1) * (2 * vxy + k2)) / ((mx * mx + my * my + k1) * (vx + vy + k2))
    return 1 - (similarity.mean() if shares is None else (similarity * shares).sum())


LOSSES = {"squared": squared_error, "poisson": poisson_deviance}
"""Losses by their names in `FitSettings.loss`."""
