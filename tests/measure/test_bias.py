"""Dim Gaussians lose the bias of the largest likelihood, which is known without the truth."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy.linalg import expm, logm

from napari_gaussfit._kernels.cpu.bias_kernels import find_biases
from napari_gaussfit._kernels.cpu.information_kernels import PHOTONS
from napari_gaussfit._kernels.cpu.refinement_kernels import BlockScene
from napari_gaussfit.measure import bias, refinement
from napari_gaussfit.measure.noise import Noise
from napari_gaussfit.measure.refinement import refine
from napari_gaussfit.model.gaussians import Gaussians, factors_of
from napari_gaussfit.stacks.stack import Stack

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

BACKGROUND, PITCH = 10.0, 26
SIGMAS = np.array([2.0, 1.5, 1.5])


def gaussian(shape: Floats, places: Floats) -> Floats:
    """What a Gaussian [9] of amplitude 1 is at places [N, 3]."""
    (factor,) = factors_of(shape[None, 3:])
    u = np.linalg.solve(factor, (places - shape[:3]).T)
    return np.exp(-0.5 * np.square(u).sum(axis=0))


def rate_of(count: int, channel: int, channels: int, gain: float) -> Callable[..., Floats]:
    """A channel's rate, in photons, of a block's parameters."""

    def rate(theta: Floats, places: Floats) -> Floats:
        grounds = theta[len(theta) - channels :]
        light = np.full(len(places), grounds[channel])
        for k in range(count):
            shape = theta[9 * k : 9 * (k + 1)]
            light += theta[9 * count + channel * count + k] * gaussian(shape, places)
        return light / gain

    return rate


def derivatives(
    rate: Callable[..., Floats], theta: Floats, places: Floats
) -> tuple[Floats, Floats]:
    """First [N, P] and second [N, P, P] derivatives of a rate, by central differences."""
    near = 1e-4 * np.maximum(np.abs(theta), 1.0)
    steps = np.diag(near)

    def slope(at: Floats) -> Floats:
        ends = [rate(at + s, places) - rate(at - s, places) for s in steps]
        return np.stack(ends, axis=1) / (2 * near)

    second = [slope(theta + s) - slope(theta - s) for s in steps]
    return slope(theta), np.stack(second, axis=2) / (2 * near)


def test_the_bias_is_that_of_the_formula_in_double_precision() -> None:
    """Two that overlap in two channels, beside another that stays, some voxels saturated."""
    rng = np.random.default_rng(1)
    gain, intercept, channels, count = 2.3, 40.0, 2, 2
    shapes = np.array(
        [
            [10.2, 11.1, 9.6, 0.6, 0.2, 0.5, -0.1, 0.3, 0.4],
            [11.4, 10.3, 12.1, 0.4, -0.3, 0.6, 0.2, 0.1, 0.3],
            [10.0, 18.0, 17.0, 0.5, 0.0, 0.5, 0.0, 0.0, 0.5],
        ]
    )
    amplitudes, grounds = rng.uniform(40, 90, (channels, 3)), np.array([[23.0, 31.0]])
    box = np.array([[4, 17, 4, 18, 3, 19]])
    places = np.indices((22, 24, 24)).reshape(3, -1).T.astype(float)
    voxels = np.empty((channels, 22, 24, 24), np.float32)
    bounds, windows = box.astype(np.int64), np.tile(box, (3, 1)).astype(np.int64)
    first, last = box[0, ::2], box[0, 1::2]
    inside = ((places >= first) & (places <= last)).all(axis=1)
    theta = np.concatenate([shapes[:2].ravel(), amplitudes[:, :2].ravel(), grounds[0]])
    fisher = np.zeros((len(theta), len(theta)))
    seconds, scales = [], []
    for c in range(channels):
        rate = rate_of(count, c, channels, gain)
        known = amplitudes[c, 2] * gaussian(shapes[2], places) / gain + intercept / gain**2
        light = rate(theta, places) + known
        voxels[c] = (light * gain - intercept / gain).reshape(voxels[c].shape)
        saturated = rng.random(len(places)) < 0.05
        voxels[c].ravel()[saturated] = 1e4
        counts = inside & ~saturated
        slopes, second = derivatives(rate, theta, places[counts])
        scaled = slopes / light[counts, None]
        fisher += scaled.T @ slopes
        seconds.append(second)
        scales.append(scaled)
    covariance = np.linalg.inv(fisher)
    score = sum(
        scaled.T @ np.einsum("npq,pq->n", second, covariance)
        for scaled, second in zip(scales, seconds, strict=True)
    )
    right = -0.5 * covariance @ score
    scene = BlockScene(
        voxels,
        bounds,
        windows,
        (np.array([0, 2]), np.array([0, 1])),
        (np.array([0, 1]), np.array([2])),
        (shapes, amplitudes),
        grounds,
        np.array([gain, intercept, 1e4, PHOTONS]),
    )
    found = find_biases(scene)
    assert np.isnan(found[2]).all(), "it is in no block"
    own = [
        np.concatenate([right[9 * k : 9 * (k + 1)], right[18 + k : 22 : 2], right[-channels:]])
        for k in range(count)
    ]
    errors = np.sqrt(np.diag(covariance))
    assert np.abs(right / errors).max() > 0.1, "of which a hundredth is looked at"
    bars = [
        np.concatenate([errors[9 * k : 9 * (k + 1)], errors[18 + k : 22 : 2], errors[-channels:]])
        for k in range(count)
    ]
    np.testing.assert_allclose(found[:2] / bars, np.divide(own, bars), atol=1e-3)


def test_shapes_lose_their_mean_in_the_geometry_of_covariances() -> None:
    """The mean logarithm of many, seen from the one without errors, is what is taken off."""
    rng = np.random.default_rng(2)
    right = np.array([0.7, 0.4, 0.3, -0.2, 0.5, 0.1])
    root = rng.normal(0, 0.03, (6, 6))
    covariance, off = root @ root.T, rng.normal(0, 0.01, 6)
    (factor,) = factors_of(right[None])
    inverse = np.linalg.inv(factor)
    errors = rng.multivariate_normal(np.zeros(6), covariance, 20_000)
    found = factors_of(right + off + np.concatenate([errors, -errors]))
    seen = inverse @ found @ found.swapaxes(1, 2) @ inverse.T
    values, axes = np.linalg.eigh(seen)
    mean = np.einsum("nij,nj,nkj->ik", axes, np.log(values), axes) / len(seen)
    unbiased = bias._unbiased_shapes(right[None], off[None], covariance[None])
    (left,) = factors_of(unbiased)
    np.testing.assert_allclose(left @ left.T, factor @ expm(-mean) @ factor.T, atol=2e-3)
    spread = np.abs(logm(inverse @ left @ left.T @ inverse.T)).max()
    assert spread > 10 * 2e-3, "there is something to take off"


def spots(peak: float) -> Gaussians:
    means = (np.indices((1, 4, 4)).reshape(3, -1).T + 0.5) * PITCH
    shapes = np.tile(np.diag(SIGMAS**2), (len(means), 1, 1))
    amplitudes = np.full(len(means), peak)
    return Gaussians.from_covariances(means, shapes, amplitudes, background=10.0, unit="pixel")


def measured(peak: float, draws: int) -> tuple[Floats, Floats]:
    """Amplitudes of many draws of spots, and their error bars."""
    truth, rng = spots(peak), np.random.default_rng(3)
    shape = (PITCH, 4 * PITCH, 4 * PITCH)
    places = np.indices(shape).reshape(3, -1).T.astype(float)
    light = BACKGROUND + peak * sum(
        np.exp(-0.5 * np.square((places - mean) / SIGMAS).sum(axis=1)) for mean in truth.means
    )
    found = [
        refine([truth], [Stack.from_array(rng.poisson(light).reshape(shape))], noise=Noise(1.0))
        for _ in range(draws)
    ]
    heights = [one.gaussians[0].amplitudes for one in found]
    return np.concatenate(heights), np.concatenate([one.errors()["sd_amplitude"] for one in found])


def test_a_dim_peak_is_not_too_bright_in_the_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is by a sixth of an error bar where the largest likelihood is taken as it is."""
    without, bars = measured(20.0, 30)
    monkeypatch.setattr(refinement, "without_bias", lambda _, fits, *__: fits)
    likeliest, _ = measured(20.0, 30)
    chance = 1 / np.sqrt(len(bars))
    off = (np.mean(one - 20.0) / np.sqrt(np.mean(bars**2)) for one in (without, likeliest))
    now, before = off
    assert before - now == pytest.approx(1 / 6, rel=0.15)
    assert abs(now) < 2.5 * chance < 1 / 6 < before + chance


def test_a_bright_one_and_squared_error_stay_what_is_likeliest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = itertools.count()
    monkeypatch.setattr(bias, "find_biases", lambda *_: next(asked))
    measured(1000.0, 1)
    truth = spots(20.0)
    light = np.random.default_rng(4).normal(10, 1, (PITCH, 4 * PITCH, 4 * PITCH))
    refine([truth], [Stack.from_array(light)], likelihood="squared")
    assert next(asked) == 0
