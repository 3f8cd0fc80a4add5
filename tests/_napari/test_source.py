"""What layers say to a fit."""

from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Image, Labels, Points, Shapes

from napari_gaussfit._napari.source import (
    is_stack,
    known_spacing,
    mask_of,
    positions_of,
    set_spacing,
    source_of,
)
from napari_gaussfit.errors import StackError

pytestmark = pytest.mark.gui

RNG = np.random.default_rng(0)
SERIES = RNG.random((3, 10, 20, 30)).astype(np.float32)
ZYX = {
    "scale": (0.3, 0.1, 0.1),
    "translate": (5.0, 6.0, 7.0),
    "units": ("um",) * 3,
    "axis_labels": ("z", "y", "x"),
}


def test_a_stack_of_a_time_series_is_the_chosen_time_at_the_layers_place() -> None:
    layer = Image(SERIES, scale=(1, 0.3, 0.1, 0.1), units=("s", "um", "um", "um"))
    source = source_of(layer, [2])
    np.testing.assert_array_equal(source.stack.voxels, SERIES[2])
    np.testing.assert_allclose(source.stack.spacing, (0.3, 0.1, 0.1))
    assert source.stack.unit == "micrometer"
    np.testing.assert_allclose(source.placement.scale, (0.3, 0.1, 0.1))


def test_lengths_of_another_unit_become_micrometers() -> None:
    layer = Image(SERIES[0], scale=(300, 100, 100), units=("nm",) * 3)
    np.testing.assert_allclose(source_of(layer).stack.spacing, (0.3, 0.1, 0.1))
    np.testing.assert_allclose(source_of(layer).placement.scale, (300, 100, 100))


def test_a_layer_without_lengths_is_in_pixels_until_it_is_given_them() -> None:
    layer = Image(SERIES[0])
    assert known_spacing(layer) is None
    assert source_of(layer).stack.unit == "pixel"
    set_spacing(layer, (0.3, 0.1, 0.1))
    np.testing.assert_allclose(known_spacing(layer), (0.3, 0.1, 0.1))


def test_only_images_with_three_axes_are_stacks() -> None:
    assert is_stack(Image(SERIES))
    assert not is_stack(Image(SERIES[0, 0]))
    assert not is_stack(Image(RNG.random((10, 20, 3)), rgb=True))
    assert not is_stack(Labels(np.zeros((3, 4, 5), int)))


def test_a_drawn_region_counts_for_every_plane() -> None:
    layer = Image(SERIES[0], **ZYX)
    corners = np.array([[2.0, 3.0], [2.0, 12.0], [9.0, 12.0], [9.0, 3.0]])
    flat = Shapes([corners], scale=(0.1, 0.1), translate=(6.0, 7.0))
    mask = mask_of(flat, layer)
    assert mask.shape == (10, 20, 30)
    assert mask[:, 3:9, 4:12].all()
    assert not mask[:, :2].any()
    assert not mask[:, :, 13:].any()


def test_an_ellipse_leaves_its_corners_out() -> None:
    layer = Image(SERIES[0])
    corners = np.array([[2.0, 2.0], [2.0, 18.0], [16.0, 18.0], [16.0, 2.0]])
    mask = mask_of(Shapes([corners], shape_type="ellipse"), layer)
    assert mask[0, 9, 10]
    assert not mask[0, 3, 3]
    assert abs(mask[0].sum() - np.pi * 7 * 8) < 15


def test_labels_of_another_stack_are_refused() -> None:
    layer = Image(SERIES[0])
    labels = np.zeros((10, 20, 30), int)
    labels[2:5] = 3
    np.testing.assert_array_equal(mask_of(Labels(labels), layer), labels > 0)
    with pytest.raises(StackError, match="made for this stack"):
        mask_of(Labels(labels[:, :10]), layer)


def test_points_lie_where_they_are_seen_also_in_a_region() -> None:
    layer = Image(SERIES[0], **ZYX)
    voxels = np.array([[4.0, 10.0, 20.0], [5.0, 8.0, 15.0]])
    world = voxels * (0.3, 0.1, 0.1) + (5.0, 6.0, 7.0)
    points = Points(world, units=("um",) * 3)
    mask = np.zeros((10, 20, 30), bool)
    mask[2:8, 3:15, 4:28] = True
    whole, part = source_of(layer), source_of(layer, mask=mask)
    np.testing.assert_allclose(positions_of(points, layer, whole), voxels * (0.3, 0.1, 0.1))
    np.testing.assert_allclose(
        positions_of(points, layer, part), (voxels - (2, 3, 4)) * (0.3, 0.1, 0.1)
    )
