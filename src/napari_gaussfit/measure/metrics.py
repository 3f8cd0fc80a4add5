"""How close an estimate comes to what was recorded.

Knows arrays only: what a voxel, a view or a fit is, the caller knows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_gaussfit.errors import SettingsError
from napari_gaussfit.measure.differences import second_differences

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

__all__ = ["noise_leaves", "noise_psnr", "psnr", "ssim"]

_SSIM_WINDOW = 7
"""Pixels a side of the window that SSIM compares; scikit-image's default."""

_AT_ONCE = 2**20
"""Elements that are compared together."""


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
    it describes noise. The noise is that of `second_differences`: structure as fine as a
    voxel counts as noise, which gives too low a figure; noise that was smoothed away from the
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
    total, count = 0.0, 0
    for _, squares in second_differences(np.asarray(voxels)):
        total += float(squares.sum())
        count += squares.size
    return _decibels(total / count, value_range) if count else np.inf


def noise_leaves(psnr: float | None, digits: int = 1) -> str:
    """Say behind a PSNR what the noise leaves to reach.

    Parameters
    ----------
    psnr : float or None
        In dB; NaN or None where it is not known.
    digits : int, default 1
        Digits after the decimal point.

    Returns
    -------
    str
        In brackets, after a space; empty where it is not known.
    """
    known = psnr is not None and not np.isnan(psnr)
    return f" (noise leaves {psnr:.{digits}f})" if known else ""


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
