"""A volume smoothed by a Gaussian, and binned, over all threads."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Literal

import numpy as np

from napari_gaussfit._kernels.cpu.smoothing_kernels import (
    mean_boxes,
    smooth_columns,
    smooth_planes,
)
from napari_gaussfit._threads import run_pieces

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Counts = NDArray[np.int64]
    Volume = NDArray[np.float32]
    Beyond = Literal["symmetric", "edge"]

__all__ = ["REACH", "binned", "smoothed"]

REACH = 4.0
"""Sigmas to where a Gaussian ends."""

MIRRORED: Beyond = "symmetric"
"""What lies beyond a face: a level background stays one, and noise there is counted as it is."""


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
