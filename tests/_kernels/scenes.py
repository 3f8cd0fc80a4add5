"""Random fields of every kind, the grids and rays that see them, and the comparison."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from napari_gaussfit._kernels.geometry import Grid, Rays
from napari_gaussfit._kernels.reference import factors

SIZE = (24.0, 20.0, 28.0)
"""Of the box that all fields are seen in, its lower corner at the origin; a voxel is 1."""

CUTOFF = 1e-7
LARGEST_VALUE_ERROR, LARGEST_GRADIENT_ERROR = 3e-5, 1e-4

Operation = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Field:
    """Means [K, 3], Cholesky parameters [K, 6] and amplitudes [K], float32."""

    kind: str
    means: Tensor
    cholesky: Tensor
    amplitudes: Tensor

    def leaves(self, dtype: torch.dtype) -> list[Tensor]:
        """Return the tensors as fresh leaves of autograd."""
        return [
            tensor.detach().to(dtype).requires_grad_()
            for tensor in (self.means, self.cholesky, self.amplitudes)
        ]

    @property
    def many(self) -> bool:
        """Whether the dense reference should look at few points only."""
        return len(self.means) > 1000

    @property
    def narrowest(self) -> float:
        """Standard deviation of the narrowest Gaussians (the first percentile)."""
        return float(torch.linalg.svdvals(factors(self.cholesky))[:, -1].quantile(0.01))


def _random(
    kind: str, count: int, sigmas: tuple[float, float], *, margin: float = 0.0, seed: int = 0
) -> Field:
    """Rotated Gaussians whose principal widths are log-uniform in `sigmas`."""
    generator = torch.Generator().manual_seed(seed)
    size = torch.tensor(SIZE)
    means = (torch.rand(count, 3, generator=generator) * (1 + 2 * margin) - margin) * size
    low, high = map(math.log, sigmas)
    widths = torch.exp(low + (high - low) * torch.rand(count, 3, generator=generator))
    axes = torch.linalg.qr(torch.randn(count, 3, 3, generator=generator)).Q
    lower = torch.linalg.cholesky((axes * widths[:, None] ** 2) @ axes.transpose(-1, -2))
    cholesky = lower[:, [0, 1, 1, 2, 2, 2], [0, 0, 1, 0, 1, 2]]
    cholesky[:, [0, 2, 5]] = cholesky[:, [0, 2, 5]].log()
    amplitudes = 0.2 + torch.rand(count, generator=generator)
    return Field(kind, means, cholesky, amplitudes)


FIELDS = {
    "overlapping": lambda seed: _random("overlapping", 40, (2.0, 5.0), seed=seed),
    "elongated": lambda seed: _random("elongated", 25, (0.6, 12.0), seed=seed),
    "tiny": lambda seed: _random("tiny", 60, (0.3, 0.8), seed=seed),
    "outside": lambda seed: _random("outside", 40, (2.0, 5.0), margin=0.4, seed=seed),
    "one": lambda seed: _random("one", 1, (1.5, 3.0), seed=seed),
    "ten thousand": lambda seed: _random("ten thousand", 10_000, (0.6, 1.2), seed=seed),
}


def make_grid(shape: tuple[int, int, int]) -> Grid:
    """Spread a grid over the box."""
    spacing = np.asarray(SIZE, np.float32) / np.asarray(shape, np.float32)
    return Grid(spacing / 2, spacing, shape)


def make_rays(kind: str, shape: tuple[int, int]) -> Rays:
    """Look at the box aslant, with a rim of pixels whose rays miss it."""
    size, (rows, columns) = np.asarray(SIZE), shape
    forward = np.array([1.0, 0.45, -0.3])
    forward /= np.linalg.norm(forward)
    down = np.cross(forward, [0.0, 0.0, 1.0])
    down /= np.linalg.norm(down)
    across = np.cross(down, forward)
    side = 1.25 * float(np.linalg.norm(size))
    v, u = down * side / rows, across * side / columns
    corner = -(rows - 1) / 2 * v - (columns - 1) / 2 * u
    nothing = np.zeros(3)
    if kind == "pinhole":
        away = 55.0
        frame = [size / 2 - away * forward, nothing, nothing]
        frame += [forward + corner / away, v / away, u / away]
        near = 0.0
    else:
        frame = [size / 2 + corner, v, u, forward, nothing, nothing]
        near = -math.inf
    return Rays(
        np.stack(frame).astype(np.float32),
        shape,
        np.zeros(3, np.float32),
        size.astype(np.float32),
        near,
    )


def assert_agrees(field: Field, kernel: Operation, oracle: Operation) -> None:
    """Hold a float32 kernel against its float64 oracle, value and gradient."""
    found_leaves, true_leaves = field.leaves(torch.float32), field.leaves(torch.float64)
    found, true = kernel(*found_leaves), oracle(*true_leaves)
    error = float(((found - true).abs().max() / true.abs().max()).detach())
    assert error < LARGEST_VALUE_ERROR, f"value off by {error:.1e} of the largest"
    weights = torch.randn(true.shape, generator=torch.Generator().manual_seed(1))
    assert_gradients_agree(
        torch.autograd.grad((found * weights).sum(), found_leaves),
        torch.autograd.grad((true * weights.double()).sum(), true_leaves),
    )


def assert_gradients_agree(found: Sequence[Tensor], true: Sequence[Tensor]) -> None:
    """Hold gradients by means, Cholesky parameters and amplitudes against the true ones."""
    for name, a, b in zip(("means", "cholesky", "amplitudes"), found, true, strict=True):
        error = float((a - b).norm() / b.norm())
        assert error < LARGEST_GRADIENT_ERROR, f"gradient by {name} off by {error:.1e}"
