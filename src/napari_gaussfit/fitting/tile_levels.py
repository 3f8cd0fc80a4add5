"""Where a stack holds light: `Levels`, from a sample of it. Knows neither tiles nor Gaussians."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_gaussfit.stacks.statistics import background_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import DTypeLike, NDArray

    from napari_gaussfit.measure.photon_transfer import PhotonTransfer
    from napari_gaussfit.stacks.lazy import Sample

__all__ = ["Levels"]

BLOCKS = (2, 4)
"""Sides in voxels of the blocks whose means are looked at for light: a spot fills one, a faint haze
many, and noise is less by 3 and by 8."""

CLEAR = 5.5
"""Standard deviations by which a block's mean is above the background where there is light: noise
alone comes there once in 50 million blocks, a hundred tiles."""

FAINTEST = 1e-4
"""Light that is worth a fit, in parts of the stack's range: 80 dB."""


@dataclass(frozen=True)
class Levels:
    """What a sample of a stack tells of where there is no light.

    Parameters
    ----------
    background : float
        Raw intensity where there is no Gaussian.
    thresholds : tuple of float
        Means of blocks, of the sides `BLOCKS`, from which there is light in one.
    words : str
        How the sample was drawn.
    """

    background: float
    thresholds: tuple[float, ...]
    words: str

    @classmethod
    def of(cls, sample: Sample, curve: PhotonTransfer, background: float | None = None) -> Levels:
        """Estimate the background, and by how much blocks of it vary.

        Parameters
        ----------
        sample : Sample
            The voxels that were read to judge the whole stack by.
        curve : PhotonTransfer
            The variance of these voxels' noise against their light.
        background : float, optional
            Raw intensity, where it is known.
        """
        level = background_of(sample.smoothed())[0] if background is None else background
        gain = 0.0 if curve.line is None else curve.line.gain
        lowest, highest = sample.value_range
        found = [[means.reshape(-1) for means in _block_means(box)] for box in sample.boxes]
        thresholds: list[float] = []
        for several in zip(*found, strict=True):
            means = np.concatenate(several)
            below = means[means <= level]
            deviation = 1.4826 * float(np.median(level - below)) if len(below) else 0.0
            # Few photons are not normal: the tail of Cornish and Fisher (1938), to third order.
            photons = gain / BLOCKS[len(thresholds)] ** 3 * (CLEAR**2 - 1) / 6
            least = FAINTEST * (highest - lowest)
            thresholds.append(level + max(CLEAR * deviation + photons, least))
        return cls(float(level), tuple(thresholds), sample.words)

    def look(self, voxels: NDArray[np.generic]) -> tuple[bool, NDArray[np.floating[Any]]]:
        """Tell whether a part of the stack holds more than background.

        Parameters
        ----------
        voxels : ndarray, shape [Z, Y, X]
            The stack's intensities, as they were recorded.

        Returns
        -------
        bool
            Whether it does.
        ndarray
            Means of its blocks of the largest side of `BLOCKS`.
        """
        means: NDArray[np.floating[Any]] = np.empty(0)
        light = False
        for means, most in zip(_block_means(voxels), self.thresholds, strict=True):
            light = light or float(means.max()) > most
        return light, means

    def lit(self, voxels: NDArray[np.generic]) -> int:
        """Return how large a part of the stack stands out of the noise.

        Parameters
        ----------
        voxels : ndarray, shape [Z, Y, X]
            The stack's intensities, as they were recorded.

        Returns
        -------
        int
            Voxels of all blocks that do, of either side.
        """
        blocks = zip(BLOCKS, _block_means(voxels), self.thresholds, strict=True)
        return sum(side**3 * int(np.count_nonzero(means > most)) for side, means, most in blocks)

    def hold_light(self, voxels: NDArray[np.generic]) -> bool:
        """Tell the same, and no more.

        Parameters
        ----------
        voxels : ndarray, shape [Z, Y, X]
            The stack's intensities, as they were recorded.
        """
        return self.look(voxels)[0]


def _block_means(voxels: NDArray[np.generic]) -> Iterator[NDArray[np.floating]]:
    """Yield the means of blocks of a volume, of each of the sides `BLOCKS`."""
    wide = {"u1": np.uint32, "u2": np.uint32, "f4": np.float32}.get(
        voxels.dtype.str[1:], np.float64
    )
    sums, count = voxels, 1
    for _ in BLOCKS:
        for axis in range(3):
            sums = _pair_sums(sums, axis, wide)
        count *= 8
        yield np.divide(sums, np.float32(count))


def _pair_sums(values: NDArray[Any], axis: int, dtype: DTypeLike) -> NDArray[Any]:
    """Return sums of neighbours along an axis; of an odd number, the last is in two pairs."""
    lines = np.moveaxis(values, axis, 0)
    if len(lines) == 1:
        lines = np.concatenate([lines, lines])
    even = len(lines) // 2 * 2
    sums = np.add(lines[0:even:2], lines[1:even:2], dtype=dtype)
    if even < len(lines):
        sums = np.concatenate([sums, np.add(lines[-2:-1], lines[-1:], dtype=dtype)])
    return np.moveaxis(sums, 0, axis)
