"""Second differences of voxels: noise, for next to nothing of blurred structure is left in them."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = ["Bins", "Samples", "order_of", "second_differences"]

MASK = (1.0, -2.0, 1.0)
"""A second difference along an axis: nothing of light that changes linearly is left. Along all
axes, next to nothing of what optics have blurred (Immerkaer, "Fast noise variance estimation",
1996, in three dimensions)."""

MASK_POWER = 6.0
"""The sum of its squares."""

OWN, MEAN = (1 / 6, 4 / 6, 1 / 6), (1 / 3, 1 / 3, 1 / 3)
"""Masks of the light: by what each voxel's noise counts in a difference, and of all three alike,
whose normal noise has nothing to do with the difference's."""

AT_ONCE = 2**19
"""Voxels that are looked at together."""

MOST_VOXELS = 2**21
"""Voxels that are looked at unless fewer are asked for; of a larger stack, slabs that are evenly
spread."""

OCTAVE = 2
"""Bins in which the number of voxels halves: what is bright and rare has a say."""

LEAST_VOXELS = 200
"""Of a bin: with fewer, the variance in it is not known well enough."""

CLIPPED = 4.5
"""Standard deviations beyond which a difference tells of structure, or of a hot pixel."""

SHARED = 7.35
"""By what the mean of squares varies more than that of as many independent ones: neighbouring
differences share voxels. The sum of their squared correlations, (1 + 2 (4/6)^2 + 2 (1/6)^2)^3."""


def second_differences(voxels: NDArray[Any], *, lag: int = 1) -> Iterator[tuple[slice, Floats]]:
    """Yield squared second differences along all axes, in variances, slab by slab.

    Parameters
    ----------
    voxels : ndarray, shape [Z, Y, X]
        Any intensities. An axis shorter than three voxels is not looked along.
    lag : int, default 1
        Voxels from the first to the second, and on to the third, along axes that are long enough.

    Yields
    ------
    slice
        The planes that they are of, with those beside them.
    ndarray
        The squares.
    """
    lags = _lags(voxels.shape, lag)
    for some in _slabs(voxels.shape, lags) if any(lags) else ():
        yield some, _squared(voxels[some].astype(np.float64), lags, lags)


def _lags(shape: tuple[int, ...], lag: int) -> tuple[int, ...]:
    """Return how far apart voxels are compared along each axis; 0 along one that is too short."""
    return tuple(min(lag, (length - 1) // 2) for length in shape)


def _slabs(shape: tuple[int, ...], lags: tuple[int, ...]) -> Iterator[slice]:
    """Yield planes to look at together, with those that they overlap; of a large stack not all."""
    plane = max(1, int(np.prod(shape[1:])))
    planes, overlap = max(1, AT_ONCE // plane), 2 * lags[0]
    starts = list(range(0, shape[0] - overlap, planes))
    most = max(1, MOST_VOXELS // (plane * planes))
    for first in starts[:: -(-len(starts) // most)]:
        yield slice(first, min(first + planes + overlap, shape[0]))


def _parts(
    shape: tuple[int, ...], lags: tuple[int, ...], most: int
) -> Iterator[tuple[slice, slice]]:
    """Yield planes and rows of them to look at together: all rows, or a band that wanders down."""
    slabs = list(_slabs(shape, lags))
    looked = sum(slab.stop - slab.start - 2 * lags[0] for slab in slabs) * shape[1] * shape[2]
    rows = max(math.ceil(shape[1] * min(1.0, most / max(looked, 1))), 4 * lags[1], 1)
    firsts = np.linspace(0, max(shape[1] - rows, 0), len(slabs) + 2)[1:-1].astype(np.int64)
    for planes, first in zip(slabs, firsts.tolist(), strict=True):
        yield planes, slice(first, first + rows)


def _filtered(values: Floats, mask: tuple[float, float, float], lags: tuple[int, ...]) -> Floats:
    """Return values weighted by a mask of three along each axis."""
    for axis, lag in enumerate(lags):
        if lag:
            lines = np.moveaxis(values, axis, 0)
            a, b, c = lines[: -2 * lag], lines[lag:-lag], lines[2 * lag :]
            values = np.moveaxis(mask[0] * a + mask[1] * b + mask[2] * c, 0, axis)
    return values


def _only(axis: int, lags: tuple[int, ...]) -> tuple[int, ...]:
    """Return the lags along one axis alone."""
    return tuple(lag if n == axis else 0 for n, lag in enumerate(lags))


def _inner(values: Floats, way: tuple[int, ...], lags: tuple[int, ...]) -> Floats:
    """Return values without the margins of the axes that a way does not look along."""
    margins = [lag if lag and not step else 0 for step, lag in zip(way, lags, strict=True)]
    return values[tuple(slice(margin or None, -margin or None) for margin in margins)]


def _squared(values: Floats, way: tuple[int, ...], lags: tuple[int, ...]) -> Floats:
    """Return squared second differences along the axes of a way, in variances."""
    power = MASK_POWER ** sum(step > 0 for step in way)
    return np.square(_filtered(_inner(values, way, lags), MASK, way)) / power


@dataclass(frozen=True, eq=False)
class Samples:
    """Squared differences of a stack, and the light that each is of.

    Parameters
    ----------
    squares, levels : ndarray of float32, shape [N]
        Squared differences in variances, and light by which their variance goes.
    shares : ndarray of float32, shape [N]
        Share of voxels at the lowest value there.
    order : ndarray of int, shape [N]
        What sorts them into bins: by the mean of the voxels that a difference is of. That of normal
        noise has nothing to do with the difference, and that of photons lies on the same line.
    """

    squares: NDArray[np.float32]
    levels: NDArray[np.float32]
    shares: NDArray[np.float32]
    order: NDArray[np.int64]

    @classmethod
    def of(
        cls, known: NDArray[Any], level: NDArray[Any] | None, lowest: Any, *, lag: int, most: int
    ) -> Samples:
        """Return those of a stack, or of what a fit leaves of it.

        Parameters
        ----------
        known : ndarray, shape [Z, Y, X]
            The stack's voxels, in raw intensity as they were recorded.
        level : ndarray of the same shape or None
            The light that a fit has there; None takes that of the voxels themselves.
        lowest : number
            The stack's lowest value, from which `levels` count.
        lag : int
            Voxels from one to the next in a difference, as for `second_differences`.
        most : int
            Voxels that are looked at, about: of a larger stack, parts that are evenly spread.

        Returns
        -------
        Samples
            Empty where the stack is too small for differences.
        """
        lags = _lags(known.shape, lag)
        # Of what a fit leaves, which holds hardly any structure, along one axis after the other:
        # these know the same variance to two fifths of the error.
        ways = [lags] if level is None else [_only(axis, lags) for axis in range(3) if lags[axis]]
        parts: list[tuple[NDArray[np.float32], ...]] = [(np.zeros(0, np.float32),) * 4]
        for some in _parts(known.shape, lags, most) if any(lags) else ():
            # Less the lowest: beside an offset, the single precision of what is kept loses them.
            voxels = known[some].astype(np.float64) - float(lowest)
            light = voxels if level is None else level[some].astype(np.float64) - float(lowest)
            rest = voxels if level is None else voxels - light
            found = (
                sum(_squared(rest, way, lags) for way in ways) / len(ways),
                # Whose variance the square has: MASK^2 / 6.
                sum(_filtered(_inner(light, way, lags), OWN, way) for way in ways) / len(ways),
                _filtered((voxels == 0).astype(np.float64), MEAN, lags),
                _filtered(light, MEAN, lags),
            )
            parts.append(tuple(np.asarray(one, np.float32).ravel() for one in found))
        squares, levels, shares, means = map(np.concatenate, zip(*parts, strict=True))
        return cls(squares, levels, shares, order_of(means))

    def binned(self) -> tuple[Floats, Floats, Floats, Floats]:
        """Return levels, variances, shares and counts [B] of bins, from dark to bright."""
        size = len(self.order)
        cuts = [int(size * (1 - 2 ** (-n / OCTAVE))) for n in range(64 * OCTAVE)]
        parts = [self.order[a:b] for a, b in itertools.pairwise(cuts) if b - a >= LEAST_VOXELS] or [
            self.order
        ]
        mean = partial(np.mean, dtype=np.float64)
        found = [
            (mean(self.levels[p]), _clipped_mean(self.squares[p]), mean(self.shares[p]), len(p))
            for p in parts
        ]
        levels, variances, shares, counts = np.array(found, np.float64).T
        return levels, variances, shares, counts


def order_of(values: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return what sorts values, of equal ones the first first.

    Value and place in one whole number, which NumPy sorts with vectors: a stable sort of places
    takes four times as long.

    Parameters
    ----------
    values : ndarray of float32, shape [N]
        What is sorted; none of it NaN.

    Returns
    -------
    ndarray of int, shape [N]
        Their places, the least first.
    """
    bits = (values + np.float32(0.0)).view(np.uint32)  # of -0 and 0 the same
    negative = bits >> np.uint32(31) == 1
    rising = np.where(negative, ~bits, bits | np.uint32(1 << 31)).astype(np.uint64)
    keys = rising << np.uint64(32) | np.arange(len(values), dtype=np.uint64)
    keys.sort()
    return (keys & np.uint64(2**32 - 1)).astype(np.int64)


Bins = tuple["Floats", "Floats", "Floats", "Floats"]


def _clipped_mean(squares: NDArray[np.float32]) -> float:
    """Return the mean of squares of a normal distribution, without those too large to be of it."""
    mean = float(squares.mean(dtype=np.float64))
    for _ in range(5):
        mean = float(squares[squares <= CLIPPED**2 * mean].mean(dtype=np.float64))
    return mean
