"""Candidates that are no start of a search: part of the light around a brighter one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_gaussfit.objects.candidates import Candidates

__all__ = ["within_halos"]


def within_halos(found: Candidates, reach: float, share: float) -> NDArray[np.bool_]:
    """Tell which candidates lie in the light around a brighter one.

    Parameters
    ----------
    found : Candidates
        All that there are.
    reach : float
        Standard deviations of the brighter one's width to which its light goes.
    share : float
        Of its height, below which another is part of it.

    Returns
    -------
    ndarray of bool, shape [n]
        True for those that are part of another.
    """
    within = np.zeros(len(found), np.bool_)
    for level in np.unique(found.levels):
        sigmas = found.sizes.sigmas(level)
        places = found.places / sigmas
        bright = np.flatnonzero(found.levels == level)
        near = cKDTree(places).query_ball_point(places[bright], reach)
        for one, around in zip(bright, near, strict=True):
            others = np.asarray(around)
            within[others[found.heights[others] < share * found.heights[one]]] = True
    return within
