"""How an exact number of Gaussians is shared among tiles, and how a tile comes to have its share.

Knows neither voxels nor other processes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_gaussfit.errors import SettingsError
from napari_gaussfit.fitting.placed import Placed
from napari_gaussfit.model.gaussians import Gaussians

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Place = tuple[int, int, int]

__all__ = ["of_count", "shared"]

APART = 0.5
"""Sigmas from where a Gaussian was to each of the two that it is divided into, along its longest
axis: near enough for their sum to be what it was, by mass, centre and covariance."""


def shared(total: int, lit: Mapping[Place, float]) -> dict[Place, int]:
    """Return how many Gaussians each tile has, by how much of it stands out of the noise.

    By volume, as a fit in one piece counts what it suggests: by light, the dim have too few (two
    neurites in nine tiles, 40 Gaussians: 39.6 and 42.4 dB by volume, 38.9 and 40.6 by light).

    Parameters
    ----------
    total : int
        How many there are.
    lit : mapping
        Voxels that do, of each tile, by its place.

    Raises
    ------
    SettingsError
        If none holds any.
    """
    places = sorted(lit)
    weights = np.array([lit[place] for place in places], np.float64)
    if not weights.sum() > 0:
        raise SettingsError(
            f"exactly: no tile stands out of the background, so there is none for {total:,} "
            "Gaussians; leave exactly out, or give the background (--background)"
        )
    parts = total * weights / weights.sum()
    counts = np.floor(parts).astype(np.int64)
    left = int(total - counts.sum())
    counts[np.argsort(counts - parts, kind="stable")[:left]] += 1
    return dict(zip(places, counts.tolist(), strict=True))


def of_count(found: Placed, mine: NDArray[np.bool_], count: int) -> Placed:
    """Return as many Gaussians of a tile as it is to have, first, and then those that it has not.

    Too many lose the faintest; too few have the brightest divided in two.

    Parameters
    ----------
    found : Placed
        What a tile has found; one at least.
    mine : ndarray of bool, shape [K]
        Those that it commits.
    count : int
        How many it is to commit; one at least.
    """
    order = np.argsort(-_strengths(found), kind="stable")
    own = order[mine[order]]
    if not len(own):
        own = order[:1]
    kept = found.select(np.sort(own[:count]))
    while len(kept) < count:
        order = np.argsort(-_strengths(kept), kind="stable")
        divided = order[: count - len(kept)]
        rest = np.setdiff1d(np.arange(len(kept)), divided)
        channels = len(kept.amplitudes)
        kept = Placed.joined([kept.select(rest), _halves(kept.select(divided))], channels)
    others = np.setdiff1d(np.arange(len(found)), own)
    return Placed.joined([kept, found.select(others)], len(found.amplitudes))


def _strengths(found: Placed) -> NDArray[np.float64]:
    """Return how much light each has [K], of all channels."""
    light = sum(
        Gaussians(np.zeros((len(found), 3)), found.cholesky, own).integrated_intensities()
        for own in found.amplitudes
    )
    return np.asarray(light, np.float64)


def _halves(found: Placed) -> Placed:
    """Return two Gaussians for each, beside each other along its longest axis."""
    whole = Gaussians(np.zeros((len(found), 3)), found.cholesky, found.amplitudes[0])
    sigmas, axes = whole.principal()
    shift = APART * sigmas[:, :1] * axes[:, 0]
    own = whole.covariances - shift[:, :, None] * shift[:, None, :]
    amplitudes = found.amplitudes / (2 * np.sqrt(1 - APART**2))
    narrower = Gaussians.from_covariances(np.zeros((len(found), 3)), own, amplitudes[0])
    one = (narrower.cholesky, amplitudes.astype(np.float32))
    parts = [Placed(found.means - shift, *one), Placed(found.means + shift, *one)]
    return Placed.joined(parts, len(amplitudes))
