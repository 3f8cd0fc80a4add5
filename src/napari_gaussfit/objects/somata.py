"""The soma of a neuron: a body several times as wide as its neurites, in all directions.

Where the field, blurred ever more, keeps a ridge at a width of several neurites, there may be one;
what the light there has for a covariance tells whether it is a body, and how large.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from napari_gaussfit.objects.blurred import BlurredField

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_gaussfit.model.gaussians import Gaussians
    from napari_gaussfit.objects.ridges import Ridge

    Floats = NDArray[np.float64]
    Mask = NDArray[np.bool_]

__all__ = ["Soma", "find_soma"]

WIDER, LEAST_WIDER = 2.5, 2.0
"""Radii of the neurites, both as wide as seen, that a soma's radius and its least semiaxis have at
least: a fork has 1.5, a swelling 2."""

ROUND = 3.0
"""Its longest semiaxis over its least at most: beyond it is a piece of a thick neurite."""

FILLED = 0.3
"""Part of f at its centre that f has, at least, half way to its surface in every direction: nets of
neurites are blobs too, once they are blurred."""

SEMIAXIS = float(np.sqrt(5.0))
"""Of an even ellipsoid, in standard deviations."""

DIRECTIONS, STEPS, FARTHEST = 60, 81, 4.0
"""In which the surface is looked for, steps on each, and standard deviations at most."""

_ROUNDS = 20
"""Of a window that follows what is seen through it."""

_WINDOW = 2.0
"""Of the window, in standard deviations of what is seen: what is farther is not seen."""


TRIED = 12
"""Places at which a soma is looked for, the widest and brightest first."""


class Soma(NamedTuple):
    """An ellipsoid: its centre [3], and the covariance [3, 3] of what fills it evenly."""

    centre: Floats
    covariance: Floats

    @property
    def radius(self) -> float:
        """Of the ball of the same volume."""
        return SEMIAXIS * float(np.linalg.det(self.covariance) ** (1 / 6))

    @classmethod
    def ball(cls, centre: Floats, radius: float) -> Soma:
        """Return a round one."""
        return cls(np.asarray(centre, np.float64), (radius / SEMIAXIS) ** 2 * np.eye(3))

    def contains(self, points: Floats) -> Mask:
        """Tell which points [N, 3] lie within."""
        away = points - self.centre
        squares = np.einsum("ni,ij,nj->n", away, np.linalg.inv(self.covariance), away)
        return np.asarray(squares <= SEMIAXIS**2)

    def scaled(self, factors: Floats) -> Soma:
        """Return it in coordinates that are multiplied by factors [3]."""
        return Soma(self.centre * factors, self.covariance * np.outer(factors, factors))


def find_soma(gaussians: Gaussians, ridge: Ridge) -> Soma | None:
    """Find the widest body that light fills, where there is one.

    Parameters
    ----------
    gaussians : Gaussians
        Gaussians of the field.
    ridge : Ridge
        All points on its ridges.

    Returns
    -------
    Soma or None
        In the field's unit.
    """
    if not len(ridge):
        return None
    # Points are apart by their scales: what is thin and long has most of them.
    typical = float(np.median(ridge.scales))
    wide = np.flatnonzero(ridge.scales > typical)
    order = wide[np.argsort(-(ridge.strengths * ridge.scales**3)[wide], kind="stable")]
    best: Soma | None = None
    for start in order[:TRIED]:
        if best is not None and best.contains(ridge.points[start][None])[0]:
            continue
        found = _body(gaussians, ridge.points[start], float(ridge.scales[start]))
        found = None if found is None else _to_surface(gaussians, found)
        if found is None or not _is_body(gaussians, ridge, found):
            continue
        if best is None or found.radius > best.radius:
            best = found
    return best


def _body(gaussians: Gaussians, centre: Floats, scale: float) -> Soma | None:
    """Return what a window that follows what is seen through it ends on."""
    means, light = gaussians.means.astype(np.float64), gaussians.integrated_intensities()
    light = np.maximum(light, 0.0)
    covariance = scale**2 * np.eye(3)
    for _ in range(_ROUNDS):
        window = _WINDOW**2 * covariance
        # exp(-(x - m)^T S^-1 (x - m) / 2) through exp(-(x - c)^T W^-1 (x - c) / 2)
        total = gaussians.covariances + window
        inverse = np.linalg.inv(total)
        away = means - centre
        exponent = np.einsum("ki,kij,kj->k", away, inverse, away)
        weight = light * np.exp(-0.5 * exponent) / np.sqrt(np.linalg.det(total))
        if not weight.sum() > 0:
            return None
        weight /= weight.sum()
        part = np.einsum("ij,kjl->kil", window, inverse)
        places = np.einsum("kij,kj->ki", part, away)
        spreads = window - np.einsum("kij,jl->kil", part, window)
        mean = weight @ places
        seen = np.einsum("k,kij->ij", weight, spreads + places[:, :, None] * places[:, None, :])
        seen -= np.outer(mean, mean)
        own = np.linalg.inv(seen) - np.linalg.inv(window)
        values, vectors = np.linalg.eigh(own)
        if values[0] <= 0:
            return None
        new = (vectors / values) @ vectors.T
        if np.linalg.eigvalsh(new)[-1] > 9 * ROUND**2 * np.linalg.eigvalsh(new)[0]:
            return None
        settled = np.allclose(new, covariance, rtol=0.02, atol=1e-3 * scale**2)
        centre, covariance = centre + mean, new
        if settled:
            break
    return Soma(centre, covariance)


def _to_surface(gaussians: Gaussians, soma: Soma) -> Soma | None:
    """Return the ellipsoid on whose surface f is half of what it is within, blurred or not.

    The median of all directions counts, of which neurites leave in a few.
    """
    values, axes = np.linalg.eigh(soma.covariance)
    directions = _sphere_points(DIRECTIONS) * np.sqrt(values) @ axes.T
    shares = np.linspace(0.0, FARTHEST, STEPS)
    places = soma.centre + shares[:, None, None] * directions
    light = BlurredField.of(gaussians).values(places.reshape(-1, 3)).reshape(STEPS, -1)
    profile = np.median(light, axis=1)
    below = np.flatnonzero(profile < profile[shares <= 1].mean() / 2)
    if not len(below) or not below[0]:
        return None
    return Soma(soma.centre, soma.covariance * (shares[below[0]] / SEMIAXIS) ** 2)


def _sphere_points(count: int) -> Floats:
    """Return unit vectors [count, 3], evenly spread: a Fibonacci spiral."""
    steps = np.arange(count) + 0.5
    height, angle = 1 - 2 * steps / count, np.pi * (1 + np.sqrt(5)) * steps
    ring = np.sqrt(1 - height**2)
    return np.stack([height, ring * np.sin(angle), ring * np.cos(angle)], axis=1)


def _is_body(gaussians: Gaussians, ridge: Ridge, soma: Soma) -> bool:
    """Tell whether an ellipsoid is several times as wide as neurites, round, and filled."""
    values, axes = np.linalg.eigh(soma.covariance)
    semiaxes = SEMIAXIS * np.sqrt(values)
    outside = ~soma.contains(ridge.points)
    if not outside.any() or semiaxes[-1] > ROUND * semiaxes[0]:
        return False
    neurites = 2 * float(np.median(ridge.scales[outside]))
    if soma.radius < WIDER * neurites or semiaxes[0] < LEAST_WIDER * neurites:
        return False
    ends = axes.T * (semiaxes[:, None] / 2)
    places = soma.centre + np.concatenate([np.zeros((1, 3)), ends, -ends])
    values = BlurredField.of(gaussians, semiaxes[0] / 4).values(places)
    return bool(values[1:].min() >= FILLED * values[0])
