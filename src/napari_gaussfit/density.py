"""Density control: where Gaussians are taken away and where they are put.

Works on a field and a residual; the optimiser is told which rows were replaced, and forgets
their moments and no others'.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_gaussfit._kernels.reference import cholesky_parameters, factors
from napari_gaussfit.seeding import draw_sites, smoothed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from napari_gaussfit.field import GaussianField

RELOCATED_WIDTH = (1.0, 1.5, 1.5)
"""Sigmas (z, y, x) in voxels of a relocated Gaussian."""

GROWTH = 10.0
"""How much energy a relocated Gaussian wins in the end, in those of the smoothed residual there."""

RELOCATED_SHARE = 0.5
"""Part of the residual at its new place that a relocated Gaussian begins with."""


def energies(field: GaussianField) -> Tensor:
    """Return a^2 sqrt(det Sigma) [K], in proportion to the integral of each Gaussian squared."""
    return field.amplitudes**2 * field.cholesky[:, [0, 2, 5]].sum(-1).exp()


def relocate(
    field: GaussianField,
    residual: NDArray[np.float32],
    spacing: Sequence[float],
    fraction: float,
    rng: np.random.Generator,
) -> Tensor:
    """Move Gaussians of least energy to where the residual is, in place.

    Places are voxels drawn by the square of the smoothed positive residual. A Gaussian moves
    only where there is more energy to win than it gives up.

    Parameters
    ----------
    field : GaussianField
        Changed in place; all its intensities in the residual's unit.
    residual : ndarray, shape [Z, Y, X]
        Stack minus field.
    spacing : sequence of float
        (dz, dy, dx).
    fraction : float
        Part of the Gaussians to move at most.
    rng : numpy.random.Generator
        Source of the draw.

    Returns
    -------
    Tensor
        Indices [M] of the Gaussians moved.
    """
    energy = energies(field)
    moved = torch.argsort(energy, stable=True)[: round(fraction * len(field))]
    excess = smoothed(residual).clip(min=0.0)
    if not len(moved) or not excess.any():
        return moved[:0]
    step = np.asarray(spacing, np.float64)
    scales = np.asarray(RELOCATED_WIDTH) * step
    sites = draw_sites(excess**2, len(moved), rng)
    nearest = tuple(np.clip(np.rint(sites), 0, np.array(residual.shape) - 1).astype(int).T)
    height = excess[nearest]
    order = np.argsort(-height, kind="stable")  # the most to win for the least given up
    sites, height = sites[order], height[order]
    worth = GROWTH * height**2 * np.prod(scales) > energy[moved].numpy()
    moved, sites, height = moved[torch.from_numpy(worth)], sites[worth], height[worth]
    widths = np.zeros(6, np.float32)
    widths[[0, 2, 5]] = np.log(scales)
    height = RELOCATED_SHARE * height
    field.means[moved] = torch.as_tensor((sites * step).astype(np.float32))
    field.cholesky[moved] = torch.as_tensor(widths)
    field.amplitudes[moved] = torch.as_tensor(height.astype(np.float32))
    return moved


def widen(cholesky: Tensor, spacing: Sequence[float], narrowest: float) -> None:
    """Widen Gaussians that are narrower than voxels, in any direction, in place.

    Parameters
    ----------
    cholesky : Tensor, shape [K, 6]
        Cholesky parameters; changed in place.
    spacing : sequence of float
        (dz, dy, dx).
    narrowest : float
        The least sigma, in voxels.
    """
    step = torch.as_tensor(spacing, dtype=torch.float32)
    lower = factors(cholesky) / step[:, None]
    # The smallest singular value is no less than 1 / |L^-1|: most need no closer look.
    inverse = torch.linalg.solve_triangular(lower, torch.eye(3).expand_as(lower), upper=False)
    narrow = (inverse.square().sum((-1, -2)) > narrowest**-2).nonzero().squeeze(-1)
    if not len(narrow):
        return
    chosen = lower[narrow].double()
    values, vectors = torch.linalg.eigh(chosen @ chosen.transpose(-1, -2))
    wide = vectors * values.clamp(min=narrowest**2)[:, None] @ vectors.transpose(-1, -2)
    widened = torch.linalg.cholesky(wide) * step.double()[:, None]
    cholesky[narrow] = cholesky_parameters(widened).to(cholesky.dtype)
