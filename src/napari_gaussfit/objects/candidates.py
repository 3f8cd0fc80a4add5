"""Where a stack may hold a spot: matched filters over the noise, at a rate of false discoveries.

A spot that is to be added changes the likelihood, to first order, by what a filter of its shape
answers: the score test. Differences of two Gaussians are the filter, so that a level background
answers nothing. What noise alone answers, at the maxima and over all widths, is counted on noise
that went the same way: A. Schwartzman and co-authors, Ann. Statist. 39 (2011) 3290, with the rate
of Y. Benjamini and Y. Hochberg, J. R. Stat. Soc. B 57 (1995) 289.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree

from napari_gaussfit.errors import SettingsError
from napari_gaussfit.measure.noise import Noise, noise_of_neighbours
from napari_gaussfit.model.gaussians import FWHM_PER_SIGMA
from napari_gaussfit.objects.filters import OUTER, binned, maxima, smoothed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_gaussfit.stacks.stack import Stack

    Floats = NDArray[np.float64]
    Counts = NDArray[np.int64]
    Volume = NDArray[np.float32]
    Triple = tuple[float, float, float]
    Shape = tuple[int, int, int]

__all__ = ["Candidates", "Sizes", "candidates"]

LEAST_VOXELS = 2.0
"""FWHM of the least spot where none is asked for: as fine as voxels can show."""

LARGEST_VOXELS, LARGEST_MICROMETERS = 6.0, 0.6
"""FWHM of the largest, whichever is more: beyond what a lens makes of a point lies structure."""

LONGEST_ALONG_Z = 3.0
"""How many times as long as wide, in micrometres, a filter is at most: an objective's blur is."""

LEAST_SIGMA = 0.6
"""Voxels: narrower filters are one voxel."""

STEP = math.sqrt(2.0)
"""From a width to the next: a filter that is half of it off loses 3 % of what it answers."""

LOWEST = 3.5
"""Standard deviations of noise from which maxima are kept."""

NEAR, EXPLAINED = 2.5, 1.5
"""Sigmas of a maximum's outer Gaussian to where it explains what filters answer, and how many times
as much as that another maximum must be: a spot is not just as a filter is."""

NARROWER = 0.85
"""What the answer of a filter is worth beside that of the next narrower one: where spots are close,
a wide filter answers to several."""

NULL_VOXELS, MOST_DRAWS = 600_000, 20
"""Of noise that is looked at, at least, in so many stacks at most."""

NULL_SIDES = (32, 192, 192)
"""Voxels of the noise on which the filters are counted, at most."""

SURE = 100
"""Maxima of noise from which their count is taken as it is; beyond, it falls as theory says."""

NOISE_VOXELS, NOISE_BANDS = 2_000_000, 8
"""From which a stack's noise is estimated, in so many bands of rows."""

BACKGROUND_WIDTH = 3.0
"""Of the widest spot's: what changes over this is background."""

CLIPPINGS = 4
"""Turns in which what stands above the background is cut from it."""

CLIPPED = 2.0
"""Standard deviations above the background from which it is."""


@dataclass(frozen=True)
class Sizes:
    """How large spots are.

    Parameters
    ----------
    least, largest : float
        FWHM across the optical axis, in `unit`.
    along : float
        How many times as long along z.
    spacing : tuple of float
        (dz, dy, dx) in `unit`.
    """

    least: float
    largest: float
    along: float
    spacing: Triple

    @classmethod
    def of(cls, stack: Stack, least: float | None, largest: float | None) -> Sizes:
        """Return sizes that a stack can show.

        Parameters
        ----------
        stack : Stack
            In whose unit they are.
        least, largest : float, optional
            FWHM; if None, of 2 voxels, and of 6 or 0.6 micrometres, whichever is more.

        Returns
        -------
        Sizes
            Filters are as long along z as voxels are, up to three times.

        Raises
        ------
        SettingsError
            If a size is not above 0, or the least above the largest.
        """
        across = math.sqrt(stack.spacing[1] * stack.spacing[2])
        high = LARGEST_VOXELS * across if largest is None else largest
        if largest is None and stack.unit == "micrometer":
            high = max(high, LARGEST_MICROMETERS)
        low = min(LEAST_VOXELS * across, high / 2) if least is None else least
        high = max(high, 2 * low) if largest is None else high
        if not 0 < low <= high < math.inf:
            message = f"sizes from {low:g} to {high:g} {stack.unit}s: give a least size above 0 "
            raise SettingsError(message + "and a largest one that is not below it")
        along = min(max(stack.spacing[0] / across, 1.0), LONGEST_ALONG_Z)
        return cls(low, high, along, stack.spacing)

    @property
    def count(self) -> int:
        """Number of widths from the least to the largest."""
        return 1 + math.ceil(math.log(self.largest / self.least) / math.log(STEP) - 1e-9)

    def sigmas(self, level: int | NDArray[np.int64]) -> Floats:
        """Return the standard deviations of a width along z, y and x.

        Parameters
        ----------
        level : int or ndarray of int, shape [n]
            0 for the least.

        Returns
        -------
        ndarray, shape [3] or [n, 3]
            In voxels.
        """
        across = self.least / FWHM_PER_SIGMA * STEP ** np.asarray(level, np.float64)
        shape = across[..., None] * np.array([self.along, 1.0, 1.0]) / np.asarray(self.spacing)
        sigmas: Floats = np.maximum(shape, LEAST_SIGMA)
        return sigmas


@dataclass(frozen=True, eq=False)
class Candidates:
    """Maxima of the filters, the most certain first, and how often noise has such.

    Parameters
    ----------
    places : ndarray, shape [n, 3]
        z, y, x in voxels.
    levels : ndarray of int, shape [n]
        Which width answers most.
    scores : ndarray, shape [n]
        Answers in standard deviations of the noise, as of normal noise.
    heights : ndarray, shape [n]
        Raw intensity at the peak of a spot of that width.
    backgrounds : ndarray, shape [n]
        Raw intensity around it.
    sizes : Sizes
        That were looked for.
    noise : Noise
        That was assumed.
    spread : float
        Of the answers of most of the stack, over what the noise explains; above 1, the answers
        were divided by it.
    null : ndarray, shape [m]
        Scores of what noise alone has as maxima, descending.
    null_share : float
        Voxels of the stack over those of that noise.
    """

    places: Floats
    levels: NDArray[np.int64]
    scores: Floats
    heights: Floats
    backgrounds: Floats
    sizes: Sizes
    noise: Noise
    spread: float
    null: Floats
    null_share: float

    def __len__(self) -> int:
        """Return the number of maxima."""
        return len(self.scores)

    def expected(self, scores: Floats) -> Floats:
        """Return how many maxima noise alone has in such a stack.

        Parameters
        ----------
        scores : ndarray, shape [n]
            From which they count.

        Returns
        -------
        ndarray, shape [n]
            In the mean. Beyond what was counted it falls as the Euler characteristic of normal
            noise in space and width does (R. J. Adler and J. E. Taylor, 2007): t^3 exp(-t^2 / 2).
        """
        counted = np.searchsorted(-self.null, -scores, side="right").astype(np.float64)
        sure = min(SURE, len(self.null)) - 1
        last = self.null[sure]
        with np.errstate(over="ignore"):
            fallen = (scores / last) ** 3 * np.exp(-(scores**2 - last**2) / 2)
        expected: Floats = self.null_share * np.where(scores > last, (sure + 1) * fallen, counted)
        return expected

    def threshold(self, false_discoveries: float) -> float:
        """Return the score from which maxima are spots.

        Parameters
        ----------
        false_discoveries : float
            Share of them that may be noise, between 0 and 1.

        Returns
        -------
        float
            Of noise alone, some maximum is above it with about this probability.

        Raises
        ------
        SettingsError
            If the share is none.
        """
        if not 0 < false_discoveries < 1:
            message = f"false_discoveries={false_discoveries:g}: give a share between 0 and 1"
            raise SettingsError(message)
        scores = np.sort(self.scores)[::-1]
        kept = np.flatnonzero(
            self.expected(scores) <= false_discoveries * np.arange(1, len(scores) + 1)
        )
        allowed = false_discoveries * (1 + (kept[-1] if len(kept) else 0))
        low, high = LOWEST, 40.0
        for _ in range(60):
            middle = (low + high) / 2
            above = self.expected(np.array([middle]))[0] > allowed
            low, high = (middle, high) if above else (low, middle)
        return high

    def chosen(self, false_discoveries: float) -> Candidates:
        """Return those that are spots at a rate of false discoveries.

        Parameters
        ----------
        false_discoveries : float
            Share of them that may be noise.

        Returns
        -------
        Candidates
            Takes no time: what a slider asks for.
        """
        return self.where(self.scores >= self.threshold(false_discoveries))

    def where(self, which: NDArray[np.bool_]) -> Candidates:
        """Return some.

        Parameters
        ----------
        which : ndarray of bool, shape [n]
            True for those to keep.

        Returns
        -------
        Candidates
            In the same order.
        """
        names = ("places", "levels", "scores", "heights", "backgrounds")
        return replace(self, **{name: getattr(self, name)[which] for name in names})


def candidates(
    stack: Stack,
    *,
    least_size: float | None = None,
    largest_size: float | None = None,
    noise: Noise | None = None,
) -> Candidates:
    """Look for what may be spots.

    Parameters
    ----------
    stack : Stack
        One channel.
    least_size, largest_size : float, optional
        FWHM across the optical axis in the stack's unit; see `Sizes.of`.
    noise : Noise, optional
        Estimated by `noise_of_neighbours` if None.

    Returns
    -------
    Candidates
        All maxima above three standard deviations; `chosen` takes those that are spots.

    Raises
    ------
    SettingsError
        If sizes are none, or the noise cannot be estimated.
    """
    sizes = Sizes.of(stack, least_size, largest_size)
    voxels = stack.voxels.astype(np.float32)
    noise = noise_of(voxels) if noise is None else noise
    ground = background_of(voxels, sizes, noise)
    return searched(voxels, ground, None, sizes, noise)


def noise_of(voxels: Volume) -> Noise:
    """Return the noise of a stack by `noise_of_neighbours`, of a large one by some of its rows.

    Parameters
    ----------
    voxels : ndarray, shape [Z, Y, X]
        Raw intensity.

    Returns
    -------
    Noise
        As there.
    """
    parts = math.ceil(voxels.size / NOISE_VOXELS)
    rows = voxels.shape[1] // parts
    if parts == 1 or rows < 3:
        return noise_of_neighbours(voxels)
    starts = np.linspace(0, voxels.shape[1] - 1, 2 * NOISE_BANDS + 1).astype(np.int64)[1::2]
    half = max(rows // NOISE_BANDS // 2, 2)
    bands = [voxels[:, max(y - half, 0) : y + half] for y in starts]
    return noise_of_neighbours(np.concatenate(bands, axis=1))


def background_of(voxels: Volume, sizes: Sizes, noise: Noise) -> Volume:
    """Return a stack's background, which changes over more than the widest spot.

    Parameters
    ----------
    voxels : ndarray, shape [Z, Y, X]
        Raw intensity.
    sizes : Sizes
        Of spots.
    noise : Noise
        What stands above the background by more is cut.

    Returns
    -------
    ndarray, shape [Z, Y, X]
        Raw intensity.
    """
    widths = BACKGROUND_WIDTH * sizes.sigmas(sizes.count - 1)
    bins = [max(1, min(int(w / 3), n // 4)) for w, n in zip(widths, voxels.shape, strict=True)]
    means = binned(voxels, bins)
    scaled = widths / bins
    ground = _smoothed_to_the_faces(means, scaled)
    for _ in range(CLIPPINGS):
        sd = np.sqrt(noise.variance(ground) / math.prod(bins))
        kept = np.minimum(means, ground + CLIPPED * sd).astype(np.float32)
        ground = _smoothed_to_the_faces(kept, scaled)
    return _spread_out(ground, bins, voxels.shape)


def searched(
    voxels: Volume, ground: Volume, model: Volume | None, sizes: Sizes, noise: Noise
) -> Candidates:
    """Return the maxima of what a model leaves.

    Parameters
    ----------
    voxels, ground : ndarray, shape [Z, Y, X]
        The stack and its background, in raw intensity.
    model : ndarray, shape [Z, Y, X], or None
        The spots that there are already, without background.
    sizes : Sizes
        Of spots.
    noise : Noise
        Of voxels.

    Returns
    -------
    Candidates
        The most certain first.
    """
    left = voxels - ground
    # Noise goes with all light that is there: spots, and what of the background is not smooth.
    light = smoothed(voxels, 2 * sizes.sigmas(min(2, sizes.count - 1)), mode="nearest")
    np.maximum(light, ground, out=light)
    if model is not None:
        left -= model
        np.maximum(light, model + ground, out=light)
    sd = np.sqrt(np.maximum(noise.variance(light), _least_variance(noise, ground)))
    left /= sd
    found = maxima(left, sizes.sigmas(np.arange(sizes.count)), LOWEST)
    at = tuple(np.rint(found.places).astype(np.int64).T)
    deviations = sd[at]
    scores = _as_of_normal_noise(found.answers, found.skewness * noise.gain / deviations)
    order = np.flatnonzero(scores >= LOWEST)
    order = order[_unexplained(found.places[order], found.levels[order], scores[order], sizes)]
    null = _of_noise(voxels.shape, sizes)
    return Candidates(
        found.places[order],
        found.levels[order],
        scores[order],
        (found.peaks * deviations)[order],
        ground[at][order].astype(np.float64),
        sizes,
        noise,
        found.spread,
        null[0],
        null[1],
    )


def _least_variance(noise: Noise, ground: Volume) -> float:
    """Return the least variance of a voxel: a hundredth of the usual, or of a photon's."""
    usual = float(np.median(noise.variance(ground[::2, ::4, ::4])))
    return max(1e-2 * usual, 1e-2 * noise.gain**2, 1e-30)


def _as_of_normal_noise(answers: Floats, skewness: Floats) -> Floats:
    """Return what is as rare in normal noise as an answer is in noise that is skew as photons are.

    The signed root of the deviance of a number of photons whose skewness that is.
    """
    skew = np.maximum(skewness, 1e-6)
    x = np.maximum(answers * skew, -0.99)
    deviance = np.maximum(2 * ((1 + x) * np.log1p(x) - x), 0.0)
    return np.where(skew * answers < 1e-3, answers, np.sign(x) * np.sqrt(deviance) / skew)


def _unexplained(places: Floats, levels: NDArray[np.int64], scores: Floats, sizes: Sizes) -> Counts:
    """Return which maxima, the highest first, are more than answers to others."""
    order = np.argsort(-scores * NARROWER**levels, kind="stable")
    if not len(order):
        return order
    places, levels, scores = places[order], levels[order], scores[order]
    widths = sizes.sigmas(levels)
    scale = widths[np.argmin(levels)]
    tree = cKDTree(places / scale)
    radii = NEAR * (widths / scale).max(1) * OUTER
    near_by = tree.query_ball_point(places / scale, radii, return_sorted=True)
    explained = np.zeros(len(places))
    kept = []
    for k, others in enumerate(near_by):
        if scores[k] < LOWEST + EXPLAINED * explained[k]:
            continue
        kept.append(k)
        lower = np.asarray(others, np.int64)
        lower = lower[lower > k]
        if len(lower):
            apart = places[lower] - places[k]
            explained[lower] += scores[k] * _answer_to(apart, widths[k], widths[lower])
    chosen = order[kept]
    highest: Counts = chosen[np.argsort(-scores[kept], kind="stable")]
    return highest


def _answer_to(apart: Floats, width: Floats, filters: Floats) -> Floats:
    """Return what filters answer to a Gaussian beside them, over what one as wide answers to it."""

    def blurred(by: Floats) -> Floats:
        wide = width**2 + by**2
        result: Floats = np.prod(width / np.sqrt(wide), 1) * np.exp(
            -0.5 * np.sum(apart**2 / wide, 1)
        )
        return result

    own = 2**-1.5 - (1 + OUTER**2) ** -1.5
    # Deviations of a filter's noise are as its width^(-3/2).
    deviations = np.sqrt(np.prod(width / filters, 1))
    answers: Floats = (blurred(filters) - blurred(OUTER * filters)) / own / deviations
    return np.maximum(answers, 0.0)


@functools.lru_cache(maxsize=8)
def _of_noise(shape: Shape, sizes: Sizes) -> tuple[Floats, float]:
    """Return the scores of noise's maxima, descending, and how much larger the stack is."""
    sides = tuple(min(n, most) for n, most in zip(shape, NULL_SIDES, strict=True))
    draws = min(-(-NULL_VOXELS // math.prod(sides)), MOST_DRAWS)
    rng = np.random.default_rng(0)
    scores = []
    for _ in range(draws):
        noise = rng.standard_normal(sides, np.float32)
        found = maxima(noise, sizes.sigmas(np.arange(sizes.count)), LOWEST)
        own = _unexplained(found.places, found.levels, found.answers, sizes)
        scores.append(found.answers[own])
    null = np.sort(np.concatenate(scores))[::-1]
    return null, math.prod(shape) / (draws * math.prod(sides))


def _smoothed_to_the_faces(volume: Volume, sigmas: Floats) -> Volume:
    """Smooth what a plane leaves: a slope goes on at the faces, where smoothing would end it."""
    at = [np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in volume.shape]
    slopes = [float(np.mean(volume * _along(x, a))) for a, x in enumerate(at)]
    squares = [max(float(np.mean(x * x)), 1e-30) for x in at]
    plane = sum(
        s / q * _along(x, a) for a, (s, q, x) in enumerate(zip(slopes, squares, at, strict=True))
    )
    flat = (volume - plane).astype(np.float32)
    result: Volume = (smoothed(flat, sigmas) + plane).astype(np.float32)
    return result


def _along(values: Floats, axis: int) -> Floats:
    """Return values along an axis of three, to be broadcast."""
    return np.expand_dims(values, [a for a in range(3) if a != axis])


def _spread_out(volume: Volume, bins: list[int], shape: Shape) -> Volume:
    """Return a binned volume at all voxels, linear between the middles of boxes."""
    out = volume
    for axis, (size, n) in enumerate(zip(bins, shape, strict=True)):
        if size == 1:
            continue
        boxes = out.shape[axis]
        at = np.clip((np.arange(n) + 0.5) / size - 0.5, 0, boxes - 1)
        low = np.minimum(at.astype(np.int64), max(boxes - 2, 0))
        high = np.minimum(low + 1, boxes - 1)
        part = (at - low).astype(np.float32).reshape(np.where(np.arange(3) == axis, n, 1))
        out = out.take(low, axis) * (1 - part) + out.take(high, axis) * part
    return np.ascontiguousarray(out)
