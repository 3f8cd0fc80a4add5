"""Which Gaussians meet a box, and in what order."""

from __future__ import annotations

import numpy as np
import pytest

from napari_gaussfit._kernels.cpu.grid_kernels import Tiles, list_meeting
from napari_gaussfit._kernels.shared.gaussian import NOWHERE


@pytest.mark.parametrize("tiles", [(1, 1, 1), (3, 1, 2), (4, 5, 6)])
@pytest.mark.parametrize("height", [0.0, 3.0, 23.0])
def test_all_that_meet_a_box_are_listed_tile_by_tile(tiles: Tiles, height: float) -> None:
    rng = np.random.default_rng(4)
    lower = rng.uniform(-20, 40, (500, 3))
    boxes = np.hstack([lower, lower + rng.exponential(5, (500, 3))]).astype(np.float32)
    boxes[::50] = [NOWHERE] * 3 + [-NOWHERE] * 3
    box = np.array([[2, 0, 0, 2 + height, 30, 30]], np.float32)
    some = np.empty(len(boxes), np.int64)

    found = some[: list_meeting(boxes, box, tiles, some)]

    meets = np.all((boxes[:, :3] <= box[:, 3:]) & (boxes[:, 3:] >= box[:, :3]), axis=1)
    np.testing.assert_array_equal(np.sort(found), np.flatnonzero(meets))
    sides = np.maximum(box[0, 3:] - box[0, :3], 1e-9) / tiles
    begins = np.maximum(boxes[found, :3] - box[0, :3], 0)
    within = np.minimum((begins / sides).astype(int), np.array(tiles) - 1)
    assert (np.diff(np.ravel_multi_index(tuple(within.T), tiles)) >= 0).all()
