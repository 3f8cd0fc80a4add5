"""Layers with an axis of time: which stack each time is, and where what is found at it is shown.

Reads layers and changes none. Knows no panel.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_gaussfit._napari.layers.channels import common_name
from napari_gaussfit._napari.layers.source import axis_name, source_of
from napari_gaussfit._napari.layers.unwrapped import unwrapped
from napari_gaussfit.stacks.time_series import TimeSeries

if TYPE_CHECKING:
    import pandas as pd
    from napari.components import Dims
    from napari.layers import Image, Layer
    from numpy.typing import NDArray

    from napari_gaussfit._napari.layers.gaussians import LayerData
    from napari_gaussfit._napari.layers.source import Source

    Floats = NDArray[np.float64]

__all__ = ["Recording", "bring_into_view", "index_in_view", "time_axis", "world_units"]

TAIL = 5
"""Times that are seen of a track behind the one in view."""

_TRANSFORMS = ("scale", "translate", "rotate", "shear", "units", "axis_labels")


def time_axis(layer: Layer) -> int | None:
    """Return which axis before z, y and x is that of time, None where none is."""
    named = [axis_name(layer, axis) for axis in range(layer.ndim - 3)]
    return named.index("time") if "time" in named else None


def index_in_view(layer: Layer, axis: int, dims: Dims) -> int:
    """Return which index along an axis of a layer, counted from the first, a viewer shows."""
    before_last = axis - layer.ndim
    length = dims.point[before_last] / world_units(layer, before_last, dims)
    index: int = round((length - layer.translate[axis]) / layer.scale[axis])
    return index


def bring_into_view(layer: Layer, axis: int, index: int, dims: Dims) -> None:
    """Have a viewer show an index along an axis of a layer."""
    before_last = axis - layer.ndim
    length = layer.translate[axis] + index * layer.scale[axis]
    point = list(dims.point)
    point[before_last] = length * world_units(layer, before_last, dims)
    dims.point = tuple(point)


def world_units(layer: Layer, axis: int, dims: Dims) -> float:
    """Return what the layer's unit along an axis counts in those of the viewer."""
    if dims.units is None:
        return 1.0
    return float((1.0 * layer.units[axis]).to(dims.units[axis]).magnitude)


@dataclass(frozen=True, eq=False)
class Recording:
    """Times of a layer, or of layers that are channels, which are fitted one after the other.

    Parameters
    ----------
    first : Source
        What is fitted at the first of them.
    times : tuple of int
        Which times of the recording are fitted, ascending.
    mask : ndarray, shape [Z, Y, X], optional
        True where to fit, the same at all times.
    """

    first: Source
    times: tuple[int, ...]
    mask: Any = None

    @property
    def layer(self) -> Image:
        """The layer whose axis of time it is."""
        return self.first.layer

    @property
    def axis(self) -> int:
        """Which axis of the layer that is."""
        axis = time_axis(self.layer)
        return 0 if axis is None else axis

    @property
    def name(self) -> str:
        """What all times have in common."""
        return common_name(self.first.parts, but=("time",))

    @property
    def series(self) -> TimeSeries:
        """Return the times, of which each is taken from the layer when it is asked for."""
        return TimeSeries(self.times, lambda n: self.at(self.times[n]).stacks)

    def at(self, time: int) -> Source:
        """Return what is fitted at a time."""
        name = self.name
        parts = []
        for part in self.first.parts:
            place = list(part.place)
            place[self.axis] = time
            now = source_of(part.layer, place, self.mask)
            known = part.stack
            # Who types another spacing meanwhile means the next recording.
            stack = replace(
                now.stack,
                name=name,
                channel=known.channel,
                spacing=known.spacing,
                unit=known.unit,
            )
            parts.append(replace(now, stack=stack, placement=part.placement, name=name))
        channels = tuple(parts) if len(parts) > 1 else ()
        return replace(parts[0], channels=channels)

    @property
    def marked(self) -> Source:
        """What its layers are said to be of: no time of it alone."""
        return replace(self.first, stack=replace(self.first.stack, time=None))

    def is_of_same_layers(self, other: Recording) -> bool:
        """Tell whether another recording is of the same layers and channels."""
        return self._places == other._places

    @property
    def _places(self) -> list[tuple[int, tuple[int, ...]]]:
        axis = self.axis
        return [
            (id(unwrapped(part.layer)), (*part.place[:axis], *part.place[axis + 1 :]))
            for part in self.first.parts
        ]

    def places(self, means: Floats, time: int | NDArray[np.int64]) -> Floats:
        """Return positions [K, 3] of the fields' unit, at a time, in the layer's data [K, N]."""
        found = self.first.placement.in_voxels(means) + self.first.first
        before = np.tile(np.array(self.first.place, np.float64), (len(found), 1))
        before[:, self.axis] = time
        return np.concatenate([before, found], axis=1)

    def keywords(self) -> dict[str, Any]:
        """Return the transform of layers with all axes of the recording's own."""
        layer = self.layer
        return {
            **{name: getattr(layer, name) for name in _TRANSFORMS},
            "affine": layer.affine.affine_matrix,
        }

    def tracks_layer(self, table: pd.DataFrame) -> LayerData:
        """Return a Tracks layer, with axes of time, z, y and x alone.

        Parameters
        ----------
        table : DataFrame
            z, y, x in the fields' unit, time and track of all that is in one.
        """
        layer = self.layer
        at = self.places(table[["z", "y", "x"]].to_numpy(float), table["time"].to_numpy())
        keywords: dict[str, Any] = {
            "tail_length": TAIL,
            "head_length": 0,
            **{name: getattr(layer, name)[-4:] for name in ("scale", "translate", "units")},
        }
        rows = np.concatenate([table["track"].to_numpy()[:, None], at[:, -4:]], axis=1)
        return rows, keywords, "tracks"

    @property
    def has_tracks(self) -> bool:
        """Whether napari can draw its tracks: time is the axis next to z, and nothing is turned."""
        layer = self.layer
        straight = np.allclose(layer.affine.affine_matrix, np.eye(layer.ndim + 1))
        straight = straight and np.allclose(np.asarray(layer.rotate), np.eye(layer.ndim))
        return self.axis == layer.ndim - 4 and straight
