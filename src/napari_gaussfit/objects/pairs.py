"""Gaussians near each other: which are, what two are as one, and one as two."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree

from napari_gaussfit.measure.grouping import near_pairs
from napari_gaussfit.model.gaussians import Gaussians

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Counts = NDArray[np.int64]

__all__ = ["close_pairs", "halves", "joined", "merged", "reached"]

APART = 0.6
"""Of a Gaussian's variance along the axis on which it is halved: what becomes of the distance."""


def close_pairs(gaussians: Gaussians, most: float) -> tuple[NDArray[np.int64], Floats]:
    """Return pairs that are close.

    Parameters
    ----------
    gaussians : Gaussians
        The spots among which neighbours are looked up, in any order.
    most : float
        How far apart they may be, in sigmas of the mean of their covariances.

    Returns
    -------
    pairs : ndarray of int, shape [n, 2]
        The lower index first.
    distances : ndarray, shape [n]
        In these sigmas.
    """
    if len(gaussians) < 2:
        return np.zeros((0, 2), np.int64), np.zeros(0)
    covariances = gaussians.covariances
    scale = 1 / np.sqrt(np.diagonal(covariances, axis1=1, axis2=2).max(0))
    widest = np.sqrt(np.linalg.eigvalsh(covariances * scale[:, None] * scale)[:, -1])
    pairs = near_pairs(gaussians.means * scale, most * widest)
    apart = gaussians.means[pairs[:, 0]].astype(np.float64) - gaussians.means[pairs[:, 1]]
    both = (covariances[pairs[:, 0]] + covariances[pairs[:, 1]]) / 2
    distances = np.sqrt(
        np.einsum("ni,ni->n", apart, np.linalg.solve(both, apart[..., None])[..., 0])
    )
    near = distances < most
    return pairs[near], distances[near]


def joined(*parts: Gaussians) -> Gaussians:
    """Return the Gaussians of all parts, in order.

    Parameters
    ----------
    *parts : Gaussians
        Gaussians of one unit, which follow each other in the result.

    Returns
    -------
    Gaussians
        With the background of the first.
    """
    return replace(
        parts[0],
        means=np.concatenate([p.means for p in parts]),
        cholesky=np.concatenate([p.cholesky for p in parts]),
        amplitudes=np.concatenate([p.amplitudes for p in parts]),
    )


def merged(pair: Gaussians) -> Gaussians:
    """Return the Gaussian with the light, the centre and the covariance of two.

    Parameters
    ----------
    pair : Gaussians
        The two or more spots that become one.

    Returns
    -------
    Gaussians
        One.
    """
    light = np.maximum(pair.integrated_intensities(), 1e-30)
    share = light / light.sum()
    means = pair.means.astype(np.float64)
    centre = share @ means
    apart = means - centre
    covariance = np.einsum("k,kij->ij", share, pair.covariances)
    covariance += np.einsum("k,ki,kj->ij", share, apart, apart)
    volume = (2 * np.pi) ** 1.5 * math.sqrt(np.linalg.det(covariance))
    return Gaussians.from_covariances(
        centre[None], covariance[None], [light.sum() / volume],
        background=pair.background, unit=pair.unit,
    )  # fmt: skip


def halves(one: Gaussians, axis: Floats) -> Gaussians:
    """Return two Gaussians that are together about as wide and as bright as one.

    Parameters
    ----------
    one : Gaussians
        The spot that becomes two.
    axis : ndarray, shape [3]
        Along which they are apart, of any length.

    Returns
    -------
    Gaussians
        Two.
    """
    [covariance] = one.covariances
    # The step along the axis to the surface u^T S^-1 u = 1.
    step = axis / math.sqrt(axis @ np.linalg.solve(covariance, axis)) * math.sqrt(APART)
    narrower = covariance - np.outer(step, step)
    amplitude = float(one.amplitudes[0]) / 2 / math.sqrt(1 - APART)
    return Gaussians.from_covariances(
        one.means[0] + np.array([step, -step]),
        [narrower, narrower],
        [amplitude, amplitude],
        background=one.background,
        unit=one.unit,
    )


def reached(places: Floats, gaussians: Gaussians, sigmas: float) -> tuple[Counts, Counts]:
    """Return which places lie within some sigmas of which Gaussians.

    Parameters
    ----------
    places : ndarray, shape [n, 3]
        In the Gaussians' unit.
    gaussians : Gaussians
        The spots whose reach is asked for, in any order.
    sigmas : float
        Standard deviations in the direction of the place.

    Returns
    -------
    places, gaussians : ndarray of int, shape [m]
        A pair each.
    """
    if not len(places) or not len(gaussians):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    means = gaussians.means.astype(np.float64)
    near = cKDTree(places).query_ball_point(means, sigmas * gaussians.principal()[0][:, 0])
    counts = np.fromiter(map(len, near), np.int64, len(near))
    which = np.fromiter(chain.from_iterable(near), np.int64, counts.sum())
    whose = np.repeat(np.arange(len(near)), counts)
    u = np.linalg.solve(gaussians.factors[whose], (places[which] - means[whose])[..., None])
    inside = np.square(u[..., 0]).sum(1) < sigmas**2
    return which[inside], whose[inside]
