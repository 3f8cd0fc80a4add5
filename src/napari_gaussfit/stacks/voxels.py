"""Voxels that can be fitted: of a type that is known, three axes, finite, not all the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_gaussfit._limits import BRIGHTEST
from napari_gaussfit.errors import SettingsError, StackError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["checked_voxels", "finite_voxels", "native_type"]


def checked_voxels(
    voxels: NDArray[Any], label: str, fill_nan: float | None
) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Return voxels that can be fitted, and a note if some were filled.

    Parameters
    ----------
    voxels : ndarray
        Voxels as they were read.
    label : str
        The stack, for messages.
    fill_nan : float or None
        The value to put in place of NaN and infinities; None refuses them.

    Returns
    -------
    ndarray, shape [Z, Y, X]
        The same array where there is nothing to change.
    tuple of str
        A note if some were filled.

    Raises
    ------
    StackError
        If they are of another type, too few, all the same, or too large.
    SettingsError
        If the filling value is no finite number of the voxels' type.
    """
    voxels = native_type(voxels, label)
    if voxels.ndim != 3 or min(voxels.shape) < 2:
        raise StackError(
            f"{label}: has shape {' x '.join(map(str, voxels.shape))}; "
            "expected three axes z, y, x with two voxels or more along each; "
            "choose one channel and one time first"
        )
    voxels, notes = finite_voxels(voxels, label, fill_nan)
    smallest, largest = voxels.min(), voxels.max()
    lowest, highest = float(smallest), float(largest)
    if smallest == largest:  # not of floats: those of large offsets may be one number
        raise StackError(
            f"{label}: is {lowest:g} in every voxel, with nothing to fit; check how it was saved"
        )
    if max(-lowest, highest) > BRIGHTEST:
        raise StackError(
            f"{label}: reaches from {lowest:g} to {highest:g}, beyond single precision and its "
            f"sums; scale the intensities down, to {BRIGHTEST:g} or less"
        )
    return voxels, notes


def native_type(voxels: NDArray[Any], label: str) -> NDArray[Any]:
    """Return integers or reals in this machine's byte order.

    Parameters
    ----------
    voxels : ndarray
        Voxels as they were read; booleans become 0 and 1.
    label : str
        The stack, for the message.

    Returns
    -------
    ndarray
        Contiguous; the same array where it is such.

    Raises
    ------
    StackError
        If they are of another type.
    """
    if voxels.dtype.kind == "b":
        return voxels.astype(np.uint8)
    if voxels.dtype.kind not in "uif":
        raise StackError(
            f"{label}: has voxels of type {voxels.dtype}; expected integers or real numbers; "
            "convert it first, e.g. to its magnitude"
        )
    return np.ascontiguousarray(voxels, dtype=voxels.dtype.newbyteorder("="))


def finite_voxels(
    voxels: NDArray[Any], label: str, fill_nan: float | None
) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Return the voxels with NaN and infinities filled, or refuse them with their count.

    Parameters
    ----------
    voxels : ndarray
        The intensities, integers or reals of any width.
    label : str
        The stack, for messages.
    fill_nan : float or None
        The value to put in their place; None refuses them.

    Returns
    -------
    ndarray
        The same array where there is nothing to fill.
    tuple of str
        A note if some were filled.

    Raises
    ------
    StackError
        If there are some and nothing to fill them with, or there is nothing else.
    SettingsError
        If the filling value is no finite number of the voxels' type.
    """
    finite = np.isfinite(voxels)
    count = voxels.size - int(np.count_nonzero(finite))
    if not count:
        return voxels, ()
    if count == voxels.size:
        raise StackError(
            f"{label}: every one of its {count:,} voxels is NaN or infinite; check how it was saved"
        )
    percent = 100 * count / voxels.size
    found = f"{count:,} of {voxels.size:,} voxels ({percent:.3g} %) are NaN or infinite"
    if fill_nan is None:
        raise StackError(
            f"{label}: {found}; a fit needs numbers; fill them with fill_nan=0 (--fill-nan 0)"
        )
    with np.errstate(over="ignore"):
        fill = voxels.dtype.type(fill_nan)
    if not np.isfinite(fill):
        raise SettingsError(
            f"fill_nan={fill_nan} is no finite {voxels.dtype}; give a number, e.g. fill_nan=0"
        )
    note = f"{found}; they were filled with {fill_nan:g} (fill_nan, --fill-nan)"
    return np.where(finite, voxels, fill), (note,)
