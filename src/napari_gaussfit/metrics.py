"""How close an estimate comes to what was recorded.

Knows arrays only: what a voxel, a view or a fit is, the caller knows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_gaussfit.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

__all__ = ["noise_psnr", "psnr", "ssim"]

_SSIM_WINDOW = 7
"""Pixels a side of the window that SSIM compares; scikit-image's default."""

_AT_ONCE = 2**20
"""Elements that are compared together."""

_MASK, _MASK_POWER = 3, 6
"""Voxels of the mask (1, -2, 1) of a second difference, and the sum of its squares."""


def psnr(
    reference: ArrayLike,
    estimate: ArrayLike,
    value_range: tuple[float, float],
    where: NDArray[np.bool_] | None = None,
) -> float:
    """Return the peak signal-to-noise ratio 10 log10(range^2 / MSE).

    Parameters
    ----------
    reference, estimate : array-like, of one shape
        Intensities; computed in float64, never clipped.
    value_range : tuple of float
        The smallest and the largest intensity of the raw stack (`Stack.value_range`), for its
        voxels and its projections alike.
    where : array of bool, of the same shape, optional
        Which ones count. Of a projection, only pixels whose rays cross the stack's box should:
        empty surroundings flatter it.

    Returns
    -------
    float
        In dB; infinite where both are the same.

    Raises
    ------
    SettingsError
        If nothing counts, or the shapes differ.
    """
    known, found = np.atleast_1d(reference), np.atleast_1d(estimate)
    _check_shapes(known, found)
    counts = (
        np.broadcast_to(np.ones((), bool), known.shape) if where is None else np.atleast_1d(where)
    )
    total, count = 0.0, int(np.count_nonzero(counts))
    if not count:
        raise SettingsError("where chooses no pixel; a PSNR needs one or more")
    # Piece by piece: of a large stack, a copy in float64 would be the largest thing in memory.
    planes = _planes_at_once(known)
    for first in range(0, len(known), planes):
        some = slice(first, first + planes)
        difference = found[some].astype(np.float64) - known[some]
        total += float(np.square(difference)[counts[some]].sum())
    return _decibels(total / count, value_range)


def noise_psnr(voxels: ArrayLike, value_range: tuple[float, float]) -> float:
    """Return the PSNR that a noisy stack has against what was recorded without its noise.

    A field that describes the structure and none of the noise has this voxel PSNR; one well above
    it describes noise. Second differences along all axes leave next to nothing of a structure
    that the optics have blurred, and of independent noise 6 times its variance for each axis
    (Immerkaer, "Fast noise variance estimation", 1996, in three dimensions). Structure as fine as
    a voxel counts as noise, which gives too low a figure; noise that was smoothed away from the
    stack's finest detail does not count, which gives too high a one.

    Parameters
    ----------
    voxels : array-like, shape [Z, Y, X]
        Raw intensity. An axis shorter than three voxels is not looked along.
    value_range : tuple of float
        The smallest and the largest intensity of the raw stack (`Stack.value_range`).

    Returns
    -------
    float
        In dB; infinite where there is no noise.
    """
    known = np.asarray(voxels)
    axes = [axis for axis, length in enumerate(known.shape) if length >= _MASK]
    planes = _planes_at_once(known)
    overlap = _MASK - 1 if 0 in axes else 0
    total, count = 0.0, 0
    for first in range(0, len(known) - overlap, planes):
        rest = known[first : first + planes + overlap].astype(np.float64)
        for axis in axes:
            rest = np.diff(rest, n=_MASK - 1, axis=axis)
        total += float(np.square(rest).sum())
        count += rest.size
    return _decibels(total / count / _MASK_POWER ** len(axes), value_range) if axes else np.inf


def ssim(reference: ArrayLike, estimate: ArrayLike, value_range: tuple[float, float]) -> float:
    """Return the mean structural similarity, scikit-image's with its defaults.

    Parameters
    ----------
    reference, estimate : array-like, of one shape
        Intensities of an image or of a volume. An axis shorter than the window of 7 is
        continued by its last pixel.
    value_range : tuple of float
        The smallest and the largest intensity of the raw stack (`Stack.value_range`).

    Returns
    -------
    float
        1 where both are the same.

    Raises
    ------
    SettingsError
        If the shapes differ.
    """
    from skimage.metrics import structural_similarity

    similarity: Callable[..., Any] = structural_similarity
    known, found = _checked(reference, estimate)
    short = [(0, max(0, _SSIM_WINDOW - length)) for length in known.shape]
    lowest, highest = value_range
    return float(
        similarity(
            np.pad(known, short, mode="edge"),
            np.pad(found, short, mode="edge"),
            win_size=_SSIM_WINDOW,
            data_range=highest - lowest,
        )
    )


def _planes_at_once(known: NDArray[Any]) -> int:
    """Return how many of an array's planes hold about `_AT_ONCE` elements."""
    return max(1, _AT_ONCE // max(1, int(known[0].size)))


def _decibels(error: float, value_range: tuple[float, float]) -> float:
    """Return the PSNR of a mean square error."""
    if error == 0:
        return float("inf")
    lowest, highest = value_range
    return float(10 * np.log10((highest - lowest) ** 2 / error))


def _checked(
    reference: ArrayLike, estimate: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return both in float64, in which differences of unsigned integers are right."""
    known = np.asarray(reference, dtype=np.float64)
    found = np.asarray(estimate, dtype=np.float64)
    _check_shapes(known, found)
    return known, found


def _check_shapes(known: NDArray[Any], found: NDArray[Any]) -> None:
    if known.shape != found.shape:
        raise SettingsError(
            f"estimate has shape {found.shape}, expected that of the reference, {known.shape}"
        )
