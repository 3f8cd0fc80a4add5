"""Fits and spots of all times, and whether their tracks are the true ones."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy.spatial import cKDTree

from napari_gaussfit import (
    FitSettings,
    TimeSeries,
    fit,
    fit_sequence,
    fit_spots,
    spot_sequence,
)
from napari_gaussfit.measure.noise import Noise
from napari_gaussfit.objects.spot_settings import SpotSettings
from napari_gaussfit.synthetic.phantoms import MovingPhantom, moving_spots

if TYPE_CHECKING:
    from napari_gaussfit.fitting.snapshot import Snapshot
    from napari_gaussfit.objects.sequence import FitSequence, SpotSequence

SIGMAS = np.array([0.4, 0.15, 0.15])


@pytest.fixture(scope="module")
def phantom() -> MovingPhantom:
    """Spots that walk, drift, appear, vanish and pass each other."""
    return moving_spots(count=16, times=6, crossings=2, shape=(24, 72, 72))


@pytest.fixture(scope="module")
def spots(phantom: MovingPhantom) -> SpotSequence:
    """What is found of them."""
    return spot_sequence(TimeSeries.from_stacks(phantom.stacks))


@pytest.fixture(scope="module")
def fits(phantom: MovingPhantom) -> FitSequence:
    """And a fit."""
    return fit_sequence(TimeSeries.from_stacks(phantom.stacks), FitSettings(device="cpu"))


def right_links(phantom: MovingPhantom, found: SpotSequence | FitSequence) -> float:
    """Share of the true links from a time to the next that are found."""
    table = found.to_dataframe()
    right = there = 0
    known: dict[int, int] = {}
    for n, truth in enumerate(phantom.truths):
        rows = table[table["time"] == n]
        apart, near = cKDTree(truth.numpy().means / SIGMAS).query(rows[["z", "y", "x"]] / SIGMAS)
        ours = np.flatnonzero(apart < 1)
        names = phantom.tracks[n][near[ours]]
        now = dict(zip(names.tolist(), rows["track"].to_numpy()[ours].tolist(), strict=True))
        if n:
            both = set(phantom.tracks[n].tolist()) & set(phantom.tracks[n - 1].tolist())
            there += len(both)
            right += sum(name in now and now[name] == known.get(name) for name in both)
        known = now
    return right / there


def test_98_in_100_links_of_spots_are_right(phantom: MovingPhantom, spots: SpotSequence) -> None:
    assert right_links(phantom, spots) >= 0.98


def test_centres_of_followed_spots_are_as_well_known_as_the_photons_allow(
    phantom: MovingPhantom, spots: SpotSequence
) -> None:
    table = spots.to_dataframe()
    errors = []
    for n, truth in enumerate(phantom.truths):
        rows = table[table["time"] == n]
        means = truth.numpy().means
        apart, near = cKDTree(means / SIGMAS).query(rows[["z", "y", "x"]] / SIGMAS)
        off = (rows[["z", "y", "x"]] - means[near]) / rows[["sd_z", "sd_y", "sd_x"]].to_numpy()
        errors.append(off[apart < 1])
    assert sum(map(len, errors)) >= 0.98 * sum(map(len, phantom.tracks))
    assert np.sqrt(np.mean(np.square(np.concatenate(errors)))) <= 1.15


def test_followed_spots_are_found_as_surely_as_those_of_a_first_time() -> None:
    """None is taken for two: where spots had not yet come to rest, their neighbours were."""
    crowd = moving_spots(times=12)
    found = spot_sequence(TimeSeries.from_stacks(crowd.stacks))
    wrong = [0, 0]
    for stack, truth, followed in zip(crowd.stacks, crowd.truths, found.spots, strict=True):
        means = truth.numpy().means
        for n, spots in enumerate((fit_spots(stack), followed)):
            apart, near = cKDTree(means / SIGMAS).query(spots.gaussians.means / SIGMAS)
            right = len(np.unique(near[apart < 1]))
            wrong[n] += len(spots) - right + len(means) - right
    assert wrong[1] <= wrong[0] + 2, f"{wrong[1]} missed or wrong, {wrong[0]} of first times"


def test_the_threshold_stays_where_it_is_when_there_is_more_than_the_noise_explains(
    phantom: MovingPhantom,
) -> None:
    """It was that of the time before, each time times what the filters' answers spread by."""
    series = TimeSeries.from_stacks(phantom.stacks)
    found = spot_sequence(series, SpotSettings(noise=Noise(0.5)))
    thresholds = [one.threshold for one in found.spots]
    assert thresholds[0] > 1.2 * found.spots[0].least, "answers spread as explained: no test"
    assert max(thresholds) < 1.25 * min(thresholds), thresholds
    assert [one.least for one in found.spots] == [found.spots[0].least] * len(series)


def test_a_time_after_one_without_spots_is_a_first(phantom: MovingPhantom) -> None:
    rng = np.random.default_rng(5)
    shape = phantom.stacks[0].shape
    empty = replace(phantom.stacks[0], voxels=rng.poisson(10.0, shape).astype(np.uint16))
    found = spot_sequence(TimeSeries.from_stacks([empty, phantom.stacks[1]]))
    assert len(found.spots[0]) <= 1
    assert abs(len(found.spots[1]) - len(phantom.tracks[1])) <= 1


def test_births_and_deaths_are_those_of_the_phantom(
    phantom: MovingPhantom, spots: SpotSequence
) -> None:
    true = [set(names.tolist()) for names in phantom.tracks]
    everyone = set().union(*true)
    table = spots.tracks.table()
    real = table[table["objects"] > 1]  # at most one in a hundred spots is noise
    assert len(table) <= len(real) + 1
    assert len(real) == len(everyone)
    assert real["born"].sum() == len(everyone - true[0])
    assert real["died"].sum() == len(everyone - true[-1])


def test_98_in_100_links_of_a_fit_are_right(phantom: MovingPhantom, fits: FitSequence) -> None:
    assert right_links(phantom, fits) >= 0.98


def test_a_following_fit_takes_a_quarter_of_the_steps_and_is_as_good(
    phantom: MovingPhantom, fits: FitSequence
) -> None:
    steps = [result.report.iterations for result in fits.results]
    assert steps == [700, *[175] * 5]
    for stack, result in zip(phantom.stacks[1:3], fits.results[1:], strict=False):
        own = fit(stack, FitSettings(device="cpu")).report
        assert result.report.voxel_psnr >= own.voxel_psnr - 0.1
        assert result.report.heldout_mip_psnr >= own.heldout_mip_psnr - 0.1
        # The detector is the same, and is not asked again.
        assert result.report.noise.endswith(", as at the time before")
        first = fits.results[0].report
        assert result.report.gain == pytest.approx(first.gain, rel=1e-9)
        assert result.report.heldout_noise_psnr == pytest.approx(own.heldout_noise_psnr, abs=0.5)
        assert result.report.consistency_psnr == pytest.approx(own.consistency_psnr, abs=3)
    assert len(fits.to_dataframe()) == sum(len(result.field) for result in fits.results)


def test_the_drift_is_that_of_the_phantom(phantom: MovingPhantom, spots: SpotSequence) -> None:
    assert spots.drifts.shape == (6, 3)
    assert (spots.drifts[0] == 0).all()
    apart = np.abs(spots.drifts[1:] - phantom.drift)
    assert (apart <= (0.15, 0.1, 0.1)).all(), apart


def test_the_same_spots_are_found_each_time(phantom: MovingPhantom, spots: SpotSequence) -> None:
    again = spot_sequence(TimeSeries.from_stacks(phantom.stacks))
    assert again.to_dataframe().equals(spots.to_dataframe())


def test_gaussians_at_points_stay_as_many_and_themselves(phantom: MovingPhantom) -> None:
    points = phantom.truths[0].numpy().means.astype(np.float64)
    series = TimeSeries.from_stacks(phantom.stacks[:3])
    seen: list[int] = []

    def watch(time: int, snapshot: Snapshot) -> None:
        seen.append(time)
        assert len(snapshot.field) == len(points)

    found = fit_sequence(series, FitSettings(device="cpu"), points=points, watch=watch)
    assert len(found.tracks) == len(points)
    assert set(seen) == {0, 1, 2}


def test_channels_are_followed_together(phantom: MovingPhantom) -> None:
    pairs = [
        (stack, replace(stack, voxels=(stack.voxels // 2).astype(stack.voxels.dtype)))
        for stack in phantom.stacks[:2]
    ]
    settings = FitSettings(device="cpu", quality="preview")
    found = fit_sequence(TimeSeries.from_stacks(pairs), settings)
    table = found.to_dataframe()
    assert {"amplitude_0", "amplitude_1", "time", "track"} <= {*table.columns}
