"""One thread against all cores: the dendrite's step."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING
from unittest.mock import patch

from benchmarks.kernels import Step, step_of
from benchmarks.tables import Cell, Table
from benchmarks.timing import medians, with_kernels
from napari_gaussfit._kernels import threads

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


def parts_of(step: Step) -> dict[str, Callable[[], object]]:
    """What is timed by itself."""
    return {
        "all voxels": step.voxels,
        "one view, maxima searched": lambda: step.view(None),
        "one view, maxima from a start": lambda: step.view(step.depth),
    }


def measure(options: Options) -> list[Table]:
    """Time each part with one thread and with all, in turns."""
    step = step_of(options)
    parts = parts_of(step)
    ways = []
    for name, call in parts.items():
        ways += [
            with_kernels(f"{name} 1", partial(in_one_thread, call)),
            with_kernels(f"{name} all", call),
        ]
    taken = medians(ways, turns=options.pick(2 * options.turns, 1))
    both = ("all voxels", "one view, maxima searched")
    for many in ("1", "all"):
        taken[f"the step (voxels, and the view searched) {many}"] = sum(
            taken[f"{name} {many}"] for name in both
        )
    rows: list[tuple[Cell, ...]] = []
    for name in (*parts, "the step (voxels, and the view searched)"):
        one, every = taken[f"{name} 1"], taken[f"{name} all"]
        rows.append((name, 1e3 * one, 1e3 * every, one / every))
    count = threads.thread_count()
    header = ("part", "1 thread, ms", f"{count} threads, ms", "ratio")
    return [Table(f"One thread against {count}", header, tuple(rows))]
