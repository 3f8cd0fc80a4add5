"""What voxels tell before any fit: background, noise, how many Gaussians they ask for."""

from __future__ import annotations

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


def smoothed(signal: Volume) -> Volume:
    """Return a volume [Z, Y, X] smoothed by about a voxel, against noise.

    Parameters
    ----------
    signal : ndarray, shape [Z, Y, X]
        Any intensities.

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
        In raw intensity.

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
        See `smoothed`.

    Returns
    -------
    background, noise : float
        As there.
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
        In raw intensity.

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
