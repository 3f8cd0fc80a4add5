"""The noise of a stack is found from it alone, or it is said why it cannot be known."""

from __future__ import annotations

import numpy as np
import pytest
from noisy_voxels import light_of, shot
from scipy.ndimage import gaussian_filter1d, zoom

from napari_gaussfit.errors import SettingsError
from napari_gaussfit.measure import differences
from napari_gaussfit.measure.noise import Noise
from napari_gaussfit.measure.photon_transfer import (
    noise_of_neighbours,
    noise_of_residuals,
    photon_transfer,
)
from napari_gaussfit.synthetic.phantoms import nuclei


@pytest.mark.parametrize("gain", [0.5, 2.0, 8.0])
@pytest.mark.parametrize(("offset", "read"), [(0.0, 0.0), (100.0, 1.5), (500.0, 10.0)])
def test_gain_and_variance_are_found_within_five_percent(
    gain: float, offset: float, read: float
) -> None:
    rng = np.random.default_rng(0)
    light = light_of((48, 150, 150))
    voxels = gain * rng.poisson(light) + offset + rng.normal(0, read, light.shape)
    true = Noise.of_detector(gain, offset=offset, read=read)
    levels = gain * np.array([2.0, 20.0, 150.0]) + offset
    for found in (
        noise_of_neighbours(voxels),
        noise_of_residuals(voxels, gain * light + offset),
    ):
        assert found.gain == pytest.approx(gain, rel=0.05)
        np.testing.assert_allclose(found.variance(levels), true.variance(levels), rtol=0.05)


def test_structure_that_optics_have_blurred_is_not_taken_for_noise() -> None:
    phantom = nuclei(photons=300)
    stack = phantom.stack
    clean = phantom.truth.voxelise(stack.shape, stack.spacing).numpy()
    gain = float(np.square(stack.voxels - clean).sum() / clean.sum())
    assert noise_of_neighbours(stack.voxels).gain == pytest.approx(gain, rel=0.05)
    assert noise_of_residuals(stack.voxels, clean).gain == pytest.approx(gain, rel=0.05)


def test_noise_that_does_not_grow_with_the_light_has_no_gain() -> None:
    rng = np.random.default_rng(1)
    voxels = light_of((30, 60, 60)) + rng.normal(0, 3.0, (30, 60, 60))
    found = noise_of_neighbours(voxels)
    assert found.variance(np.array([100.0]))[0] == pytest.approx(9.0, rel=0.05)
    assert abs(found.gain) < 0.01


@pytest.mark.parametrize("seed", range(4))
def test_of_light_that_is_everywhere_the_same_there_is_no_gain(seed: int) -> None:
    """As a fit of nothing but noise has it: what it varies by is nothing beside the noise."""
    voxels = np.random.default_rng(seed).poisson(100.0, (16, 40, 48))
    fitted = np.full(voxels.shape, 100.0)
    fitted[4:8] += 1e-5 * np.arange(40)[:, None]
    noise = photon_transfer(voxels, fitted).known()
    assert noise.gain == 0
    assert noise.intercept == pytest.approx(100.0, rel=0.05)


def test_why_noise_cannot_be_known_is_said() -> None:
    voxels = shot()
    assert photon_transfer(voxels).noise is not None
    for changed, why in (
        (np.where(voxels < 40, 0, voxels), "background was cut off"),
        (np.clip(voxels - 22, 0, None), "background was cut off"),
        (gaussian_filter1d(voxels, 0.5, axis=2), "too much alike: they were smoothed"),
        (zoom(voxels, (2, 1, 1), order=1), "too much alike: they were smoothed"),
        (np.rint(light_of((24, 60, 60))), "too much alike|rounding to steps of 1"),
    ):
        found = photon_transfer(changed)
        assert found.noise is None
        assert found.words.startswith("cannot be known: ")
        with pytest.raises(SettingsError, match=why):
            found.known()


def test_few_photons_over_no_background_are_not_a_background_that_was_cut_off() -> None:
    rng = np.random.default_rng(3)
    photons = rng.poisson(light_of((30, 80, 80)) / 60)
    assert np.mean(photons == 0) > 0.4
    assert noise_of_neighbours(3.0 * photons).gain == pytest.approx(3.0, rel=0.05)


def test_the_curve_is_the_same_in_other_units() -> None:
    voxels = shot()
    curve = photon_transfer(voxels)
    other = photon_transfer(1e-3 * (voxels + 1e4)).rescaled(1e3, -1e4)
    assert other.known().gain == pytest.approx(curve.known().gain, rel=1e-3)
    at = np.array([20.0, 200.0])
    np.testing.assert_allclose(other.known().variance(at), curve.known().variance(at), rtol=1e-3)
    np.testing.assert_allclose(other.levels, curve.levels, rtol=1e-3)


@pytest.mark.parametrize("unit", [2.0**-147, 2.0**-70, 2.0**70, 2.0**120])
def test_the_noise_of_values_whose_squares_single_precision_cannot_hold_is_known(
    unit: float,
) -> None:
    voxels, fitted = shot(), np.full((24, 60, 60), 20.0)
    for plain, other in (
        (photon_transfer(voxels), photon_transfer((voxels * unit).astype(np.float32))),
        (photon_transfer(voxels, fitted), photon_transfer(voxels * unit, fitted * unit)),
    ):
        assert plain.line is not None
        assert other.line == plain.line.rescaled(unit)
        assert other.why_not == plain.why_not
        np.testing.assert_array_equal(other.variances, plain.variances * unit**2)


@pytest.mark.parametrize("unit", [1e-160, 1e160])
def test_of_values_whose_squares_no_number_holds_the_noise_cannot_be_known(unit: float) -> None:
    curve = photon_transfer(shot() * unit)
    assert curve.line is None
    assert curve.words.startswith("cannot be known: squares of intensities from ")


def test_of_a_large_stack_a_part_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    voxels = shot()
    monkeypatch.setattr(differences, "AT_ONCE", 3 * 60 * 60)
    monkeypatch.setattr(differences, "MOST_VOXELS", 9 * 60 * 60)
    found = photon_transfer(voxels)
    assert found.counts.sum() < voxels.size / 2
    assert found.known().gain == pytest.approx(1.0, rel=0.1)


def test_of_a_few_voxels_the_noise_is_found_too() -> None:
    """They are spread over planes and rows alike: half of this stack has no light."""
    light = np.zeros((40, 200, 200))
    light[:, 100:] = np.linspace(0, 200, 200)
    counts = np.random.default_rng(0).poisson(light + 10).astype(np.float32)
    found = photon_transfer(counts, most=100_000)
    assert found.counts.sum() < 200_000
    assert found.known().gain == pytest.approx(1.0, rel=0.1)


def test_what_has_no_noise_is_refused() -> None:
    with pytest.raises(SettingsError, match="neighbours differ by nothing"):
        noise_of_neighbours(np.zeros((5, 5, 5)))
    with pytest.raises(SettingsError, match="fewer than 3 voxels"):
        noise_of_neighbours(np.zeros((2, 2, 2)))


@pytest.mark.parametrize("decimals", [0, 7])
def test_samples_are_in_the_order_of_a_stable_sort(decimals: int) -> None:
    """Equal values, and 0 beside -0, stay in the order in which they came."""
    values = np.random.default_rng(0).normal(size=5000).round(decimals).astype(np.float32)
    assert decimals or np.signbit(values[values == 0]).any()
    np.testing.assert_array_equal(differences.order_of(values), np.argsort(values, kind="stable"))


@pytest.mark.parametrize("shape", [(6, 9, 8), (2, 9, 8), (6, 1, 8), (6, 9, 2)])
@pytest.mark.parametrize("lag", [1, 2])
def test_differences_of_what_a_fit_leaves_are_taken_along_one_axis_after_the_other(
    shape: tuple[int, int, int], lag: int
) -> None:
    rng = np.random.default_rng(0)
    known = np.asfortranarray(rng.integers(3, 6, shape).astype(np.float64))
    level = rng.uniform(3, 6, shape)
    found = differences.Samples.of(known, level, 3.0, lag=lag, most=known.size)
    lags = [min(lag, (size - 1) // 2) for size in shape]
    inner = tuple(slice(own, size - own) for own, size in zip(lags, shape, strict=True))

    def filtered(values: np.ndarray, mask: tuple[float, ...], axis: int) -> np.ndarray:
        """Weighted by a mask, of the same shape: what is beyond a face is not looked at."""
        before, after = np.roll(values, lags[axis], axis), np.roll(values, -lags[axis], axis)
        return mask[0] * before + mask[1] * values + mask[2] * after

    axes = [axis for axis in range(3) if lags[axis]]
    squares = [filtered(known - level, (1, -2, 1), axis) ** 2 / 6 for axis in axes]
    levels = [filtered(level - 3.0, (1 / 6, 4 / 6, 1 / 6), axis) for axis in axes]
    shares, means = (known == 3.0).astype(np.float64), level
    for axis in axes:
        shares, means = (filtered(one, (1 / 3, 1 / 3, 1 / 3), axis) for one in (shares, means))
    for one, expected in (
        (found.squares, np.mean(squares, axis=0)),
        (found.levels, np.mean(levels, axis=0)),
        (found.shares, shares),
    ):
        np.testing.assert_allclose(one, expected[inner].ravel(), rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(found.order, np.argsort(means[inner].ravel(), kind="stable"))
