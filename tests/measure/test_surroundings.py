"""Dim Gaussians know their background from a wide window, where it is the same there."""

from __future__ import annotations

import numpy as np
import pytest

from napari_gaussfit.measure import refinement, surroundings
from napari_gaussfit.measure.noise import Noise
from napari_gaussfit.measure.refinement import refine
from napari_gaussfit.model.gaussians import Gaussians
from napari_gaussfit.stacks.stack import Stack

SIGMAS = np.array([2.0, 1.5, 1.5])
PITCH = 26


def spots(peak: float) -> Gaussians:
    means = (np.indices((1, 4, 4)).reshape(3, -1).T + 0.5) * PITCH
    shapes = np.tile(np.diag(SIGMAS**2), (len(means), 1, 1))
    amplitudes = np.full(len(means), peak)
    return Gaussians.from_covariances(means, shapes, amplitudes, background=10.0, unit="pixel")


def light_of(truth: Gaussians, farther: float) -> np.ndarray:
    """Spots on a background of 10, and of `farther` beyond 4.2 sigmas along any axis."""
    shape = (PITCH, 4 * PITCH, 4 * PITCH)
    places = np.indices(shape).astype(float)
    near, light = np.zeros(shape, bool), np.zeros(shape)
    for mean, amplitude in zip(truth.means, truth.amplitudes, strict=True):
        apart = np.abs(places - mean[:, None, None, None]) / SIGMAS[:, None, None, None]
        near |= (apart < 4.2).all(axis=0)
        light += amplitude * np.exp(-0.5 * np.square(apart).sum(axis=0))
    return light + np.where(near, 10.0, farther)


def error_of_light(peak: float, farther: float) -> tuple[float, float]:
    """What is said of the mean error, and what is off in the mean, in parts of the light."""
    rng, truth = np.random.default_rng(1), spots(peak)
    stack = Stack.from_array(rng.poisson(light_of(truth, farther)).astype(float))
    found = refine([truth], [stack], noise=Noise(1.0))
    right = truth.integrated_intensities()
    off = found.gaussians[0].integrated_intensities() / right - 1
    return float((found.errors()["sd_integrated_intensity"] / right).mean()), float(off.mean())


@pytest.mark.parametrize(("peak", "least", "most"), [(20.0, 0.90, 0.97), (1000.0, 1.0, 1.0)])
def test_a_dim_light_is_known_better_from_a_wide_window(
    peak: float, least: float, most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bound of 20 photons over 10 falls by 6 %; of bright ones the window stays narrow."""
    wide, _ = error_of_light(peak, 10.0)
    monkeypatch.setattr(
        refinement, "with_surroundings", lambda _, fits, __, windows, *___: (fits, windows)
    )
    narrow, _ = error_of_light(peak, 10.0)
    assert least <= wide / narrow <= most


def test_where_another_background_is_beyond_the_near_one_counts() -> None:
    """Taken for the same it would add more than half to the light."""
    said, off = error_of_light(20.0, 8.0)
    assert abs(off) < 4 * said / np.sqrt(16)


def test_of_two_windows_that_differ_more_than_by_chance_the_narrow_one_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(surroundings, "AGREES", 1e9)
    monkeypatch.setattr(surroundings, "WRONG_MODEL", 1e9)
    said, off = error_of_light(20.0, 8.0)
    assert abs(off) > 4 * said / np.sqrt(16)
