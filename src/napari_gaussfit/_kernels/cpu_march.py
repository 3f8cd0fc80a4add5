"""Numba kernels that project a stack: rays marched through cubic B-splines.

Knows stacks only as spline coefficients. A cubic B-spline's value lies between the smallest and
the largest of the 64 coefficients around it: where that bound is below the best value found on
a ray, nothing needs to be interpolated. The maximum is the same, some ten times sooner.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from napari_gaussfit._kernels.arithmetic import HALF, ONE, TWO, ZERO, Array, F

STRETCH = 16  # samples that are passed over together
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
def _cell(position: F, size: int) -> np.uintp:
    """Index of the cell of `bounds` that holds a position in voxels, at least -1/2."""
    return np.uintp(min(max(int(position + ONE), 0), size - 1))


@njit(nogil=True, fastmath=True, error_model="numpy", cache=True)
def _interpolate(coefficients: Array, z: F, y: F, x: F) -> F:
    """Value at (z, y, x) in voxels; `coefficients` carry `MARGIN` on every side."""
    iz, iy, ix = int(math.floor(z)), int(math.floor(y)), int(math.floor(x))
    wz, wy, wx = _weights(z - F(iz)), _weights(y - F(iy)), _weights(x - F(ix))
    # Unsigned, as a signed index is asked 64 times whether it counts from the end.
    base = MARGIN - 1
    z0, y0, x0 = np.uintp(iz + base), np.uintp(iy + base), np.uintp(ix + base)
    x1, x2, x3 = x0 + np.uintp(1), x0 + np.uintp(2), x0 + np.uintp(3)
    s0, s1, s2, s3 = ZERO, ZERO, ZERO, ZERO
    for a in range(4):
        for b in range(4):
            za, yb = z0 + np.uintp(a), y0 + np.uintp(b)
            w = wz[a] * wy[b]
            s0 += w * coefficients[za, yb, x0]
            s1 += w * coefficients[za, yb, x1]
            s2 += w * coefficients[za, yb, x2]
            s3 += w * coefficients[za, yb, x3]
    return wx[0] * s0 + wx[1] * s1 + wx[2] * s2 + wx[3] * s3


@njit(nogil=True, fastmath=True, error_model="numpy", cache=True)
def _bound(bounds: Array, z: F, y: F, x: F) -> F:
    """Entry of a volume of bounds at a position in voxels."""
    i, j, k = _cell(z, bounds.shape[0]), _cell(y, bounds.shape[1]), _cell(x, bounds.shape[2])
    bound: F = bounds[i, j, k]
    return bound


@njit(nogil=True, fastmath=True, error_model="numpy", cache=True)
def _vertex(before: F, best: F, after: F) -> F:
    """Where a parabola through three samples is largest, in samples from the middle one.

    0 where the middle one is not the largest: within the slack, a neighbour may be.
    """
    bend = before - best + after - best
    if bend >= ZERO or best < max(before, after):
        return ZERO
    return HALF * (before - after) / bend


@njit(nogil=True, fastmath=True, error_model="numpy", cache=True)
def march_maximum(
    coefficients: Array,
    bounds: Array,
    wide_bounds: Array,
    frame: Array,
    spacing: Array,
    near: Array,
    far: Array,
    step: F,
    slack: F,
    image: Array,
    depth: Array,
    first: int,
    end: int,
) -> None:
    """Set rows [first, end) of `image` [H, W] to the largest value on each ray, `depth` to its t.

    The stretch of `STRETCH` samples with the highest bound is looked at first; what it holds
    spares most of the others. The largest sample's peak is found by a parabola.

    bounds : [Z + 1, Y + 1, X + 1], the largest coefficient that matters in each cell.
    wide_bounds : the same, over all cells within half a stretch.
    frame : [6, 3] as `Rays.frame`.
    near, far : [H, W], in t; rays with near >= far keep their value.
    step : longest distance between samples, in voxels of the axis along which a ray is fastest.
    slack : what may be missed of the largest value; spares the noise of an empty ray.
    """
    half = F(0.5) * F(STRETCH - 1)
    for i in range(first, end):
        for j in range(image.shape[1]):
            if near[i, j] >= far[i, j]:
                continue
            dz = frame[3, 0] + F(i) * frame[4, 0] + F(j) * frame[5, 0]
            dy = frame[3, 1] + F(i) * frame[4, 1] + F(j) * frame[5, 1]
            dx = frame[3, 2] + F(i) * frame[4, 2] + F(j) * frame[5, 2]
            dz, dy, dx = dz / spacing[0], dy / spacing[1], dx / spacing[2]
            length = (far[i, j] - near[i, j]) * max(abs(dz), abs(dy), abs(dx))
            count = int(math.ceil(length / step)) + 1
            dt = (far[i, j] - near[i, j]) / F(count - 1)
            z = frame[0, 0] + F(i) * frame[1, 0] + F(j) * frame[2, 0]
            y = frame[0, 1] + F(i) * frame[1, 1] + F(j) * frame[2, 1]
            x = frame[0, 2] + F(i) * frame[1, 2] + F(j) * frame[2, 2]
            z, y, x = z / spacing[0], y / spacing[1], x / spacing[2]
            z, y, x = z + near[i, j] * dz, y + near[i, j] * dy, x + near[i, j] * dx
            dz, dy, dx = dz * dt, dy * dt, dx * dt
            stretches = (count + STRETCH - 1) // STRETCH
            likely, place = -F(1e30), 0
            for n in range(stretches):
                m = F(n * STRETCH) + half
                bound = _bound(wide_bounds, z + m * dz, y + m * dy, x + m * dx)
                if bound > likely:
                    likely, place = bound, n
            best, where = -F(1e30), 0
            for turn in range(stretches + 1):
                # The likeliest stretch first, then all of them in order.
                n = place if turn == 0 else turn - 1
                m = F(n * STRETCH) + half
                if _bound(wide_bounds, z + m * dz, y + m * dy, x + m * dx) <= best + slack:
                    continue
                for k in range(n * STRETCH, min((n + 1) * STRETCH, count)):
                    m = F(k)
                    if _bound(bounds, z + m * dz, y + m * dy, x + m * dx) > best + slack:
                        value = _interpolate(coefficients, z + m * dz, y + m * dy, x + m * dx)
                        if value > best:
                            best, where = value, k
            peak = F(where)
            if 0 < where < count - 1:
                m = F(where - 1)
                before = _interpolate(coefficients, z + m * dz, y + m * dy, x + m * dx)
                m = F(where + 1)
                after = _interpolate(coefficients, z + m * dz, y + m * dy, x + m * dx)
                m = F(where) + _vertex(before, best, after)
                value = _interpolate(coefficients, z + m * dz, y + m * dy, x + m * dx)
                if value > best:
                    best, peak = value, m
            image[i, j], depth[i, j] = best, near[i, j] + peak * dt
