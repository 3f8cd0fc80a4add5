"""CUDA kernels along rays beyond the MIP: soft MIP and line integral, and a stack's own values.

The twins of those in `cpu.ray_kernels` and `cpu.spline`, laid out like `cuda.mip_kernels`: a thread
a pixel forward, a block a Gaussian backward.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import cuda

from napari_gaussfit._kernels.cuda.device import (
    CAPACITY,
    GATHERING,
    RECORDS,
    STAGED,
    SUMS,
    WIDE,
    Counts,
    add_up,
    collect,
    device,
    kernel,
    stage,
)
from napari_gaussfit._kernels.cuda.mip_kernels import (
    FARTHEST,
    ROWS,
    SCAN,
    THREADS,
    TILE,
    WIDTH,
    cell_of_tile,
)
from napari_gaussfit._kernels.shared.footprint import (
    BOTH_MARGINS,
    FOOTPRINT,
    HEIGHT,
    ROW,
    STEP,
    column_ends,
    dot,
    place,
    vertex,
    weights,
)
from napari_gaussfit._kernels.shared.gaussian import (
    INT,
    NO_MOMENTS,
    ONE,
    ZERO,
    Array,
    F,
    with_point,
)
from napari_gaussfit._kernels.shared.profile import (
    blend_slope,
    blended,
    highest,
    integrated,
    line_moments,
    profile,
)

# What the soft MIP keeps of each pixel, see `shared.profile.blended`; VALUE is the pixel's at last.
TOP, TOTAL, VALUE, BLEND = 0, 1, 2, 3


@device
def touches(g: Array, k: int, i: int, j: int, width: int) -> Any:
    """Whether pixel (i, j) lies in footprint k, as `column_ends` has it backward."""
    first, last = column_ends(g, k, F(i) - g[k, ROW], width)
    return first <= F(j) <= last


@kernel
def blend(
    footprints: Array,
    boxes: Counts,
    lists: Counts,
    counts: Counts,
    views: Counts,
    near: Array,
    far: Array,
    sharpness: F,
    blends: Array,
) -> None:
    """Set `blends` [N, BLEND, H, W] to the soft MIP; its value is 0 where a ray misses the box.

    `sharpness` is log2(e) / tau. A Gaussian that does not touch a ray has the peak 0 there.
    """
    scan = cuda.shared.array(SCAN, np.int32)
    found = cuda.shared.array(CAPACITY, np.uint32)
    records = cuda.shared.array(STAGED, np.float32, WIDE)
    n, thread = cuda.blockIdx.z, cuda.threadIdx.x
    v, row, column = n % near.shape[0], cuda.blockIdx.y * TILE, cuda.blockIdx.x * TILE
    width = views[v, WIDTH]
    if row >= views[v, ROWS] or column >= width:
        return
    i, j = row + thread // TILE, column + thread % TILE
    held = i < views[v, ROWS] and j < width
    on = held and near[v, i, j] < far[v, i, j]
    cell = cell_of_tile(cuda.blockIdx.y, cuda.blockIdx.x, near.shape[2])
    g, candidates, count = footprints[n], lists[n, cell], counts[n, cell]
    tile = (-FARTHEST, FARTHEST, row, row + TILE - 1, column, column + TILE - 1)
    mix = (ZERO, ZERO, ZERO, ZERO)
    start = INT(0)
    while start < count:
        number, start = collect(
            boxes, n, tile, candidates, count, start, found, scan, thread, THREADS
        )
        for part in range(0, number, RECORDS):
            staged = stage(g, found, part, number, records, FOOTPRINT, thread, THREADS)
            if on:
                for m in range(staged):
                    if touches(records, m, i, j, width):
                        e, _ = highest(records, m, i, j, near[v, i, j], far[v, i, j])
                        mix = blended(mix, records[m, HEIGHT] * e, ONE, sharpness)
    if not held:
        return
    rest = F(g.shape[0]) - mix[3]
    if on and rest > ZERO:
        mix = blended(mix, ZERO, rest, sharpness)
    blends[n, TOP, i, j], blends[n, TOTAL, i, j] = mix[0], mix[1]
    blends[n, VALUE, i, j] = mix[2] / mix[1] if on else ZERO


@kernel
def gather_blend_moments(
    footprints: Array,
    boxes: Counts,
    views: Counts,
    near: Array,
    far: Array,
    sharpness: F,
    blends: Array,
    weights: Array,
    moments: Array,
) -> None:
    """Set `moments` [C, K, 10] to the sums that `unpack_gradient` wants, of each own peak.

    weights : [N, H, W], derivative of the loss by each pixel.
    """
    sums = cuda.shared.array(SUMS, np.float32)
    k, channel, thread = cuda.blockIdx.x, cuda.blockIdx.y, cuda.threadIdx.x
    s = NO_MOMENTS
    for v in range(near.shape[0]):
        n = channel * near.shape[0] + v
        g, width = footprints[n], views[v, WIDTH]
        for i in range(boxes[n, k, 2] + thread // GATHERING, boxes[n, k, 3] + 1, GATHERING):
            first, last = column_ends(g, k, F(i) - g[k, ROW], width)
            for j in range(INT(first) + thread % GATHERING, INT(last) + 1, GATHERING):
                if near[v, i, j] < far[v, i, j]:
                    e, u = highest(g, k, i, j, near[v, i, j], far[v, i, j])
                    top, total, value = (
                        blends[n, TOP, i, j],
                        blends[n, TOTAL, i, j],
                        blends[n, VALUE, i, j],
                    )
                    slope = blend_slope(g[k, HEIGHT] * e, top, total, value, sharpness)
                    s = with_point(s, weights[n, i, j] * slope * e, u[0], u[1], u[2])
    add_up(s, sums, thread, moments[channel, k])


@kernel
def integrate(
    footprints: Array,
    boxes: Counts,
    lists: Counts,
    counts: Counts,
    views: Counts,
    near: Array,
    far: Array,
    values: Array,
) -> None:
    """Set `values` [N, H, W] to the integral of f over t."""
    scan = cuda.shared.array(SCAN, np.int32)
    found = cuda.shared.array(CAPACITY, np.uint32)
    records = cuda.shared.array(STAGED, np.float32, WIDE)
    n, thread = cuda.blockIdx.z, cuda.threadIdx.x
    v, row, column = n % near.shape[0], cuda.blockIdx.y * TILE, cuda.blockIdx.x * TILE
    width = views[v, WIDTH]
    if row >= views[v, ROWS] or column >= width:
        return
    i, j = row + thread // TILE, column + thread % TILE
    held = i < views[v, ROWS] and j < width
    on = held and near[v, i, j] < far[v, i, j]
    cell = cell_of_tile(cuda.blockIdx.y, cuda.blockIdx.x, near.shape[2])
    g, candidates, count = footprints[n], lists[n, cell], counts[n, cell]
    tile = (-FARTHEST, FARTHEST, row, row + TILE - 1, column, column + TILE - 1)
    total, start = ZERO, INT(0)
    while start < count:
        number, start = collect(
            boxes, n, tile, candidates, count, start, found, scan, thread, THREADS
        )
        for part in range(0, number, RECORDS):
            staged = stage(g, found, part, number, records, FOOTPRINT, thread, THREADS)
            if on:
                for m in range(staged):
                    if touches(records, m, i, j, width):
                        c, _, a, peak = profile(records, m, i, j)
                        low, high = near[v, i, j] - peak, far[v, i, j] - peak
                        integral, _, _ = line_moments(dot(c, c), a, low, high)
                        total += records[m, HEIGHT] * integral
    if held:
        values[n, i, j] = total


@kernel
def gather_line_moments(
    footprints: Array,
    boxes: Counts,
    views: Counts,
    near: Array,
    far: Array,
    weights: Array,
    moments: Array,
) -> None:
    """Set `moments` [C, K, 10] to the sums that `unpack_gradient` wants, integrated over t.

    weights : [N, H, W], derivative of the loss by each pixel.
    """
    sums = cuda.shared.array(SUMS, np.float32)
    k, channel, thread = cuda.blockIdx.x, cuda.blockIdx.y, cuda.threadIdx.x
    s = NO_MOMENTS
    for v in range(near.shape[0]):
        n = channel * near.shape[0] + v
        g, width = footprints[n], views[v, WIDTH]
        for i in range(boxes[n, k, 2] + thread // GATHERING, boxes[n, k, 3] + 1, GATHERING):
            left, right = column_ends(g, k, F(i) - g[k, ROW], width)
            for j in range(INT(left) + thread % GATHERING, INT(right) + 1, GATHERING):
                if near[v, i, j] < far[v, i, j]:
                    c, d, a, peak = profile(g, k, i, j)
                    low, high = near[v, i, j] - peak, far[v, i, j] - peak
                    zeroth, first, second = line_moments(dot(c, c), a, low, high)
                    w = weights[n, i, j]
                    s = integrated(s, c, d, w * zeroth, w * first, w * second)
    add_up(s, sums, thread, moments[channel, k])


SAMPLING_THREADS = (32, 4)


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
