"""A large stack in a viewer: which file it is of, which box of it is fitted, and where that lies.

Reads layers, and none of their voxels.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_gaussfit._napari.layers.placement import METADATA, Placement
from napari_gaussfit._napari.layers.source import axis_name
from napari_gaussfit._napari.layers.spacing import known_spacing, layout_of
from napari_gaussfit.errors import StackError
from napari_gaussfit.stacks.facts import StackFacts
from napari_gaussfit.stacks.large import is_large
from napari_gaussfit.stacks.layout import StackLayout
from napari_gaussfit.stacks.region import box_around

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari.layers import Image, Layer
    from numpy.typing import NDArray

    Place = tuple[int, int, int]
    Chosen = tuple[Image, tuple[int, ...]]
    """A layer, and its indices along the axes before z, y and x."""

__all__ = ["LargeSource", "is_large_layer"]


def is_large_layer(layer: Layer | None) -> bool:
    """Tell whether a layer holds a stack that is better fitted by tiles."""
    return layer is not None and layer.ndim >= 3 and is_large(layer.data.shape[-3:])


@dataclass(frozen=True, eq=False)
class LargeSource:
    """The file of a layer, or of layers that are its channels, and what of it is fitted.

    Parameters
    ----------
    path : Path
        The file that the layer was opened from.
    layer : napari.layers.Image
        The layer that is chosen as the stack.
    channels : tuple of (int or None)
        Which are fitted together; None where the file has one.
    time, position : int or None
        Which time and image of the file.
    spacing : tuple of float or None
        (dz, dy, dx) in micrometers where the layer has another than the file.
    shape : tuple of int
        Voxels of the stack along z, y and x.
    part : tuple of two tuples of int, or None
        The first voxel that is fitted, and the one behind the last; None for all of them.
    placement : Placement
        Of the first voxel that is fitted.
    unit : str
        Of the placement's spacing.
    """

    path: Path
    layer: Image
    channels: tuple[int | None, ...]
    time: int | None
    position: int | None
    spacing: tuple[float, float, float] | None
    shape: Place
    part: tuple[Place, Place] | None
    placement: Placement
    unit: str

    @classmethod
    def of(cls, chosen: Sequence[Chosen], mask: NDArray[Any] | None = None) -> LargeSource:
        """Return the file of layers.

        Parameters
        ----------
        chosen : sequence of (Image, tuple of int)
            The channels, one at least.
        mask : ndarray, shape [Z, Y, X], optional
            Marks the region, of which the smallest box around it is fitted.

        Raises
        ------
        StackError
            If they are of no file that another process can read, or the mask marks nothing.
        """
        layer, place = chosen[0]
        path, layout = _file_of(layer)
        if any(_file_of(other)[0] != path for other, _ in chosen):
            raise StackError(
                f"{layer.name}: by tiles, channels that are fitted together are of one file; tick "
                "those of one file"
            )
        z, y, x = layout.stack_shape
        part, first = None, (0, 0, 0)
        if mask is not None:
            box = box_around(mask)
            first = box[0].start, box[1].start, box[2].start
            part = first, (box[0].stop, box[1].stop, box[2].stop)
        known = known_spacing(layer)
        spacing = known if known is not None and known != layout.spacing else None
        placement = Placement.of_layer(layer, spacing or layout.scale)
        return cls(
            path,
            layer,
            tuple(_index(one, at, layout, "channel") for one, at in chosen),
            _index(layer, place, layout, "time"),
            layer.metadata.get(METADATA, {}).get("position"),
            spacing,
            (z, y, x),
            part,
            placement.starting_at(first),
            "micrometer" if spacing else layout.unit,
        )

    @property
    def name(self) -> str:
        """What the layer is called."""
        return str(self.layer.name)

    @property
    def facts(self) -> StackFacts:
        """Name, size and spacing of what is fitted."""
        dz, dy, dx = map(float, self.placement.spacing)
        first, end = self.part or ((0, 0, 0), self.shape)
        z, y, x = (b - a for a, b in zip(first, end, strict=True))
        return StackFacts(self.name, (z, y, x), (dz, dy, dx), self.unit)

    @property
    def words(self) -> str:
        """How large it is, and which part of it is fitted."""
        text = f"{_by(self.shape)} voxels"
        if self.part is None:
            return text
        first, end = self.part
        ranges = (
            f"{axis} {a:,} to {b - 1:,}" for axis, a, b in zip("zyx", first, end, strict=True)
        )
        size = prod(b - a for a, b in zip(first, end, strict=True))
        return f"{text}; of these {', '.join(ranges)}: {size:,}"


def _by(shape: Place) -> str:
    return " x ".join(f"{n:,}" for n in shape)


def _file_of(layer: Layer) -> tuple[Path, StackLayout]:
    """Return the file of a layer, and what it says of itself."""
    layout = layout_of(layer)
    if not isinstance(layout, StackLayout):
        raise StackError(
            f"{layer.name}: is not of a file that can be read by parts; save it as OME-Zarr, and "
            "drop that here"
        )
    if layout.stack_shape != tuple(layer.data.shape[-3:]):
        raise StackError(
            f"{layer.name}: has another shape than its file, {_by(layout.stack_shape)}; drop the "
            "file here again"
        )
    return layout.path, layout


def _index(layer: Layer, place: tuple[int, ...], layout: StackLayout, axis: str) -> int | None:
    """Return which channel or time a layer shows, None where its file has but one."""
    count = layout.channels if axis == "channel" else layout.times
    if count == 1:
        return None
    names = [axis_name(layer, n) for n in range(layer.ndim - 3)]
    if axis in names:
        return place[names.index(axis)]
    known: int | None = layer.metadata.get(METADATA, {}).get(axis)
    if known is None:
        raise StackError(
            f"{layer.name}: which {axis} of its file's {count} it is cannot be told; drop the file "
            "on this panel, whose reader says so"
        )
    return known
