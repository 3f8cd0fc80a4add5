"""Points: spots that are as wide as light makes them, one or two at a place as the data say.

Where the width is known, a point has a centre and an amplitude, and what is wider is two of them:
closer than where their widths were free, since no other shape explains them. One or two is decided
by the likelihood, against what the four parameters of a second one cost (G. Schwarz, Ann. Statist.
6 (1978) 461).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from napari_gaussfit.measure.constraints import Constraints
from napari_gaussfit.measure.deblurred import object_variances
from napari_gaussfit.measure.refinement import refine
from napari_gaussfit.model.field import GaussianField
from napari_gaussfit.model.gaussians import Gaussians
from napari_gaussfit.objects.pairs import close_pairs, joined

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_gaussfit.measure.measurement import Measurement
    from napari_gaussfit.measure.noise import Noise
    from napari_gaussfit.measure.psf import Psf
    from napari_gaussfit.stacks.stack import Stack

    Floats = NDArray[np.float64]
    Counts = NDArray[np.int64]
    Mask = NDArray[np.bool_]
    Box = tuple[slice, slice, slice]

__all__ = ["measure_points"]

PARAMETERS = 4
"""Of a point: centre, amplitude."""

DOUBT = 2.0
"""Errors of an object's variance above 0 from which a point may be two."""

CLOSE, BESIDE, SURE = 2.0, 4.0, 6.0
"""Standard deviations of light between two points within which they may be one; and within which a
point beside another may be nothing, unless its amplitude is so many times its error."""

WINDOW, AROUND = 3.5, 4.5
"""Standard deviations of light to the sides of the box on which one and two are compared; and
beyond that, to where neighbours are refined with them."""

TURNS = 10
"""Of asking which are one or two, at most: of three at a place, two are found first."""

LEAST_RATE = 1e-3
"""Photons a voxel, at least, that a likelihood is asked of."""


def measure_points(stack: Stack, gaussians: Gaussians, psf: Psf, noise: Noise) -> Measurement:
    """Measure spots as points, and split and merge them where that is likelier.

    Parameters
    ----------
    stack : Stack
        One channel, its spacing in micrometres.
    gaussians : Gaussians
        Spots that were found, as wide as they are.
    psf : Psf
        What light makes of a point.
    noise : Noise
        The noise of the stack's voxels: gain, offset, read noise.

    Returns
    -------
    Measurement
        Of points, from the least z, then y and x.
    """
    places = _Places(stack, psf, noise)
    points = places.points(gaussians)
    settled = np.zeros(len(points), np.bool_)
    for _ in range(TURNS):
        points, settled, changed = places.resolved(points, settled)
        if not changed:
            break
    z, y, x = points.means.T
    return places.measured(points.select(np.lexsort((x, y, z))))


class _Places:
    """Points of a stack, and how one or two at a place are told apart."""

    def __init__(self, stack: Stack, psf: Psf, noise: Noise) -> None:
        self._stack, self._psf, self._noise = stack, psf, noise
        self._blur = psf.in_unit(stack.unit)
        self._sigmas = np.sqrt(np.diagonal(self._blur))

    def points(self, gaussians: Gaussians) -> Gaussians:
        """Return points with the light of Gaussians of any width."""
        volume = (2 * math.pi) ** 1.5 * math.sqrt(np.linalg.det(self._blur))
        return self._made(
            gaussians.means, gaussians.integrated_intensities() / volume, gaussians.background
        )

    def _made(self, means: Floats, amplitudes: Floats, background: float) -> Gaussians:
        blur = np.broadcast_to(self._blur, (len(means), 3, 3))
        return Gaussians.from_covariances(
            means, blur, amplitudes, background=background, unit=self._stack.unit
        )

    def measured(self, points: Gaussians, stack: Stack | None = None) -> Measurement:
        """Return points with error bars."""
        constraints = Constraints(shape="point", psf=self._psf)
        stacks = [self._stack if stack is None else stack]
        return refine([points], stacks, noise=self._noise, constraints=constraints)

    def resolved(self, points: Gaussians, settled: Mask) -> tuple[Gaussians, Mask, bool]:
        """Return points of which some were split or merged, those that were asked, and whether.

        What is near a point that changes waits, and is asked again.
        """
        found = self.measured(points)
        [points] = found.gaussians
        gone, waits = np.zeros((2, len(points)), np.bool_)
        new: list[Gaussians] = []

        def change(at: Counts, into: Gaussians) -> None:
            gone[at] = True
            waits[:] |= self._near(points, at)
            new.append(into)

        for pair in _doubtful_pairs(found):
            if waits[pair].any() or settled[pair].all():
                continue
            one = self._merged(points.select(pair))
            if not self._two_are_better(one, points.select(pair), points, pair):
                change(pair, one)
        for k, two in self._doubtful(points):
            at = np.array([k])
            if waits[k] or settled[k]:
                continue
            if self._two_are_better(points.select(at), two, points, at):
                change(at, two)
        fresh = np.zeros(sum(map(len, new)), np.bool_)
        settled = np.concatenate([~waits[~gone], fresh])
        return joined(points.select(~gone), *new), settled, bool(new)

    def _near(self, points: Gaussians, at: Counts) -> Mask:
        """Return which points are within reach of some, themselves too."""
        apart = (points.means[:, None] - points.means[at]).astype(np.float64)
        squares = np.einsum("ijn,nm,ijm->ij", apart, np.linalg.inv(self._blur), apart)
        return np.asarray((squares < AROUND**2).any(1), np.bool_)

    def _doubtful(self, points: Gaussians) -> list[tuple[int, Gaussians]]:
        """Return points that are wider than light makes one, and the two that they may be."""
        constraints = Constraints(psf=self._psf)
        wide = refine([points], [self._stack], noise=self._noise, constraints=constraints)
        [found] = wide.gaussians
        variances, axes, errors = object_variances(found, self._psf, wide.covariances)
        doubtful = np.flatnonzero(variances[:, 0] > DOUBT * errors[:, 0])
        halves = self.points(found)
        # Two alike that are as far from the middle have their distance as standard deviation.
        steps = np.sqrt(variances[:, :1]) * axes[:, 0]
        return [
            (
                int(k),
                self._made(
                    found.means[k] + np.stack([steps[k], -steps[k]]),
                    np.full(2, halves.amplitudes[k] / 2),
                    found.background,
                ),
            )
            for k in doubtful
        ]

    def _merged(self, pair: Gaussians) -> Gaussians:
        """Return the point with the light and the centre of two."""
        light = np.maximum(pair.amplitudes, 1e-30).astype(np.float64)
        centre = light @ pair.means / light.sum()
        return self._made(centre[None], light.sum(keepdims=True), pair.background)

    def _two_are_better(
        self, one: Gaussians, two: Gaussians, points: Gaussians, but: Counts
    ) -> bool:
        """Refine one and two among all others but some, and say whether two are there."""
        others = points.select(np.setdiff1d(np.arange(len(points)), but))
        box, wide = self._box(two, WINDOW), self._box(two, WINDOW + AROUND)
        spacing = np.asarray(self._stack.spacing)
        first = np.array([cut.start for cut in wide])
        part = replace(self._stack, voxels=self._stack.voxels[wide])
        at = others.means / spacing - first
        inside = np.all((at > -0.5) & (at < np.array(part.shape) - 0.5), axis=1)
        near = others.select(inside)
        looked = tuple(slice(b.start - a, b.stop - a) for b, a in zip(box, first, strict=True))
        deviances = []
        for some in (one, two):
            both = joined(some, near)
            moved = replace(both, means=both.means - first * spacing)
            found = self.measured(moved, part)
            own = found.gaussians[0].amplitudes[: len(some)]
            if (own <= 0).any() or (found.steps[: len(some)] <= 0).any():
                return len(some) == 1
            field = GaussianField.from_numpy(replace(found.gaussians[0], background=0.0))
            light = field.voxelise(part.shape, part.spacing).numpy()[looked]
            ground = float(found.backgrounds[: len(some), 0].mean())
            deviances.append(self._deviance(part.voxels[looked], light + ground))
        count = math.prod(cut.stop - cut.start for cut in box)
        return deviances[0] - deviances[1] > PARAMETERS * math.log(count)

    def _box(self, points: Gaussians, sigmas: float) -> Box:
        """Return the voxels around points."""
        half = sigmas * self._sigmas
        spacing = np.asarray(self._stack.spacing)
        last = np.array(self._stack.shape) - 1
        first = np.floor((points.means.min(0) - half) / spacing).clip(0, last).astype(int)
        end = np.ceil((points.means.max(0) + half) / spacing).clip(0, last).astype(int) + 1
        z, y, x = (slice(int(a), int(b)) for a, b in zip(first, end, strict=True))
        return z, y, x

    def _deviance(self, voxels: NDArray[np.generic], light: Floats) -> float:
        """Return minus twice the logarithm of the likelihood, but for a constant."""
        noise, data = self._noise, voxels.astype(np.float64)
        counted = data < noise.saturation
        if noise.gain == 0:
            return float(np.square(data - light)[counted].sum() / noise.intercept)
        shift = noise.intercept / noise.gain**2
        rate = np.maximum(light / noise.gain + shift, LEAST_RATE)[counted]
        counts = (data / noise.gain + shift)[counted]
        return 2 * float(np.sum(rate - counts * np.log(rate)))


def _doubtful_pairs(found: Measurement) -> Counts:
    """Return pairs [P, 2] of points that may be one, the closest first."""
    [points] = found.gaussians
    pairs, apart = close_pairs(points, BESIDE)
    unsure = points.amplitudes < SURE * found.errors()["sd_amplitude"]
    doubtful = (apart < CLOSE) | unsure[pairs].any(1)
    return pairs[doubtful][np.argsort(apart[doubtful], kind="stable")]
