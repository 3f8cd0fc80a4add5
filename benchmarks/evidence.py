"""How many Gaussians: the fit's own count against the best of ten, by known truths."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from benchmarks.stacks import BEADS, DENDRITE, NUCLEI, open_stack
from benchmarks.tables import Cell, Table
from napari_gaussfit import FitSettings, fit
from napari_gaussfit.synthetic import phantoms
from napari_gaussfit.synthetic.recovery import against_truth

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.options import Options
    from napari_gaussfit.synthetic.phantoms import Phantom

COUNTS = (40, 60, 100, 160, 250, 400, 700, 1100, 1800, 3000)
TRUE_COUNT, BACKGROUND = 3000, 5.0
PHOTONS = (50, 300, 3000)


@dataclass(frozen=True)
class Tried:
    """A fit of a phantom: PSNRs of unseen views and voxels against the truth, and seconds."""

    held_out: float
    voxels: float
    seconds: float
    count: int

    @classmethod
    def of(cls, phantom: Phantom, settings: FitSettings) -> Tried:
        """Fit it."""
        began = time.perf_counter()
        result = fit(phantom.stack, settings)
        seconds = time.perf_counter() - began
        held_out, voxels = against_truth(result.field, phantom)
        return cls(held_out, voxels, seconds, result.report.gaussians)


def measure(options: Options) -> list[Table]:
    """Fit every phantom with every count, and with none given."""
    counts = options.pick(COUNTS, COUNTS[:2])
    steps = options.pick(None, 20)
    rows: list[tuple[Cell, ...]] = []
    for name, phantom in truths(options):
        tried = [
            Tried.of(phantom, FitSettings(gaussians=count, exactly=True, iterations=steps))
            for count in counts
        ]
        by_size = Tried.of(phantom, FitSettings(exactly=True, iterations=steps))
        own = Tried.of(phantom, FitSettings(iterations=steps))
        rows.append(
            (
                name,
                _best(tried),
                _shown(by_size),
                _shown(own),
                own.held_out - max(one.held_out for one in tried),
                own.voxels - max(one.voxels for one in tried),
                own.seconds / by_size.seconds,
            )
        )
    return [
        Table(
            "How many Gaussians: against the truth, dB of unseen views / of voxels",
            (
                "stack",
                f"best of {len(counts)} counts",
                "count by the signal's size",
                "no count given",
                "views, dB above the best",
                "voxels, dB above the best",
                "time, of a count by size",
            ),
            tuple(rows),
            ("In brackets, how many Gaussians. What is best is known by the truth alone.",),
        ),
        _real_stacks(options),
    ]


def truths(options: Options) -> Iterator[tuple[str, Phantom]]:
    """Stacks with noise, and what is in them."""
    if options.small:
        yield "neurite", phantoms.neurite(shape=(10, 24, 24))
        return
    stack = open_stack(DENDRITE)
    made_of = fit(stack, FitSettings(gaussians=TRUE_COUNT, exactly=True)).field
    made_of = replace(made_of, background=0.0)
    peak = float(made_of.voxelise(stack.shape, stack.spacing).max())
    for photons in PHOTONS:
        amplitudes = made_of.amplitudes * (photons / peak)
        truth = replace(made_of, amplitudes=amplitudes, background=BACKGROUND)
        name = f"dendrite's field, {photons:,} photons"
        yield name, phantoms.photon_counts(truth, stack.shape, stack.spacing)
    yield "neurite, 30 photons", phantoms.neurite(photons=30.0)
    yield "neurite, 150 photons", phantoms.neurite()
    yield "40 beads, 150 photons", phantoms.beads()
    yield "48 spots, 100 photons", phantoms.spots()
    yield "nuclei, 100 photons", phantoms.nuclei()
    yield "nuclei, 1,000 photons", phantoms.nuclei(photons=1000.0)


def _real_stacks(options: Options) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for task in options.pick((BEADS, DENDRITE, NUCLEI), (BEADS,)):
        stack = open_stack(task, small=options.small)
        report = fit(stack, FitSettings(iterations=options.pick(None, 20))).report
        rows.append(
            (
                task.name,
                f"{report.gaussians:,}: {report.count_reason}",
                report.heldout_mip_psnr,
                report.voxel_psnr,
            )
        )
    return Table(
        "How many Gaussians: real stacks, no count given",
        ("stack", "Gaussians", "held-out MIPs, dB", "voxels, dB"),
        tuple(rows),
    )


def _best(tried: list[Tried]) -> str:
    views = max(tried, key=lambda one: one.held_out)
    voxels = max(tried, key=lambda one: one.voxels)
    return f"{views.held_out:.2f} ({views.count:,}) / {voxels.voxels:.2f} ({voxels.count:,})"


def _shown(tried: Tried) -> str:
    return f"{tried.held_out:.2f} / {tried.voxels:.2f} ({tried.count:,})"
