"""Numba kernels that project a stack: rays marched through cubic B-splines.

Knows stacks only as spline coefficients. A cubic B-spline's value lies between the smallest and
the largest of the 64 coefficients around it: where that bound is below the best value found on
a ray, nothing needs to be interpolated. The maximum is the same, some ten times sooner.
"""

from __future__ import annotations

import math

from numba import njit

from napari_gaussfit._kernels.arithmetic import ONE, TWO, ZERO, Array, F

MARGIN = 2  # coefficients repeated (mirrored) beyond each face


@njit(inline="always")
def _weights(f: F) -> tuple[F, F, F, F]:
    """Weights of the four coefficients around a point, `f` beyond the second of them."""
    g = ONE - f
    sixth = F(1.0 / 6.0)
    return (
        sixth * g * g * g,
        sixth * (F(4.0) - F(3.0) * f * f * (TWO - f)),
        sixth * (F(4.0) - F(3.0) * g * g * (TWO - g)),
        sixth * f * f * f,
    )


@njit(inline="always")
def _cell(position: F, size: int) -> int:
    """Index of the cell of `bounds` that holds a position in voxels, at least -1/2."""
    return min(max(int(position + ONE), 0), size - 1)


@njit(nogil=True, fastmath=True, error_model="numpy", cache=True)
def _interpolate(coefficients: Array, z: F, y: F, x: F) -> F:
    """Value at (z, y, x) in voxels; `coefficients` carry `MARGIN` on every side."""
    iz, iy, ix = int(math.floor(z)), int(math.floor(y)), int(math.floor(x))
    wz, wy, wx = _weights(z - F(iz)), _weights(y - F(iy)), _weights(x - F(ix))
    base = MARGIN - 1
    value = ZERO
    for a in range(4):
        plane = ZERO
        for b in range(4):
            row = coefficients[iz + base + a, iy + base + b, ix + base : ix + base + 4]
            plane += wy[b] * (wx[0] * row[0] + wx[1] * row[1] + wx[2] * row[2] + wx[3] * row[3])
        value += wz[a] * plane
    return value


@njit(nogil=True, fastmath=True, error_model="numpy", cache=True)
def march_maximum(
    coefficients: Array,
    bounds: Array,
    start: Array,
    ray: Array,
    near: Array,
    far: Array,
    step: F,
    image: Array,
    first: int,
    end: int,
) -> None:
    """Set rows [first, end) of `image` [H, W] to the largest value on each ray.

    bounds : [Z + 1, Y + 1, X + 1], the largest coefficient that matters in each cell.
    start, ray : [3, 3] each, in voxels: the two halves of `Rays.frame`.
    near, far : [H, W], in t; rays with near >= far keep their value.
    step : longest distance in t between samples.
    """
    for i in range(first, end):
        for j in range(image.shape[1]):
            if near[i, j] >= far[i, j]:
                continue
            count = int(math.ceil((far[i, j] - near[i, j]) / step)) + 1
            dt = (far[i, j] - near[i, j]) / F(count - 1)
            dz = ray[0, 0] + F(i) * ray[1, 0] + F(j) * ray[2, 0]
            dy = ray[0, 1] + F(i) * ray[1, 1] + F(j) * ray[2, 1]
            dx = ray[0, 2] + F(i) * ray[1, 2] + F(j) * ray[2, 2]
            z = start[0, 0] + F(i) * start[1, 0] + F(j) * start[2, 0] + near[i, j] * dz
            y = start[0, 1] + F(i) * start[1, 1] + F(j) * start[2, 1] + near[i, j] * dy
            x = start[0, 2] + F(i) * start[1, 2] + F(j) * start[2, 2] + near[i, j] * dx
            dz, dy, dx = dz * dt, dy * dt, dx * dt
            likely, place = -F(1e30), 0
            for n in range(count):
                bound = bounds[
                    _cell(z + F(n) * dz, bounds.shape[0]),
                    _cell(y + F(n) * dy, bounds.shape[1]),
                    _cell(x + F(n) * dx, bounds.shape[2]),
                ]
                if bound > likely:
                    likely, place = bound, n
            n = place
            best = _interpolate(coefficients, z + F(n) * dz, y + F(n) * dy, x + F(n) * dx)
            for n in range(count):
                bound = bounds[
                    _cell(z + F(n) * dz, bounds.shape[0]),
                    _cell(y + F(n) * dy, bounds.shape[1]),
                    _cell(x + F(n) * dx, bounds.shape[2]),
                ]
                if bound > best:
                    best = max(
                        best,
                        _interpolate(coefficients, z + F(n) * dz, y + F(n) * dy, x + F(n) * dx),
                    )
            image[i, j] = best
