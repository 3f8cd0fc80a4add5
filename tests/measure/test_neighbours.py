"""Which Gaussians have to do with which, as all pairs say, and a broad one among many small."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_gaussfit.measure.grouping import blocks_of, bounds_of, boxes_about, others_at
from napari_gaussfit.model.gaussians import Gaussians
from napari_gaussfit.objects.pairs import close_pairs

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Counts = NDArray[np.int64]
    Lists = tuple[Counts, Counts]

SMALL = 1.5
REACH = 5.0
CLOSE = 3.0
MANY = 4_000
ROOM = 1_000 * 8 * MANY
"""Bytes for a thousand numbers of each, which is what some dozens of neighbours take."""


def crowd(count: int, broad: int) -> Floats:
    """Return Gaussians in voxels [K, 9], some of them broad, at random places."""
    rng = np.random.default_rng(count)
    shapes = np.zeros((count, 9))
    shapes[:, :3] = rng.uniform(0, 14 * count ** (1 / 3), (count, 3))
    widths = np.where(np.arange(count) < broad, 20 * SMALL, SMALL)
    shapes[:, [3, 5, 8]] = np.log(widths[:, None] * rng.uniform(0.8, 1.3, (count, 3)))
    shapes[:, [4, 6, 7]] = rng.normal(0, 0.3, (count, 3))
    return shapes


def gaussians_of(shapes: Floats) -> Gaussians:
    return Gaussians(shapes[:, :3], shapes[:, 3:], np.ones(len(shapes)), 0.0, "pixel")


def others_in(shapes: Floats) -> tuple[Lists, Counts, Lists]:
    """Return the blocks of Gaussians, their boxes, and which others reach these."""
    side = int(shapes[:, :3].max()) + 20
    blocks, _ = blocks_of(shapes)
    bounds = bounds_of(blocks, boxes_about(shapes, 3.5, 3, (side, side, side)))
    return blocks, bounds, others_at(blocks, bounds, shapes, np.full(len(shapes), REACH))


@pytest.mark.parametrize("broad", [0, 1, 30])
def test_a_box_is_reached_by_those_whose_own_box_meets_it(broad: int) -> None:
    shapes = crowd(400, broad)
    (starts, members), bounds, (other_starts, others) = others_in(shapes)
    covariances = gaussians_of(shapes).covariances
    half = REACH * np.sqrt(np.diagonal(covariances, axis1=1, axis2=2))
    first, last = shapes[:, :3] - half, shapes[:, :3] + half
    for b, box in enumerate(bounds):
        meets = np.all((first <= box[1::2]) & (last >= box[::2]), axis=1)
        meets[members[starts[b] : starts[b + 1]]] = False
        found = others[other_starts[b] : other_starts[b + 1]]
        np.testing.assert_array_equal(found, np.flatnonzero(meets))


@pytest.mark.parametrize("broad", [0, 1, 30])
def test_close_pairs_are_those_of_all_pairs_that_are_close(broad: int) -> None:
    gaussians = gaussians_of(crowd(200, broad))
    pairs, distances = close_pairs(gaussians, CLOSE)
    first, second = np.triu_indices(len(gaussians), 1)
    apart = (gaussians.means[first] - gaussians.means[second]).astype(np.float64)
    both = (gaussians.covariances[first] + gaussians.covariances[second]) / 2
    all_distances = np.sqrt(np.einsum("ni,nij,nj->n", apart, np.linalg.inv(both), apart))
    near = all_distances < CLOSE
    assert near.sum() > 10
    np.testing.assert_array_equal(pairs, np.column_stack([first, second])[near])
    np.testing.assert_allclose(distances, all_distances[near])


@pytest.mark.parametrize(
    "look", [others_in, lambda shapes: close_pairs(gaussians_of(shapes), CLOSE)]
)
def test_one_broad_gaussian_has_not_all_the_others_look_as_far(
    look: Callable[[Floats], object],
) -> None:
    shapes = crowd(MANY, 1)
    tracemalloc.start()
    look(shapes)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < ROOM, f"{most:,} bytes, and {MANY**2:,} pairs"
