"""The noise of a stack is found from it alone, or given."""

from __future__ import annotations

import numpy as np
import pytest

from napari_gaussfit.errors import SettingsError
from napari_gaussfit.measure.noise import Noise, noise_of_neighbours, noise_of_residuals


def light_of(shape: tuple[int, int, int]) -> np.ndarray:
    """Light that changes slowly, from 2 to 200 photons."""
    z, y, x = np.meshgrid(*(np.linspace(0, np.pi, n) for n in shape), indexing="ij")
    return 2 + 198 * (np.sin(z) * np.sin(y) * np.sin(x)) ** 2


@pytest.mark.parametrize(
    ("gain", "offset", "read"),
    [(0.5, 0.0, 0.0), (1.0, 0.0, 0.0), (2.3, 100.0, 1.5), (8.0, 500.0, 10.0)],
)
def test_gain_and_intercept_are_found_within_five_percent(
    gain: float, offset: float, read: float
) -> None:
    rng = np.random.default_rng(0)
    light = light_of((40, 90, 100))
    voxels = gain * rng.poisson(light) + offset + rng.normal(0, read, light.shape)
    true = Noise.of_detector(gain, offset=offset, read=read)
    darkest = gain * 2 + offset
    for found in (
        noise_of_neighbours(voxels),
        noise_of_residuals(voxels, gain * light + offset),
    ):
        assert found.gain == pytest.approx(gain, rel=0.05)
        for level in (gain * 20 + offset, gain * 150 + offset):
            at = np.array([level])
            assert found.variance(at)[0] == pytest.approx(true.variance(at)[0], rel=0.05)
        assert found.variance(np.array([darkest]))[0] == pytest.approx(
            true.variance(np.array([darkest]))[0], abs=gain * gain + 0.1 * read * read
        )


def test_noise_that_does_not_grow_with_the_light_has_no_gain() -> None:
    rng = np.random.default_rng(1)
    voxels = light_of((30, 60, 60)) + rng.normal(0, 3.0, (30, 60, 60))
    found = noise_of_neighbours(voxels)
    assert found.variance(np.array([100.0]))[0] == pytest.approx(9.0, rel=0.05)
    assert abs(found.gain) < 0.01


def test_what_has_no_noise_or_no_variance_is_refused() -> None:
    with pytest.raises(SettingsError, match="no noise"):
        noise_of_neighbours(np.zeros((5, 5, 5)))
    with pytest.raises(SettingsError, match="fewer than 3 voxels"):
        noise_of_neighbours(np.zeros((2, 2, 2)))
    with pytest.raises(SettingsError, match="has no variance"):
        Noise(0.0)
    with pytest.raises(SettingsError, match="a gain of 0 or more"):
        Noise(-1.0)
