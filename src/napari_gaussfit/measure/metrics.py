"""How close an estimate comes to what was recorded.

Knows arrays only: what a voxel, a view or a fit is, the caller knows.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_gaussfit._threads import run_pieces
from napari_gaussfit.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

__all__ = ["draw_noise", "noise_psnr", "psnr", "ssim"]

_SSIM_WINDOW = 7
"""Pixels a side of the window that SSIM compares; scikit-image's default."""

_AT_ONCE = 2**20
"""Elements that are compared together."""

_CLASSES = 12
"""Classes of intensity in which noise is estimated: the last holds a 4,096th of the voxels."""

_CLASS = 32
"""Voxels of a class at least: of fewer the variance is known to less than a quarter, and one that
is small by chance would count for more than all others."""

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


def draw_noise(
    voxels: ArrayLike, estimate: ArrayLike, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Return a draw of noise like a stack's, by what is estimated to be there.

    Its variance is a straight line over the estimate, the photon-transfer curve (Janesick, "Photon
    Transfer", 2007): what the estimate leaves is looked at through second differences, as in
    `noise_psnr`, in classes of the estimate that each hold half as many voxels as the one below, so
    that what is bright and rare has a say. As far as it grows with the estimate, it is that of
    photons, and as skew as theirs (the first terms of Cornish and Fisher's expansion, 1938).

    Parameters
    ----------
    voxels : array-like, shape [Z, Y, X]
        Raw intensity.
    estimate : array-like, shape [Z, Y, X]
        Of the same without noise.
    rng : numpy.random.Generator
        Source of the draw.

    Returns
    -------
    ndarray of float32, shape [Z, Y, X]
        In raw intensity; its mean is 0.
    """
    known, level = np.asarray(voxels), np.asarray(estimate, np.float32)
    lowest, least, gain = map(np.float32, _photon_transfer(known, level))
    noise = np.empty(level.shape, np.float32)
    sources = rng.spawn(len(level))  # one a plane: the draw is the same in any number of threads

    def draw(first: int, end: int) -> None:
        # Plane by plane: beside a large stack there is no room for what comes between.
        for z in range(first, end):
            normal = sources[z].standard_normal(level[z].shape, dtype=np.float32)
            deviation = np.sqrt((least + gain * (level[z] - lowest)).clip(0))
            noise[z] = deviation * normal + gain / np.float32(6) * (np.square(normal) - 1)

    run_pieces(draw, len(level))
    return noise


def _photon_transfer(known: NDArray[Any], level: NDArray[np.float32]) -> tuple[float, float, float]:
    """Return a low level, the noise's variance there, and by how much it grows with the level.

    Without an axis of three voxels nothing tells noise from structure, and there is none.
    """
    squares, levels = _differences(known, level)
    if not squares.size:
        return float(level.min()), 0.0, 0.0
    order = np.argsort(levels)
    squares, levels = squares[order], levels[order]
    cuts = np.cumsum(order.size // 2 ** np.arange(1, _CLASSES + 1)).tolist()
    parts = [slice(a, b) for a, b in itertools.pairwise([0, *cuts]) if b - a >= _CLASS]
    parts = parts or [slice(None)]
    means = np.array([levels[part].mean(dtype=float) for part in parts])
    found = np.array([squares[part].mean(dtype=float) for part in parts])
    # The mean of squares of n normal values is uncertain by its own size over the root of n.
    sizes = np.array([levels[part].size for part in parts])
    trust = np.sqrt(sizes) / np.maximum(found, 1e-12 * max(found.max(), 1e-30))
    lines = np.stack([np.ones_like(means), means - means[0]], 1)
    least, gain = _not_negative(trust[:, None] * lines, trust * found)
    return float(means[0]), least, gain


def _not_negative(columns: NDArray[np.float64], goal: NDArray[np.float64]) -> tuple[float, float]:
    """Return the two numbers, not negative, that bring columns [N, 2] nearest to a goal [N].

    As `scipy.optimize.nnls`, which takes a tenth of a second to import: more than all else here.
    """
    both = np.linalg.lstsq(columns, goal)[0]
    if (both < 0).any():
        # The best is on the border of what is allowed: one of them is 0.
        alone = columns.T @ goal / np.maximum(np.square(columns).sum(0), 1e-300)
        borders = np.diag(alone.clip(0))
        errors = [np.square(columns @ border - goal).sum() for border in borders]
        both = borders[int(np.argmin(errors))]
    return float(both[0]), float(both[1])


def _differences(
    known: NDArray[Any], level: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return squared second differences of what a level leaves, in variances, and the level there.

    Of about `_AT_ONCE` voxels, evenly spread; of none without an axis to look along.
    """
    axes = [axis for axis, length in enumerate(level.shape) if length >= _MASK]
    planes, overlap = _planes_at_once(level), _MASK - 1 if 0 in axes else 0
    inner = tuple(slice(1, -1) if axis in axes else slice(None) for axis in range(3))
    step = max(1, level.size // _AT_ONCE)
    squares, levels = [np.empty(0, np.float32)], [np.empty(0, np.float32)]
    for first in range(0, len(level) - overlap if axes else 0, planes):
        some = slice(first, first + planes + overlap)
        rest = np.subtract(known[some], level[some], dtype=np.float32)
        for axis in axes:
            rest = np.diff(rest, n=_MASK - 1, axis=axis)
        squares.append(np.square(rest.reshape(-1)[::step]) / np.float32(_MASK_POWER ** len(axes)))
        levels.append(level[some][inner].reshape(-1)[::step])
    return np.concatenate(squares), np.concatenate(levels)


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
