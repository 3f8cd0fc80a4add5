"""Cross-sections of a field: how wide it is across a line, from the covariance in the plane."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from napari_gaussfit.model.gaussians import Gaussians

    Floats = NDArray[np.float64]
    Mask = Callable[[int, NDArray[np.intp]], NDArray[np.bool_]]

__all__ = ["planes_across", "radii_across"]

RADIUS_PER_SIGMA = 2.0
"""An evenly filled disc of radius r has the standard deviation r / 2 along each of its axes."""

WINDOW = 2.0
"""Sigmas of the window in which a width is measured, in scales: the neighbours stay outside."""

_REACH = 4.0
"""Sigmas, and windows, beyond which a Gaussian is left out."""

_LEAST = 0.05
"""The least part of the variance seen that is taken for the structure's own, once the microscope's
is taken away: what is left of less is noise."""


def planes_across(tangents: Floats) -> Floats:
    """Return two unit vectors across each line.

    Parameters
    ----------
    tangents : ndarray, shape [N, 3]
        Unit vectors along lines.

    Returns
    -------
    ndarray, shape [N, 3, 2]
        Columns that span the planes.
    """
    # The plane's basis is that of the projection, whose eigenvalues are 0, 1, 1.
    projection = np.eye(3) - tangents[:, :, None] * tangents[:, None, :]
    return np.asarray(np.linalg.eigh(projection)[1][:, :, 1:])


def radii_across(
    gaussians: Gaussians,
    points: Floats,
    tangents: Floats,
    scales: Floats,
    psf: Floats | None,
    foreign: Mask | None = None,
) -> Floats:
    """Return the radius at each point of a line, from the second moments of f across it.

    The Gaussians are cut by the plane across, in a Gaussian window about the point, which is taken
    out of the covariance again. Where the two widths across differ, as they do for the microscope
    blurs more along z, the narrower one tells more of the structure, and counts more.

    Parameters
    ----------
    gaussians : Gaussians
        The Gaussians whose sum is traced.
    points, tangents : ndarray, shape [N, 3]
        On the line, and unit vectors along it; in the field's unit, axis order z, y, x.
    scales : ndarray, shape [N]
        About the sigma across.
    psf : ndarray, shape [3, 3], or None
        The covariance of the point spread function, to take away.
    foreign : callable, or None
        Tells which of some Gaussians are no part of the line at a point, given its number and
        theirs: the light of a brighter neighbour, even in the window's tail, makes a thin line
        seem wide.

    Returns
    -------
    ndarray, shape [N]
        Of the disc that has this variance, in the field's unit.
    """
    planes = planes_across(tangents)
    seen = _covariances_across(gaussians, points, planes, WINDOW * scales, foreign)
    widths, axes = np.linalg.eigh(seen)
    widths = np.maximum(widths, np.finfo(np.float64).tiny)
    blur = np.zeros_like(widths)
    if psf is not None:
        across = np.einsum("nij,njk->nik", planes, axes)
        blur = np.einsum("nik,ij,njk->nk", across, psf, across)
    own = np.maximum(widths - blur, _LEAST * widths)
    # A width is known to a part of itself: its variance's weight is 1 over its own square.
    weights = 1 / widths**2
    return np.asarray(RADIUS_PER_SIGMA * np.sqrt((weights * own).sum(axis=1) / weights.sum(axis=1)))


def _covariances_across(
    gaussians: Gaussians, points: Floats, planes: Floats, windows: Floats, foreign: Mask | None
) -> Floats:
    """Return the covariance [N, 2, 2] of f in the plane through each point."""
    sigmas = gaussians.principal()[0][:, 0]
    tree = cKDTree(gaussians.means)
    reach = _REACH * max(float(np.median(sigmas)), float(np.quantile(sigmas, 0.99)))
    near = tree.query_ball_point(points, reach + _REACH / 2 * windows)
    precisions = np.linalg.inv(gaussians.covariances)
    found = np.empty((len(points), 2, 2))
    for n, close in enumerate(near):
        which = np.array(close, np.intp)
        if foreign is not None:
            which = which[~foreign(n, which)]
        P, U = precisions[which], planes[n]
        away = gaussians.means[which] - points[n]
        # In the plane, exp(-(U y - d)^T P (U y - d) / 2 - |y|^2 / (2 w^2)) is a Gaussian of y.
        A = np.einsum("ia,kij,jb->kab", U, P, U) + np.eye(2) / windows[n] ** 2
        inverse = np.linalg.inv(A)
        pull = np.einsum("kij,kj->ki", P, away)
        b = pull @ U
        centre = np.einsum("kab,kb->ka", inverse, b)
        exponent = np.einsum("ki,ki->k", away, pull) - np.einsum("ka,ka->k", b, centre)
        weight = gaussians.amplitudes[which] * np.exp(-0.5 * exponent) / np.sqrt(np.linalg.det(A))
        weight = np.maximum(weight, 0.0) / max(float(weight.clip(0.0).sum()), 1e-300)
        mean = weight @ centre
        spread = np.einsum("k,kab->ab", weight, inverse + centre[:, :, None] * centre[:, None, :])
        found[n] = _without_window(spread - np.outer(mean, mean), windows[n])
    return found


def _without_window(covariance: Floats, window: float) -> Floats:
    """Return the covariance of what has this one seen through a Gaussian window."""
    values, vectors = np.linalg.eigh(covariance)
    # One as wide as the window allows was wider than can be told: at most three windows.
    kept = 1 / np.maximum(values, 1e-12 * window**2) - 1 / window**2
    values = 1 / np.maximum(kept, 1 / (9 * window**2))
    return np.asarray((vectors * values) @ vectors.T)
