"""Refined numbers are as near to the truth as photons allow, and their error bars say how near."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy.optimize import approx_fprime
from scipy.spatial.transform import Rotation
from scipy.special import j1

from napari_gaussfit._kernels.cpu import information_kernels, refinement_kernels
from napari_gaussfit.errors import SettingsError
from napari_gaussfit.measure.measurement import Measurement
from napari_gaussfit.measure.noise import Noise
from napari_gaussfit.measure.refinement import Likelihood, refine
from napari_gaussfit.model.gaussians import Gaussians
from napari_gaussfit.stacks.stack import Stack

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

BACKGROUND = 10.0


def made(means: Floats, covariances: Floats, amplitudes: Floats) -> Gaussians:
    return Gaussians.from_covariances(
        means, covariances, amplitudes, background=BACKGROUND, unit="pixel"
    )


def rendered(truth: Gaussians, shape: tuple[int, int, int]) -> Floats:
    """The truth in each voxel, Gaussians without an end."""
    places = np.indices(shape).reshape(3, -1).T.astype(np.float64)
    light = np.full(len(places), BACKGROUND)
    for mean, covariance, amplitude in zip(
        truth.means, truth.covariances, truth.amplitudes, strict=True
    ):
        d = places - mean
        light += amplitude * np.exp(-0.5 * np.einsum("ni,ni->n", d @ np.linalg.inv(covariance), d))
    return light.reshape(shape)


def isolated(rng: np.random.Generator, sigmas: tuple[float, ...], peak: float) -> Gaussians:
    """Sixteen Gaussians apart from each other, each turned at random."""
    cells = np.indices((1, 4, 4)).reshape(3, -1).T
    means = (cells + 0.5) * 26 + rng.uniform(-2, 2, cells.shape)
    turns = Rotation.random(len(means), random_state=rng).as_matrix()
    covariances = turns @ np.diag(np.square(sigmas)) @ turns.swapaxes(1, 2)
    return made(means, covariances, np.full(len(means), peak))


def shaken(
    rng: np.random.Generator, truth: Gaussians, gain: float = 1.0, offset: float = 0.0
) -> Gaussians:
    """Where a fit may have left them."""
    return Gaussians(
        truth.means + rng.normal(0, 0.15, truth.means.shape),
        truth.cholesky + np.array([0.1, 0, 0.1, 0, 0, 0.1]),
        truth.amplitudes * 0.9 * gain,
        BACKGROUND * gain + offset,
        truth.unit,
    )


def pulls_of(found: Measurement, truth: Gaussians) -> dict[str, Floats]:
    """Errors over their error bars."""
    refined, deviations = found.gaussians[0], found.errors()
    sigmas, true_sigmas = refined.principal()[0], truth.principal()[0]
    errors = {axis: refined.means[:, n] - truth.means[:, n] for n, axis in enumerate("zyx")}
    errors |= {f"sigma_{n + 1}": sigmas[:, n] - true_sigmas[:, n] for n in range(3)}
    errors["amplitude"] = refined.amplitudes - truth.amplitudes
    integrals = refined.integrated_intensities() - truth.integrated_intensities()
    errors["integrated_intensity"] = integrals
    errors["background"] = found.backgrounds[:, 0] - truth.background
    return {name: error / deviations[f"sd_{name}"] for name, error in errors.items()}


@pytest.mark.parametrize("peak", [20.0, 1000.0])
def test_error_bars_are_true(peak: float) -> None:
    """Errors over error bars have mean 0 and standard deviation 1: here of 96 rods."""
    rng = np.random.default_rng(1)
    pulls: list[dict[str, Floats]] = []
    for _ in range(6):
        truth = isolated(rng, (3.5, 2.0, 1.2), peak)
        light = rendered(truth, (26, 104, 104))
        stack = Stack.from_array(rng.poisson(light).astype(np.float32))
        found = refine([shaken(rng, truth)], [stack], noise=Noise(1.0))
        assert found.flags == ("",) * len(truth)
        assert np.mean(found.reduced_chi2) == pytest.approx(1.0, abs=0.02)
        pulls.append(pulls_of(found, truth))
    for name in pulls[0]:
        every = np.concatenate([one[name] for one in pulls])
        assert abs(every.mean()) < 4 / np.sqrt(len(every)), name
        assert np.std(every) == pytest.approx(1.0, abs=4 / np.sqrt(2 * len(every))), name


def test_a_detectors_gain_offset_and_read_noise_are_taken_into_account() -> None:
    rng = np.random.default_rng(2)
    truth = isolated(rng, (3.0, 2.0, 1.3), 60.0)
    light = rng.poisson(rendered(truth, (26, 104, 104)))
    stack = Stack.from_array(2.3 * light + 100 + rng.normal(0, 1.5, light.shape))
    noise = Noise.of_detector(2.3, offset=100.0, read=1.5)
    start = shaken(rng, truth, 2.3, 100.0)
    found = refine([start], [stack], noise=noise)
    right = 2.3 * truth.integrated_intensities()
    deviations = found.errors()["sd_integrated_intensity"]
    pulls = (found.gaussians[0].integrated_intensities() - right) / deviations
    assert np.sqrt(np.mean(pulls**2)) == pytest.approx(1.0, abs=0.5)
    assert np.mean(found.reduced_chi2) == pytest.approx(1.0, abs=0.03)


def test_squared_error_takes_the_noise_from_what_is_left() -> None:
    rng = np.random.default_rng(3)
    truth = isolated(rng, (3.0, 2.0, 1.3), 60.0)
    stack = Stack.from_array(rendered(truth, (26, 104, 104)) + rng.normal(0, 4.0, (26, 104, 104)))
    found = refine([shaken(rng, truth)], [stack], likelihood="squared")
    assert np.isnan(found.reduced_chi2).all(), "the size of the noise is taken from it"
    for name, pull in pulls_of(found, truth).items():
        assert 0.55 < np.sqrt(np.mean(pull**2)) < 1.6, name


def test_what_overlaps_is_refined_together() -> None:
    """Two spots two sigma apart: each is within three error bars of the truth."""
    rng = np.random.default_rng(4)
    within = []
    for _ in range(10):
        means = np.array([[12.0, 12.0, 10.5], [12.0, 12.0, 13.5]]) + rng.uniform(-0.5, 0.5, 3)
        truth = made(means, np.tile(np.diag([4.0, 2.25, 2.25]), (2, 1, 1)), np.full(2, 100.0))
        stack = Stack.from_array(rng.poisson(rendered(truth, (25, 25, 25))).astype(np.float32))
        found = refine([shaken(rng, truth)], [stack], noise=Noise(1.0))
        deviations = found.errors()
        pulls = [
            (found.gaussians[0].means[:, n] - truth.means[:, n]) / deviations[f"sd_{axis}"]
            for n, axis in enumerate("zyx")
        ]
        within += list((np.abs(pulls) < 3).all(0))
    assert np.mean(within) >= 0.9


def test_widths_stay_within_what_is_asked_for() -> None:
    """A wide Gaussian ends at the largest width, one within it is not touched at all."""
    rng = np.random.default_rng(8)
    truth = made(
        np.array([(13.0, 18.0, 18.0), (13.0, 60.0, 60.0)]),
        np.array([np.diag([1.5, 1.2, 1.2]) ** 2, np.diag([4.0, 4.0, 4.0]) ** 2]),
        np.array([100.0, 100.0]),
    )
    stack = Stack.from_array(rng.poisson(rendered(truth, (26, 80, 80))).astype(np.float32))
    start = made(truth.means, np.tile(4.0 * np.eye(3), (2, 1, 1)), truth.amplitudes)
    free = refine([start], [stack], noise=Noise(1.0)).gaussians[0]
    limits = np.full(3, 0.5), np.full(3, 2.5)
    held = refine([start], [stack], noise=Noise(1.0), widths=limits).gaussians[0]
    np.testing.assert_array_equal(held.means[0], free.means[0])
    np.testing.assert_allclose(np.exp(held.log_widths[1]), 2.5, rtol=1e-6)
    assert np.exp(free.log_widths[1]).min() > 3.5


def test_channels_share_centre_and_shape() -> None:
    rng = np.random.default_rng(5)
    truth = isolated(rng, (3.0, 2.0, 1.3), 100.0)
    light = rendered(truth, (26, 104, 104))
    other = BACKGROUND + 0.3 * (light - BACKGROUND)
    stacks = [Stack.from_array(rng.poisson(one).astype(np.float32)) for one in (light, other)]
    start = shaken(rng, truth)
    both = refine([start, start], stacks, noise=Noise(1.0))
    alone = refine([start], stacks[:1], noise=Noise(1.0))
    np.testing.assert_array_equal(both.gaussians[0].means, both.gaussians[1].means)
    ratio = both.gaussians[1].amplitudes / both.gaussians[0].amplitudes
    assert np.mean(ratio) == pytest.approx(0.3, abs=0.01)
    assert (both.errors()["sd_x"] < alone.errors()["sd_x"]).all(), "more photons tell more"


def test_spacing_scales_centres_widths_and_their_errors() -> None:
    rng = np.random.default_rng(6)
    truth = isolated(rng, (3.0, 2.0, 1.3), 100.0)
    voxels = rng.poisson(rendered(truth, (26, 104, 104))).astype(np.float32)
    start, spacing = shaken(rng, truth), np.array([0.4, 0.1, 0.2])
    pixels = refine([start], [Stack.from_array(voxels)], noise=Noise(1.0))
    covariances = start.covariances * spacing[:, None] * spacing
    scaled = Gaussians.from_covariances(
        start.means * spacing, covariances, start.amplitudes, background=BACKGROUND
    )
    micrometres = refine(
        [scaled], [Stack.from_array(voxels, spacing=tuple(spacing))], noise=Noise(1.0)
    )
    np.testing.assert_allclose(
        micrometres.gaussians[0].means, pixels.gaussians[0].means * spacing, rtol=1e-3
    )
    for n, axis in enumerate("zyx"):
        name = f"sd_{axis}"
        wide = micrometres.errors()[name]
        np.testing.assert_allclose(wide, pixels.errors()[name] * spacing[n], rtol=0.02)


def test_the_score_is_the_derivative_of_the_likelihood() -> None:
    """Of two Gaussians that overlap, in two channels, with what others add."""
    rng = np.random.default_rng(7)
    theta = np.concatenate(
        [
            [4.1, 5.2, 4.3, 0.6, 0.1, 0.4, 0.05, -0.1, 0.3],
            [5.0, 4.4, 6.3, 0.5, -0.2, 0.2, 0.1, 0.1, 0.6],
            [50.0, 30.0, 20.0, 60.0],
            [9.0, 11.0],
        ]
    )
    voxels = rng.poisson(15.0, (2, 10, 11, 12)).astype(np.float32)
    known = rng.uniform(0, 1, voxels.shape)
    box = np.array([0, 9, 0, 10, 0, 11])
    windows = np.array([[1, 8, 1, 9, 0, 9], [2, 9, 0, 8, 2, 11]])
    gain, intercept = 1.7, 3.0
    noise = np.array([gain, intercept, np.inf, 1.0])
    counted = np.zeros(voxels.shape, np.bool_)
    for z0, z1, y0, y1, x0, x1 in windows:
        counted[:, z0 : z1 + 1, y0 : y1 + 1, x0 : x1 + 1] = True
    block, looked = refinement_kernels.cut_block(voxels, box, windows, np.arange(2), noise)
    block[2][..., : voxels.shape[3]] = known / gain
    assert looked == counted.sum()

    def objective(at: Floats) -> float:
        """Minus twice the logarithm of a shifted Poisson likelihood, but for a constant."""
        shapes = at[:18].reshape(2, 9)
        light = known + at[22:, None, None, None]
        places = np.indices(voxels.shape[1:]).reshape(3, -1).T.astype(np.float64)
        for k, shape in enumerate(shapes):
            one = Gaussians(shape[None, :3], shape[None, 3:], np.ones(1), 0.0, "pixel")
            d = np.linalg.solve(one.factors[0], (places - shape[:3]).T)
            g = np.exp(-0.5 * np.square(d).sum(0)).reshape(voxels.shape[1:])
            light = light + at[18:22].reshape(2, 2)[:, k, None, None, None] * g
        rate, data = light / gain + intercept / gain**2, voxels / gain + intercept / gain**2
        return float(2 * (rate - data * np.log(rate))[counted].sum())

    fisher, score = np.empty((24, 24)), np.empty(24)
    memory = information_kernels.make_memory(2, 2)
    slopes = approx_fprime(theta, objective, 1e-6)
    information_kernels.information(
        block, box, theta, 2, noise, spread=False, memory=memory, fisher=fisher, score=score
    )
    np.testing.assert_allclose(-2 * score, slopes, rtol=2e-4, atol=2e-3 * np.abs(slopes).max())
    whole = np.tril(fisher) + np.tril(fisher, -1).T
    assert (np.linalg.eigvalsh(whole) > 0).all()

    # What the score's own slopes are: of what noise makes of it, without what is bent.
    spread, bent, unused = np.empty((24, 24)), np.empty((24, 24)), np.empty(24)
    information_kernels.information(
        block, box, theta, 2, noise, spread=True, memory=memory, fisher=spread, score=unused
    )
    np.testing.assert_allclose(unused, score, rtol=1e-5, atol=1e-5 * np.abs(score).max())
    middle = np.array([4.5, 5.0, 5.5])
    information_kernels.bend(theta, 2, middle, memory[2], gain, bent)
    step = 1e-2  # sums are in single precision
    slopes = np.empty((24, 24))
    scores = np.empty((2, 24))
    for i in range(24):
        for one, sign in zip(scores, (1, -1), strict=True):
            beside = theta + sign * step * (np.arange(24) == i)
            information_kernels.information(
                block, box, beside, 2, noise, spread=False, memory=memory, fisher=fisher, score=one
            )
        slopes[i] = (scores[1] - scores[0]) / (2 * step)
    observed = np.tril(spread) + np.tril(spread, -1).T - bent
    sizes = np.sqrt(np.diagonal(whole))
    scaled = (observed - slopes) / sizes / sizes[:, None]
    assert np.abs(scaled).max() < 1.5e-3, np.abs(scaled).max()
    assert np.abs(bent / sizes / sizes[:, None]).max() > 0.02, "there is something to be seen"


def airy(square: Floats) -> Floats:
    """The pattern of Airy, rings and all, of squared distances in sigmas."""
    v = np.maximum(1.4 * np.sqrt(square), 1e-6)
    return np.square(2 * j1(v) / v)


@pytest.mark.parametrize("likelihood", ["poisson", "robust"])
@pytest.mark.parametrize("kind", ["airy", "slanted"])
def test_where_no_gaussian_fits_error_bars_are_those_of_the_noise(
    kind: str, likelihood: Likelihood
) -> None:
    """What the model misses is the same every time: only what noise changes is an error bar's."""
    rng = np.random.default_rng(12)
    sigmas, shape = np.array([2.0, 1.5, 1.5]), (26, 104, 104)
    places = (np.indices((1, 4, 4)).reshape(3, -1).T + 0.5) * 26 + rng.uniform(-2, 2, (16, 3))
    peak = 1000.0 if kind == "airy" else 100.0
    truth = made(places, np.tile(np.diag(sigmas**2), (16, 1, 1)), np.full(16, peak))
    light = np.full(shape, BACKGROUND)
    if kind == "slanted":
        light += 2.0 * (np.arange(104) % 26)
    for place in places:
        apart = (np.indices(shape).reshape(3, -1).T - place) / sigmas
        square = np.square(apart).sum(axis=1).reshape(shape)
        light += peak * (airy(square) if kind == "airy" else np.exp(-0.5 * square))
    clean = Stack.from_array(light)
    start = refine([truth], [clean], noise=Noise(1.0), likelihood=likelihood).gaussians[0]
    values: dict[str, list[Floats]] = {}
    bars: dict[str, list[Floats]] = {}
    for _ in range(16):
        stack = Stack.from_array(rng.poisson(light).astype(np.float32))
        found = refine([start], [stack], noise=Noise(1.0), likelihood=likelihood)
        assert found.reduced_chi2.min() > 1.2, "the model holds"
        one = found.gaussians[0]
        own = dict(zip("zyx", one.means.T, strict=True))
        own |= {
            f"fwhm_{a}": 2.3548 * s for a, s in zip("zyx", found.along_axes()[0].T, strict=True)
        }
        own["amplitude"] = one.amplitudes
        own["integrated_intensity"] = one.integrated_intensities()
        own["background"] = found.backgrounds[:, 0]
        for name, value in own.items():
            values.setdefault(name, []).append(value)
            bars.setdefault(name, []).append(found.errors()[f"sd_{name}"])
    for name, draws in values.items():
        given = np.mean(np.square(bars[name]), axis=0)
        ratio = float(np.sqrt(np.mean(np.var(draws, axis=0, ddof=1) / given)))
        assert 0.85 < ratio < 1.2, (name, ratio)


def test_what_cannot_be_trusted_is_flagged() -> None:
    rng = np.random.default_rng(8)
    truth = isolated(rng, (2.0, 1.6, 1.3), 100.0)
    light = rendered(truth, (26, 104, 104))
    stack = Stack.from_array(rng.poisson(light)[:, int(truth.means[0, 1]) :].astype(np.float32))
    start = shaken(rng, truth)
    start = Gaussians(
        start.means - np.array([0, int(truth.means[0, 1]), 0]),
        start.cholesky,
        start.amplitudes,
        BACKGROUND,
        "pixel",
    )
    found = refine([start], [stack], noise=Noise(1.0, saturation=100.0))
    assert "at the border" in found.flags[0]
    assert any("saturated" in flag for flag in found.flags)
    crowd = made(
        rng.uniform(8, 18, (30, 3)), np.tile(np.eye(3) * 4.0, (30, 1, 1)), np.full(30, 30.0)
    )
    voxels = rng.poisson(rendered(crowd, (26, 26, 26))).astype(np.float32)
    flags = refine([crowd], [Stack.from_array(voxels)], noise=Noise(1.0)).flags
    assert all("one of many in a structure" in flag for flag in flags)


@pytest.mark.parametrize("noise", [Noise(1.0), None])
def test_one_that_vanishes_leaves_what_is_known_of_those_around_it(noise: Noise | None) -> None:
    """Beside a hole in the background nothing shines: there is one Gaussian, not two."""
    one = made(np.array([[10.0, 10, 10]]), np.eye(3)[None] * 4, np.array([200.0]))
    hole = made(np.array([[10.0, 10, 16]]), np.eye(3)[None] * 4, np.array([-6.0]))
    light = rendered(one, (21, 21, 27)) + rendered(hole, (21, 21, 27)) - BACKGROUND
    stack = Stack.from_array(np.random.default_rng(9).poisson(light).astype(np.float32))
    both = made(
        np.concatenate([one.means, hole.means]), np.tile(np.eye(3) * 4, (2, 1, 1)), [180.0, 3.0]
    )
    likelihood = "squared" if noise is None else "poisson"
    found = refine([both], [stack], noise=noise, likelihood=likelihood)
    alone = refine([one], [stack], noise=noise, likelihood=likelihood)
    [refined] = found.gaussians
    assert refined.amplitudes[1] == 0
    assert found.flags == ("", "not determined")
    assert np.isnan(found.errors()["sd_x"][1])
    for name, deviations in found.errors().items():
        assert deviations[0] == pytest.approx(alone.errors()[name][0], rel=0.2), name
    apart = refined.means[0] - alone.gaussians[0].means[0]
    assert np.all(np.abs(apart) < 2 * alone.errors()["sd_z"][0])


def test_what_becomes_of_no_size_stays_what_it_was() -> None:
    """Hundreds of Gaussians of a few voxels: there is no telling one from the other."""
    rng = np.random.default_rng(11)
    count = 400
    crowd = made(
        rng.uniform(0, 7, (count, 3)), np.tile(np.eye(3), (count, 1, 1)), np.full(count, 3.0)
    )
    stack = Stack.from_array(rng.poisson(30.0, (8, 8, 8)).astype(np.float32))
    found = refine([crowd], [stack], noise=Noise(1.0))
    [refined] = found.gaussians
    unknown = np.array(["not determined" in flag for flag in found.flags])
    np.testing.assert_array_equal(unknown, np.isnan(found.errors()["sd_x"]))
    begun = (refined.means == crowd.means).all(1)
    assert np.any(unknown & begun)
    assert refined.principal()[0].max() < 1e5


def test_the_same_numbers_come_with_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    from napari_gaussfit import _threads as threads

    rng = np.random.default_rng(9)
    truth = isolated(rng, (2.0, 1.6, 1.3), 100.0)
    stack = Stack.from_array(rng.poisson(rendered(truth, (26, 104, 104))).astype(np.float32))
    start = shaken(rng, truth)
    many = refine([start], [stack], noise=Noise(1.0))
    monkeypatch.setattr(threads, "thread_count", lambda: 1)
    one = refine([start], [stack], noise=Noise(1.0))
    np.testing.assert_array_equal(many.gaussians[0].means, one.gaussians[0].means)
    np.testing.assert_array_equal(many.covariances, one.covariances)


def test_other_units_and_channels_are_refused() -> None:
    truth = isolated(np.random.default_rng(0), (2.0, 1.6, 1.3), 100.0)
    stack = Stack.from_array(np.random.default_rng(0).random((26, 104, 104)))
    with pytest.raises(SettingsError, match="2 channels of Gaussians for 1 of a stack"):
        refine([truth, truth], [stack])
    micrometres = Gaussians(truth.means, truth.cholesky, truth.amplitudes)
    with pytest.raises(SettingsError, match="Gaussians in micrometer"):
        refine([micrometres], [stack])


def test_widths_along_the_axes_of_round_spots_are_neither_too_great_nor_too_small() -> None:
    """Widths in order are: of two that are the same, one is always found the greater."""
    rng = np.random.default_rng(3)
    places = (np.indices((3, 4, 4)).reshape(3, -1).T + 0.5) * 16 + rng.uniform(-1, 1, (48, 3))
    sigmas = np.array([2.0, 1.5, 1.5])
    truth = made(places, np.tile(np.diag(sigmas**2), (48, 1, 1)), np.full(48, 20.0))
    light = rendered(truth, (48, 64, 64))
    pulls = []
    for _ in range(6):
        found = refine([truth], [Stack.from_array(rng.poisson(light))], noise=Noise(1.0))
        widths, errors = found.along_axes()
        pulls.append((widths - sigmas) / errors)
    every = np.concatenate(pulls)
    assert np.abs(every.mean(axis=0)).max() < 0.2, every.mean(axis=0)
    assert np.abs(every.std(axis=0) - 1).max() < 0.12, every.std(axis=0)


def test_what_is_made_ready_is_what_refines() -> None:
    """The kernel is compiled for certain types: for others, it would be loaded again."""
    rng = np.random.default_rng(3)
    truth = isolated(rng, (2.0, 1.5, 1.5), 100.0)
    light = rendered(truth, (26, 104, 104))
    refinement_kernels.make_ready()
    ready = list(refinement_kernels.refine_some.signatures)
    stack = Stack.from_array(rng.poisson(light).astype(np.float32))
    refine([truth], [stack], noise=Noise(1.0))
    assert refinement_kernels.refine_some.signatures == ready
