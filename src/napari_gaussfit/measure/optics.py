"""What light allows: the width of a microscope's point spread function by its numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_gaussfit.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = ["Optics"]

ANGLES = 400
"""Of the pupil, at which the integral is summed: FWHM are right to 1e-4 with half as many."""

FARTHEST = 4.0
"""Where a width is looked for, in first guesses of it."""


@dataclass(frozen=True)
class Optics:
    """A microscope's objective, light and pinhole.

    The point spread function is the scalar Debye integral of an aplanatic objective (M. Gu,
    Advanced Optical Imaging Theory, 2000): exact but for polarisation, which widens it by less than
    a tenth at the largest apertures.

    Parameters
    ----------
    na : float
        The numerical aperture of the objective.
    wavelength_nm : float
        Of the light, in a vacuum, in nm: what is emitted; a confocal's laser is taken for the same.
    index : float, default 1.518
        Refractive index of the immersion.
    pinhole : float, optional
        Diameter in Airy units (1.22 wavelength / NA); a wide-field microscope has none.

    Raises
    ------
    SettingsError
        If there is no such microscope.
    """

    na: float
    wavelength_nm: float
    index: float = 1.518
    pinhole: float | None = None

    def __post_init__(self) -> None:
        """Refuse what no microscope has."""
        for name, value, low, high in (
            ("NA", self.na, 0.01, 2.0),
            ("wavelength", self.wavelength_nm, 100.0, 10_000.0),
            ("index", self.index, 1.0, 2.0),
            ("pinhole", 1.0 if self.pinhole is None else self.pinhole, 0.01, 5.0),
        ):
            if not low <= value <= high:
                expected = f"expected {low:g} to {high:g}"
                unit = " nm" if name == "wavelength" else ""
                raise SettingsError(f"{name}={value:g}{unit}: {expected}{unit}")
        if self.na >= self.index:
            raise SettingsError(
                f"NA={self.na:g} is not below the index {self.index:g} of the immersion; give the "
                "index of what the objective is made for (oil 1.518, water 1.33, air 1)"
            )

    @property
    def words(self) -> str:
        """The numbers that it is computed of, for a person."""
        pinhole = "" if self.pinhole is None else f", pinhole of {self.pinhole:g} Airy units"
        return f"NA {self.na:g}, {self.wavelength_nm:g} nm, index {self.index:g}{pinhole}"

    @property
    def fwhm(self) -> tuple[float, float, float]:
        """The full widths at half maximum along z, y and x, in micrometres."""
        lateral, axial = 0.51 * self._wave / self.na, 0.88 * self._wave / self._depth
        across = _half_width(lambda r: self._seen(r, 0.0 * r), FARTHEST * lateral)
        along = _half_width(lambda z: self._seen(0.0 * z, z), FARTHEST * axial)
        return 2 * along, 2 * across, 2 * across

    @property
    def _wave(self) -> float:
        return self.wavelength_nm / 1000

    @property
    def _depth(self) -> float:
        return self.index - math.sqrt(self.index**2 - self.na**2)

    def _seen(self, r: Floats, z: Floats) -> Floats:
        """Return the intensity of a point source at distances r, z in micrometres."""
        light = self._intensity(r, z)
        if self.pinhole is None:
            return light
        radius = 0.5 * self.pinhole * 1.22 * self._wave / self.na
        # What the pinhole collects: the mean over a disc, by rings of equal area and by angles.
        count = max(12, math.ceil(24 * self.pinhole))
        rings = radius * np.sqrt((np.arange(count) + 0.5) / count)
        angles = max(12, math.ceil(16 * self.pinhole))
        turns = np.pi * (np.arange(angles) + 0.5) / angles
        x = r[:, None, None] + rings[:, None] * np.cos(turns)
        y = rings[:, None] * np.sin(turns) + 0.0 * x
        depth = z[:, None, None] + 0.0 * x
        seen = self._intensity(np.hypot(x, y).ravel(), depth.ravel()).reshape(x.shape)
        collected: Floats = light * seen.mean(axis=(1, 2))
        return collected

    def _intensity(self, r: Floats, z: Floats) -> Floats:
        """Return |integral of sqrt(cos t) sin t J0(k r sin t) exp(i k z cos t) dt|^2."""
        from scipy.special import j0

        steps = (np.arange(ANGLES) + 0.5) / ANGLES
        angles = steps * math.asin(self.na / self.index)
        wave = 2 * np.pi * self.index / self._wave
        weights = np.sqrt(np.cos(angles)) * np.sin(angles)
        radial = j0(wave * np.outer(r, np.sin(angles)))
        phases = np.exp(1j * wave * np.outer(z, np.cos(angles)))
        intensity: Floats = np.abs((weights * radial * phases).sum(axis=1)) ** 2
        return intensity


def _half_width(profile: Callable[[Floats], Floats], most: float) -> float:
    """Return where a profile that falls from 0 has half its height."""
    from scipy.optimize import brentq

    top = float(profile(np.zeros(1))[0])

    def above(at: float) -> float:
        return float(profile(np.array([at]))[0]) / top - 0.5

    ends = np.linspace(0.0, most, 81)[1:]
    last = next(n for n, at in enumerate(ends) if above(at) < 0)
    return float(brentq(above, ends[last - 1] if last else 0.0, ends[last], xtol=1e-7 * most))
