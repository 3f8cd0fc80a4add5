"""Neurites: traces of fits against traces that others made, and against phantoms' own branches."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree
from skimage.filters import threshold_otsu
from skimage.morphology import skeletonize

from benchmarks.stacks import DENDRITE, DataMissingError, Task, data_folder, open_stack
from benchmarks.tables import Cell, Table
from napari_gaussfit import FitSettings, fit
from napari_gaussfit.formats.swc import read_swc
from napari_gaussfit.model.gaussians import FWHM_PER_SIGMA
from napari_gaussfit.objects.neurites import Trace, TraceSettings, trace
from napari_gaussfit.synthetic.phantoms import PSF_HIGH_NA, Phantom, neurite

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from benchmarks.options import Options
    from napari_gaussfit.stacks.stack import Stack

    Floats = NDArray[np.float64]

AXON = Task("axon", "neurites/rivulet_axon_crop.tif", 0)
AXON_SWC, DENDRITE_SWC = "neurites/rivulet_axon_crop.swc", "neurites/dendrite_spines_spotspine.swc"
ROWS = 75
"""The axon's trace counts y from below, as the program that made it: from the last of 76 rows."""

SEEDS = 5
"""Of fits of the axon, so that no figure hangs on one."""

NEAR = {"axon": 2.0, "dendrite": 0.4, "phantom": 0.3}
"""Pixels, micrometres, micrometres: as near as this, a place is that of the reference."""


def line_of(found: Trace) -> Floats:
    """Places all along a trace."""
    nodes = np.flatnonzero(found.parents >= 0)
    a, b = found.points[found.parents[nodes]], found.points[nodes]
    return np.concatenate([a + part * (b - a) for part in np.linspace(0, 1, 5)])


def skeleton_of(stack: Stack) -> Floats:
    """The voxels of scikit-image's skeleton of what is above Otsu's threshold."""
    inside = np.asarray(stack.voxels) > threshold_otsu(np.asarray(stack.voxels))
    return np.argwhere(skeletonize(inside)) * np.array(stack.spacing)


def agreement(places: Floats, reference: Floats, near: float) -> tuple[float, float]:
    """Precision and recall."""
    there = cKDTree(reference).query(places)[0]
    back = cKDTree(places).query(reference)[0]
    return float((there <= near).mean()), float((back <= near).mean())


def _reference(name: str) -> Floats | None:
    path = data_folder() / {"axon": AXON_SWC, "dendrite": DENDRITE_SWC}[name]
    if not path.is_file():
        return None
    points = read_swc(path)[0]
    if name == "axon":
        points[:, 1] = ROWS - points[:, 1]
    return points


def _real() -> tuple[list[tuple[Cell, ...]], list[str]]:
    rows: list[tuple[Cell, ...]] = []
    notes = []
    for task in (AXON, DENDRITE):
        reference, near = _reference(task.name), NEAR[task.name]
        if reference is None:
            notes.append(
                f"The {task.name} is left out: its reference was not there. It is tests/data/test."
                f"small.swc of rivuletpy, expected in GAUSSFIT_DATA as {AXON_SWC}."
            )
            continue
        stack = open_stack(task)
        steps = np.linalg.norm(np.diff(reference, axis=0), axis=1)
        for seed in range(SEEDS if task is AXON else 1):
            began = time.perf_counter()
            settings = FitSettings(exactly=True, gaussians=task.gaussians or None, seed=seed)
            field = fit(stack, settings).field
            fitted = time.perf_counter() - began
            began = time.perf_counter()
            found = trace(field.numpy(), stack.box)
            took = time.perf_counter() - began
            precision, recall = agreement(line_of(found), reference, near)
            main = found.points[found.branch == 0]
            away = float(cKDTree(reference).query(main)[0].mean())
            length = found.branches.length[0] / steps.sum() if task is DENDRITE else None
            name = f"{task.name}, seed {seed}" if task is AXON else task.name
            rows.append((name, precision, recall, away, length, fitted, took))
        precision, recall = agreement(skeleton_of(stack), reference, near)
        rows.append((f"{task.name}, Otsu and skeleton", precision, recall, None, None, None, None))
    return rows, notes


def _phantom_row(seed: int, options: Options) -> tuple[Cell, ...]:
    made = neurite(seed=seed, spines=False)
    settings = FitSettings(iterations=options.pick(None, 60))
    field = fit(made.stack, settings).field
    z, y, x = (FWHM_PER_SIGMA * sigma for sigma in PSF_HIGH_NA)
    found = trace(field.numpy(), made.stack.box, replace(TraceSettings(), psf_fwhm=(z, y, x)))
    lower, upper = made.stack.box
    inside = [np.all((b.path >= lower) & (b.path <= upper), axis=1) for b in made.branches]
    truth = np.concatenate([b.path[seen] for b, seen in zip(made.branches, inside, strict=True)])
    precision, recall = agreement(line_of(found), truth, NEAR["phantom"])
    off = [radius_error(found, made, n, seen) for n, seen in enumerate(inside)]
    away = float(np.median(cKDTree(line_of(found)).query(truth)[0]))
    return (
        f"phantom {seed}", len(made.branches), len(found.branches),
        precision, recall, away, max(off),
    )  # fmt: skip


def radius_error(found: Trace, made: Phantom, n: int, seen: NDArray[np.bool_]) -> float:
    """How far a branch's mean radius is from its own, apart from where it leaves another."""
    path, radii = made.branches[n]
    others = [branch for m, branch in enumerate(made.branches) if m != n]
    away, near = cKDTree(np.concatenate([other.path for other in others])).query(path)
    wall = np.concatenate([other.radii for other in others])[near]
    apart = seen & (away > wall + radii + 0.2)
    measured = found.radii[cKDTree(found.points).query(path[apart])[1]]
    return float(abs(measured.mean() / radii[apart].mean() - 1))


def measure(options: Options) -> list[Table]:
    """Real stacks against traces, and phantoms against themselves."""
    tables = []
    if not options.small:
        rows, notes = _real()
        if not rows:
            raise DataMissingError("no reference trace is there: set GAUSSFIT_DATA")
        notes.append(
            "Within 2 pixels on the axon, 0.4 um on the dendrite, whose reference is the shaft "
            "alone: its spines count against precision. The main branch: how far from the "
            "reference on average, in pixels or um, and its length over that of the reference."
        )
        header = (
            "stack",
            "precision",
            "recall",
            "main, away",
            "main, length",
            "fit, s",
            "trace, s",
        )
        tables.append(Table("Traces against those of others", header, tuple(rows), tuple(notes)))
    phantoms = tuple(_phantom_row(seed, options) for seed in range(options.pick(5, 1)))
    note = (
        "Without spines. Within 0.3 um of the true centre lines; how far the middle one of their "
        "places is from the trace, in um; the largest error of a branch's mean radius."
    )
    header = ("stack", "branches", "found", "precision", "recall", "away, um", "radius off")
    tables.append(Table("Traces of phantoms of known branches", header, phantoms, (note,)))
    return tables
