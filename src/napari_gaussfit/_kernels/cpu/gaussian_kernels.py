"""Numba kernel of the optimiser's step."""

from __future__ import annotations

import numpy as np

from napari_gaussfit._kernels.cpu.jit import fast_kernel
from napari_gaussfit._kernels.shared.adam import COORDINATES, adam_brighten, adam_update
from napari_gaussfit._kernels.shared.gaussian import Array


@fast_kernel
def adam_step(
    means: Array,
    cholesky: Array,
    amplitudes: Array,
    d_means: Array,
    d_cholesky: Array,
    d_amplitudes: Array,
    first: Array,
    second: Array,
    age: Array,
    rates: Array,
    begin: int,
    end: int,
) -> None:
    """Take one step of Gaussians [begin, end) in place, see `reference.adam_step`, its twin.

    amplitudes, d_amplitudes : [C, K]. first, second : [K, 9 + C]. rates : [9 + C].
    """
    g = np.empty(COORDINATES, np.float32)
    for k in range(begin, end):
        adam_update(
            k,
            means,
            cholesky,
            amplitudes[0],
            d_means,
            d_cholesky,
            d_amplitudes[0],
            first,
            second,
            age,
            rates,
            g,
        )
        for c in range(1, amplitudes.shape[0]):
            n = COORDINATES + c - 1
            adam_brighten(k, n, amplitudes[c], d_amplitudes[c], first, second, age, rates)
