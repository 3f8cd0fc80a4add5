"""Where a field is evaluated: regular grids and bundles of rays, as plain numbers.

Knows no camera model, no stack and no torch: `Grid` and `Rays` are what a kernel needs to
know of either.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Grid:
    """A regular grid of points: point (i, j, k) lies at ``origin + (i, j, k) * spacing``.

    Attributes
    ----------
    origin : ndarray, shape (3,), float32
        Position of point (0, 0, 0), axis order z, y, x.
    spacing : ndarray, shape (3,), float32
        Distance of neighbouring points along each axis.
    shape : tuple of int
        Number of points along z, y, x.
    """

    origin: NDArray[np.float32]
    spacing: NDArray[np.float32]
    shape: tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Rays:
    """Rays x(t) = o + t d through the pixels of an image, clipped to a box.

    Origins and directions are affine in the pixel's indices, which covers orthographic
    cameras (directions constant) and pinhole cameras (origins constant) alike:

        o(i, j) = frame[0] + i frame[1] + j frame[2]
        d(i, j) = frame[3] + i frame[4] + j frame[5]

    Attributes
    ----------
    frame : ndarray, shape (6, 3), float32
        The vectors above, axis order z, y, x.
    shape : tuple of int
        Rows and columns of the image.
    lower, upper : ndarray, shape (3,), float32
        Corners of the box. Outside ``near <= t`` and outside the box a ray does not exist.
    near : float
        Smallest t; -inf for an orthographic camera.
    """

    frame: NDArray[np.float32]
    shape: tuple[int, int]
    lower: NDArray[np.float32]
    upper: NDArray[np.float32]
    near: float

    @property
    def perspective(self) -> bool:
        """Whether the directions differ from pixel to pixel."""
        return bool(np.any(self.frame[4:]))
