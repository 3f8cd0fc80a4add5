"""The field at points: the kernels against the ways of the research notebook, in torch."""

from __future__ import annotations

import importlib.util
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING

import torch

from benchmarks.fields import Parameters, difference, gradients_of, leaves_of, random_field
from benchmarks.plain import inverse_factors
from benchmarks.tables import Cell, Table
from benchmarks.timing import medians, with_kernels, with_torch
from napari_gaussfit import _kernels
from napari_gaussfit._kernels.reference import factors

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.options import Options

    Evaluate = Callable[..., torch.Tensor]

CUTOFF = 1e-6
SIGMAS = {"narrow": 0.05, "wide": 0.5}
"""In sides of the box. Of wide Gaussians every pair counts: none can be left out."""


def one_gaussian(
    points: torch.Tensor, mean: torch.Tensor, factor: torch.Tensor, amplitude: torch.Tensor
) -> torch.Tensor:
    """What one Gaussian adds [B] at points, its covariance solved for."""
    offset = points - mean
    solved = torch.linalg.solve(factor @ factor.T, offset.T)
    return amplitude * torch.exp(-0.5 * (offset * solved.T).sum(-1))


def loop_over_parameters(
    means: torch.Tensor, cholesky: torch.Tensor, amplitudes: torch.Tensor, points: torch.Tensor
) -> torch.Tensor:
    """f [B], one Gaussian after another, its covariance built from its own parameters."""
    total = torch.zeros(len(points))
    for k in range(len(means)):
        z, zy, y, zx, yx, x = cholesky[k]
        factor = torch.zeros(3, 3)
        factor[0, 0], factor[1, 1], factor[2, 2] = z.exp(), y.exp(), x.exp()
        factor[1, 0], factor[2, 0], factor[2, 1] = zy, zx, yx
        total = total + one_gaussian(points, means[k], factor, amplitudes[k])
    return total


def loop_over_covariances(
    means: torch.Tensor, cholesky: torch.Tensor, amplitudes: torch.Tensor, points: torch.Tensor
) -> torch.Tensor:
    """f [B], one Gaussian after another, all factors built beforehand."""
    lower = factors(cholesky)
    total = torch.zeros(len(points))
    for mean, factor, amplitude in zip(means, lower, amplitudes, strict=True):
        total = total + one_gaussian(points, mean, factor, amplitude)
    return total


def solve_for_pairs(
    means: torch.Tensor, cholesky: torch.Tensor, amplitudes: torch.Tensor, points: torch.Tensor
) -> torch.Tensor:
    """f [B] by one `linalg.solve` that takes each pair for a system of its own."""
    lower = factors(cholesky)
    covariances = (lower @ lower.transpose(-1, -2)).expand(len(points), -1, -1, -1)
    offsets = points[:, None] - means  # [B, K, 3]
    solved = torch.linalg.solve(covariances, offsets)
    return (amplitudes * torch.exp(-0.5 * (offsets * solved).sum(-1))).sum(-1)


def batched_solve(
    means: torch.Tensor, cholesky: torch.Tensor, amplitudes: torch.Tensor, points: torch.Tensor
) -> torch.Tensor:
    """f [B] by one `linalg.solve` with each covariance factorised once."""
    lower = factors(cholesky)
    covariances = lower @ lower.transpose(-1, -2)
    offsets = points - means[:, None]  # [K, B, 3]
    solved = torch.linalg.solve(covariances, offsets.transpose(-1, -2))
    exponents = (offsets * solved.transpose(-1, -2)).sum(-1)
    return (amplitudes[:, None] * torch.exp(-0.5 * exponents)).sum(0)


def triangular_solve(
    means: torch.Tensor, cholesky: torch.Tensor, amplitudes: torch.Tensor, points: torch.Tensor
) -> torch.Tensor:
    """f [B] by one triangular solve with all Cholesky factors."""
    offsets = (points - means[:, None]).transpose(-1, -2)  # [K, 3, B]
    u = torch.linalg.solve_triangular(factors(cholesky), offsets, upper=False)
    return (amplitudes[:, None] * torch.exp(-0.5 * (u * u).sum(1))).sum(0)


def kernel(
    means: torch.Tensor, cholesky: torch.Tensor, amplitudes: torch.Tensor, points: torch.Tensor
) -> torch.Tensor:
    """f [B] by the library."""
    return _kernels.evaluate(means, cholesky, amplitudes, points, cutoff=CUTOFF)


TORCH_WAYS: dict[str, Evaluate] = {
    "loop over Gaussians, each covariance built in turn": loop_over_parameters,
    "loop over Gaussians, all factors built beforehand": loop_over_covariances,
    "batched linalg.solve, a system for each pair": solve_for_pairs,
    "batched linalg.solve, a system for each Gaussian": batched_solve,
    "triangular solve": triangular_solve,
}


def forward_and_backward(
    evaluate: Evaluate, parameters: Parameters, points: torch.Tensor
) -> Parameters:
    """Gradients of the sum of f over points."""
    leaves = leaves_of(parameters)
    values = evaluate(*leaves, points)
    torch.autograd.backward(values, torch.ones_like(values))
    return gradients_of(leaves)


def keops(
    means: torch.Tensor, cholesky: torch.Tensor, amplitudes: torch.Tensor, points: torch.Tensor
) -> torch.Tensor:
    """f [B] as a reduction of KeOps, which compiles the sum and its gradients to C++."""
    from pykeops.torch import LazyTensor

    inverse = LazyTensor(inverse_factors(cholesky).reshape(1, -1, 9))
    u = inverse.matvecmult(LazyTensor(points[:, None]) - LazyTensor(means[None]))
    values = LazyTensor(amplitudes[None, :, None]) * (-0.5 * (u * u).sum(-1)).exp()
    total: torch.Tensor = values.sum(1)[:, 0]
    return total


def measure(options: Options) -> list[Table]:
    """Time all ways for narrow and for wide Gaussians, and KeOps on many."""
    count, places = options.pick((1_000, 500), (20, 30))
    tables = [_measured(width, count, places, options) for width in SIGMAS]
    return [*tables, _against_keops(options.pick(20_000, 40), options)]


def _against_keops(count: int, options: Options) -> Table:
    title = f"Field at points: {count:,} Gaussians at {count:,} points"
    header = ("way", "ms", "times the kernels", "gradients differ by")
    parameters = random_field(count, (1.0, 1.0, 1.0), SIGMAS["wide"])
    points = torch.rand(count, 3, generator=torch.Generator().manual_seed(4))

    def call(evaluate: Evaluate) -> Parameters:
        return forward_and_backward(evaluate, parameters, points)

    ours = with_kernels("kernels", lambda: call(kernel))
    turns = 1  # a call of KeOps takes ten seconds on two cores
    if options.small or importlib.util.find_spec("pykeops") is None:
        row = ("kernels", 1e3 * medians([ours], turns=turns)["kernels"], None, None)
        note = "KeOps was not there to compare with: `pip install pykeops` (it needs a compiler)."
        return Table(title, header, (row,), (note,))
    taken = medians([ours, with_torch("KeOps", lambda: call(keops))], turns=turns)
    off = difference(call(kernel), call(keops))
    ratio = taken["KeOps"] / taken["kernels"]
    rows = (
        ("kernels", 1e3 * taken["kernels"], None, None),
        (f"KeOps {version('pykeops')}", 1e3 * taken["KeOps"], ratio, f"{off:.0e}"),
    )
    note = "Wide Gaussians, forward and backward; KeOps compiled beforehand, on all its threads."
    return Table(title, header, rows, (note,))


def _measured(width: str, count: int, places: int, options: Options) -> Table:
    sigma = SIGMAS[width]
    parameters = random_field(count, (1.0, 1.0, 1.0), sigma)
    points = torch.rand(places, 3, generator=torch.Generator().manual_seed(4))

    def call(evaluate: Evaluate) -> Parameters:
        return forward_and_backward(evaluate, parameters, points)

    taken = medians(
        [
            with_kernels("kernels", lambda: call(kernel)),
            *(with_torch(name, partial(call, way)) for name, way in TORCH_WAYS.items()),
        ],
        turns=options.pick(options.turns, 1),
    )
    ours = call(kernel)
    rows: list[tuple[Cell, ...]] = [("kernels", 1e3 * taken["kernels"], None, None)]
    for name, way in TORCH_WAYS.items():
        off = difference(ours, call(way))
        rows.append((name, 1e3 * taken[name], taken[name] / taken["kernels"], f"{off:.0e}"))
    header = ("way", "ms", "times the kernels", "gradients differ by")
    title = f"Field at points, {width} Gaussians (sigma {sigma:g} of the box)"
    note = (
        f"{count:,} Gaussians at {places:,} points, forward and backward; contributions below "
        f"{CUTOFF:g} may be left out."
    )
    return Table(title, header, tuple(rows), (note,))
