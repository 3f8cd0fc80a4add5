"""Gaussians in two dimensions: evaluating them, what a picture of them costs, and fitting them.

A small world of its own, in plain torch, to learn from: the whole of a fit on one page. Axis
order y, x; lengths in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_gaussfit.fitting.losses import squared_error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike
    from torch import Tensor

__all__ = ["Gaussians2D", "fit_image", "splatting_loss", "three_gaussians"]

SEED_SIGMA = 2.0
"""Pixels: about the width of a peak that a few pixels show."""

ROUNDS = 40
"""Of L-BFGS; each of them looks along up to 20 lines."""


@dataclass(frozen=True, eq=False)
class Gaussians2D:
    """g(x) = sum_k a_k exp(-1/2 (x - mu_k)^T Sigma_k^-1 (x - mu_k)) in the plane.

    Parameters
    ----------
    means : Tensor, shape [K, 2]
        mu, row and column; a pixel's centre is whole.
    cholesky : Tensor, shape [K, 3]
        (a, b, c) with Sigma = L L^T and L = [[exp a, 0], [b, exp c]].
    amplitudes : Tensor, shape [K]
        Amplitude a_k of each Gaussian.
    """

    means: Tensor
    cholesky: Tensor
    amplitudes: Tensor

    @classmethod
    def from_covariances(
        cls, means: ArrayLike, covariances: ArrayLike, amplitudes: ArrayLike
    ) -> Gaussians2D:
        """Make Gaussians of means [K, 2], covariances [K, 2, 2] and amplitudes [K], in float64.

        Parameters
        ----------
        means : array-like, shape [K, 2]
            Centres, row and column in pixels.
        covariances : array-like, shape [K, 2, 2]
            Covariances Sigma_k, in pixels squared.
        amplitudes : array-like, shape [K]
            Amplitude of each Gaussian, in the image's unit.

        Returns
        -------
        Gaussians2D
            As given.
        """
        lower = np.linalg.cholesky(np.asarray(covariances, np.float64))
        diagonal = np.log(lower[:, [0, 1], [0, 1]])
        cholesky = np.stack([diagonal[:, 0], lower[:, 1, 0], diagonal[:, 1]], axis=1)
        return cls(
            torch.as_tensor(np.asarray(means, np.float64)),
            torch.as_tensor(cholesky),
            torch.as_tensor(np.asarray(amplitudes, np.float64)),
        )

    @property
    def covariances(self) -> Tensor:
        """Sigma = L L^T, shape [K, 2, 2], in pixels squared."""
        a, b, c = self.cholesky.unbind(-1)
        s, t = a.exp(), c.exp()
        rows = ((s * s, s * b), (s * b, b * b + t * t))
        return torch.stack([torch.stack(row, -1) for row in rows], -2)

    def evaluate(self, points: Tensor) -> Tensor:
        """Return g [B] at points [B, 2]; differentiable.

        Parameters
        ----------
        points : Tensor, shape [B, 2]
            Positions, row and column in pixels.

        Returns
        -------
        Tensor, shape [B]
            In the unit of the amplitudes.
        """
        a, b, c = self.cholesky.unbind(-1)
        offset = points[:, None] - self.means
        u = offset[..., 0] / a.exp()
        v = (offset[..., 1] - b * u) / c.exp()
        return torch.exp(-0.5 * (u * u + v * v)) @ self.amplitudes

    def image(self, shape: Sequence[int]) -> Tensor:
        """Return g [H, W] at the centres of an image's pixels; differentiable.

        Parameters
        ----------
        shape : sequence of int
            Number of rows and columns of the image.

        Returns
        -------
        Tensor, shape [H, W]
            In the unit of the amplitudes.
        """
        axes = [torch.arange(n, dtype=self.means.dtype) for n in shape]
        return self.evaluate(torch.cartesian_prod(*axes)).reshape(*shape)


def splatting_loss(gaussians: Gaussians2D, target: Tensor) -> Tensor:
    """Return the mean squared difference between Gaussians and an image [H, W]; differentiable.

    Parameters
    ----------
    gaussians : Gaussians2D
        The Gaussians that are drawn.
    target : Tensor, shape [H, W]
        What it should look like.

    Returns
    -------
    Tensor
        A number.
    """
    return squared_error(gaussians.image(target.shape), target)


def three_gaussians() -> Gaussians2D:
    """Return the demo's: three of any orientation for 32 x 32 pixels, the brightest first.

    The last lies between the others and overlaps with the first.
    """
    return Gaussians2D.from_covariances(
        [[9.3, 8.6], [22.4, 20.7], [13.8, 14.2]],
        [[[6.0, 2.5], [2.5, 3.0]], [[9.0, -3.5], [-3.5, 4.0]], [[3.0, -1.0], [-1.0, 5.0]]],
        [1.0, 0.85, 0.7],
    )


def fit_image(target: Tensor, count: int) -> tuple[Gaussians2D, list[float]]:
    """Fit Gaussians with full covariances to an image.

    Seeds are the largest pixels of what those before leave over, each fitted together with them
    by L-BFGS: a start beside a peak, and a covariance that cannot turn, is what misses centres.

    Parameters
    ----------
    target : Tensor, shape [H, W]
        The image that the Gaussians are fitted to.
    count : int
        How many Gaussians the stack holds.

    Returns
    -------
    gaussians : Gaussians2D
        In float64.
    history : list of float
        The loss at each evaluation.

    Examples
    --------
    >>> truth = three_gaussians()
    >>> found, history = fit_image(truth.image((32, 32)), 3)
    >>> bool((found.means - truth.means).abs().max() < 0.1)
    True
    """
    wanted = target.detach().double()
    found = Gaussians2D.from_covariances(np.empty((0, 2)), np.empty((0, 2, 2)), [])
    history: list[float] = []
    for _ in range(count):
        left = wanted - found.image(wanted.shape)
        brightest = divmod(int(left.argmax()), wanted.shape[1])
        seed = Gaussians2D.from_covariances(
            [brightest], [SEED_SIGMA**2 * np.eye(2)], [float(left.max())]
        )
        found = _refined(_joined(found, seed), wanted, history)
    return found, history


def _joined(one: Gaussians2D, other: Gaussians2D) -> Gaussians2D:
    return Gaussians2D(
        torch.cat([one.means, other.means]),
        torch.cat([one.cholesky, other.cholesky]),
        torch.cat([one.amplitudes, other.amplitudes]),
    )


def _refined(start: Gaussians2D, target: Tensor, history: list[float]) -> Gaussians2D:
    leaves = [
        part.clone().requires_grad_() for part in (start.means, start.cholesky, start.amplitudes)
    ]
    optimiser = torch.optim.LBFGS(
        leaves, tolerance_grad=1e-12, tolerance_change=1e-14, line_search_fn="strong_wolfe"
    )

    def closure() -> float:
        optimiser.zero_grad()
        loss = splatting_loss(Gaussians2D(*leaves), target)
        torch.autograd.backward(loss)
        history.append(loss.item())
        return history[-1]

    for _ in range(ROUNDS):
        optimiser.step(closure)  # type: ignore[no-untyped-call]
    return Gaussians2D(*(leaf.detach() for leaf in leaves))
