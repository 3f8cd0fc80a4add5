"""The seeds of a fit: Gaussians to begin with, drawn where the stack has signal.

Seeds drawn evenly over the box cost 10 to 15 dB at equal steps. Knows no optimiser.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial, reduce
from typing import TYPE_CHECKING

import numpy as np

from napari_gaussfit.errors import SettingsError
from napari_gaussfit.model.field import GaussianField
from napari_gaussfit.model.gaussians import Gaussians
from napari_gaussfit.stacks.statistics import (
    NARROWEST,
    background_of,
    peak_widths,
    smoothed,
    suggested_count,
    summits,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from napari_gaussfit.model.scaling import WorkingStack
    from napari_gaussfit.settings import FitSettings
    from napari_gaussfit.stacks.statistics import Volume


NEIGHBOURS = 3
WIDTH_PER_DISTANCE = 0.5
"""Sigma of a seed, in mean distances to its nearest neighbours: half covers the gaps."""

DIMMEST = 1e-3
"""Least amplitude of a seed, in parts of the signal's largest value."""

AMPLITUDE_ROUNDS = 5
NOISE_SIGMAS = 2.0
"""Sigmas of the noise below which signal draws no seed."""

PEAK_SIGMAS = 8.0
"""Sigmas of the noise above which a local maximum is a seed of its own."""

APART = (1, 2, 2)
"""Voxels (z, y, x) to either side of a local maximum, in which none is brighter."""

SAME_PEAK = 2.0
"""Voxels from a given point within which a local maximum is the point's own."""


BEGIN = 200
"""Gaussians that a fit whose number grows begins with at most: enough to tell the background from
wide ones, few enough that most of those needed are put where the residual asks for them."""

SAMPLED_AT_ONCE = 2**20
"""Voxels that a draw looks at in one piece."""


def grows(settings: FitSettings, points: NDArray[np.float64] | None) -> bool:
    """Return whether evidence decides how many Gaussians a fit has.

    Parameters
    ----------
    settings : FitSettings
        Settings of the fit. Without the voxels there is no evidence, and a refinement keeps what it
        is given.
    points : ndarray, shape [P, 3], or None
        Where Gaussians must begin: where no number is asked for beside them, these are all.

    Returns
    -------
    bool
        False where the number is fixed from the beginning.
    """
    return not (
        settings.exactly
        or settings.refine
        or settings.objective == "mip"
        or (points is not None and settings.gaussians is None)
    )


def seed_count(settings: FitSettings, points: NDArray[np.float64] | None, voxels: ArrayLike) -> int:
    """Return how many Gaussians a fit begins with.

    Parameters
    ----------
    settings : FitSettings
        Settings of the fit: without a number of Gaussians there are as many as points, or as the
        stack suggests. Where evidence decides, few at first.
    points : ndarray, shape [P, 3], or None
        Positions where Gaussians must begin.
    voxels : array-like, shape [Z, Y, X]
        Intensities of the stack.

    Returns
    -------
    int
        Number of Gaussians, at least that of the points.

    Raises
    ------
    SettingsError
        If there are no points though they are given, or more than Gaussians asked for.
    """
    asked = settings.gaussians
    if points is not None and not len(points):
        raise SettingsError("there is no point to begin at; give points, or leave them out")
    if points is not None and asked is not None and asked < len(points):
        message = f"gaussians={asked}: expected at least as many as the {len(points)} points"
        raise SettingsError(message)
    if not grows(settings, points):
        return asked or (suggested_count(voxels) if points is None else len(points))
    begin = min(asked or BEGIN, BEGIN, suggested_count(voxels))
    return begin if points is None else max(begin, len(points))


def draw_sites(weights: Volume, count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return `count` positions [count, 3] in voxels, drawn by weight, jittered within a voxel.

    No voxel is drawn twice while others have weight.

    Parameters
    ----------
    weights : ndarray, shape [Z, Y, X]
        Weight of each voxel, not negative.
    count : int
        Number of positions to draw.
    rng : numpy.random.Generator
        Source of the draw.

    Returns
    -------
    ndarray, shape [count, 3]
        Positions (z, y, x).
    """
    if not count:
        return np.empty((0, 3))
    flat = weights.reshape(-1)
    if not flat.any():
        flat = np.ones_like(flat)
    available = int(np.count_nonzero(flat))
    sites = _weighted_sample(flat, min(count, available), rng)
    if count > available:
        sites = np.concatenate([sites, rng.choice(sites, count - available)])
    voxels = np.stack(np.unravel_index(sites, weights.shape), 1)
    return voxels + rng.uniform(-0.5, 0.5, voxels.shape)


def _weighted_sample(weights: Volume, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw without replacement by exponential keys (Efraimidis and Spirakis, 2006).

    Piece by piece, so that the keys of a large stack take no memory to speak of.
    """
    keys, sites = np.empty(0), np.empty(0, np.int64)
    for first in range(0, weights.size, SAMPLED_AT_ONCE):
        some = weights[first : first + SAMPLED_AT_ONCE].astype(np.float64)
        with np.errstate(divide="ignore"):
            keys = np.append(keys, rng.standard_exponential(some.size) / some)
        sites = np.append(sites, np.arange(first, first + some.size))
        if keys.size > count:
            kept = np.argpartition(keys, count - 1)[:count]
            keys, sites = keys[kept], sites[kept]
    drawn: NDArray[np.int64] = sites[np.argsort(keys, kind="stable")]
    return drawn


def seed_channels(
    workings: Sequence[WorkingStack],
    settings: FitSettings,
    rng: np.random.Generator,
    *,
    points: NDArray[np.float64] | None = None,
) -> list[GaussianField]:
    """Return seeds drawn from the sum of all channels, lit by each.

    Each channel counts in parts of its own range above its background.

    Parameters
    ----------
    workings : sequence of WorkingStack
        The channels, of one shape and spacing.
    settings : FitSettings
        Settings of the fit: number of Gaussians and background.
    rng : numpy.random.Generator
        Source of the draw.
    points : ndarray, shape [P, 3], optional
        Positions (z, y, x in the stacks' unit) that seeds must begin at.

    Returns
    -------
    list of GaussianField
        The same Gaussians for each channel, with its amplitudes and background, in working units.
    """
    calms, backgrounds, noises = [], [], []
    for working in workings:
        calm = smoothed(working.stack.voxels)
        background, noise = background_of(calm)
        if settings.background is not None:
            background = working.given_background(settings.background)
        calm -= np.float32(background)
        calms.append(calm)
        backgrounds.append(background)
        noises.append(noise)
    stack, length = workings[0].stack, workings[0].length
    voxels = reduce(np.add, [working.stack.voxels for working in workings])
    seeds = seed_field(
        reduce(np.add, calms),
        stack.spacing,
        seed_count(settings, points, voxels),
        rng,
        noise=math.hypot(*noises),
        points=None if points is None else points / length,
        unit=stack.unit,
    )
    # One channel alone has lit them already.
    fields = [seeds] if len(calms) == 1 else [lit_by(seeds, calm, stack.spacing) for calm in calms]
    return [
        replace(field, background=background)
        for field, background in zip(fields, backgrounds, strict=True)
    ]


def seed_field(
    calm: Volume,
    spacing: Sequence[float],
    count: int,
    rng: np.random.Generator,
    *,
    noise: float = 0.0,
    points: NDArray[np.float64] | None = None,
    unit: str = "micrometer",
) -> GaussianField:
    """Return `count` Gaussians spread over a smoothed signal.

    Parameters
    ----------
    calm : ndarray, shape [Z, Y, X]
        Intensity above the background, smoothed, see `stacks.statistics.smoothed`.
    spacing : sequence of float
        Voxel spacing (dz, dy, dx).
    count : int
        Number of Gaussians of the field that is returned.
    rng : numpy.random.Generator
        Source of the draw.
    noise : float
        Standard deviation of the smoothed noise, where there is no signal.
    points : ndarray, shape [P, 3], optional
        Positions (z, y, x in the spacing's unit) that seeds must begin at; then come local
        maxima, and the rest is drawn by intensity.
    unit : str
        Unit of the spacing.

    Returns
    -------
    GaussianField
        Seeds that are isotropic but for the voxel's own shape, with amplitudes such that their sum
        meets the signal at their means. Background 0.
    """
    step = np.asarray(spacing, np.float64)
    placed = np.empty((0, 3)) if points is None else points / step
    room = count - len(placed)
    peaks = local_maxima(calm, max(PEAK_SIGMAS * noise, DIMMEST * float(calm.max())))
    peaks = _away_from(peaks, placed)
    # Where there are more than the field can hold, most are texture: leave it to the draw.
    peaks = peaks[: room if len(peaks) <= room else max(min(1, room), room // 2)]
    weights = calm - np.float32(NOISE_SIGMAS * noise)
    np.clip(weights, 0.0, None, out=weights)
    drawn = draw_sites(weights, room - len(peaks), rng)
    sites = np.clip(np.concatenate([placed, peaks, drawn]), -0.5, np.array(calm.shape) - 0.5)
    widths = _mean_distance(sites * step)[:, None] * WIDTH_PER_DISTANCE * np.ones(3)
    tops = np.concatenate([summits(calm, placed), peaks])
    widths[: len(tops)] = np.minimum(widths[: len(tops)], peak_widths(calm, tops) * step)
    widths = np.minimum(widths, np.array(calm.shape) * step / 4)  # a seed that stands alone
    widths = np.maximum(widths, NARROWEST * step)
    cholesky = np.zeros((count, 6), np.float32)
    cholesky[:, [0, 2, 5]] = np.log(widths)
    means = (sites * step).astype(np.float32)
    seeds = Gaussians(means, cholesky, np.zeros(count, np.float32), unit=unit)
    return lit_by(GaussianField.from_numpy(seeds), calm, spacing)


def lit_by(field: GaussianField, calm: Volume, spacing: Sequence[float]) -> GaussianField:
    """Return a field with amplitudes such that it meets a smoothed signal at its means.

    Parameters
    ----------
    field : GaussianField
        Gaussians of any amplitudes, with background 0.
    calm : ndarray, shape [Z, Y, X]
        The smoothed signal, see `smoothed`; where it is next to nothing, amplitudes stay above 0.
    spacing : sequence of float
        Voxel spacing (dz, dy, dx), in the field's unit.

    Returns
    -------
    GaussianField
        The same Gaussians, with other amplitudes.
    """
    import torch

    sites = field.means.numpy() / np.asarray(spacing, np.float64)
    nearest = tuple(np.clip(np.rint(sites), 0, np.array(calm.shape) - 1).astype(int).T)
    goal = np.maximum(calm[nearest], DIMMEST * float(calm.max())).astype(np.float32)
    return _scaled_to(replace(field, amplitudes=torch.from_numpy(goal.copy())), goal)


def local_maxima(calm: Volume, threshold: float) -> NDArray[np.int64]:
    """Return local maxima [P, 3] of a smoothed volume in voxels, the brightest first.

    Parameters
    ----------
    calm : ndarray, shape [Z, Y, X]
        The smoothed signal, see `smoothed`.
    threshold : float
        Intensity that a maximum must exceed, 0 or more.

    Returns
    -------
    ndarray of int, shape [P, 3]
        Positions (z, y, x).
    """
    from napari_gaussfit import _threads as threads
    from napari_gaussfit._kernels.cpu import relocation_kernels

    calm = np.ascontiguousarray(calm, np.float32)
    top = np.empty(calm.shape, np.bool_)
    threads.run_pieces(partial(relocation_kernels.mark_maxima, calm, APART, top), len(calm))
    places = np.flatnonzero(top)
    heights = calm.reshape(-1)[places]
    places, heights = places[heights > threshold], heights[heights > threshold]
    brightest = places[np.argsort(-heights, kind="stable")]
    return np.stack(np.unravel_index(brightest, calm.shape), 1)


def _away_from(peaks: NDArray[np.int64], sites: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the maxima [P, 3] that no position [S, 3], both in voxels, stands for already."""
    from scipy.spatial import KDTree

    if not len(sites) or not len(peaks):
        return peaks
    away: NDArray[np.int64] = peaks[KDTree(sites).query(peaks)[0] > SAME_PEAK]
    return away


def _mean_distance(positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return each position's mean distance to its nearest neighbours (inf when alone)."""
    from scipy.spatial import KDTree

    if len(positions) == 1:
        return np.full(1, np.inf)
    neighbours = min(NEIGHBOURS, len(positions) - 1)
    distances, _ = KDTree(positions).query(positions, k=neighbours + 1)
    mean: NDArray[np.float64] = distances[:, 1:].mean(1)
    return mean


def _scaled_to(field: GaussianField, goal: NDArray[np.float32]) -> GaussianField:
    """Scale amplitudes until the sum meets `goal` [K] at the means, a few rounds."""
    amplitudes = field.amplitudes.numpy()
    for _ in range(AMPLITUDE_ROUNDS):
        found = field.evaluate(field.means, tolerance=1e-3).numpy()
        amplitudes *= np.clip(goal / np.maximum(found, 1e-12), 0.1, 1.5)
    return field
