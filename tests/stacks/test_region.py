"""The part of a stack that is to be fitted."""

from __future__ import annotations

import numpy as np
import pytest

from napari_gaussfit.errors import StackError
from napari_gaussfit.stacks.region import crop
from napari_gaussfit.stacks.stack import Stack
from napari_gaussfit.synthetic.phantoms import beads


@pytest.fixture(scope="module")
def stack() -> Stack:
    return beads(count=4, shape=(10, 30, 40)).stack


def test_the_box_of_a_region_is_the_stack_there_and_dark_around(stack: Stack) -> None:
    mask = np.zeros(stack.shape, bool)
    mask[2:6, 5:20, 8:30] = True
    mask[2:4, 5:10, 8:12] = False
    mask[9, 25, 35] = True

    part, first = crop(stack, mask)

    assert first == (2, 5, 8)
    assert part.shape == (8, 21, 28)
    inside = mask[2:, 5:26, 8:36]
    np.testing.assert_array_equal(part.voxels[inside], stack.voxels[2:, 5:26, 8:36][inside])
    [dark] = np.unique(part.voxels[~inside])
    assert abs(float(dark) - 100) < 10, f"outside is {dark}, the phantom's background 100"
    assert (part.spacing, part.unit) == (stack.spacing, stack.unit)


def test_a_region_off_the_stack_or_too_flat_is_refused(stack: Stack) -> None:
    flat = np.zeros(stack.shape, bool)
    with pytest.raises(StackError, match="fewer than two voxels"):
        crop(stack, flat)
    flat[3] = True
    with pytest.raises(StackError, match="fewer than two voxels"):
        crop(stack, flat)
    with pytest.raises(StackError, match="expected the same"):
        crop(stack, np.ones((2, 2, 2), bool))
