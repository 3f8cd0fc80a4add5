"""Voxelising a field: the kernels against a plain torch scatter."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from benchmarks.fields import Parameters, difference, gradients_of, leaves_of, random_field
from benchmarks.tables import Table
from benchmarks.timing import medians, with_kernels, with_torch
from napari_gaussfit import _kernels
from napari_gaussfit._kernels.geometry import Grid
from napari_gaussfit._kernels.reference import factors

if TYPE_CHECKING:
    from benchmarks.options import Options

CUTOFF = 1e-3
STRICT_CUTOFF = 1e-9
"""At which values are compared: what either leaves out is no error of the other's."""

COMPARED = 100
SIGMA = 1.5
"""In voxels."""

PAIRS_AT_ONCE = 400_000
"""Gaussians times voxels of their boxes that the scatter holds at a time: its fastest size."""


def box_of(cholesky: torch.Tensor, amplitudes: torch.Tensor, cutoff: float) -> torch.Tensor:
    """Offsets [M, 3] of a box of voxels that holds every Gaussian down to the cutoff."""
    widest = factors(cholesky).norm(dim=-1).amax(0)  # sigma along each axis
    reach = math.sqrt(2 * math.log(float(amplitudes.max()) / cutoff))
    sides = [torch.arange(-n, n + 1) for n in (reach * widest).ceil().int().tolist()]
    return torch.cartesian_prod(*sides)


def scatter(leaves: Parameters, box: torch.Tensor, shape: tuple[int, int, int]) -> torch.Tensor:
    """Sum of Gaussians on a grid of spacing 1: each is evaluated on its box and added there."""
    means, cholesky, amplitudes = leaves
    one = torch.eye(3).expand(len(means), 3, 3)
    inverse = torch.linalg.solve_triangular(factors(cholesky), one, upper=False)
    voxels = means.detach().round().long()[:, None] + box  # [K, M, 3]
    size = torch.tensor(shape)
    inside = ((voxels >= 0) & (voxels < size)).all(-1)
    u = torch.einsum("kij,kmj->kmi", inverse, voxels - means[:, None])
    values = amplitudes[:, None] * torch.exp(-0.5 * (u * u).sum(-1))
    flat = (voxels[..., 0] * shape[1] + voxels[..., 1]) * shape[2] + voxels[..., 2]
    volume = torch.zeros(math.prod(shape))
    return volume.index_add(0, flat[inside], values[inside])


def by_scatter(parameters: Parameters, weights: torch.Tensor, cutoff: float) -> Parameters:
    """Gradients of the weighted sum of voxels [Z, Y, X], some Gaussians at a time."""
    leaves = leaves_of(parameters)
    box = box_of(parameters[1], parameters[2], cutoff)
    size = max(1, PAIRS_AT_ONCE // len(box))
    nz, ny, nx = weights.shape
    volume = torch.zeros(weights.numel())
    for first in range(0, len(parameters[0]), size):
        means, cholesky, amplitudes = (leaf[first : first + size] for leaf in leaves)
        part = scatter((means, cholesky, amplitudes), box, (nz, ny, nx))
        torch.autograd.backward(part, weights.reshape(-1))
        volume += part.detach()
    return gradients_of(leaves)


def by_kernels(parameters: Parameters, weights: torch.Tensor, cutoff: float) -> Parameters:
    """Gradients of the weighted sum of voxels [Z, Y, X], by the library."""
    leaves = leaves_of(parameters)
    nz, ny, nx = weights.shape
    grid = Grid(np.zeros(3, np.float32), np.ones(3, np.float32), (nz, ny, nx))
    torch.autograd.backward(_kernels.voxelise(*leaves, grid, cutoff=cutoff), weights)
    return gradients_of(leaves)


def field_and_weights(options: Options) -> tuple[Parameters, torch.Tensor]:
    """What is voxelised, and the derivative of a loss by each voxel [Z, Y, X]."""
    count, side = options.pick((10_000, 128), (30, 16))
    parameters = random_field(count, (float(side),) * 3, SIGMA)
    return parameters, torch.randn(side, side, side, generator=torch.Generator().manual_seed(5))


def measure(options: Options) -> list[Table]:
    """Time both on one field."""
    parameters, weights = field_and_weights(options)
    count, side = len(parameters[0]), len(weights)
    taken = medians(
        [
            with_kernels("kernels", lambda: by_kernels(parameters, weights, CUTOFF)),
            with_torch("scatter", lambda: by_scatter(parameters, weights, CUTOFF)),
        ],
        turns=options.pick(min(3, options.turns), 1),
    )
    box = box_of(parameters[1], parameters[2], CUTOFF)
    means, cholesky, amplitudes = (p[:COMPARED] for p in parameters)
    few = means, cholesky, amplitudes
    off = difference(
        by_kernels(few, weights, STRICT_CUTOFF), by_scatter(few, weights, STRICT_CUTOFF)
    )
    notes = (
        (
            f"{count:,} Gaussians (sigma about {SIGMA:g} voxels) on {side}^3 voxels, forward and "
            f"backward. The scatter evaluates each Gaussian on a box of {len(box):,} voxels, which "
            f"holds all down to the kernels' cutoff, and adds it with `index_add`, "
            f"{PAIRS_AT_ONCE:,} pairs at a time."
        ),
        (
            f"With nothing above {STRICT_CUTOFF:g} left out, the gradients of {len(means):,} of "
            f"the Gaussians differ by {off:.0e} in relative norm."
        ),
    )
    rows = (
        ("kernels", 1e3 * taken["kernels"], None),
        ("torch scatter", 1e3 * taken["scatter"], taken["scatter"] / taken["kernels"]),
    )
    return [Table("Voxelise", ("way", "ms", "times the kernels"), rows, notes)]
