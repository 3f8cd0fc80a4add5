"""Numba kernel of what taking a Gaussian away costs once its neighbours make up for it."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from napari_gaussfit._kernels.cpu.jit import exact_kernel
from napari_gaussfit._kernels.shared.overlaps import DAMPING, Array64, overlap


@exact_kernel
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
            beside[m] = overlap(mu, sigma, volume, k, i)
            for n in range(m + 1):
                gram[m, n] = overlap(mu, sigma, volume, i, neighbours[k, n])
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
        costs[k] = max(overlap(mu, sigma, volume, k, k) - explained, 0.0)
