"""One spot or two: which of them the likelihood prefers, for what a second one costs."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree

from napari_gaussfit._kernels.cpu.spot_kernels import add_light
from napari_gaussfit.model.gaussians import Gaussians, factors_of
from napari_gaussfit.objects.pairs import joined
from napari_gaussfit.objects.usual import Counted, Usual

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_gaussfit.measure.measurement import Measurement
    from napari_gaussfit.measure.noise import Noise
    from napari_gaussfit.measure.refinement import Likelihood
    from napari_gaussfit.stacks.stack import Stack

    Floats = NDArray[np.float64]
    Counts = NDArray[np.int64]
    Box = tuple[slice, slice, slice]

__all__ = ["Question", "Scene", "State", "answer"]

PARAMETERS, OF_PLACE = 10, 4
"""Of a Gaussian: centre, covariance, amplitude; and of one whose covariance is known."""

WINDOW, REACH = 3.5, 5.0
"""Sigmas to the sides of the box in which one and two are compared, and to where others reach."""

TWO_MAXIMA = 2.0
"""Standard deviations between centres from which two Gaussians have a dip between them: where the
model does not hold, two are not told from one of another shape by less."""

HOLDS = 3.0
"""Standard deviations of chi^2 above its mean up to which the model holds."""

EQUAL = 0.5
"""Of the brighter of two that have no dip between them, the other is at least so bright: the tail
of an objective's blur is not."""

LEAST_RATE = 1e-3
"""Photons a voxel, at least, that a likelihood is asked of."""


@dataclass(frozen=True, eq=False)
class Scene:
    """What spots are fitted to.

    Parameters
    ----------
    stack : Stack
        The stack that is searched: one channel at one time.
    noise : Noise
        The noise of the stack's voxels: gain, offset, read noise.
    likelihood : {"poisson", "squared"}
        The noise that is assumed in the refinement, as for `measure`.
    usual : Usual or None
        The shape that most spots share.
    """

    stack: Stack
    noise: Noise
    likelihood: Likelihood
    usual: Usual | None

    @property
    def of_unknown_noise(self) -> bool:
        """Whether the noise is what is left, and so does not tell whether the model holds."""
        return self.likelihood == "squared" or self.noise.gain == 0

    @property
    def spacing(self) -> Floats:
        """Of voxels, (dz, dy, dx)."""
        return np.asarray(self.stack.spacing)

    @property
    def shift(self) -> float:
        """Photons that the noise of reading amounts to."""
        return self.noise.intercept / self.noise.gain**2


@dataclass(frozen=True, eq=False)
class Question:
    """Whether spots are one or two.

    Parameters
    ----------
    old : ndarray of int, shape [1] or [2]
        Numbers of the spot or the two spots that are doubted.
    new : Gaussians
        What they may be instead: two or one.
    """

    old: Counts
    new: Gaussians


class State:
    """All spots of a scene as they may be.

    Parameters
    ----------
    measured : Measurement
        Of all of them.
    """

    def __init__(self, measured: Measurement) -> None:
        self.measured, [self.gaussians] = measured, measured.gaussians
        self.tree = cKDTree(self.gaussians.means)
        self.widest = self.gaussians.principal()[0][:, 0]

    def within(self, scene: Scene, box: Box, own: Counts) -> _Light:
        """Return the light of spots, and of those around them, in a box."""
        first = np.array([cut.start for cut in box]) * scene.spacing
        last = np.array([cut.stop - 1 for cut in box]) * scene.spacing
        middle, radius = (first + last) / 2, float(np.linalg.norm(last - first)) / 2
        reach = REACH * float(self.widest.max())
        near = np.array(self.tree.query_ball_point(middle, radius + reach), np.int64)
        apart = np.linalg.norm(self.gaussians.means[near] - middle, axis=1)
        near = np.setdiff1d(near[apart < radius + REACH * self.widest[near]], own)
        return _Light(
            self.gaussians.select(own),
            float(self.measured.backgrounds[own, 0].mean()),
            _light(scene, box, self.gaussians.select(own)),
            _light(scene, box, self.gaussians.select(near)),
        )


@dataclass(frozen=True, eq=False)
class _Light:
    """Spots, and the light in a box: their own, that of others, and the background."""

    spots: Gaussians
    background: float
    own: Floats
    others: Floats

    @property
    def total(self) -> Floats:
        light: Floats = self.own + self.others + self.background
        return light

    @property
    def sound(self) -> bool:
        return bool((self.spots.amplitudes > 0).all()) and math.isfinite(self.background)


def answer(
    scene: Scene, question: Question, now: tuple[State, Counts], then: tuple[State, Counts]
) -> Gaussians:
    """Return what a question's spots are: one or two.

    Parameters
    ----------
    scene : Scene
        What they are fitted to.
    question : Question
        Which spots are doubted, and what might stand in their place.
    now, then : tuple of State and ndarray of int
        As they are, and refined as they may be instead; which of all are these spots.

    Returns
    -------
    Gaussians
        Refined. One where two are no more likely than their parameters are worth.
    """
    before = now[0].gaussians.select(now[1])
    box = _box(scene, joined(before, question.new))
    found = [state.within(scene, box, own) for state, own in (now, then)]
    one, two = found if len(question.old) == 1 else found[::-1]
    if not one.sound or not two.sound:
        return two.spots if two.sound else one.spots
    if _better(scene, box, one, two):
        return two.spots
    state, own = now if len(question.old) == 1 else then
    usual = _two_of_the_usual_shape(scene, box, one, state.measured.covariances[own])
    if usual is None:
        return one.spots
    # Two that are there already stay as they are.
    return two.spots if len(question.old) == 2 else usual


def _better(scene: Scene, box: Box, one: _Light, two: _Light) -> bool:
    """Tell whether two of any shape are likelier than one, for what they cost."""
    deviance, _ = _misfit(scene, box, one.total)
    lower, chi2 = _misfit(scene, box, two.total)
    count = math.prod(cut.stop - cut.start for cut in box)
    left = chi2 / max(count - 2 * PARAMETERS, 1)
    worth = (deviance - lower) / max(left, 1e-30 if scene.of_unknown_noise else 1.0)
    if worth <= PARAMETERS * math.log(count):
        return False
    holds = not scene.of_unknown_noise and _holds(left, count)
    low, high = np.sort(two.spots.amplitudes)
    return _distance(two.spots) >= TWO_MAXIMA or (holds and bool(low >= EQUAL * high))


def _holds(reduced: float, count: int) -> bool:
    return reduced <= 1 + HOLDS * math.sqrt(2 / count)


def _two_of_the_usual_shape(
    scene: Scene, box: Box, one: _Light, covariances: Floats
) -> Gaussians | None:
    """Return two of the usual shape, where one would be of an unusual shape; else None."""
    usual = scene.usual
    if usual is None or scene.of_unknown_noise:
        return None
    count = math.prod(cut.stop - cut.start for cut in box)
    unlike = float(usual.differences(one.spots, covariances)[0])
    if unlike <= OF_PLACE * math.log(count) or usual.longest(one.spots.covariances)[0][0] <= 1:
        return None
    deviance, chi2 = _misfit(scene, box, one.total)
    if not _holds(chi2 / max(count - PARAMETERS, 1), count):
        return None
    gain, voxels = scene.noise.gain, scene.stack.voxels[box].astype(np.float64)
    counted = voxels < scene.noise.saturation
    seen = Counted(
        _places(scene, box)[counted], (voxels / gain + scene.shift)[counted],
        (one.others / gain + scene.shift)[counted],
    )  # fmt: skip
    in_photons = replace(one.spots, amplitudes=one.spots.amplitudes / gain)
    pair, higher = usual.two_for(in_photons, seen, one.background / gain)
    # What two of known shape describe worse than one of any shape; eight parameters against ten.
    worse = higher - deviance
    if worse > 2 * math.log(count) or unlike - worse <= OF_PLACE * math.log(count):
        return None
    low, high = np.sort(pair.amplitudes)
    enough = low > 0 and low >= LEAST_PART * high
    return replace(pair, amplitudes=pair.amplitudes * gain) if enough else None


LEAST_PART = 0.1
"""Of the brighter of two of the usual shape, that the other has at least."""


def _distance(pair: Gaussians) -> float:
    """Return the distance of two centres in standard deviations of the two's mean along it."""
    apart = pair.means[1].astype(np.float64) - pair.means[0]
    return math.sqrt(float(apart @ np.linalg.solve(pair.covariances.mean(0), apart)))


def _box(scene: Scene, gaussians: Gaussians) -> Box:
    """Return the voxels around Gaussians."""
    half = WINDOW * np.linalg.norm(factors_of(gaussians.cholesky), axis=2)
    last = np.subtract(scene.stack.shape, 1)
    first = np.floor((gaussians.means - half).min(0) / scene.spacing).astype(np.int64)
    ends = np.ceil((gaussians.means + half).max(0) / scene.spacing).astype(np.int64)
    z, y, x = (
        slice(int(a), int(b) + 1)
        for a, b in zip(np.clip(first, 0, last), np.clip(ends, 0, last), strict=True)
    )
    return z, y, x


def _places(scene: Scene, box: Box) -> Floats:
    """Return where a box's voxels are, in the stack's unit."""
    sides = np.meshgrid(*(np.arange(cut.start, cut.stop) for cut in box), indexing="ij")
    places: Floats = np.stack(sides, -1) * scene.spacing
    return places


def _light(scene: Scene, box: Box, gaussians: Gaussians) -> Floats:
    """Return the light of Gaussians in a box."""
    z, y, x = (
        np.arange(cut.start, cut.stop) * step for cut, step in zip(box, scene.spacing, strict=True)
    )
    light = np.zeros((len(z), len(y), len(x)))
    centres, amplitudes = (n.astype(np.float64) for n in (gaussians.means, gaussians.amplitudes))
    inverses = np.linalg.inv(gaussians.covariances).astype(np.float64)
    add_light(centres, inverses, amplitudes, (z, y, x), light)
    return light


def _misfit(scene: Scene, box: Box, light: Floats) -> tuple[float, float]:
    """Return minus twice the logarithm of the likelihood, but for a constant, and chi^2."""
    voxels, noise = scene.stack.voxels[box].astype(np.float64), scene.noise
    counted = voxels < noise.saturation
    if scene.of_unknown_noise:
        squares = float(np.square(voxels - light)[counted].sum())
        return squares, squares
    rate = np.maximum(light / noise.gain + scene.shift, LEAST_RATE)[counted]
    data = (voxels / noise.gain + scene.shift)[counted]
    deviance = 2 * float(np.sum(rate - data * np.log(rate)))
    return deviance, float(np.sum(np.square(data - rate) / rate))
