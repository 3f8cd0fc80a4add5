"""The dendrite's step: the kernels against the dense torch reference."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from benchmarks.fields import (
    Parameters,
    difference,
    gradients_of,
    leaves_of,
    scaled,
    trainer_after,
)
from benchmarks.stacks import DENDRITE, open_stack
from benchmarks.tables import Cell, Table
from benchmarks.timing import Way, medians, with_kernels, with_torch
from napari_gaussfit import _kernels
from napari_gaussfit._kernels import reference
from napari_gaussfit._kernels.cpu import backend
from napari_gaussfit._kernels.geometry import Grid, Rays

if TYPE_CHECKING:
    from benchmarks.options import Options
    from benchmarks.stacks import Task
    from napari_gaussfit._kernels.cpu.spline import SplineVolume
    from napari_gaussfit.fitting.trainer import Trainer

REFERENCE_PAIRS_AT_ONCE = 200_000
"""Points times Gaussians of one dense call: its fastest size; larger ones wait for memory."""

STRICT_CUTOFF = 1e-9
"""At which values are compared: what a fit leaves out is no error of a kernel's."""

TITLE = "Kernels against the dense reference: one step on the dendrite"


@dataclass(frozen=True)
class Step:
    """What a step evaluates, in working units; `depth` is where a search finds the maxima.

    The Gaussians, all voxels, one view, the stack that gives its targets, and random derivatives
    of losses by voxels and pixels.
    """

    parameters: Parameters
    grid: Grid
    rays: Rays
    volume: SplineVolume
    depth: torch.Tensor
    voxel_weights: torch.Tensor
    pixel_weights: torch.Tensor
    bin_step: float
    cutoff: float

    def voxels(self) -> Parameters:
        """Gradients of the voxels' term, by the kernels."""
        leaves = leaves_of(self.parameters)
        volume = _kernels.voxelise(*leaves, self.grid, cutoff=self.cutoff)
        torch.autograd.backward(volume, self.voxel_weights)
        return gradients_of(leaves)

    def view(self, start: torch.Tensor | None) -> Parameters:
        """Gradients of the view's term as a fit gathers them: the targets are the stack's there.

        Without `start` the maxima are searched for.
        """
        total = _kernels.GradientSum(*self.parameters, cutoff=self.cutoff)
        total.add_squared_mip_residual(
            self.rays, self.volume, offset=0.0, weight=1.0, bin_step=self.bin_step, start=start
        )
        return total.gradients()

    def voxel_points(self) -> torch.Tensor:
        """All voxels' centres [B, 3]."""
        axes = [
            float(origin) + float(step) * torch.arange(size, dtype=torch.float32)
            for origin, step, size in zip(
                self.grid.origin, self.grid.spacing, self.grid.shape, strict=True
            )
        ]
        return torch.cartesian_prod(*axes)

    def pixel_points(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The maxima [B, 3] on rays that cross the box, as the kernels find them; weights [B]."""
        o, d = reference.origins_and_directions(self.rays, torch.float32)
        hit = torch.from_numpy(backend.hits(self.rays))
        return (o + self.depth[..., None] * d)[hit], self.pixel_weights[hit]


def trainer_of(task: Task, options: Options) -> Trainer:
    """The fit of a stack after 50 steps."""
    stack = open_stack(task, small=options.small)
    return trainer_after(stack, options.pick(task.gaussians, 30), options.pick(50, 2))


def step_of(options: Options) -> Step:
    """The dendrite's step with its Gaussians as they are after 50 steps of a fit."""
    return next_step(trainer_of(DENDRITE, options))


def next_step(trainer: Trainer) -> Step:
    """What the next step of a fit evaluates."""
    stack, objective = trainer.objective.stack, trainer.objective
    view = objective.views.view(objective.views.training[0])
    parameters, bin_step = scaled(trainer), objective.search_step
    cutoff = trainer.steps.state.cutoff.item()
    search = backend.MipEvaluation(view.rays, bin_step)
    search.forward(backend.pack(*parameters, cutoff))
    spacing = np.asarray(stack.spacing, np.float32)
    source = torch.Generator().manual_seed(1)
    return Step(
        parameters,
        Grid(np.zeros(3, np.float32), spacing, stack.shape),
        view.rays,
        objective.views.projector.spline,
        search.found,
        torch.randn(stack.shape, generator=source),
        torch.randn(view.rays.shape, generator=source),
        bin_step,
        cutoff,
    )


def dense(parameters: Parameters, points: torch.Tensor, weights: torch.Tensor) -> Parameters:
    """Gradients of the weighted sum of f at points [B, 3], by the reference, in chunks."""
    leaves = leaves_of(parameters)
    size = max(1, REFERENCE_PAIRS_AT_ONCE // len(parameters[0]))
    for first in range(0, len(points), size):
        some = slice(first, first + size)
        torch.autograd.backward(reference.evaluate(*leaves, points[some]), weights[some])
    return gradients_of(leaves)


def measure(options: Options) -> list[Table]:
    """Time the kernels on the whole step, and the reference on random parts of it."""
    step = step_of(options)
    points, weights = step.voxel_points(), step.voxel_weights.reshape(-1)
    chosen = torch.randperm(len(points), generator=torch.Generator().manual_seed(2))
    few, many = (options.pick(n, n // 40) for n in (2_000, 4_000))
    pixel_points, pixel_weights = step.pixel_points()
    some_pixels = torch.randperm(len(pixel_points), generator=torch.Generator().manual_seed(3))
    some_pixels = some_pixels[:few]

    def part(count: int) -> Way:
        rows = chosen[:count]
        return with_torch(
            f"{count} voxels", lambda: dense(step.parameters, points[rows], weights[rows])
        )

    found = medians(
        [
            with_kernels("voxels", step.voxels),
            with_kernels("view", lambda: step.view(None)),
            with_kernels("view, no search", lambda: step.view(step.depth)),
            part(few),
            part(many),
            with_torch(
                "pixels",
                lambda: dense(
                    step.parameters, pixel_points[some_pixels], pixel_weights[some_pixels]
                ),
            ),
        ],
        turns=options.pick(min(3, options.turns), 1),
    )
    dense_voxels = found[f"{many} voxels"] * len(points) / many
    dense_pixels = found["pixels"] * len(pixel_points) / len(some_pixels)
    rows = (
        _row("all voxels", len(points), found["voxels"], dense_voxels),
        _row("one view, maxima searched", len(pixel_points), found["view"], dense_pixels),
        _row(
            "one view, maxima from a start",
            len(pixel_points),
            found["view, no search"],
            dense_pixels,
        ),
        _row(
            "the step (voxels, and the view searched)",
            len(points) + len(pixel_points),
            found["voxels"] + found["view"],
            dense_voxels + dense_pixels,
        ),
    )
    growth = math.log2(found[f"{many} voxels"] / found[f"{few} voxels"])
    notes = (
        (
            f"Forward and backward, {len(step.parameters[0]):,} Gaussians. The reference is "
            f"float32 on all of torch's threads, timed on {many:,} random voxels and "
            f"{len(some_pixels):,} random pixels and scaled by their number; from {few:,} to "
            f"{many:,} voxels its time grew with exponent {growth:.2f}."
        ),
        (
            "The reference gets the maxima on the rays, and the targets there, for nothing: its "
            "own search, a dense march, would add a thousand evaluations a pixel. The kernels "
            "search every second step of a fit; their times hold the stack's values there."
        ),
        _agreement(step, points, weights),
    )
    header = ("part", "points", "kernels, ms", "reference, ms (scaled)", "ratio")
    return [Table(TITLE, header, rows, notes)]


def _row(name: str, count: int, kernels: float, torch_reference: float) -> tuple[Cell, ...]:
    return name, count, 1e3 * kernels, 1e3 * torch_reference, torch_reference / kernels


def _agreement(step: Step, points: torch.Tensor, weights: torch.Tensor) -> str:
    """Say how far the gradients of a twentieth of the Gaussians are from the dense ones."""
    some = slice(None, None, 20 if len(step.parameters[0]) > 100 else 1)
    means, cholesky, amplitudes = (p[some] for p in step.parameters)
    few = replace(step, parameters=(means, cholesky, amplitudes), cutoff=STRICT_CUTOFF)
    off = difference(few.voxels(), dense(few.parameters, points, weights))
    return (
        f"With nothing above {STRICT_CUTOFF:g} left out (above: {step.cutoff:.0e}), the voxels' "
        f"gradients of {len(means):,} of the Gaussians differ from the reference's by {off:.0e} in "
        "relative norm."
    )
