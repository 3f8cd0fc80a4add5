"""The matched filter's kernels do what scipy's filters do, on volumes of every shape."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, maximum_filter

from napari_gaussfit._kernels.cpu import relocation_kernels
from napari_gaussfit.fitting.relocation import SHAPES, filters, worth

VOLUMES = [(20, 30, 40), (1, 17, 33), (3, 2, 50), (40, 1, 1), (2, 60, 5)]


def noise(shape: tuple[int, int, int]) -> np.ndarray:
    return np.random.default_rng(5).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("volume", VOLUMES)
def test_gains_are_those_of_filtering_with_each_shape(volume: tuple[int, int, int]) -> None:
    residual = noise(volume)
    gains, which = np.full(volume, np.nan, np.float32), np.full(volume, 9, np.uint8)
    shaped = tuple(filters(shape) for shape in SHAPES)
    worths = np.array([worth(shape) for shape in SHAPES])
    # In uneven pieces: no plane is done twice, and none is forgotten.
    for first, end in ((0, 1), (1, volume[0])):
        relocation_kernels.match_planes(residual, shaped, worths, gains, which, first, end)
    filtered = [
        gaussian_filter(residual.astype(float), shape, mode="constant", truncate=3.0)
        for shape in SHAPES
    ]
    won = np.stack(
        [
            worth(shape) * np.maximum(one, 0) ** 2
            for shape, one in zip(SHAPES, filtered, strict=True)
        ]
    )
    np.testing.assert_allclose(gains, won.max(0), rtol=1e-4, atol=1e-5 * won.max())
    clear = np.sort(won, 0)[-1] > 1.001 * np.sort(won, 0)[-2]
    assert np.array_equal(which[clear], won.argmax(0)[clear])


@pytest.mark.parametrize("volume", VOLUMES)
def test_maxima_are_the_largest_within_reach(volume: tuple[int, int, int]) -> None:
    gains = np.maximum(noise(volume), 0)
    top = np.empty(volume, np.bool_)
    for first, end in ((0, 1), (1, volume[0])):
        relocation_kernels.mark_maxima(gains, (1, 2, 2), top, first, end)
    largest = (gains == maximum_filter(gains, size=(3, 5, 5))) & (gains > 0)
    assert largest.any()
    assert np.array_equal(top, largest)
