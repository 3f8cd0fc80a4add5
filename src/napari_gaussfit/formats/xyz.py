"""The border to formats in x, y, z: log-scales and quaternions there, covariances in z, y, x here.

A quaternion (w, x, y, z) turns the Gaussian's own axes, along which the scales are, to x, y, z.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial.transform import Rotation

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

__all__ = ["covariances_in_zyx", "covariances_of", "scales_and_quaternions"]


def covariances_in_zyx(covariances: ArrayLike) -> Floats:
    """Return covariances [K, 3, 3] with their axes reversed: x, y, z to z, y, x, or back."""
    return np.asarray(covariances, np.float64)[:, ::-1, ::-1]


def covariances_of(log_scales: ArrayLike, quaternions: ArrayLike) -> Floats:
    """Return covariances [K, 3, 3] in x, y, z of log-scales [K, 3] and quaternions [K, 4].

    Sigma = R diag(exp 2s) R^T (Kerbl et al., 3D Gaussian Splatting, 2023, equation 6). Quaternions
    are w, x, y, z, of any length but 0.

    Raises
    ------
    ValueError
        If a quaternion is 0.
    """
    turned = Rotation.from_quat(np.asarray(quaternions, np.float64), scalar_first=True).as_matrix()
    half = turned * np.exp(np.asarray(log_scales, np.float64))[:, None, :]
    product: Floats = half @ half.transpose(0, 2, 1)
    return product


def scales_and_quaternions(covariances: ArrayLike) -> tuple[Floats, Floats]:
    """Return log-scales [K, 3] and quaternions [K, 4] of covariances in x, y, z.

    The inverse of `covariances_of`: scales ascend, and the quaternion's w is not negative.
    """
    values, axes = np.linalg.eigh(np.asarray(covariances, np.float64))
    axes[np.linalg.det(axes) < 0, :, 0] *= -1
    turns = Rotation.from_matrix(axes).as_quat(canonical=True, scalar_first=True)
    return np.log(values) / 2, turns
