"""GEFF, the Graph Exchange File Format: Gaussians as nodes, tracks as their edges, traces as trees.

Its ``ellipsoid`` property is a Gaussian's covariance, its ``sphere`` a trace's radius. The package
geff writes it, which comes with the extra of that name.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_gaussfit.errors import OutputError
from napari_gaussfit.files import replacing

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from napari_gaussfit.formats.tracked import Tracked
    from napari_gaussfit.model.field import GaussianField
    from napari_gaussfit.stacks.facts import StackFacts

    Arrays = Mapping[str, NDArray[Any]]

__all__ = ["write_gaussians", "write_tracks", "write_tree"]

COVARIANCE, RADIUS, TRACK = "covariance", "radius", "track"
"""The node properties that are GEFF's ellipsoid, sphere, and tracklet: no track divides."""

_MARK = {"graph": "geff", "contents": [".zgroup", ".zattrs", "nodes", "edges"]}
"""By which a folder that was written here is known again."""


def write_gaussians(
    path: str | os.PathLike[str],
    fields: Sequence[GaussianField],
    stack: StackFacts,
    *,
    quality: NDArray[np.float64] | None = None,
) -> None:
    """Write Gaussians as nodes without edges.

    Parameters
    ----------
    path : path-like
        The folder to write, by convention named ``*.geff``; one that was written here is replaced.
    fields : sequence of GaussianField
        The Gaussians of each channel; of several, amplitudes are numbered.
    stack : StackFacts
        The stack that they are of.
    quality : ndarray, shape [K], optional
        How sure each is, if that is known.

    Raises
    ------
    OutputError
        If geff is not installed, or the folder cannot be written.
    """
    gaussians = fields[0].numpy()
    more = {COVARIANCE: gaussians.covariances, "amplitude": gaussians.amplitudes}
    more["integrated_intensity"] = gaussians.integrated_intensities()
    for n, field in enumerate(fields if len(fields) > 1 else ()):
        more[f"amplitude_{n}"] = field.numpy().amplitudes
    if quality is not None:
        more["quality"] = np.asarray(quality, np.float64)
    if stack.time is not None:
        more["t"] = np.full(len(gaussians), stack.time)
    edges = np.empty((0, 2), np.int64)
    _write(path, gaussians.means, more, edges, stack.unit, ellipsoid=COVARIANCE)


def write_tracks(path: str | os.PathLike[str], tracked: Tracked, stack: StackFacts) -> None:
    """Write Gaussians of several times as nodes, with an edge from each to the next of its track.

    Parameters
    ----------
    path : path-like
        The folder to write, as for `write_gaussians`.
    tracked : Tracked
        The Gaussians, and the track of each.
    stack : StackFacts
        The stack that they are of.

    Raises
    ------
    OutputError
        As `write_gaussians`.
    """
    gaussians = tracked.gaussians
    more = {
        COVARIANCE: gaussians.covariances,
        "amplitude": gaussians.amplitudes,
        "integrated_intensity": gaussians.integrated_intensities(),
        "quality": tracked.quality,
        "t": tracked.times,
        TRACK: tracked.tracks,
    }
    tracks = {"tracklet": TRACK, "lineage": TRACK}
    _write(
        path, gaussians.means, more, tracked.edges, stack.unit,
        ellipsoid=COVARIANCE, track_node_props=tracks,
    )  # fmt: skip


def write_tree(
    path: str | os.PathLike[str],
    points: NDArray[np.float64],
    parents: NDArray[np.intp],
    more: Arrays,
    unit: str,
) -> None:
    """Write trees, an edge from each node to those that hang on it.

    Parameters
    ----------
    path : path-like
        The folder to write, as for `write_gaussians`.
    points : ndarray, shape [N, 3]
        z, y, x in `unit`.
    parents : ndarray of int, shape [N]
        The node that each hangs on; -1 for a root.
    more : mapping of ndarray, shape [N]
        Further properties, ``radius`` among them.
    unit : str
        The unit of all lengths: "micrometer" or "pixel".

    Raises
    ------
    OutputError
        As `write_gaussians`.
    """
    children = np.flatnonzero(parents >= 0)
    edges = np.stack([parents[children], children], axis=1).astype(np.int64)
    _write(path, points, more, edges, unit, sphere=RADIUS)


def _write(
    path: str | os.PathLike[str],
    points: NDArray[Any],
    more: Arrays,
    edges: NDArray[np.int64],
    unit: str,
    **about: Any,
) -> None:
    import zarr

    from napari_gaussfit.stacks.ome_zarr import refuse_foreign_folder
    from napari_gaussfit.stacks.zarr_paths import OWN_MARK

    try:
        from geff import GeffMetadata
        from geff.core_io import write_arrays
    except ImportError as error:
        raise OutputError(
            f"{path}: GEFF needs the package geff; install napari-gaussfit[geff]"
        ) from error
    target = Path(path)
    if target.is_file():
        raise OutputError(f"{target}: is a file; expected a name for a folder: give another")
    refuse_foreign_folder(target)
    columns = {axis: np.asarray(points[:, n], np.float64) for n, axis in enumerate("zyx")}
    properties = {name: np.asarray(values) for name, values in more.items()}
    axes: list[dict[str, Any]] = [{"name": axis, "type": "space", "unit": unit} for axis in columns]
    if "t" in properties:
        axes.insert(0, {"name": "t", "type": "time", "unit": "frame"})
    metadata = GeffMetadata.model_validate(
        {
            "directed": True,
            "axes": axes,
            "node_props_metadata": {},
            "edge_props_metadata": {},
            **about,
        }
    )
    nodes: dict[str, Any] = {
        name: {"values": v, "missing": None} for name, v in (columns | properties).items()
    }
    with replacing(target) as temporary:
        write_arrays(
            str(temporary), np.arange(len(points)), nodes, edges, {}, metadata, zarr_format=2
        )
        zarr.open_group(temporary, mode="r+", zarr_format=2).attrs[OWN_MARK] = _MARK
