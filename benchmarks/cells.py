"""Cells and nuclei: objects of a fit against labels, beside Otsu's threshold and a watershed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import tifffile
from scipy.ndimage import distance_transform_edt, gaussian_filter
from skimage.feature import peak_local_max
from skimage.filters import threshold_otsu
from skimage.measure import label
from skimage.segmentation import watershed

from benchmarks.stacks import NUCLEI, DataMissingError, data_folder, open_stack
from benchmarks.tables import Cell, Table
from napari_gaussfit import FitSettings, fit
from napari_gaussfit.cli.cells import gaussians_for
from napari_gaussfit.objects.grouping import group
from napari_gaussfit.objects.labels import paint
from napari_gaussfit.synthetic.phantoms import nuclei

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from benchmarks.options import Options
    from napari_gaussfit.stacks.stack import Stack

    Labels = NDArray[np.int32]

LABELS = "nuclei/nuclei_cells3d_allen_labels.tif"
SMOOTHED, APART = 1.0, 4.0
"""Micrometres, of the watershed: blur before the threshold, and between two peaks of distance."""

HIT = 0.5
"""Intersection over union from which an object is a label's."""


def by_fit(stack: Stack, options: Options) -> tuple[Labels, int]:
    """As `napari-gaussfit cells` does by default; labels, and how many Gaussians."""
    count = options.pick(gaussians_for(stack), 60)
    settings = FitSettings(exactly=True, gaussians=count, iterations=options.pick(None, 20))
    field = fit(stack, settings).field
    labels, _ = paint(field, group(field.numpy()), stack.shape, stack.spacing)
    return labels, len(field)


def by_watershed(stack: Stack) -> Labels:
    """Otsu's threshold, the distance to it, and a watershed from its peaks."""
    sigma = [SMOOTHED / step for step in stack.spacing]
    smooth = gaussian_filter(np.asarray(stack.voxels, np.float32), sigma)
    inside = smooth > threshold_otsu(smooth)
    depth = distance_transform_edt(inside, sampling=stack.spacing)
    apart = round(APART / min(stack.spacing))
    peaks = peak_local_max(depth, min_distance=apart, labels=label(inside), exclude_border=False)
    markers = np.zeros(stack.shape, np.int32)
    markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    return np.asarray(watershed(-depth, markers, mask=inside), np.int32)


def score(found: Labels, truth: Labels) -> tuple[int, int, float]:
    """How many labels have an object, how many objects there are, and F1."""
    sizes = np.bincount(found.reshape(-1))
    hits = 0
    for number in range(1, int(truth.max()) + 1):
        inside = truth == number
        common = np.bincount(found[inside], minlength=len(sizes))
        common[0] = 0
        best = int(common.argmax())
        hits += bool(common[best] > HIT * (inside.sum() + sizes[best] - common[best]))
    count = len(np.unique(found[found > 0]))
    return hits, count, 2 * hits / (int(truth.max()) + count)


def _rows(options: Options) -> list[tuple[Cell, ...]]:
    path = data_folder() / LABELS
    if not path.is_file():
        raise DataMissingError(f"{path} is no file: set GAUSSFIT_DATA to the folder of real stacks")
    stack, truth = open_stack(NUCLEI), tifffile.imread(path).astype(np.int32)
    rows: list[tuple[Cell, ...]] = []
    began = time.perf_counter()
    labels, gaussians = by_fit(stack, options)
    hits, count, f1 = score(labels, truth)
    name = f"{gaussians:,} Gaussians, grouped"
    rows.append((name, hits, int(truth.max()), count, f1, time.perf_counter() - began))
    began = time.perf_counter()
    hits, count, f1 = score(by_watershed(stack), truth)
    name = "Otsu and watershed"
    rows.append((name, hits, int(truth.max()), count, f1, time.perf_counter() - began))
    return rows


def _counted(options: Options) -> list[tuple[Cell, ...]]:
    rows: list[tuple[Cell, ...]] = []
    for seed in range(options.pick(4, 1)):
        made = nuclei(seed=seed) if not options.small else nuclei(count=2, shape=(24, 64, 64))
        expected = 12 if not options.small else 2
        found = int(by_fit(made.stack, options)[0].max())
        other = len(np.unique(by_watershed(made.stack))) - 1
        rows.append((f"phantom {seed}", expected, found, other))
    return rows


def measure(options: Options) -> list[Table]:
    """Labels that are found, and nuclei that are counted."""
    note = (
        f"An object is a label's where their intersection is more than {HIT:g} of their union. All "
        "settings are the defaults: how far to blur comes from the stack. One label has 629 voxels."
    )
    header = ("way", "labels found", "labels", "objects", "F1", "s")
    counted = ("stack", "nuclei", "counted", "by Otsu and watershed")
    tables = [Table("Nuclei counted on phantoms", counted, tuple(_counted(options)))]
    if not options.small:
        tables.insert(0, Table("Nuclei against labels", header, tuple(_rows(options)), (note,)))
    return tables
