"""CUDA kernel that reads a stack where a field is largest: the twin of `cpu_march.sample_rays`."""

from __future__ import annotations

from numba import cuda

from napari_gaussfit._kernels.arithmetic import INT, ONE, ZERO, Array, F
from napari_gaussfit._kernels.cuda_device import Counts, kernel
from napari_gaussfit._kernels.cuda_rays import ROWS, WIDTH
from napari_gaussfit._kernels.spline import BOTH_MARGINS, place, weights

THREADS = (32, 4)


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
    frames, views, near, far : tables of the views, see `cuda_views.Views`.
    """
    j, i = cuda.grid(2)
    v = cuda.blockIdx.z
    if i >= views[v, ROWS] or j >= views[v, WIDTH] or near[v, i, j] >= far[v, i, j]:
        return
    t, frame = depth[v, i, j], frames[v]
    z = place(frame, spacing, i, j, t, 0, coefficients.shape[0] - BOTH_MARGINS) + ONE
    y = place(frame, spacing, i, j, t, 1, coefficients.shape[1] - BOTH_MARGINS) + ONE
    x = place(frame, spacing, i, j, t, 2, coefficients.shape[2] - BOTH_MARGINS) + ONE
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
    image[v, i, j] = value
