"""Objects in a fit as layers: labels of cells, lines of neurites. Knows no viewer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_gaussfit._napari.layers.edited import fit_of_layer
from napari_gaussfit._napari.layers.placement import METADATA, OF, Placement
from napari_gaussfit.errors import SettingsError

if TYPE_CHECKING:
    from napari.layers import Layer, Points
    from numpy.typing import NDArray

    from napari_gaussfit._napari.layers.gaussians import LayerData
    from napari_gaussfit.fitting.result import FitResult
    from napari_gaussfit.jobs.objects import FoundCells, FoundTrace

__all__ = ["FitPoints", "cell_layers", "refusal_of_fit", "trace_layers"]

COLOURS = "tab10"
"""Of the orders of branches."""

CENTRE_SIZE, LINE_WIDTH = 4.0, 0.7
"""Pixels, of the centres of cells and of the centre lines of branches."""


def refusal_of_fit(layer: Layer) -> str | None:
    """Say why a layer carries no fit, "" if it does; None of layers that are no points."""
    from napari.layers import Points

    if not isinstance(layer, Points):
        return None
    return "" if "fit" in layer.metadata.get(METADATA, {}) else None


@dataclass(frozen=True, eq=False)
class FitPoints:
    """A fit that a Points layer carries, as its points are now, and where it lies.

    Parameters
    ----------
    fit : FitResult
        With what was done to its points.
    placement : Placement
        Of its stack's voxels.
    name : str
        The layer's; layers of its objects are named after it.
    of : dict
        What was fitted, as layers carry it.
    """

    fit: FitResult
    placement: Placement
    name: str
    of: dict[str, Any]

    @classmethod
    def of_layer(cls, layer: Points) -> FitPoints:
        """Return what a layer carries.

        Raises
        ------
        SettingsError
            If its points are no Gaussians any more, or it is of several channels.
        """
        fit = fit_of_layer(layer)
        if len(fit.fields) > 1:
            message = f"{layer.name!r} is of several channels; fit the one that shows the objects"
            raise SettingsError(message)
        placement = Placement.of_layer(layer, fit.stack.spacing)
        of = layer.metadata.get(METADATA, {}).get(OF, {"layer": str(layer.name)})
        return cls(fit, placement, fit.stack.name, of)

    def is_of_same_fit(self, other: FitPoints) -> bool:
        """Tell whether another has the same Gaussians, at the same place."""
        if self.name != other.name or self.of != other.of:
            return False
        ours, theirs = self.fit.field.numpy(), other.fit.field.numpy()
        names = ("means", "cholesky", "amplitudes")
        lie = ("scale", "translate")
        return all(np.array_equal(getattr(ours, n), getattr(theirs, n)) for n in names) and all(
            np.array_equal(getattr(self.placement, n), getattr(other.placement, n)) for n in lie
        )

    def keywords(self, role: str) -> dict[str, Any]:
        """Return what all layers of its objects have."""
        made = {"name": f"{self.name} {role}", "metadata": {METADATA: {OF: self.of}}}
        return made | self.placement.keywords()


def cell_layers(found: FoundCells, points: FitPoints) -> dict[str, LayerData]:
    """Return Labels at the stack's sampling, and the centres as Points."""
    # napari looks a label up in the column of this name.
    features = found.table.rename(columns={"label": "index"})
    labels = {"features": features, "opacity": 0.55, **points.keywords("cells")}
    centres = {
        "features": found.table,
        "size": CENTRE_SIZE,
        "face_color": "white",
        "border_width": 0.0,
        "projection_mode": "all",
        **points.keywords("cell centres"),
    }
    places = points.placement.in_voxels(found.table[["z", "y", "x"]].to_numpy())
    return {
        "labels": (found.labels, labels, "labels"),
        "centres": (places, centres, "points"),
    }


def trace_layers(found: FoundTrace, points: FitPoints) -> dict[str, LayerData]:
    """Return the branches as Shapes for 3D, and the nodes as Points, as wide as the neurite.

    The features of both have order and radius.
    """
    import pandas as pd
    from matplotlib import colormaps

    spacing = points.placement.spacing
    nodes = points.placement.in_voxels(found.points)
    orders = found.table["order"].to_numpy()
    colours = colormaps[COLOURS](orders % 10)
    lines, branches = _lines(found, nodes)
    shapes = {
        "features": found.table.iloc[branches].reset_index(drop=True),
        "shape_type": "path",
        "edge_width": LINE_WIDTH,
        "edge_color": colours[branches],
        **points.keywords("branches"),
    }
    features = pd.DataFrame(
        {"branch": found.branch, "order": orders[found.branch], "radius": found.radii}
    )
    dots = {
        "features": features,
        "size": np.maximum(2 * found.radii / spacing[-1], 0.5),
        "face_color": colours[found.branch],
        "border_width": 0.0,
        "opacity": 0.35,
        "projection_mode": "all",
        **points.keywords("trace"),
    }
    return {"branches": (lines, shapes, "shapes"), "nodes": (nodes, dots, "points")}


def _lines(found: FoundTrace, nodes: NDArray[np.float64]) -> tuple[list[Any], list[int]]:
    """Return a path for each branch that has two nodes or more, and which branch it is."""
    lines, branches = [], []
    for number in range(len(found.table)):
        own = np.flatnonzero(found.branch == number)
        above = found.parents[own[0]] if len(own) else -1
        path = np.concatenate([[above], own]) if above >= 0 else own
        if len(path) > 1:
            lines.append(nodes[path])
            branches.append(number)
    return lines, branches
