"""CUDA kernels over Gaussians, one a thread: packing, gradients, the optimiser's step, widening."""

from __future__ import annotations

import math

import numpy as np
from numba import cuda

from napari_gaussfit._kernels.cuda.device import device, kernel
from napari_gaussfit._kernels.shared import gaussian
from napari_gaussfit._kernels.shared.adam import COORDINATES, adam_brighten, adam_update
from napari_gaussfit._kernels.shared.gaussian import INT, ONE, TWO, ZERO, Array, F


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
    moments = first, second, age
    if k < means.shape[0]:
        leaves = means, cholesky, amplitudes[0]
        adam_update(k, leaves, (d_means, d_cholesky, d_amplitudes[0]), moments, rates, g)
        for c in range(1, amplitudes.shape[0]):
            n = COORDINATES + c - 1
            adam_brighten(k, n, amplitudes[c], d_amplitudes[c], moments, rates)


SWEEPS = 6  # of Jacobi rotations: float32 is exhausted after four or five
NEGLIGIBLE = F(1e-9)
MATRIX = (3, 3)


@device
def rotate(a: Array, v: Array, p: int, q: int) -> None:
    """Zero entry (p, q) of a symmetric matrix by a rotation (Golub and Van Loan, section 8.5)."""
    off = a[p, q]
    if abs(off) <= NEGLIGIBLE * (abs(a[p, p]) + abs(a[q, q])):
        return
    theta = (a[q, q] - a[p, p]) / (TWO * off)
    t = F(math.copysign(ONE, theta)) / (abs(theta) + math.sqrt(theta * theta + ONE))
    c = ONE / math.sqrt(t * t + ONE)
    s = t * c
    for k in range(3):
        one, other = a[k, p], a[k, q]
        a[k, p], a[k, q] = c * one - s * other, s * one + c * other
    for k in range(3):
        one, other = a[p, k], a[q, k]
        a[p, k], a[q, k] = c * one - s * other, s * one + c * other
    for k in range(3):
        one, other = v[k, p], v[k, q]
        v[k, p], v[k, q] = c * one - s * other, s * one + c * other


@kernel
def widen(cholesky: Array, spacing: Array, narrowest: F) -> None:
    """Give Gaussians the standard deviation `narrowest`, in voxels, where they have less."""
    k = cuda.grid(1)
    a = cuda.local.array(MATRIX, np.float32)
    v = cuda.local.array(MATRIX, np.float32)
    if k >= cholesky.shape[0]:
        return
    sz, sy, sx = spacing[0], spacing[1], spacing[2]
    l00 = F(math.exp(cholesky[k, 0])) / sz
    l10, l11 = cholesky[k, 1] / sy, F(math.exp(cholesky[k, 2])) / sy
    l20, l21, l22 = cholesky[k, 3] / sx, cholesky[k, 4] / sx, F(math.exp(cholesky[k, 5])) / sx
    i00, i11, i22 = ONE / l00, ONE / l11, ONE / l22
    i10, i21 = -l10 * i00 * i11, -l21 * i11 * i22
    i20 = -(l20 * i00 + l21 * i10) * i22
    # The smallest singular value is no less than 1 / |L^-1|: most need no closer look.
    squares = i00 * i00 + i10 * i10 + i11 * i11 + i20 * i20 + i21 * i21 + i22 * i22
    floor = narrowest * narrowest
    if squares * floor <= ONE:
        return
    a[0, 0], a[0, 1], a[0, 2] = l00 * l00, l00 * l10, l00 * l20
    a[1, 0], a[1, 1], a[1, 2] = l00 * l10, l10 * l10 + l11 * l11, l10 * l20 + l11 * l21
    a[2, 0], a[2, 1] = l00 * l20, l10 * l20 + l11 * l21
    a[2, 2] = l20 * l20 + l21 * l21 + l22 * l22
    for i in range(3):
        for j in range(3):
            v[i, j] = ONE if i == j else ZERO
    for _ in range(SWEEPS):
        rotate(a, v, INT(0), INT(1))
        rotate(a, v, INT(0), INT(2))
        rotate(a, v, INT(1), INT(2))
    if min(a[0, 0], a[1, 1], a[2, 2]) >= floor:
        return
    e0, e1, e2 = max(a[0, 0], floor), max(a[1, 1], floor), max(a[2, 2], floor)
    for i in range(3):
        for j in range(i + 1):
            a[i, j] = e0 * v[i, 0] * v[j, 0] + e1 * v[i, 1] * v[j, 1] + e2 * v[i, 2] * v[j, 2]
    l00 = math.sqrt(a[0, 0])
    l10, l20 = a[1, 0] / l00, a[2, 0] / l00
    l11 = math.sqrt(a[1, 1] - l10 * l10)
    l21 = (a[2, 1] - l20 * l10) / l11
    l22 = math.sqrt(a[2, 2] - l20 * l20 - l21 * l21)
    cholesky[k, 0], cholesky[k, 1], cholesky[k, 2] = (
        math.log(l00 * sz),
        l10 * sy,
        math.log(l11 * sy),
    )
    cholesky[k, 3], cholesky[k, 4], cholesky[k, 5] = l20 * sx, l21 * sx, math.log(l22 * sx)
