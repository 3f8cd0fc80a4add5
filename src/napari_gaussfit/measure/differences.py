"""Second differences of voxels: noise, for next to nothing of blurred structure is left in them."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_gaussfit._threads import run_pieces

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Lags = tuple[int, int, int]

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

LEAST_PIECE = 2**16
"""Voxels that are worth to wake a thread for."""


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
        yield some, _squared(voxels[some].astype(np.float64), lags)


def _lags(shape: tuple[int, ...], lag: int) -> Lags:
    """Return how far apart voxels are compared along each axis; 0 along one that is too short."""
    z, y, x = (min(lag, (length - 1) // 2) for length in shape)
    return z, y, x


def _slabs(shape: tuple[int, ...], lags: Lags) -> Iterator[slice]:
    """Yield planes to look at together, with those that they overlap; of a large stack not all."""
    plane = max(1, int(np.prod(shape[1:])))
    planes, overlap = max(1, AT_ONCE // plane), 2 * lags[0]
    starts = list(range(0, shape[0] - overlap, planes))
    most = max(1, MOST_VOXELS // (plane * planes))
    for first in starts[:: -(-len(starts) // most)]:
        yield slice(first, min(first + planes + overlap, shape[0]))


def _parts(shape: tuple[int, ...], lags: Lags, most: int) -> Iterator[tuple[slice, slice]]:
    """Yield planes and rows of them to look at together: all rows, or a band that wanders down."""
    slabs = list(_slabs(shape, lags))
    looked = sum(slab.stop - slab.start - 2 * lags[0] for slab in slabs) * shape[1] * shape[2]
    rows = max(math.ceil(shape[1] * min(1.0, most / max(looked, 1))), 4 * lags[1], 1)
    firsts = np.linspace(0, max(shape[1] - rows, 0), len(slabs) + 2)[1:-1].astype(np.int64)
    for planes, first in zip(slabs, firsts.tolist(), strict=True):
        yield planes, slice(first, first + rows)


def _filtered(values: Floats, mask: tuple[float, float, float], lags: Lags) -> Floats:
    """Return values weighted by a mask of three along each axis."""
    for axis, lag in enumerate(lags):
        if lag:
            lines = np.moveaxis(values, axis, 0)
            a, b, c = lines[: -2 * lag], lines[lag:-lag], lines[2 * lag :]
            values = np.moveaxis(mask[0] * a + mask[1] * b + mask[2] * c, 0, axis)
    return values


def _squared(values: Floats, lags: Lags) -> Floats:
    """Return squared second differences along all axes, in variances."""
    power = MASK_POWER ** sum(lag > 0 for lag in lags)
    return np.square(_filtered(values, MASK, lags)) / power


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
        cls,
        known: NDArray[Any],
        level: NDArray[Any] | None,
        lowest: Any,
        *,
        lag: int,
        most: int,
        alone: bool = False,
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
        alone : bool, default False
            Whether the squares are all that is asked for: levels and shares are empty.

        Returns
        -------
        Samples
            Empty where the stack is too small for differences.
        """
        lags = _lags(known.shape, lag)
        parts: list[_Found] = [(np.zeros(0, np.float32),) * 4]
        for some in _parts(known.shape, lags, most) if any(lags) else ():
            # Less the lowest: beside an offset, the single precision of what is kept loses them.
            voxels = known[some].astype(np.float64, order="C") - float(lowest)
            if level is None:
                found = _of_voxels(voxels, lags, alone=alone)
            else:
                light = level[some].astype(np.float64, order="C") - float(lowest)
                found = _of_rest(voxels, light, lags, alone=alone)
            parts.append(found)
        squares, means, levels, shares = (
            np.concatenate([one.ravel() for one in alike]) for alike in zip(*parts, strict=True)
        )
        return cls(squares, levels, shares, order_of(means))

    def binned(self) -> tuple[Floats, Floats, Floats, Floats]:
        """Return levels, variances, shares and counts [B] of bins, from dark to bright."""
        variances, counts = self.variances()
        levels, shares = (
            np.array([one[part].mean(dtype=np.float64) for part in self._bins()])
            for one in (self.levels, self.shares)
        )
        return levels, variances, shares, counts

    def variances(self) -> tuple[Floats, Floats]:
        """Return variances and counts [B] of bins, from dark to bright."""
        found = [(_clipped_mean(self.squares[part]), len(part)) for part in self._bins()]
        variances, counts = np.array(found, np.float64).T
        return variances, counts

    def _bins(self) -> list[NDArray[np.int64]]:
        size = len(self.order)
        cuts = [int(size * (1 - 2 ** (-n / OCTAVE))) for n in range(64 * OCTAVE)]
        parts = [self.order[a:b] for a, b in itertools.pairwise(cuts) if b - a >= LEAST_VOXELS]
        return parts or [self.order]


_Found = tuple["NDArray[np.float32]", ...]
"""Squares, means of all voxels that they are of, light, and shares of voxels at the lowest value;
these two are empty where nobody asks for them."""


def _of_voxels(voxels: Floats, lags: Lags, *, alone: bool) -> _Found:
    """Return what is found of voxels, which are 0 at the lowest value."""
    found = [_squared(voxels, lags), _filtered(voxels, MEAN, lags)]
    if not alone:
        # Whose variance the square has: MASK^2 / 6.
        found.append(_filtered(voxels, OWN, lags))
        found.append(_filtered((voxels == 0).astype(np.float64), MEAN, lags))
    nothing = np.zeros(0, np.float32)
    return (*(one.astype(np.float32) for one in found), *(nothing,) * (4 - len(found)))


def _of_rest(voxels: Floats, light: Floats, lags: Lags, *, alone: bool) -> _Found:
    """Return what is found of that which a fit's light leaves of voxels.

    It holds hardly any structure. Along one axis after the other, differences know the same
    variance to two fifths of the error.
    """
    from napari_gaussfit._kernels.cpu.noise_kernels import filter_all_axes, filter_each_axis

    shape = [size - 2 * lag for size, lag in zip(voxels.shape, lags, strict=True)]
    squares, means = np.empty(shape, np.float32), np.empty(shape, np.float32)
    levels, shares = (np.empty([0] * 3 if alone else shape, np.float32) for _ in range(2))
    rest = voxels - light
    dark = voxels[:0] if alone else (voxels == 0).astype(np.float64)

    def some(first: int, end: int) -> None:
        filter_each_axis(rest, lags, MASK, MASK_POWER, squares, first, end)
        filter_all_axes(light, lags, MEAN, means, first, end)
        if not alone:
            filter_each_axis(light, lags, OWN, 0.0, levels, first, end)
            filter_all_axes(dark, lags, MEAN, shares, first, end)

    run_pieces(some, shape[0], least=-(-LEAST_PIECE // (shape[1] * shape[2])))
    return squares, means, levels, shares


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
    bits = (values + np.float32(0.0)).view(np.int32)  # of -0 and 0 the same
    # That of whole numbers without a sign: all bits of negative values turned, of others the first.
    bits ^= (bits >> np.int32(31)) | np.int32(-(2**31))
    keys = bits.view(np.uint32).astype(np.uint64)
    keys <<= np.uint64(32)
    keys |= np.arange(len(values), dtype=np.uint64)
    keys.sort()
    keys &= np.uint64(2**32 - 1)
    return keys.view(np.int64)


Bins = tuple["Floats", "Floats", "Floats", "Floats"]


def _clipped_mean(squares: NDArray[np.float32]) -> float:
    """Return the mean of squares of a normal distribution, without those too large to be of it."""
    mean = float(squares.mean(dtype=np.float64))
    for _ in range(5):
        before = mean
        mean = float(squares[squares <= CLIPPED**2 * mean].mean(dtype=np.float64))
        if mean == before:
            break
    return mean
