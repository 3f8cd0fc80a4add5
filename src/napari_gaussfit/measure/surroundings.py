"""Dim Gaussians once more in a wide window, where the background goes on beyond the narrow one.

A window is narrow, so that one constant is a background, and what its voxels tell of that is much
of what is not known of a dim Gaussian's light. In a wide one it is known better, if it is the same.
Whether it is follows from J. A. Hausman's test (Econometrica 46 (1978) 1251): of two estimates, of
which one is efficient where the model holds, the difference has the difference of their variances.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_gaussfit._kernels.cpu.refinement_kernels import SHAPE, WRONG_MODEL
from napari_gaussfit.measure.grouping import boxes_about, scene_of, whole_blocks

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_gaussfit._kernels.cpu.refinement_kernels import Lists
    from napari_gaussfit.measure.turns import Fits, Refine

    Floats = NDArray[np.float64]
    Counts = NDArray[np.int64]
    Mask = NDArray[np.bool_]

__all__ = ["are_dim", "with_surroundings"]

WIDE = 6.0
"""Sigmas from its centre to the sides of a Gaussian's wide window: from 3.5 to 6, the bound of a
light of 20 photons over 10 falls by 6 %, and by less than 1 % beyond."""

DIM = 0.03
"""Error of a light, in parts of it, from which the surroundings are looked at. They take as long as
three refinements, and of brighter ones tell little: 1.4 % of the error of one of 1,000 photons."""

AGREES = 2.5
"""Standard deviations of their difference within which backgrounds of two windows are one."""


def with_surroundings(
    voxels: NDArray[np.float32],
    fits: Fits,
    blocks: Lists,
    windows: Counts,
    reaches: Floats,
    refine: Refine,
    rules: tuple[Floats, int, Floats],
) -> tuple[Fits, Counts]:
    """Return fits, those of dim Gaussians in wide windows where the background is the same there.

    Parameters
    ----------
    voxels : ndarray, shape [C, Z, Y, X]
        Intensities of the channels, in float32.
    fits : tuple of ndarray
        What `refine_blocks` returned: shapes, amplitudes, covariances and numbers.
    blocks : tuple of ndarray
        Which Gaussians are refined together.
    windows : ndarray, shape [K, 6]
        First and last z, y, x of the window in which each was refined.
    reaches : ndarray, shape [K]
        Sigmas from its centre within which each Gaussian is anything.
    refine : callable
        `refine_blocks` of a device.
    rules : tuple
        Noise, most steps and limits, as `refine_blocks` takes them.

    Returns
    -------
    tuple of ndarray
        As they were given, but for those that a wide window describes as well.
    ndarray, shape [K, 6]
        The windows of these.
    """
    shapes, amplitudes, _, numbers = fits
    some = whole_blocks(blocks, are_dim(fits))
    if not len(some[1]):
        return fits, windows
    wider = boxes_about(shapes, WIDE, 1, voxels.shape[1:])
    noise, *limits = rules
    wide = refine(scene_of(voxels, fits, some, wider, reaches, noise), *limits)
    taken = np.zeros(len(shapes), np.bool_)
    taken[some[1]] = (_holds(wide) & _alike(fits, wide))[some[1]]
    found = (
        np.where(taken[:, None], wide[0], shapes),
        np.where(taken, wide[1], amplitudes),
        np.where(taken[:, None, None], wide[2], fits[2]),
        np.where(taken[:, None], wide[3], numbers),
    )
    return found, np.where(taken[:, None], wider, windows)


def are_dim(fits: Fits) -> Mask:
    """Return which Gaussians converged to what describes their window, and are dim.

    Parameters
    ----------
    fits : tuple of ndarray
        Shapes, amplitudes, covariances and numbers, as `refine_blocks` returns them.

    Returns
    -------
    ndarray of bool, shape [K]
        Of whose light in no channel the error is `DIM` or less.
    """
    return _holds(fits) & _dim(fits)


def _holds(fits: Fits) -> Mask:
    """Return where the refinement converged to what describes the window."""
    _, _, covariances, numbers = fits
    reduced, looked, steps = numbers[:, :3].T
    right = (steps > 0) & (reduced <= 1.0 + WRONG_MODEL * np.sqrt(2.0 / np.maximum(looked, 1)))
    return np.asarray(right & np.isfinite(covariances).all((1, 2)), np.bool_)


def _dim(fits: Fits) -> Mask:
    """Return of which Gaussians the light is not known to `DIM` in any channel."""
    _, amplitudes, covariances, _ = fits
    least = np.full(amplitudes.shape[1], np.inf)
    for c, heights in enumerate(amplitudes):
        # Of the logarithm of the light: that of the amplitude and of the widths.
        slopes = np.zeros((len(heights), covariances.shape[1]))
        slopes[:, [3, 5, 8]] = 1.0
        slopes[:, SHAPE + c] = 1.0 / np.maximum(heights, 1e-300)
        least = np.fmin(least, np.einsum("ki,kij,kj->k", slopes, covariances, slopes))
    return np.asarray(least > DIM**2, np.bool_)


def _alike(narrow: Fits, wide: Fits) -> Mask:
    """Return where backgrounds of two windows differ by no more than chance."""
    channels = len(narrow[1])
    own = np.arange(SHAPE + channels, SHAPE + 2 * channels)
    variances = narrow[2][:, own, own] - wide[2][:, own, own]
    apart = np.square(narrow[3][:, 3:] - wide[3][:, 3:])
    return np.asarray((apart <= AGREES**2 * variances).all(axis=1), np.bool_)
