"""The spacing of a layer: what it is, what its file says, and how it is given another.

Knows no widget. Numbers go from one unit of length to another by their decimal digits: 22.49
nanometers are 0.02249 micrometers, not 0.022490000000000003.
"""

from __future__ import annotations

from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_gaussfit._napari.layers.placement import METADATA, OF
from napari_gaussfit._napari.layers.unwrapped import is_same
from napari_gaussfit.errors import StackError
from napari_gaussfit.stacks.layout import PIXEL_SPACING, StackLayout
from napari_gaussfit.stacks.readers import is_stack_file, read_layout
from napari_gaussfit.stacks.units import micrometers_per

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from napari.layers import Layer

    Spacing = tuple[float, float, float]

__all__ = [
    "PIXEL",
    "converted",
    "file_spacing",
    "known_spacing",
    "layout_of",
    "set_size",
    "set_spacing",
    "set_unit",
    "shown_spacing",
]

_AXES = (-3, -2, -1)

PIXEL = "pixel"
"""The unit of a layer whose voxels have no known size, as napari spells it."""


def known_spacing(layer: Layer) -> Spacing | None:
    """Return a layer's (dz, dy, dx) in micrometers, None where its units are no lengths."""
    sizes, unit = shown_spacing(layer)
    if unit == PIXEL:
        return None
    dz, dy, dx = (converted(size, unit, "micrometer") for size in sizes)
    return dz, dy, dx


def shown_spacing(layer: Layer) -> tuple[Spacing, str]:
    """Return a layer's (dz, dy, dx) and their unit: its own, or micrometers where it has several.

    The unit is `PIXEL` where not all three are lengths.
    """
    dz, dy, dx = (abs(float(size)) for size in layer.scale[-3:])
    units = [str(unit) for unit in layer.units[-3:]]
    if any(micrometers_per(unit) is None for unit in units):
        return (dz, dy, dx), PIXEL
    if len(set(units)) == 1:
        return (dz, dy, dx), units[0]
    sizes = zip((dz, dy, dx), units, strict=True)
    dz, dy, dx = (converted(size, unit, "micrometer") for size, unit in sizes)
    return (dz, dy, dx), "micrometer"


def file_spacing(layer: Layer) -> tuple[Spacing, str] | None:
    """Return what the layer's source file says of its voxels, and the unit, if it says anything.

    The unit is micrometers, or `PIXEL` of a file that has their proportions alone.
    """
    layout = layout_of(layer)
    if not isinstance(layout, StackLayout):
        return None  # The layer holds what napari found in it; the file has no more to offer.
    if layout.stack_shape != tuple(layer.data.shape[-3:]) or layout.scale == PIXEL_SPACING:
        return None
    return layout.scale, layout.unit


def layout_of(layer: Layer) -> StackLayout | StackError | None:
    """Return what the layer's source file says of itself, or why it is no stack; None without."""
    path = layer.source.path
    if path is None or not is_stack_file(path):
        return None
    position = layer.metadata.get(METADATA, {}).get("position")
    try:
        return _read(str(path), Path(path).stat().st_mtime_ns, position)
    except OSError:
        return None


@lru_cache(maxsize=64)
def _read(path: str, _changed: int, position: int | None) -> StackLayout | StackError:
    try:
        return read_layout(path, position=position)
    except StackError as refusal:
        return refusal


def set_size(layer: Layer, axis: int, size: float, unit: str, others: Iterable[Layer]) -> None:
    """Give a layer another voxel size along an axis, and leave the rest to the last digit.

    Parameters
    ----------
    layer : napari.layers.Layer
        Whose voxels they are.
    axis : int
        -3, -2, -1 for z, y, x.
    size : float
        The new distance between voxels, in the layer's unit.
    unit : str
        Of this size. The layer keeps its own.
    others : iterable of Layer
        Those among them that lie on the layer's voxels follow it.
    """
    scale = [float(one) for one in layer.scale]
    # A layer may be mirrored along an axis, and stays so.
    scale[axis] = np.copysign(converted(size, unit, str(layer.units[axis])), scale[axis])
    _rescale(layer, scale, [str(one) for one in layer.units], others)


def set_unit(layer: Layer, unit: str, others: Iterable[Layer]) -> None:
    """Give a layer's last three axes another unit.

    Lengths stay as long as they are. Where the unit before or after is `PIXEL`, the numbers stay.
    """
    units = [str(one) for one in layer.units]
    scale = [float(size) for size in layer.scale]
    for axis in _AXES:
        scale[axis] = converted(scale[axis], units[axis], unit)
        units[axis] = unit
    _rescale(layer, scale, units, others)


def set_spacing(
    layer: Layer, spacing: Sequence[float], unit: str, others: Iterable[Layer] = ()
) -> None:
    """Give a layer's last three axes a spacing and its unit; see `set_size` for `others`."""
    scale = [*layer.scale[:-3], *np.copysign(spacing, layer.scale[-3:])]
    units = [*(str(one) for one in layer.units[:-3]), *[unit] * 3]
    _rescale(layer, [float(size) for size in scale], units, others)


def converted(length: float, before: str, after: str) -> float:
    """Return a length in another unit; the number itself where one of the two is no length."""
    old, new = micrometers_per(before), micrometers_per(after)
    if old is None or new is None or old == new:
        return length
    return float(Decimal(repr(float(length))) * Decimal(repr(old)) / Decimal(repr(new)))


def _rescale(layer: Layer, scale: list[float], units: list[str], others: Iterable[Layer]) -> None:
    """Give a layer, and those others that lie on its voxels, another scale and other units."""
    was, origin, new_origin = layer.scale.copy(), layer.translate.copy(), layer.translate.copy()
    for axis in _AXES:
        length = float(origin[axis])
        new_origin[axis] = converted(length, str(layer.units[axis]), units[axis])
    for one in [other for other in others if _lies_on(other, layer)]:
        its_scale, its_origin = one.scale.copy(), one.translate.copy()
        its_units = [str(unit) for unit in one.units]
        for axis in _AXES[-one.ndim :]:
            ratio = 1.0 if its_scale[axis] == was[axis] else its_scale[axis] / was[axis]
            voxels = (its_origin[axis] - origin[axis]) / was[axis]
            its_scale[axis] = ratio * scale[axis]
            its_origin[axis] = new_origin[axis] + voxels * scale[axis]
            its_units[axis] = units[axis]
        _place(one, its_scale, its_origin, its_units)
    _place(layer, scale, new_origin, units)


def _place(layer: Layer, scale: Any, translate: Any, units: list[str]) -> None:
    # The view follows each of these at once: what stays is left alone.
    if not np.array_equal(layer.scale, scale):
        layer.scale = scale
    if not np.array_equal(layer.translate, translate):
        layer.translate = translate
    if [str(unit) for unit in layer.units] != units:
        layer.units = units


def _lies_on(other: Layer, layer: Layer) -> bool:
    """Tell whether another layer counts in this one's voxels: its fit, points, labels, channels."""
    from napari.layers import Image, Labels

    axes = slice(-min(3, other.ndim), None)
    if is_same(other, layer) or other.units[axes] != layer.units[axes]:
        return False
    if OF in other.metadata.get(METADATA, {}):
        return bool(other.metadata[METADATA][OF]["id"] == str(layer.unique_id))
    if not np.array_equal(other.scale[axes], layer.scale[axes]):
        return False
    if not isinstance(other, (Image, Labels)):
        return True
    shape = tuple(other.data.shape[: other.ndim])
    return shape[axes] == tuple(layer.data.shape)[axes]
