"""The shape that most spots share, where they do: that of a point, as the optics show it.

A spot that is longer than all others is then two, though one Gaussian would describe it as well:
two of the usual shape have eight parameters, and a Gaussian of any shape has ten.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_gaussfit.model.gaussians import Gaussians

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_gaussfit.measure.measurement import Measurement

    Floats = NDArray[np.float64]

__all__ = ["Counted", "Usual"]

LEAST_SPOTS = 12
"""Of which a shape is usual, if they share one."""

SHARED = 1.5
"""Times what chance makes of it, up to which the median difference in shape is chance."""

MEDIAN = 5.348
"""Of chi^2 of the six numbers of a shape."""

STEPS, ENDED = 12, 0.02
"""Of a fit, and the gain in deviance with which it ends."""

CHOLESKY = slice(3, 9)
"""Where the numbers of a shape stand in a measurement's covariances."""


@dataclass(frozen=True, eq=False)
class Counted:
    """Photons in a box of voxels, and the light there that is known.

    Parameters
    ----------
    places : ndarray, shape [n, 3]
        Of voxels, in the stack's unit.
    photons : ndarray, shape [n]
        With those that the noise of reading amounts to.
    known : ndarray, shape [n]
        Expected of all that is not in question, without the background.
    """

    places: Floats
    photons: Floats
    known: Floats


@dataclass(frozen=True, eq=False)
class Usual:
    """A shape that most spots have, to within their errors.

    Parameters
    ----------
    covariance : ndarray, shape [3, 3]
        In the stack's unit, squared.
    """

    covariance: Floats

    @classmethod
    def of(cls, measured: Measurement) -> Usual | None:
        """Return the shape that measured spots share.

        Parameters
        ----------
        measured : Measurement
            The spots that were measured, whose usual shape is asked for.

        Returns
        -------
        Usual or None
            None where they differ by more than their error bars say, or are too few.
        """
        [gaussians] = measured.gaussians
        if len(gaussians) < LEAST_SPOTS:
            return None
        usual = cls(np.median(gaussians.covariances, axis=0))
        if np.linalg.eigvalsh(usual.covariance)[0] <= 0:
            return None
        apart = usual.differences(gaussians, measured.covariances)
        return usual if np.median(apart) < SHARED * MEDIAN else None

    def differences(self, gaussians: Gaussians, covariances: Floats) -> Floats:
        """Return chi^2 of the difference of shapes to the usual one.

        Parameters
        ----------
        gaussians : Gaussians
            The K spots that are compared with the usual shape.
        covariances : ndarray, shape [K, 9 + 2 C, 9 + 2 C]
            As a measurement has them.

        Returns
        -------
        ndarray, shape [K]
            0 where a shape is not determined.
        """
        own = Gaussians.from_covariances(np.zeros((1, 3)), self.covariance[None], [1.0]).cholesky
        apart = (gaussians.cholesky - own).astype(np.float64)
        errors = covariances[:, CHOLESKY, CHOLESKY]
        sound = np.asarray(np.isfinite(errors).all((1, 2)), np.bool_)
        sound[sound] &= np.linalg.eigvalsh(errors[sound])[:, 0] > 0
        found = np.zeros(len(gaussians))
        solved = np.linalg.solve(errors[sound], apart[sound][..., None])[..., 0]
        found[sound] = np.einsum("ki,ki->k", apart[sound], solved)
        return found

    def longest(self, covariances: Floats) -> tuple[Floats, Floats]:
        """Return by how much Gaussians are longer than usual, and along which axis.

        Parameters
        ----------
        covariances : ndarray, shape [K, 3, 3]
            In the stack's unit, squared.

        Returns
        -------
        ndarray, shape [K]
            Variance along it over the usual one.
        ndarray, shape [K, 3]
            One usual standard deviation along it.
        """
        factor = np.linalg.cholesky(self.covariance)
        inverse = np.linalg.inv(factor)
        values, vectors = np.linalg.eigh(inverse @ covariances @ inverse.T)
        return values[:, -1], vectors[:, :, -1] @ factor.T

    def two_for(self, one: Gaussians, seen: Counted, background: float) -> tuple[Gaussians, float]:
        """Fit two of the usual shape where one is.

        Parameters
        ----------
        one : Gaussians
            Of which they are the halves at first.
        seen : Counted
            What they are fitted to.
        background : float
            Photons a voxel, at first.

        Returns
        -------
        Gaussians
            Two, whose amplitudes are in photons.
        float
            Twice the negative logarithm of the likelihood, but for a constant.
        """
        [stretch], [axis] = self.longest(one.covariances)
        step = axis * math.sqrt(max(stretch - 1.0, 0.04))
        factor = np.linalg.cholesky(self.covariance)
        share = math.sqrt(np.linalg.det(one.covariances[0]) / np.linalg.det(self.covariance))
        height = float(one.amplitudes[0]) * share / 2
        centre = one.means[0].astype(np.float64)
        theta = np.array([*(centre + step), height, *(centre - step), height, background])
        theta, deviance = _scored(theta, seen, np.linalg.inv(factor))
        pair = theta[:8].reshape(2, 4)
        found = Gaussians.from_covariances(
            pair[:, :3], [self.covariance] * 2, pair[:, 3],
            background=one.background, unit=one.unit,
        )  # fmt: skip
        return found, deviance


def _scored(theta: Floats, seen: Counted, inverse: Floats) -> tuple[Floats, float]:
    """Return the parameters of the largest likelihood near `theta`, by Fisher scoring."""
    rate, slopes = _expected(theta, seen, inverse)
    deviance = _deviance(rate, seen.photons)
    damping = 1e-3
    for _ in range(STEPS):
        weighted = slopes / rate[:, None]
        # Not by BLAS, whose threads wait for each other longer than this takes.
        fisher = np.einsum("ni,nj->ij", weighted, slopes)
        score = np.einsum("ni,n->i", weighted, seen.photons - rate)
        fisher[np.diag_indices(len(theta))] *= 1 + damping
        trial = theta + np.linalg.lstsq(fisher, score, rcond=None)[0]
        trial[[3, 7, 8]] = np.maximum(trial[[3, 7, 8]], 0.0)
        rate_there, slopes_there = _expected(trial, seen, inverse)
        there = _deviance(rate_there, seen.photons)
        if there > deviance:
            damping *= 10
            continue
        ended = deviance - there < ENDED
        theta, rate, slopes, deviance, damping = trial, rate_there, slopes_there, there, damping / 5
        if ended:
            break
    return theta, deviance


def _expected(theta: Floats, seen: Counted, inverse: Floats) -> tuple[Floats, Floats]:
    """Return photons [n], and their slopes [n, 9] by the parameters."""
    slopes = np.ones((len(seen.places), len(theta)))
    rate = seen.known + theta[8]
    for k in range(2):
        z, y, x, height = theta[4 * k : 4 * k + 4]
        u = np.einsum("ni,ji->nj", seen.places - (z, y, x), inverse)
        shape = np.exp(-0.5 * np.einsum("ni,ni->n", u, u))
        slopes[:, 4 * k : 4 * k + 3] = height * shape[:, None] * np.einsum("nj,ji->ni", u, inverse)
        slopes[:, 4 * k + 3] = shape
        rate = rate + height * shape
    return np.maximum(rate, 1e-3), slopes


def _deviance(rate: Floats, photons: Floats) -> float:
    return 2 * float(np.sum(rate - photons * np.log(rate)))
