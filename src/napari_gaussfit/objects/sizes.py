"""How large the spots are that are looked for, and the widths of the filters that look for them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_gaussfit.errors import SettingsError
from napari_gaussfit.model.gaussians import FWHM_PER_SIGMA

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_gaussfit.stacks.facts import StackFacts
    from napari_gaussfit.stacks.stack import Stack

    Floats = NDArray[np.float64]
    Counts = NDArray[np.int64]
    Triple = tuple[float, float, float]

__all__ = ["Sizes"]

LEAST_VOXELS = 2.0
"""FWHM of the least spot where none is asked for: as fine as voxels can show."""

LARGEST_VOXELS, LARGEST_MICROMETERS = 6.0, 0.6
"""FWHM of the largest, whichever is more: beyond what a lens makes of a point lies structure."""

LONGEST_ALONG_Z = 3.0
"""How many times as long as wide, in micrometres, a filter is at most: an objective's blur is."""

LEAST_SIGMA = 0.6
"""Voxels: narrower filters are one voxel."""

STEP = math.sqrt(2.0)
"""From a width to the next: a filter that is half of it off loses 3 % of what it answers."""


@dataclass(frozen=True)
class Sizes:
    """How large spots are.

    Parameters
    ----------
    least, largest : float
        FWHM across the optical axis, in `unit`.
    along : float
        How many times as long along z.
    spacing : tuple of float
        (dz, dy, dx) in `unit`.
    """

    least: float
    largest: float
    along: float
    spacing: Triple

    @classmethod
    def of(cls, stack: Stack | StackFacts, least: float | None, largest: float | None) -> Sizes:
        """Return sizes that a stack can show.

        Parameters
        ----------
        stack : Stack or StackFacts
            In whose unit they are.
        least, largest : float, optional
            FWHM; if None, of 2 voxels, and of 6 or 0.6 micrometres, whichever is more.

        Returns
        -------
        Sizes
            Filters are as long along z as voxels are, up to three times.

        Raises
        ------
        SettingsError
            If a size is not above 0, or the least above the largest.
        """
        across = math.sqrt(stack.spacing[1] * stack.spacing[2])
        high = LARGEST_VOXELS * across if largest is None else largest
        if largest is None and stack.unit == "micrometer":
            high = max(high, LARGEST_MICROMETERS)
        low = min(LEAST_VOXELS * across, high / 2) if least is None else least
        high = max(high, 2 * low) if largest is None else high
        if not 0 < low <= high < math.inf:
            message = f"sizes from {low:g} to {high:g} {stack.unit}s: give a least size above 0 "
            raise SettingsError(message + "and a largest one that is not below it")
        along = min(max(stack.spacing[0] / across, 1.0), LONGEST_ALONG_Z)
        return cls(low, high, along, stack.spacing)

    @property
    def count(self) -> int:
        """Number of widths from the least to the largest."""
        return 1 + math.ceil(math.log(self.largest / self.least) / math.log(STEP) - 1e-9)

    def sigmas(self, level: int | NDArray[np.int64]) -> Floats:
        """Return the standard deviations of a width along z, y and x.

        Parameters
        ----------
        level : int or ndarray of int, shape [n]
            0 for the least.

        Returns
        -------
        ndarray, shape [3] or [n, 3]
            In voxels.
        """
        across = self.least / FWHM_PER_SIGMA * STEP ** np.asarray(level, np.float64)
        shape = across[..., None] * np.array([self.along, 1.0, 1.0]) / np.asarray(self.spacing)
        sigmas: Floats = np.maximum(shape, LEAST_SIGMA)
        return sigmas

    def levels(self) -> Counts:
        """Return the numbers of all widths."""
        return np.arange(self.count)

    def levels_of(self, least: float, largest: float) -> Counts:
        """Return the numbers of the widths from that nearest to one to that nearest to another.

        Parameters
        ----------
        least, largest : float
            FWHM across the optical axis, in `unit`.

        Returns
        -------
        ndarray of int
            Ascending, one at least.
        """
        steps = np.log(np.array([least, largest]) / self.least) / math.log(STEP)
        low, high = np.clip(np.rint(steps), 0, self.count - 1).astype(np.int64).tolist()
        return np.arange(low, high + 1)

    def levels_beside(self, levels: Counts) -> Counts:
        """Return some widths and a few of the others: every second wider, every third narrower.

        A filter that is a width off loses 8 % of what it answers, and one that is two off 28 %: no
        wider width is more than one off, and no narrower one more than two.

        Parameters
        ----------
        levels : ndarray of int, shape [n]
            Ascending, without a gap; one at least.

        Returns
        -------
        ndarray of int
            Ascending.
        """
        low, high = int(levels[0]), int(levels[-1])
        below, above = np.arange(low - 3, -1, -3)[::-1], np.arange(high + 2, self.count, 2)
        return np.concatenate([below, levels, above])
