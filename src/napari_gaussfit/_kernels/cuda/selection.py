"""CUDA kernel that copies the tables of the views that a step looks at, in one launch."""

from __future__ import annotations

from numba import cuda

from napari_gaussfit._kernels.cuda.device import Counts, U, kernel
from napari_gaussfit._kernels.shared.gaussian import Array

THREADS = 256
FRAME, SOLVE, TRIPLE = 18, 9, 3


@kernel
def select_views(
    which: Counts,
    frames: Array,
    solves: Array,
    sizes: Counts,
    searches: Array,
    near: Array,
    far: Array,
    own_frames: Array,
    own_solves: Array,
    own_sizes: Counts,
    own_searches: Array,
    own_near: Array,
    own_far: Array,
) -> None:
    """Copy rows `which` [N] of the tables of `cuda.mip.Views`, each [V, ...] made flat."""
    n, i = cuda.blockIdx.y, U(cuda.grid(1))
    v = which[n]
    if i < own_near.shape[1]:
        own_near[n, i] = near[v, i]
        own_far[n, i] = far[v, i]
    if i < FRAME:
        own_frames[n, i] = frames[v, i]
    if i < SOLVE:
        own_solves[n, i] = solves[v, i]
    if i < TRIPLE:
        own_sizes[n, i] = sizes[v, i]
        own_searches[n, i] = searches[v, i]
