"""Fits of the real stacks as a user runs them: quality, time and memory."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.stacks import BEADS, DENDRITE, NUCLEI, Task, open_stack
from benchmarks.tables import Cell, Table

if TYPE_CHECKING:
    from benchmarks.options import Options
    from napari_gaussfit.settings import Objective

FITS: tuple[tuple[Task, Objective], ...] = (
    (DENDRITE, "mip+voxels"),
    (BEADS, "mip+voxels"),
    (NUCLEI, "mip+voxels"),
    (DENDRITE, "mip"),
)


@dataclass(frozen=True)
class Outcome:
    """What a fit came to; memory in MB (10^6 bytes), of which `imports_mb` before the stack."""

    heldout_mip_psnr: float
    heldout_noise_psnr: float | None
    voxel_psnr: float
    noise_psnr: float | None
    consistency_psnr: float
    seconds: float
    imports_mb: float
    peak_mb: float


def peak_mb() -> float:
    """Largest memory that this process has used.

    Linux's own count begins anew with a program; what `getrusage` says begins with the parent's.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return float(line.split()[1]) * 1024 / 1e6
    from napari_gaussfit.measure.report import peak_memory_mb

    return peak_memory_mb()


def fit_once(task: Task, objective: Objective, options: Options) -> Outcome:
    """Fit one stack; in a process of its own, so that memory is this fit's alone."""
    import importlib
    import time

    for name in ("fitting.trainer", "measure.report", "stacks.stack", "_kernels.cpu.spline"):
        importlib.import_module(f"napari_gaussfit.{name}")
    importlib.import_module("skimage.metrics")
    imports = peak_mb()
    from napari_gaussfit import FitSettings, fit

    stack = open_stack(task, small=options.small)
    count = options.pick(task.gaussians, 30)
    fit(stack, FitSettings(exactly=True, gaussians=count, objective=objective, iterations=5))
    steps = options.pick(None, 5)
    began = time.perf_counter()
    result = fit(
        stack, FitSettings(exactly=True, gaussians=count, objective=objective, iterations=steps)
    )
    seconds = time.perf_counter() - began
    report = result.report
    return Outcome(
        report.heldout_mip_psnr,
        report.heldout_noise_psnr,
        report.voxel_psnr,
        report.noise_psnr,
        report.consistency_psnr,
        seconds,
        imports,
        peak_mb(),
    )


def decibels(psnr: float | None) -> str:
    """A PSNR, or that it is not known."""
    return "–" if psnr is None else f"{psnr:.2f}"


def measure(options: Options) -> list[Table]:
    """Fit every stack, each in a new process."""
    context = multiprocessing.get_context("spawn")
    rows: list[tuple[Cell, ...]] = []
    each = options.pick(1, None)  # where memory is no figure, all may share one
    with ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=each) as processes:
        for task, objective in FITS:
            o = processes.submit(fit_once, task, objective, options).result()
            rows.append(
                (
                    f"{task.name}, {objective}",
                    options.pick(task.gaussians, 30),
                    f"{o.heldout_mip_psnr:.2f}",
                    decibels(o.heldout_noise_psnr),
                    f"{o.voxel_psnr:.2f}",
                    decibels(o.noise_psnr),
                    f"{o.consistency_psnr:.2f}",
                    o.seconds,
                    o.peak_mb,
                    o.peak_mb - o.imports_mb,
                )
            )
    header = (
        "stack, objective",
        "Gaussians",
        "held-out, dB",
        "noise leaves there, dB",
        "voxels, dB",
        "noise leaves, dB",
        "consistency, dB",
        "wall, s",
        "peak, MB",
        "beyond imports, MB",
    )
    note = (
        "Balanced quality, kernels compiled. The time is all of `fit()`: seeds, steps and the "
        "report, without opening the file. Each fit has a process of its own; its memory is that "
        "process's."
    )
    return [Table("Fits of the real stacks", header, tuple(rows), (note,))]
