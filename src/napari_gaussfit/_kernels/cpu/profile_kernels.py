"""Numba kernels of the Gaussians' own profiles along rays: soft MIP and line integral."""

from __future__ import annotations

from napari_gaussfit._kernels.cpu.jit import exact_kernel, inlined
from napari_gaussfit._kernels.cpu.ray_kernels import columns
from napari_gaussfit._kernels.shared.footprint import FIRST_ROW, HEIGHT, LAST_ROW, ROW, dot
from napari_gaussfit._kernels.shared.gaussian import ONE, ZERO, Array, F
from napari_gaussfit._kernels.shared.profile import (
    blend_slope,
    blended,
    highest,
    line_moments,
    profile,
)

# What the soft MIP keeps of each pixel: a `Blend`, whose VALUE is the pixel's in the end.
TOP, TOTAL, VALUE, TOUCHED, BLEND = 0, 1, 2, 3, 4


@inlined
def add_peak(blend: Array, i: int, j: int, peak: F, times: F, sharpness: F) -> None:
    """Add a peak, so many times, to a pixel's softmax."""
    before = blend[TOP, i, j], blend[TOTAL, i, j], blend[VALUE, i, j], blend[TOUCHED, i, j]
    top, total, value, touched = blended(before, peak, times, sharpness)
    blend[TOP, i, j], blend[TOTAL, i, j] = top, total
    blend[VALUE, i, j], blend[TOUCHED, i, j] = value, touched


@exact_kernel
def blend_strip(
    g: Array, first_row: int, end_row: int, near: Array, far: Array, sharpness: F, blend: Array
) -> None:
    """Set rows [first_row, end_row) of `blend` [BLEND, H, W] to the soft MIP of K Gaussians.

    `sharpness` is log2(e) / tau. A Gaussian that does not touch a ray has the peak 0 there.
    """
    rows, width = blend.shape[1], blend.shape[2]
    count = g.shape[0]
    blend[:, first_row:end_row] = ZERO
    for k in range(count):
        top_row = max(first_row, int(g[k, FIRST_ROW]))
        for i in range(top_row, min(end_row - 1, int(g[k, LAST_ROW]), rows - 1) + 1):
            first, last = columns(g, k, F(i) - g[k, ROW], width)
            for j in range(first, last + 1):
                e, _ = highest(g, k, i, j, near[i, j], far[i, j])
                add_peak(blend, i, j, g[k, HEIGHT] * e, ONE, sharpness)
    for i in range(first_row, end_row):
        for j in range(width):
            rest = F(count) - blend[TOUCHED, i, j]
            if rest > ZERO:
                add_peak(blend, i, j, ZERO, rest, sharpness)
            if count > 0:
                blend[VALUE, i, j] /= blend[TOTAL, i, j]


@exact_kernel
def gather_blend_moments(
    g: Array,
    blend: Array,
    near: Array,
    far: Array,
    sharpness: F,
    weights: Array,
    moments: Array,
    first: int,
    end: int,
) -> None:
    """Add to rows [first, end) of `moments` [K, 10] the sums that `unpack_gradient` wants.

    With v the pixel's value and w_k a Gaussian's share in it, dv/dp_k = w_k (1 + (p_k - v) / tau);
    by the envelope theorem the derivative of p_k is that at its highest point held fixed.
    weights : [H, W], derivative of the loss by each pixel.
    """
    width = blend.shape[2]
    for k in range(first, end):
        for i in range(int(g[k, FIRST_ROW]), int(g[k, LAST_ROW]) + 1):
            left, right = columns(g, k, F(i) - g[k, ROW], width)
            for j in range(left, right + 1):
                e, u = highest(g, k, i, j, near[i, j], far[i, j])
                peak = g[k, HEIGHT] * e
                slope = blend_slope(
                    peak, blend[TOP, i, j], blend[TOTAL, i, j], blend[VALUE, i, j], sharpness
                )
                we = weights[i, j] * slope * e
                moments[k, 0] += we
                for m in range(3):
                    moments[k, 1 + m] += we * u[m]
                moments[k, 4] += we * u[0] * u[0]
                moments[k, 5] += we * u[1] * u[0]
                moments[k, 6] += we * u[1] * u[1]
                moments[k, 7] += we * u[2] * u[0]
                moments[k, 8] += we * u[2] * u[1]
                moments[k, 9] += we * u[2] * u[2]


@exact_kernel
def integrate_strip(
    g: Array, first_row: int, end_row: int, near: Array, far: Array, values: Array
) -> None:
    """Set rows [first_row, end_row) of `values` [H, W] to the integral of f over t."""
    width = values.shape[1]
    values[first_row:end_row] = ZERO
    for k in range(g.shape[0]):
        top_row = max(first_row, int(g[k, FIRST_ROW]))
        for i in range(top_row, min(end_row - 1, int(g[k, LAST_ROW])) + 1):
            first, last = columns(g, k, F(i) - g[k, ROW], width)
            for j in range(first, last + 1):
                c, _, a, peak = profile(g, k, i, j)
                j0, _, _ = line_moments(dot(c, c), a, near[i, j] - peak, far[i, j] - peak)
                values[i, j] += g[k, HEIGHT] * j0


@exact_kernel
def gather_line_moments(
    g: Array, near: Array, far: Array, weights: Array, moments: Array, first: int, end: int
) -> None:
    """Add to rows [first, end) of `moments` [K, 10] the sums that `unpack_gradient` wants.

    Here they are integrals over t as well, of u = c + x d and of u u^T.
    weights : [H, W], derivative of the loss by each pixel.
    """
    width = weights.shape[1]
    for k in range(first, end):
        for i in range(int(g[k, FIRST_ROW]), int(g[k, LAST_ROW]) + 1):
            left, right = columns(g, k, F(i) - g[k, ROW], width)
            for j in range(left, right + 1):
                c, d, a, peak = profile(g, k, i, j)
                j0, j1, j2 = line_moments(dot(c, c), a, near[i, j] - peak, far[i, j] - peak)
                w = weights[i, j]
                j0, j1, j2 = w * j0, w * j1, w * j2
                u = (j0 * c[0] + j1 * d[0], j0 * c[1] + j1 * d[1], j0 * c[2] + j1 * d[2])
                xu = (j1 * c[0] + j2 * d[0], j1 * c[1] + j2 * d[1], j1 * c[2] + j2 * d[2])
                moments[k, 0] += j0
                for m in range(3):
                    moments[k, 1 + m] += u[m]
                moments[k, 4] += u[0] * c[0] + xu[0] * d[0]
                moments[k, 5] += u[1] * c[0] + xu[1] * d[0]
                moments[k, 6] += u[1] * c[1] + xu[1] * d[1]
                moments[k, 7] += u[2] * c[0] + xu[2] * d[0]
                moments[k, 8] += u[2] * c[1] + xu[2] * d[1]
                moments[k, 9] += u[2] * c[2] + xu[2] * d[2]
