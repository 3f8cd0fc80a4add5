"""Numba kernel that finds where the rays of a view enter and leave the box."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from napari_gaussfit._kernels.cpu.jit import exact_kernel
from napari_gaussfit._kernels.shared.gaussian import Array

Exact = NDArray[np.float64]

PARALLEL = 1e-12  # slower than this along an axis, a ray never crosses that axis's faces


@exact_kernel
def clip_rows(
    frame: Exact,
    lower: Array,
    upper: Array,
    nearest: float,
    near: Array,
    far: Array,
    first: int,
    end: int,
) -> None:
    """Set rows [first, end) of `near` and `far` [H, W]; both are 0 where a ray misses the box.

    frame : [6, 3] as `Rays.frame`.
    nearest : smallest t that a ray may have.
    """
    for i in range(first, end):
        for j in range(near.shape[1]):
            enters, leaves = nearest, math.inf
            for axis in range(3):
                origin = frame[0, axis] + i * frame[1, axis] + j * frame[2, axis]
                direction = frame[3, axis] + i * frame[4, axis] + j * frame[5, axis]
                if abs(direction) < PARALLEL:
                    if origin < lower[axis] or origin > upper[axis]:
                        enters = math.inf
                    continue
                one, other = (lower[axis] - origin) / direction, (upper[axis] - origin) / direction
                enters, leaves = max(enters, min(one, other)), min(leaves, max(one, other))
            hit = enters < leaves
            near[i, j] = np.float32(enters if hit else 0.0)
            far[i, j] = np.float32(leaves if hit else 0.0)
