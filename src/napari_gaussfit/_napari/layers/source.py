"""What a viewer's layers say to a fit: a stack from an Image, a mask from a region, positions.

Reads layers and changes none. Knows no panel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_gaussfit._napari.layers.placement import METADATA, OF, Placement
from napari_gaussfit._napari.layers.spacing import (
    PIXEL,
    converted,
    known_spacing,
    layout_of,
    shown_spacing,
)
from napari_gaussfit._napari.layers.unwrapped import unwrapped
from napari_gaussfit.errors import StackError
from napari_gaussfit.stacks.large import is_large
from napari_gaussfit.stacks.layout import StackLayout, refuse_what_memory_cannot_hold, refused_shape
from napari_gaussfit.stacks.stack import Stack

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari.layers import Image, Labels, Layer, Points, Shapes
    from numpy.typing import NDArray

__all__ = [
    "Source",
    "axis_name",
    "mark",
    "mask_of",
    "positions_of",
    "refusal_of",
    "source_of",
]

_TIME, _CHANNEL = "time", "channel"
_NAMES = {"t": _TIME, "c": _CHANNEL}
_AXES = {"z": "z", "y": "y", "x": "x", "t": "t", "c": "c", _TIME: "t", _CHANNEL: "c", "ch": "c"}
"""What labels of axes mean."""


@dataclass(frozen=True, eq=False)
class Source:
    """A stack taken from a layer, and where it lies.

    Parameters
    ----------
    stack : Stack
        The stack that the layer shows, as it is fitted.
    placement : Placement
        Of its voxels in napari's world.
    name : str
        The layer's, with the time and channel taken of it; layers of the fit are named after it.
    contrast_limits : tuple of float
        Contrast limits of the layer.
    layer : napari.layers.Image
        The image layer that was chosen.
    place : tuple of int
        The stack's indices along the layer's axes before z, y and x.
    first : tuple of int
        The voxel (z, y, x) of the layer at which the stack begins.
    channels : tuple of Source
        The channels that are fitted together, in their order; empty where it is this stack alone.
    """

    stack: Stack
    placement: Placement
    name: str
    contrast_limits: tuple[float, float]
    layer: Image
    place: tuple[int, ...] = ()
    first: tuple[int, int, int] = (0, 0, 0)
    channels: tuple[Source, ...] = ()

    @property
    def parts(self) -> tuple[Source, ...]:
        """What is fitted: the channels, or the one stack."""
        return self.channels or (self,)

    @property
    def stacks(self) -> tuple[Stack, ...]:
        """The stacks that are fitted."""
        return tuple(part.stack for part in self.parts)

    @property
    def layers(self) -> tuple[Image, ...]:
        """The layers that are fitted, each once."""
        return tuple(dict.fromkeys(part.layer for part in self.parts))

    def record(self) -> dict[str, Any]:
        """Return what was fitted, for the metadata of layers that are made of it."""
        channels = [part.stack.channel for part in self.channels]
        return {
            "layer": str(self.layer.name),
            "id": str(self.layer.unique_id),
            "channel": None if channels else self.stack.channel,
            "time": self.stack.time,
            **({"channels": channels} if channels else {}),
        }

    def is_of_same_place(self, other: Source) -> bool:
        """Tell whether another source is of the same layers, at the same time and channels."""
        return self._places == other._places

    @property
    def _places(self) -> list[tuple[int, tuple[int, ...]]]:
        return [(id(unwrapped(part.layer)), part.place) for part in self.parts]

    def placed_anew(self) -> Source:
        """Return the source where its layer lies now."""
        placement = Placement.of_layer(self.layer, self.stack.spacing)
        return replace(self, placement=placement.starting_at(self.first))


def refusal_of(layer: Layer) -> str:
    """Say why an Image or Labels layer cannot be fitted, in words after its name; "" if it can.

    Goes by what the layer and its file say of its axes. The voxels are not looked at.
    """
    from napari.layers import Labels

    if isinstance(layer, Labels):
        return "marks objects (Labels); choose it under Region, or convert it to an image"
    if layer.rgb:
        return "is a colour (RGB) image; split its colours and fit one of them"
    if layer.ndim < 3:
        return "is a 2D image; a stack needs z, y and x"
    meant = [_meaning(str(label)) for label in layer.axis_labels[-3:]]
    if meant == ["z", "y", "x"]:
        return ""
    if any(found not in {"", axis} for found, axis in zip(meant, "zyx", strict=True)):
        has = ", ".join(str(label) for label in layer.axis_labels)
        return (
            f"has the axes {has}, of which the last three are not z, y, x; split its channels, "
            "or open it with its axes in this order"
        )
    return _refusal_of_file(layer)


def _refusal_of_file(layer: Layer) -> str:
    """Say why the file that a layer was opened from is no stack, if the layer has its axes."""
    found = layout_of(layer)
    if isinstance(found, StackError) and refused_shape(found) == tuple(layer.data.shape[-3:]):
        return str(found).removeprefix(f"{layer.source.path}: ")
    return ""


def _axis_notes(layer: Layer) -> tuple[str, ...]:
    """Say what is assumed of the last three axes, where neither layer nor file names them."""
    found = layout_of(layer)
    if isinstance(found, StackLayout) and found.stack_shape == tuple(layer.data.shape[-3:]):
        return found.axis_notes
    if all(_unnamed(str(label)) for label in layer.axis_labels[-3:]):
        return ("its axes have no names; the last three are taken for z, y and x",)
    return ()


def mark(keywords: dict[str, Any], source: Source) -> None:
    """Write into a layer's keywords what the fit is of that it is made of."""
    metadata = keywords.get("metadata", {})
    carried = {**metadata.get(METADATA, {}), OF: source.record()}
    keywords["metadata"] = {**metadata, METADATA: carried}


def axis_name(layer: Layer, axis: int) -> str:
    """Return what an axis before z, y, x is called: "time", "channel", or its label."""
    label = str(layer.axis_labels[axis])
    own = f"axis {axis}" if _unnamed(label) else label
    return _NAMES.get(_meaning(label), own)


def _meaning(label: str) -> str:
    """Return "t", "c", "z", "y" or "x" for a label that means one of them, else ""."""
    return _AXES.get(label.strip().lower(), "")


def _unnamed(label: str) -> bool:
    """Tell whether a label is napari's own, which counts axes from the last."""
    return label.removeprefix("axis ").lstrip("-").isdigit()


def source_of(layer: Image, place: Sequence[int] = (), mask: Any = None) -> Source:
    """Return the stack of an Image layer.

    Parameters
    ----------
    layer : napari.layers.Image
        With three axes or more.
    place : sequence of int
        Indices along the axes before z, y and x: time and the like.
    mask : ndarray, shape [Z, Y, X], optional
        True where to fit.

    Raises
    ------
    StackError
        If the voxels are no stack that can be fitted, or the mask marks none of them.
    """
    names = [axis_name(layer, axis) for axis in range(layer.ndim - 3)]
    chosen = dict(zip(names, place, strict=True))
    name = " ".join([str(layer.name), *(f"{axis} {index}" for axis, index in chosen.items())])
    voxels, corner, mask = _voxels_of(layer, name, tuple(place), mask)
    # Voxels that are not square keep their proportions also where the unit is unknown.
    spacing, _ = shown_spacing(layer)
    known = known_spacing(layer)
    stack = Stack.from_array(
        voxels,
        spacing=known or spacing,
        unit="micrometer" if known else PIXEL,
        name=name,
        fill_nan=0.0,
    )
    carried = layer.metadata.get(METADATA, {})
    placement = Placement.of_layer(layer, stack.spacing)
    stack = replace(
        stack,
        origin=placement.starting_at(corner).origin,
        channel=chosen.get(_CHANNEL, carried.get("channel")),
        time=chosen.get(_TIME),
        notes=(*_axis_notes(layer), *stack.notes),
    )
    first = corner
    if mask is not None:
        from napari_gaussfit.stacks.region import crop

        stack, (z, y, x) = crop(stack, mask)
        first = (corner[0] + z, corner[1] + y, corner[2] + x)
    low, high = layer.contrast_limits
    placement = placement.starting_at(first)
    return Source(stack, placement, name, (float(low), float(high)), layer, tuple(place), first)


def _voxels_of(
    layer: Image, name: str, place: tuple[int, ...], mask: Any
) -> tuple[NDArray[Any], tuple[int, int, int], Any]:
    """Read a layer's voxels; of what is not in memory, no more than lies around a mask.

    Returns
    -------
    voxels : ndarray, shape [Z, Y, X]
        Those of the layer, or of the smallest box around the mask.
    corner : tuple of int
        The first of them in the layer.
    mask : ndarray or None
        That of these voxels.

    Raises
    ------
    StackError
        If there are too many to be read without a word.
    """
    level = layer.data[0] if layer.multiscale else layer.data
    if isinstance(level, np.ndarray):
        return level[place], (0, 0, 0), mask
    z, y, x = (slice(0, int(n)) for n in level.shape[-3:])
    box = z, y, x
    if mask is not None and is_large(level.shape[-3:]):
        from napari_gaussfit.stacks.region import box_around

        box = box_around(mask)
        mask = mask[box]
    shape = [part.stop - part.start for part in box]
    if is_large(shape):
        raise StackError(
            f"{name}: its {math.prod(shape):,} voxels are not read in one piece, but fitted by "
            "tiles (Setup); or choose a smaller Region of it"
        )
    refuse_what_memory_cannot_hold(name, math.prod(shape) * np.dtype(level.dtype).itemsize, 0)
    corner = box[0].start, box[1].start, box[2].start
    return np.asarray(level[(*place, *box)]), corner, mask


def mask_of(region: Shapes | Labels, layer: Image, place: Sequence[int] = ()) -> NDArray[np.bool_]:
    """Return where a region covers a layer's stack [Z, Y, X].

    Shapes count for every z and time, as they are drawn over an image; of Labels all but 0 counts,
    at the stack's own `place` where they have one for each.

    Raises
    ------
    StackError
        If Labels have another shape than the stack.
    """
    shape = layer.data.shape[-3:]
    if not hasattr(region, "shape_type"):
        labels = np.asarray(region.data)
        if labels.shape[-len(shape) :] != shape[-labels.ndim :]:
            message = (
                f"the region {region.name!r} has shape {labels.shape}, the stack {tuple(shape)}; "
                "take labels made for this stack"
            )
            raise StackError(message)
        labels = labels[_place_in(region, tuple(place))]
        return np.broadcast_to(labels != 0, shape)
    from skimage import draw

    polygon: Callable[..., Any] = draw.polygon
    covered = np.zeros(shape[-2:], bool)
    for kind, vertices in zip(region.shape_type, region.data, strict=True):
        outline = _ellipse(vertices) if kind == "ellipse" else vertices
        rows, columns = _in_data_of(layer, region, outline)[:, -2:].T
        covered[polygon(rows, columns, covered.shape)] = True
    return np.broadcast_to(covered, shape)


def _place_in(region: Labels, place: tuple[int, ...]) -> tuple[int, ...]:
    """Return the indices of a stack's place along the axes of Labels before z, y and x."""
    before = region.data.shape[:-3]
    known = (*(0,) * (len(before) - len(place)), *place)[-len(before) :] if before else ()
    found = tuple(0 if size == 1 else index for size, index in zip(before, known, strict=True))
    missing = any(size > 1 for size in before[: len(before) - len(place)])
    if missing or any(index >= size for index, size in zip(found, before, strict=True)):
        raise StackError(
            f"the region {region.name!r} has shape {region.data.shape}, with no place for the "
            "time or channel of this stack; take labels made for this stack"
        )
    return found


def _ellipse(corners: Any) -> NDArray[np.float64]:
    """Return points on the ellipse that napari keeps as the four corners around it."""
    first, second, _, last = np.asarray(corners, np.float64)
    angles = np.linspace(0, 2 * np.pi, 64, endpoint=False)[:, None]
    middle = (second + last) / 2
    outline: NDArray[np.float64] = (
        middle + np.cos(angles) * (second - first) / 2 + np.sin(angles) * (last - first) / 2
    )
    return outline


def positions_of(points: Points, layer: Image, source: Source) -> NDArray[np.float64]:
    """Return points [P, 3] (z, y, x in the stack's unit) relative to the source's first voxel.

    Of points in more axes than z, y and x, those at the source's time and channel.

    Raises
    ------
    StackError
        If none is there.
    """
    found = _in_data_of(layer, points, points.data)
    if points.ndim > 3:
        found = found[(np.round(found[:, :-3]) == source.place).all(axis=1)]
        if not len(found):
            raise StackError(
                f"no point of {points.name!r} is at {source.name!r}; choose the points' time"
            )
    spacing = np.asarray(source.stack.spacing)
    positions: NDArray[np.float64] = (found[:, -3:] - source.first) * spacing
    return positions


def _in_data_of(layer: Layer, other: Layer, coordinates: Any) -> NDArray[np.float64]:
    """Return coordinates of one layer's data in another's, axes counted from the last."""
    world = np.array([other.data_to_world(one) for one in np.asarray(coordinates, np.float64)])
    world = world.reshape(len(coordinates), -1)
    shared = range(-min(world.shape[1], layer.ndim), 0)
    for axis in shared:
        # Each layer counts in units of its own, which napari brings together where it draws.
        world[:, axis] *= converted(1.0, str(other.units[axis]), str(layer.units[axis]))
    missing = max(0, layer.ndim - world.shape[1])
    world = np.concatenate([np.zeros((len(world), missing)), world], axis=1)
    found = np.array([layer.world_to_data(one) for one in world[:, -layer.ndim :]])
    return found.reshape(len(coordinates), layer.ndim)
