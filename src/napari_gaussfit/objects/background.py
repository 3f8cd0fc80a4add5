"""What of a stack changes over more than spots are wide: the background on which they stand."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from napari_gaussfit._kernels.cpu.smoothing import binned, smoothed
from napari_gaussfit._threads import run_pieces

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_gaussfit.measure.noise import Noise
    from napari_gaussfit.objects.sizes import Sizes

    Floats = NDArray[np.float64]
    Counts = NDArray[np.int64]
    Volume = NDArray[np.float32]
    Shape = tuple[int, int, int]

__all__ = ["background_of"]

T = TypeVar("T", bound=np.generic)

BACKGROUND_WIDTH = 3.0
"""Of the widest spot's: what changes over this is background."""

CLIPPINGS = 4
"""Turns in which what stands above the background is cut from it."""

CLIPPED = 2.0
"""Standard deviations above the background from which it is."""


def background_of(voxels: Volume, sizes: Sizes, noise: Noise) -> Volume:
    """Return a stack's background, which changes over more than the widest spot.

    Parameters
    ----------
    voxels : ndarray, shape [Z, Y, X]
        The stack's intensities, as they were recorded.
    sizes : Sizes
        The least and largest width of a spot that is looked for.
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


def _along(values: NDArray[T], axis: int) -> NDArray[T]:
    """Return values along an axis of three, to be broadcast."""
    return np.expand_dims(values, [a for a in range(3) if a != axis])


def _spread_out(volume: Volume, bins: list[int], shape: Shape) -> Volume:
    """Return a binned volume at all voxels, linear between the middles of boxes."""
    ways = [_between_boxes(*way) for way in zip(shape, bins, volume.shape, strict=True)]
    out = np.empty(shape, np.float32)

    def some(first: int, end: int) -> None:
        for z in range(first, end):
            part = volume
            for axis, (low, high, share) in enumerate(ways):
                own = np.s_[z : z + 1] if axis == 0 else np.s_[:]
                upper = _along(share[own], axis)
                part = part.take(low[own], axis) * (1 - upper) + part.take(high[own], axis) * upper
            out[z] = part[0]

    run_pieces(some, len(out))
    return out


def _between_boxes(length: int, size: int, boxes: int) -> tuple[Counts, Counts, Volume]:
    """Return, for each voxel, the boxes before and after it, and the share of the latter."""
    at = np.clip((np.arange(length) + 0.5) / size - 0.5, 0, boxes - 1)
    low = np.minimum(at.astype(np.int64), max(boxes - 2, 0))
    return low, np.minimum(low + 1, boxes - 1), (at - low).astype(np.float32)
