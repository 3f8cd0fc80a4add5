"""By how much a recording has drifted from one time to the next."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any
from weakref import ref

import numpy as np
from numpy.fft import fftfreq, rfftfreq

from napari_gaussfit._threads import in_one_blas_thread
from napari_gaussfit.stacks.statistics import SMOOTHING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_gaussfit.stacks.stack import Stack

    Floats = NDArray[np.float64]
    Volume = NDArray[np.float32]
    Waves = NDArray[np.complex64]
    Compared = tuple[tuple[Volume, Waves], NDArray[np.int64]]
    """A volume, its half spectrum, and voxels along z, y, x that are one of its."""

__all__ = ["drift_between"]

FINEST, AROUND = 10, 7
"""Parts of a voxel to which a drift is told, and how many of them to the sides of the voxel where
the correlation is largest are looked at."""

MOST_VOXELS = 2**22
"""Of the volumes that are compared: larger ones are binned, which costs as much precision."""

LARGEST = 0.25
"""Of the stack along each axis, by which it may drift: what is left to compare is most of it."""


LEAST = 25.0
"""Of a correlation that is no chance, times the root of the number of voxels: of noise, smoothed
as it is here, the largest of all shifts' is up to 12; of faint spots it is 200."""


def drift_between(before: Sequence[Stack], after: Sequence[Stack]) -> Floats:
    """Return by how much all that a stack shows has moved since the time before.

    By the peak of the cross-correlation, to a tenth of a voxel (M. Guizar-Sicairos and co-authors,
    Opt. Lett. 33 (2008) 156); none where the two stacks are no more alike then than noise is.

    Parameters
    ----------
    before, after : sequence of Stack
        The channels of a recording at two times.

    Returns
    -------
    ndarray, shape [3]
        z, y, x in the stacks' unit.
    """
    (old, waves_before), bins = _remembered(before)
    (new, waves), _ = _remembered(after)
    moved = _peak(waves * waves_before.conj(), old.shape)
    found = np.where(np.abs(moved) <= LARGEST * np.array(old.shape), moved, 0.0)
    if _likeness(old, new, np.rint(found).astype(np.int64)) < LEAST / math.sqrt(old.size):
        return np.zeros(3)
    drift: Floats = found * bins * np.asarray(before[0].spacing)
    return drift


def _peak(waves: Waves, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return where a correlation is largest, in voxels, of which that is a half spectrum."""
    from scipy.fft import irfftn

    correlation = irfftn(waves, shape)
    sides = np.array(shape)
    top = np.array(np.unravel_index(int(np.argmax(correlation)), shape))
    top -= np.where(top > sides // 2, sides, 0)
    near = np.arange(-AROUND, AROUND + 1) / FINEST
    with in_one_blas_thread():
        fine: NDArray[Any] = waves
        for axis in (2, 1, 0):
            # The axis that is summed is the last, and becomes the first.
            fine = np.tensordot(
                _phases(shape[axis], top[axis] + near, half=axis == 2), fine, (1, -1)
            )
    best = np.unravel_index(int(np.argmax(fine.real)), fine.shape)
    found: NDArray[np.float32] = np.add(top, np.subtract(best, AROUND) / FINEST, dtype=np.float32)
    return found


def _phases(length: int, at: Floats, *, half: bool) -> Waves:
    """Return what each wave along an axis counts at places [n], of half of them twice."""
    waves = rfftfreq(length) if half else fftfreq(length)
    phases: NDArray[np.complex128] = np.exp(2j * np.pi * np.multiply.outer(at, waves))
    if half:
        phases *= np.where((waves == 0) | (waves == 0.5), 1, 2)
    return phases.astype(np.complex64)


def _remembered(stacks: Sequence[Stack]) -> Compared:
    """Return what is compared of stacks; of those that were the later time before, it is known."""
    global _last  # noqa: PLW0603 - one time alone: more would fill the memory
    if _last is None or [one() for one in _last[0]] != [*stacks]:
        _last = [ref(one) for one in stacks], _compared(stacks)
    return _last[1]


_last: tuple[list[ref[Stack]], Compared] | None = None


def _compared(stacks: Sequence[Stack]) -> Compared:
    """Return what is above the median of all channels together, and the voxels binned to one."""
    from scipy.fft import rfftn
    from skimage.measure import block_reduce

    from napari_gaussfit._kernels.cpu.smoothing import smoothed

    total: Volume = np.zeros(stacks[0].shape, np.float32)
    for stack in stacks:
        calm = smoothed(np.ascontiguousarray(stack.voxels, np.float32), SMOOTHING)
        low, high = np.percentile(calm, (50, 99.9))
        if high > low:
            total += np.clip(calm - np.float32(low), 0, None) / np.float32(high - low)
    bins = np.ones(3, np.int64)
    while np.prod(np.array(total.shape) // bins) > MOST_VOXELS:
        bins[int(np.argmax(np.array(total.shape) / bins))] *= 2
    if bins.max() > 1:
        binned = block_reduce(total, tuple(bins), np.mean)  # type: ignore[no-untyped-call]
        total = binned.astype(np.float32)
    return (total, rfftn(total)), bins


def _likeness(old: Volume, new: Volume, by: NDArray[np.int64]) -> float:
    """Return the correlation where both are, the old one moved by whole voxels; 0 of nothing."""
    sides = list(zip(by.tolist(), old.shape, strict=True))
    here = new[tuple(slice(max(0, n), size + min(0, n)) for n, size in sides)]
    there = old[tuple(slice(max(0, -n), size + min(0, -n)) for n, size in sides)]
    products = [float(np.mean(a * b) - a.mean() * b.mean()) for a, b in
                ((here, there), (here, here), (there, there))]  # fmt: skip
    both, *own = products
    return both / math.sqrt(own[0] * own[1]) if min(own) > 0 else 0.0
