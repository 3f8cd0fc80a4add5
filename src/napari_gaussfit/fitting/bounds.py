"""The bounds that a fit keeps its Gaussians in: no narrower than voxels, no centre beyond them.

All work in place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from napari_gaussfit._kernels.reference import cholesky_parameters, factors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

__all__ = ["confine", "hold_axes", "widen"]


def widen(cholesky: Tensor, spacing: Sequence[float], narrowest: float) -> None:
    """Widen Gaussians that are narrower than voxels, in any direction, in place.

    Parameters
    ----------
    cholesky : Tensor, shape [K, 6]
        Cholesky parameters; changed in place.
    spacing : sequence of float
        Voxel spacing (dz, dy, dx).
    narrowest : float
        Least sigma in any direction, in voxels.
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


def hold_axes(d_cholesky: Tensor) -> None:
    """Set the derivatives by Cholesky parameters off the diagonal to 0, in place.

    Without them Gaussians keep their axes along z, y and x.

    Parameters
    ----------
    d_cholesky : Tensor, shape [K, 6]
        Derivatives by the Cholesky parameters; changed in place.
    """
    d_cholesky[:, 1] = 0.0
    d_cholesky[:, 3:5] = 0.0


def confine(means: Tensor, shape: Sequence[int], spacing: Sequence[float]) -> None:
    """Move means that lie beyond the outermost voxels' centres onto these, in place.

    Between them and the faces of the box no voxel holds the field: a Gaussian centred there lifts
    every projection and costs nothing. On noisy nuclei it took half of the difference between a
    field's MIPs and those of its own voxels.

    Parameters
    ----------
    means : Tensor, shape [K, 3]
        Positions (z, y, x); changed in place.
    shape : sequence of int
        Number of the stack's voxels along z, y, x.
    spacing : sequence of float
        Voxel spacing (dz, dy, dx).
    """
    for axis, (size, step) in enumerate(zip(shape, spacing, strict=True)):
        means[:, axis].clamp_(0.0, (size - 1) * step)
