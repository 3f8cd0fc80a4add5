"""Dim Gaussians without the bias of the largest likelihood, to the second order in its errors.

Of few photons the likeliest Gaussian is too bright at its peak, by a sixth of its error bar at 20
photons over 10. How much is known without the truth (see `bias_kernels`), and taken off. What is
without bias in one parameter is not in another that bends with it; so of the covariance matrix it
is the mean in its own geometry, in which no axis comes before another and what is taken off leaves
it a covariance: S. T. Smith, Covariance, subspace, and intrinsic Cramér-Rao bounds, IEEE Trans.
Signal Process. 53 (2005) 1610.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_gaussfit._kernels.cpu.bias_kernels import find_biases
from napari_gaussfit._kernels.cpu.refinement_kernels import SHAPE
from napari_gaussfit.measure.grouping import scene_of, whole_blocks
from napari_gaussfit.model.gaussians import LOWER, factors_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_gaussfit._kernels.cpu.refinement_kernels import Lists
    from napari_gaussfit.measure.turns import Fits

    Floats = NDArray[np.float64]
    Counts = NDArray[np.int64]
    Mask = NDArray[np.bool_]

__all__ = ["without_bias"]

CREDIBLE = 0.5
"""Of an error bar: a bias that were more is beyond what the second order can tell."""


def without_bias(
    voxels: NDArray[np.float32],
    fits: Fits,
    blocks: Lists,
    windows: Counts,
    reaches: Floats,
    noise: Floats,
    wanted: Mask,
) -> Fits:
    """Return fits, of which those that are wanted have lost their bias.

    Parameters
    ----------
    voxels : ndarray, shape [C, Z, Y, X]
        Intensities of the channels, in float32.
    fits : tuple of ndarray
        What `refine_blocks` returned: shapes, amplitudes, covariances and numbers.
    blocks : tuple of ndarray
        Which Gaussians were refined together.
    windows : ndarray, shape [K, 6]
        First and last z, y, x of the window in which each was refined.
    reaches : ndarray, shape [K]
        Sigmas from its centre within which each Gaussian is anything.
    noise : ndarray, shape [4]
        That of photons, as `refine_blocks` takes it.
    wanted : ndarray of bool, shape [K]
        Which are dim, and converged to what describes the window.

    Returns
    -------
    tuple of ndarray
        As they were given, but for blocks of which all are wanted and whose bias is credible. Error
        bars and chi^2 stay those of the largest likelihood.
    """
    shapes, amplitudes, covariances, numbers = fits
    some = whole_blocks(blocks, wanted)
    if not len(some[1]):
        return fits
    biases = find_biases(scene_of(voxels, fits, some, windows, reaches, noise))
    channels = len(amplitudes)
    heights = amplitudes - biases[:, SHAPE : SHAPE + channels].T
    variances = np.diagonal(covariances, axis1=1, axis2=2)
    told = np.all(np.square(biases) <= CREDIBLE**2 * variances, axis=1) & (heights > 0).all(axis=0)
    changed = shapes.copy()
    changed[told, :3] -= biases[told, :3]
    changed[told, 3:] = _unbiased_shapes(
        shapes[told, 3:], biases[told, 3:SHAPE], covariances[told, 3:SHAPE, 3:SHAPE]
    )
    return (
        changed,
        np.where(told, heights, amplitudes),
        covariances,
        np.where(
            told[:, None] & (np.arange(numbers.shape[1]) >= 3),
            numbers - np.pad(biases[:, SHAPE + channels :], ((0, 0), (3, 0))),
            numbers,
        ),
    )


def _unbiased_shapes(cholesky: Floats, biases: Floats, covariances: Floats) -> Floats:
    """Return the Cholesky parameters [n, 6] of covariances without bias in their own geometry.

    With L of what was found and M = L^-1 dL, a covariance is L (1 + E) L^T, to the first order with
    E = M + M^T, and to the second with M M^T as well. Its logarithm there is E - E^2 / 2, whose
    mean B is what is taken off: L exp(-B) L^T is left.

    biases, covariances : [n, 6] and [n, 6, 6], of the parameters.
    """
    rows, columns = LOWER
    diagonal = np.equal(rows, columns)
    factors = factors_of(cholesky)
    own = factors[:, rows, columns]
    slopes = np.where(diagonal, own, 1.0)
    curves = np.where(diagonal, own, 0.0)
    spreads = np.diagonal(covariances, axis1=1, axis2=2)
    # L^-1 times what each entry of L is off, which stands in that entry's column.
    inverses = np.linalg.inv(factors)
    by_entry = np.zeros((len(own), len(rows), 3, 3))
    for n, (row, column) in enumerate(zip(rows, columns, strict=True)):
        by_entry[:, n, :, column] = inverses[:, :, row]
    first = np.einsum("nc,ncij->nij", slopes * biases + curves * spreads / 2, by_entry)
    spread = covariances * slopes[:, :, None] * slopes[:, None, :]
    crossed = by_entry + by_entry.swapaxes(2, 3)
    off = first + first.swapaxes(1, 2)
    off += np.einsum("ncd,ncik,ndjk->nij", spread, by_entry, by_entry)
    off -= np.einsum("ncd,ncik,ndkj->nij", spread, crossed, crossed) / 2
    values, axes = np.linalg.eigh((off + off.swapaxes(1, 2)) / 2)
    left = factors @ axes * np.exp(-values / 2)[:, None, :]
    found = np.linalg.cholesky(left @ left.swapaxes(1, 2))[:, rows, columns]
    return np.where(diagonal, np.log(np.where(diagonal, found, 1.0)), found)
