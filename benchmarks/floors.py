"""How far the CPU kernels are from what the machine's arithmetic allows, in one thread."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from numba import njit

from benchmarks.fields import pairs_per_volume, random_field
from benchmarks.kernels import step_of
from benchmarks.peak import cpu_seconds, peak_operations
from benchmarks.stacks import BEADS, open_stack
from benchmarks.tables import Cell, Table
from benchmarks.threads import in_one_thread
from napari_gaussfit._kernels.cpu import backend
from napari_gaussfit._kernels.shared.footprint import (
    FIRST_ROW,
    LAST_ROW,
    REACH2,
    ROW,
    STEP,
    column_ends,
    dot,
)
from napari_gaussfit._kernels.shared.profile import profile
from napari_gaussfit.model.camera import orbit_view
from napari_gaussfit.model.projection import StackProjector

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from benchmarks.kernels import Step
    from benchmarks.options import Options
    from napari_gaussfit._kernels.geometry import Rays

# Vector instructions of a pair (or a sample), multiply-add counted as one, exp2 as 12 of them: what
# the loops below the kernels' rows hold, as their machine code shows. Of a target at the maximum:
# 84 that sum 64 coefficients, 45 of weights, and its place along three axes.
EXP2 = 12
OPERATIONS = {
    "add_slab": EXP2 + 5,
    "voxel gather": EXP2 + 8,
    "search (a bin)": EXP2 + 5,
    "climb (an evaluation)": EXP2 + 24,
    "ray gather": EXP2 + 28,
    "points forward": EXP2 + 13,
    "points backward": EXP2 + 31,
    "targets at the maximum (a sample)": 150,
    "MIP of a stack (a sample)": 9,
}


@dataclass(frozen=True)
class Work:
    """A kernel's call in one thread, and how many pairs (or bins, or values) it has to do."""

    name: str
    pairs: float
    call: Callable[[], object]


@njit(nogil=True)
def _count_pairs(g: NDArray[np.float32], width: int, step: np.float32) -> tuple[float, float]:
    pairs, bins = 0, 0.0
    for k in range(g.shape[0]):
        for i in range(int(g[k, FIRST_ROW]), int(g[k, LAST_ROW]) + 1):
            p = np.float32(i) - g[k, ROW]
            first, last = column_ends(g, k, p, width)
            for j in range(int(first), int(last) + 1):
                c, _, a, _ = profile(g, k, i, j)
                widened = min(a, 1 / (step * step))
                pairs += 1
                bins += float(2 * math.sqrt(max(g[k, REACH2] - dot(c, c), 0.0) / widened) / step)
    return pairs, bins


def ray_pairs(packed: NDArray[np.float32], rays: Rays, bin_step: float) -> tuple[float, float]:
    """Pairs of Gaussian and pixel of a view, and of Gaussian, pixel and bin that matters."""
    g = backend.footprints_of(packed, rays)
    pairs, bins = _count_pairs(g, rays.shape[1], np.float32(bin_step))
    return pairs, bins


def samples_of(rays: Rays, spacing: Sequence[float]) -> float:
    """Samples that a stack's projection looks at along orthographic rays, all together."""
    view = backend.view_of(rays)
    speed = np.abs(rays.frame[3] / np.asarray(spacing)).max()
    lengths = (view.far - view.near)[:, : rays.shape[1]] * speed
    return float((np.ceil(lengths / STEP) + 1)[lengths > 0].sum())


def works(step: Step, options: Options) -> list[Work]:
    """What is timed: every kernel of a step on the dendrite, and points that all pairs count at."""
    packed = backend.pack(*step.parameters, step.cutoff)
    voxels = pairs_per_volume(step.parameters[1], step.parameters[2], step.cutoff)
    voxels /= float(np.prod(step.grid.spacing))
    pixels, bins = ray_pairs(packed, step.rays, step.bin_step)
    grid = backend.GridEvaluation(step.grid)
    searched = backend.MipEvaluation(step.rays, step.bin_step)
    climbed = backend.MipEvaluation(step.rays, step.bin_step, step.depth)
    searched.forward(packed)
    count, places = options.pick((1_000, 500), (20, 30))
    wide = backend.pack(*random_field(count, (1.0, 1.0, 1.0), 0.5), 1e-6)
    points = backend.PointEvaluation(
        torch.rand(places, 3, generator=torch.Generator().manual_seed(4))
    )
    ones = torch.ones(places)
    stack = open_stack(BEADS, small=options.small)
    camera = orbit_view(stack.box, 30.0, 20.0, 2 * min(stack.spacing))
    projector = StackProjector(stack)
    return [
        Work("add_slab", voxels, lambda: grid.forward(packed)),
        Work("voxel gather", voxels, lambda: grid.backward(packed, step.voxel_weights)),
        Work(
            "climb (an evaluation)",
            pixels * backend.EVALUATIONS,
            lambda: climbed.forward(packed),
        ),
        Work("search (a bin)", bins, lambda: searched.forward(packed)),
        Work("ray gather", pixels, lambda: searched.backward(packed, step.pixel_weights)),
        Work(
            "targets at the maximum (a sample)",
            searched.view.count,
            lambda: searched.target_of(step.volume),
        ),
        Work("points forward", count * places, lambda: points.forward(wide)),
        Work("points backward", count * places, lambda: points.backward(wide, ones)),
        Work(
            "MIP of a stack (a sample)",
            samples_of(camera.rays(stack.box), stack.spacing),
            lambda: projector.maximum(camera),
        ),
    ]


def measure(options: Options) -> list[Table]:
    """Time each kernel in one thread against the machine's peak."""
    turns = options.pick(4 * options.turns, 1)
    peak = peak_operations(turns)
    found = works(step_of(options), options)
    seconds = {work.name: cpu_seconds(partial(in_one_thread, work.call), turns) for work in found}
    # A search is followed by a climb, which stands in a row of its own.
    seconds["search (a bin)"] -= seconds["climb (an evaluation)"]
    rows: list[tuple[Cell, ...]] = []
    for work in found:
        floor = work.pairs * OPERATIONS[work.name] / peak
        taken = seconds[work.name]
        rows.append(
            (
                work.name,
                work.pairs / 1e6,
                OPERATIONS[work.name],
                1e3 * floor,
                1e3 * taken,
                1e9 * taken / work.pairs,
                taken / floor,
            )
        )
    header = (
        "kernel",
        "million pairs",
        "operations a pair",
        "floor, ms",
        "one thread, ms",
        "ns a pair",
        "times the floor",
    )
    notes = (
        (
            f"The peak, measured here: {peak / 1e9:.0f} thousand million multiply-adds a second in "
            "one core. The floor is pairs times vector operations over that. It knows of no rows, "
            "whose ends and partly filled vectors are most of what lies above it: a Gaussian of "
            "the dendrite meets voxels and pixels in rows of six to eight. A sample of a stack's "
            "ray is a lookup, which no vector does; a few of a ray's are interpolated besides. A "
            "target at the maximum is interpolated from 64 coefficients, one number at a time."
        ),
        (
            "Least processor time of one thread over several turns. The MIP of a stack, which only "
            "views that are held out or shown need, is the beads', points have wide Gaussians, the "
            "rest is the dendrite's step."
        ),
    )
    return [Table("Kernels against their floors", header, tuple(rows), notes)]
