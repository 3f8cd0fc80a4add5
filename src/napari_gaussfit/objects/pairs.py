"""One spot or two: which of them the likelihood prefers, for what a second one costs."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree

from napari_gaussfit.measure.noise import Noise
from napari_gaussfit.measure.refinement import Likelihood, measure
from napari_gaussfit.model.gaussians import Gaussians, factors_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_gaussfit.stacks.stack import Stack

    Floats = NDArray[np.float64]
    Mask = NDArray[np.bool_]

__all__ = ["Scene", "close_pairs", "halves", "joined", "merged", "two_are_better"]

PARAMETERS = 10
"""Of a Gaussian: centre, covariance, amplitude."""

WINDOW = 3.5
"""Sigmas to the sides of the box on which one and two are compared."""

AROUND = 4.5
"""Sigmas, beyond that box, to where neighbours are refined with them."""

TWO_MAXIMA = 2.0
"""Standard deviations between centres from which two Gaussians have a dip between them: where the
model does not hold, two are not told from one of another shape by less."""

HOLDS = 3.0
"""Standard deviations of chi^2 above its mean up to which the model holds."""

EQUAL = 0.5
"""Of the brighter of two that have no dip between them, the other is at least so bright: the tail
of an objective's blur is not."""

STEPS = 20
"""Of a refinement at most: what is not found by then is no second spot."""

APART = 0.6
"""Of a Gaussian's variance along the axis on which it is halved: what becomes of the distance."""

LEAST_RATE = 1e-3
"""Photons a voxel, at least, that a likelihood is asked of."""


@dataclass(frozen=True, eq=False)
class Scene:
    """What spots are fitted to.

    Parameters
    ----------
    stack : Stack
        One channel.
    noise : Noise
        Of its voxels.
    likelihood : {"poisson", "squared"}
        As for `measure`.
    widths : tuple of two ndarrays, shape [3]
        As for `measure`.
    """

    stack: Stack
    noise: Noise
    likelihood: Likelihood
    widths: tuple[Floats, Floats]

    @property
    def of_unknown_noise(self) -> bool:
        """Whether the noise is what is left, and so does not tell whether the model holds."""
        return self.likelihood == "squared" or self.noise.gain == 0

    @property
    def spacing(self) -> Floats:
        """Of voxels, (dz, dy, dx)."""
        return np.asarray(self.stack.spacing)


def close_pairs(gaussians: Gaussians, most: float) -> tuple[NDArray[np.int64], Floats]:
    """Return pairs that are close.

    Parameters
    ----------
    gaussians : Gaussians
        In any order.
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
    widest = float(np.sqrt(np.linalg.eigvalsh(covariances * scale[:, None] * scale)[:, -1].max()))
    pairs = cKDTree(gaussians.means * scale).query_pairs(most * widest, output_type="ndarray")
    pairs = pairs.astype(np.int64)
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
        In one unit.

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
        Two or more.

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
        One.
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


def two_are_better(scene: Scene, one: Gaussians, two: Gaussians, others: Gaussians) -> bool:
    """Refine one and two Gaussians, each with those around them, and say whether two are there.

    Parameters
    ----------
    scene : Scene
        What they are fitted to.
    one, two : Gaussians
        Where to begin.
    others : Gaussians
        All others of the stack that may be near.

    Returns
    -------
    bool
        False where two are no more likely than their parameters are worth.
    """
    box = _box(scene, joined(one, two), WINDOW, scene.stack.shape)
    wide = _box(scene, joined(one, two), WINDOW + AROUND, scene.stack.shape)
    if any(cut.stop <= cut.start for cut in box):
        return False
    first = np.array([cut.start for cut in wide])
    part = replace(scene, stack=replace(scene.stack, voxels=scene.stack.voxels[wide]))
    shift = -first * scene.spacing
    inside = tuple(slice(b.start - a, b.stop - a) for b, a in zip(box, first, strict=True))
    shape = np.array(part.stack.shape)
    at = (others.means + shift) / scene.spacing
    near_by = _moved(others.select(np.all((at > -0.5) & (at < shape - 0.5), axis=1)), shift)
    count = math.prod(b.stop - b.start for b in box)
    found = []
    for some in (one, two):
        refined = measure(
            [joined(_moved(some, shift), near_by)], [part.stack],
            likelihood=scene.likelihood, noise=scene.noise, most_steps=STEPS,
            widths=scene.widths,
        )  # fmt: skip
        [gaussians] = refined.gaussians
        ground = float(refined.backgrounds[: len(some), 0].mean())
        own = gaussians.select(slice(0, len(some)))
        if (own.amplitudes <= 0).any() or not np.isfinite(ground):
            return len(some) == 1
        light = _light(part, gaussians, inside) + ground
        found.append((own, *_misfit(part, inside, light)))
    (_, deviance, _), (pair, lower, chi2) = found
    left = chi2 / max(count - 2 * PARAMETERS, 1)
    worth = (deviance - lower) / max(left, 1e-30 if scene.of_unknown_noise else 1.0)
    holds = not scene.of_unknown_noise and left <= 1 + HOLDS * math.sqrt(2 / count)
    if worth <= PARAMETERS * math.log(count):
        return False
    low, high = np.sort(pair.amplitudes)
    return _distance(pair) >= TWO_MAXIMA or (holds and low >= EQUAL * high)


def _distance(pair: Gaussians) -> float:
    """Return the distance of two centres in standard deviations of the two's mean along it."""
    apart = pair.means[1].astype(np.float64) - pair.means[0]
    return math.sqrt(float(apart @ np.linalg.solve(pair.covariances.mean(0), apart)))


def _moved(gaussians: Gaussians, by: Floats) -> Gaussians:
    return replace(gaussians, means=gaussians.means + by)


def _box(
    scene: Scene, gaussians: Gaussians, sigmas: float, shape: tuple[int, int, int]
) -> tuple[slice, slice, slice]:
    """Return the voxels around Gaussians."""
    half = sigmas * np.linalg.norm(factors_of(gaussians.cholesky), axis=2)
    first = np.floor((gaussians.means - half).min(0) / scene.spacing).astype(int)
    last = np.ceil((gaussians.means + half).max(0) / scene.spacing).astype(int)
    z, y, x = (slice(max(a, 0), min(b + 1, n)) for a, b, n in zip(first, last, shape, strict=True))
    return z, y, x


def _light(scene: Scene, gaussians: Gaussians, box: tuple[slice, ...]) -> Floats:
    """Return what Gaussians are in a box of a small stack."""
    places = np.stack(np.meshgrid(*(np.arange(b.start, b.stop) for b in box), indexing="ij"), -1)
    light = np.zeros(places.shape[:3])
    for mean, factor, amplitude in zip(
        gaussians.means, gaussians.factors, gaussians.amplitudes, strict=True
    ):
        apart = (places * scene.spacing - mean).reshape(-1, 3)
        u = np.linalg.solve(factor, apart.T)
        light += amplitude * np.exp(-0.5 * np.sum(u * u, 0)).reshape(light.shape)
    return light


def _misfit(scene: Scene, box: tuple[slice, ...], light: Floats) -> tuple[float, float]:
    """Return minus twice the logarithm of the likelihood, but for a constant, and chi^2."""
    voxels, noise = scene.stack.voxels[box].astype(np.float64), scene.noise
    counted = voxels < noise.saturation
    if scene.of_unknown_noise:
        squares = float(np.square(voxels - light)[counted].sum())
        return squares, squares
    shift = noise.intercept / noise.gain**2
    rate = np.maximum(light / noise.gain + shift, LEAST_RATE)[counted]
    data = (voxels / noise.gain + shift)[counted]
    deviance = 2 * float(np.sum(rate - data * np.log(rate)))
    return deviance, float(np.sum(np.square(data - rate) / rate))
