"""Overlaps of Gaussians, in double precision, written once for both backends.

The integral of the product of two Gaussians i and j of amplitude 1 is

    <g_i, g_j> = (2 pi)^(3/2) |L_i| |L_j| / sqrt(|S|) exp(-1/2 d^T S^-1 d),

with d = mu_i - mu_j and S = Sigma_i + Sigma_j. What taking a Gaussian away costs is a difference of
such numbers, in which most digits cancel.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Array64 = NDArray[np.float64]

NEIGHBOURS = 24
"""Nearest Gaussians that make up for one that is taken away."""

DAMPING = 1e-6
"""Keeps the equations solvable where neighbours are copies of each other."""


def overlap(mu: Array64, sigma: Array64, volume: Array64, i: int, j: int) -> float:
    """<g_i, g_j> / (2 pi)^(3/2).

    mu : [K, 3]; sigma : [K, 6], the triangle 00, 10, 11, 20, 21, 22; volume : [K], det L.
    """
    a, b, c = sigma[i, 0] + sigma[j, 0], sigma[i, 1] + sigma[j, 1], sigma[i, 2] + sigma[j, 2]
    d, e, f = sigma[i, 3] + sigma[j, 3], sigma[i, 4] + sigma[j, 4], sigma[i, 5] + sigma[j, 5]
    # The triangle of S, row by row; then its cofactors.
    x, y, z = mu[i, 0] - mu[j, 0], mu[i, 1] - mu[j, 1], mu[i, 2] - mu[j, 2]
    caa, cab, cad = c * f - e * e, d * e - b * f, b * e - c * d
    ccc, cce, cff = a * f - d * d, b * d - a * e, a * c - b * b
    determinant = a * caa + b * cab + d * cad
    if determinant <= 0.0:
        return 0.0
    square = x * x * caa + y * y * ccc + z * z * cff
    square += 2.0 * (x * y * cab + x * z * cad + y * z * cce)
    value: float = (
        volume[i] * volume[j] / math.sqrt(determinant) * math.exp(-0.5 * square / determinant)
    )
    return value
