"""What a relocation asks of a CUDA device: where most is missing, what is missed least, and moving.

Kernels, and what launches them. Nothing waits for the device: all that comes between stays there.
Places are found by a matched filter, a thread a voxel; costs are in double precision, as on the
CPU: they are small differences of large numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numba import cuda
from torch import Tensor

from napari_gaussfit._kernels.cuda.device import (
    GAUSSIAN_THREADS,
    Counts,
    U,
    blocks_of,
    device,
    kernel,
    launch,
    whole_numbers,
)
from napari_gaussfit._kernels.shared.gaussian import (
    DAMPING,
    INT,
    NEIGHBOURS,
    ONE,
    ZERO,
    Array,
    Array64,
    F,
    overlap,
)

if TYPE_CHECKING:
    from collections.abc import Sequence


@kernel
def add_missing(
    voxels: Array, first_plane: Counts, background: Array, prediction: Array, residual: Array
) -> None:
    """Set `residual` [C, P, Y, X] to what a field lacks on as many planes of a stack.

    voxels : [C, Z, Y, X]; first_plane : [1]; background : [C]; prediction : [C, P, Y, X], without
    background.
    """
    i, c = INT(cuda.grid(1)), cuda.blockIdx.y
    depth, rows, columns = INT(residual.shape[1]), INT(residual.shape[2]), INT(residual.shape[3])
    if i < depth * rows * columns:
        x, y, z = i % columns, (i // columns) % rows, i // (columns * rows)
        known = voxels[c, first_plane[0] + z, y, x]
        residual[c, z, y, x] = known - (prediction[c, z, y, x] + background[c])


@kernel
def smooth(
    source: Array, length: np.int32, stride: np.int32, weights: Array, smoothed: Array
) -> None:
    """Filter a volume [V] along an axis by `weights` of odd length; beyond its ends is nothing.

    length, stride : voxels along the axis, and from one to the next.
    """
    i, step = U(cuda.grid(1)), U(stride)
    if i < source.size:
        n, reach = U(U(i // step) % U(length)), U(weights.shape[0] // 2)
        m, end, total = U(0), U(min(U(U(2) * reach + U(1)), U(U(length) + reach - n))), ZERO
        if n < reach:
            m = U(reach - n)
        at = U(i + U(m * step) - U(reach * step))
        while m < end:
            total += weights[m] * source[at]
            m, at = U(m + U(1)), U(at + step)
        smoothed[i] = total


@kernel
def match(
    filtered: Array, worths: Array, index: np.int32, gains: Array, shapes: np.ndarray
) -> None:
    """Raise `gains` [N] where filter `index` wins more, and say so in `shapes` [N].

    filtered : [N]; worths : [S], of the square of what each filter gives.
    """
    i = INT(cuda.grid(1))
    if i < filtered.size:
        positive = max(filtered[i], ZERO)
        gain = worths[index] * positive * positive
        if gain > gains[i]:
            gains[i] = gain
            shapes[i] = index


@kernel
def keep_maxima(gains: Array, reach: Counts, kept: Array) -> None:
    """Set `kept` [Z, Y, X] to the gains that none within `reach` [3] exceeds, and 0 elsewhere."""
    i = INT(cuda.grid(1))
    depth, rows, columns = INT(gains.shape[0]), INT(gains.shape[1]), INT(gains.shape[2])
    if i >= gains.size:
        return
    x, y, z = i % columns, (i // columns) % rows, i // (columns * rows)
    gain = gains[z, y, x]
    largest = gain
    left, right = max(INT(0), x - reach[2]), min(columns, x + reach[2] + INT(1))
    if gain > ZERO:
        for k in range(max(INT(0), z - reach[0]), min(depth, z + reach[0] + INT(1))):
            for j in range(max(INT(0), y - reach[1]), min(rows, y + reach[1] + INT(1))):
                if largest <= gain:  # or it is beaten already
                    for m in range(left, right):
                        largest = max(largest, gains[k, j, m])
    kept[z, y, x] = gain if largest <= gain else ZERO


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
def cost_of_each(
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
def put_each_down(
    leaving: tuple[Counts, Counts],
    least: Array,
    slab: tuple[Counts, Counts, Array64],
    sites: tuple[Counts, Array, np.ndarray],
    filters: tuple[Array, Array],
    gaussians: tuple[Array, Array, Array],
    moments: tuple[Array, Array, Array],
) -> None:
    """Put Gaussians where they go to, a thread each; their moments are forgotten.

    leaving : where each goes to [K], and how many move [1].
    least : [1], amplitude of the others at least, where any moves.
    slab : first plane [1], shape [3] and spacing [3] of the volume that places are in.
    sites : indices of its voxels [N], what each wins [N], and of each voxel the filter that wins
        most.
    filters : of each the worth of a square [S], and the Cholesky parameters [S, 6].
    """
    k = cuda.grid(1)
    goes_to, moved = leaving
    if k >= goes_to.shape[0] or moved[0] == 0:
        return
    means, cholesky, amplitudes = gaussians
    n = goes_to[k]
    if n == STAYS:
        amplitudes[k] = max(amplitudes[k], least[0])
        return
    first_plane, shape, spacing = slab
    places, gains, which = sites
    worths, widths = filters
    first, second, age = moments
    i = places[n]
    columns, rows = shape[2], shape[1]
    means[k, 0] = F((i // (columns * rows) + first_plane[0]) * spacing[0])
    means[k, 1] = F((i // columns) % rows * spacing[1])
    means[k, 2] = F(i % columns * spacing[2])
    chosen = which[i]
    amplitudes[k] = ROOT_EIGHT * F(math.sqrt(gains[n] / worths[chosen]))
    for m in range(CHOLESKY):
        cholesky[k, m] = widths[chosen, m]
    for m in range(first.shape[1]):
        first[k, m], second[k, m] = ZERO, ZERO
    age[k] = ZERO


@device
def mirrored(i: INT, size: INT) -> INT:
    """Return the voxel of `size` that stands for i: beyond its ends a volume is its own mirror."""
    m = ((i % (INT(2) * size)) + INT(2) * size) % (INT(2) * size)
    return min(m, INT(2) * size - INT(1) - m)


@kernel
def light_each(
    goes_to: Counts,
    places: Counts,
    residual: Array,
    smoothing: tuple[Array, Array, Array],
    shares: tuple[F, F],
    heights: Array,
    amplitudes: Array,
) -> None:
    """Set `amplitudes` [C, K] of Gaussians that were put down, a thread for each and channel.

    To a part of the channel's residual there, smoothed; but of the `heights` [K] that they were
    put down with for all channels together, a part at least: `shares` are both.
    residual : [C, P, Y, X]; smoothing : weights along z, y and x, of odd length.
    """
    k, c = cuda.grid(1), cuda.blockIdx.y
    if k >= goes_to.shape[0] or goes_to[k] == STAYS:
        return
    i = places[goes_to[k]]
    depth, rows, columns = INT(residual.shape[1]), INT(residual.shape[2]), INT(residual.shape[3])
    z, y, x = i // (columns * rows), (i // columns) % rows, i % columns
    along_z, along_y, along_x = smoothing
    reach_z, reach_y = INT(along_z.shape[0] // 2), INT(along_y.shape[0] // 2)
    reach_x = INT(along_x.shape[0] // 2)
    total = ZERO
    for a in range(INT(along_z.shape[0])):
        plane = residual[c, mirrored(z + INT(a) - reach_z, depth)]
        of_plane = ZERO
        for b in range(INT(along_y.shape[0])):
            row = plane[mirrored(y + INT(b) - reach_y, rows)]
            of_row = ZERO
            for d in range(INT(along_x.shape[0])):
                of_row += along_x[d] * row[mirrored(x + INT(d) - reach_x, columns)]
            of_plane += along_y[b] * of_row
        total += along_z[a] * of_plane
    amplitudes[c, k] = max(shares[0] * total, shares[1] * heights[k])


Tensors = tuple[Tensor, Tensor, Tensor]
VOXEL_THREADS = 256  # of a block whose threads each have a voxel


@dataclass(frozen=True, eq=False)
class Slab:
    """Planes of a stack, on a device.

    Parameters
    ----------
    first : Tensor, shape [1], int32
        The first of them in the stack.
    shape : Tensor, shape [3], int32
        Of the planes together.
    spacing : Tensor, shape [3], float64
        The distance between voxel centres along z, y and x, in the stack's unit.
    """

    first: Tensor
    shape: Tensor
    spacing: Tensor


@dataclass(frozen=True, eq=False)
class Filters:
    """Filters of a matched filter, and what each puts down; see `relocation`.

    Parameters
    ----------
    along : sequence of tuple of Tensor
        Along z, y and x, of each.
    worths : Tensor, shape [S]
        What the square of a residual filtered by each counts.
    widths : Tensor, shape [S, 6]
        Cholesky parameters of what is put down.
    reach : Tensor, shape [3], int32
        Voxels (z, y, x) to either side in which only the best place counts.
    """

    along: Sequence[Tensors]
    worths: Tensor
    widths: Tensor
    reach: Tensor


@dataclass(frozen=True, eq=False)
class Sites:
    """Places that lack a Gaussian, those that win most first.

    Parameters
    ----------
    places : Tensor, shape [N], int32
        Indices of the voxels that may get a Gaussian.
    gains : Tensor, shape [N]
        What each wins; 0 where there are fewer places.
    which : Tensor, shape [V], uint8
        By voxel, the filter that wins most.
    """

    places: Tensor
    gains: Tensor
    which: Tensor


@dataclass(frozen=True, eq=False)
class Leaving:
    """Which Gaussians leave.

    Parameters
    ----------
    goes_to : Tensor, shape [K], int32
        The number of a Gaussian's new place, `STAYS` for most.
    moved : Tensor, shape [1], int32
        How many Gaussians leave their places.
    """

    goes_to: Tensor
    moved: Tensor


def _over(count: int, kernel: object, *given: object) -> None:
    """Run a kernel that has a thread for each of `count` voxels."""
    launch(kernel, (blocks_of(count, VOXEL_THREADS),), VOXEL_THREADS, *given)


def missing(voxels: Tensor, first: Tensor, background: Tensor, prediction: Tensor) -> Tensor:
    """Return what a field [C, P, Y, X] and backgrounds [C] lack of planes from `first` [1] on.

    `voxels` are the stack's [C, Z, Y, X].
    """
    lacks = torch.empty_like(prediction)
    blocks = (blocks_of(lacks[0].numel(), VOXEL_THREADS), len(lacks))
    launch(add_missing, blocks, VOXEL_THREADS, voxels, first, background, prediction, lacks)
    return lacks


def sites(residual: Tensor, filters: Filters, most: int) -> Sites:
    """Return where one more Gaussian would win most; see `relocation.sites`."""
    count, device = residual.numel(), residual.device
    gains = torch.zeros_like(residual)
    which = torch.zeros(count, dtype=torch.uint8, device=device)
    filtered, spare = torch.empty_like(residual), torch.empty_like(residual)
    for n, along in enumerate(filters.along):
        source = residual
        for axis, goal in enumerate((filtered, spare, filtered)):
            line = np.int32(residual.shape[axis]), np.int32(residual.stride(axis))
            given = (source.view(-1), *line, along[axis], goal.view(-1))
            _over(count, smooth, *given)
            source = goal
        won = (filters.worths, np.int32(n), gains.view(-1), which)
        _over(count, match, filtered.view(-1), *won)
    _over(count, keep_maxima, gains, filters.reach, filtered)
    ordered = filtered.view(-1).sort(descending=True, stable=True)
    places = ordered.indices[:most].int()
    return Sites(places, ordered.values[:most].contiguous(), which)


def removal_costs(means: Tensor, cholesky: Tensor, amplitudes: Tensor, scale: Tensor) -> Tensors:
    """Return what it costs to take each Gaussian away; see `relocation.removal_costs`.

    Returns
    -------
    costs : Tensor, shape [K]
        `scale` [1] times squared amplitude times the integral over (2 pi)^(3/2).
    neighbours, shares : Tensor, shape [K, M]
        Nearest Gaussians, and what each takes over.
    """
    count = len(means)

    def doubles(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.float64, device=means.device)

    mu, sigma, volume = doubles(count, 3), doubles(count, 6), doubles(count)
    blocks = (blocks_of(count, GAUSSIAN_THREADS),)
    launch(spread, blocks, GAUSSIAN_THREADS, means, cholesky, mu, sigma, volume)
    near = min(NEIGHBOURS, count - 1)
    neighbours = whole_numbers(means.device, count, near)
    launch(nearest, (blocks_of(count, WARP),), WARP, means, neighbours)
    costs, shares = doubles(count), doubles(count, near)
    given = (mu, sigma, volume, neighbours, amplitudes, scale, costs, shares)
    launch(cost_of_each, (count,), WARP, *given)
    return costs, neighbours, shares


def leaving(
    costs: Tensor,
    gains: Tensor,
    neighbours: tuple[Tensor, Tensor],
    bounds: tuple[Tensor, Tensor],
    amplitudes: Tensor,
) -> Leaving:
    """Choose which Gaussians leave; their neighbours' `amplitudes` take over, in place.

    Parameters
    ----------
    costs, gains : Tensor, shape [K], [N]
        Of Gaussians, and of the places that they may go to.
    neighbours : tuple of Tensor
        As of `removal_costs`, and their shares.
    bounds : tuple of Tensor, shape [1]
        How many Gaussians, the first ones, stay; the share from which on a neighbour does.
    amplitudes : Tensor, shape [K]
        The amplitudes, which the kernel changes.
    """
    cheapest = costs.sort(stable=True)
    order = cheapest.indices.int()
    stays = torch.zeros_like(order)
    found = Leaving(torch.full_like(order, STAYS), stays.new_zeros(1))
    given = (order, cheapest.values, gains, *neighbours, *bounds, amplitudes, stays)
    launch(choose, (1,), WARP, *given, found.goes_to, found.moved)
    return found


def put_down(
    leaving: Leaving,
    found: Sites,
    slab: Slab,
    filters: Filters,
    least: Tensor,
    gaussians: Tensors,
    moments: Tensors,
) -> None:
    """Put those that leave down in their places, in place, and forget their moments.

    Where any leaves, the amplitudes of all others are raised to `least` [1].
    """
    launch(
        put_each_down,
        (blocks_of(len(leaving.goes_to), GAUSSIAN_THREADS),),
        GAUSSIAN_THREADS,
        (leaving.goes_to, leaving.moved),
        least,
        (slab.first, slab.shape, slab.spacing),
        (found.places, found.gains, found.which),
        (filters.worths, filters.widths),
        gaussians,
        moments,
    )


def light(
    leaving: Leaving,
    found: Sites,
    residual: Tensor,
    smoothing: Tensors,
    shares: tuple[float, float],
    heights: Tensor,
    amplitudes: Tensor,
) -> None:
    """Set `amplitudes` [C, K] of those that were put down, in place; see `light_each`."""
    launch(
        light_each,
        (blocks_of(len(heights), GAUSSIAN_THREADS), len(amplitudes)),
        GAUSSIAN_THREADS,
        leaving.goes_to,
        found.places,
        residual,
        smoothing,
        (np.float32(shares[0]), np.float32(shares[1])),
        heights,
        amplitudes,
    )
