"""Relocation: the Gaussians that a field misses least move to where most is missing.

Both are measured by the squared residual summed over the voxels: how much it rises when a Gaussian
is taken away and its neighbours make up for it, and how much it falls with one more Gaussian.
Changes a field in place; the optimiser forgets the moments of the rows that moved, and no others'.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial, reduce
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_gaussfit._kernels.shared.gaussian import NEIGHBOURS
from napari_gaussfit.fitting.seeding import DIMMEST as DIMMEST_SEED
from napari_gaussfit.model.field import GaussianField
from napari_gaussfit.stacks.statistics import smoothed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from napari_gaussfit.fitting.state import Tensors

    Filter = NDArray[np.float32]
    Triple = tuple[float, float, float]

SHAPES = ((0.8, 0.8, 0.8), (1.0, 1.5, 1.5), (1.6, 2.4, 2.4), (2.5, 4.0, 4.0))
"""Sigmas in voxels (z, y, x) that a Gaussian may begin with at its new place."""

APART = (1, 2, 2)
"""Voxels (z, y, x) to either side of a place in which no other place is better."""

CLOSE = 0.1
"""Largest share by which a Gaussian may make up for another that moves in the same relocation: the
second's cost is another once the first is gone."""

DIMMEST = 1e-6
"""Least amplitude of a Gaussian that makes up for others, in parts of the largest amplitude."""

PER_WORKER = 500
"""Gaussians whose neighbours one thread finds sooner than another has begun."""

RELOCATED_SHARE = 0.5
"""Part of a channel's residual at its place that a Gaussian of several channels begins with, where
it is put down."""


@dataclass(frozen=True, eq=False)
class Sites:
    """Places where one more Gaussian lowers the squared residual, the best first.

    Parameters
    ----------
    voxels : ndarray, shape [N, 3]
        Positions (z, y, x) in voxels.
    sigmas : ndarray, shape [N, 3]
        Best of `SHAPES` at each, in voxels.
    amplitudes : ndarray, shape [N]
        Best amplitude at each.
    gains : ndarray, shape [N]
        Fall of the squared residual, summed over voxels, with that Gaussian.
    """

    voxels: NDArray[np.int64]
    sigmas: NDArray[np.float64]
    amplitudes: NDArray[np.float32]
    gains: NDArray[np.float32]


def removal_costs(field: GaussianField) -> tuple[Tensor, Tensor, Tensor]:
    """Return by how much the squared residual rises when each Gaussian is taken away.

    The optimal brain surgeon (Hassibi and Stork, 1993): the amplitudes of the nearest Gaussians
    are solved anew without it. Exact for these neighbours, an upper bound where all may follow.

    Parameters
    ----------
    field : GaussianField
        The field of K Gaussians whose removal is priced.

    Returns
    -------
    costs : Tensor, shape [K]
        Integral of the squared change of the field, in squared intensity times `unit` cubed.
    neighbours : Tensor, shape [K, M]
        Indices of the nearest Gaussians.
    shares : Tensor, shape [K, M]
        Rise of each neighbour's amplitude, in parts of the lost Gaussian's.
    """
    from scipy.spatial import KDTree

    from napari_gaussfit import _threads as threads
    from napari_gaussfit._kernels.cpu import relocation_kernels

    count = len(field)
    mu = field.means.double().numpy()
    lower = field.factors.double()
    sigma = (lower @ lower.transpose(-1, -2))[:, *torch.tril_indices(3, 3)].contiguous().numpy()
    volume = torch.diagonal(lower, dim1=-2, dim2=-1).prod(-1).contiguous().numpy()
    near = min(NEIGHBOURS, count - 1)
    workers = min(threads.thread_count(), 1 + count // PER_WORKER)
    found = KDTree(mu).query(mu, k=range(1, near + 2), workers=workers)[1]
    # Of two at the same place either may come first.
    itself = found == np.arange(count)[:, None]
    itself[~itself.any(1), -1] = True
    neighbours = np.ascontiguousarray(found[~itself].reshape(count, near), np.int64)
    costs, shares = np.empty(count), np.empty((count, near))

    def task(first: int, end: int) -> None:
        relocation_kernels.removal_costs(mu, sigma, volume, neighbours, costs, shares, first, end)

    threads.run_pieces(task, count)
    weight = (2 * np.pi) ** 1.5 * field.amplitudes.double() ** 2
    return weight * torch.from_numpy(costs), torch.from_numpy(neighbours), torch.from_numpy(shares)


def sites(residual: NDArray[np.float32], most: int) -> Sites:
    """Return where one more Gaussian would take most off a squared residual.

    A matched filter for the residual r: of Gaussians g of amplitude 1 in a few shapes, the one with
    the largest <r, g>^2 / <g, g>; its best amplitude is <r, g> / <g, g>. Only positive ones count.

    Parameters
    ----------
    residual : ndarray, shape [Z, Y, X]
        The stack minus the field, in working units.
    most : int
        Largest number of places.

    Returns
    -------
    Sites
        Local maxima of the gain, the largest first.
    """
    from napari_gaussfit import _threads as threads
    from napari_gaussfit._kernels.cpu import relocation_kernels

    residual = np.ascontiguousarray(residual, np.float32)
    gains = np.empty(residual.shape, np.float32)
    which = np.empty(residual.shape, np.uint8)
    top = np.empty(residual.shape, np.bool_)
    shaped = tuple(filters(shape) for shape in SHAPES)
    worths = np.array([worth(shape) for shape in SHAPES])
    for task in (
        partial(relocation_kernels.match_planes, residual, shaped, worths, gains, which),
        partial(relocation_kernels.mark_maxima, gains, APART, top),
    ):
        threads.run_pieces(task, len(residual))
    places = np.flatnonzero(top)
    gain = gains.reshape(-1)[places]
    best = np.argsort(-gain, kind="stable")[:most]
    places, gain = places[best], gain[best]
    chosen = which.reshape(-1)[places]
    voxels = np.stack(np.unravel_index(places, residual.shape), 1)
    amplitudes = 2**1.5 * np.sqrt(gain / worths[chosen])
    return Sites(voxels, np.asarray(SHAPES)[chosen], amplitudes, gain)


def filters(shape: Triple) -> tuple[Filter, Filter, Filter]:
    """Return the weights of a Gaussian filter along z, y and x, out to three sigmas.

    Parameters
    ----------
    shape : tuple of float
        Sigmas (z, y, x) in voxels.

    Returns
    -------
    tuple of ndarray
        Weights along each axis, of odd length and sum 1.
    """
    made = []
    for sigma in shape:
        reach = int(3 * sigma + 0.5)
        values = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
        made.append((values / values.sum()).astype(np.float32))
    return made[0], made[1], made[2]


def worth(shape: Triple) -> np.float32:
    """Return the gain of a Gaussian of a shape where the residual filtered by it is 1.

    The gain is <r, g>^2 / <g, g>, where <r, g> is the filtered residual times (2 pi)^(3/2) s, and
    <g, g> is pi^(3/2) s, with s the product of the three sigmas: (4 pi)^(3/2) s.

    Parameters
    ----------
    shape : tuple of float
        Sigmas (z, y, x) in voxels.

    Returns
    -------
    numpy.float32
        Fall of the squared residual, summed over voxels.
    """
    return np.float32((4 * np.pi) ** 1.5 * np.prod(shape))


def relocate(
    field: GaussianField,
    residual: NDArray[np.float32],
    spacing: Sequence[float],
    most: int,
    *,
    first_plane: int = 0,
    kept: int = 0,
) -> Tensor:
    """Move the Gaussians that are missed least to where most is missing, in place.

    The one whose loss costs least goes to the place with the largest gain, the next to the next, as
    long as the gain exceeds the cost. Neighbours make up for those that leave.

    Parameters
    ----------
    field : GaussianField
        The Gaussians, changed in place; intensities in the residual's unit.
    residual : ndarray, shape [Z, Y, X]
        The stack minus the field, in working units.
    spacing : sequence of float
        Voxel spacing (dz, dy, dx).
    most : int
        Largest number of Gaussians to move.
    first_plane : int
        Plane of the stack at which the residual begins.
    kept : int
        Number of Gaussians, the first ones, that stay where they are.

    Returns
    -------
    Tensor
        Indices [M] of the Gaussians moved.
    """
    if not most or len(field) < 2:
        return torch.zeros(0, dtype=torch.int64)
    step = np.asarray(spacing, np.float64)
    found = sites(residual, most)
    costs, neighbours, shares = removal_costs(field)
    costs /= step.prod()
    stays = torch.arange(len(field)) < kept
    leaving: list[int] = []
    for k in torch.argsort(costs, stable=True).tolist():
        if len(leaving) == len(found.gains) or costs[k] >= found.gains[len(leaving)]:
            break
        if stays[k]:
            continue
        leaving.append(k)
        field.amplitudes[neighbours[k]] += (shares[k] * field.amplitudes[k]).float()
        stays[neighbours[k][shares[k].abs() > CLOSE]] = True
        stays[k] = True
    moved = torch.tensor(leaving, dtype=torch.int64)
    if not leaving:
        return moved
    field.amplitudes.clamp_(min=DIMMEST * float(field.amplitudes.max()))
    n = len(leaving)
    cholesky = np.zeros((n, 6), np.float32)
    cholesky[:, [0, 2, 5]] = np.log(found.sigmas[:n] * step)
    places = (found.voxels[:n] + np.array([first_plane, 0, 0])) * step
    field.means[moved] = torch.as_tensor(places.astype(np.float32))
    field.cholesky[moved] = torch.as_tensor(cholesky)
    field.amplitudes[moved] = torch.as_tensor(found.amplitudes[:n])
    return moved


def relocate_channels(
    gaussians: Tensors,
    residuals: Sequence[NDArray[np.float32]],
    spacing: Sequence[float],
    most: int,
    *,
    first_plane: int = 0,
    kept: int = 0,
) -> Tensor:
    """Move Gaussians of several channels as `relocate` does those of one, in place.

    What counts is the sum of the residuals, and of a Gaussian the norm of its amplitudes. Those
    that move begin in each channel with a part of the residual that is there.

    Parameters
    ----------
    gaussians : tuple of Tensor
        Means [K, 3], Cholesky parameters [K, 6] and amplitudes [C, K]; changed in place.
    residuals : sequence of ndarray, shape [Z, Y, X]
        Stack minus field in each channel.
    spacing : sequence of float
        Voxel spacing (dz, dy, dx).
    most : int
        Largest number of Gaussians to move.
    first_plane : int
        Plane of the stack at which the residuals begin.
    kept : int
        Number of Gaussians, the first ones, that stay where they are.

    Returns
    -------
    Tensor
        Indices [M] of the Gaussians moved.
    """
    means, cholesky, amplitudes = gaussians
    alone = len(amplitudes) == 1
    field = GaussianField(means, cholesky, amplitudes[0] if alone else amplitudes.norm(dim=0))
    total = reduce(np.add, residuals)
    moved = relocate(field, total, spacing, most, first_plane=first_plane, kept=kept)
    if alone or not len(moved):
        return moved
    places = means[moved].numpy() / np.asarray(spacing, np.float64) - (first_plane, 0, 0)
    heights = heights_at(residuals, nearest_voxels(places, total.shape))
    least = DIMMEST_SEED * field.amplitudes[moved]
    amplitudes[:, moved] = torch.maximum(torch.from_numpy(heights), least)
    return moved


def nearest_voxels(
    places: NDArray[np.float64], shape: tuple[int, ...]
) -> tuple[NDArray[np.int64], ...]:
    """Return the voxels nearest to places.

    Parameters
    ----------
    places : ndarray, shape [N, 3]
        Positions (z, y, x) in voxels, which may lie outside of the stack.
    shape : tuple of int
        Voxels of the stack along z, y, x.

    Returns
    -------
    tuple of ndarray, shape [N]
        Indices along z, y, x.
    """
    return tuple(np.clip(np.rint(places), 0, np.array(shape) - 1).astype(np.int64).T)


def heights_at(
    residuals: Sequence[NDArray[np.float32]], voxels: tuple[NDArray[np.int64], ...]
) -> NDArray[np.float32]:
    """Return the amplitudes with which Gaussians of several channels are put down.

    Parameters
    ----------
    residuals : sequence of ndarray, shape [Z, Y, X]
        Stack minus field in each channel.
    voxels : tuple of ndarray, shape [N]
        Indices along z, y, x of where they are put down.

    Returns
    -------
    ndarray, shape [C, N]
        `RELOCATED_SHARE` of the smoothed residuals; below 0 where a channel lacks nothing.
    """
    return np.stack([RELOCATED_SHARE * smoothed(residual)[voxels] for residual in residuals])
