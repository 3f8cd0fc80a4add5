"""One thread against all cores: steps of fits, and what the machine gives."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING
from unittest.mock import patch

import numpy as np

from benchmarks.kernels import Step, next_step, trainer_of
from benchmarks.peak import ROUNDS, multiply_adds
from benchmarks.stacks import DENDRITE, NUCLEI
from benchmarks.tables import Cell, Table
from benchmarks.timing import medians, with_kernels
from benchmarks.volumes import CUTOFF, by_kernels, field_and_weights
from napari_gaussfit import _threads as threads
from napari_gaussfit._kernels import GradientSum

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.options import Options


def in_one_thread(call: Callable[[], object]) -> None:
    """Call with the kernels kept to this thread."""
    with patch.object(threads, "thread_count", _one):
        call()


def _one() -> int:
    # A mock would do, but one takes longer to make than some of what is timed here.
    return 1


def voxels(step: Step) -> None:
    """Gather the gradient of the squared error of all voxels, as a fit's step does."""
    total = GradientSum(*step.parameters, cutoff=step.cutoff)
    total.add_squared_residual(step.grid, step.voxel_weights, offset=0.0, weight=1.0)
    total.gradients()


def arithmetic(options: Options) -> Callable[[], None]:
    """Return multiply-adds on numbers in registers, split like the kernels' work."""
    run, rounds = multiply_adds(64), options.pick(80, 1) * ROUNDS

    def some(first: int, end: int) -> None:
        run(np.float32(0.5), end - first)

    return lambda: threads.run_pieces(some, rounds)


def measure(options: Options) -> list[Table]:
    """Time each part with one thread and with all, in turns."""
    trainer, other = trainer_of(DENDRITE, options), trainer_of(NUCLEI, options)
    step = next_step(trainer)
    field, weights = field_and_weights(options)
    parts: dict[str, Callable[[], object]] = {
        f"voxelise {len(weights)}^3, {len(field[0]):,} Gaussians": partial(
            by_kernels, field, weights, CUTOFF
        ),
        "dendrite: all voxels": partial(voxels, step),
        "dendrite: a view, maxima searched": partial(step.view, None),
        "dendrite: a view, maxima from a start": partial(step.view, step.depth),
        "dendrite: a step of the fit, all in all": partial(trainer.step, 0.1),
        "nuclei: a step of the fit, all in all": partial(other.step, 0.1),
        "multiply-adds in registers": arithmetic(options),
    }
    ways = []
    for name, call in parts.items():
        ways += [
            with_kernels(f"{name} 1", partial(in_one_thread, call)),
            with_kernels(f"{name} all", call),
        ]
    taken = medians(ways, turns=options.pick(2 * options.turns, 1))
    rows: list[tuple[Cell, ...]] = []
    for name in parts:
        one, every = taken[f"{name} 1"], taken[f"{name} all"]
        rows.append((name, 1e3 * one, 1e3 * every, one / every))
    count = threads.thread_count()
    header = ("part", "1 thread, ms", f"{count} threads, ms", "ratio")
    note = (
        "Forward and backward; gradients of squared errors, as a fit gathers them. The last row is "
        "what the machine gives: arithmetic that shares nothing, split like the kernels' work."
    )
    return [Table(f"One thread against {count}", header, tuple(rows), (note,))]
