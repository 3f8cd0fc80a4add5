"""What layers say to a fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from napari.layers import Image, Labels, Points, Shapes

from napari_gaussfit._napari.layers.source import mask_of, positions_of, refusal_of, source_of
from napari_gaussfit._napari.layers.spacing import known_spacing, set_spacing
from napari_gaussfit.errors import StackError
from napari_gaussfit.stacks import large

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


def test_a_stack_knows_where_its_layer_and_its_region_lie() -> None:
    layer = Image(
        SERIES[0], scale=(300, 100, 100), units=("nm",) * 3, translate=(1000, 2000, -3000)
    )
    np.testing.assert_allclose(source_of(layer).stack.origin, (1, 2, -3))
    mask = np.zeros(SERIES[0].shape, bool)
    mask[1:3, 2:5, 1:4] = True
    part = source_of(layer, mask=mask)
    np.testing.assert_allclose(part.stack.origin, (1.3, 2.2, -2.9))
    np.testing.assert_allclose(part.placement.translate, (1300, 2200, -2900))


def test_a_layer_without_lengths_is_in_pixels_until_it_is_given_them() -> None:
    layer = Image(SERIES[0])
    assert known_spacing(layer) is None
    assert source_of(layer).stack.unit == "pixel"
    set_spacing(layer, (0.3, 0.1, 0.1), "micrometer")
    np.testing.assert_allclose(known_spacing(layer), (0.3, 0.1, 0.1))


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (Image(SERIES), ""),
        (Image([SERIES[0], SERIES[0, :, ::2, ::2]], multiscale=True), ""),
        (Image(SERIES[0, 0]), "is a 2D image"),
        (Image(RNG.random((10, 20, 3)), rgb=True), "is a colour (RGB) image"),
        (Labels(np.zeros((3, 4, 5), int)), "choose it under Region"),
        (Image(SERIES[0], axis_labels=("C", "Y", "X")), "has the axes C, Y, X"),
        (Image(SERIES, axis_labels=("z", "channel", "y", "x")), "has the axes z, channel, y, x"),
        (Image(SERIES, axis_labels=("Time", "Z", "Y", "X")), ""),
        (Image(SERIES[0], axis_labels=("plane", "row", "column")), ""),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_layer_that_is_no_stack_says_why(layer: Any, reason: str) -> None:
    found = refusal_of(layer)
    assert reason in found if reason else not found


def test_of_a_pyramid_the_finest_level_is_fitted() -> None:
    layer = Image([SERIES, SERIES[:, :, ::2, ::2]], multiscale=True, scale=(1, 0.5, 0.1, 0.1))
    source = source_of(layer, [1])
    np.testing.assert_array_equal(source.stack.voxels, SERIES[1])
    assert source.stack.spacing == (0.5, 0.1, 0.1)


class Unread:
    """A large array that counts the voxels it is asked for."""

    shape, ndim, size, dtype = (1000, 300, 300), 3, 90_000_000, np.dtype(np.uint8)
    asked = 0

    def __getitem__(self, box: Any) -> Any:
        found = np.broadcast_to(np.arange(1000, dtype=np.uint8)[:, None, None], self.shape)[box]
        self.asked += found.size
        return found


def test_of_a_large_stack_that_is_not_in_memory_a_region_is_read_and_no_voxel_beside_it() -> None:
    vast = Unread()
    levels = [vast, SERIES[0].astype(np.uint8)]
    layer = Image(levels, multiscale=True, contrast_limits=(0, 1), name="vast")
    layer.translate = (5.0, 6.0, 7.0)
    vast.asked = 0
    with pytest.raises(StackError, match=r"vast: its 90,000,000 voxels .* by tiles"):
        source_of(layer)
    assert vast.asked == 0

    mask = np.zeros(vast.shape, bool)
    mask[30:34, 5:25, 7:10] = True
    mask[31, 20:22] = False
    part = source_of(layer, mask=mask)
    assert vast.asked == 4 * 20 * 3
    assert part.first == (30, 5, 7)
    assert part.stack.voxels.shape == (4, 20, 3)
    np.testing.assert_array_equal(part.stack.voxels[:, 0, 0], [30, 31, 32, 33])
    np.testing.assert_allclose(part.stack.origin, (35, 11, 14))


def test_a_stack_that_is_not_in_memory_is_refused_where_there_is_no_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(large, "LARGE", 10**9)
    free = type("Memory", (), {"available": 10**6})
    monkeypatch.setattr("psutil.virtual_memory", lambda: free)
    layer = Image([Unread(), SERIES[0]], multiscale=True, contrast_limits=(0, 1), name="vast")
    with pytest.raises(StackError, match=r"vast: needs 0\.09 GB of memory"):
        source_of(layer)


def test_a_stack_says_which_time_and_channel_it_is() -> None:
    data = RNG.random((2, 3, 4, 5, 6)).astype(np.float32)
    layer = Image(data, name="movie", axis_labels=("c", "t", "z", "y", "x"))
    source = source_of(layer, [1, 2])
    np.testing.assert_array_equal(source.stack.voxels, data[1, 2])
    assert (source.stack.channel, source.stack.time) == (1, 2)
    assert source.name == source.stack.name == "movie channel 1 time 2"
    assert source.record() == {
        "layer": "movie",
        "id": str(layer.unique_id),
        "channel": 1,
        "time": 2,
    }


def test_axes_without_names_are_noted() -> None:
    [note] = source_of(Image(SERIES[0])).stack.notes
    assert "no names" in note
    assert source_of(Image(SERIES[0], **ZYX)).stack.notes == ()


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


def test_labels_of_a_series_count_at_the_time_that_is_fitted() -> None:
    layer = Image(SERIES)
    labels = np.zeros((3, 10, 20, 30), int)
    labels[2, 2:5] = 1
    assert not mask_of(Labels(labels), layer, [0]).any()
    assert mask_of(Labels(labels), layer, [2])[2:5].all()
    with pytest.raises(StackError, match="no place for the time"):
        mask_of(Labels(labels), Image(SERIES[0]))


def test_points_of_a_series_count_at_the_time_that_is_fitted() -> None:
    layer = Image(SERIES)
    points = Points([[0, 4, 10, 20], [2, 5, 8, 15]])
    np.testing.assert_array_equal(positions_of(points, layer, source_of(layer, [2])), [[5, 8, 15]])
    with pytest.raises(StackError, match="no point"):
        positions_of(points, layer, source_of(layer, [1]))


def test_points_in_another_unit_lie_where_they_are_seen() -> None:
    layer = Image(SERIES[0], scale=(300, 100, 100), units=("nm",) * 3)
    points = Points([[1.2, 1.0, 2.0]], units=("um",) * 3)
    np.testing.assert_allclose(positions_of(points, layer, source_of(layer)), [[1.2, 1.0, 2.0]])


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
