"""Numba kernels that project a stack: rays marched through cubic B-splines.

Knows stacks only as spline coefficients, and as bounds of the spline (`cpu.bounds`): where a bound
is below the best value found on a ray, nothing needs to be interpolated. The maximum is the same.
"""

from __future__ import annotations

import math

import numpy as np

from napari_gaussfit._kernels.cpu.bounds import Codes
from napari_gaussfit._kernels.cpu.jit import fast_kernel, inlined, part
from napari_gaussfit._kernels.cpu.simd import weighted
from napari_gaussfit._kernels.shared.gaussian import ONE, ZERO, Array, F, Vector
from napari_gaussfit._kernels.shared.spline import BOTH_MARGINS, place, vertex, weights

BLOCK = 32  # samples that are passed over together


@part
def _interpolate(coefficients: Array, z: F, y: F, x: F) -> F:
    """Value at (z, y, x) in voxels, at least -1; `coefficients` carry `MARGIN` on every side."""
    z, y, x = z + ONE, y + ONE, x + ONE
    iz, iy, ix = int(z), int(y), int(x)
    wz, wy, wx = weights(z - F(iz)), weights(y - F(iy)), weights(x - F(ix))
    # Unsigned, as a signed index is asked whether it counts from the end.
    index = np.uintp(iz), np.uintp(iy), np.uintp(ix)
    value: F = weighted(coefficients, index, wz, wy, wx)
    return value


@inlined
def _level(levels: Array, value: F) -> int:
    """Return the largest code whose bound is at most `value`; -1 if none is."""
    low, high = -1, levels.shape[0]
    while high - low > 1:
        middle = (low + high) // 2
        if levels[middle] <= value:
            low = middle
        else:
            high = middle
    return low


@part
def _look_up(
    codes: Codes, start: Vector, step: Vector, count: int, seen: Codes, tops: Codes
) -> None:
    """Set `seen` to the codes at `count` samples, `tops` to the largest of each `BLOCK` of them.

    The last sample is repeated to the end of its block.
    """
    rows, width = codes.shape[1], codes.shape[2]
    flat = codes.reshape(-1)
    places = np.empty(BLOCK, np.int64)
    last = F(count - 1)
    for block in range(0, count, BLOCK):
        for n in range(BLOCK):
            m = min(F(block + n), last)
            z, y, x = start[0] + m * step[0], start[1] + m * step[1], start[2] + m * step[2]
            places[n] = (int(z) * rows + int(y)) * width + int(x)
        some = seen[block : block + BLOCK]
        top = np.uint8(0)
        for n in range(BLOCK):
            code = flat[np.uintp(places[n])]
            some[n] = code
            top = max(top, code)
        tops[block // BLOCK] = top


@fast_kernel
def march_maximum(
    coefficients: Array,
    codes: Codes,
    levels: Array,
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

    The sample with the highest bound is looked at first; what it holds spares most of the others.
    The largest sample's peak is found by a parabola.

    codes : bounds of the spline, see `cpu.bounds`; a bound is `levels` [256] of its code.
    frame : [6, 3] as `Rays.frame`.
    near, far : [H, W], in t; rays with near >= far keep their value.
    step : longest distance between samples, in voxels of the axis along which a ray is fastest.
    slack : what may be missed of the largest value; spares the noise of an empty ray.
    """
    nz, ny, nx = (
        coefficients.shape[0] - BOTH_MARGINS,
        coefficients.shape[1] - BOTH_MARGINS,
        coefficients.shape[2] - BOTH_MARGINS,
    )
    parts = F(codes.shape[2] // (nx + 1))
    longest = int(F(max(nz, ny, nx)) / step) + 2
    tops = np.empty(longest // BLOCK + 1, np.uint8)
    seen = np.empty(len(tops) * BLOCK, np.uint8)
    for i in range(first, end):
        for j in range(image.shape[1]):
            if near[i, j] >= far[i, j]:
                continue
            z = place(frame, spacing, i, j, near[i, j], 0, nz)
            dz = place(frame, spacing, i, j, far[i, j], 0, nz) - z
            y = place(frame, spacing, i, j, near[i, j], 1, ny)
            dy = place(frame, spacing, i, j, far[i, j], 1, ny) - y
            x = place(frame, spacing, i, j, near[i, j], 2, nx)
            dx = place(frame, spacing, i, j, far[i, j], 2, nx) - x
            count = int(math.ceil(max(abs(dz), abs(dy), abs(dx)) / step)) + 1
            count = max(2, min(count, longest))
            part = ONE / F(count - 1)
            dz, dy, dx = dz * part, dy * part, dx * part
            _look_up(
                codes,
                (parts * (z + ONE), parts * (y + ONE), parts * (x + ONE)),
                (parts * dz, parts * dy, parts * dx),
                count,
                seen,
                tops,
            )
            blocks = (count - 1) // BLOCK + 1
            likely = 0
            for block in range(blocks):
                if tops[block] > tops[likely]:
                    likely = block
            where = likely * BLOCK
            while seen[where] != tops[likely]:
                where += 1
            m = F(where)
            best = _interpolate(coefficients, z + m * dz, y + m * dy, x + m * dx)
            enough = _level(levels, best + slack)
            for block in range(blocks):
                if tops[block] <= enough:
                    continue
                for n in range(block * BLOCK, min(count, (block + 1) * BLOCK)):
                    if seen[n] > enough and n != where:
                        m = F(n)
                        value = _interpolate(coefficients, z + m * dz, y + m * dy, x + m * dx)
                        if value > best:
                            best, where = value, n
                            enough = _level(levels, best + slack)
            peak = F(where)
            if 0 < where < count - 1:
                m = F(where - 1)
                before = _interpolate(coefficients, z + m * dz, y + m * dy, x + m * dx)
                m = F(where + 1)
                after = _interpolate(coefficients, z + m * dz, y + m * dy, x + m * dx)
                m = F(where) + vertex(before, best, after)
                value = _interpolate(coefficients, z + m * dz, y + m * dy, x + m * dx)
                if value > best:
                    best, peak = value, m
            image[i, j] = best
            depth[i, j] = near[i, j] + peak * part * (far[i, j] - near[i, j])


@fast_kernel
def sample_rays(
    coefficients: Array,
    frame: Array,
    spacing: Array,
    near: Array,
    far: Array,
    depth: Array,
    image: Array,
    first: int,
    end: int,
) -> None:
    """Set rows [first, end) of `image` [H, W] to the spline at t = `depth` on each ray.

    near, far, depth : [H, >= W], in t; rays with near >= far have the value 0.
    """
    nz, ny, nx = (
        coefficients.shape[0] - BOTH_MARGINS,
        coefficients.shape[1] - BOTH_MARGINS,
        coefficients.shape[2] - BOTH_MARGINS,
    )
    for i in range(first, end):
        for j in range(image.shape[1]):
            image[i, j] = ZERO
            if near[i, j] < far[i, j]:
                t = depth[i, j]
                z = place(frame, spacing, i, j, t, 0, nz)
                y = place(frame, spacing, i, j, t, 1, ny)
                x = place(frame, spacing, i, j, t, 2, nx)
                image[i, j] = _interpolate(coefficients, z, y, x)
