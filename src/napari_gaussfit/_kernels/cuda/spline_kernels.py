"""CUDA kernels that read a stack along rays: the twins of those in `cpu.spline_kernels`."""

from __future__ import annotations

import math

from numba import cuda

from napari_gaussfit._kernels.cuda.device import Counts, device, kernel
from napari_gaussfit._kernels.cuda.mip_kernels import ROWS, WIDTH
from napari_gaussfit._kernels.shared.gaussian import INT, ONE, ZERO, Array, F
from napari_gaussfit._kernels.shared.spline import BOTH_MARGINS, STEP, place, vertex, weights

THREADS = (32, 4)


@device
def interpolate(coefficients: Array, z: F, y: F, x: F) -> F:
    """Value at (z, y, x) in voxels, at least -1; `coefficients` carry `MARGIN` on every side."""
    z, y, x = z + ONE, y + ONE, x + ONE
    iz, iy, ix = INT(z), INT(y), INT(x)
    wz, wy, wx = weights(z - F(iz)), weights(y - F(iy)), weights(x - F(ix))
    value = ZERO
    for a in range(4):
        plane = ZERO
        for b in range(4):
            row = coefficients[iz + a, iy + b]
            plane += wy[b] * (
                wx[0] * row[ix] + wx[1] * row[ix + 1] + wx[2] * row[ix + 2] + wx[3] * row[ix + 3]
            )
        value += wz[a] * plane
    return value


@kernel
def sample_rays(
    coefficients: Array,
    spacing: Array,
    frames: Array,
    views: Counts,
    near: Array,
    far: Array,
    depth: Array,
    image: Array,
) -> None:
    """Set `image` [V, H, W] to the spline at t = `depth` on each ray: a thread a pixel.

    Where a ray misses the box, `image` stays as it is.
    coefficients : [Z + 4, Y + 4, X + 4].
    frames, views, near, far : tables of the views, see `cuda.mip.Views`.
    """
    j, i = cuda.grid(2)
    v = cuda.blockIdx.z
    if i >= views[v, ROWS] or j >= views[v, WIDTH] or near[v, i, j] >= far[v, i, j]:
        return
    t, frame = depth[v, i, j], frames[v]
    z = place(frame, spacing, i, j, t, 0, coefficients.shape[0] - BOTH_MARGINS)
    y = place(frame, spacing, i, j, t, 1, coefficients.shape[1] - BOTH_MARGINS)
    x = place(frame, spacing, i, j, t, 2, coefficients.shape[2] - BOTH_MARGINS)
    image[v, i, j] = interpolate(coefficients, z, y, x)


@kernel
def march_maximum(
    coefficients: Array,
    spacing: Array,
    frames: Array,
    views: Counts,
    near: Array,
    far: Array,
    image: Array,
) -> None:
    """Set `image` [V, H, W] to the spline's largest value on each ray: a thread a pixel.

    Samples are `STEP` apart, and the largest one's peak is found by a parabola. Unlike the CPU,
    which looks where bounds say that it pays, a thread looks everywhere. Where a ray misses the
    box, `image` stays as it is; arguments are those of `sample_rays`.
    """
    j, i = cuda.grid(2)
    v = cuda.blockIdx.z
    if i >= views[v, ROWS] or j >= views[v, WIDTH] or near[v, i, j] >= far[v, i, j]:
        return
    frame, start, end = frames[v], near[v, i, j], far[v, i, j]
    nz, ny = coefficients.shape[0] - BOTH_MARGINS, coefficients.shape[1] - BOTH_MARGINS
    nx = coefficients.shape[2] - BOTH_MARGINS
    z = place(frame, spacing, i, j, start, 0, nz)
    y = place(frame, spacing, i, j, start, 1, ny)
    x = place(frame, spacing, i, j, start, 2, nx)
    dz = place(frame, spacing, i, j, end, 0, nz) - z
    dy = place(frame, spacing, i, j, end, 1, ny) - y
    dx = place(frame, spacing, i, j, end, 2, nx) - x
    last = max(INT(1), INT(math.ceil(max(abs(dz), abs(dy), abs(dx)) / STEP)))
    dz, dy, dx = dz / F(last), dy / F(last), dx / F(last)
    best, where = interpolate(coefficients, z, y, x), INT(0)
    for n in range(INT(1), last + INT(1)):
        m = F(n)
        value = interpolate(coefficients, z + m * dz, y + m * dy, x + m * dx)
        if value > best:
            best, where = value, INT(n)
    if INT(0) < where < last:
        m = F(where) - ONE
        before = interpolate(coefficients, z + m * dz, y + m * dy, x + m * dx)
        m = F(where) + ONE
        after = interpolate(coefficients, z + m * dz, y + m * dy, x + m * dx)
        m = F(where) + vertex(before, best, after)
        best = max(best, interpolate(coefficients, z + m * dz, y + m * dy, x + m * dx))
    image[v, i, j] = best
