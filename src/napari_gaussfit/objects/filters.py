"""Matched filters of several widths on a stack of noise of unit variance, and their maxima."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy.ndimage import gaussian_filter1d

from napari_gaussfit._kernels.cpu.smoothing_kernels import (
    find_maxima,
    mean_boxes,
    smooth_columns,
    smooth_planes,
)
from napari_gaussfit._threads import run_pieces

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Counts = NDArray[np.int64]
    Volume = NDArray[np.float32]
    Beyond = Literal["symmetric", "edge"]

__all__ = ["OUTER", "Maxima", "binned", "local_maxima", "maxima", "smoothed"]

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

MIRRORED: Beyond = "symmetric"
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


@dataclass(frozen=True, eq=False)
class _Level:
    """A filter's two Gaussians, on voxels that may be larger, and what they do to noise."""

    number: int
    inner: Volume
    outer: Volume
    bins: list[int]
    profiles: list[tuple[Floats, Floats]]
    """Of each axis, the sums of g_1^a g_2^b by (a + b, b): see `_sums`."""


def maxima(noise: Volume, sigmas: Floats, lowest: float) -> Maxima:
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
        Of all filters.
    """
    parts, spreads = [], [1.0]
    for level in _levels(noise, sigmas):
        answers = _answers(level)
        spreads.append(_spread(answers))
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
    eyes = [np.eye(min(n, LONGEST_PROFILE)) for n in noise.shape]
    for number, wanted in enumerate(sigmas):
        step = np.sqrt(np.maximum(wanted**2 - variances, 0.0)) / bins
        inner = smoothed(inner, step, out=None if inner is noise else inner)
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
        outer = smoothed(inner, wider, out=outer if outer.shape == inner.shape else None)
        outside = [_along(eye, s) for eye, s in zip(eyes, wider, strict=True)]
        yield _Level(number, inner, outer, bins, list(zip(eyes, outside, strict=True)))


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
    for (inner, outer), length in zip(level.profiles, level.inner.shape, strict=True):
        own = (inner**first * outer**second).sum(1)
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


def smoothed(
    volume: Volume,
    sigmas: Floats | Sequence[float],
    mode: Beyond = MIRRORED,
    out: Volume | None = None,
) -> Volume:
    """Return a volume smoothed along each axis, over all threads.

    Parameters
    ----------
    volume : ndarray, shape [Z, Y, X]
        The values at the voxels, in float32.
    sigmas : sequence of float
        Along z, y and x in voxels; nothing is done along an axis of 0, or of one voxel.
    mode : {"symmetric", "edge"}
        What lies beyond the faces, as NumPy calls it: the same from the face back, or the face.
    out : ndarray, shape [Z, Y, X], optional
        Where it goes, `volume` itself or another; a new one if None.

    Returns
    -------
    ndarray, shape [Z, Y, X]
        `out`.
    """
    out = np.empty(volume.shape, np.float32) if out is None else out
    ways = [_axis(n, s if n > 1 else 0.0, mode) for n, s in zip(volume.shape, sigmas, strict=True)]
    run_pieces(lambda a, b: smooth_planes(volume, ways[1], ways[2], out, a, b), volume.shape[0])
    if len(ways[0][0]) > 1:
        run_pieces(lambda a, b: smooth_columns(out, ways[0], a, b), volume.shape[1])
    return out


@functools.lru_cache(maxsize=256)
def _axis(length: int, sigma: float, mode: Beyond) -> tuple[Volume, Counts]:
    """Return one half of a Gaussian, and which voxels are seen from before to beyond an axis."""
    reach = int(REACH * sigma + 0.5)
    half = np.exp(-0.5 * np.square(np.arange(reach + 1) / max(sigma, 1e-30)))
    half /= 2 * half.sum() - half[0]
    return half.astype(np.float32), np.pad(np.arange(length), reach, mode=mode)


def binned(volume: Volume, bins: Sequence[int]) -> Volume:
    """Return means of boxes; what is left at the end of a side is a smaller box.

    Parameters
    ----------
    volume : ndarray, shape [Z, Y, X]
        The values at the voxels, in float32.
    bins : sequence of int
        Voxels of a box along z, y and x.

    Returns
    -------
    ndarray
        In float32; of boxes of one voxel the volume itself.
    """
    if max(bins) == 1:
        return volume
    z, y, x = (int(size) for size in bins)
    shape = [-(-n // size) for n, size in zip(volume.shape, (z, y, x), strict=True)]
    out = np.empty(shape, np.float32)
    run_pieces(lambda first, end: mean_boxes(volume, (z, y, x), out, first, end), len(out))
    return out
