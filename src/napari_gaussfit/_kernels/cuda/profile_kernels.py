"""CUDA kernels of the Gaussians' own profiles along rays: soft MIP and line integral.

The twins of `cpu.profile_kernels`, laid out like `cuda.mip_kernels`: a thread a pixel forward, a
block a Gaussian backward.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import cuda

from napari_gaussfit._kernels.cuda.device import (
    CAPACITY,
    GATHERING,
    NO_MOMENTS,
    RECORDS,
    STAGED,
    SUMS,
    WIDE,
    Counts,
    Moments,
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
from napari_gaussfit._kernels.shared.footprint import FOOTPRINT, HEIGHT, ROW, column_ends, dot
from napari_gaussfit._kernels.shared.gaussian import INT, ONE, ZERO, Array, F, Vector, with_point
from napari_gaussfit._kernels.shared.profile import (
    blend_slope,
    blended,
    highest,
    line_moments,
    profile,
)

# What the soft MIP keeps of each pixel, see `profiles.Blend`; VALUE is the pixel's in the end.
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
        for i in range(boxes[n, 2, k] + thread // GATHERING, boxes[n, 3, k] + 1, GATHERING):
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


@device
def integrated(s: Moments, c: Vector, d: Vector, zeroth: F, first: F, second: F) -> Moments:
    """Return the sums that `unpack_gradient` wants, with the integral of u = c + x d over x."""
    u = (
        zeroth * c[0] + first * d[0],
        zeroth * c[1] + first * d[1],
        zeroth * c[2] + first * d[2],
    )
    xu = (first * c[0] + second * d[0], first * c[1] + second * d[1], first * c[2] + second * d[2])
    return (
        s[0] + zeroth,
        s[1] + u[0],
        s[2] + u[1],
        s[3] + u[2],
        s[4] + (u[0] * c[0] + xu[0] * d[0]),
        s[5] + (u[1] * c[0] + xu[1] * d[0]),
        s[6] + (u[1] * c[1] + xu[1] * d[1]),
        s[7] + (u[2] * c[0] + xu[2] * d[0]),
        s[8] + (u[2] * c[1] + xu[2] * d[1]),
        s[9] + (u[2] * c[2] + xu[2] * d[2]),
    )


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
        for i in range(boxes[n, 2, k] + thread // GATHERING, boxes[n, 3, k] + 1, GATHERING):
            left, right = column_ends(g, k, F(i) - g[k, ROW], width)
            for j in range(INT(left) + thread % GATHERING, INT(right) + 1, GATHERING):
                if near[v, i, j] < far[v, i, j]:
                    c, d, a, peak = profile(g, k, i, j)
                    low, high = near[v, i, j] - peak, far[v, i, j] - peak
                    zeroth, first, second = line_moments(dot(c, c), a, low, high)
                    w = weights[n, i, j]
                    s = integrated(s, c, d, w * zeroth, w * first, w * second)
    add_up(s, sums, thread, moments[channel, k])
