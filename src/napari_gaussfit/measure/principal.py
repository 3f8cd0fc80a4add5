"""Widths along a Gaussian's own axes without what their order makes of them.

Of a matrix that is known with errors the largest eigenvalue is found too large and the least too
small, as they are named by what was found: two widths that are the same differ by two error bars.
To the second order the logarithm of eigenvalue n is too large by

    1/2 sum over m of V_nm coth((log l_n - log l_m) / 2),

V_nm being the variance of the matrix between its axes n and m, each in units of the Gaussian's
standard deviation along it. That is taken off; those whose order is then another are made equal
(isotonic regression). Both are C. Stein's: Estimation of a covariance matrix, Rietz Lecture 1975;
see also S. P. Lin and M. D. Perlman, in Multivariate Analysis VI (1985) 411. Of two alone it is
the correction of Rice's bias (H. Gudbjartsson and S. Patz, Magn. Reson. Med. 34 (1995) 910).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_gaussfit.model.gaussians import LOWER

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from napari_gaussfit.model.gaussians import Gaussians

    Floats = NDArray[np.float64]

__all__ = ["principal_widths", "variances_between", "without_order"]

PAIRS = ((0, 1), (0, 2), (1, 2))
"""The axes of a Gaussian, two by two."""


def principal_widths(gaussians: Gaussians, covariances: Floats) -> tuple[Floats, Floats]:
    """Return widths along the Gaussians' own axes, and their errors.

    Parameters
    ----------
    gaussians : Gaussians
        The Gaussians as they were refined.
    covariances : ndarray, shape [K, 6, 6]
        Of their Cholesky parameters; NaN where these are not determined.

    Returns
    -------
    widths : ndarray, shape [K, 3]
        Standard deviations, descending, in the Gaussians' unit, without the bias of their order;
        equal where the data cannot tell them apart. Their product is that of the matrix's own.
        The matrix's own where nothing is determined.
    errors : ndarray, shape [K, 3]
        Of the width along each axis, propagated linearly.
    """
    sigmas, axes = gaussians.principal()
    variances = variances_between(gaussians, axes, covariances)
    errors = np.sqrt(np.diagonal(variances, axis1=1, axis2=2)) / (2 * sigmas)
    relative = variances / np.square(sigmas[:, :, None] * sigmas[:, None, :])
    logarithms = without_order(2 * np.log(sigmas), relative, _of_logarithms)
    return np.exp(logarithms / 2), errors


def variances_between(gaussians: Gaussians, axes: Floats, covariances: Floats) -> Floats:
    """Return how well Gaussians' covariance matrices S are known between axes.

    Parameters
    ----------
    gaussians : Gaussians
        The Gaussians whose matrices they are.
    axes : ndarray, shape [K, 3, 3]
        Three unit vectors e of each, along z, y and x.
    covariances : ndarray, shape [K, 6, 6]
        Of their Cholesky parameters.

    Returns
    -------
    ndarray, shape [K, 3, 3]
        The variance of e_a^T S e_b, by dS = dL L^T + L dL^T, in `unit` to the fourth.
    """
    factors = gaussians.factors
    along = axes @ factors
    slopes = np.empty((len(factors), 3, 3, len(LOWER[0])))
    for n, (row, column) in enumerate(zip(*LOWER, strict=True)):
        one_way = axes[:, :, None, row] * along[:, None, :, column]
        own = factors[:, row, column, None, None] if row == column else 1.0
        slopes[..., n] = (one_way + one_way.swapaxes(1, 2)) * own
    variances: Floats = (slopes @ covariances[:, None] * slopes).sum(-1)
    return variances


def without_order(
    values: Floats, variances: Floats, pull: Callable[[Floats], Floats] = np.reciprocal
) -> Floats:
    """Return three values in order that have lost what their order adds and takes.

    Parameters
    ----------
    values : ndarray, shape [K, 3]
        Eigenvalues or their logarithms, descending.
    variances : ndarray, shape [K, 3, 3]
        Of the matrix, or its logarithm, between its own axes.
    pull : callable
        How far a variance of 1 between two axes pulls their values apart, by how far these are:
        1 / d of eigenvalues, half coth(d / 2) of their logarithms.

    Returns
    -------
    ndarray, shape [K, 3]
        Descending as they were, with the same sum; `values` where a variance is not known.
    """
    moved = values.copy()
    spread = values[:, 0] - values[:, 2]
    for n, m in PAIRS:
        apart = np.maximum(values[:, n] - values[:, m], np.finfo(float).tiny)
        # Farther than all are apart is no farther: their order is another by then.
        with np.errstate(over="ignore"):
            shift = np.minimum(variances[:, n, m] * pull(apart), spread)
        moved[:, n] -= shift
        moved[:, m] += shift
    return np.where(np.isfinite(moved), _descending(moved), values)


def _of_logarithms(apart: Floats) -> Floats:
    halves: Floats = 0.5 / np.tanh(apart / 2)
    return halves


def _descending(values: Floats) -> Floats:
    """Return the three that descend and are nearest to three in the mean square, row by row."""
    mean = values.mean(1)
    first = np.maximum(np.maximum(values[:, 0], values[:, :2].mean(1)), mean)
    last = np.minimum(np.minimum(values[:, 2], values[:, 1:].mean(1)), mean)
    middle = np.clip(3 * mean - first - last, last, first)
    return np.stack((first, middle, last), axis=1)
