"""What a fit by default takes of time and memory, by the size of the stack."""

from __future__ import annotations

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.fits import peak_mb
from benchmarks.tables import Cell, Table

if TYPE_CHECKING:
    from benchmarks.options import Options

Shape = tuple[int, int, int]

SHAPES: tuple[Shape, ...] = ((40, 128, 128), (60, 256, 256), (80, 512, 512), (100, 800, 800))


def fit_of_size(shape: Shape) -> tuple[int, float, float]:
    """Fit a phantom of a dendrite in a process of its own: Gaussians, seconds, MB."""
    from napari_gaussfit import fit, phantoms

    stack = phantoms.neurite(shape=shape).stack
    fit(phantoms.beads(shape=(12, 32, 32), count=3).stack)  # loads the kernels
    began = time.perf_counter()
    found = fit(stack)
    return len(found.field), time.perf_counter() - began, peak_mb()


def measure(options: Options) -> list[Table]:
    """Fit stacks of every size by default, each in a new process."""
    context = multiprocessing.get_context("spawn")
    rows: list[tuple[Cell, ...]] = []
    shapes: tuple[Shape, ...] = options.pick(SHAPES, ((10, 32, 32),))
    with ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1) as processes:
        for shape in shapes:
            count, seconds, memory = processes.submit(fit_of_size, shape).result()
            size = " x ".join(map(str, shape))
            rows.append((size, float(np.prod(shape)) / 1e6, count, seconds / 60, memory))
    header = ("stack", "million voxels", "Gaussians", "minutes", "memory, MB")
    note = (
        "`fit(stack)` of a phantom of a dendrite, nothing else said, kernels compiled: the report "
        "included, opening the file not. Memory is all that the process ever held, interpreter and "
        "libraries included."
    )
    return [Table("Minutes and memory by size", header, tuple(rows), (note,))]
