"""Which maxima of the filters are more than answers to others, and how many noise alone has."""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree

from napari_gaussfit._kernels.cpu.spot_kernels import explain
from napari_gaussfit.objects.filters import OUTER, maxima

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_gaussfit.objects.sizes import Sizes

    Floats = NDArray[np.float64]
    Counts = NDArray[np.int64]
    Shape = tuple[int, int, int]

__all__ = ["LOWEST", "Null", "unexplained"]

LOWEST = 3.5
"""Standard deviations of noise from which maxima are kept."""

NEAR, EXPLAINED = 2.5, 1.5
"""Sigmas of a maximum's outer Gaussian to where it explains what filters answer, and how many times
as much as that another maximum must be: a spot is not just as a filter is."""

NARROWER = 0.85
"""What the answer of a filter is worth beside that of the next narrower one: where spots are close,
a wide filter answers to several."""

NULL_VOXELS, MOST_DRAWS = 600_000, 20
"""Of noise that is looked at, at least, in so many stacks at most."""

NULL_SIDES = (32, 192, 192)
"""Voxels of the noise on which the filters are counted, at most."""


SURE = 100
"""Maxima of noise from which their count is taken as it is; beyond, it falls as theory says."""


def unexplained(places: Floats, levels: Counts, scores: Floats, sizes: Sizes) -> Counts:
    """Return which maxima, the highest first, are more than answers to others.

    Parameters
    ----------
    places : ndarray, shape [n, 3]
        z, y, x in voxels.
    levels : ndarray of int, shape [n]
        The number of the filter that answered most at each place.
    scores : ndarray, shape [n]
        How far each place stands out, in standard deviations of the noise.
    sizes : Sizes
        The least and largest width of a spot that is looked for.

    Returns
    -------
    ndarray of int
        Indices.
    """
    order = np.argsort(-scores * NARROWER**levels, kind="stable")
    if not len(order):
        return order
    places, levels, scores = places[order], levels[order], scores[order]
    widths = sizes.sigmas(levels)
    scale = widths[np.argmin(levels)]
    tree = cKDTree(places / scale)
    radii = NEAR * (widths / scale).max(1) * OUTER
    near_by = tree.query_ball_point(places / scale, radii, return_sorted=True)
    starts = np.cumsum([0, *map(len, near_by)])
    others = np.fromiter(itertools.chain.from_iterable(near_by), np.int64, starts[-1])
    kept = explain((places, widths, scores), (starts, others), (LOWEST, EXPLAINED, OUTER))
    chosen = order[kept]
    highest: Counts = chosen[np.argsort(-scores[kept], kind="stable")]
    return highest


@dataclass(frozen=True, eq=False)
class Null:
    """Maxima that noise alone has, less those that others explain.

    Parameters
    ----------
    scores : ndarray, shape [m]
        Scores of maxima of pure noise, from the greatest down.
    share : float
        Voxels of the stack over those of that noise.
    """

    scores: Floats
    share: float

    @classmethod
    def of(cls, shape: Shape, sizes: Sizes) -> Null:
        """Count them, on noise that goes the way that stacks go.

        Parameters
        ----------
        shape : tuple of int
            The number of voxels along z, y and x.
        sizes : Sizes
            The least and largest width of a spot that is looked for.

        Returns
        -------
        Null
            The same each time.
        """
        z, y, x = (min(n, most) for n, most in zip(shape, NULL_SIDES, strict=True))
        scores, voxels = _of_noise((z, y, x), sizes)
        return cls(scores, math.prod(shape) / voxels)

    def expected(self, scores: Floats) -> Floats:
        """Return how many maxima noise alone has in such a stack.

        Parameters
        ----------
        scores : ndarray, shape [n]
            From which they count.

        Returns
        -------
        ndarray, shape [n]
            In the mean. Beyond what was counted it falls as the Euler characteristic of normal
            noise in space and width does (R. J. Adler and J. E. Taylor, 2007): t^3 exp(-t^2 / 2).
        """
        counted = np.searchsorted(-self.scores, -scores, side="right").astype(np.float64)
        sure = min(SURE, len(self.scores)) - 1
        last = self.scores[sure]
        with np.errstate(over="ignore"):
            fallen = (scores / last) ** 3 * np.exp(-(scores**2 - last**2) / 2)
        expected: Floats = self.share * np.where(scores > last, (sure + 1) * fallen, counted)
        return expected


@functools.lru_cache(maxsize=8)
def _of_noise(sides: Shape, sizes: Sizes) -> tuple[Floats, int]:
    """Return the scores of noise's maxima, descending, and in how many voxels they are."""
    draws = min(-(-NULL_VOXELS // math.prod(sides)), MOST_DRAWS)
    rng = np.random.default_rng(0)
    scores = []
    for _ in range(draws):
        noise = rng.standard_normal(sides, np.float32)
        found = maxima(noise, sizes.sigmas(sizes.levels()), LOWEST)
        own = unexplained(found.places, found.levels, found.answers, sizes)
        scores.append(found.answers[own])
    return np.sort(np.concatenate(scores))[::-1], draws * math.prod(sides)
