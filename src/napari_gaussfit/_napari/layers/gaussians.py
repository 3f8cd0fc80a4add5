"""A field of Gaussians as napari layers; `edited` makes a field of them again.

Makes layer data tuples ``(data, keywords, type)`` and knows no viewer. All layers keep to one
convention: their data are in voxels of the stack that was fitted (position / spacing), and their
`Placement` is the source layer's own, so that both move together in the world.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_gaussfit._napari.layers.placement import METADATA
from napari_gaussfit.errors import SettingsError
from napari_gaussfit.measure.table import measurements

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_gaussfit._napari.layers.placement import Placement
    from napari_gaussfit.fitting.result import FitResult
    from napari_gaussfit.model.field import GaussianField
    from napari_gaussfit.model.gaussians import Gaussians

    Floats = NDArray[np.float64]
    LayerData = tuple[Any, dict[str, Any], str]

__all__ = [
    "METADATA",
    "ellipsoids",
    "labels_layer",
    "points_layer",
    "residual_layer",
    "surface_layer",
    "vectors_layer",
    "volume_layer",
]

MOST_FACES = 1_000_000
"""Triangles of all ellipsoids together, which a laptop's graphics still turns fluently."""

FINEST_SUBDIVISION = 2
"""Of an icosahedron: 320 faces, round to the eye at any size that one among many has."""

_COLORMAP = "plasma"
"""Its dark end is still seen on black."""

_COLOUR_PERCENTILE = 99.0
"""Of the amplitudes: where their colours end, so that a few bright ones leave the others some."""

_RESIDUAL_COLOURS = ((0.2, 0.7, 1.0), (0.0, 0.0, 0.0), (1.0, 0.6, 0.1))
"""Blue where the field is too bright, black where it is right, orange where it is too dark."""

_RESIDUAL_PERCENTILE = 99.9
"""Of the absolute residual: where its colours end, so that single voxels do not decide."""


def points_layer(fit: FitResult, placement: Placement, *, name: str) -> LayerData:
    """Return the centres as Points, with all measurements; the layer carries the fit.

    Coloured by amplitude. As wide as the geometric mean of the Gaussian's sigmas: at the full width
    at half maximum, a few broad ones hide the rest.
    """
    field = fit.measured_fields[0]
    table = measurements(fit.measured_fields, tuple(placement.spacing), fit.measurement)
    # napari holds the positions already, and takes more columns of these names for axes.
    features = table.drop(columns=["axis-0", "axis-1", "axis-2"])
    widths = np.exp(field.numpy().log_widths.mean(axis=1))
    keywords = {
        "name": name,
        "features": features,
        # A marker's size counts in pixels of the last axis.
        "size": widths / placement.spacing[-1] if len(widths) else 1.0,
        "border_width": 0.0,
        "opacity": 0.8,
        # In a thick slice, which the user may choose, all that lie within it.
        "projection_mode": "all",
        "metadata": {METADATA: {"fit": fit}},
        **_coloured("face", field),
        **placement.keywords(),
    }
    return placement.in_voxels(field.numpy().means), keywords, "points"


def vectors_layer(field: GaussianField, placement: Placement, *, name: str) -> LayerData:
    """Return the principal axes as Vectors, three a Gaussian, each from -sigma to sigma.

    Coloured by amplitude. Their features are ``index`` (of the Gaussian), ``axis`` (1 is the
    longest), ``sigma`` (in the field's unit) and ``amplitude``.
    """
    import pandas as pd

    sigmas, axes = field.numpy().principal()
    halves = axes * sigmas[..., None]
    ends = np.stack([field.numpy().means[:, None] - halves, 2 * halves], axis=2)
    features = pd.DataFrame(
        {
            "index": np.repeat(np.arange(len(field)), 3),
            "axis": np.tile([1, 2, 3], len(field)),
            "sigma": sigmas.ravel(),
            "amplitude": np.repeat(field.numpy().amplitudes, 3),
        }
    )
    keywords = {
        "name": name,
        "features": features,
        "edge_width": 0.5,
        "vector_style": "line",
        **_coloured("edge", field),
        **placement.keywords(),
    }
    return placement.in_voxels(ends).reshape(-1, 2, 3), keywords, "vectors"


def surface_layer(
    field: GaussianField,
    placement: Placement,
    *,
    name: str,
    at_sigma: float = 1.0,
    faintest: float = 0.0,
    most_faces: int = MOST_FACES,
) -> LayerData:
    """Return the ellipsoids of `at_sigma` standard deviations as one Surface, by amplitude.

    Gaussians fainter than `faintest`, a part of where the colours end, are left out: faint ones
    are wide, and hide the others.
    """
    gaussians = field.numpy()
    low, high = _limits(gaussians.amplitudes)
    shown = gaussians.amplitudes >= faintest * high
    if shown.any():
        gaussians = gaussians.select(shown)
    vertices, faces = ellipsoids(gaussians, at_sigma, most_faces)
    values = np.repeat(gaussians.amplitudes, len(vertices) // max(1, len(gaussians)))
    keywords = {
        "name": name,
        "colormap": _COLORMAP,
        "contrast_limits": (low, high),
        "shading": "smooth",
        **placement.keywords(),
    }
    return (placement.in_voxels(vertices), faces, values), keywords, "surface"


def ellipsoids(
    gaussians: Gaussians, at_sigma: float = 1.0, most_faces: int = MOST_FACES
) -> tuple[Floats, NDArray[np.int64]]:
    """Return a triangulated ellipsoid of each Gaussian.

    Parameters
    ----------
    gaussians : Gaussians
        The K Gaussians that are drawn.
    at_sigma : float
        The Mahalanobis distance of the ellipsoids.
    most_faces : int
        Triangles of all together, at most about.

    Returns
    -------
    vertices : ndarray, shape [K * V, 3]
        z, y, x in the Gaussians' unit; the V of a Gaussian follow upon each other.
    faces : ndarray, shape [K * F, 3]
        Indices of vertices, seen from outside counter-clockwise in (z, y, x), as napari has
        it. Coarser where there
        are many.

    Raises
    ------
    SettingsError
        If `at_sigma` is not above 0.
    """
    if not 0 < at_sigma < np.inf:
        message = f"at_sigma={at_sigma}: expected a number above 0, e.g. 1"
        raise SettingsError(message)
    sphere, triangles = _sphere(len(gaussians), most_faces)
    factors = at_sigma * gaussians.factors
    vertices = gaussians.means[:, None] + np.einsum("kij,vj->kvi", factors, sphere)
    starts = len(sphere) * np.arange(len(gaussians))
    return vertices.reshape(-1, 3), (starts[:, None, None] + triangles).reshape(-1, 3)


def volume_layer(
    volume: NDArray[np.float32],
    placement: Placement,
    *,
    name: str,
    contrast_limits: tuple[float, float] | None = None,
) -> LayerData:
    """Return a rendered field [Z, Y, X] as an Image, shown with the source's contrast if given."""
    shown = {} if contrast_limits is None else {"contrast_limits": contrast_limits}
    return volume, {"name": name, **shown, **placement.keywords()}, "image"


def residual_layer(
    voxels: NDArray[Any], volume: NDArray[np.float32], placement: Placement, *, name: str
) -> LayerData:
    """Return stack minus rendered field [Z, Y, X] as an Image with 0 in the middle of its colours.

    Parameters
    ----------
    voxels : ndarray, shape [Z, Y, X]
        The stack's, in raw intensity.
    volume : ndarray, shape [Z, Y, X]
        The field at the stack's voxels, in raw intensity.
    placement : Placement
        Scale, translation and units of the stack's layer.
    name : str
        Name of the new layer.
    """
    from napari.utils import Colormap

    residual = np.asarray(voxels, np.float32) - volume
    end = float(np.percentile(np.abs(residual), _RESIDUAL_PERCENTILE)) or 1.0
    keywords = {
        "name": name,
        "colormap": Colormap(_RESIDUAL_COLOURS, name="residual"),
        "contrast_limits": (-end, end),
        **placement.keywords(),
    }
    return residual, keywords, "image"


def labels_layer(
    field: GaussianField,
    volume: NDArray[np.float32],
    placement: Placement,
    *,
    threshold: float,
    name: str,
) -> LayerData:
    """Return Labels [Z, Y, X]: the Gaussian with the nearest centre, where the field is bright.

    Parameters
    ----------
    field : GaussianField
        Gaussian k has the label k + 1.
    volume : ndarray, shape [Z, Y, X]
        The field at the stack's voxels, in raw intensity.
    placement : Placement
        Scale, translation and units of the stack's layer.
    threshold : float
        Raw intensity; below it the label is 0.
    name : str
        Name of the new layer.
    """
    from scipy.spatial import cKDTree

    labels = np.zeros(volume.shape, np.int32)
    bright = volume >= threshold
    if len(field):
        centres = np.argwhere(bright) * placement.spacing
        labels[bright] = cKDTree(field.numpy().means).query(centres)[1] + 1
    features = measurements(field, tuple(placement.spacing))
    # napari looks a label up in the column of this name.
    features["index"] += 1
    return labels, {"name": name, "features": features, **placement.keywords()}, "labels"


def _coloured(part: str, field: GaussianField) -> dict[str, Any]:
    """Return keywords that colour a part ("face", "edge") by amplitude; none for no Gaussian."""
    if not len(field):
        return {}
    return {
        f"{part}_color": "amplitude",
        f"{part}_colormap": _COLORMAP,
        f"{part}_contrast_limits": _limits(field.numpy().amplitudes),
    }


def _limits(values: NDArray[Any]) -> tuple[float, float]:
    """Return where the colours of amplitudes begin and end; napari takes no empty range."""
    if not len(values):
        return 0.0, 1.0
    low, high = float(values.min()), float(np.percentile(values, _COLOUR_PERCENTILE))
    return (low, high) if high > low else (low, low + 1.0)


def _sphere(count: int, most_faces: int) -> tuple[Floats, NDArray[np.int64]]:
    """Return vertices [V, 3] (z, y, x) and faces [F, 3] of a unit sphere; coarser for many."""
    from vispy.geometry import create_sphere

    fits = [n for n in range(FINEST_SUBDIVISION + 1) if count * 20 * 4**n <= most_faces]
    mesh = create_sphere(subdivisions=max(fits, default=0), radius=1.0, method="ico")
    # The mesh has a vertex of its own for each side of an edge, which would show as a seam.
    unique, merged = np.unique(
        np.round(mesh.get_vertices().astype(np.float64), 6), axis=0, return_inverse=True
    )
    sphere = unique / np.linalg.norm(unique, axis=1, keepdims=True)
    return sphere, merged.reshape(-1)[mesh.get_faces()].astype(np.int64)
