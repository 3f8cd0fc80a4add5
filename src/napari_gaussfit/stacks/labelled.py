"""Arrays that name their axes, such as xarray's: dims, coordinates and units become a stack's.

Knows no xarray: what has ``dims``, ``coords`` and ``values`` is enough.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_gaussfit.errors import StackError
from napari_gaussfit.stacks.units import micrometers_per

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_gaussfit.stacks.layout import Spacing

__all__ = ["Labelled", "is_labelled", "read_labelled"]

EVEN = 1e-3
"""Parts of a step by which steps of coordinates may differ: those of files are rounded."""

_CHOICES = {"channel": ("c", "ch", "channel", "channels"), "time": ("t", "time", "times")}


@dataclass(frozen=True, eq=False)
class Labelled:
    """What a labelled array says.

    Parameters
    ----------
    voxels : ndarray, shape [Z, Y, X]
        The intensities, neither converted nor scaled.
    spacing : tuple of float or None
        (dz, dy, dx) in micrometres; None where the coordinates have no unit of length.
    origin : tuple of float
        The first voxel's centre (z, y, x), in micrometres or, without a unit, 0.
    channel, time : int or None
        Which one was taken, None where there is one.
    name : str
        The array's own; empty where it has none.
    """

    voxels: NDArray[Any]
    spacing: Spacing | None
    origin: Spacing
    channel: int | None
    time: int | None
    name: str


def is_labelled(array: Any) -> bool:
    """Tell whether an array names its axes.

    Parameters
    ----------
    array : Any
        What was given for voxels.
    """
    return all(hasattr(array, name) for name in ("dims", "coords", "values", "isel"))


def read_labelled(array: Any, *, channel: int | str | None, time: int | str | None) -> Labelled:
    """Return voxels, spacing and place of an array that names its axes.

    Parameters
    ----------
    array : DataArray
        With the dims z, y, x in any order and, maybe, of channels (c, channel) and times (t, time).
    channel, time : int or str or None
        Which one to take, from 0 or by its coordinate; must be given where there are several.

    Raises
    ------
    StackError
        If there are other dims, a choice is missing or not on offer, or voxels are not evenly
        spaced.
    """
    chosen: dict[str, int | None] = {}
    for what, wanted in (("channel", channel), ("time", time)):
        dims = [dim for dim in array.dims if str(dim).lower() in _CHOICES[what]]
        index = _index_along(array, dims, what, wanted)
        chosen[what] = index if dims and array.sizes[dims[0]] > 1 else None
        if dims:
            array = array.isel({dims[0]: index})
    by_name = {str(dim).lower(): dim for dim in array.dims}
    if sorted(by_name) != ["x", "y", "z"]:
        raise StackError(
            f"the array has the dims {', '.join(map(str, array.dims))}; expected z, y, x (and "
            "channel, time): rename them, or give array.values and spacing=(dz, dy, dx)"
        )
    whole = array.transpose(*(by_name[axis] for axis in "zyx"))
    places = [_place_along(whole, by_name[axis]) for axis in "zyx"]
    known = [place for place in places if place is not None]
    spacing: Spacing | None = None
    origin: Spacing = (0.0, 0.0, 0.0)
    if len(known) == 3:
        (z, dz), (y, dy), (x, dx) = known
        origin, spacing = (z, y, x), (dz, dy, dx)
    name = "" if array.name is None else str(array.name)
    return Labelled(
        np.asarray(whole.values), spacing, origin, chosen["channel"], chosen["time"], name
    )


def _index_along(array: Any, dims: list[Any], what: str, wanted: int | str | None) -> int:
    """Return which channel or time is meant."""
    count = array.sizes[dims[0]] if dims else 1
    labels = [str(label) for label in array.coords[dims[0]].values] if _has(array, dims) else []
    if wanted is None and count == 1:
        return 0
    offered = f"N, N from 0 to {count - 1}"
    offered += f", or one of {', '.join(labels[:12])}" if labels else ""
    if isinstance(wanted, str):
        if labels.count(wanted) == 1:
            return labels.index(wanted)
    elif wanted is not None and 0 <= wanted < count:
        return int(wanted)
    found = f"has {count} {what}s" if wanted is None else f"has no {what} {wanted!r}"
    raise StackError(f"the array {found}; choose {what}={offered}")


def _has(array: Any, dims: list[Any]) -> bool:
    return bool(dims) and dims[0] in array.coords


def _place_along(array: Any, dim: Any) -> tuple[float, float] | None:
    """Return the first coordinate and the step in micrometres; None without a unit of length."""
    if dim not in array.coords:
        return None
    coordinate = array.coords[dim]
    values = np.asarray(coordinate.values, np.float64)
    unit = coordinate.attrs.get("units", coordinate.attrs.get("unit"))
    factor = None if unit is None else micrometers_per(str(unit))
    if unit is not None and factor is None and str(unit).lower() not in ("pixel", "pixels", "px"):
        raise StackError(
            f"the array's {dim} is in {str(unit)[:40]!r}, which is no length known here; give "
            "attrs['units'] as 'micrometer' or 'nanometer'"
        )
    if factor is None or len(values) < 2:
        return None
    steps = np.diff(values)
    step = float(steps.mean())
    if not step > 0 or np.abs(steps - step).max() > EVEN * step:
        raise StackError(
            f"the array's {dim} runs in steps of {steps.min():g} to {steps.max():g}; expected even "
            "ones, upwards: interpolate or sort it first"
        )
    return float(values[0]) * factor, step * factor
