"""What a relocation asks of a CUDA device: where most is missing, what is missed least, and moving.

Nothing waits for the device: all that comes between stays there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from napari_gaussfit._kernels.cuda import match_kernels, overlap_kernels
from napari_gaussfit._kernels.cuda.device import launch
from napari_gaussfit._kernels.cuda.gaussians import THREADS, blocks_of, whole_numbers
from napari_gaussfit._kernels.cuda.overlap_kernels import STAYS, WARP
from napari_gaussfit._kernels.shared.overlaps import NEIGHBOURS

if TYPE_CHECKING:
    from collections.abc import Sequence

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
        (dz, dy, dx).
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
        Indices of voxels.
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
        How many leave.
    """

    goes_to: Tensor
    moved: Tensor


def _over(count: int, kernel: object, *given: object) -> None:
    """Run a kernel that has a thread for each of `count` voxels."""
    launch(kernel, (blocks_of(count, VOXEL_THREADS),), VOXEL_THREADS, *given)


def missing(voxels: Tensor, first: Tensor, background: Tensor, prediction: Tensor) -> Tensor:
    """Return what a field [P, Y, X] and a background lack of a stack's planes from `first` [1]."""
    lacks = torch.empty_like(prediction)
    given = (voxels, first, background, prediction, lacks)
    _over(lacks.numel(), match_kernels.add_missing, *given)
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
            _over(count, match_kernels.smooth, *given)
            source = goal
        won = (filters.worths, np.int32(n), gains.view(-1), which)
        _over(count, match_kernels.match, filtered.view(-1), *won)
    _over(count, match_kernels.keep_maxima, gains, filters.reach, filtered)
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
    blocks = (blocks_of(count, THREADS),)
    launch(overlap_kernels.spread, blocks, THREADS, means, cholesky, mu, sigma, volume)
    near = min(NEIGHBOURS, count - 1)
    neighbours = whole_numbers(means.device, count, near)
    launch(overlap_kernels.nearest, (blocks_of(count, WARP),), WARP, means, neighbours)
    costs, shares = doubles(count), doubles(count, near)
    given = (mu, sigma, volume, neighbours, amplitudes, scale, costs, shares)
    launch(overlap_kernels.removal_costs, (count,), WARP, *given)
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
        Changed.
    """
    cheapest = costs.sort(stable=True)
    order = cheapest.indices.int()
    stays = torch.zeros_like(order)
    found = Leaving(torch.full_like(order, STAYS), stays.new_zeros(1))
    given = (order, cheapest.values, gains, *neighbours, *bounds, amplitudes, stays)
    launch(overlap_kernels.choose, (1,), WARP, *given, found.goes_to, found.moved)
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
        overlap_kernels.put_down,
        (blocks_of(len(leaving.goes_to), THREADS),),
        THREADS,
        leaving.goes_to,
        leaving.moved,
        least,
        slab.first,
        slab.shape,
        slab.spacing,
        found.places,
        found.gains,
        found.which,
        filters.worths,
        filters.widths,
        *gaussians,
        *moments,
    )
