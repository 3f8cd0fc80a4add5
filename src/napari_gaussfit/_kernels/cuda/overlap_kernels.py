"""CUDA kernels of a relocation: what taking Gaussians away costs, which go, and where to.

Costs are in double precision, as on the CPU: they are small differences of large numbers.
"""

from __future__ import annotations

import math

import numpy as np
from numba import cuda

from napari_gaussfit._kernels.cuda.device import Counts, U, kernel
from napari_gaussfit._kernels.shared.adam import COORDINATES
from napari_gaussfit._kernels.shared.gaussian import INT, ONE, ZERO, Array, F
from napari_gaussfit._kernels.shared.overlaps import DAMPING, NEIGHBOURS, Array64, overlap

WARP = 32  # threads of a block here, one for each neighbour and more
EQUATIONS = (NEIGHBOURS, NEIGHBOURS + 1)  # a column more spares bank conflicts
PLACES = (WARP, 3)
CHOLESKY = 6
FAR = F(np.inf)
STAYS = -1  # of `goes_to`
ROOT_EIGHT = F(2**1.5)


@kernel
def spread(means: Array, cholesky: Array, mu: Array64, sigma: Array64, volume: Array64) -> None:
    """Set means, triangles of covariances and determinants of factors as `overlap` takes them."""
    k = cuda.grid(1)
    if k >= means.shape[0]:
        return
    for n in range(3):
        mu[k, n] = means[k, n]
    a, c = np.float64(F(math.exp(cholesky[k, 0]))), np.float64(F(math.exp(cholesky[k, 2])))
    f = np.float64(F(math.exp(cholesky[k, 5])))
    b, d, e = np.float64(cholesky[k, 1]), np.float64(cholesky[k, 3]), np.float64(cholesky[k, 4])
    sigma[k, 0], sigma[k, 1], sigma[k, 2] = a * a, a * b, b * b + c * c
    sigma[k, 3], sigma[k, 4], sigma[k, 5] = a * d, b * d + c * e, d * d + e * e + f * f
    volume[k] = a * c * f


@kernel
def nearest(means: Array, neighbours: Counts) -> None:
    """Set `neighbours` [K, M] to the indices of each Gaussian's nearest others, in any order.

    A thread for each: all others pass by in shared memory, and it keeps M of them.
    """
    places = cuda.shared.array(PLACES, np.float32)
    squares = cuda.local.array(NEIGHBOURS, np.float32)
    found = cuda.local.array(NEIGHBOURS, np.int32)
    k, thread, count = INT(cuda.grid(1)), cuda.threadIdx.x, INT(means.shape[0])
    most, own = neighbours.shape[1], min(k, count - INT(1))
    z, y, x = means[own, 0], means[own, 1], means[own, 2]
    # All loops over what is kept are of constant length: it stays in registers.
    for m in range(NEIGHBOURS):
        squares[m], found[m] = FAR if m < most else ZERO, own
    farthest, slot = FAR, INT(0)
    for start in range(INT(0), count, INT(WARP)):
        cuda.syncthreads()
        other = min(INT(start) + INT(thread), count - INT(1))
        for n in range(3):
            places[thread, n] = means[other, n]
        cuda.syncthreads()
        at, end = U(0), U(min(INT(WARP), count - INT(start)))
        while at < end:
            dz, dy, dx = places[at, 0] - z, places[at, 1] - y, places[at, 2] - x
            square = dz * dz + dy * dy + dx * dx
            other = INT(start) + INT(at)
            at = U(at + U(1))
            if square < farthest and other != own:
                replaced, farthest = slot, -ONE
                for m in range(NEIGHBOURS):
                    if m == replaced:
                        squares[m], found[m] = square, other
                    if squares[m] > farthest:
                        farthest, slot = squares[m], INT(m)
    if k < count:
        for m in range(NEIGHBOURS):
            if m < most:
                neighbours[k, m] = found[m]


@kernel
def removal_costs(
    mu: Array64,
    sigma: Array64,
    volume: Array64,
    neighbours: Counts,
    amplitudes: Array,
    scale: Array64,
    costs: Array64,
    shares: Array64,
) -> None:
    """Set `costs` [K] and `shares` [K, M]: a block a Gaussian, a thread a row of its equations.

    A cost is `scale` [1] times the amplitude's square times what `cpu.relocation_kernels` says.
    """
    gram = cuda.shared.array(EQUATIONS, np.float64)
    y = cuda.shared.array(NEIGHBOURS, np.float64)
    solution = cuda.shared.array(NEIGHBOURS, np.float64)
    k, row, count = cuda.blockIdx.x, cuda.threadIdx.x, neighbours.shape[1]
    for pair in range(row, count * count, WARP):
        m = pair // count
        n = pair - m * count
        if n <= m:
            gram[m, n] = overlap(mu, sigma, volume, neighbours[k, m], neighbours[k, n])
            if n == m:
                gram[m, m] *= 1.0 + DAMPING
    s = 0.0
    if row < count:
        s = overlap(mu, sigma, volume, k, neighbours[k, row])
    cuda.syncthreads()
    # Cholesky's factor in place, column by column; then the two triangular solutions.
    for n in range(count):
        rest = 0.0
        if n <= row < count:
            rest = gram[row, n]
            for p in range(n):
                rest -= gram[row, p] * gram[n, p]
        if row == n:
            gram[n, n] = math.sqrt(max(rest, DAMPING * DAMPING * gram[n, n]))
        cuda.syncthreads()
        if n < row < count:
            gram[row, n] = rest / gram[n, n]
        cuda.syncthreads()
    for p in range(count):
        if row == p:
            y[p] = s / gram[p, p]
        cuda.syncthreads()
        if p < row < count:
            s -= gram[row, p] * y[p]
    if row < count:
        s = y[row]
    for p in range(count - 1, -1, -1):
        if row == p:
            solution[p] = s / gram[p, p]
            shares[k, p] = solution[p]
        cuda.syncthreads()
        if row < p:
            s -= gram[p, row] * solution[p]
    if row == 0:
        explained = 0.0
        for p in range(count):
            explained += y[p] * y[p]
        amplitude = np.float64(amplitudes[k])
        alone = overlap(mu, sigma, volume, k, k)
        costs[k] = scale[0] * amplitude * amplitude * max(alone - explained, 0.0)


@kernel
def choose(
    order: Counts,
    costs: Array64,
    gains: Array,
    neighbours: Counts,
    shares: Array64,
    kept: Counts,
    close: Array64,
    amplitudes: Array,
    stays: Counts,
    goes_to: Counts,
    moved: Counts,
) -> None:
    """Choose which Gaussians leave, the cheapest first, as long as more is won than given up.

    By one block, as each choice depends on those before; neighbours take over at once.

    order, costs : [K], the smallest cost first.
    gains : [N], the largest first, 0 where there is no more place.
    kept, close : [1], how many stay anyway; the share from which on a neighbour stays.
    stays : [K], zeros to begin with. goes_to : [K], of those that leave set to a place's number.
    moved : [1], how many leave.
    """
    thread, count, near = INT(cuda.threadIdx.x), INT(costs.shape[0]), neighbours.shape[1]
    leaving = INT(0)
    for n in range(count):
        k = order[n]
        if leaving == gains.shape[0] or costs[n] >= gains[leaving]:
            break
        if k < kept[0] or stays[k] != 0:
            continue
        if thread == 0:
            goes_to[k] = leaving
        if thread < near:
            share, i = shares[k, thread], neighbours[k, thread]
            amplitudes[i] += F(share * amplitudes[k])
            if abs(share) > close[0]:
                stays[i] = INT(1)
        leaving += INT(1)
        cuda.syncthreads()
    if thread == 0:
        moved[0] = leaving


@kernel
def put_down(
    goes_to: Counts,
    moved: Counts,
    least: Array,
    first_plane: Counts,
    shape: Counts,
    spacing: Array64,
    places: Counts,
    gains: Array,
    which: np.ndarray,
    worths: Array,
    widths: Array,
    means: Array,
    cholesky: Array,
    amplitudes: Array,
    first: Array,
    second: Array,
    age: Array,
) -> None:
    """Put Gaussians where they go to, a thread each; their moments are forgotten.

    least : [1], amplitude of the others at least, where any was `moved` [1].
    first_plane, shape, spacing : [1], [3], [3], of the volume that places are in.
    places, gains : [N], indices of its voxels, and what each wins.
    which : of each voxel, the filter that wins most. worths, widths : [S] and [S, 6], of filters
    the worth of a square, and the Cholesky parameters.
    """
    k = cuda.grid(1)
    if k >= goes_to.shape[0] or moved[0] == 0:
        return
    n = goes_to[k]
    if n == STAYS:
        amplitudes[k] = max(amplitudes[k], least[0])
        return
    i = places[n]
    columns, rows = shape[2], shape[1]
    means[k, 0] = F((i // (columns * rows) + first_plane[0]) * spacing[0])
    means[k, 1] = F((i // columns) % rows * spacing[1])
    means[k, 2] = F(i % columns * spacing[2])
    chosen = which[i]
    amplitudes[k] = ROOT_EIGHT * F(math.sqrt(gains[n] / worths[chosen]))
    for m in range(CHOLESKY):
        cholesky[k, m] = widths[chosen, m]
    for m in range(COORDINATES):
        first[k, m], second[k, m] = ZERO, ZERO
    age[k] = ZERO
