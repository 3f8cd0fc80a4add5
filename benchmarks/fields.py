"""Fields made for measuring: random ones, and those of a fit on its way."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_gaussfit.fitting.trainer import Trainer
    from napari_gaussfit.stacks.stack import Stack

Parameters = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def random_field(count: int, sides: Sequence[float], sigma: float, *, seed: int = 0) -> Parameters:
    """Means [K, 3] uniform in a box, Cholesky parameters [K, 6] about `sigma`, amplitudes [K]."""
    source = torch.Generator().manual_seed(seed)
    means = torch.rand(count, 3, generator=source) * torch.tensor(sides, dtype=torch.float32)
    cholesky = 0.2 * sigma * torch.randn(count, 6, generator=source)
    scales = 0.2 * torch.randn(count, 3, generator=source)
    cholesky[:, [0, 2, 5]] = math.log(sigma) + scales.clamp(-0.4, 0.4)
    return means, cholesky, 0.5 + 0.5 * torch.rand(count, generator=source)


def leaves_of(parameters: Parameters) -> Parameters:
    """The same numbers as fresh leaves that gather gradients."""
    means, cholesky, amplitudes = (p.detach().clone().requires_grad_() for p in parameters)
    return means, cholesky, amplitudes


def gradients_of(leaves: Parameters) -> Parameters:
    """The gradients that leaves have gathered, which leave them."""
    taken = []
    for leaf in leaves:
        taken.append(torch.zeros_like(leaf) if leaf.grad is None else leaf.grad)
        leaf.grad = None
    return taken[0], taken[1], taken[2]


def difference(one: Sequence[torch.Tensor], other: Sequence[torch.Tensor]) -> float:
    """The largest difference in relative norm between pairs of tensors."""
    return max(
        float((a - b).norm() / b.norm().clamp(min=1e-30)) for a, b in zip(one, other, strict=True)
    )


def pairs_per_volume(cholesky: torch.Tensor, amplitudes: torch.Tensor, cutoff: float) -> float:
    """Sum over the Gaussians of the volume in which each adds more than `cutoff`."""
    reach = torch.sqrt(2 * torch.log((amplitudes / cutoff).clamp(min=1.0)))
    determinant = cholesky[:, [0, 2, 5]].sum(-1).exp()
    return float((4 / 3 * math.pi * reach**3 * determinant).sum())


def trainer_after(stack: Stack, gaussians: int, steps: int) -> Trainer:
    """A fit's trainer as it stands after some steps."""
    from napari_gaussfit import FitSettings
    from napari_gaussfit.fitting.trainer import Trainer

    settings = FitSettings(exactly=True, gaussians=gaussians)
    trainer = Trainer([stack], settings)
    for n in range(steps):
        trainer.step(n / settings.steps)
    return trainer


def scaled(trainer: Trainer) -> Parameters:
    """A trainer's Gaussians in working units, as its steps see them; further steps leave them."""
    means, cholesky, amplitudes = (p.detach().clone() for p in trainer.scaled_field().tensors)
    return means, cholesky, amplitudes
