"""The search for spots: what is there so far, what it leaves, and which of them are one or two."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from scipy.spatial import cKDTree

from napari_gaussfit.measure.measurement import Measurement
from napari_gaussfit.measure.noise import Noise, noise_of_neighbours, noise_of_residuals
from napari_gaussfit.measure.refinement import (
    MOST_STEPS,
    MOST_TOGETHER,
    Likelihood,
    measure,
)
from napari_gaussfit.model.gaussians import FWHM_PER_SIGMA, Gaussians
from napari_gaussfit.objects.background import background_of
from napari_gaussfit.objects.candidates import Candidates, searched
from napari_gaussfit.objects.explained import Null
from napari_gaussfit.objects.pairs import (
    Scene,
    close_pairs,
    halves,
    joined,
    merged,
    two_are_better,
)
from napari_gaussfit.objects.sizes import Sizes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_gaussfit.stacks.stack import Stack

    Floats = NDArray[np.float64]
    Mask = NDArray[np.bool_]
    Volume = NDArray[np.float32]

__all__ = ["Search", "SpotSettings"]

T = TypeVar("T", bound=np.generic)

TOLERANCE, AT_MOST = 1.2, 1.3
"""By how much a spot may be smaller or larger than was asked for, as sizes have errors; and by how
much what is part of the light around spots may be while these are refined."""

FLATTEST = 0.5
"""Of the least spot's width, that of a spot along any axis: flatter ones are a voxel's noise."""

LONGEST = 4.0
"""How many times as long along z as wide a spot may be, beyond what filters are."""

STEPS, FEW_TOGETHER = 15, 8
"""Of a refinement, and Gaussians refined together, while spots are still looked for."""

CLEANINGS = 5
"""Turns in which what is no spot is left out, at most."""

HALO, COMPANION = 4.0, 0.2
"""Sigmas around a spot within which what is left is its own halo, and no spot, if it is lower than
so much of its peak: no objective's blur is a Gaussian."""

MERGED = 2.0
"""Standard deviations of two spots that were one within which none is looked for again."""

CLOSE = 2.5
"""Standard deviations between two spots from which nothing is asked: they are two."""

ELONGATED = 1.4
"""Times the variance of the usual spot, along some axis, from which a spot may be two."""

MISFIT = 3.0
"""Standard deviations of chi^2 above its mean from which a spot may be two."""

TOGETHER = 9.0
"""Sigmas to where a spot that changes changes others."""


@dataclass(frozen=True)
class SpotSettings:
    """What is looked for.

    Parameters
    ----------
    least_size, largest_size : float, optional
        FWHM across the optical axis in the stack's unit; if None, of 2 voxels, and of 6 or 0.6
        micrometres, whichever is more.
    false_discoveries : float, default 0.01
        Share of the spots that may be noise.
    likelihood : {"poisson", "squared"}
        As for `measure`.
    noise : Noise, optional
        Estimated if None: from neighbours, then from what the spots leave.
    """

    least_size: float | None = None
    largest_size: float | None = None
    false_discoveries: float = 0.01
    likelihood: Likelihood = "poisson"
    noise: Noise | None = None


class Search:
    """Spots that are there so far, and how to go on.

    Parameters
    ----------
    stack : Stack
        The stack in which spots are looked for.
    settings : SpotSettings
        Sizes, false discoveries, likelihood and noise.
    points : ndarray, shape [P, 3]
        Places (z, y, x in the stack's unit) of spots that are kept whatever they score.
    excluded : ndarray, shape [E, 3]
        Places at which there is no spot.
    """

    def __init__(
        self, stack: Stack, settings: SpotSettings, points: Floats, excluded: Floats
    ) -> None:
        self.settings, self.points, self.excluded = settings, points, excluded
        self.voxels = stack.voxels.astype(np.float32)
        self.stack = replace(stack, voxels=self.voxels)
        self.spacing = np.asarray(stack.spacing)
        self.sizes = Sizes.of(stack, settings.least_size, settings.largest_size)
        self.noise = noise_of_neighbours(self.voxels) if settings.noise is None else settings.noise
        self.ground = background_of(self.voxels, self.sizes, self.noise)
        self.widths = (
            FLATTEST * self.sizes.sigmas(0) * self.spacing,
            AT_MOST * self._largest() * np.array([LONGEST, 1.0, 1.0]),
        )
        self.threshold = self.least = math.inf
        self.refused: list[Gaussians] = []
        self.measured = self._measured(self._gaussians(np.zeros((0, 3)), np.zeros(0, np.int64)))
        self.asked = np.zeros(0, np.bool_)
        self.settled = np.zeros(0, np.bool_)

    @property
    def gaussians(self) -> Gaussians:
        """Of the spots so far."""
        return self.measured.gaussians[0]

    def add(self) -> bool:
        """Search what is left, refine what is found; tell whether there is anything new."""
        begins = not math.isfinite(self.threshold)
        if not begins and self.settings.noise is None:
            self._noise_again()
        found = searched(
            self.voxels,
            self.ground,
            None if begins else self._model(),
            self.sizes,
            self.noise,
            Null.of(self.stack.shape, self.sizes),
        )
        if begins:
            self.threshold = self.least = found.threshold(self.settings.false_discoveries)
        else:  # what the noise of neighbours did not tell, what is left does
            self.threshold = max(self.threshold, self.least * found.spread)
        found = found.where(found.scores >= self.threshold)
        found = found.where(self._allowed(found))
        asked = self._asked_for(found) if begins else np.zeros(len(found), np.bool_)
        new = self._gaussians(found.places, found.levels, found.heights)
        if begins:
            missing = self._missing(found)
            levels = np.full(len(missing), self.sizes.count // 3)
            new = joined(new, self._gaussians(missing, levels))
            asked = np.concatenate([asked, np.ones(len(missing), np.bool_)])
        if not len(new):
            return False
        before = len(self.gaussians)
        gaussians = joined(self.gaussians, new)
        stale = np.arange(len(gaussians)) >= before
        self.asked = np.concatenate([self.asked, asked])
        self.settled = np.concatenate([self.settled, np.zeros(len(new), np.bool_)])
        self._refine(gaussians, stale)
        kept = self._clean()
        return bool(kept[before:].any())

    def _noise_again(self) -> None:
        """Take the noise of what the spots leave where that is less: structure adds to both."""
        light = self._model() + self.ground
        found = noise_of_residuals(self.voxels[::2, ::2, ::2], light[::2, ::2, ::2])
        bright = self.ground.mean(keepdims=True) + self.gaussians.amplitudes.max(initial=0.0)
        if found.variance(bright).sum() < self.noise.variance(bright).sum():
            self.noise = found

    def resolve(self) -> bool:
        """Merge and split where that is likelier; tell whether anything changed."""
        scene = Scene(self.stack, self.noise, self.settings.likelihood, self.widths)
        gaussians = self.gaussians
        busy = np.zeros(len(gaussians), np.bool_)
        gone, new = np.zeros(len(gaussians), np.bool_), []
        for i, j in self._close_pairs():
            if busy[i] or busy[j] or (self.settled[i] and self.settled[j]):
                continue
            pair = np.array([i, j])
            one, two = merged(gaussians.select(pair)), gaussians.select(pair)
            others = gaussians.select(np.setdiff1d(self._near(i), pair))
            if not self.asked[pair].all() and not two_are_better(scene, one, two, others):
                busy[pair] = gone[pair] = True
                self.refused.append(one)
                new.append((one, bool(self.asked[pair].any())))
        for k, axis in self._doubtful():
            if busy[k] or self.settled[k]:
                continue
            one = gaussians.select(np.array([k]))
            others = gaussians.select(np.setdiff1d(self._near(k), [k]))
            two = halves(one, axis)
            if two_are_better(scene, one, two, others):
                busy[k] = gone[k] = True
                new.append((two, bool(self.asked[k])))
        self.settled[:] = True
        if not gone.any():
            return False
        self._replace(gone, new)
        return True

    def _replace(self, gone: Mask, new: list[tuple[Gaussians, bool]]) -> None:
        parts = [part for part, _ in new]
        asked = [n == 0 and was for part, was in new for n in range(len(part))]
        gaussians = joined(self.gaussians.select(~gone), *parts)
        before = int((~gone).sum())
        stale = np.arange(len(gaussians)) >= before
        self.measured = _rows(self.measured, ~gone)
        self.asked = np.concatenate([self.asked[~gone], np.array(asked, np.bool_)])
        self.settled = np.concatenate([self.settled[~gone], np.zeros(len(asked), np.bool_)])
        self._refine(gaussians, stale)
        self._clean()

    def _gaussians(
        self, places: Floats, levels: NDArray[np.int64], heights: Floats | None = None
    ) -> Gaussians:
        """Return spots of the filters' widths; of no height given, what the stack has there."""
        at = np.clip(np.rint(places).astype(np.int64), 0, np.subtract(self.voxels.shape, 1))
        if heights is None:
            above = self.voxels[tuple(at.T)] - self.ground[tuple(at.T)]
            least = np.sqrt(self.noise.variance(self.ground[tuple(at.T)])) + 1e-6
            heights = np.maximum(above, least)
        sigmas = self.sizes.sigmas(levels) * self.spacing
        return Gaussians.from_covariances(
            places * self.spacing,
            np.square(sigmas)[:, :, None] * np.eye(3),
            heights,
            background=float(np.median(self.ground[::2, ::4, ::4])),
            unit=self.stack.unit,
        )

    def _allowed(self, found: Candidates) -> Mask:
        """Tell which candidates lie neither where none is to be, nor in the halo of a spot."""
        allowed = np.ones(len(found), np.bool_)
        sigmas = self.sizes.sigmas(found.levels)
        for place in self.excluded:
            allowed &= np.sum(((found.places - place) / sigmas) ** 2, 1) > FWHM_PER_SIGMA**2
        for one in self.refused:
            allowed &= _distances(found.places * self.spacing, one) > MERGED
        new = self._gaussians(found.places, found.levels, found.heights)
        around = self._brightest_around(found.places, joined(self.gaussians, new))
        return allowed & (found.heights >= COMPANION * around)

    def _brightest_around(self, places: Floats, gaussians: Gaussians) -> Floats:
        """Return the peak of the brightest spot whose halo reaches each place."""
        if not len(places) or not len(gaussians):
            return np.zeros(len(places))
        inverses = np.linalg.inv(gaussians.covariances)
        brightest = np.zeros(len(places))
        at = places * self.spacing
        tree = cKDTree(gaussians.means)
        reach = HALO * float(gaussians.principal()[0].max())
        for n, near in enumerate(tree.query_ball_point(at, reach)):
            apart = at[n] - gaussians.means[near]
            within = np.einsum("ki,kij,kj->k", apart, inverses[near], apart) < HALO**2
            brightest[n] = gaussians.amplitudes[near][within].max(initial=0.0)
        return brightest

    def _asked_for(self, found: Candidates) -> Mask:
        """Tell which candidates are points of the user's."""
        return _within(found.places, self.points, self.sizes.sigmas(found.levels))

    def _missing(self, found: Candidates) -> Floats:
        """Return the user's points at which no candidate is."""
        taken = np.zeros(len(self.points), np.bool_)
        for place, sigma in zip(found.places, self.sizes.sigmas(found.levels), strict=True):
            taken |= np.sum(((self.points - place) / sigma) ** 2, 1) < 1
        return self.points[~taken]

    def _model(self) -> Volume:
        """Return the light of all spots, without the background."""
        from napari_gaussfit.model.field import GaussianField

        field = GaussianField.from_numpy(replace(self.gaussians, background=0.0))
        light: Volume = field.voxelise(self.stack.shape, self.stack.spacing).numpy()
        return light

    def _measured(self, gaussians: Gaussians, *, last: bool = False) -> Measurement:
        steps, together = (MOST_STEPS, MOST_TOGETHER) if last else (STEPS, FEW_TOGETHER)
        return measure(
            [gaussians],
            [self.stack],
            likelihood=self.settings.likelihood,
            noise=self.noise,
            most_steps=steps,
            most_together=together,
            widths=self.widths,
        )

    def _refine(self, gaussians: Gaussians, stale: Mask) -> None:
        """Refine those that are stale with what is near them; others stay as they were."""
        if 2 * int(stale.sum()) >= len(stale):
            self.measured = self._measured(gaussians)
            return
        fresh = self._reached(gaussians, stale)
        halo = self._reached(gaussians, fresh)
        part = self._measured(gaussians.select(halo))
        self.measured = _put(self.measured, gaussians, fresh, _rows(part, fresh[halo]))

    def _reached(self, gaussians: Gaussians, some: Mask) -> Mask:
        """Return those and what lies within their reach."""
        if not some.any():
            return some
        means = gaussians.means / self.spacing
        widths = np.exp(gaussians.log_widths).astype(np.float64) / self.spacing
        tree = cKDTree(means)
        reach = TOGETHER * np.minimum(widths.max(1), self.sizes.sigmas(self.sizes.count).max())
        reached = some.copy()
        for near in tree.query_ball_point(means[some], reach[some]):
            reached[near] = True
        return reached

    def _near(self, k: int) -> NDArray[np.int64]:
        return np.flatnonzero(self._reached(self.gaussians, np.arange(len(self.gaussians)) == k))

    def _clean(self) -> Mask:
        """Leave out what is no spot of these sizes; return which were kept.

        What was refined beside one that is left out is refined again, without it.
        """
        which = np.arange(len(self.gaussians))
        before = len(which)
        for _ in range(CLEANINGS):
            gaussians = self.gaussians
            kept = (self._above_noise() >= self.threshold) & self._of_right_size()
            places = gaussians.means / self.spacing
            kept &= np.all((places > -0.5) & (places < np.array(self.stack.shape) - 0.5), axis=1)
            around = self._brightest_around(places, gaussians.select(kept))
            kept &= gaussians.amplitudes >= COMPANION * around
            kept |= self.asked
            if kept.all():
                break
            stale = self._reached(gaussians, ~kept)[kept]
            self.measured = _rows(self.measured, kept)
            self.asked, self.settled = self.asked[kept], self.settled[kept]
            which = which[kept]
            if stale.any():
                self._refine(self.gaussians, stale)
        return np.isin(np.arange(before), which)

    def _largest(self) -> Floats:
        """Return the standard deviations of the largest spot along z, y and x."""
        scale = self.sizes.largest / FWHM_PER_SIGMA
        return scale * np.array([self.sizes.along, 1.0, 1.0])

    def _of_right_size(self) -> Mask:
        """Tell which are as wide as spots are to be, and neither a voxel nor light around them."""
        covariances = self.gaussians.covariances
        across = FWHM_PER_SIGMA * np.linalg.det(covariances[:, 1:, 1:]) ** 0.25
        right: Mask = across <= self.sizes.largest * TOLERANCE
        right &= across >= self.sizes.least / TOLERANCE
        right &= covariances[:, 0, 0] < (TOLERANCE * LONGEST * self._largest()[0]) ** 2
        least = self.sizes.sigmas(0) * self.spacing
        scaled = np.linalg.eigvalsh(covariances / np.multiply.outer(least, least))
        right &= scaled[:, 0] >= (FLATTEST * TOLERANCE) ** 2
        return right

    def _above_noise(self) -> Floats:
        """Return by how many standard deviations of the background's noise spots stand out."""
        gaussians = self.gaussians
        volumes = np.exp(gaussians.log_widths.sum(1)) / self.spacing.prod() * np.pi**1.5
        variance = np.maximum(self.noise.variance(self.measured.backgrounds[:, 0]), 1e-30)
        above: Floats = gaussians.amplitudes * np.sqrt(volumes / variance)
        return above

    def _close_pairs(self) -> list[tuple[int, int]]:
        """Return pairs that may be one, the closest first."""
        pairs, apart = close_pairs(self.gaussians, CLOSE)
        order = np.argsort(apart, kind="stable")
        return [(int(i), int(j)) for i, j in pairs[order]]

    def _doubtful(self) -> list[tuple[int, Floats]]:
        """Return spots that may be two, with the axis on which they would be halved."""
        gaussians = self.gaussians
        if not len(gaussians):
            return []
        usual = np.median(gaussians.covariances, axis=0)
        usual = np.diag(np.diag(usual))
        scale = 1 / np.sqrt(np.diag(usual))
        values, vectors = np.linalg.eigh(gaussians.covariances * scale[:, None] * scale)
        voxels = np.exp(gaussians.log_widths.sum(1)) / self.spacing.prod() * 7.0**3
        misfit = self.measured.reduced_chi2 > 1 + MISFIT * np.sqrt(2 / voxels)
        doubtful = (values[:, -1] > ELONGATED) | misfit
        return [(int(k), vectors[k, :, -1] / scale) for k in np.flatnonzero(doubtful)]

    def finish(self) -> Measurement:
        """Refine all to the end; return them from the least z, then y and x."""
        self.measured = self._measured(self.gaussians, last=True)
        self._clean()
        z, y, x = self.gaussians.means.T
        order = np.lexsort((x, y, z))
        return _rows(self.measured, order)


def _distances(places: Floats, one: Gaussians) -> Floats:
    """Return how far places are from a Gaussian, in its standard deviations."""
    apart = places - one.means[0]
    found: Floats = np.sqrt(
        np.einsum("ki,ij,kj->k", apart, np.linalg.inv(one.covariances[0]), apart)
    )
    return found


def _within(places: Floats, points: Floats, sigmas: Floats) -> Mask:
    """Tell which places have a point within a sigma."""
    inside = np.zeros(len(places), np.bool_)
    for point in points:
        inside |= np.sum(((places - point) / sigmas) ** 2, 1) < 1
    return inside


def _rows(measured: Measurement, which: Mask | NDArray[np.int64]) -> Measurement:
    """Return some Gaussians of a measurement."""
    return Measurement(
        tuple(g.select(which) for g in measured.gaussians),
        measured.covariances[which],
        measured.reduced_chi2[which],
        measured.backgrounds[which],
        measured.steps[which],
        tuple(np.array(measured.flags, object)[which]),
        measured.noise,
    )


def _put(before: Measurement, gaussians: Gaussians, which: Mask, part: Measurement) -> Measurement:
    """Return what was known of the first Gaussians, with what is known now of some of them all."""

    def filled(old: NDArray[T], new: NDArray[T]) -> NDArray[T]:
        out = np.zeros((len(gaussians), *old.shape[1:]), old.dtype)
        out[: len(old)] = old
        out[which] = new
        return out

    [refined] = part.gaussians
    names = ("means", "cholesky", "amplitudes")
    own = {name: getattr(gaussians, name).astype(np.float64) for name in names}
    for name, values in own.items():
        values[which] = getattr(refined, name)
    return Measurement(
        (replace(gaussians, **own),),
        filled(before.covariances, part.covariances),
        filled(before.reduced_chi2, part.reduced_chi2),
        filled(before.backgrounds, part.backgrounds),
        filled(before.steps, part.steps),
        tuple(filled(np.array(before.flags, object), np.array(part.flags, object))),
        part.noise,
    )
