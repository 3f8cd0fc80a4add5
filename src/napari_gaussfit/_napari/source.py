"""What a viewer's layers say to a fit: a stack from an Image, a mask from a region, positions.

Reads layers and changes none. Knows no panel.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_gaussfit._napari.placement import Placement
from napari_gaussfit.errors import StackError
from napari_gaussfit.io.units import micrometers_per
from napari_gaussfit.stack import STACK_SUFFIXES, Stack, read_layout

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari.layers import Image, Labels, Layer, Points, Shapes
    from numpy.typing import NDArray

    Spacing = tuple[float, float, float]

__all__ = [
    "Source",
    "file_spacing",
    "is_stack",
    "known_spacing",
    "mask_of",
    "positions_of",
    "set_spacing",
    "source_of",
]


@dataclass(frozen=True, eq=False)
class Source:
    """A stack taken from a layer, and where it lies.

    Parameters
    ----------
    stack : Stack
        What is fitted.
    placement : Placement
        Of its voxels in napari's world.
    name : str
        The layer's; those of the fit are named after it.
    contrast_limits : tuple of float
        The layer's.
    """

    stack: Stack
    placement: Placement
    name: str
    contrast_limits: tuple[float, float]


def is_stack(layer: Layer) -> bool:
    """Tell whether a layer is an Image that holds stacks: three axes or more, one value each."""
    from napari.layers import Image, Labels

    if not isinstance(layer, Image) or isinstance(layer, Labels):
        return False
    return not layer.rgb and not layer.multiscale and layer.data.ndim >= 3


def known_spacing(layer: Layer) -> Spacing | None:
    """Return a layer's (dz, dy, dx) in micrometres, None where its units are no lengths."""
    in_micrometers = []
    for size, unit in zip(layer.scale[-3:], layer.units[-3:], strict=True):
        factor = micrometers_per(str(unit))
        if factor is None:
            return None
        in_micrometers.append(abs(float(size)) * factor)
    dz, dy, dx = in_micrometers
    return dz, dy, dx


def file_spacing(layer: Layer) -> Spacing | None:
    """Return what the layer's source file says of its spacing in micrometres, if anything."""
    path = layer.source.path
    if path is None or Path(path).suffix.lower() not in STACK_SUFFIXES:
        return None
    try:
        layout = read_layout(path)
    except StackError:
        return None  # The layer holds what napari found in it; the file has no more to offer.
    return layout.spacing if layout.stack_shape == tuple(layer.data.shape[-3:]) else None


def set_spacing(layer: Layer, spacing: Spacing, unit: str = "micrometer") -> None:
    """Give a layer's last three axes a spacing, so that all that is made of it has it too."""
    layer.scale = [*layer.scale[:-3], *spacing]
    layer.units = [*(str(one) for one in layer.units[:-3]), *[unit] * 3]


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
    spacing = known_spacing(layer)
    voxels = np.asarray(layer.data[tuple(place)])
    # Voxels that are not square keep their proportions also where the unit is unknown.
    shown = tuple(abs(float(size)) for size in layer.scale[-3:])
    stack = Stack.from_array(
        voxels,
        spacing=spacing or shown,
        unit="micrometer" if spacing else "pixel",
        name=str(layer.name),
        fill_nan=0.0,
    )
    placement = Placement.of_layer(layer, stack.spacing)
    if mask is not None:
        from napari_gaussfit.region import crop

        stack, first = crop(stack, mask)
        placement = placement.starting_at(first)
    low, high = layer.contrast_limits
    return Source(stack, placement, str(layer.name), (float(low), float(high)))


def mask_of(region: Shapes | Labels, layer: Image) -> NDArray[np.bool_]:
    """Return where a region covers a layer's stack [Z, Y, X].

    Shapes count for every z, as they are drawn over an image; of Labels all but 0 counts.

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
        labels = labels[(0,) * max(0, labels.ndim - 3)]
        return np.broadcast_to(labels != 0, shape)
    from skimage import draw

    polygon: Callable[..., Any] = draw.polygon
    covered = np.zeros(shape[-2:], bool)
    for kind, vertices in zip(region.shape_type, region.data, strict=True):
        outline = _ellipse(vertices) if kind == "ellipse" else vertices
        rows, columns = _in_data_of(layer, region, outline)[:, -2:].T
        covered[polygon(rows, columns, covered.shape)] = True
    return np.broadcast_to(covered, shape)


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
    """Return points [P, 3] (z, y, x in the stack's unit) relative to the source's first voxel."""
    voxels = _in_data_of(layer, points, points.data)[:, -3:]
    whole = Placement.of_layer(layer, source.stack.spacing)
    linear = whole.rotate @ whole.shear @ np.diag(whole.scale)
    first = np.linalg.solve(linear, source.placement.translate - whole.translate)
    positions: NDArray[np.float64] = (voxels - first) * np.asarray(source.stack.spacing)
    return positions


def _in_data_of(layer: Layer, other: Layer, coordinates: Any) -> NDArray[np.float64]:
    """Return coordinates of one layer's data in another's, axes counted from the last."""
    world = np.array([other.data_to_world(one) for one in np.asarray(coordinates, np.float64)])
    world = world.reshape(len(coordinates), -1)
    missing = max(0, layer.ndim - world.shape[1])
    world = np.concatenate([np.zeros((len(world), missing)), world], axis=1)
    found = np.array([layer.world_to_data(one) for one in world[:, -layer.ndim :]])
    return found.reshape(len(coordinates), layer.ndim)
