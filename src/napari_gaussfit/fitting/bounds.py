"""The bounds that a fit keeps its Gaussians in.

None is narrower than voxels, or than light allows; no centre lies beyond the voxels.

All work in place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from napari_gaussfit._kernels.reference import cholesky_parameters, factors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

__all__ = ["confine", "hold_axes", "keep_above", "widen"]


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
    raised = _raised(lower, narrowest)
    if raised is not None:
        narrow, wide = raised
        cholesky[narrow] = cholesky_parameters(wide * step.double()[:, None]).to(cholesky.dtype)


def keep_above(cholesky: Tensor, floor: Tensor) -> None:
    """Widen Gaussians in place until what their covariance is above another is no less than 0.

    Of all covariances above the floor the new one is the nearest, where lengths are counted in the
    floor's own widths: what is left of a Gaussian that was narrower along one direction is as it
    was along the others.

    Parameters
    ----------
    cholesky : Tensor, shape [K, 6]
        Cholesky parameters; changed in place.
    floor : Tensor, shape [3, 3]
        Lower Cholesky factor of the least covariance, such as a point spread function's, in the
        same unit and on the same device.
    """
    lower = torch.linalg.solve_triangular(floor, factors(cholesky), upper=False)
    raised = _raised(lower, 1.0)
    if raised is not None:
        narrow, wide = raised
        cholesky[narrow] = cholesky_parameters(floor.double() @ wide).to(cholesky.dtype)


def _raised(lower: Tensor, least: float) -> tuple[Tensor, Tensor] | None:
    """Return which of factors [K, 3, 3] have a smaller singular value, and these widened.

    None where there are none; indices [N], and factors [N, 3, 3] in double precision.
    """
    # The smallest singular value is no less than 1 / |L^-1|: most need no closer look.
    unit = torch.eye(3, device=lower.device).expand_as(lower)
    inverse = torch.linalg.solve_triangular(lower, unit, upper=False)
    narrow = (inverse.square().sum((-1, -2)) > least**-2).nonzero().squeeze(-1)
    if not len(narrow):
        return None
    chosen = lower[narrow].double()
    values, vectors = torch.linalg.eigh(chosen @ chosen.transpose(-1, -2))
    wide = vectors * values.clamp(min=least**2)[:, None] @ vectors.transpose(-1, -2)
    return narrow, torch.linalg.cholesky(wide)


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
