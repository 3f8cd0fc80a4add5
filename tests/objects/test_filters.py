"""Smoothing, binning and maxima of a stack, against SciPy and NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, maximum_filter

from napari_gaussfit._kernels.cpu.smoothing import binned, smoothed
from napari_gaussfit.objects.filters import local_maxima

SHAPE = (7, 45, 83)


def noise(shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, np.float32)


@pytest.mark.parametrize("shape", [SHAPE, (1, 5, 3), (2, 1, 300), (40, 17, 16)])
@pytest.mark.parametrize("sigmas", [(0.7, 1.5, 2.0), (0.0, 0.0, 3.0), (4.0, 0.4, 0.0)])
@pytest.mark.parametrize(("mode", "scipys"), [("symmetric", "reflect"), ("edge", "nearest")])
def test_a_stack_is_smoothed_as_scipy_does(
    shape: tuple[int, int, int], sigmas: tuple[float, ...], mode: str, scipys: str
) -> None:
    """An axis of one voxel stays as it is."""
    volume = noise(shape)
    own = [s if n > 1 else 0.0 for n, s in zip(shape, sigmas, strict=True)]
    expected = gaussian_filter(volume.astype(np.float64), own, mode=scipys)
    found = smoothed(volume, sigmas, mode=mode)  # type: ignore[arg-type]
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_a_stack_is_smoothed_in_its_own_place() -> None:
    volume = noise()
    expected = smoothed(volume, (1.0, 2.0, 3.0))
    assert smoothed(volume, (1.0, 2.0, 3.0), out=volume) is volume
    np.testing.assert_array_equal(volume, expected)


@pytest.mark.parametrize("bins", [(1, 2, 2), (2, 2, 2), (3, 4, 5), (7, 45, 83), (1, 1, 1)])
def test_boxes_have_the_means_of_what_is_in_them(bins: tuple[int, int, int]) -> None:
    volume = noise()
    expected = volume.astype(np.float64)
    for axis, size in enumerate(bins):
        starts = np.arange(0, expected.shape[axis], size)
        counts = np.diff([*starts, expected.shape[axis]])
        expected = np.add.reduceat(expected, starts, axis) / np.expand_dims(
            counts, [a for a in range(3) if a != axis]
        )
    np.testing.assert_allclose(binned(volume, bins), expected, atol=1e-5)


def test_maxima_are_voxels_that_no_neighbour_is_above_faces_included() -> None:
    volume = noise()
    volume[0, 0, 0] = volume[-1, -1, -1] = 9.0
    expected = np.argwhere((volume == maximum_filter(volume, 3)) & (volume > 1.5))
    np.testing.assert_array_equal(local_maxima(volume, 1.5), expected)


def test_of_equal_neighbours_one_is_the_maximum() -> None:
    volume = np.zeros((3, 5, 5), np.float32)
    volume[1, 2, 1:4] = 1.0
    np.testing.assert_array_equal(local_maxima(volume, 0.5), [(1, 2, 3)])
