"""Relocation: Gaussians that are hardly missed go to where most is missing.

Both sides are counted in the same coin, the squared residual summed over the voxels: what taking a
Gaussian away costs once its neighbours have made up for it, and what one more Gaussian would win.
Changes a field in place; the optimiser forgets the moments of the rows that moved, and no others'.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial, reduce
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_gaussfit._kernels.shared.overlaps import NEIGHBOURS
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
"""Sigmas in voxels (z, y, x) that a Gaussian may be put down with."""

APART = (1, 2, 2)
"""Voxels (z, y, x) to either side in which only the best place counts."""

CLOSE = 0.1
"""Of two Gaussians that would make up for each other by more than this share, one goes at a time:
the second's cost is another once the first is gone."""

DIMMEST = 1e-6
"""Amplitude of what makes up for others at least, in parts of the brightest."""


RELOCATED_SHARE = 0.5
"""Part of a channel's residual at its new place that a relocated Gaussian of several channels
begins with."""


@dataclass(frozen=True, eq=False)
class Sites:
    """Places that lack a Gaussian, those that win most first.

    Parameters
    ----------
    voxels : ndarray, shape [N, 3]
        Positions in voxels.
    sigmas : ndarray, shape [N, 3]
        Widths (z, y, x) in voxels that fit best.
    amplitudes : ndarray, shape [N]
        Heights that fit best.
    gains : ndarray, shape [N]
        By how much the squared residual, summed over voxels, would fall.
    """

    voxels: NDArray[np.int64]
    sigmas: NDArray[np.float64]
    amplitudes: NDArray[np.float32]
    gains: NDArray[np.float32]


def removal_costs(field: GaussianField) -> tuple[Tensor, Tensor, Tensor]:
    """Return what it costs to take each Gaussian away.

    The optimal brain surgeon (Hassibi and Stork, 1993) on the amplitudes of the nearest
    Gaussians: exact for them, an upper bound for all.

    Parameters
    ----------
    field : GaussianField
        K Gaussians.

    Returns
    -------
    costs : Tensor, shape [K]
        Integral of the squared change of the field, in squared intensity times `unit` cubed.
    neighbours : Tensor, shape [K, M]
        Indices of the nearest.
    shares : Tensor, shape [K, M]
        What each takes over, in parts of the lost Gaussian's amplitude.
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
    found = KDTree(mu).query(mu, k=range(1, near + 2), workers=threads.thread_count())[1]
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

    A matched filter: of unit Gaussians g of a few shapes, the one with the largest
    <r, g>^2 / <g, g>; its best amplitude is <r, g> / <g, g>. Only positive ones count.

    Parameters
    ----------
    residual : ndarray, shape [Z, Y, X]
        Stack minus field.
    most : int
        How many places at most.

    Returns
    -------
    Sites
        Local maxima of what is won, the largest first.
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
    """Return filters along z, y and x: Gaussians of sum 1, out to three sigmas.

    Parameters
    ----------
    shape : tuple of float
        Sigmas in voxels.

    Returns
    -------
    tuple of ndarray
        Each of odd length.
    """
    made = []
    for sigma in shape:
        reach = int(3 * sigma + 0.5)
        values = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
        made.append((values / values.sum()).astype(np.float32))
    return made[0], made[1], made[2]


def worth(shape: Triple) -> np.float32:
    """Return what the square of a residual filtered by a Gaussian of this shape counts.

    <r, g> is the filtered residual times (2 pi)^(3/2) s, and <g, g> is pi^(3/2) s, with s the
    product of the three sigmas.

    Parameters
    ----------
    shape : tuple of float
        Sigmas in voxels.

    Returns
    -------
    numpy.float32
        Squared residual, summed over voxels.
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
    """Move Gaussians from where they are hardly missed to where most is missing, in place.

    The cheapest goes to the place that wins most, the next to the next, as long as more is won
    than given up. Neighbours take over from those that leave.

    Parameters
    ----------
    field : GaussianField
        Changed in place; all its intensities in the residual's unit.
    residual : ndarray, shape [Z, Y, X]
        Stack minus field.
    spacing : sequence of float
        (dz, dy, dx).
    most : int
        Largest number of Gaussians to move.
    first_plane : int
        Of the stack, where `residual` begins.
    kept : int
        As many Gaussians, the first ones, stay where they are.

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
    nearest = np.clip(np.rint(places), 0, np.array(total.shape) - 1).astype(int)
    least = DIMMEST_SEED * field.amplitudes[moved]
    for brightness, residual in zip(amplitudes, residuals, strict=True):
        height = RELOCATED_SHARE * smoothed(residual)[tuple(nearest.T)]
        brightness[moved] = torch.maximum(torch.from_numpy(height), least)
    return moved
