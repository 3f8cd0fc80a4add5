"""The part of a stack that is to be fitted."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from napari_gaussfit.errors import StackError
from napari_gaussfit.stacks.statistics import estimate_background

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_gaussfit.stacks.stack import Stack

__all__ = ["box_around", "crop"]


def box_around(mask: NDArray[np.bool_]) -> tuple[slice, slice, slice]:
    """Return the smallest box around what a mask marks.

    Parameters
    ----------
    mask : ndarray, shape [Z, Y, X]
        True where the stack is to be fitted. One that is the same in all planes, and holds but one
        (`numpy.broadcast_to`), is looked at once.

    Returns
    -------
    tuple of slice
        Along z, y and x.

    Raises
    ------
    StackError
        If it marks fewer than two voxels along an axis.
    """
    looked = mask if mask.strides[0] else mask[:1]
    marked = [np.flatnonzero(looked.any(axis=other)) for other in ((1, 2), (0, 2), (0, 1))]
    if len(looked) < len(mask) and len(marked[0]):
        marked[0] = np.arange(len(mask))
    if min(map(len, marked)) == 0 or any(found[-1] == found[0] for found in marked):
        message = (
            "the region marks fewer than two voxels of the stack along an axis; "
            "draw it larger, or over the stack"
        )
        raise StackError(message)
    z, y, x = (slice(int(found[0]), int(found[-1]) + 1) for found in marked)
    return z, y, x


def crop(stack: Stack, mask: NDArray[np.bool_]) -> tuple[Stack, tuple[int, int, int]]:
    """Return the smallest box of a stack around a mask, dark outside of the mask.

    Parameters
    ----------
    stack : Stack
        What to cut from.
    mask : ndarray, shape [Z, Y, X]
        True where the stack is to be fitted. Elsewhere in the box the voxels are set to the
        stack's estimated background, so that nothing is fitted there.

    Returns
    -------
    part : Stack
        Its first voxel is the origin of positions.
    first : tuple of int
        That voxel's index (z, y, x) in the whole stack.

    Raises
    ------
    StackError
        If the mask is of another shape, or marks fewer than two voxels along an axis.
    """
    if mask.shape != stack.shape:
        message = f"the region has shape {mask.shape}, the stack {stack.shape}; expected the same"
        raise StackError(message)
    box = box_around(mask)
    dark = stack.voxels.dtype.type(estimate_background(stack.voxels)[0])
    voxels = np.where(mask[box], stack.voxels[box], dark)
    z, y, x = (cut.start for cut in box)
    oz, oy, ox = np.add(stack.origin, np.multiply((z, y, x), stack.spacing)).tolist()
    return replace(stack, voxels=voxels, origin=(oz, oy, ox)), (z, y, x)
