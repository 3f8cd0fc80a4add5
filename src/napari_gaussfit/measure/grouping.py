"""Which Gaussians are refined together, in which boxes of voxels, and which others reach there."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components, reverse_cuthill_mckee
from scipy.spatial import cKDTree

from napari_gaussfit._kernels.cpu.refinement_kernels import BlockScene, some_of
from napari_gaussfit.model.gaussians import factors_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_gaussfit._kernels.cpu.refinement_kernels import Lists

    Floats = NDArray[np.float64]
    Counts = NDArray[np.int64]

__all__ = [
    "blocks_of",
    "bounds_of",
    "boxes_about",
    "half_sides",
    "near_pairs",
    "others_at",
    "scene_of",
    "whole_blocks",
]

TOGETHER = 4.5
"""Distance of centres below which two Gaussians are refined together, in sigmas of one blurred by
the other: what they have in common would bias both."""

GROUND = 1 / 4
"""A Gaussian whose sigmas are less than so many of another's, whichever way one looks, stands on
that as on a background: each is refined by itself, and loses nothing by it."""

MOST_TOGETHER = 24
"""Gaussians of a block. Clusters of more are a structure, and refined in parts by sweeps."""

ROUNDED = 1e-6
"""Voxels by which boxes are looked for farther away than need be: more than is rounded."""


def half_sides(shapes: Floats) -> Floats:
    """Return the standard deviations [K, 3] along z, y and x, in voxels."""
    sides: Floats = np.linalg.norm(factors_of(shapes[:, 3:]), axis=2)
    return sides


def boxes_about(shapes: Floats, sigmas: float, least: int, shape: tuple[int, int, int]) -> Counts:
    """Return first and last z, y, x [K, 6] of boxes about Gaussians, within a stack."""
    half = np.maximum(np.ceil(sigmas * half_sides(shapes)), least)
    centres = np.rint(shapes[:, :3])
    boxes = np.empty((len(shapes), 6), np.int64)
    boxes[:, ::2] = np.clip(centres - half, 0, np.subtract(shape, 1))
    boxes[:, 1::2] = np.clip(centres + half, 0, np.subtract(shape, 1))
    return boxes


def blocks_of(
    shapes: Floats, most_together: int = MOST_TOGETHER
) -> tuple[Lists, NDArray[np.bool_]]:
    """Return which Gaussians are refined together, and which are of a structure."""
    count = len(shapes)
    if not count:
        return (np.zeros(1, np.int64), np.zeros(0, np.int64)), np.zeros(0, np.bool_)
    pairs = _pairs_together(shapes)
    graph = csr_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    _, labels = connected_components(graph, directed=False)
    sizes = np.bincount(labels)
    order = reverse_cuthill_mckee((graph + graph.T).tocsr(), symmetric_mode=True)
    order = order[np.argsort(labels[order], kind="stable")]
    place = np.arange(count) - (np.cumsum(sizes) - sizes)[labels[order]]
    begins = place % most_together == 0
    starts = np.append(np.flatnonzero(begins), count)
    members = order[np.lexsort((order, np.cumsum(begins)))].astype(np.int64)
    return (starts, members), sizes[labels] > MOST_TOGETHER


def _pairs_together(shapes: Floats) -> Counts:
    """Return pairs [n, 2] of Gaussians that have too much in common to be refined apart."""
    factors = factors_of(shapes[:, 3:])
    covariances = factors @ factors.swapaxes(1, 2)
    widest = np.sqrt(np.trace(covariances, axis1=1, axis2=2))  # no less than the widest axis
    pairs = near_pairs(shapes[:, :3], TOGETHER * widest)
    apart = shapes[pairs[:, 0], :3] - shapes[pairs[:, 1], :3]
    both = covariances[pairs[:, 0]] + covariances[pairs[:, 1]]
    solved = np.linalg.solve(both, apart[..., None])[..., 0]
    pairs = pairs[np.einsum("ni,ni->n", apart, solved) < TOGETHER**2 / 2]
    one, other = factors[pairs].swapaxes(0, 1)
    narrower = np.minimum(_most_sigmas(one, other), _most_sigmas(other, one))
    together: Counts = pairs[narrower >= GROUND]
    return together


def _most_sigmas(factors: Floats, of: Floats) -> Floats:
    """Return how wide Gaussians are at most, in sigmas of others along the same direction."""
    most: Floats = np.linalg.norm(np.linalg.solve(of, factors), 2, axis=(1, 2))
    return most


def near_pairs(centres: Floats, reaches: Floats) -> Counts:
    """Return which Gaussians are within the reach of one another.

    Parameters
    ----------
    centres : ndarray, shape [K, 3]
        Where each is, along three axes of one unit.
    reaches : ndarray, shape [K]
        How far from its centre each may have to do with others no wider than itself.

    Returns
    -------
    ndarray of int, shape [n, 2]
        In order, the lower index first.
    """
    # Of a pair it is enough that the wider finds the other.
    (starts, near_by) = _flat(cKDTree(centres).query_ball_point(centres, reaches))
    pairs = np.column_stack([np.repeat(np.arange(len(centres)), np.diff(starts)), near_by])
    return np.unique(np.sort(pairs[pairs[:, 0] != pairs[:, 1]], axis=1), axis=0)


def _flat(lists: Sequence[list[int]]) -> Lists:
    """Return where each list begins in all of them one after the other, and that."""
    lengths = np.fromiter(map(len, lists), np.int64, len(lists))
    numbers = np.fromiter(chain.from_iterable(lists), np.int64, lengths.sum())
    return np.concatenate([[0], np.cumsum(lengths)]), numbers


def whole_blocks(blocks: Lists, wanted: NDArray[np.bool_]) -> Lists:
    """Return those blocks of which every Gaussian is wanted."""
    return some_of(
        blocks, np.flatnonzero(np.logical_and.reduceat(wanted[blocks[1]], blocks[0][:-1]))
    )


def bounds_of(blocks: Lists, windows: Counts) -> Counts:
    """Return the boxes [B, 6] of blocks."""
    starts, members = blocks
    bounds = np.empty((len(starts) - 1, 6), np.int64)
    if len(bounds):
        bounds[:, ::2] = np.minimum.reduceat(windows[members, ::2], starts[:-1])
        bounds[:, 1::2] = np.maximum.reduceat(windows[members, 1::2], starts[:-1])
    return bounds


def others_at(blocks: Lists, bounds: Counts, shapes: Floats, reaches: Floats) -> Lists:
    """Return those Gaussians of other blocks that reach each block's box."""
    half = reaches[:, None] * half_sides(shapes)
    first, last = shapes[:, :3] - half, shapes[:, :3] + half
    of_block, near_by = _near_boxes(shapes[:, :3], half.max(1, initial=0.0), bounds)
    own = np.full(len(shapes), -1)
    own[blocks[1]] = np.repeat(np.arange(len(bounds)), np.diff(blocks[0]))
    boxes = bounds[of_block]
    meets = (first[near_by] <= boxes[:, 1::2]) & (last[near_by] >= boxes[:, ::2])
    found = np.flatnonzero(meets.all(1) & (own[near_by] != of_block))
    order = found[np.lexsort((near_by[found], of_block[found]))]
    counts = np.bincount(of_block[found], minlength=len(bounds))
    return np.concatenate([[0], np.cumsum(counts)]), near_by[order]


def _near_boxes(centres: Floats, reaches: Floats, bounds: Counts) -> tuple[Counts, Counts]:
    """Return boxes and the Gaussians that may reach each, a pair in each place of the two."""
    middles, sides = (bounds[:, ::2] + bounds[:, 1::2]) / 2, bounds[:, 1::2] - bounds[:, ::2]
    half = sides.max(1, initial=0) / 2
    # One tree for those of like reach: a single broad one would have all boxes look as far as it.
    sizes = np.frexp(reaches)[1]
    of_box, near_by = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for size in np.unique(sizes):
        alike = np.flatnonzero(sizes == size)
        radii = half + reaches[alike].max() + ROUNDED
        found = cKDTree(centres[alike]).query_ball_point(middles, radii, p=np.inf)
        starts, places = _flat(found)
        of_box.append(np.repeat(np.arange(len(bounds)), np.diff(starts)))
        near_by.append(alike[places])
    return np.concatenate(of_box), np.concatenate(near_by)


def scene_of(
    voxels: NDArray[np.float32],
    fits: tuple[Floats, Floats, Floats, Floats],
    blocks: Lists,
    windows: Counts,
    reaches: Floats,
    noise: Floats,
) -> BlockScene:
    """Return blocks of Gaussians as they were refined, to be looked at in other windows.

    Parameters
    ----------
    voxels : ndarray, shape [C, Z, Y, X]
        Intensities of the channels, in float32.
    fits : tuple of ndarray
        What `refine_blocks` returned: shapes, amplitudes, covariances and numbers.
    blocks : tuple of ndarray
        Which Gaussians are refined together.
    windows : ndarray, shape [K, 6]
        First and last z, y, x of the window in which each is looked at now.
    reaches : ndarray, shape [K]
        Sigmas from its centre within which each Gaussian is anything.
    noise : ndarray, shape [4]
        Gain, offset, read variance and saturation, as `refine_blocks` takes them.
    """
    shapes, amplitudes, _, numbers = fits
    starts, members = blocks
    bounds = bounds_of(blocks, windows)
    others = others_at(blocks, bounds, shapes, reaches)
    grounds = numbers[members[starts[:-1]], 3:]
    gaussians = shapes, amplitudes
    return BlockScene(voxels, bounds, windows, blocks, others, gaussians, grounds, noise)
