"""Layers say of a field what is true of it, and edited points give back an edited field."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import torch
from napari.layers import Labels, Layer, Points, Surface, Vectors

from napari_gaussfit._napari.layers import gaussians
from napari_gaussfit._napari.layers.placement import Placement
from napari_gaussfit.errors import SettingsError
from napari_gaussfit.fitting.result import FitResult
from napari_gaussfit.measure.table import measurements
from saved_fits import PLACEMENT, SHAPE, SPACING, some_field, some_fit

if TYPE_CHECKING:
    from collections.abc import Callable


def made(layer_data: Any) -> Layer:
    """Make the layer, as napari does of what a reader returns."""
    return Layer.create(*layer_data)


def points_of(fit: FitResult) -> Points:
    return made(gaussians.points_layer(fit, PLACEMENT, name="centres"))


def test_points_are_at_the_means_with_all_measurements() -> None:
    fit = some_fit()
    points = points_of(fit)
    np.testing.assert_allclose(points.data * SPACING, fit.field.means, rtol=1e-6)
    table = measurements(fit.field, SPACING)
    for column in table.columns.drop(["axis-0", "axis-1", "axis-2"]):
        pd.testing.assert_series_equal(points.features[column], table[column])


def test_a_brighter_gaussian_has_a_brighter_point_and_a_wider_one_a_larger() -> None:
    fit = some_fit()
    points = points_of(fit)
    brightness = points.face_color[:, :3] @ (0.21, 0.72, 0.07)
    order = np.argsort(points.features["amplitude"])
    assert (np.diff(brightness[order]) >= 0).all()
    assert np.ptp(brightness) > 0.6
    sigmas = np.cbrt(torch.linalg.det(fit.field.factors).numpy())
    np.testing.assert_allclose(points.size * SPACING[-1], sigmas, rtol=1e-5)


def test_vectors_run_along_each_principal_axis_from_minus_to_plus_sigma() -> None:
    field = some_field(30)
    vectors = made(gaussians.vectors_layer(field, PLACEMENT, name="axes"))
    assert isinstance(vectors, Vectors)
    ends = vectors.data.reshape(30, 3, 2, 3) * SPACING
    middles = ends[:, :, 0] + ends[:, :, 1] / 2
    means = field.means.numpy()
    np.testing.assert_allclose(middles, np.repeat(means[:, None], 3, axis=1), atol=1e-5)
    # Along a principal axis of length sigma: Sigma v = sigma^2 v.
    halves = ends[:, :, 1] / 2
    sigmas = np.linalg.norm(halves, axis=2)
    turned = np.einsum("kij,knj->kni", field.covariances.numpy(), halves)
    np.testing.assert_allclose(turned, sigmas[..., None] ** 2 * halves, atol=1e-5)
    np.testing.assert_allclose(vectors.features["sigma"], sigmas.ravel(), rtol=1e-5)
    assert (np.diff(sigmas, axis=1) <= 0).all(), "the first axis is the longest"


@pytest.mark.parametrize("at_sigma", [0.5, 1.0, 2.0])
def test_a_surface_of_many_ellipsoids_is_one_layer_at_the_chosen_sigma(at_sigma: float) -> None:
    field = some_field(50)
    surface = made(gaussians.surface_layer(field, PLACEMENT, name="s", at_sigma=at_sigma))
    assert isinstance(surface, Surface)
    vertices = surface.vertices.reshape(50, -1, 3) * SPACING
    offsets = torch.from_numpy(vertices).float() - field.means[:, None]
    whitened = torch.linalg.solve_triangular(
        field.factors, offsets.transpose(1, 2), upper=False
    ).norm(dim=1)
    np.testing.assert_allclose(whitened, at_sigma, rtol=1e-3)
    own_gaussian = np.arange(len(surface.faces)) // (len(surface.faces) // 50)
    assert (surface.faces // vertices.shape[1] == own_gaussian[:, None]).all()
    values = surface.vertex_values.reshape(50, -1)
    np.testing.assert_allclose(values.min(axis=1), field.amplitudes)
    np.testing.assert_allclose(values.max(axis=1), field.amplitudes)


def test_an_ellipsoid_is_closed_and_seen_from_outside() -> None:
    vertices, faces = gaussians.ellipsoids(some_field(1).numpy())
    corners = vertices[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    outward = corners.mean(axis=1) - vertices.mean(axis=0)
    assert (np.einsum("fi,fi->f", normals, outward) > 0).all()
    edges = np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    assert (np.unique(edges, axis=0, return_counts=True)[1] == 2).all(), "an edge has two sides"


@pytest.mark.parametrize("count", [2_000, 20_000, 100_000])
def test_many_ellipsoids_are_coarser_but_not_too_many_triangles(count: int) -> None:
    field = some_field(1)
    many = field.select(torch.zeros(count, dtype=torch.long))
    _, faces = gaussians.ellipsoids(many.numpy())
    assert len(faces) <= max(gaussians.MOST_FACES, 20 * count)


@pytest.mark.parametrize("at_sigma", [0.0, -1.0, float("nan"), float("inf")])
def test_an_ellipsoid_of_no_size_is_refused(at_sigma: float) -> None:
    with pytest.raises(SettingsError, match="at_sigma"):
        gaussians.ellipsoids(some_field(1).numpy(), at_sigma)


def test_the_residual_is_the_stack_minus_the_field_around_the_middle_of_its_colours() -> None:
    rng = np.random.default_rng(0)
    voxels = rng.integers(0, 60000, SHAPE).astype(np.uint16)
    volume = rng.uniform(0, 60000, SHAPE).astype(np.float32)
    residual = made(gaussians.residual_layer(voxels, volume, PLACEMENT, name="residual"))
    np.testing.assert_allclose(residual.data, voxels.astype(float) - volume, atol=0.01)
    low, high = residual.contrast_limits
    assert low == -high < 0


def test_a_perfect_fit_has_a_residual_that_can_be_shown() -> None:
    volume = np.ones(SHAPE, np.float32)
    residual = made(gaussians.residual_layer(volume, volume, PLACEMENT, name="residual"))
    assert not residual.data.any()
    assert residual.contrast_limits[0] < residual.contrast_limits[1]


def test_the_volume_takes_the_sources_contrast() -> None:
    volume = np.zeros(SHAPE, np.float32)
    shown = made(gaussians.volume_layer(volume, PLACEMENT, name="v", contrast_limits=(3, 70)))
    assert shown.contrast_limits == [3, 70]


def test_labels_are_of_the_nearest_centre_where_the_field_is_bright() -> None:
    field = some_field(15)
    volume = field.voxelise(SHAPE, SPACING).numpy()
    threshold = float(np.median(volume))
    labels = made(
        gaussians.labels_layer(field, volume, PLACEMENT, threshold=threshold, name="labels")
    )
    assert isinstance(labels, Labels)
    places = np.moveaxis(np.indices(SHAPE), 0, -1) * SPACING
    distances = np.linalg.norm(places[..., None, :] - field.means.numpy(), axis=-1)
    bright = volume >= threshold
    assert ((labels.data > 0) == bright).all()
    chosen = np.take_along_axis(distances, labels.data[..., None] - 1, axis=-1)[..., 0]
    np.testing.assert_allclose(chosen[bright], distances.min(axis=-1)[bright], atol=1e-5)
    row = labels.features.set_index("index").loc[int(labels.data.max())]
    assert row["amplitude"] == pytest.approx(float(field.amplitudes[labels.data.max() - 1]))


LAYERS: dict[str, Callable[[FitResult, Placement], Any]] = {
    "points": lambda fit, at: gaussians.points_layer(fit, at, name="l"),
    "vectors": lambda fit, at: gaussians.vectors_layer(fit.field, at, name="l"),
    "surface": lambda fit, at: gaussians.surface_layer(fit.field, at, name="l"),
    "labels": lambda fit, at: gaussians.labels_layer(
        fit.field, np.ones(SHAPE, np.float32), at, threshold=0.5, name="l"
    ),
}


@pytest.mark.parametrize(
    ("kind", "count"),
    # napari has no surface without a vertex.
    [(kind, count) for kind in LAYERS for count in (0, 1) if (kind, count) != ("surface", 0)],
)
def test_a_field_of_none_or_one_has_layers_too(kind: str, count: int) -> None:
    assert made(LAYERS[kind](some_fit(count), PLACEMENT)).name == "l"


@pytest.mark.gui
@pytest.mark.parametrize("ndisplay", [2, 3])
def test_all_layers_show_beside_their_source_and_keep_its_units(
    make_napari_viewer_proxy: Callable[..., Any], ndisplay: int
) -> None:
    viewer = make_napari_viewer_proxy(show=True)
    fit = some_fit()
    volume = fit.field.voxelise(SHAPE, SPACING).numpy()
    source = viewer.add_image(
        volume,
        scale=SPACING,
        translate=(1, 2, 3),
        units=("micrometer",) * 3,
        axis_labels=("z", "y", "x"),
    )
    extent = viewer.layers.extent.world.copy()
    placement = Placement.of_layer(source, SPACING)
    for make in LAYERS.values():
        viewer.add_layer(made(make(fit, placement)))
    viewer.add_layer(made(gaussians.volume_layer(volume, placement, name="volume")))
    viewer.add_layer(made(gaussians.residual_layer(volume, volume, placement, name="residual")))
    viewer.dims.ndisplay = ndisplay
    viewer.screenshot(canvas_only=True)
    assert len(viewer.layers) == 7
    assert [str(unit) for unit in viewer.layers.extent.units] == ["micrometer"] * 3
    for layer in viewer.layers:
        np.testing.assert_allclose(layer.translate, source.translate, err_msg=layer.name)
    # Ellipsoids and axes reach a little beyond the stack, and nothing lies elsewhere.
    beyond = np.abs(viewer.layers.extent.world - extent).max()
    assert beyond < 3 * float(fit.field.principal()[0].max())
