"""What voxels tell before any fit: background, noise, how many Gaussians they ask for."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Volume = NDArray[np.float32]


SMOOTHING = (0.7, 1.0, 1.0)
"""Sigmas in voxels (z, y, x) of what noise is smoothed by before seeds are drawn."""


SAMPLES = 200_000
"""Voxels that statistics of a large stack are taken from."""


SUGGESTION_VOXELS = 25.0
"""Voxels with signal for each Gaussian that `suggested_count` allows."""


SUGGESTION_LIMITS = (50, 20_000)


NARROWEST = 0.7
"""Sigma of a seed in voxel spacings at least."""


WIDEST_PEAK = 4.0
"""Sigma of a local maximum in voxel spacings at most, as its curvature says."""


def smoothed(signal: Volume) -> Volume:
    """Return a volume [Z, Y, X] smoothed by about a voxel, against noise.

    Parameters
    ----------
    signal : ndarray, shape [Z, Y, X]
        Voxel intensities, in any unit.

    Returns
    -------
    ndarray, shape [Z, Y, X]
        In float32.
    """
    from scipy.ndimage import gaussian_filter1d

    from napari_gaussfit._threads import run_along_axes

    def smooth(volume: Volume, *, axis: int, output: Volume) -> None:
        gaussian_filter1d(volume, SMOOTHING[axis], axis, output=output)

    result = np.empty(signal.shape, np.float32)
    run_along_axes(smooth, signal, result)
    return result


def estimate_background(voxels: ArrayLike) -> tuple[float, float]:
    """Return a first guess of background and noise in raw intensity.

    The background is the mode of the smoothed stack, by half-samples (Bickel and Fruehwirth,
    2006); the noise, of the smoothed stack too, the robust deviation of what lies below it.

    Parameters
    ----------
    voxels : array-like, shape [Z, Y, X]
        The stack's voxels, in raw intensity.

    Returns
    -------
    background : float
        The mode.
    noise : float
        Its standard deviation.
    """
    return background_of(smoothed(np.asarray(voxels, np.float32)))


def background_of(smooth: Volume) -> tuple[float, float]:
    """Return what `estimate_background` does, of a stack that is smoothed already.

    Parameters
    ----------
    smooth : ndarray, shape [Z, Y, X]
        Voxel intensities as `smoothed` returns them.

    Returns
    -------
    background, noise : float
        The mode of the voxels and the standard deviation of the noise, as `estimate_background`
        returns them.
    """
    calm = smooth.reshape(-1)
    values = np.sort(calm[:: max(1, calm.size // SAMPLES)]).astype(np.float64)
    below = values
    while len(values) > 3:
        half = (len(values) + 1) // 2
        start = int(np.argmin(values[half - 1 :] - values[: len(values) - half + 1]))
        values = values[start : start + half]
    mode = float(values.mean())
    below = below[below <= mode]
    noise = 1.4826 * float(np.median(mode - below)) if len(below) else 0.0
    return mode, noise


def suggested_count(voxels: ArrayLike) -> int:
    """Return how many Gaussians a stack asks for, by the volume of its signal.

    Counts voxels above the background by five sigmas of the noise and by a twentieth of the
    brightest thousandth.

    Parameters
    ----------
    voxels : array-like, shape [Z, Y, X]
        The stack's voxels, in raw intensity.

    Returns
    -------
    int
        Within `SUGGESTION_LIMITS`.
    """
    smooth = smoothed(np.asarray(voxels, np.float32))
    background, noise = background_of(smooth)
    signal = smooth - background
    bright = float(np.quantile(signal.reshape(-1)[:: max(1, signal.size // SAMPLES)], 0.999))
    threshold = max(5 * noise, 0.05 * bright)
    count = round(float((signal > threshold).sum()) / SUGGESTION_VOXELS)
    return int(np.clip(count, *SUGGESTION_LIMITS))


def peak_widths(calm: Volume, peaks: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the sigmas [P, 3], in voxels, of Gaussians with the curvature of local maxima.

    Along an axis the logarithm of a Gaussian is a parabola of curvature -1 / sigma^2; the
    smoothing's own variance is taken off.

    Parameters
    ----------
    calm : ndarray, shape [Z, Y, X]
        Voxel intensities as `smoothed` returns them.
    peaks : ndarray of int, shape [P, 3]
        Indices (z, y, x) of the local maxima of `calm`.

    Returns
    -------
    ndarray, shape [P, 3]
        Along z, y, x, before the smoothing.
    """
    # A given background may be above all of the signal.
    floor = max(1e-6 * float(calm.max()), float(np.finfo(np.float32).tiny))
    middle = np.log(np.maximum(calm[tuple(peaks.T)], floor))
    widths = np.empty(peaks.shape)
    for axis in range(3):
        bend = np.zeros(len(peaks))
        for side in (-1, 1):
            beside = peaks.copy()
            beside[:, axis] += side
            # Beyond a face the neighbour is the mirrored one.
            outside = (beside[:, axis] < 0) | (beside[:, axis] >= calm.shape[axis])
            beside[outside, axis] -= 2 * side
            bend += middle - np.log(np.maximum(calm[tuple(beside.T)], floor))
        variance = 1 / np.maximum(bend, 1 / WIDEST_PEAK**2) - SMOOTHING[axis] ** 2
        widths[:, axis] = np.sqrt(np.maximum(variance, NARROWEST**2))
    return widths


def summits(calm: Volume, sites: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the brightest voxels within one of positions.

    Where a person clicked, a maximum is near; its curvature tells the width, that beside it not.

    Parameters
    ----------
    calm : ndarray, shape [Z, Y, X]
        Voxel intensities as `smoothed` returns them.
    sites : ndarray, shape [P, 3]
        Positions (z, y, x) in voxels, as a person clicked them.

    Returns
    -------
    ndarray of int, shape [P, 3]
        In voxels.
    """
    around = np.array(list(itertools.product((-1, 0, 1), repeat=3)))
    last = np.array(calm.shape) - 1
    near = np.clip(np.rint(sites).astype(np.int64)[:, None] + around, 0, last)
    brightest = calm[tuple(np.moveaxis(near, -1, 0))].argmax(1)
    found: NDArray[np.int64] = near[np.arange(len(sites)), brightest]
    return found
