"""The noise of a stack: gain, and what of its variance does not depend on the light."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_gaussfit.errors import SettingsError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Noise", "noise_of_neighbours", "noise_of_residuals"]

BINS = 40
"""Of brightness, among which voxels are divided so that each has as many."""

LEAST_VOXELS = 200
"""Of a bin: with fewer, the variance in it is not known well enough."""

CLIPPED = 3.5
"""Standard deviations beyond which a difference tells of structure, or of a hot pixel."""

KEPT_VARIANCE = 0.99814
"""Of a normal distribution that is cut at `CLIPPED`, what is left of its variance."""


@dataclass(frozen=True)
class Noise:
    """How a voxel's variance follows from its light: gain f + intercept.

    Parameters
    ----------
    gain : float
        Raw intensity a photon. 0 where the variance does not depend on the light.
    intercept : float
        read^2 - gain offset, of a detector whose `offset` is what it records of no light and whose
        read noise is `read`, both in raw intensity. From a stack alone the two cannot be told
        apart, and no likelihood asks for more than this.
    saturation : float
        Value from which a voxel may have had more light than it says.

    Raises
    ------
    SettingsError
        If no variance follows from the numbers.
    """

    gain: float
    intercept: float = 0.0
    saturation: float = math.inf

    def __post_init__(self) -> None:
        """Refuse what gives no variance."""
        if not (self.gain >= 0 and math.isfinite(self.gain) and math.isfinite(self.intercept)):
            message = f"noise with gain={self.gain:g}, intercept={self.intercept:g}: give finite "
            raise SettingsError(message + "numbers, and a gain of 0 or more")
        if self.gain == 0 and self.intercept <= 0:
            message = f"noise with gain=0, intercept={self.intercept:g} has no variance; "
            raise SettingsError(message + "give the read noise squared as the intercept")

    @classmethod
    def of_detector(
        cls, gain: float, *, offset: float = 0.0, read: float = 0.0, saturation: float = math.inf
    ) -> Noise:
        """Return the noise of a detector.

        Parameters
        ----------
        gain : float
            Raw intensity a photon.
        offset : float, default 0
            Raw intensity of no light.
        read : float, default 0
            Standard deviation of the noise of no light, in raw intensity.
        saturation : float, default infinite
            See `Noise`.

        Returns
        -------
        Noise
            gain f + read^2 - gain offset.
        """
        return cls(gain, read * read - gain * offset, saturation)

    def variance(self, light: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the variance of voxels.

        Parameters
        ----------
        light : ndarray
            What is recorded of them in the mean, in raw intensity.

        Returns
        -------
        ndarray
            In raw intensity squared, at least 0.
        """
        return np.maximum(self.gain * light.astype(np.float64) + self.intercept, 0.0)


def noise_of_neighbours(voxels: NDArray[np.floating]) -> Noise:
    """Estimate a stack's noise before a fit, from voxels and their neighbours along the three axes.

    Second differences of three neighbours, (a - 2 b + c) / sqrt(6), have the variance of a voxel
    and nothing of light that changes linearly. They stand against the mean of the three: the
    photon-transfer curve (J. R. Janesick, Photon Transfer, SPIE 2007).

    Parameters
    ----------
    voxels : ndarray, shape [Z, Y, X]
        Raw intensity.

    Returns
    -------
    Noise
        Structure that is as fine as a voxel counts as noise.

    Raises
    ------
    SettingsError
        If the stack is too small, or has no noise.
    """
    means, squares = [], []
    for axis in range(3):
        lines = np.moveaxis(voxels, axis, 0)
        if len(lines) < 3:
            continue
        a, b, c = (lines[n : len(lines) - 2 + n].astype(np.float64) for n in range(3))
        means.append(((a + b + c) / 3).ravel())
        squares.append((np.square(a - 2 * b + c) / 6).ravel())
    if not means:
        raise SettingsError("a stack of fewer than 3 voxels along each axis tells no noise")
    return _line(np.concatenate(means), np.concatenate(squares))


def noise_of_residuals(voxels: NDArray[np.floating], fitted: NDArray[np.floating]) -> Noise:
    """Estimate a stack's noise after a fit, from what the fit leaves.

    Parameters
    ----------
    voxels, fitted : ndarray, shape [Z, Y, X]
        Raw intensity as it was recorded, and as the fit has it, with its background.

    Returns
    -------
    Noise
        What the fit does not describe counts as noise.

    Raises
    ------
    SettingsError
        If nothing is left.
    """
    light = fitted.astype(np.float64)
    return _line(light.ravel(), np.square(voxels.astype(np.float64) - light).ravel())


def _line(light: NDArray[np.float64], squares: NDArray[np.float64]) -> Noise:
    """Return the noise whose variances are nearest to the mean squares in bins of brightness.

    Weighted by their own precision: a variance of n squares is known to sqrt(2 / n) of itself.
    """
    order = np.argsort(light, kind="stable")
    bins = min(BINS, max(len(order) // LEAST_VOXELS, 1))
    parts = np.array_split(order, bins)
    x = np.array([light[part].mean() for part in parts])
    y = np.array([_clipped_mean(squares[part]) for part in parts])
    counts = np.array([len(part) for part in parts], np.float64)
    if not (y > 0).any():
        raise SettingsError("the stack has no noise: neighbours differ by nothing")
    gain, intercept = _weighted_line(x, y, counts)
    if gain <= 0:
        return Noise(0.0, float(np.average(y, weights=counts)))
    return Noise(float(gain), float(intercept))


def _weighted_line(
    x: NDArray[np.float64], y: NDArray[np.float64], counts: NDArray[np.float64]
) -> tuple[float, float]:
    """Return slope and intercept of a line through variances, with weights from the line itself."""
    expected = np.maximum(y, y[y > 0].min())
    slope = intercept = 0.0
    for _ in range(10):
        weights = np.sqrt(counts / 2) / expected
        if len(x) == 1 or np.ptp(x) == 0:
            return 0.0, float(np.average(y, weights=weights**2))
        slope, intercept = np.polyfit(x, y, 1, w=weights)
        expected = np.maximum(slope * x + intercept, 1e-3 * expected.max())
    return float(slope), float(intercept)


def _clipped_mean(squares: NDArray[np.float64]) -> float:
    """Return the mean of squares of a normal distribution, without those too large to be of it."""
    mean = float(squares.mean())
    for _ in range(5):
        kept = squares[squares < CLIPPED**2 * mean]
        if not len(kept):
            return mean
        mean = float(kept.mean()) / KEPT_VARIANCE
    return mean
