"""A fit's layers lie where the voxels that were fitted lie, however their layer is turned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from napari.layers import Image, Points

from napari_gaussfit._napari.layers.placement import Placement
from napari_gaussfit._napari.layers.spacing import converted
from napari_gaussfit.errors import SettingsError

if TYPE_CHECKING:
    from numpy.typing import NDArray

# napari says so of every layer that is turned out of the slice.
pytestmark = pytest.mark.filterwarnings("ignore:Non-orthogonal slicing:UserWarning")

SPACING = (0.3, 0.1, 0.2)
TURN = np.array([[0.6, -0.8, 0.0], [0.8, 0.6, 0.0], [0.0, 0.0, 1.0]])
UPPER = np.array([[1.0, 0.1, 0.2], [0.0, 1.0, -0.3], [0.0, 0.0, 1.0]])

TRANSFORMS: dict[str, dict[str, Any]] = {
    "scaled": {"scale": SPACING},
    "scaled otherwise than the stack": {"scale": (2, 3, 4)},
    "translated": {"scale": SPACING, "translate": (5, -6, 7)},
    "rotated": {"scale": SPACING, "rotate": TURN},
    "sheared": {"scale": SPACING, "shear": UPPER},
    "sheared the other way": {"scale": SPACING, "shear": UPPER.T},
    "affine": {
        "scale": SPACING,
        "affine": np.vstack([np.c_[UPPER @ TURN, [1, 2, 3]], [0, 0, 0, 1]]),
    },
    "all at once": {
        "scale": SPACING,
        "translate": (5, -6, 7),
        "rotate": TURN,
        "shear": UPPER,
        "affine": np.vstack([np.c_[TURN, [1, 2, 3]], [0, 0, 0, 1]]),
    },
}


def image(shape: tuple[int, ...] = (4, 5, 6), **transform: Any) -> Image:
    return Image(
        np.zeros(shape),
        units=("second", *["micrometer"] * 3)[-len(shape) :],
        axis_labels=("t", "z", "y", "x")[-len(shape) :],
        contrast_limits=(0, 1),
        **transform,
    )


def in_world(layer: Image | Points, points: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array([layer.data_to_world(point) for point in points])


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_a_layer_with_the_placement_of_another_moves_with_it(transform: dict[str, Any]) -> None:
    source = image(**transform)
    placement = Placement.of_layer(source, SPACING)
    voxels = np.random.default_rng(0).uniform(0, 4, (20, 3))
    points = Points(placement.in_voxels(voxels * SPACING), **placement.keywords())
    np.testing.assert_allclose(in_world(points, points.data), in_world(source, voxels), atol=1e-9)
    for name in ("scale", "translate", "rotate", "shear"):
        np.testing.assert_allclose(
            getattr(points, name), getattr(source, name), atol=1e-9, err_msg=name
        )
    assert points.units == source.units
    assert points.axis_labels == source.axis_labels


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_a_part_of_a_stack_lies_where_it_was_cut_out(transform: dict[str, Any]) -> None:
    source = image(**transform)
    start = np.array([1.0, 2.0, 3.0])
    part = Placement.of_layer(source, SPACING).starting_at(start)
    voxels = np.random.default_rng(1).uniform(0, 2, (20, 3))
    points = Points(voxels, **part.keywords())
    np.testing.assert_allclose(
        in_world(points, voxels), in_world(source, voxels + start), atol=1e-9
    )


def test_of_a_time_series_the_last_three_axes_count() -> None:
    shear = np.eye(4)
    shear[1:, 1:] = UPPER
    rotate = np.eye(4)
    rotate[1:, 1:] = TURN
    source = image(
        (2, 4, 5, 6), scale=(9, *SPACING), translate=(8, 5, -6, 7), rotate=rotate, shear=shear
    )
    placement = Placement.of_layer(source, SPACING)
    voxels = np.random.default_rng(2).uniform(0, 4, (20, 3))
    points = Points(voxels, **placement.keywords())
    at_first_time = in_world(source, np.c_[np.zeros(20), voxels])[:, 1:]
    np.testing.assert_allclose(in_world(points, voxels), at_first_time, atol=1e-9)
    assert [str(unit) for unit in points.units] == ["micrometer"] * 3
    assert points.axis_labels == ("z", "y", "x")


def test_a_stack_without_a_layer_has_its_first_voxel_at_the_origin() -> None:
    placement = Placement.of_stack(SPACING, "micrometer")
    points = Points(np.array([[0.0, 0, 0], [1, 1, 1]]), **placement.keywords())
    np.testing.assert_allclose(in_world(points, points.data), [(0, 0, 0), SPACING])
    assert [str(unit) for unit in points.units] == ["micrometer"] * 3
    assert points.axis_labels == ("z", "y", "x")


def test_a_flat_layer_is_refused() -> None:
    flat = Image(np.zeros((5, 6)), name="flat", contrast_limits=(0, 1))
    with pytest.raises(SettingsError, match="'flat' has 2 axes"):
        Placement.of_layer(flat, SPACING)


def test_a_length_of_numpy_is_converted_as_any_other() -> None:
    """A place among spots is one, where its layer and the view have units of their own."""
    assert converted(np.float64(2.5), "micrometer", "nanometer") == 2500.0
    assert converted(2.5, "pixel", "nanometer") == 2.5
