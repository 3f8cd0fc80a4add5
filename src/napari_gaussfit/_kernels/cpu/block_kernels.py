"""Fisher information of blocks of Gaussians at given parameters: numba kernels on the CPU.

For refinements whose parameters hang together in other ways than those of `refinement_kernels`,
which also cuts the blocks: what is done with the information is decided outside.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_gaussfit._kernels.cpu.information_kernels import (
    Counts,
    Floats,
    information,
    make_memory,
)
from napari_gaussfit._kernels.cpu.jit import exact_kernel
from napari_gaussfit._kernels.cpu.refinement_kernels import add_known, cut_block
from napari_gaussfit._threads import run_pieces

__all__ = ["informations"]


@exact_kernel
def inform_some(
    voxels: NDArray[np.float32],
    blocks: tuple[Counts, Counts, tuple[Counts, Counts]],
    windows: Counts,
    gaussians: tuple[Floats, Floats],
    thetas: Floats,
    noise: Floats,
    spread: bool,
    found: tuple[Floats, Floats, Floats],
    first: int,
    end: int,
) -> None:
    """Set what is known of blocks [first, end); see `informations`."""
    bounds, members, (starts, others) = blocks
    fishers, scores, numbers = found
    count = members.shape[1]
    memory = make_memory(len(voxels), count)
    for b in range(first, end):
        box = bounds[b]
        block, looked = cut_block(voxels, box, windows, members[b], noise)
        near_by = others[starts[b] : starts[b + 1]]
        add_known(block[2], box, near_by, gaussians[0], gaussians[1], noise[0])
        numbers[b, 0] = information(
            block, box, thetas[b], count, noise, spread, memory, fishers[b], scores[b]
        )
        numbers[b, 1] = looked


def informations(
    voxels: NDArray[np.float32],
    blocks: tuple[Counts, Counts, tuple[Counts, Counts]],
    windows: Counts,
    gaussians: tuple[Floats, Floats],
    thetas: Floats,
    noise: Floats,
    *,
    spread: bool = False,
) -> tuple[Floats, Floats, Floats]:
    """Return the Fisher information of B blocks of n Gaussians each, over all threads.

    Parameters
    ----------
    voxels : ndarray, shape [C, Z, Y, X]
        The channels' intensities, in float32.
    blocks : tuple
        Bounds [B, 6] and members [B, n] of each block, and the Gaussians of other blocks that reach
        it, as a pair of where each block's begin [B + 1] and of these.
    windows : ndarray, shape [K, 6]
        Of each Gaussian, first and last z, y, x.
    gaussians : tuple of two ndarrays, shape [K, 9] and [C, K]
        Shapes and amplitudes of all Gaussians: what those of other blocks add is known.
    thetas : ndarray, shape [B, P]
        Parameters of each block, see `information_kernels`.
    noise : ndarray, shape [4]
        Gain, offset, read variance and saturation, as `information` takes them.
    spread : bool
        The variance of the scores in place of the information.

    Returns
    -------
    fishers : ndarray, shape [B, P, P]
        Symmetric.
    scores : ndarray, shape [B, P]
        Derivatives of the logarithm of the likelihood.
    numbers : ndarray, shape [B, 2]
        chi^2, and values looked at.
    """
    count, size = thetas.shape
    found = np.zeros((count, size, size)), np.zeros((count, size)), np.zeros((count, 2))

    def some(first: int, end: int) -> None:
        inform_some(
            voxels, blocks, windows, gaussians, thetas, noise, spread, found, first, end
        )  # fmt: skip

    run_pieces(some, count)
    fishers = found[0]
    fishers += np.tril(fishers, -1).swapaxes(1, 2)
    return found
