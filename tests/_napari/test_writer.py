"""What is saved from napari opens again as it was."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from napari_gaussfit._napari.layers.edited import fit_of_points
from napari_gaussfit.errors import FitError
from napari_gaussfit.fitting.result import FitResult, load
from napari_gaussfit.formats.csv import read_csv
from napari_gaussfit.model.field import GaussianField
from napari_gaussfit.settings import FitSettings
from napari_gaussfit.stacks.facts import StackFacts
from saved_fits import some_report

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.gui

PLUGIN = "napari-gaussfit"


@pytest.fixture
def fit() -> FitResult:
    rng = np.random.default_rng(5)
    factors = np.tril(rng.normal(size=(30, 3, 3)) * 0.05) + 0.2 * np.eye(3)
    field = GaussianField.from_covariances(
        rng.uniform(0, 3, (30, 3)),
        factors @ factors.transpose(0, 2, 1),
        rng.uniform(100, 1000, 30),
        background=77.7,
    )
    return FitResult(
        (field,),
        StackFacts("dendrite", (10, 30, 30), (0.3, 0.1, 0.1)),
        FitSettings(quality="fine"),
        {"loss": [3.0, 2.0]},
        (some_report(),),
        {"step": np.array(3)},
    )


@pytest.fixture
def opened(
    fit: FitResult, tmp_path: Path, make_napari_viewer_proxy: Callable[..., Any]
) -> tuple[Any, Any]:
    """A viewer with a saved fit in it, and its centres."""
    path = tmp_path / "saved.safetensors"
    fit.save(path)
    viewer = make_napari_viewer_proxy()
    viewer.open(path, plugin=PLUGIN)
    return viewer, viewer.layers["dendrite centres"]


def assert_same_fields(found: GaussianField, expected: GaussianField) -> None:
    torch.testing.assert_close(found.means, expected.means)
    torch.testing.assert_close(found.covariances, expected.covariances)
    torch.testing.assert_close(found.amplitudes, expected.amplitudes)


def test_a_saved_fit_brings_back_its_layers_in_its_unit(
    opened: tuple[Any, Any], fit: FitResult
) -> None:
    viewer, centres = opened
    kinds = {layer._type_string: layer for layer in viewer.layers}
    assert kinds.keys() == {"points", "vectors", "surface"}
    for kind, layer in kinds.items():
        np.testing.assert_allclose(layer.scale, fit.stack.spacing, err_msg=kind)
        assert [str(unit) for unit in layer.units] == ["micrometer"] * 3, kind
        assert tuple(layer.axis_labels) == ("z", "y", "x"), kind
        assert layer.visible == (kind == "points"), kind
    world = np.array([centres.data_to_world(point) for point in centres.data])
    np.testing.assert_allclose(world, fit.field.means, atol=1e-6)


def test_a_fit_saved_from_napari_is_the_same_to_the_bit(
    opened: tuple[Any, Any], fit: FitResult, tmp_path: Path
) -> None:
    viewer, centres = opened
    path = tmp_path / "again.safetensors"
    viewer.layers.selection = {centres}
    assert viewer.layers.save(str(path), selected=True, plugin=PLUGIN) == [str(path)]
    again = load(path)
    for name in ("means", "cholesky", "amplitudes"):
        assert torch.equal(getattr(again.field, name), getattr(fit.field, name)), name
    for name in ("stack", "settings", "history", "reports"):
        assert getattr(again, name) == getattr(fit, name), name
    np.testing.assert_array_equal(again.state["step"], fit.state["step"])


def test_a_fit_is_saved_with_its_points_as_the_user_left_them(
    opened: tuple[Any, Any], fit: FitResult, tmp_path: Path
) -> None:
    viewer, centres = opened
    centres.selected_data = {0, 1}
    centres.remove_selected()
    path = tmp_path / "edited.safetensors"
    viewer.layers.selection = {centres}
    viewer.layers.save(str(path), selected=True, plugin=PLUGIN)
    edited = load(path)
    assert_same_fields(edited.field, fit.field.select(torch.arange(2, 30)))
    assert edited.field.background == fit.field.background

    viewer.layers.clear()
    viewer.open(path, plugin=PLUGIN)
    data, keywords, _ = viewer.layers["dendrite centres"].as_layer_data_tuple()
    assert_same_fields(fit_of_points(data, keywords).field, edited.field)


def test_the_table_saved_from_napari_holds_the_field(
    opened: tuple[Any, Any], fit: FitResult, tmp_path: Path
) -> None:
    viewer, centres = opened
    path = tmp_path / "table.csv"
    viewer.layers.selection = {centres}
    assert viewer.layers.save(str(path), selected=True, plugin=PLUGIN) == [str(path)]
    assert_same_fields(read_csv(path), fit.field)


def test_the_table_opens_in_napari_as_the_same_points(
    opened: tuple[Any, Any], tmp_path: Path
) -> None:
    viewer, centres = opened
    path = tmp_path / "table.csv"
    viewer.layers.selection = {centres}
    viewer.layers.save(str(path), selected=True, plugin=PLUGIN)
    [points] = viewer.open(path)
    np.testing.assert_allclose(points.data, centres.data)
    np.testing.assert_allclose(points.properties["amplitude"], centres.features["amplitude"])


def test_napari_saves_the_points_in_three_dimensions_by_itself_too(
    opened: tuple[Any, Any], fit: FitResult, tmp_path: Path
) -> None:
    viewer, centres = opened
    path = tmp_path / "points.csv"
    viewer.layers.selection = {centres}
    viewer.layers.save(str(path), selected=True, plugin="napari")
    [points] = viewer.open(path)
    np.testing.assert_allclose(points.data, centres.data)
    assert_same_fields(read_csv(path), fit.field)


def test_gaussians_for_other_programs_open_again_as_the_same_points(
    opened: tuple[Any, Any], fit: FitResult, tmp_path: Path
) -> None:
    viewer, centres = opened
    path = tmp_path / "gaussians.ply"
    viewer.layers.selection = {centres}
    assert viewer.layers.save(str(path), selected=True, plugin=PLUGIN) == [str(path)]
    assert_same_fields(load(path).field, fit.field)
    viewer.layers.clear()
    viewer.open(path, plugin=PLUGIN)
    np.testing.assert_allclose(viewer.layers["dendrite centres"].data, centres.data, atol=1e-5)


@pytest.mark.parametrize("suffix", [".ome.tif", ".ome.zarr"])
def test_the_fitted_volume_saved_from_napari_opens_in_its_place(
    opened: tuple[Any, Any], fit: FitResult, tmp_path: Path, suffix: str
) -> None:
    viewer, centres = opened
    path = tmp_path / f"volume{suffix}"
    viewer.layers.selection = {centres}
    assert viewer.layers.save(str(path), selected=True, plugin=PLUGIN) == [str(path)]
    [layer] = viewer.open(path, plugin=PLUGIN)
    np.testing.assert_allclose(
        layer.data, fit.field.voxelise(fit.stack.shape, fit.stack.spacing), rtol=1e-6
    )
    np.testing.assert_allclose(layer.scale, fit.stack.spacing)
    assert [str(unit) for unit in layer.units] == ["micrometer"] * 3


def test_points_that_are_no_fit_are_napari_s_own_to_save(
    make_napari_viewer_proxy: Callable[..., Any], tmp_path: Path
) -> None:
    viewer = make_napari_viewer_proxy()
    viewer.add_points(np.zeros((3, 3)), name="cells")
    path = tmp_path / "cells.csv"
    assert viewer.layers.save(str(path)) == [str(path)]
    with pytest.raises(FitError, match="'cells' carries no fit"):
        viewer.layers.save(str(tmp_path / "cells.safetensors"), plugin=PLUGIN)
    assert not (tmp_path / "cells.safetensors").exists()
