"""What is drawn of Gaussians beside their centres, as arrays: places on pictures, and sections.

Knows no viewer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from napari.layers import Layer
    from numpy.typing import NDArray

    from napari_gaussfit._napari.layers.source import Source
    from napari_gaussfit.jobs.pictures import MipPair
    from napari_gaussfit.model.gaussians import Gaussians

    Floats = NDArray[np.float64]

__all__ = ["brightest", "faded", "in_world", "on_picture", "sections"]

AT_HALF = 2 * np.log(2)
"""The squared Mahalanobis distance at which a Gaussian has half its amplitude."""

SIDES = 24
"""Of the polygon that an ellipse is drawn as."""

WHITE = 0.45
"""Of the colour of a centre on a picture: the dark ones of faint Gaussians are lost on grey."""

MOST_SECTIONS = 4000
"""In one slice; the widest are drawn."""


def in_world(layer: Layer, places: Floats) -> Floats:
    """Return places [K, N], in a layer's data coordinates, in the world."""
    axes = places.shape[1]
    zero = np.asarray(layer.data_to_world(np.zeros(axes)), np.float64)
    steps = [np.asarray(layer.data_to_world(step), np.float64) - zero for step in np.eye(axes)]
    world: Floats = zero + places @ np.stack(steps)
    return world


def on_picture(means: Floats, mips: MipPair, source: Source) -> Floats:
    """Return where centres [K, 3] are seen in a view's pictures: rows and columns [K, 2]."""
    pixels, _ = mips.view.camera(source.stack).project(means)
    seen: Floats = pixels
    return seen


def sections(
    gaussians: Gaussians, spacing: Floats, axis: int, at: float
) -> tuple[Floats, NDArray[np.intp]]:
    """Return where a slice cuts the Gaussians at half their amplitude: ellipses, as polygons.

    In the plane a Gaussian's section is a Gaussian about the mean and of the covariance that are
    conditional on the slice's place; it is cut where that leaves any of the distance at half
    maximum.

    Parameters
    ----------
    gaussians : Gaussians
        The K Gaussians that are cut.
    spacing : ndarray, shape [3]
        Distances between voxel centres, in the Gaussians' unit.
    axis : int
        Of the stack (0, 1, 2 for z, y, x) across which the slice lies.
    at : float
        The slice's place along it, in voxels.

    Returns
    -------
    sides : ndarray, shape [S, 2, 3]
        Starts and directions of the polygons' sides, in voxels, as napari's Vectors are.
    whose : ndarray, shape [S]
        Of which Gaussian a side is.
    """
    means = gaussians.means.astype(np.float64) / spacing
    covariances = gaussians.covariances.astype(np.float64) / np.outer(spacing, spacing)
    off = at - means[:, axis]
    along = covariances[:, axis, axis]
    left = AT_HALF - off**2 / along
    cut = np.flatnonzero(left > 0)
    if len(cut) > MOST_SECTIONS:
        cut = np.sort(cut[np.argsort(-along[cut])[:MOST_SECTIONS]])
    plane = [n for n in range(3) if n != axis]
    slope = covariances[cut][:, plane, axis] / along[cut, None]
    middles = means[cut][:, plane] + slope * off[cut, None]
    flat = covariances[cut][:, plane][:, :, plane]
    flat = flat - np.einsum("ki,kj->kij", slope, slope) * along[cut, None, None]
    angles = 2 * np.pi * np.arange(SIDES + 1) / SIDES
    circle = np.stack([np.cos(angles), np.sin(angles)])
    factors = np.linalg.cholesky(flat) * np.sqrt(left[cut])[:, None, None]
    corners = middles[:, None] + np.einsum("kij,jn->kni", factors, circle)
    placed = np.full((len(cut), SIDES + 1, 3), at)
    placed[:, :, plane] = corners
    sides = np.stack([placed[:, :-1], np.diff(placed, axis=1)], axis=2)
    return sides.reshape(-1, 2, 3), np.repeat(cut, SIDES)


def brightest(colours: Any, most: int) -> NDArray[np.intp]:
    """Return which of K colours [K, 4] are the brightest, at most so many, in their order."""
    light = colours[:, :3].sum(axis=1) * colours[:, 3]
    if len(light) <= most:
        return np.arange(len(light))
    # Of those that are as bright as the last, the first: as a stable sort, of which it is a part.
    last = np.partition(light, -most)[-most]
    above = np.flatnonzero(light > last)
    alike = np.flatnonzero(light == last)[: most - len(above)]
    return np.sort(np.concatenate([above, alike]))


def faded(colours: Any, share: float) -> Any:
    """Return colours [K, 4] that are seen on grey, and of whose opacity a share is left."""
    paler = np.array(colours, np.float64)
    paler[:, :3] = WHITE + (1 - WHITE) * paler[:, :3]
    paler[:, 3] = share * (0.4 + 0.6 * paler[:, 3])
    return paler
