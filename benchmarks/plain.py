"""The plain way to fit Gaussians to projections, for comparison only.

Dense torch soft-MIP: every Gaussian is evaluated on every ray, gradients come from autograd; the
start is uniform and random; Adam has one rate for all. Its targets are the stack's own MIPs. Knows
nothing of the fit that it stands beside.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from napari_gaussfit.model.field import GaussianField

if TYPE_CHECKING:
    from napari_gaussfit._kernels.geometry import Rays
    from napari_gaussfit.model.camera import Box
    from napari_gaussfit.model.views import View

PAIRS_AT_ONCE = 200_000
"""Rays times Gaussians held at a time: the fastest size; larger ones wait for memory."""


@dataclass(frozen=True)
class PlainSettings:
    """What the plain way is run with.

    Rates of 0.01 and 0.03 were tried on the dendrite: 0.01 went on where 0.03 stood still.
    """

    gaussians: int = 2000
    rate: float = 0.01
    temperature: float = 0.02
    seed: int = 0


def inverse_factors(cholesky: torch.Tensor) -> torch.Tensor:
    """L^-1 [K, 3, 3] of Cholesky parameters [K, 6]."""
    a, b, c, d, e, f = cholesky.unbind(-1)
    zero = torch.zeros_like(a)
    rows = ((a.exp(), zero, zero), (b, c.exp(), zero), (d, e, f.exp()))
    lower = torch.stack([torch.stack(row, -1) for row in rows], -2)
    one = torch.eye(3).expand(len(a), 3, 3)
    inverse: torch.Tensor = torch.linalg.solve_triangular(lower, one, upper=False)
    return inverse


def ray_starts(rays: Rays) -> torch.Tensor:
    """Origins [H, W, 3] of an orthographic view's rays."""
    frame = torch.from_numpy(rays.frame)
    i = torch.arange(rays.shape[0])[:, None, None]
    j = torch.arange(rays.shape[1])[None, :, None]
    return frame[0] + i * frame[1] + j * frame[2]


def ray_ends(
    starts: torch.Tensor, direction: torch.Tensor, rays: Rays
) -> tuple[torch.Tensor, torch.Tensor]:
    """Where rays [P, 3] enter and leave the box, values of t [P]."""
    safe = torch.where(direction.abs() < 1e-12, torch.full_like(direction, 1e-12), direction)
    one = (torch.from_numpy(rays.lower) - starts) / safe
    two = (torch.from_numpy(rays.upper) - starts) / safe
    return torch.minimum(one, two).amax(-1), torch.maximum(one, two).amin(-1)


def soft_mip(
    means: torch.Tensor,
    cholesky: torch.Tensor,
    amplitudes: torch.Tensor,
    starts: torch.Tensor,
    rays: Rays,
    temperature: float,
) -> torch.Tensor:
    """Softmax-weighted mean [P] of the Gaussians' own peaks on rays from `starts` [P, 3]."""
    direction = torch.from_numpy(rays.frame[3])
    near, far = ray_ends(starts, direction, rays)
    inverse = inverse_factors(cholesky)
    along = inverse @ direction  # [K, 3]
    from_mean = starts @ inverse.reshape(-1, 3).T  # [P, 3 K]
    from_mean = from_mean.reshape(len(starts), -1, 3) - (inverse @ means[..., None])[..., 0]
    a = (along * along).sum(-1)  # [K]
    b = (from_mean * along).sum(-1)  # [P, K]
    c = (from_mean * from_mean).sum(-1)  # [P, K]
    t = torch.clamp(-b / a, near[:, None], far[:, None])
    peaks = amplitudes * torch.exp(-0.5 * (a * t * t + 2 * b * t + c))
    return (torch.softmax(peaks / temperature, -1) * peaks).sum(-1)


class PlainFit:
    """Parameters and optimiser of the plain way; `step` looks at one whole view."""

    def __init__(self, box: Box, value_range: tuple[float, float], settings: PlainSettings) -> None:
        self.settings = settings
        self.low, self.range = value_range[0], value_range[1] - value_range[0]
        self._lower = torch.tensor(box[0], dtype=torch.float32)
        sides = torch.tensor(box[1] - box[0], dtype=torch.float32)
        self._scale = float(sides.max())  # parameters live in a box whose longest side is 1
        count = settings.gaussians
        source = torch.Generator().manual_seed(settings.seed)
        spread = sides / self._scale
        width = 0.5 * float((spread.prod() / count) ** (1 / 3))
        cholesky = torch.zeros(count, 6)
        cholesky[:, [0, 2, 5]] = math.log(width)
        self._means = (torch.rand(count, 3, generator=source) * spread).requires_grad_()
        self._cholesky = cholesky.requires_grad_()
        self._logits = torch.full((count,), -2.0).requires_grad_()
        leaves = [self._means, self._cholesky, self._logits]
        self._optimiser = torch.optim.Adam(leaves, lr=settings.rate)

    def parameters(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Means and Cholesky parameters in the stack's unit, amplitudes in parts of the range."""
        log_scale = torch.zeros(6)
        log_scale[[0, 2, 5]] = math.log(self._scale)
        factor = torch.full((6,), self._scale)
        factor[[0, 2, 5]] = 1.0
        cholesky = self._cholesky * factor + log_scale
        return self._lower + self._means * self._scale, cholesky, torch.sigmoid(self._logits)

    def field(self) -> GaussianField:
        """The Gaussians in raw intensity over the stack's smallest value."""
        with torch.no_grad():
            means, cholesky, amplitudes = self.parameters()
            return GaussianField(means, cholesky, amplitudes * self.range, self.low)

    def step(self, view: View) -> float:
        """One step of Adam on all the pixels of a view whose rays cross the box; its loss."""
        starts = ray_starts(view.rays)[view.hit]
        target = (view.target[view.hit] - self.low) / self.range
        size = max(1, PAIRS_AT_ONCE // self.settings.gaussians)
        self._optimiser.zero_grad()
        total = 0.0
        for first in range(0, len(starts), size):
            some = slice(first, first + size)
            image = soft_mip(*self.parameters(), starts[some], view.rays, self.settings.temperature)
            loss = (image - target[some]).square().sum() / len(starts)
            torch.autograd.backward(loss)
            total += loss.item()
        self._optimiser.step()
        return total
