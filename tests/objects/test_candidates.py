"""What the filters answer to noise, and to spots."""

from __future__ import annotations

import numpy as np
import pytest

from napari_gaussfit.errors import SettingsError
from napari_gaussfit.measure.noise import Noise
from napari_gaussfit.objects.candidates import CandidateFinder, candidates
from napari_gaussfit.objects.sizes import Sizes
from napari_gaussfit.stacks.stack import Stack
from napari_gaussfit.synthetic.phantoms import spots

SHAPE, SPACING = (24, 64, 64), (0.2, 0.1, 0.1)


def of_photons(background: float, seed: int) -> Stack:
    """A stack of a level background alone."""
    counts = np.random.default_rng(seed).poisson(background, SHAPE)
    return Stack.from_array(counts.astype(np.float32), spacing=SPACING)


@pytest.mark.parametrize("background", [0.3, 10.0])
def test_noise_alone_has_as_many_maxima_as_expected(background: float) -> None:
    """At few photons too, whose noise is skew."""
    found = [candidates(of_photons(background, seed), noise=Noise(1.0)) for seed in range(8)]
    for score in (3.6, 4.0):
        counted = sum((one.scores >= score).sum() for one in found)
        expected = sum(one.null.expected(np.array([score]))[0] for one in found)
        assert abs(counted - expected) < 4 * np.sqrt(expected) + 0.25 * expected


def test_noise_alone_has_no_spots_in_twenty_draws() -> None:
    found = [candidates(of_photons(10.0, seed)).chosen(0.01) for seed in range(20)]
    assert sum(map(len, found)) == 0


def test_more_false_discoveries_are_more_spots_and_a_lower_threshold() -> None:
    phantom = spots(peak=8.0)
    found = candidates(phantom.stack)
    strict, lenient = found.chosen(1e-6), found.chosen(0.3)
    assert len(strict) <= len(lenient)
    assert found.threshold(1e-6) > found.threshold(0.3)


def test_each_isolated_spot_is_one_candidate_at_its_place() -> None:
    phantom = spots(peak=20.0)
    found = candidates(phantom.stack).chosen(0.01)
    true = phantom.truth.numpy().means / phantom.stack.spacing
    apart = np.linalg.norm(found.places[:, None] - true, axis=2)
    assert len(found) == len(true) == 48
    assert apart.min(0).max() < 1.0


def test_a_bright_slope_is_no_spot() -> None:
    """A background that changes by twenty times its noise over the stack."""
    light = np.broadcast_to(np.linspace(20, 120, SHAPE[2]), SHAPE)
    counts = np.random.default_rng(0).poisson(light).astype(np.float32)
    assert not len(candidates(Stack.from_array(counts, spacing=SPACING)).chosen(0.01))


def test_filters_are_as_long_along_z_as_voxels_up_to_three_times() -> None:
    def along(dz: float) -> float:
        stack = Stack.from_array(of_photons(10.0, 0).voxels, spacing=(dz, 0.1, 0.1))
        return Sizes.of(stack, None, None).along

    assert [along(dz) for dz in (0.05, 0.2, 0.6)] == pytest.approx([1.0, 2.0, 3.0])


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0, float("nan")])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(SettingsError, match="between 0 and 1"):
        candidates(of_photons(10.0, 0)).threshold(share)


@pytest.mark.parametrize("sizes", [(0.5, 0.2), (-1.0, 1.0), (0.0, 1.0)])
def test_sizes_that_are_none_are_refused(sizes: tuple[float, float]) -> None:
    with pytest.raises(SettingsError, match="least size above 0"):
        candidates(of_photons(10.0, 0), least_size=sizes[0], largest_size=sizes[1])


def test_a_finder_has_what_candidates_are_and_looks_once_for_each_range_of_sizes() -> None:
    phantom = spots(peak=20.0)
    finder = CandidateFinder(phantom.stack)
    first = finder.find()
    np.testing.assert_array_equal(first.places, candidates(phantom.stack).places)
    assert finder.find(0.3, 0.6) is not first
    assert finder.find().places is first.places
    # Up to the next width the filters are the same, and so are the candidates.
    wider = finder.find(first.sizes.least, 1.03 * first.sizes.largest)
    assert wider.sizes.count == first.sizes.count
    assert wider.places is first.places
    assert wider.sizes.largest == 1.03 * first.sizes.largest
    assert len(first.chosen(0.01)) == 48


def test_candidates_have_places_in_voxels_and_widths_in_the_stacks_unit() -> None:
    found = candidates(spots(peak=100.0).stack).chosen(0.01)
    across = found.fwhm()
    # A Gaussian of 0.35 um across; filters are a factor of the root of two apart.
    assert ((across > 0.25) & (across < 0.5)).all()


@pytest.mark.parametrize(
    ("least", "largest", "near", "beside"),
    [
        (3.5, 3.6, [2], [2, 4]),
        (2.0, 2.0, [0], [0, 2, 4]),
        (2.7, 4.2, [1, 2], [1, 2, 4]),
        (7.9, 8.1, [4], [1, 4]),
        (0.1, 99.0, [0, 1, 2, 3, 4], [0, 1, 2, 3, 4]),
    ],
)
def test_filters_of_a_time_that_follows_are_those_of_its_spots_and_a_few_beside(
    least: float, largest: float, near: list[int], beside: list[int]
) -> None:
    sizes = Sizes(2.0, 6.0, 1.0, (1.0, 1.0, 1.0))
    found = sizes.levels_of(least, largest)
    assert found.tolist() == near
    assert sizes.levels_beside(found).tolist() == beside
