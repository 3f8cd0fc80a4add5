"""A field blurred by a Gaussian, with its derivatives: analytic, at any point, for any width.

A Gaussian blurred by s^2 I is one, of covariance Sigma + s^2 I and the same integral: ridges and
modes lie where the field has them, whatever the grid, and without torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from napari_gaussfit._kernels.cpu.grid_kernels import (
    DERIVATIVES,
    DERIVED_BLOCK,
    DERIVED_REACH2,
    sum_derivatives,
)
from napari_gaussfit._threads import run_pieces

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_gaussfit.model.gaussians import Gaussians

    Floats = NDArray[np.float64]

__all__ = ["BlurredField", "Derivatives"]

_ROWS, _COLUMNS = np.triu_indices(3)
_SQUARE = np.array([[0, 1, 2], [1, 3, 4], [2, 4, 5]])
"""Where the entries of a symmetric matrix stand among zz, zy, zx, yy, yx, xx."""


class Derivatives(NamedTuple):
    """f [B] without its background, its gradient [B, 3] and its Hessian [B, 3, 3] at points."""

    value: Floats
    gradient: Floats
    hessian: Floats


@dataclass(frozen=True, eq=False)
class BlurredField:
    """A sum of Gaussians without its background, blurred, to be evaluated with its derivatives.

    Parameters
    ----------
    means : ndarray, shape [K, 3]
        In the field's unit, axis order z, y, x.
    covariances : ndarray, shape [K, 3, 3]
        Of the blurred Gaussians.
    amplitudes : ndarray, shape [K]
        Of the blurred Gaussians, in raw intensity.
    """

    means: Floats
    covariances: Floats
    amplitudes: Floats

    @classmethod
    def of(cls, gaussians: Gaussians, blur: float = 0.0) -> BlurredField:
        """Return a field blurred by a Gaussian.

        Parameters
        ----------
        gaussians : Gaussians
            Gaussians of the field.
        blur : float
            The standard deviation s of what it is blurred by, along each axis, in its unit.

        Returns
        -------
        BlurredField
            With covariances Sigma + s^2 I, and the integrals that the Gaussians have.
        """
        covariances = gaussians.covariances
        blurred = covariances + blur**2 * np.eye(3)
        kept = np.sqrt(np.linalg.det(covariances) / np.linalg.det(blurred))
        return cls(gaussians.means.astype(np.float64), blurred, gaussians.amplitudes * kept)

    def derivatives(self, points: Floats) -> Derivatives:
        """Return f, its gradient and its Hessian.

        Parameters
        ----------
        points : ndarray, shape [B, 3]
            In the field's unit.

        Returns
        -------
        Derivatives
            In raw intensity, over the unit once and twice. A Gaussian is left out where it adds
            less than 3e-7 of its peak.
        """
        if not len(points):
            return Derivatives(np.empty(0), np.empty((0, 3)), np.empty((0, 3, 3)))
        # Points of a leaf lie close together.
        order = cKDTree(points, leafsize=DERIVED_BLOCK).indices
        ordered = np.ascontiguousarray(points[order], np.float64)
        sums = np.empty((len(points), DERIVATIVES))
        precisions = np.asarray(np.linalg.inv(self.covariances)[:, _ROWS, _COLUMNS], np.float64)
        widest = np.asarray(np.linalg.eigvalsh(self.covariances)[:, -1], np.float64)
        reaches = np.sqrt(DERIVED_REACH2 * widest)
        run_pieces(
            lambda first, end: sum_derivatives(
                self.means, precisions, self.amplitudes, reaches, ordered, sums, first, end
            ),
            -(-len(points) // DERIVED_BLOCK),
        )
        found = np.empty_like(sums)
        found[order] = sums
        return Derivatives(found[:, 0], found[:, 1:4], found[:, 4:][:, _SQUARE])

    def values(self, points: Floats) -> Floats:
        """Return f [B] at points [B, 3].

        Parameters
        ----------
        points : ndarray, shape [B, 3]
            In the field's unit.

        Returns
        -------
        ndarray, shape [B]
            In raw intensity, without the background.
        """
        return self.derivatives(points).value
