"""Labels that are made box by box are those of all voxels at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from yaozarrs import validate_zarr_store

from napari_gaussfit.cli.commands import main
from napari_gaussfit.fitting.fit_tiles import fit_tiles
from napari_gaussfit.fitting.result import load
from napari_gaussfit.jobs import folders
from napari_gaussfit.objects.boxed_labels import BoxedLabels
from napari_gaussfit.objects.grouping import group
from napari_gaussfit.objects.labels import measure_objects, paint
from napari_gaussfit.plots.objects import first_labels
from napari_gaussfit.settings import FitSettings
from napari_gaussfit.stacks import ome_zarr
from napari_gaussfit.stacks.lazy import LazyStack
from napari_gaussfit.stacks.stack import Stack
from napari_gaussfit.synthetic import phantoms

if TYPE_CHECKING:
    from pathlib import Path

    from napari_gaussfit.model.field import GaussianField

SHAPE, SPACING = (40, 80, 76), (0.6, 0.25, 0.25)


@pytest.fixture(scope="module")
def field() -> GaussianField:
    """Nuclei of several Gaussians each, of which boxes cut most."""
    return phantoms.nuclei(shape=SHAPE, spacing=SPACING, count=4, seed=3).truth


@pytest.mark.parametrize("level", [None, 30.0])
@pytest.mark.parametrize("box", [16, 64])
def test_voxels_objects_and_pictures_are_those_of_one_piece(
    field: GaussianField, box: int, level: float | None
) -> None:
    groups = group(field.numpy())
    labels, kept = paint(field, groups, SHAPE, SPACING, level)
    expected = measure_objects(field, kept, labels, SPACING)
    array = np.zeros(SHAPE, np.int32)

    boxed = BoxedLabels(field, groups, array, SPACING, box)
    boxed.paint(level)
    found = boxed.measure()

    assert labels.max() > 3
    assert np.count_nonzero(array != labels) <= 1e-5 * labels.size
    assert np.array_equal(boxed.groups.of, kept.of)
    for name in ("centre", "volume", "surface", "intensity", "semiaxes"):
        one, other = getattr(found, name), getattr(expected, name)
        assert np.allclose(one, other, rtol=1e-3, atol=1e-3), name
    assert np.array_equal(found.at_border, expected.at_border)
    assert found.neighbours == expected.neighbours
    for axis in range(3):
        assert np.array_equal(boxed.first_along(axis), first_labels(array, axis))


def test_cells_of_a_fit_by_tiles_are_labelled_by_boxes_in_several_resolutions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ome_zarr, "CHUNK", 16)
    out, cells, whole = (tmp_path / name for name in ("fit", "cells", "whole"))
    stack = phantoms.nuclei(shape=SHAPE, spacing=SPACING, count=4, seed=3).stack
    settings = FitSettings(iterations=30, device="cpu", measure=False)
    fit_tiles(stack, out, settings, tile=(40, 40, 76))
    region = ["--region", "0", "0", "0", *map(str, SHAPE)]

    assert main(["cells", str(out), "-o", str(cells)]) == 0
    assert main(["cells", str(out), "-o", str(whole), *region]) == 0

    validate_zarr_store(cells / folders.LARGE_LABELS_NAME)
    labels = LazyStack.open(cells / folders.LARGE_LABELS_NAME)
    assert labels.dtype == np.int32
    assert labels.spacing == pytest.approx(stack.spacing)
    found = labels.read((0, 0, 0), SHAPE)
    expected = Stack.open(whole / folders.LABELS_NAME).voxels
    assert np.count_nonzero(found != expected) <= 1e-5 * found.size
    coarse = LazyStack.open(cells / folders.LARGE_LABELS_NAME / "1")
    assert np.array_equal(coarse.read((0, 0, 0), coarse.shape), found[::2, ::2, ::2])
    one, other = (pd.read_csv(folder / folders.OBJECTS_NAME) for folder in (cells, whole))
    assert one["label"].tolist() == other["label"].tolist()
    assert np.allclose(one["volume"], other["volume"], rtol=1e-3)
    assert (cells / folders.CELLS_PICTURE_NAME).stat().st_size > 10_000
    assert len(load(out).field) > 20

    # As for any command, what is there is replaced where that is asked for, and not else.
    assert main(["cells", str(out), "-o", str(cells)]) == 2
    assert main(["cells", str(out), "-o", str(cells), "--force"]) == 0
    also = ["--also", str(tmp_path / "labels.ome.tif"), "--force"]
    assert main(["cells", str(out), "-o", str(cells), *also]) == 2
