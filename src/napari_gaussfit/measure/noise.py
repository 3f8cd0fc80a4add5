"""The noise of a stack: gain, and what of its variance does not depend on the light.

What a detector's is, and a draw of it; `photon_transfer` estimates it from voxels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_gaussfit._threads import run_pieces
from napari_gaussfit.errors import SettingsError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_gaussfit.settings import FitSettings

    Floats = NDArray[np.float64]

__all__ = ["Noise", "draw_noise", "given_noise", "saturation_of"]

LEAST_ALIKE = 8
"""Voxels at the largest or the lowest value that are no accident."""


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
            Value from which a voxel may have had more light than it says, in raw intensity.

        Returns
        -------
        Noise
            gain f + read^2 - gain offset.
        """
        return cls(gain, read * read - gain * offset, saturation)

    @property
    def offset(self) -> float:
        """The raw intensity of no light, if no read noise adds to the variance; NaN without gain.

        Read noise `read` lifts it by read^2 / gain.
        """
        return max(-self.intercept / self.gain, 0.0) if self.gain else math.nan

    @property
    def read(self) -> float:
        """The standard deviation of the noise of no light, at `offset`."""
        return math.sqrt(max(self.intercept, 0.0))

    @property
    def words(self) -> str:
        """The noise in words, for a person."""
        if not self.gain:
            said = f"standard deviation {self.read:.3g} at every intensity"
        elif self.intercept > 0:
            said = f"gain {self.gain:.3g} a photon, read noise {self.read:.3g} if the offset is 0"
        else:
            said = f"gain {self.gain:.3g} a photon, offset {self.offset:.4g} if the read noise is 0"
        return said + (f", saturated at {self.saturation:g}" if self.saturation < math.inf else "")

    def variance(self, light: NDArray[np.floating]) -> Floats:
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

    def rescaled(self, factor: float, zero: float = 0.0) -> Noise:
        """Return the noise of the same voxels in other units.

        Parameters
        ----------
        factor : float
            New units that one of these is.
        zero : float
            What 0 is in the new ones.

        Returns
        -------
        Noise
            Of factor v + zero, where this is of v.
        """
        gain = self.gain * factor
        intercept = self.intercept * factor**2 - gain * zero
        return Noise(gain, intercept, self.saturation * factor + zero)


def given_noise(settings: FitSettings, voxels: NDArray[Any]) -> Noise | None:
    """Return the noise of the detector that settings describe.

    Parameters
    ----------
    settings : FitSettings
        With gain, offset and read_noise, or without.
    voxels : ndarray, shape [Z, Y, X]
        Raw intensity; tells where they are saturated.

    Returns
    -------
    Noise or None
        None where no gain is given.
    """
    if settings.gain is None:
        return None
    return Noise.of_detector(
        settings.gain,
        offset=settings.offset or 0.0,
        read=settings.read_noise or 0.0,
        saturation=saturation_of(voxels),
    )


def saturation_of(voxels: NDArray[Any]) -> float:
    """Return the value at which a stack's voxels are saturated.

    Parameters
    ----------
    voxels : ndarray, shape [Z, Y, X]
        The stack's voxels, in raw intensity as they were recorded.

    Returns
    -------
    float
        The largest value, where more voxels have it than have the hundredth part of the range below
        it; infinite elsewhere.
    """
    lowest, highest = float(voxels.min()), float(voxels.max())
    full = int(np.count_nonzero(voxels == voxels.max()))
    if full < LEAST_ALIKE or highest <= lowest:
        return math.inf
    near = int(np.count_nonzero(voxels > highest - 0.01 * (highest - lowest))) - full
    return highest if near < full < voxels.size // 2 else math.inf


def draw_noise(
    noise: Noise, light: NDArray[np.floating], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Return a draw of noise.

    As far as it grows with the light, it is that of photons, and as skew as theirs (the first terms
    of Cornish and Fisher's expansion, 1938).

    Parameters
    ----------
    noise : Noise
        The gain and intercept that the variance follows.
    light : ndarray, shape [Z, Y, X]
        Mean of what is recorded in each voxel, in raw intensity.
    rng : numpy.random.Generator
        Source of the draw.

    Returns
    -------
    ndarray of float32, shape [Z, Y, X]
        In raw intensity; its mean is 0.
    """
    drawn = np.empty(light.shape, np.float32)
    sources = rng.spawn(len(light))  # one a plane: the draw is the same in any number of threads
    skew = np.float32(noise.gain / 6)

    def draw(first: int, end: int) -> None:
        # Plane by plane: beside a large stack there is no room for what comes between.
        for z in range(first, end):
            normal = sources[z].standard_normal(light[z].shape, dtype=np.float32)
            deviation = np.sqrt(noise.variance(light[z])).astype(np.float32)
            drawn[z] = deviation * normal + skew * (np.square(normal) - 1)

    run_pieces(draw, len(light))
    return drawn
