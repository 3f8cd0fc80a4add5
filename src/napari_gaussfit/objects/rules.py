"""What a spot is: of which sizes, how far above the noise, and not in the halo of another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_gaussfit.model.gaussians import FWHM_PER_SIGMA
from napari_gaussfit.objects.pairs import reached

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_gaussfit.measure.noise import Noise
    from napari_gaussfit.model.gaussians import Gaussians
    from napari_gaussfit.objects.sizes import Sizes

    Floats = NDArray[np.float64]
    Mask = NDArray[np.bool_]

__all__ = [
    "above_noise",
    "brightest_around",
    "largest_sigmas",
    "of_right_size",
    "widths_across",
    "widths_allowed",
]

TOLERANCE, AT_MOST = 1.2, 1.3
"""By how much a spot may be smaller or larger than was asked for, as sizes have errors; and by how
much what is part of the light around spots may be while these are refined."""

FLATTEST = 0.5
"""Of the least spot's width, that of a spot along any axis: flatter ones are a voxel's noise."""

LONGEST = 4.0
"""How many times as long along z as wide a spot may be, beyond what filters are."""

HALO, COMPANION = 4.0, 0.2
"""Sigmas around a spot within which what is left is its own halo, and no spot, if it is lower than
so much of its peak: no objective's blur is a Gaussian."""


def largest_sigmas(sizes: Sizes) -> Floats:
    """Return the standard deviations of the largest spot along z, y and x, in the sizes' unit."""
    scale = sizes.largest / FWHM_PER_SIGMA
    return scale * np.array([sizes.along, 1.0, 1.0])


def widths_allowed(sizes: Sizes) -> tuple[Floats, Floats]:
    """Return the least and the largest standard deviations while spots are refined."""
    least = FLATTEST * sizes.sigmas(0) * sizes.spacing
    return least, AT_MOST * largest_sigmas(sizes) * np.array([LONGEST, 1.0, 1.0])


def widths_across(gaussians: Gaussians) -> Floats:
    """Return full widths at half maximum across z, in the Gaussians' unit."""
    across: Floats = FWHM_PER_SIGMA * np.linalg.det(gaussians.covariances[:, 1:, 1:]) ** 0.25
    return across


def of_right_size(gaussians: Gaussians, sizes: Sizes) -> Mask:
    """Tell which are as wide as spots are to be, and neither a voxel nor light around them."""
    covariances, across = gaussians.covariances, widths_across(gaussians)
    right: Mask = across <= sizes.largest * TOLERANCE
    right &= across >= sizes.least / TOLERANCE
    right &= covariances[:, 0, 0] < (TOLERANCE * LONGEST * largest_sigmas(sizes)[0]) ** 2
    least = sizes.sigmas(0) * sizes.spacing
    scaled = np.linalg.eigvalsh(covariances / np.multiply.outer(least, least))
    right &= scaled[:, 0] >= (FLATTEST * TOLERANCE) ** 2
    return right


def above_noise(gaussians: Gaussians, backgrounds: Floats, noise: Noise, sizes: Sizes) -> Floats:
    """Return by how many standard deviations of the background's noise spots stand out."""
    volumes = np.exp(gaussians.log_widths.sum(1)) / np.prod(sizes.spacing) * np.pi**1.5
    variance = np.maximum(noise.variance(backgrounds), 1e-30)
    above: Floats = gaussians.amplitudes * np.sqrt(volumes / variance)
    return above


def brightest_around(points: Floats, gaussians: Gaussians) -> Floats:
    """Return the peak of the brightest spot whose halo reaches each point, in the spots' unit."""
    brightest = np.zeros(len(points))
    which, whose = reached(points, gaussians, HALO)
    np.maximum.at(brightest, which, gaussians.amplitudes[whose])
    return brightest
