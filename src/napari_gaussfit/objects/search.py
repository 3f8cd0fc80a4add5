"""The search for spots: what is there so far, what it leaves, and which of them are one or two."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from scipy.spatial import cKDTree

from napari_gaussfit._threads import in_one_torch_thread
from napari_gaussfit.measure.constraints import Constraints
from napari_gaussfit.measure.grouping import MOST_TOGETHER
from napari_gaussfit.measure.measurement import Measurement
from napari_gaussfit.measure.photon_transfer import noise_of_neighbours, noise_of_residuals
from napari_gaussfit.measure.refinement import MOST_STEPS, refine
from napari_gaussfit.model.gaussians import FWHM_PER_SIGMA, Gaussians
from napari_gaussfit.objects.background import background_of
from napari_gaussfit.objects.candidates import Candidates, searched
from napari_gaussfit.objects.changed import Changed
from napari_gaussfit.objects.doubts import Question, Scene, State, answer
from napari_gaussfit.objects.explained import Null
from napari_gaussfit.objects.pairs import close_pairs, halves, joined, merged, reached
from napari_gaussfit.objects.rows import Marks, put, rows_of
from napari_gaussfit.objects.rules import (
    COMPANION,
    above_noise,
    brightest_around,
    largest_sigmas,
    of_right_size,
    widths_across,
    widths_allowed,
)
from napari_gaussfit.objects.sizes import Sizes
from napari_gaussfit.objects.spot_settings import SpotSettings
from napari_gaussfit.objects.usual import Usual

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from napari_gaussfit.stacks.stack import Stack

    Floats = NDArray[np.float64]
    Mask = NDArray[np.bool_]
    Volume = NDArray[np.float32]

__all__ = ["Search"]

T = TypeVar("T", bound=np.generic)

STEPS, FEW_TOGETHER = 15, 8
"""Of a refinement, and Gaussians refined together, while spots are still looked for."""

STEPS_THERE = 5
"""Of a refinement that is to bring spots of another time to where they are, and is followed by one
of all steps."""

CLEANINGS = 5
"""Turns in which what is no spot is left out, at most."""

MERGED = 2.0
"""Standard deviations of two spots that were one within which none is looked for again."""

CLOSE = 2.5
"""Standard deviations between two spots from which nothing is asked: they are two."""

ELONGATED = 1.4
"""Times the variance of the usual spot, along some axis, from which a spot may be two."""

MISFIT = 3.0
"""Standard deviations of chi^2 above its mean from which a spot may be two."""

UNLIKE = 30.0
"""Chi^2 of a spot's shape, against that which most share, from which a long one may be two."""

CROWD, SURVIVE, MISSED = 20, 0.5, 0.3
"""Candidates, at least, of which less than a part is spots once their shapes are free, and the part
of the light's power that these leave, where spots are so close that shapes cannot be told: each
Gaussian takes the light of its neighbours. Of the halo of a bright spot little power is left."""

STRAYED = 2.0
"""Standard deviations of the largest spot from a point of the user's to where its spot may be: the
hand is not as exact as the light, and what goes farther is no spot of that point."""

PLACED = "placed by hand"
"""Flag of a spot that light does not show: centre and width are those of the user's point."""

AMPLITUDE = 9
"""Where it stands in a measurement's covariances."""

WHOLE = 2
"""Times that the whole stack is looked through."""

SAMPLES, FEW_SAMPLES = 200_000, 50_000
"""Answers of a filter of which the spread is taken at a first time, and at one that follows: of
so few it comes out 2 % lower."""

USUAL_WIDTHS = (0.1, 0.9)
"""Quantiles of the widths of a time's spots, between which those of the next are looked for by each
filter."""

SEEN = 6.0
"""Sigmas of the widest spot to where its filter sees."""

MOST_OF_NOISE = 2**19
"""Voxels of which the noise that is left is taken."""

TURNS = 4
"""Of asking which spots are one or two: what is new is asked again."""

AMONG = 5.0
"""Sigmas to where spots are refined with what may be one or two."""

TOGETHER = 6.0
"""Sigmas to where a spot that changes changes others, while spots are still looked for."""


class Search:
    """Spots that are there so far, and how to go on.

    Parameters
    ----------
    stack : Stack
        The stack in which spots are looked for.
    settings : SpotSettings
        Sizes, false discoveries, likelihood and noise.
    points, excluded : ndarray, shape [P, 3]
        Places, z, y, x in voxels, of spots that are kept whatever they score, and at which there is
        no spot.
    meanwhile : callable, optional
        Hears, in words, what is being done and how far that is.
    """

    def __init__(
        self,
        stack: Stack,
        settings: SpotSettings,
        points: Floats,
        excluded: Floats,
        meanwhile: Callable[[str], object] | None = None,
    ) -> None:
        self._say = meanwhile or _unheard
        self.settings, self.points, self.excluded = settings, points, excluded
        self.voxels = stack.voxels.astype(np.float32, copy=False)
        self.stack = replace(stack, voxels=self.voxels)
        self.spacing = np.asarray(stack.spacing)
        self.sizes = Sizes.of(stack, settings.least_size, settings.largest_size)
        self.noise = noise_of_neighbours(self.voxels) if settings.noise is None else settings.noise
        self.ground = background_of(self.voxels, self.sizes, self.noise)
        self.null = Null.of(stack.shape, self.sizes)
        self.widths = widths_allowed(self.sizes)
        self.threshold = self.least = math.inf
        self.looks = self.halved = 0
        # Which widths are looked for in the whole stack, and where something changed.
        self.levels = self.levels_near = self.sizes.levels()
        self.samples = SAMPLES
        self.held = False
        self.changed = Changed(stack.shape, self.spacing)
        nothing = self._gaussians(np.zeros((0, 3)), np.zeros(0, np.int64))
        self.refused = nothing
        self.measured = self._measured(nothing)
        self.marks = Marks.of(np.zeros(0, np.bool_))

    @property
    def gaussians(self) -> Gaussians:
        """Of the spots so far."""
        return self.measured.gaussians[0]

    def follow(self, gaussians: Gaussians, threshold: float) -> None:
        """Begin with the spots of another time, refined on this stack, at that one's threshold.

        Spots are looked for by the filters that are as wide as these, and a few beside.

        Parameters
        ----------
        gaussians : Gaussians
            Of the spots, where they should be by now; those beyond the stack are left out.
        threshold : float
            Standard deviations from which the filters' answers are spots, where they spread as
            the noise explains.
        """
        places = gaussians.means / self.spacing
        inside = np.all((places > -0.5) & (places < np.array(self.stack.shape) - 0.5), axis=1)
        self.threshold = self.least = threshold
        self.looks, self.samples = WHOLE - 1, FEW_SAMPLES
        self.marks = Marks.of(np.zeros(int(inside.sum()), np.bool_))
        self.measured = self._measured(gaussians.select(inside), steps=STEPS_THERE)
        # Once more, with the others where these are by now: from where they were, each was refined
        # beside light that is elsewhere, and what that leaves would be taken for spots.
        self.measured = self._measured(self.gaussians)
        self._clean()
        if len(self.gaussians):
            low, high = np.quantile(widths_across(self.gaussians), USUAL_WIDTHS)
            self.levels_near = self.sizes.levels_of(float(low), float(high))
            self.levels = self.sizes.levels_beside(self.levels_near)

    def add(self) -> bool:
        """Search what is left, refine what is found; tell whether there is anything new.

        The whole stack at first, and once more without what was found there, with the noise that
        then is left; after that, where anything changed.
        """
        begins, self.looks = not self.looks, self.looks + 1
        found = self._looked_through() if self.looks <= WHOLE else self._looked_where_it_changed()
        found = found.where(found.scores >= self.threshold)
        found = found.where(self._allowed(found))
        new = self._gaussians(found.places, found.levels, found.heights)
        asked = np.zeros(len(found), np.bool_)
        if begins:
            asked = _within(found.places, self.points, self.sizes.sigmas(found.levels))
            missing = self._missing(found)
            levels = np.full(len(missing), self.sizes.count // 3)
            new = joined(new, self._gaussians(missing, levels))
            asked = np.concatenate([asked, np.ones(len(missing), np.bool_)])
        if not len(new):
            return False
        before = len(self.gaussians)
        self._say(f"{before + len(new):,} that may be spots are refined")
        gaussians = joined(self.gaussians, new)
        self.marks = self.marks.joined(Marks.of(asked))
        self._refine(gaussians, np.arange(len(gaussians)) >= before)
        kept = self._clean()[before:]
        if begins and len(new) >= CROWD and kept.sum() < SURVIVE * len(new) and self._misses():
            self._hold(new, asked)
            return False
        self.changed.at(new)
        # What was no spot once is not tried again.
        self.refused = joined(self.refused, new.select(~kept))
        return bool(kept.any())

    def _misses(self) -> bool:
        """Tell whether the spots leave much of the light above the background."""
        above = self.voxels - self.ground
        before = np.einsum("zyx,zyx->", above, above, dtype=np.float64)
        above -= self._model()
        return bool(np.einsum("zyx,zyx->", above, above, dtype=np.float64) > MISSED * before)

    def _hold(self, gaussians: Gaussians, asked: Mask) -> None:
        """Begin again, with the filters' widths and places: free, most ended as no spots.

        What is then left is misfit, and not searched.
        """
        self.held = True
        self.measured, self.marks = self._measured(gaussians), Marks.of(asked)
        self._clean()

    def _looked_through(self) -> Candidates:
        """Return what the whole stack has beside the spots so far; set noise and threshold."""
        light = self._model() if len(self.gaussians) else None
        if light is not None and self.settings.noise is None:
            self._noise_again(light)
        first = self.looks == 1
        found = searched(
            self.voxels, self.ground, light, self.sizes, self.noise, self.null,
            levels=self.levels, samples=0 if first else self.samples,
        )  # fmt: skip
        if first:
            self.threshold = self.least = found.threshold(self.settings.false_discoveries)
        else:  # what the noise of neighbours did not tell, what is left does
            self.threshold = max(self.threshold, self.least * found.spread)
        self.changed.parts(np.zeros(3, np.int64))
        return found

    def _looked_where_it_changed(self) -> Candidates:
        """Return what there is beside the spots in those parts of the stack that changed."""
        widest = self.sizes.sigmas(int(self.levels_near[-1]))
        margins = np.ceil(SEEN * widest).astype(np.int64)
        parts = []
        for part in self.changed.parts(margins):
            first = np.array([cut.start for cut in part.wide])
            found = searched(
                self.voxels[part.wide], self.ground[part.wide], self._model(part.wide),
                self.sizes, self.noise, self.null, levels=self.levels_near,
            )  # fmt: skip
            found = replace(found, places=found.places + first)
            parts.append(found.where(part.holds(found.places)))
        return Candidates.joined(parts, self.sizes, self.noise, self.null)

    def _noise_again(self, light: Volume) -> None:
        """Take the noise of what the spots leave where that is less: structure adds to both."""
        found = noise_of_residuals(self.voxels, light + self.ground, most=MOST_OF_NOISE)
        bright = self.ground.mean(keepdims=True) + self.gaussians.amplitudes.max(initial=0.0)
        if found.variance(bright).sum() < self.noise.variance(bright).sum():
            self.noise = found

    def resolve(self) -> None:
        """Merge and split where that is likelier, until nothing changes."""
        for _ in range(0 if self.held else TURNS):
            questions = self._questions()
            if not questions or not self._settle(questions):
                break

    def _questions(self) -> list[Question]:
        """Return what was not asked yet: the closest pairs first, then what may be two."""
        gaussians, marks = self.gaussians, self.marks
        pairs, apart = close_pairs(gaussians, CLOSE)
        pairs = pairs[np.argsort(apart, kind="stable")]
        first, second = pairs.T
        known = marks.settled[first] & marks.settled[second]
        known |= marks.asked[first] & marks.asked[second]
        known |= (marks.twin[first] == marks.twin[second]) & (marks.twin[first] >= 0)
        questions = [Question(pair, merged(gaussians.select(pair))) for pair in pairs[~known]]
        for k, axis in self._doubtful():
            if not (marks.settled[k] or marks.whole[k]):
                one = np.array([k])
                questions.append(Question(one, halves(gaussians.select(one), axis)))
        return questions

    def _settle(self, questions: list[Question]) -> bool:
        """Answer questions, those far from each other at once; tell whether anything changed."""
        now, usual = State(self.measured), Usual.of(self.measured)
        scene = Scene(self.stack, self.noise, self.settings.likelihood, usual)
        gone, new, marks = np.zeros(len(self.gaussians), np.bool_), [], []
        asked_of = len(questions)
        while questions:
            left = f"{len(questions):,} of {asked_of:,} to be looked at whether they are one or two"
            self._say(f"{len(self.gaussians):,} spots, {left}")
            together, later = self._apart(questions)
            then, rows = self._instead(together)
            for question, own in zip(together, rows, strict=True):
                found = answer(scene, question, (now, question.old), (then, own))
                if len(found) == len(question.old):
                    continue
                gone[question.old] = True
                new.append(found)
                one = len(found) == 1
                asked = np.arange(len(found)) < self.marks.asked[question.old].any()
                self.halved += 1
                marks.append(Marks.of(asked, whole=one, twin=-1 if one else self.halved))
                if one:
                    self.refused = joined(self.refused, found)
            questions = [q for q in later if not gone[q.old].any()]
        self.marks.settled[:] = True
        if not new:
            return False
        self.changed.at(joined(self.gaussians.select(gone), *new))
        self.measured = rows_of(self.measured, ~gone)
        self.marks = self.marks.select(~gone).joined(*marks)
        gaussians = joined(self.gaussians, *new)
        self._refine(gaussians, np.arange(len(gaussians)) >= len(self.measured))
        self._clean()
        # Of which the other half was no spot, is not halved again.
        twins, counts = np.unique(self.marks.twin, return_counts=True)
        alone = np.isin(self.marks.twin, twins[(counts == 1) & (twins >= 0)])
        self.marks.whole[alone] = self.marks.settled[alone] = True
        return True

    def _apart(self, questions: list[Question]) -> tuple[list[Question], list[Question]]:
        """Return questions that have nothing to do with each other, and those for later."""
        together, later = [], []
        taken = np.zeros(len(self.gaussians), np.bool_)
        means = self.gaussians.means / self.spacing
        tree, reach = cKDTree(means), self._reach(self.gaussians, 2 * AMONG)
        for question in questions:
            if taken[question.old].any():
                later.append(question)
            else:
                together.append(question)
                for near in tree.query_ball_point(means[question.old], reach[question.old]):
                    taken[near] = True
        return together, later

    def _instead(self, questions: list[Question]) -> tuple[State, list[NDArray[np.int64]]]:
        """Return all spots as they may be instead, refined, and which are each question's."""
        gone = np.zeros(len(self.gaussians), np.bool_)
        gone[np.concatenate([q.old for q in questions])] = True
        gaussians = joined(self.gaussians.select(~gone), *(q.new for q in questions))
        before = int((~gone).sum())
        starts = before + np.cumsum([0, *(len(q.new) for q in questions)])
        stale = np.arange(len(gaussians)) >= before
        measured = self._refined(rows_of(self.measured, ~gone), gaussians, stale, AMONG)
        return State(measured), [np.arange(a, b) for a, b in itertools.pairwise(starts)]

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
        allowed[reached(found.places * self.spacing, self.refused, MERGED)[0]] = False
        new = self._gaussians(found.places, found.levels, found.heights)
        around = brightest_around(found.places * self.spacing, joined(self.gaussians, new))
        return allowed & (found.heights >= COMPANION * around)

    def _missing(self, found: Candidates) -> Floats:
        """Return the user's points at which no candidate is."""
        taken = np.zeros(len(self.points), np.bool_)
        for place, sigma in zip(found.places, self.sizes.sigmas(found.levels), strict=True):
            taken |= np.sum(((self.points - place) / sigma) ** 2, 1) < 1
        return self.points[~taken]

    @in_one_torch_thread()
    def _model(self, box: tuple[slice, slice, slice] | None = None) -> Volume:
        """Return the light of all spots, without the background, in a box or the whole stack."""
        from napari_gaussfit.model.field import GaussianField

        gaussians, shape = replace(self.gaussians, background=0.0), self.voxels.shape
        if box is not None:
            first = np.array([cut.start for cut in box]) * self.spacing
            shape = (
                box[0].stop - box[0].start,
                box[1].stop - box[1].start,
                box[2].stop - box[2].start,
            )
            gaussians = replace(gaussians, means=gaussians.means - first)
            last = np.array(shape) * self.spacing
            half = TOGETHER * gaussians.principal()[0][:, :1]
            near = np.all((gaussians.means > -half) & (gaussians.means < last + half), axis=1)
            gaussians = gaussians.select(near)
        field = GaussianField.from_numpy(gaussians)
        light: Volume = field.voxelise(shape, self.stack.spacing).numpy()
        return light

    def _measured(
        self, gaussians: Gaussians, *, last: bool = False, steps: int = STEPS
    ) -> Measurement:
        steps, together = (MOST_STEPS, MOST_TOGETHER) if last else (steps, FEW_TOGETHER)
        robust = last and self.settings.likelihood == "poisson"
        return refine(
            [gaussians],
            [self.stack],
            likelihood="robust" if robust else self.settings.likelihood,
            noise=self.noise,
            most_steps=steps,
            most_together=together,
            widths=self.widths,
            constraints=self._constraints(last=last),
            told=lambda steady, count: self._say(f"{steady:,} of {count:,} spots are steady"),
        )

    def _constraints(self, *, last: bool) -> Constraints | None:
        if not self.held:
            return None
        return Constraints(widths="given", centres="free" if last else "given")

    def _refine(self, gaussians: Gaussians, stale: Mask) -> None:
        """Refine those that are stale with what is near them; others stay as they were."""
        if 2 * int(stale.sum()) >= len(stale):
            self.measured = self._measured(gaussians)
        else:
            self.measured = self._refined(self.measured, gaussians, stale, TOGETHER)

    def _refined(
        self, before: Measurement, gaussians: Gaussians, stale: Mask, sigmas: float
    ) -> Measurement:
        """Return what was known of the first, with those refined that stale ones reach."""
        fresh = self._reached(gaussians, stale, sigmas)
        halo = self._reached(gaussians, fresh, sigmas)
        part = self._measured(gaussians.select(halo))
        return put(before, gaussians, fresh, rows_of(part, fresh[halo]))

    def _reached(self, gaussians: Gaussians, some: Mask, sigmas: float = TOGETHER) -> Mask:
        """Return those and what lies within their reach."""
        if not some.any():
            return some
        means = gaussians.means / self.spacing
        tree, reach = cKDTree(means), self._reach(gaussians, sigmas)
        reached = some.copy()
        for near in tree.query_ball_point(means[some], reach[some]):
            reached[near] = True
        return reached

    def _reach(self, gaussians: Gaussians, sigmas: float) -> Floats:
        """Return so many standard deviations, in voxels, of spots no wider than the largest."""
        widths = np.exp(gaussians.log_widths).astype(np.float64) / self.spacing
        widest = self.sizes.sigmas(self.sizes.count).max()
        reach: Floats = sigmas * np.minimum(widths.max(1), widest)
        return reach

    def _clean(self) -> Mask:
        """Leave out what is no spot of these sizes; return which were kept.

        What was refined beside one that is left out is refined again, without it.
        """
        which = np.arange(len(self.gaussians))
        before = len(which)
        for _ in range(CLEANINGS):
            gaussians = self.gaussians
            kept = self._are_spots() | (self.marks.asked & self._at_points())
            if kept.all():
                break
            self.changed.at(gaussians.select(~kept))
            stale = self._reached(gaussians, ~kept)[kept]
            self.measured = rows_of(self.measured, kept)
            self.marks = self.marks.select(kept)
            which = which[kept]
            if stale.any():
                self._refine(self.gaussians, stale)
        return np.isin(np.arange(before), which)

    def _are_spots(self) -> Mask:
        """Tell which are above the noise, of the right size, in the stack, and no spot's halo."""
        gaussians = self.gaussians
        places = gaussians.means / self.spacing
        spots = np.all((places > -0.5) & (places < np.array(self.stack.shape) - 0.5), axis=1)
        if self.held:  # sizes are right, and what is a halo was fitted together with its spot
            errors = np.sqrt(self.measured.covariances[:, AMPLITUDE, AMPLITUDE])
            return np.asarray(spots & (gaussians.amplitudes >= self.threshold * errors))
        above = above_noise(gaussians, self.measured.backgrounds[:, 0], self.noise, self.sizes)
        spots &= (above >= self.threshold) & of_right_size(gaussians, self.sizes)
        around = brightest_around(gaussians.means.astype(np.float64), gaussians.select(spots))
        return np.asarray(spots & (gaussians.amplitudes >= COMPANION * around))

    def _doubtful(self) -> list[tuple[int, Floats]]:
        """Return spots that may be two, with the axis on which they would be halved."""
        gaussians = self.gaussians
        if not len(gaussians):
            return []
        shared = Usual.of(self.measured)
        usual = shared or Usual(np.diag(np.diag(np.median(gaussians.covariances, axis=0))))
        longest, axes = usual.longest(gaussians.covariances)
        voxels = np.exp(gaussians.log_widths.sum(1)) / self.spacing.prod() * 7.0**3
        misfit = self.measured.reduced_chi2 > 1 + MISFIT * np.sqrt(2 / voxels)
        doubtful = (longest > ELONGATED) | misfit
        if shared is not None:
            unlike = shared.differences(gaussians, self.measured.covariances)
            doubtful |= (longest > 1) & (unlike > UNLIKE)
        return [(int(k), axes[k]) for k in np.flatnonzero(doubtful)]

    def finish(self) -> Measurement:
        """Refine all to the end; return them from the least z, then y and x."""
        self._say(f"{len(self.gaussians):,} spots are measured")
        self.measured = self._measured(self.gaussians, last=True)
        self._clean()
        self._put_back()
        z, y, x = self.gaussians.means.T
        order = np.lexsort((x, y, z))
        return rows_of(self.measured, order)

    def _at_points(self) -> Mask:
        """Tell which spots are where a point of the user's is."""
        reach = STRAYED * largest_sigmas(self.sizes) / self.spacing
        return _within(self.gaussians.means / self.spacing, self.points, reach)

    def _put_back(self) -> None:
        """Have a spot at each of the user's points, also where light shows none.

        Its centre and width are then given, and its amplitude is what light there says, be it none.
        """
        asked, positive = self.marks.asked, self.gaussians.amplitudes > 0
        kept = ~asked | (positive & of_right_size(self.gaussians, self.sizes))
        self.measured, self.marks = rows_of(self.measured, kept), self.marks.select(kept)
        there = self.gaussians.means[self.marks.asked] / self.spacing
        reach = STRAYED * largest_sigmas(self.sizes) / self.spacing
        missing = self.points[~_within(self.points, there, reach)]
        if not len(missing):
            return
        gaussians = joined(
            self.gaussians,
            self._gaussians(missing, np.full(len(missing), self.sizes.count // 3)),
        )
        new = np.arange(len(gaussians)) >= len(self.gaussians)
        near = self._reached(gaussians, new)
        part = refine(
            [gaussians.select(near)], [self.stack], likelihood=self.settings.likelihood,
            noise=self.noise, constraints=Constraints(widths="given", centres="given"),
        )  # fmt: skip
        part = rows_of(part, new[near])
        flags = tuple("; ".join(filter(None, (PLACED, own))) for own in part.flags)
        self.measured = put(self.measured, gaussians, new, replace(part, flags=flags))
        self.marks = self.marks.joined(Marks.of(np.ones(len(missing), np.bool_)))


def _unheard(_words: str) -> None:
    """Say nothing."""


def _within(places: Floats, points: Floats, sigmas: Floats) -> Mask:
    """Tell which places have a point within a sigma."""
    inside = np.zeros(len(places), np.bool_)
    for point in points:
        inside |= np.sum(((places - point) / sigmas) ** 2, 1) < 1
    return inside
