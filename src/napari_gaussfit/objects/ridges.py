"""Points on the ridges of a field, each at the scale of the structure that it runs through.

A ridge is where f is largest across: the gradient has no part along the two directions in which f
bends down the most. Points climb there from the Gaussians (U. Ozertem and D. Erdogmus, Locally
defined principal curves and surfaces, JMLR 12 (2011) 1249), in the field blurred by several widths;
of these the one counts at which s^2 times the curvature across is largest, which for a tube of
Gaussian profile is s = its sigma (T. Lindeberg, Edge detection and ridge detection with automatic
scale selection, IJCV 30 (1998) 117).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.spatial import cKDTree

from napari_gaussfit.objects.blurred import BlurredField

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_gaussfit.model.gaussians import Gaussians

    Floats = NDArray[np.float64]
    Box = tuple[Floats, Floats]

__all__ = ["Ridge", "climb", "find_ridges", "weighted_quantile"]

SCALE_STEP = float(np.sqrt(2.0))
"""From one width of blurring to the next: the strength falls by 3 % half way between two."""

FIRST_SCALES, MOST_SCALES = 6, 10
"""Widths that are tried first, and at most: as long as the widest is the best for some."""

FINEST = 0.75
"""The least width, in typical sigmas of the Gaussians: a thinner tube would be less than one."""

AT_WIDEST = 0.25
"""Part of the points for which the widest width may be the best."""

_STEPS, _CONVERGED, _LONGEST_STEP = 25, 0.01, 0.5
"""Of a climb; the last two in widths of the blurring."""

COVERED = 1.8
"""Scales around a ridge within which a weaker one of a smaller scale is a lump of the same tube,
whose surface lies at two sigmas."""

_NARROWER = 0.9
"""Of two scales, this times as wide or less is the smaller one."""

APART = 0.6
"""Scales between neighbouring points that are kept."""


@dataclass(frozen=True, eq=False)
class Ridge:
    """Points on ridges.

    Parameters
    ----------
    points : ndarray, shape [N, 3]
        In the field's unit, axis order z, y, x.
    strengths : ndarray, shape [N]
        s^2 times the curvature across, the lesser of both, in raw intensity.
    scales : ndarray, shape [N]
        The width s at which each was found.
    """

    points: Floats
    strengths: Floats
    scales: Floats

    def __len__(self) -> int:
        """Return the number of points."""
        return len(self.points)

    def select(self, which: NDArray[Any]) -> Ridge:
        """Return the points that a mask or indices choose.

        Parameters
        ----------
        which : ndarray
            A mask [N], or indices.

        Returns
        -------
        Ridge
            In the order of the indices.
        """
        return Ridge(self.points[which], self.strengths[which], self.scales[which])


def find_ridges(gaussians: Gaussians, box: Box) -> Ridge:
    """Return points on the ridges of a field, none twice and none within a wider tube.

    Parameters
    ----------
    gaussians : Gaussians
        The Gaussians whose sum has the ridges.
    box : tuple of ndarray, shape [3]
        The lower and upper corner of the stack: what lies beyond was not seen.

    Returns
    -------
    Ridge
        The strongest first.
    """
    seeds = _seeds(gaussians, box)
    if not len(seeds):
        return Ridge(np.empty((0, 3)), np.empty(0), np.empty(0))
    sigmas = gaussians.principal()[0][:, 1]
    scale = FINEST * weighted_quantile(sigmas, np.abs(gaussians.amplitudes), 0.5)
    best = Ridge(seeds, np.full(len(seeds), -np.inf), np.full(len(seeds), scale))
    for n in range(MOST_SCALES):
        at_scale = _at_scale(gaussians, seeds, scale, box)
        better = at_scale.strengths > best.strengths
        best = Ridge(
            np.where(better[:, None], at_scale.points, best.points),
            np.where(better, at_scale.strengths, best.strengths),
            np.where(better, scale, best.scales),
        )
        if n + 1 >= FIRST_SCALES and better.mean() < AT_WIDEST:
            break
        scale *= SCALE_STEP
    best = best.select(best.strengths > 0)
    best = best.select(np.argsort(-best.strengths, kind="stable"))
    return _apart(best)


def climb(field: BlurredField, points: Floats, scale: float) -> tuple[Floats, Floats]:
    """Move points uphill onto ridges.

    Parameters
    ----------
    field : BlurredField
        The field, blurred by `scale`, whose ridge is climbed.
    points : ndarray, shape [N, 3]
        The places to begin at, in the field's unit.
    scale : float
        A step is no longer than half of it.

    Returns
    -------
    points : ndarray, shape [N, 3]
        On ridges.
    curvatures : ndarray, shape [N]
        Second derivative of f across, of both directions the one that bends less; NaN where a
        point has not arrived.
    """
    points = points.copy()
    moving = np.arange(len(points))
    for _ in range(_STEPS):
        value, gradient, hessian = field.derivatives(points[moving])
        bends, axes = np.linalg.eigh(hessian)
        slopes = np.einsum("bij,bi->bj", axes[:, :, :2], gradient)
        # Where f hardly bends, as a tube of this width would.
        steps = slopes / np.maximum(np.abs(bends[:, :2]), value[:, None] / (8 * scale**2) + 1e-30)
        step = np.einsum("bij,bj->bi", axes[:, :, :2], steps)
        length = np.linalg.norm(step, axis=1)
        points[moving] += step * np.minimum(1.0, _LONGEST_STEP * scale / (length + 1e-30))[:, None]
        moving = moving[length > _CONVERGED * scale]
        if not len(moving):
            break
    curvatures = np.asarray(np.linalg.eigvalsh(field.derivatives(points).hessian)[:, 1], np.float64)
    curvatures[moving] = np.nan
    return points, curvatures


def weighted_quantile(values: Floats, weights: Floats, part: float) -> float:
    """Return the value that a part of the weight lies below.

    Parameters
    ----------
    values, weights : ndarray, shape [N]
        One at least; the weights are not negative.
    part : float
        From 0 to 1.

    Returns
    -------
    float
        One of the values.
    """
    order = np.argsort(values)
    below = np.cumsum(weights[order])
    return float(values[order][min(np.searchsorted(below, part * below[-1]), len(order) - 1)])


def _seeds(gaussians: Gaussians, box: Box) -> Floats:
    """Return where to climb from: each Gaussian's centre, and a sigma along it on either side."""
    sigmas, axes = gaussians.principal()
    along = sigmas[:, :1] * axes[:, 0]
    seeds = np.concatenate([gaussians.means + n * along for n in (0, -1, 1)])
    return seeds[_within(seeds, box)]


def _within(points: Floats, box: Box) -> NDArray[np.bool_]:
    return np.asarray(((points >= box[0]) & (points <= box[1])).all(axis=1))


def _at_scale(gaussians: Gaussians, seeds: Floats, scale: float, box: Box) -> Ridge:
    """Return where each seed ends in the field blurred by a width; -inf is the strength of none."""
    points, curvatures = climb(BlurredField.of(gaussians, scale), seeds, scale)
    strengths = -(scale**2) * curvatures
    known = np.isfinite(strengths) & _within(points, box)
    return Ridge(points, np.where(known, strengths, -np.inf), np.full(len(seeds), scale))


def _apart(ridge: Ridge) -> Ridge:
    """Keep of points, the strongest first, those that are neither close to one nor in its tube."""
    tree = cKDTree(ridge.points) if len(ridge) else None
    kept = np.ones(len(ridge), bool)
    for i in range(len(ridge)):
        if not kept[i] or tree is None:
            continue
        scale = ridge.scales[i]
        near = np.array(tree.query_ball_point(ridge.points[i], COVERED * scale))
        near = near[near > i]
        away = np.linalg.norm(ridge.points[near] - ridge.points[i], axis=1)
        others = ridge.scales[near]
        kept[near[(away < APART * np.maximum(scale, others)) | (others < _NARROWER * scale)]] = (
            False
        )
    return ridge.select(kept)
