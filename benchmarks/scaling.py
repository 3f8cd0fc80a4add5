"""How a step's cost grows with the number of Gaussians, voxels and pixels."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from benchmarks.fields import Parameters, gradients_of, leaves_of, pairs_per_volume, random_field
from benchmarks.floors import ray_pairs
from benchmarks.plots import draw_growth
from benchmarks.tables import Cell, Table
from benchmarks.timing import exponent, medians, with_kernels
from napari_gaussfit import _kernels
from napari_gaussfit._kernels.cpu import backend
from napari_gaussfit._kernels.geometry import Grid
from napari_gaussfit.model.camera import orbit_view

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.options import Options
    from napari_gaussfit._kernels.geometry import Rays

SIDE = 128.0
"""The box's side; a Gaussian's sigma is about 2."""

SIGMA = 2.0
CUTOFF = 1e-4
LARGEST_COUNT, LARGEST_SIDE = 100_000, 512
"""Gaussians and voxels a side of the largest stack; smaller ones are as dense."""

PLOT = Path(__file__).resolve().parents[1] / "docs" / "images" / "cost.png"
SLAB = 32
"""Planes evaluated at a time, so that no volume is held whole, as in a fit's bricks."""


def volume_step(parameters: Parameters, side: int, step: float) -> Parameters:
    """Voxelise a box with side^3 voxels, `step` apart, forward and backward."""
    leaves = leaves_of(parameters)
    spacing = np.full(3, step, np.float32)
    for first in range(0, side, SLAB):
        planes = min(SLAB, side - first)
        origin = np.asarray([first * spacing[0], 0.0, 0.0], np.float32)
        grid = Grid(origin, spacing, (planes, side, side))
        volume = _kernels.voxelise(*leaves, grid, cutoff=CUTOFF)
        torch.autograd.backward(volume, torch.ones_like(volume))
    return gradients_of(leaves)


def oblique_rays(side: int) -> Rays:
    """Rays of an oblique view of the box, at most `side` pixels a side."""
    box = np.zeros(3), np.full(3, SIDE)
    return orbit_view(box, 30.0, 20.0, 1e-6, largest_side=side).rays(box)


def view_step(parameters: Parameters, rays: Rays) -> Parameters:
    """The exact MIP along rays, its maxima searched, forward and backward."""
    leaves = leaves_of(parameters)
    image = _kernels.mip(*leaves, rays, cutoff=CUTOFF, bin_step=0.75 * SIGMA)
    torch.autograd.backward(image, torch.ones_like(image))
    return gradients_of(leaves)


def whole_step(parameters: Parameters, side: int, rays: Rays) -> None:
    """Voxelise a stack of spacing 1 and view it from aslant, forward and backward."""
    volume_step(parameters, side, 1.0)
    view_step(parameters, rays)


def grown_stack(options: Options) -> Table:
    """Time a step as a stack grows with its Gaussians, and draw it."""
    sides = options.pick([32, 64, 128, 256, 512], [16, 32])
    pairs, counts, ways = [], [], []
    for side in sides:
        count = max(10, round(LARGEST_COUNT * (side / LARGEST_SIDE) ** 3))
        parameters = random_field(count, (side,) * 3, SIGMA)
        box = np.zeros(3), np.full(3, float(side))
        rays = orbit_view(box, 30.0, 20.0, 2.0, largest_side=side).rays(box)
        packed = backend.pack(*parameters, CUTOFF)
        seen, _ = ray_pairs(packed, rays, 0.75 * SIGMA)
        pairs.append(pairs_per_volume(parameters[1], parameters[2], CUTOFF) + seen)
        counts.append(count)
        ways.append(partial(whole_step, parameters, side, rays))
    seconds = _times(ways, options.pick(min(2, options.turns), 1))
    slope = exponent(pairs, seconds)
    rows: list[tuple[Cell, ...]] = [
        (f"{side}^3", count, n / 1e6, 1e3 * taken, 1e9 * taken / n)
        for side, count, n, taken in zip(sides, counts, pairs, seconds, strict=True)
    ]
    notes = [
        (
            f"Voxelise the whole stack and one oblique view, its maxima searched, forward and "
            f"backward. Time grows with exponent {slope:.2f} in the number of pairs."
        )
    ]
    if not options.small:
        draw_growth(pairs, seconds, slope, PLOT)
        notes.append(f"![Time of a step against pairs](images/{PLOT.name})")
    header = ("stack", "Gaussians", "million pairs", "ms", "ns a pair")
    return Table("Cost of a step as the stack grows", header, tuple(rows), tuple(notes))


def measure(options: Options) -> list[Table]:
    """Time what grows along one size at a time, and then all together."""
    counts = options.pick([1_000, 3_000, 10_000, 30_000, 100_000], [50, 100])
    sides = options.pick([64, 128, 256], [16, 32])
    view_sides = options.pick([64, 128, 256, 512], [16, 32])
    turns = options.pick(min(3, options.turns), 1)
    side, view_side = options.pick((128, 256), (24, 24))

    def field(count: int) -> Parameters:
        return random_field(count, (SIDE, SIDE, SIDE), SIGMA)

    fields = {count: field(count) for count in counts}
    one = field(options.pick(2_000, 40))
    rays = oblique_rays(view_side)
    views = [oblique_rays(n) for n in view_sides]
    in_volume = [_volume_pairs(fields[count], side) for count in counts]
    return [
        _grown(
            f"Cost as the Gaussians grow: {side}^3 voxels",
            "Gaussians",
            counts,
            in_volume,
            _times([partial(volume_step, fields[n], side, SIDE / side) for n in counts], turns),
        ),
        _grown(
            f"Cost as the Gaussians grow: a view of {view_side} pixels a side",
            "Gaussians",
            counts,
            None,
            _times([partial(view_step, fields[n], rays) for n in counts], turns),
        ),
        _grown(
            f"Cost as the voxels grow: the same {len(one[0]):,} Gaussians, sampled more finely",
            "voxels",
            [n**3 for n in sides],
            [_volume_pairs(one, n) for n in sides],
            _times([partial(volume_step, one, n, SIDE / n) for n in sides], turns),
        ),
        _grown(
            f"Cost as the pixels grow: the same {len(one[0]):,} Gaussians, seen more finely",
            "pixels",
            [n**2 for n in view_sides],
            None,
            _times([partial(view_step, one, r) for r in views], turns),
        ),
        grown_stack(options),
    ]


def _volume_pairs(parameters: Parameters, side: int) -> float:
    """Pairs of Gaussian and voxel, but for what a face cuts off."""
    _, cholesky, amplitudes = parameters
    return pairs_per_volume(cholesky, amplitudes, CUTOFF) * (side / SIDE) ** 3


def _times(calls: Sequence[Callable[[], object]], turns: int) -> list[float]:
    ways = [with_kernels(str(n), call) for n, call in enumerate(calls)]
    return list(medians(ways, turns=turns).values())


def _grown(
    title: str,
    what: str,
    sizes: Sequence[int],
    pairs: Sequence[float] | None,
    seconds: Sequence[float],
) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for n, (size, taken) in enumerate(zip(sizes, seconds, strict=True)):
        known = (pairs[n] / 1e6, 1e9 * taken / pairs[n]) if pairs else ()
        rows.append((size, 1e3 * taken, *known))
    header = (what, "ms", *(("million pairs", "ns a pair") if pairs else ()))
    whole, last = exponent(sizes, seconds), exponent(sizes[-2:], seconds[-2:])
    note = (
        f"Time grows with exponent {whole:.2f} in the number of {what} over all sizes, "
        f"{last:.2f} between the last two."
    )
    return Table(title, header, tuple(rows), (note,))
