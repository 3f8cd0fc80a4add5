"""Which Gaussians meet a box, and in what order."""

from __future__ import annotations

import numpy as np
import pytest

from napari_gaussfit._kernels.arithmetic import NOWHERE
from napari_gaussfit._kernels.cpu_boxes import list_meeting


@pytest.mark.parametrize("layers", [1, 2, 24])
@pytest.mark.parametrize("height", [0.0, 3.0, 23.0])
def test_all_that_meet_a_box_are_listed_layer_by_layer(layers: int, height: float) -> None:
    rng = np.random.default_rng(4)
    lower = rng.uniform(-20, 40, (500, 3))
    boxes = np.hstack([lower, lower + rng.exponential(5, (500, 3))]).astype(np.float32)
    boxes[::50] = [NOWHERE] * 3 + [-NOWHERE] * 3
    box = np.array([[2, 0, 0, 2 + height, 30, 30]], np.float32)
    some = np.empty(len(boxes), np.int64)

    found = some[: list_meeting(boxes, box, layers, some)]

    meets = np.all((boxes[:, :3] <= box[:, 3:]) & (boxes[:, 3:] >= box[:, :3]), axis=1)
    np.testing.assert_array_equal(np.sort(found), np.flatnonzero(meets))
    first = np.maximum(boxes[found, 0] - box[0, 0], 0)
    thickness = height / max(layers - 1, 1)
    assert (np.diff(first) >= -thickness - 1e-5).all(), "one begins in a layer below the last one's"
