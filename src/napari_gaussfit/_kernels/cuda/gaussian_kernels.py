"""CUDA kernels over Gaussians, one a thread: packing, gradients, the optimiser's step."""

from __future__ import annotations

import numpy as np
from numba import cuda

from napari_gaussfit._kernels.cuda.device import kernel
from napari_gaussfit._kernels.shared import gaussian
from napari_gaussfit._kernels.shared.adam import COORDINATES, adam_brighten, adam_update
from napari_gaussfit._kernels.shared.gaussian import Array


@kernel
def pack(means: Array, cholesky: Array, amplitudes: Array, cutoff: Array, packed: Array) -> None:
    """Write `packed` [C, K, PACKED]; amplitudes [C, K], the cutoff [1]."""
    k, channel = cuda.grid(1), cuda.blockIdx.y
    if k < means.shape[0]:
        gaussian.pack(means, cholesky, amplitudes[channel], cutoff[0], k, packed[channel])


@kernel
def unpack_gradient(
    moments: Array, packed: Array, d_means: Array, d_cholesky: Array, d_amplitudes: Array
) -> None:
    """Turn moments [C, K, 10] into each channel's part of the derivatives, [C, K, ...]."""
    k, c = cuda.grid(1), cuda.blockIdx.y
    if k < packed.shape[1]:
        gaussian.unpack_gradient(
            moments[c], packed[c], k, d_means[c], d_cholesky[c], d_amplitudes[c]
        )


@kernel
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
) -> None:
    """Take one step in place; see `reference.adam_step`, whose twin this is.

    amplitudes, d_amplitudes : [C, K]. first, second : [K, 9 + C]. rates : [9 + C].
    """
    k = cuda.grid(1)
    g = cuda.local.array(COORDINATES, np.float32)
    if k < means.shape[0]:
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
