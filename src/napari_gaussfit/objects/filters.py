"""Matched filters of several widths on a stack of noise of unit variance, and their maxima."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import gaussian_filter1d

from napari_gaussfit._threads import run_along_axes, run_pieces

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Counts = NDArray[np.int64]
    Volume = NDArray[np.float32]

__all__ = ["OUTER", "Maxima", "binned", "maxima", "smoothed"]

OUTER = 2.0
"""A filter is a Gaussian less one so many times as wide, which a level background does not move."""

BINNED_FROM = 2.2
"""Sigma, in the voxels it works on, from which a filter works on some twice as large."""

REACH = 4.0
"""Sigmas to where a Gaussian ends."""

SAMPLES = 200_000
"""Answers of a filter of which the spread is taken."""

PARTS, CALM = 6, 0.2
"""Parts of a stack along y and x, of whose spreads this quantile counts: elsewhere is more."""

MIRRORED = "reflect"
"""What lies beyond a face: a level background stays one, and noise there is counted as it is."""

LONGEST_PROFILE = 400
"""Voxels along an axis, beyond which its middle is like its middle."""


@dataclass(frozen=True, eq=False)
class Maxima:
    """Where filters answer most, in no order.

    Parameters
    ----------
    places : ndarray, shape [n, 3]
        z, y, x in voxels.
    levels : ndarray of int, shape [n]
        Which filter.
    answers : ndarray, shape [n]
        In standard deviations.
    peaks : ndarray, shape [n]
        Of a Gaussian of the filter's width that would answer so, in units of the stack.
    skewness : ndarray, shape [n]
        Of the answer to noise whose voxels have a skewness of 1.
    spread : float
        See `Candidates`.
    """

    places: Floats
    levels: Counts
    answers: Floats
    peaks: Floats
    skewness: Floats
    spread: float


@dataclass(frozen=True, eq=False)
class _Level:
    """A filter's two Gaussians, on voxels that may be larger, and what they do to noise."""

    number: int
    inner: Volume
    outer: Volume
    bins: list[int]
    profiles: list[tuple[Floats, Floats]]
    """Of each axis, the sums of g_1^a g_2^b by (a + b, b): see `_sums`."""


def maxima(noise: Volume, sigmas: Floats, lowest: float, *, spread: float = 1.0) -> Maxima:
    """Return the maxima in space of each filter.

    Parameters
    ----------
    noise : ndarray, shape [Z, Y, X]
        Of unit variance, but for what is looked for.
    sigmas : ndarray, shape [L, 3]
        Of each filter's inner Gaussian along z, y and x, in voxels, the narrowest first.
    lowest : float
        Answers, in standard deviations, from which maxima count.

    Returns
    -------
    Maxima
        Answers are divided by their spread in most of the stack where that is above 1.
    """
    parts, spreads = [], [1.0]
    for level in _levels(noise, sigmas):
        answers = _answers(level)
        spreads.append(_spread(answers))
        where = _local_maxima(answers, lowest * spread)
        at, values = _between_voxels(answers, where)
        places = np.clip((at + 0.5) * level.bins - 0.5, 0, np.subtract(noise.shape, 1))
        peak, skewness, deviation = _unit(level)
        numbers = np.full(len(at), level.number)
        parts.append(
            (places, numbers, values, values * deviation / peak, np.full(len(at), skewness))
        )
    places, numbers, values, peaks, skew = (np.concatenate(p) for p in zip(*parts, strict=True))
    return Maxima(places, numbers, values / spread, peaks, skew / spread, max(spreads))


def _levels(noise: Volume, sigmas: Floats) -> Iterator[_Level]:
    """Filter by ever wider Gaussians, each on what the one before has left."""
    bins = [1, 1, 1]
    variances = np.zeros(3)
    inner = noise
    eyes = [np.eye(min(n, LONGEST_PROFILE)) for n in noise.shape]
    for number, wanted in enumerate(sigmas):
        step = np.sqrt(np.maximum(wanted**2 - variances, 0.0)) / bins
        inner = smoothed(inner, step)
        eyes = [_along(eye, s) for eye, s in zip(eyes, step, strict=True)]
        variances = np.maximum(variances, wanted**2)
        twice = [
            1 + (w >= BINNED_FROM * b and n >= 8)
            for w, b, n in zip(wanted, bins, inner.shape, strict=True)
        ]
        if max(twice) > 1:
            inner = binned(inner, twice)
            eyes = [_binned_along(eye, t) for eye, t in zip(eyes, twice, strict=True)]
            variances += (np.square(twice) - 1) * np.square(bins) / 12
            bins = [int(b * t) for b, t in zip(bins, twice, strict=True)]
        wider = np.sqrt(OUTER**2 - 1) * np.sqrt(variances) / bins
        outer = smoothed(inner, wider)
        outside = [_along(eye, s) for eye, s in zip(eyes, wider, strict=True)]
        yield _Level(number, inner, outer, bins, list(zip(eyes, outside, strict=True)))


def _along(profile: Floats, sigma: float) -> Floats:
    """Filter impulses [places, impulses], as `smoothed` does an axis."""
    if sigma <= 0 or len(profile) == 1:
        return profile
    filtered: Floats = gaussian_filter1d(profile, sigma, 0, mode=MIRRORED, truncate=REACH)
    return filtered


def _binned_along(profile: Floats, size: int) -> Floats:
    means: Floats = binned(profile[:, :, None], [size, 1, 1])[:, :, 0].astype(np.float64)
    return means


def _sums(level: _Level, first: int, second: int) -> list[Floats]:
    """Return, along each axis, the sums over impulses of g_1^first g_2^second at each place."""
    sums = []
    for (inner, outer), length in zip(level.profiles, level.inner.shape, strict=True):
        own = (inner**first * outer**second).sum(1)
        missing = length - len(own)
        if missing > 0:
            middle = len(own) // 2
            own = np.concatenate([own[:middle], np.full(missing, own[middle]), own[middle:]])
        sums.append(own[:length])
    return sums


def _answers(level: _Level) -> Volume:
    """Return the answers in standard deviations, the stack's faces heeded."""
    inside = [_sums(level, *powers) for powers in ((2, 0), (1, 1), (0, 2))]
    out = np.empty_like(level.inner)

    def some(first: int, end: int) -> None:
        variance = np.zeros(out[first:end].shape, np.float32)
        for factor, (z, y, x) in zip((1, -2, 1), inside, strict=True):
            plane = np.multiply.outer(y, x).astype(np.float32)
            variance += (factor * z[first:end]).astype(np.float32)[:, None, None] * plane
        np.subtract(level.inner[first:end], level.outer[first:end], out=out[first:end])
        out[first:end] /= np.sqrt(np.maximum(variance, 1e-12))

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
    height = math.prod(float(inner[len(inner) // 2].max()) for inner, _ in level.profiles)
    return (total(2, 0) - total(1, 1)) / height, third / deviation**3, deviation


def _spread(answers: Volume) -> float:
    """Return by how much answers spread where there is little but noise, at least 1."""
    spreads = []
    for rows in np.array_split(answers, min(PARTS, answers.shape[1]), axis=1):
        for part in np.array_split(rows, min(PARTS, answers.shape[2]), axis=2):
            flat = part.reshape(-1)
            some = flat[:: max(1, flat.size * PARTS**2 // SAMPLES)]
            low, middle = np.quantile(some, (0.25, 0.5))
            spreads.append(float(middle - low) / 0.6745)
    return max(1.0, float(np.quantile(spreads, CALM)))


def _local_maxima(answers: Volume, lowest: float) -> Counts:
    """Return voxels [n, 3] above `lowest` that no neighbour is above."""
    where = np.argwhere(answers > lowest)
    for offset in itertools.product((-1, 0, 1), repeat=3):
        if offset == (0, 0, 0) or not len(where):
            continue
        beside = np.clip(where + offset, 0, np.subtract(answers.shape, 1))
        own, other = answers[tuple(where.T)], answers[tuple(beside.T)]
        # Of equal neighbours one is the maximum: the one that comes later.
        higher = (other > own) if offset < (0, 0, 0) else (other >= own)
        where = where[~(higher & (beside != where).any(1))]
    return where


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


def smoothed(volume: Volume, sigmas: Floats | Sequence[float], mode: str = MIRRORED) -> Volume:
    """Return a volume smoothed along each axis, over all threads.

    Parameters
    ----------
    volume : ndarray, shape [Z, Y, X]
        In float32.
    sigmas : sequence of float
        Along z, y and x in voxels; nothing is done along an axis of 0, or of one voxel.
    mode : str
        What lies beyond the faces, as SciPy calls it.

    Returns
    -------
    ndarray, shape [Z, Y, X]
        Another one.
    """

    def smooth(lines: Volume, *, axis: int, output: Volume) -> None:
        if volume.shape[axis] > 1 and sigmas[axis] > 0:
            gaussian_filter1d(lines, sigmas[axis], axis, output=output, mode=mode, truncate=REACH)
        elif output is not lines:
            output[...] = lines

    out = np.empty(volume.shape, np.float32)
    run_along_axes(smooth, volume, out)
    return out


def binned(volume: NDArray[np.floating], bins: Sequence[int]) -> Volume:
    """Return means of boxes; what is left at the end of a side is a smaller box.

    Parameters
    ----------
    volume : ndarray, shape [Z, Y, X]
        In any units.
    bins : sequence of int
        Voxels of a box along z, y and x.

    Returns
    -------
    ndarray
        In float32.
    """
    out = volume
    for axis, size in enumerate(bins):
        if size > 1:
            starts = np.arange(0, out.shape[axis], size)
            counts = np.diff([*starts, out.shape[axis]])
            shape = np.where(np.arange(3) == axis, len(starts), 1)
            out = np.add.reduceat(out, starts, axis=axis) / counts.reshape(shape)
    return out.astype(np.float32, copy=False)
