"""Blocks of Gaussians refined in turns, until none is moved by what its neighbours have become."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_array

from napari_gaussfit._kernels.cpu.information_kernels import UNKNOWN
from napari_gaussfit._kernels.cpu.refinement_kernels import SHAPE, BlockScene, some_of
from napari_gaussfit.measure.grouping import bounds_of, others_at

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from napari_gaussfit._kernels.cpu.refinement_kernels import Lists
    from napari_gaussfit.measure.blocks import Model

    Floats = NDArray[np.float64]
    Counts = NDArray[np.int64]
    Fits = tuple[Floats, Floats, Floats, Floats]
    Refine = Callable[..., Fits]

__all__ = ["reaches_of", "refined_in_turns"]

UNSEEN = 0.02
"""Of the noise's standard deviation: a Gaussian of another block is subtracted where it is more."""

FARTHEST = 5.4
"""Sigmas to where a Gaussian is anything at all: where the kernels end it."""

TURNS = 6
"""In which blocks that others reach are refined, at most."""

TURNS_OF_SHARED = 3
"""Where widths are shared: all blocks are then refined together, each to its end in each turn."""

STEADY = 0.1
"""Of its error bar: a number that changes by less has not moved."""


def refined_in_turns(  # noqa: PLR0913, PLR0917 - where, from where, by what
    voxels: NDArray[np.float32],
    start: tuple[Floats, Floats],
    blocks: Lists,
    windows: Counts,
    backgrounds: Floats,
    noise: Floats,
    limits: tuple[int, Floats],
    model: Model | None,
    way: Refine,
) -> Fits:
    """Refine all blocks, and again those that are reached by what has moved since.

    After the first turn no two blocks that reach each other are refined at once. Were they, each
    would make up for what the other is about to mend as well: where many overlap by much, that
    leads farther away with every turn.

    Parameters
    ----------
    voxels : ndarray, shape [C, Z, Y, X]
        Intensities of the channels, in float32.
    start : tuple of two ndarrays, shape [K, 9] and [C, K]
        Centre and Cholesky parameters, in voxels, and amplitudes to begin with.
    blocks : tuple of two ndarrays
        Which Gaussians are refined together.
    windows : ndarray, shape [K, 6]
        First and last z, y, x of each Gaussian's window.
    backgrounds : ndarray, shape [B, C]
        What each block's voxels have beside all Gaussians; changed to what is found.
    noise : ndarray, shape [4]
        Gain, offset, read variance and saturation, as `refine_blocks` takes them.
    limits : tuple of int and ndarray
        Most steps, and what Gaussians are kept within, as `refine_blocks` takes them.
    model : Model or None
        What is free of Gaussians, if not all is.
    way : callable
        What refines blocks, as `refine_blocks` does.

    Returns
    -------
    tuple of four ndarrays
        What `refine_blocks` returns, of the turn in which each Gaussian was refined last.
    """
    bounds, every = bounds_of(blocks, windows), np.arange(len(blocks[0]) - 1)
    shared = model is not None and model.shapes.shared
    shapes, amplitudes = start
    channels, count = amplitudes.shape
    number = SHAPE + 2 * channels
    found = np.full((count, number, number), math.nan), np.full((count, 3 + channels), math.nan)
    moved = np.ones(count, np.bool_)
    for turn in range(TURNS_OF_SHARED if shared else TURNS):
        reaches = reaches_of(amplitudes, noise, float(backgrounds.min(initial=0.0)))
        others = others_at(blocks, bounds, shapes, reaches)
        touched = every if turn == 0 else np.flatnonzero(_any_of(moved[others[1]], others[0]))
        if not len(touched):
            break
        parts = [every] if turn == 0 or shared else _apart(touched, blocks, others)
        before = shapes, amplitudes
        for part in parts:
            members, near = some_of(blocks, part), some_of(others, part)
            grounds, now = backgrounds[part], (shapes, amplitudes)
            scene = BlockScene(voxels, bounds[part], windows, members, near, now, grounds, noise)
            shapes, amplitudes, *new = way(scene, *limits)
            backgrounds[part] = grounds
            for kept, renewed in zip(found, new, strict=True):
                kept[members[1]] = renewed[members[1]]
        moved = _moved(before, (shapes, amplitudes), found[0])
    return shapes, amplitudes, *found


def reaches_of(amplitudes: Floats, noise: Floats, darkest: float) -> Floats:
    """Return how many sigmas from its centre each Gaussian is lost in the noise of the darkest.

    Parameters
    ----------
    amplitudes : ndarray, shape [C, K]
        Of the channels, in raw intensity.
    noise : ndarray, shape [4]
        As `refine_blocks` takes it.
    darkest : float
        The least background, in raw intensity.

    Returns
    -------
    ndarray, shape [K]
        No more than `FARTHEST`, which it is where the noise is not known.
    """
    if noise[3] == UNKNOWN:
        return np.full(amplitudes.shape[1], FARTHEST)
    unseen = UNSEEN * math.sqrt(max(noise[0] * darkest + noise[1], 1e-30))
    heights = np.maximum(amplitudes.max(0) / unseen, 1.0)
    reaches: Floats = np.minimum(np.sqrt(2 * np.log(heights)), FARTHEST)
    return reaches


def _apart(which: Counts, blocks: Lists, others: Lists) -> list[Counts]:
    """Return blocks in parts, in each of which none is reached by another of it."""
    count = len(blocks[0]) - 1
    block_of = np.empty(len(blocks[1]), np.int64)
    block_of[blocks[1]] = np.repeat(np.arange(count), np.diff(blocks[0]))
    ends = np.repeat(np.arange(count), np.diff(others[0])), block_of[others[1]]
    reached = csr_array((np.ones(len(ends[0])), ends), shape=(count, count))
    either = (reached + reached.T).tocsr()
    part_of = np.full(count, -1)
    for block in which:
        taken = part_of[either.indices[either.indptr[block] : either.indptr[block + 1]]]
        part_of[block] = np.setdiff1d(np.arange(len(taken) + 1), taken)[0]
    return [which[part_of[which] == part] for part in range(part_of.max() + 1)]


def _any_of(flags: NDArray[np.bool_], starts: Counts) -> NDArray[np.bool_]:
    """Return in which lists, which lie one after the other, a flag is set."""
    so_far = np.concatenate([[0], np.cumsum(flags)])
    return np.asarray(np.diff(so_far[starts]) > 0, np.bool_)


def _moved(
    before: tuple[Floats, Floats], after: tuple[Floats, Floats], covariances: Floats
) -> NDArray[np.bool_]:
    """Return which Gaussians are others than before by more than a part of their error bars."""
    variances = np.diagonal(covariances, axis1=1, axis2=2)[:, : SHAPE + len(before[1])]
    change = np.hstack([after[0] - before[0], (after[1] - before[1]).T])
    # What is not determined has no error bars, and has moved if it changed at all.
    steady = change**2 <= STEADY**2 * np.nan_to_num(variances)
    return np.asarray(np.any(~steady, axis=1), np.bool_)
