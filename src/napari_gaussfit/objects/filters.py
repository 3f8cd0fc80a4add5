"""Matched filters of several widths on a stack of noise of unit variance, and their maxima."""

from __future__ import annotations

import functools
import math
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import gaussian_filter1d

from napari_gaussfit._kernels.cpu.smoothing import REACH, binned, smoothed
from napari_gaussfit._kernels.cpu.smoothing_kernels import find_maxima
from napari_gaussfit._threads import run_pieces

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Counts = NDArray[np.int64]
    Volume = NDArray[np.float32]
    Steps = tuple[tuple[float, int], ...]

__all__ = ["OUTER", "Maxima", "local_maxima", "maxima"]

OUTER = 2.0
"""A filter is a Gaussian less one so many times as wide, which a level background does not move."""

BINNED_FROM = 2.2
"""Sigma, in the voxels it works on, from which a filter works on some twice as large."""

PARTS, CALM = 6, 0.2
"""Parts of a stack along y and x, of whose spreads this quantile counts: elsewhere is more."""

LONGEST_PROFILE = 400
"""Voxels along an axis, beyond which its middle is like its middle."""

PROFILES, SUMS = 16, 1024
"""How many profiles of filters along an axis are kept, of up to a megabyte, and how many sums of
them: the times of a recording ask for the same."""


@dataclass(frozen=True, eq=False)
class Maxima:
    """Where filters answer most, in no order.

    Parameters
    ----------
    places : ndarray, shape [n, 3]
        z, y, x in voxels.
    levels : ndarray of int, shape [n]
        The number of the filter that answered most at each place.
    answers : ndarray, shape [n]
        How far each place stands out, in standard deviations of the noise.
    peaks : ndarray, shape [n]
        Of a Gaussian of the filter's width that would answer so, in units of the stack.
    skewness : ndarray, shape [n]
        Of the answer to noise whose voxels have a skewness of 1.
    spread : float
        Of the answers of most of the stack, over what the noise explains; at least 1.
    """

    places: Floats
    levels: Counts
    answers: Floats
    peaks: Floats
    skewness: Floats
    spread: float


@dataclass(frozen=True)
class _Axis:
    """What was done along an axis of so many voxels: by which sigmas it was filtered, and binned.

    To the inner Gaussian, and after that to the outer one.
    """

    length: int
    steps: Steps
    wider: float

    @functools.lru_cache(maxsize=SUMS)  # noqa: B019 - frozen, and a few numbers
    def sums(self, first: int, second: int) -> Floats:
        """Return the sums over impulses of g_1^first g_2^second at each place."""
        inner = _profile(self.length, self.steps)
        outer = _profile(self.length, (*self.steps, (self.wider, 1)))
        sums: Floats = (inner**first * outer**second).sum(1)
        return sums

    @functools.lru_cache(maxsize=SUMS)  # noqa: B019
    def height(self) -> float:
        """Return the peak of the inner Gaussian in the middle."""
        inner = _profile(self.length, self.steps)
        return float(inner[len(inner) // 2].max())


@functools.lru_cache(maxsize=PROFILES)
def _profile(length: int, steps: Steps) -> Floats:
    """Return what becomes of impulses along an axis [places, impulses]."""
    if not steps:
        return np.eye(min(length, LONGEST_PROFILE))
    sigma, size = steps[-1]
    profile = _along(_profile(length, steps[:-1]), sigma)
    return profile if size == 1 else _binned_along(profile, size)


@dataclass(frozen=True, eq=False)
class _Level:
    """A filter's two Gaussians, on voxels that may be larger, and what they do to noise."""

    number: int
    inner: Volume
    outer: Volume
    bins: list[int]
    axes: list[_Axis]


def maxima(noise: Volume, sigmas: Floats, lowest: float, *, samples: int = 0) -> Maxima:
    """Return the maxima in space of each filter.

    Parameters
    ----------
    noise : ndarray, shape [Z, Y, X]
        Of unit variance, but for what is looked for.
    sigmas : ndarray, shape [L, 3]
        Of each filter's inner Gaussian along z, y and x, in voxels, the narrowest first.
    lowest : float
        Answers, in standard deviations, from which maxima count.
    samples : int, default 0
        Answers of each filter of which the spread is taken, about; it is 1 if 0.

    Returns
    -------
    Maxima
        Of all filters.
    """
    parts, spreads = [], [1.0]
    for level in _levels(noise, sigmas):
        answers = _answers(level)
        if samples:
            spreads.append(_spread(answers, samples))
        where = local_maxima(answers, lowest)
        at, values = _between_voxels(answers, where)
        places = np.clip((at + 0.5) * level.bins - 0.5, 0, np.subtract(noise.shape, 1))
        peak, skewness, deviation = _unit(level)
        numbers = np.full(len(at), level.number)
        parts.append(
            (places, numbers, values, values * deviation / peak, np.full(len(at), skewness))
        )
    places, numbers, values, peaks, skew = (np.concatenate(p) for p in zip(*parts, strict=True))
    return Maxima(places, numbers, values, peaks, skew, max(spreads))


def _levels(noise: Volume, sigmas: Floats) -> Iterator[_Level]:
    """Filter by ever wider Gaussians, each on what the one before has left."""
    bins = [1, 1, 1]
    variances = np.zeros(3)
    inner, outer = noise, np.empty_like(noise)
    steps: list[Steps] = [(), (), ()]
    for number, wanted in enumerate(sigmas):
        step = np.sqrt(np.maximum(wanted**2 - variances, 0.0)) / bins
        inner = smoothed(inner, step, out=None if inner is noise else inner)
        variances = np.maximum(variances, wanted**2)
        twice = [
            1 + (w >= BINNED_FROM * b and n >= 8)
            for w, b, n in zip(wanted, bins, inner.shape, strict=True)
        ]
        if max(twice) > 1:
            inner = binned(inner, twice)
            variances += (np.square(twice) - 1) * np.square(bins) / 12
            bins = [int(b * t) for b, t in zip(bins, twice, strict=True)]
        steps = [
            (*done, (float(s), int(size))) for done, s, size in zip(steps, step, twice, strict=True)
        ]
        wider = np.sqrt(OUTER**2 - 1) * np.sqrt(variances) / bins
        outer = smoothed(inner, wider, out=outer if outer.shape == inner.shape else None)
        axes = [_Axis(*way) for way in zip(noise.shape, steps, map(float, wider), strict=True)]
        yield _Level(number, inner, outer, bins, axes)


def _along(profile: Floats, sigma: float) -> Floats:
    """Filter impulses [places, impulses], as `smoothed` does an axis."""
    if sigma <= 0 or len(profile) == 1:
        return profile
    filtered: Floats = gaussian_filter1d(profile, sigma, 0, mode="reflect", truncate=REACH)
    return filtered


def _binned_along(profile: Floats, size: int) -> Floats:
    starts = np.arange(0, len(profile), size)
    counts = np.diff([*starts, len(profile)])
    means: Floats = np.add.reduceat(profile, starts, axis=0) / counts[:, None]
    return means


def _sums(level: _Level, first: int, second: int) -> list[Floats]:
    """Return, along each axis, the sums over impulses of g_1^first g_2^second at each place."""
    sums = []
    for axis, length in zip(level.axes, level.inner.shape, strict=True):
        own = axis.sums(first, second)
        missing = length - len(own)
        if missing > 0:
            middle = len(own) // 2
            own = np.concatenate([own[:middle], np.full(missing, own[middle]), own[middle:]])
        sums.append(own[:length])
    return sums


def _answers(level: _Level) -> Volume:
    """Return the answers in standard deviations, the stack's faces heeded, in `outer`'s place."""
    inside = [_sums(level, *powers) for powers in ((2, 0), (1, 1), (0, 2))]
    out = level.outer
    planes = [np.multiply.outer(y, x).astype(np.float32) for _, y, x in inside]

    def some(first: int, end: int) -> None:
        # Plane by plane, which stays in the cache.
        for z in range(first, end):
            factors = [np.float32(own[z]) for own, _, _ in inside]
            squares, products, wider = (f * p for f, p in zip(factors, planes, strict=True))
            variance = squares - 2 * products + wider
            np.subtract(level.inner[z], out[z], out=out[z])
            out[z] /= np.sqrt(np.maximum(variance, 1e-12))

    run_pieces(some, len(out))
    return out


def _unit(level: _Level) -> tuple[float, float, float]:
    """Return what a Gaussian of height 1 answers, its noise's skewness, and their deviation.

    Of a place in the middle: the peak in units of the stack, not of the deviation.
    """

    def total(first: int, second: int) -> float:
        sums = _sums(level, first, second)
        return math.prod(float(own[len(own) // 2]) for own in sums)

    deviation = math.sqrt(max(total(2, 0) - 2 * total(1, 1) + total(0, 2), 1e-30))
    third = total(3, 0) - 3 * total(2, 1) + 3 * total(1, 2) - total(0, 3)
    # The inner one, made as high as 1: g_1 / max(g_1).
    height = math.prod(axis.height() for axis in level.axes)
    return (total(2, 0) - total(1, 1)) / height, third / deviation**3, deviation


def _spread(answers: Volume, samples: int) -> float:
    """Return by how much answers spread where there is little but noise, at least 1."""
    of_length: dict[int, list[Volume]] = defaultdict(list)
    for rows in np.array_split(answers, min(PARTS, answers.shape[1]), axis=1):
        for part in np.array_split(rows, min(PARTS, answers.shape[2]), axis=2):
            flat = part.reshape(-1)
            some = flat[:: max(1, flat.size * PARTS**2 // samples)]
            of_length[len(some)].append(some)
    spreads: list[float] = []
    for equally_long in of_length.values():
        low, middle = np.quantile(np.stack(equally_long), (0.25, 0.5), axis=1)
        spreads.extend((middle - low) / 0.6745)
    return max(1.0, float(np.quantile(spreads, CALM)))


def local_maxima(answers: Volume, lowest: float) -> Counts:
    """Return the voxels that no neighbour is above.

    Parameters
    ----------
    answers : ndarray, shape [Z, Y, X]
        The values at the voxels, in float32.
    lowest : float
        Above which they are.

    Returns
    -------
    ndarray of int, shape [n, 3]
        z, y, x in order; of equal neighbours the last.
    """
    parts: dict[int, Counts] = {}

    def some(first: int, end: int) -> None:
        parts[first] = find_maxima(answers, lowest, first, end)

    run_pieces(some, len(answers))
    return np.concatenate([parts[first] for first in sorted(parts)])


def _between_voxels(answers: Volume, where: Counts) -> tuple[Floats, Floats]:
    """Return the tops of parabolas through maxima and their neighbours, and the maxima."""
    values = answers[tuple(where.T)].astype(np.float64)
    at = where.astype(np.float64)
    for axis, length in enumerate(answers.shape):
        if length < 3:
            continue
        inside = (where[:, axis] > 0) & (where[:, axis] < length - 1)
        step = np.zeros(3, np.int64)
        step[axis] = 1
        below = answers[tuple((where - step * inside[:, None]).T)].astype(np.float64)
        above = answers[tuple((where + step * inside[:, None]).T)].astype(np.float64)
        bend = 2 * values - below - above
        shift = np.where(inside & (bend > 0), (above - below) / np.maximum(2 * bend, 1e-30), 0.0)
        at[:, axis] += np.clip(shift, -0.5, 0.5)
    return at, values
