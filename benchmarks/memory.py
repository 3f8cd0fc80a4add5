"""What a fit takes of memory against what is predicted, on synthetic stacks up to a large one."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.fits import peak_mb
from benchmarks.tables import Cell, Table

if TYPE_CHECKING:
    from benchmarks.options import Options
    from napari_gaussfit.stacks.stack import Stack

Shape = tuple[int, int, int]

SHAPES: tuple[Shape, ...] = ((40, 128, 144), (50, 324, 407), (100, 647, 813))
GAUSSIANS, STEPS = 2_000, 55
"""Steps enough for Gaussians to be relocated once; more take no more memory."""

BLOBS = 300


def synthetic(shape: Shape) -> Stack:
    """Shot noise with bright blocks in it, 16 bits, made plane by plane."""
    from napari_gaussfit import Stack

    source = np.random.default_rng(0)
    voxels = np.empty(shape, np.uint16)
    for plane in voxels:
        plane[:] = source.poisson(20, shape[1:])
    for _ in range(BLOBS):
        block = tuple(slice(n, n + 6) for n in source.integers(0, np.array(shape) - 6))
        voxels[block] += np.uint16(source.integers(100, 1000))
    return Stack.from_array(voxels, spacing=(1.0, 0.5, 0.5))


def measured_and_predicted(shape: Shape, gaussians: int, steps: int) -> tuple[float, float]:
    """Fit a synthetic stack, report included, in a process of its own: MB taken and predicted."""
    from napari_gaussfit import FitSettings, fit
    from napari_gaussfit.fitting.memory import predict_memory

    stack = synthetic(shape)
    settings = FitSettings(exactly=True, gaussians=gaussians, iterations=steps)
    predicted = predict_memory(stack.voxels.size, stack.nbytes, settings) / 1e6
    fit(stack, settings)
    return peak_mb(), predicted


def measure(options: Options) -> list[Table]:
    """Fit stacks of every size, each in a new process."""
    context = multiprocessing.get_context("spawn")
    rows: list[tuple[Cell, ...]] = []
    shapes: tuple[Shape, ...] = options.pick(SHAPES, ((10, 24, 24),))
    with ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1) as processes:
        for shape in shapes:
            given = shape, options.pick(GAUSSIANS, 30), options.pick(STEPS, 5)
            taken, predicted = processes.submit(measured_and_predicted, *given).result()
            size = " x ".join(map(str, shape))
            rows.append((size, float(np.prod(shape)) / 1e6, predicted, taken, predicted / taken))
    header = ("stack", "million voxels", "predicted, MB", "taken, MB", "predicted / taken")
    note = (
        f"All of `fit()` with {GAUSSIANS:,} Gaussians and {STEPS} steps, in a process of its own: "
        "the largest memory that it ever held, interpreter and libraries included."
    )
    return [Table("Memory of a fit", header, tuple(rows), (note,))]
