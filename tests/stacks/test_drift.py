"""By how much a recording drifts, beside scikit-image's registration."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, shift
from skimage.registration import phase_cross_correlation

from napari_gaussfit._kernels.cpu.smoothing import smoothed
from napari_gaussfit.stacks.drift import drift_between
from napari_gaussfit.stacks.stack import Stack
from napari_gaussfit.stacks.statistics import SMOOTHING

SPACING = np.array([0.3, 0.1, 0.1])


def pair(shape: tuple[int, int, int], by: tuple[float, ...], seed: int) -> tuple[Stack, Stack]:
    """Two stacks, of which the second shows the first moved."""
    rng = np.random.default_rng(seed)
    blobs = 100 * gaussian_filter(rng.random(shape) > 0.995, 1.5, output=np.float32)
    moved = shift(blobs, by, order=3, mode="constant")
    z, y, x = SPACING.tolist()
    both = (v + rng.normal(0, 0.1, shape) for v in (blobs, moved))
    one, two = (Stack.from_array(v.astype(np.float32), spacing=(z, y, x)) for v in both)
    return one, two


@pytest.mark.parametrize("shape", [(24, 50, 61), (12, 33, 40), (2, 64, 63)])
@pytest.mark.parametrize("by", [(1.3, -2.7, 4.2), (-2.0, 0.0, 0.5)])
def test_the_drift_is_that_of_scikit_image(
    shape: tuple[int, int, int], by: tuple[float, float, float]
) -> None:
    by = (by[0] if shape[0] > 2 else 0.0, *by[1:])
    before, after = pair(shape, by, seed=shape[1])
    calm = [smoothed(stack.voxels, SMOOTHING) for stack in (before, after)]
    lows = [np.percentile(one, 50) for one in calm]
    old, new = (np.clip(one - low, 0, None) for one, low in zip(calm, lows, strict=True))
    theirs, _, _ = phase_cross_correlation(new, old, upsample_factor=10, normalization=None)
    ours = drift_between([before], [after]) / SPACING
    # Where two tenths are as good, either may be told.
    assert np.abs(ours - theirs).max() <= 0.1 + 1e-6
    # A thin stack holds too little of what moved out of it for more.
    assert np.abs(ours - by).max() <= 0.5


def test_stacks_that_have_nothing_in_common_do_not_drift() -> None:
    rng = np.random.default_rng(0)
    noise = [rng.normal(size=(16, 40, 40)).astype(np.float32) for _ in range(2)]
    before, after = (Stack.from_array(one) for one in noise)
    assert (drift_between([before], [after]) == 0).all()
