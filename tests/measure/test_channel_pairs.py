"""Channels of one set of Gaussians: their ratio and colocalisation, with errors that hold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_gaussfit.errors import SettingsError
from napari_gaussfit.measure.channels import compare_channels, pairs_table
from napari_gaussfit.measure.measurement import Measurement
from napari_gaussfit.measure.noise import Noise
from napari_gaussfit.measure.refinement import refine
from napari_gaussfit.model.field import GaussianField
from napari_gaussfit.model.gaussians import Gaussians
from napari_gaussfit.synthetic.phantoms import photon_counts, spots

RATIO, CORRELATION, ALONE = 0.5, 0.6, 12
"""What the second channel has of the first; and how many of 48 spots it lacks, and alone has."""


def two_channels(rng: np.random.Generator) -> list[Gaussians]:
    """Amplitudes with a known correlation, the second half as bright."""
    one = spots(peak=100.0).truth.numpy()
    shared, own = rng.standard_normal((2, len(one)))
    mixed = CORRELATION * shared + np.sqrt(1 - CORRELATION**2) * own
    first = 100 * (1 + 0.25 * shared)
    second = RATIO * 100 * (1 + 0.25 * mixed)
    return [replace(one, amplitudes=np.clip(a, 5, None), background=10.0) for a in (first, second)]


def measured(channels: list[Gaussians], seed: int) -> Measurement:
    """Refined from the truth, on stacks with the noise of photons."""
    shape, spacing = spots().stack.shape, spots().stack.spacing
    stacks = [
        photon_counts(GaussianField.from_numpy(one), shape, spacing, seed=seed + n).stack
        for n, one in enumerate(channels)
    ]
    return refine(channels, stacks, noise=Noise(1.0))


def test_ratio_and_correlation_of_a_phantom_are_met_within_their_errors() -> None:
    off = []
    for seed in range(6):
        channels = two_channels(np.random.default_rng(seed))
        a, b = (one.amplitudes.astype(float) for one in channels)
        found = measured(channels, 100 * seed)
        [pair] = compare_channels(found.gaussians, found)
        true = b.sum() / a.sum(), np.corrcoef(a, b)[0, 1]
        assert pair.ratio.value == pytest.approx(true[0], abs=3 * pair.ratio.error)
        assert pair.ratio.error < 0.05 * RATIO
        assert pair.pearson.value == pytest.approx(true[1], abs=0.08)
        off.append((pair.ratios - b / a) / pair.ratio_errors)
    # Of each spot, by propagation: the errors are what they say.
    assert np.sqrt(np.mean(np.square(off))) == pytest.approx(1.0, abs=0.15)


def test_errors_of_a_sample_are_those_of_the_population_it_is_from() -> None:
    draws = [
        compare_channels(two_channels(np.random.default_rng(seed)))[0] for seed in range(10, 60)
    ]
    for name, true in (("ratio", RATIO), ("pearson", CORRELATION)):
        values, errors = np.transpose([getattr(pair, name) for pair in draws])
        assert np.mean(values) == pytest.approx(true, abs=0.03)
        assert np.std(values) == pytest.approx(np.mean(errors), rel=0.35), name


def test_manders_are_the_shares_of_light_in_what_both_have() -> None:
    channels = two_channels(np.random.default_rng(1))
    lacks, alone = np.arange(48) < ALONE, np.arange(48) >= 48 - 2 * ALONE
    # A fit leaves a Gaussian that a channel lacks a little of it.
    gone = [
        np.where(alone, 0.5, channels[0].amplitudes),
        np.where(lacks, 0.5, channels[1].amplitudes),
    ]
    first, second = (replace(c, amplitudes=a) for c, a in zip(channels, gone, strict=True))
    found = measured([first, second], 5)
    for pair in (
        compare_channels([first, second])[0],
        compare_channels(found.gaussians, found)[0],
    ):
        a, b = gone
        assert pair.manders_1.value == pytest.approx(a[~lacks].sum() / a.sum(), abs=0.02)
        assert pair.manders_2.value == pytest.approx(b[~alone].sum() / b.sum(), abs=0.02)
        assert 0.02 < pair.manders_1.error < 0.15
    assert "3 error bars" in pair.present


def test_noise_of_amplitudes_does_not_lower_the_correlation_of_what_was_measured() -> None:
    rng = np.random.default_rng(3)
    one = spots().truth.numpy()
    many = one.select(rng.integers(0, 48, 4000))
    true = 100 + 20 * rng.standard_normal(4000)
    noisy = [replace(many, amplitudes=true + 20 * rng.standard_normal(4000)) for _ in range(2)]
    covariances = np.full((4000, 13, 13), np.nan)
    covariances[:, 9:11, 9:11] = 400 * np.eye(2)
    nothing = np.zeros(4000)
    known = Measurement(
        tuple(noisy), covariances, nothing, np.zeros((4000, 2)), nothing.astype(int), ("",) * 4000
    )
    assert compare_channels(noisy)[0].pearson.value == pytest.approx(0.5, abs=0.04)
    assert compare_channels(noisy, known)[0].pearson.value == pytest.approx(1.0, abs=0.04)


def test_three_channels_are_three_pairs_in_a_table() -> None:
    first, second = two_channels(np.random.default_rng(0))
    table = pairs_table(compare_channels([first, second, first]), [0, 2, 3])
    assert table[["channel_1", "channel_2"]].to_numpy().tolist() == [[0, 2], [0, 3], [2, 3]]
    assert table["pearson"][1] == pytest.approx(1.0)
    assert table["ratio"][1] == 1.0


def test_what_is_no_pair_of_channels_is_refused() -> None:
    first, second = two_channels(np.random.default_rng(0))
    with pytest.raises(SettingsError, match="two or more"):
        compare_channels([first])
    with pytest.raises(SettingsError, match="of one fit"):
        compare_channels([first, second.select(np.arange(5))])
