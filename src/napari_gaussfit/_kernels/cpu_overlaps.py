"""Numba kernel of overlaps: what taking a Gaussian away costs once its neighbours make up for it.

The integral of the product of two Gaussians i and j of amplitude 1 is

    <g_i, g_j> = (2 pi)^(3/2) |L_i| |L_j| / sqrt(|S|) exp(-1/2 d^T S^-1 d),

with d = mu_i - mu_j and S = Sigma_i + Sigma_j.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from napari_gaussfit._kernels.compiled import njit

Array64 = NDArray[np.float64]

DAMPING = 1e-6
"""Keeps the equations solvable where neighbours are copies of each other."""


@njit(inline="always")
def _overlap(mu: Array64, sigma: Array64, volume: Array64, i: int, j: int) -> float:
    """<g_i, g_j> / (2 pi)^(3/2)."""
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


@njit(nogil=True, error_model="numpy", cache=True)
def removal_costs(
    mu: Array64,
    sigma: Array64,
    volume: Array64,
    neighbours: NDArray[np.int64],
    costs: Array64,
    shares: Array64,
    first: int,
    end: int,
) -> None:
    """Set rows [first, end) of `costs` [K] and `shares` [K, M].

    A cost is the integral of (g_k - sum_n shares[k, n] g_n)^2 over (2 pi)^(3/2), least by the
    choice of the shares, n over the row of `neighbours` [K, M].

    mu : [K, 3]; sigma : [K, 6], the triangle 00, 10, 11, 20, 21, 22; volume : [K], det L.
    """
    count = neighbours.shape[1]
    gram = np.empty((count, count))
    beside, y = np.empty(count), np.empty(count)
    for k in range(first, end):
        for m in range(count):
            i = neighbours[k, m]
            beside[m] = _overlap(mu, sigma, volume, k, i)
            for n in range(m + 1):
                gram[m, n] = _overlap(mu, sigma, volume, i, neighbours[k, n])
            gram[m, m] *= 1.0 + DAMPING
        # Cholesky's factor in place, then the two triangular solutions.
        for m in range(count):
            for n in range(m + 1):
                s = gram[m, n]
                for p in range(n):
                    s -= gram[m, p] * gram[n, p]
                if m == n:
                    gram[m, m] = math.sqrt(max(s, DAMPING * DAMPING * gram[m, m]))
                else:
                    gram[m, n] = s / gram[n, n]
        explained = 0.0
        for m in range(count):
            s = beside[m]
            for p in range(m):
                s -= gram[m, p] * y[p]
            y[m] = s / gram[m, m]
            explained += y[m] * y[m]
        for m in range(count - 1, -1, -1):
            s = y[m]
            for p in range(m + 1, count):
                s -= gram[p, m] * shares[k, p]
            shares[k, m] = s / gram[m, m]
        costs[k] = max(_overlap(mu, sigma, volume, k, k) - explained, 0.0)
