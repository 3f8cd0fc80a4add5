"""How many Gaussians a stack carries: added where light is missing, taken where none is missed.

All is counted in one coin, the squared residual in units of the noise's variance (twice the log
likelihood, chi^2). One more Gaussian must win more than the price of describing noise: 1 for each
of its parameters, ten where its shape is free, and 2 ln V for the choice of its place among V
voxels, which is what the best of V places wins where there is nothing but noise. A Gaussian that is
worth less is taken away, and two that one could stand for at less become one.

The Bayesian information criterion (Schwarz, 1978) asks 10 ln V. Of what a site wins only a part is
known before the Gaussian there has taken its shape, and against phantoms with known truth that
price leaves structure out: 3 to 4 dB of the voxels, at 50 to 3,000 photons.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_gaussfit._kernels.reference import factors
from napari_gaussfit._threads import run_pieces
from napari_gaussfit.fitting.relocation import (
    CLOSE,
    DIMMEST,
    RELOCATED_SHARE,
    heights_at,
    nearest_voxels,
    removal_costs,
    sites,
)
from napari_gaussfit.fitting.seeding import DIMMEST as DIMMEST_SEED
from napari_gaussfit.measure.photon_transfer import photon_transfer
from napari_gaussfit.model.field import GaussianField

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from napari_gaussfit.measure.noise import Noise
    from napari_gaussfit.measure.photon_transfer import PhotonTransfer

    Floats = NDArray[np.float64]
    Volume = NDArray[np.float32]
    Tensors = tuple[Tensor, Tensor, Tensor]

__all__ = ["NoiseLeft", "Recount", "freedom", "price", "recount"]

GROWTH = 0.5
"""Gaussians added at once at most, in parts of those there are."""

LEAST_GROWTH = 20
"""Gaussians that may be added at once, however few there are."""

PAIRED = 8
"""Nearest neighbours with which a Gaussian may be merged."""

NOISE_BOX = (16, 96, 96)
"""Voxels along z, y and x among which the noise is looked for."""

LEAST_VARIANCE = float(np.finfo(np.float32).tiny)
"""What a variance is at least, so that a stack without any noise can be divided by it."""

MOST_PLACES = 100_000
"""Places that are looked for at once."""

SAME_PLACE = 2.0
"""Voxels within which places in two channels are one."""


@dataclass(frozen=True, eq=False)
class Recount:
    """What becomes of a field's Gaussians.

    Parameters
    ----------
    stay : Tensor, shape [S]
        Indices of those that stay, in order.
    changed : Tensor, shape [M]
        Indices among those of the old field whose shape is another now: they stand for two.
    added : tuple of Tensor
        Means [N, 3], Cholesky parameters [N, 6] and amplitudes [C, N] of new ones.
    waiting : int
        Places that would have been worth a Gaussian, but for which there was no room.
    """

    stay: Tensor
    changed: Tensor
    added: Tensors
    waiting: int


POINT, FREE = 4, 10
"""Parameters of a Gaussian that is a point, centre and amplitude, and of one of any shape."""

AT_FLOOR = 1e-3
"""Of the blur's variance: an object of less along an axis of its own has no width there, but for
the rounding of single precision."""


def price(voxels: int, parameters: float = FREE) -> float:
    """Return what a Gaussian must win in chi^2, in a stack of so many voxels."""
    return parameters + 2 * math.log(voxels)


def freedom(cholesky: Tensor, floor: Tensor | None, *, points: bool = False) -> Floats:
    """Return how many parameters each Gaussian has.

    Parameters
    ----------
    cholesky : Tensor, shape [K, 6]
        The Cholesky parameters of each Gaussian.
    floor : Tensor, shape [3, 3], or None
        Lower Cholesky factor of what light makes of a point, where that is known. An object that
        has a width along m axes has m (m + 1) / 2 parameters of shape, and a point none.
    points : bool
        Whether all are points, whatever their shapes are now.

    Returns
    -------
    ndarray, shape [K]
        From 4 to 10.
    """
    count = len(cholesky)
    if points:
        return np.full(count, float(POINT))
    if floor is None or not count:
        return np.full(count, float(FREE))
    blurred = torch.linalg.solve_triangular(floor.double(), factors(cholesky.double()), upper=False)
    widths = torch.linalg.eigvalsh(blurred @ blurred.transpose(-1, -2)) > 1 + AT_FLOOR
    m = widths.sum(-1).numpy()
    found: Floats = POINT + m * (m + 1) / 2
    return found


def recount(  # noqa: PLR0913 - what it looks at, and three numbers of where
    gaussians: Tensors,
    residuals: Sequence[Volume],
    fitted: Sequence[Volume],
    spacing: Sequence[float],
    *,
    voxels: int,
    room: int,
    first_plane: int = 0,
    kept: int = 0,
    floor: Tensor | None = None,
    points: bool = False,
    noises: Sequence[Noise | None] = (),
) -> Recount:
    """Take Gaussians away that describe noise, merge what one can stand for, find where some lack.

    Only Gaussians whose centre lies in the planes that the residuals cover are judged.

    Parameters
    ----------
    gaussians : tuple of Tensor
        Means [K, 3], Cholesky parameters [K, 6] and amplitudes [C, K]. Those that take over from
        others are changed in place.
    residuals, fitted : sequence of ndarray, shape [Z, Y, X]
        Stack minus field, and field with background, in each channel.
    spacing : sequence of float
        Voxel spacing (dz, dy, dx).
    voxels : int
        Number of voxels of the whole stack.
    room : int
        Largest number of Gaussians after this, of which at most `GROWTH` times K are added; 0 where
        Gaussians are taken away alone.
    first_plane : int
        Plane of the stack at which the residuals begin.
    kept : int
        Number of Gaussians, the first ones, that stay as they are.
    floor : Tensor, shape [3, 3], optional
        What light makes of a point, see `freedom`.
    points : bool
        Whether all are points.
    noises : sequence of Noise or None
        Of each channel, where it is known; else what is left tells it.

    Returns
    -------
    Recount
        The rows that stay and those to be added.
    """
    step = np.asarray(spacing, np.float64)

    def paid(cholesky: Tensor) -> Floats:
        """Return what each of some Gaussians must win."""
        return price(voxels, 0) + freedom(cholesky, floor, points=points)

    known = tuple(noises) or (None,) * len(fitted)
    left = [NoiseLeft.of(*one) for one in zip(residuals, fitted, known, strict=True)]
    count = len(gaussians[0])
    leave, changed = np.zeros(count, np.bool_), np.empty(0, np.int64)
    if count > 1:
        places = gaussians[0].numpy() / step - (first_plane, 0, 0)
        depth = len(residuals[0])
        judged = (places[:, 0] >= -0.5) & (places[:, 0] <= depth - 0.5)
        judged[:kept] = False
        nearest = nearest_voxels(places, fitted[0].shape)
        there = [one.deviations(f[nearest]) for one, f in zip(left, fitted, strict=True)]
        prices = paid(gaussians[1]) * step.prod()
        leave, changed = _take_away(gaussians, np.array(there, np.float64), judged, prices)
    most = max(LEAST_GROWTH, round(GROWTH * count))
    # Without any room, places are not looked for: that takes longer than all else.
    found = _none(gaussians)
    if room:
        found = _places(residuals, fitted, left, step, paid, first_plane)
    means, cholesky, amplitudes = found
    take = min(most, max(0, room - count + int(leave.sum())), len(means))
    return Recount(
        torch.from_numpy(np.flatnonzero(~leave)),
        torch.from_numpy(changed),
        (means[:take], cholesky[:take], amplitudes[:, :take]),
        len(means) - take,
    )


@dataclass(frozen=True, eq=False)
class NoiseLeft:
    """The noise of voxels, beside a field not yet fitted.

    Its variance follows from the light by what differences between neighbours tell, in which a
    misfit that is smoother than voxels has little part.

    Parameters
    ----------
    curve : Noise or PhotonTransfer
        By which the variance follows from the light.
    least : float
        The mean squared residual: nowhere is a field judged by less than it errs by.
    """

    curve: Noise | PhotonTransfer
    least: float

    @classmethod
    def of(cls, residual: Volume, fitted: Volume, noise: Noise | None = None) -> NoiseLeft:
        """Return that of a channel.

        Parameters
        ----------
        residual, fitted : ndarray, shape [Z, Y, X]
            Stack minus field, and field with its background.
        noise : Noise, optional
            Where it is known.

        Returns
        -------
        NoiseLeft
            With the noise that is known, or that of a box of voxels.
        """
        squares, light = _squares_and_light(residual, fitted)
        least = max(float(squares.sum()) / residual.size, LEAST_VARIANCE)
        if noise is not None:
            return cls(noise, least)
        bright = _brightest_box(light, fitted.shape)
        return cls(photon_transfer(fitted[bright] + residual[bright], fitted[bright]), least)

    def deviations(self, fitted: Volume) -> Volume:
        """Return the noise's standard deviation.

        Parameters
        ----------
        fitted : ndarray
            Light with background in some voxels.

        Returns
        -------
        ndarray of the same shape
            Above 0.
        """
        variances = np.maximum(self.curve.variance(fitted), self.least)
        return np.sqrt(variances, dtype=np.float32, casting="same_kind")

    def in_deviations(self, residual: Volume, fitted: Volume) -> Volume:
        """Return a residual in standard deviations of the noise.

        Parameters
        ----------
        residual, fitted : ndarray, shape [Z, Y, X]
            Stack minus field, and field with its background.

        Returns
        -------
        ndarray, shape [Z, Y, X]
            In each voxel.
        """
        ratios = np.empty(fitted.shape, np.float32)

        def some(first: int, end: int) -> None:
            np.divide(
                residual[first:end], self.deviations(fitted[first:end]), out=ratios[first:end]
            )

        run_pieces(some, len(fitted))
        return ratios


def _squares_and_light(residual: Volume, fitted: Volume) -> tuple[Floats, Floats]:
    """Return the sum of the squared residual in each plane, and the light in boxes of `NOISE_BOX`.

    Of the boxes [planes, boxes along y, boxes along x]: they are a plane thick.
    """
    from napari_gaussfit._kernels.cpu.noise_kernels import sum_squares_and_boxes

    depth, height, width = fitted.shape
    _, rows, columns = NOISE_BOX
    squares, light = np.empty(depth), np.empty((depth, -(-height // rows), -(-width // columns)))
    residual, fitted = (np.ascontiguousarray(one, np.float32) for one in (residual, fitted))
    task = partial(sum_squares_and_boxes, residual, fitted, NOISE_BOX, squares, light)
    run_pieces(task, depth)
    return squares, light


def _brightest_box(light: Floats, shape: tuple[int, ...]) -> tuple[slice, ...]:
    """Return the box of at most `NOISE_BOX` voxels that holds most light: some of every level.

    light : of planes in boxes, see `_squares_and_light`.
    """
    boxes = np.add.reduceat(light, np.arange(0, shape[0], NOISE_BOX[0]), axis=0)
    at = np.unravel_index(int(boxes.argmax()), boxes.shape)
    firsts = [int(n) * most for n, most in zip(at, NOISE_BOX, strict=True)]
    return tuple(
        slice(max(0, min(first, size - most)), first + most)
        for first, size, most in zip(firsts, shape, NOISE_BOX, strict=True)
    )


def _take_away(
    gaussians: Tensors, deviations: Floats, judged: NDArray[np.bool_], paid: Floats
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Return who leaves [K], and the indices of those that now stand for two.

    deviations : [C, K], of the noise where each Gaussian is; paid : [K], chi^2 times a voxel's
    volume.
    """
    means, cholesky, amplitudes = gaussians
    # In units of the noise, several channels weigh like one that has their length.
    weight = torch.from_numpy(deviations)
    length = (amplitudes.double() / weight).norm(dim=0)
    costs, neighbours, shares = removal_costs(GaussianField(means, cholesky, length))
    leave, busy = np.zeros(len(means), np.bool_), ~judged
    cheap = costs.numpy() < paid
    for k in torch.argsort(costs, stable=True).tolist():
        if busy[k] or not cheap[k]:
            continue
        near, share = neighbours[k], shares[k]
        for channel in amplitudes:
            channel[near] += (share * channel[k]).float()
        busy[near[share.abs() > CLOSE]] = True
        busy[k] = leave[k] = True
    if leave.all():
        leave[int(costs.argmax())] = False
    dimmest = DIMMEST * amplitudes.amax(1, keepdim=True)
    torch.maximum(amplitudes, dimmest, out=amplitudes)
    return leave, _merge(gaussians, weight, neighbours[:, :PAIRED].numpy(), busy, leave, paid)


def _merge(
    gaussians: Tensors,
    deviations: Tensor,
    neighbours: NDArray[np.int64],
    busy: NDArray[np.bool_],
    leave: NDArray[np.bool_],
    paid: Floats,
) -> NDArray[np.int64]:
    """Let one Gaussian stand for two where that costs less than `paid` [K]; return the indices.

    What is paid is that of the one that is given up, of the two the cheaper. It has the two's
    moments and the amplitudes that fit best. `busy` and `leave` are kept up.
    """
    first, second = _pairs(neighbours)
    free = ~(busy[first] | busy[second])
    first, second = first[free], second[free]
    field = GaussianField(gaussians[0], gaussians[1], gaussians[2][0])
    mu, sigma = field.means.double().numpy(), field.covariances.double().numpy()
    pair = _Pairs.of(mu, sigma, (gaussians[2] / deviations).numpy(), first, second)
    changed = []
    order = np.argsort(pair.costs, kind="stable")
    for n in order[(pair.costs < np.minimum(paid[first], paid[second]))[order]]:
        i, j = first[n], second[n]
        if busy[i] or busy[j]:
            continue
        busy[[i, j]] = leave[j] = True
        changed.append(i)
        lower = np.linalg.cholesky(pair.covariances[n])
        lower[np.diag_indices(3)] = np.log(np.diag(lower))
        gaussians[0][i] = torch.as_tensor(pair.means[n], dtype=torch.float32)
        gaussians[1][i] = torch.as_tensor(lower[np.tril_indices(3)], dtype=torch.float32)
        gaussians[2][:, i] = torch.as_tensor(pair.amplitudes[:, n]).float() * deviations[:, i]
    return np.asarray(changed, np.int64)


def _pairs(neighbours: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return each pair of neighbours once."""
    count, near = neighbours.shape
    pairs = np.stack([np.repeat(np.arange(count), near), neighbours.reshape(-1)], 1)
    once = np.unique(np.sort(pairs, 1), axis=0)
    return once[:, 0], once[:, 1]


@dataclass(frozen=True, eq=False)
class _Pairs:
    """One Gaussian for each of P pairs, with the pair's mean and covariance.

    means, covariances : [P, 3] and [P, 3, 3]; amplitudes : [C, P], those that fit best;
    costs : [P], the integral of the squared change.
    """

    means: Floats
    covariances: Floats
    amplitudes: Floats
    costs: Floats

    @classmethod
    def of(
        cls,
        mu: Floats,
        sigma: Floats,
        amplitudes: Floats,
        first: NDArray[np.int64],
        second: NDArray[np.int64],
    ) -> _Pairs:
        a, b = (mu[first], sigma[first]), (mu[second], sigma[second])
        high, low = amplitudes[:, first], amplitudes[:, second]
        weights = [
            np.linalg.norm(height, axis=0) * np.sqrt(_determinants(s)[0])
            for height, (_, s) in ((high, a), (low, b))
        ]
        share = (weights[0] / (weights[0] + weights[1]))[:, None]
        mean = share * a[0] + (1 - share) * b[0]
        apart = a[0] - b[0]
        spread = (share * (1 - share))[..., None] * apart[:, :, None] * apart[:, None, :]
        covariance = share[..., None] * a[1] + (1 - share)[..., None] * b[1] + spread
        both = (mean, covariance)
        own = _overlap(both, both)
        best = (high * _overlap(a, both) + low * _overlap(b, both)) / own
        before = (
            (high**2).sum(0) * _overlap(a, a)
            + (low**2).sum(0) * _overlap(b, b)
            + 2 * (high * low).sum(0) * _overlap(a, b)
        )
        return cls(mean, covariance, best, before - own * (best**2).sum(0))


def _overlap(one: tuple[Floats, Floats], other: tuple[Floats, Floats]) -> Floats:
    """Return the integrals [P] of products of two Gaussians of amplitude 1."""
    apart, both = one[0] - other[0], one[1] + other[1]
    determinants, adjugates = _determinants(both)
    square = np.einsum("pi,pij,pj->p", apart, adjugates, apart) / determinants
    volumes = _determinants(one[1])[0] * _determinants(other[1])[0] / determinants
    product: Floats = (2 * np.pi) ** 1.5 * np.sqrt(volumes) * np.exp(-0.5 * square)
    return product


def _determinants(matrices: Floats) -> tuple[Floats, Floats]:
    """Return determinants [P] and adjugates [P, 3, 3] of symmetric matrices.

    Written out: a library of linear algebra takes ten times as long for so small ones.
    """
    zz, zy, zx, _, yy, yx, _, _, xx = np.ascontiguousarray(matrices.reshape(-1, 9).T)
    first, second, third = yy * xx - yx * yx, zx * yx - zy * xx, zy * yx - zx * yy
    fifth, sixth, last = zz * xx - zx * zx, zy * zx - zz * yx, zz * yy - zy * zy
    rows = first, second, third, second, fifth, sixth, third, sixth, last
    return zz * first + zy * second + zx * third, np.stack(rows, -1).reshape(-1, 3, 3)


def _places(
    residuals: Sequence[Volume],
    fitted: Sequence[Volume],
    left: Sequence[NoiseLeft],
    step: Floats,
    paid: Callable[[Tensor], Floats],
    first_plane: int,
) -> Tensors:
    """Return Gaussians worth more than is `paid` for such, those that win most first."""
    found = [
        sites(noise.in_deviations(r, f), MOST_PLACES)
        for r, f, noise in zip(residuals, fitted, left, strict=True)
    ]
    voxels = np.concatenate([f.voxels for f in found])
    gains = np.concatenate([f.gains for f in found])
    widths = np.concatenate([f.sigmas for f in found]) * step
    shapes = np.zeros((len(gains), 6), np.float32)
    shapes[:, [0, 2, 5]] = np.log(widths)
    order = np.argsort(-gains, kind="stable")
    order = order[(gains > paid(torch.from_numpy(shapes)))[order]]
    if len(residuals) > 1:
        order = order[_first_of_each_place(voxels[order])]
    voxels, at = voxels[order], tuple(voxels[order].T)
    if len(residuals) == 1:
        heights = found[0].amplitudes[order] * left[0].deviations(fitted[0][at])
        amplitudes = torch.from_numpy(heights)[None]
    else:
        heights = heights_at(residuals, at)
        least = DIMMEST_SEED / RELOCATED_SHARE * np.abs(heights).max(0, initial=0.0)
        amplitudes = torch.from_numpy(np.maximum(heights, least))
    means = (voxels + np.array([first_plane, 0, 0])) * step
    return (
        torch.from_numpy(means.astype(np.float32)),
        torch.from_numpy(shapes[order]),
        amplitudes.float(),
    )


def _none(gaussians: Tensors) -> Tensors:
    """Return no Gaussians, of as many channels."""
    means, cholesky, amplitudes = gaussians
    return means[:0], cholesky[:0], amplitudes[:, :0]


def _first_of_each_place(voxels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the indices of places [N, 3] that none before them is close to."""
    from scipy.spatial import KDTree

    second = [j for _, j in KDTree(voxels).query_pairs(SAME_PLACE)] if len(voxels) else []
    return np.setdiff1d(np.arange(len(voxels)), second)
