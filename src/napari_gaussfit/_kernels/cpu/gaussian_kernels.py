"""Numba kernels over Gaussians: packing, gradients, the optimiser's step."""

from __future__ import annotations

import numpy as np

from napari_gaussfit._kernels.cpu.jit import exact_kernel, fast_kernel
from napari_gaussfit._kernels.shared import gaussian
from napari_gaussfit._kernels.shared.adam import COORDINATES, Arrays, adam_brighten, adam_update
from napari_gaussfit._kernels.shared.gaussian import Array, F


@exact_kernel
def pack(means: Array, cholesky: Array, amplitudes: Array, cutoff: F, packed: Array) -> None:
    """Write `packed` [K, PACKED]; see `shared.gaussian.pack`."""
    for k in range(packed.shape[0]):
        gaussian.pack(means, cholesky, amplitudes, cutoff, k, packed)


@exact_kernel
def unpack_gradient(
    moments: Array, packed: Array, d_means: Array, d_cholesky: Array, d_amplitudes: Array
) -> None:
    """Turn moments [K, 10] into derivatives; see `shared.gaussian.unpack_gradient`."""
    for k in range(packed.shape[0]):
        gaussian.unpack_gradient(moments, packed, k, d_means, d_cholesky, d_amplitudes)


@fast_kernel
def adam_step(
    leaves: Arrays, slopes: Arrays, moments: Arrays, rates: Array, begin: int, end: int
) -> None:
    """Take one step of Gaussians [begin, end) in place; see `shared.adam.adam_update`.

    Amplitudes are [C, K], and rates [9 + C].
    """
    means, cholesky, amplitudes = leaves
    d_means, d_cholesky, d_amplitudes = slopes
    one = means, cholesky, amplitudes[0]
    one_slopes = d_means, d_cholesky, d_amplitudes[0]
    g = np.empty(COORDINATES, np.float32)
    for k in range(begin, end):
        adam_update(k, one, one_slopes, moments, rates, g)
        for c in range(1, amplitudes.shape[0]):
            n = COORDINATES + c - 1
            adam_brighten(k, n, amplitudes[c], d_amplitudes[c], moments, rates)
