"""What is known of Gaussians makes the rest more certain, and error bars say by how much."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from napari_gaussfit.errors import SettingsError
from napari_gaussfit.measure.constraints import Constraints
from napari_gaussfit.measure.deblurred import object_widths
from napari_gaussfit.measure.measurement import Measurement
from napari_gaussfit.measure.noise import Noise
from napari_gaussfit.measure.psf import Psf
from napari_gaussfit.measure.refinement import refine
from napari_gaussfit.measure.shapes import Shapes
from napari_gaussfit.model.field import GaussianField
from napari_gaussfit.model.gaussians import FWHM_PER_SIGMA, Gaussians
from napari_gaussfit.stacks.stack import Stack

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

SPACING = np.array([0.2, 0.1, 0.1])
BLUR = np.array([0.4, 0.15, 0.15])
PSF = Psf.of_fwhm(FWHM_PER_SIGMA * BLUR)
PITCH, DRAWS = np.array([24, 28, 28]), 12
NOISE, BACKGROUND = Noise(1.0), 10.0


def grid(rng: np.random.Generator) -> Floats:
    """Sixteen places apart from each other."""
    cells = np.indices((1, 4, 4)).reshape(3, -1).T
    return ((cells + 0.5) * PITCH + rng.uniform(-1.5, 1.5, cells.shape)) * SPACING


def made(means: Floats, sigmas: Floats, peak: float = 100.0) -> Gaussians:
    """Gaussians along the axes; `sigmas` of all [3], or of each [K, 3]."""
    widths = np.broadcast_to(sigmas, means.shape)
    return Gaussians.from_covariances(
        means, np.square(widths)[:, None] * np.eye(3), np.full(len(means), peak),
        background=BACKGROUND,
    )  # fmt: skip


def recorded(truth: Gaussians, rng: np.random.Generator) -> Stack:
    light = GaussianField.from_numpy(truth).voxelise((24, 112, 112), SPACING, tolerance=1e-9)
    return Stack.from_array(rng.poisson(light.numpy()).astype(float), spacing=tuple(SPACING))


def shaken(truth: Gaussians, rng: np.random.Generator, *, widths: bool = True) -> Gaussians:
    """Where a fit may have left them."""
    off = 0.1 * np.array([1, 0, 1, 0, 0, 1]) if widths else 0.0
    means = truth.means + rng.normal(0, 0.15, truth.means.shape) * SPACING
    return replace(
        truth, means=means, cholesky=truth.cholesky + off, amplitudes=0.9 * truth.amplitudes
    )


def numbers(found: Gaussians) -> dict[str, Floats]:
    sigmas = found.principal()[0]
    values = {axis: np.asarray(found.means[:, n], np.float64) for n, axis in enumerate("zyx")}
    values |= {f"sigma_{n + 1}": sigmas[:, n] for n in range(3)}
    values["amplitude"] = np.asarray(found.amplitudes, np.float64)
    values["integrated_intensity"] = found.integrated_intensities()
    return values


def pulls_of(found: Measurement, truth: Gaussians) -> dict[str, Floats]:
    """Errors over their error bars, of what has one."""
    errors, own, true = found.errors(), numbers(found.gaussians[0]), numbers(truth)
    return {
        name: (own[name] - true[name]) / errors[f"sd_{name}"]
        for name in own
        if (errors[f"sd_{name}"] > 0).all()
    }


@pytest.mark.parametrize(
    ("constraints", "sigmas", "known"),
    [
        (Constraints(widths="shared"), (0.44, 0.2, 0.15), ()),
        (Constraints(widths="shared", shape="aligned"), (0.44, 0.2, 0.15), ()),
        (Constraints(shape="aligned"), (0.44, 0.2, 0.15), ()),
        (Constraints(shape="sphere"), (0.25, 0.25, 0.25), ()),
        (Constraints(widths="given"), (0.44, 0.2, 0.15), ("sigma_1", "sigma_2", "sigma_3")),
        (Constraints(centres="given"), (0.44, 0.2, 0.15), ("z", "y", "x")),
        (
            Constraints(shape="point", psf=PSF),
            (0.4, 0.15, 0.15),
            ("sigma_1", "sigma_2", "sigma_3"),
        ),
    ],
    ids=["shared", "shared aligned", "aligned", "sphere", "given", "centres", "points"],
)
def test_errors_are_at_the_bound_of_what_is_free(
    constraints: Constraints, sigmas: tuple[float, ...], known: tuple[str, ...]
) -> None:
    """RMS error over the bound of the smaller model, and a bound below that of the larger one."""
    rng = np.random.default_rng(1)
    pulls: list[dict[str, Floats]] = []
    for _ in range(DRAWS):
        truth = made(grid(rng), np.array(sigmas))
        stack = recorded(truth, rng)
        start = shaken(truth, rng, widths="sigma_1" not in known)
        if "z" in known:
            start = replace(start, means=truth.means)
        found = refine([start], [stack], noise=NOISE, constraints=constraints)
        assert (found.steps > 0).all()
        pulls.append(pulls_of(found, truth))
    assert {*numbers(truth)} - {*pulls[0]} == {*known}, "what is given has no error"
    for name in pulls[0]:
        each = np.array([one[name] for one in pulls])
        # What all share is one number a draw.
        many = DRAWS if constraints.widths == "shared" and "sigma" in name else each.size
        rms = np.sqrt(np.mean(np.square(each)))
        assert rms == pytest.approx(1.0, abs=max(0.1, 3 / np.sqrt(2 * many))), name
    free = refine([start], [stack], noise=NOISE)
    bounds = [np.mean(one.errors()["sd_amplitude"]) for one in (found, free)]
    assert bounds[0] < 1.001 * bounds[1]
    np.testing.assert_allclose(found.reduced_chi2, free.reduced_chi2, atol=0.02)


def test_shared_widths_are_as_sure_as_all_gaussians_together_make_them() -> None:
    rng = np.random.default_rng(2)
    truth = made(grid(rng), np.array([0.44, 0.2, 0.15]))
    stack, start = recorded(truth, rng), shaken(truth, rng)
    alone = refine([start], [stack], noise=NOISE)
    shared = refine([start], [stack], noise=NOISE, constraints=Constraints(widths="shared"))
    cholesky = shared.gaussians[0].cholesky
    np.testing.assert_array_equal(cholesky, np.broadcast_to(cholesky[0], cholesky.shape))
    ratios = alone.errors()["sd_fwhm_1"] / shared.errors()["sd_fwhm_1"]
    np.testing.assert_allclose(ratios, np.sqrt(len(truth)), rtol=0.15)


def test_without_any_constraint_it_is_the_refinement_that_is_free() -> None:
    rng = np.random.default_rng(3)
    truth = made(grid(rng), np.array([0.44, 0.2, 0.15]))
    near = replace(truth, means=truth.means + np.array([0.0, 0.0, 0.35]))
    both = made(np.concatenate([truth.means, near.means]), np.array([0.44, 0.2, 0.15]))
    stack, start = recorded(both, rng), shaken(both, rng)
    free = refine([start], [stack], noise=NOISE)
    found = refine([start], [stack], noise=NOISE, constraints=Constraints())
    np.testing.assert_allclose(found.gaussians[0].means, free.gaussians[0].means, atol=1e-3)
    # Which of the dim are looked at in a wide window may be decided by the last digits.
    for name, errors in free.errors().items():
        np.testing.assert_allclose(found.errors()[name], errors, rtol=0.03, err_msg=name)


def test_channels_share_what_is_free() -> None:
    rng = np.random.default_rng(4)
    truth = made(grid(rng), np.array([0.44, 0.2, 0.15]))
    dim = replace(truth, amplitudes=0.3 * truth.amplitudes)
    stacks = [recorded(one, rng) for one in (truth, dim)]
    start = shaken(truth, rng)
    found = refine(
        [start, start], stacks, noise=NOISE, constraints=Constraints(widths="shared")
    )  # fmt: skip
    ratio = found.gaussians[1].amplitudes / found.gaussians[0].amplitudes
    assert np.mean(ratio) == pytest.approx(0.3, abs=0.01)
    np.testing.assert_allclose(found.gaussians[0].principal()[0][0], (0.44, 0.2, 0.15), rtol=0.03)


def test_squared_error_takes_the_noise_from_what_is_left() -> None:
    rng = np.random.default_rng(5)
    truth = made(grid(rng), np.array([0.44, 0.2, 0.15]))
    light = GaussianField.from_numpy(truth).voxelise((24, 112, 112), SPACING).numpy()
    stack = Stack.from_array(light + rng.normal(0, 4.0, light.shape), spacing=tuple(SPACING))
    found = refine(
        [shaken(truth, rng)],
        [stack],
        likelihood="squared",
        constraints=Constraints(shape="aligned"),
    )
    for name, pull in pulls_of(found, truth).items():
        assert 0.6 < np.sqrt(np.mean(pull**2)) < 1.5, name


@pytest.mark.parametrize("times", [0.0, 0.5, 1.0, 2.0])
def test_objects_own_widths_are_known_within_their_errors(times: float) -> None:
    """Of up to two times the point spread function's width; a point's is 0 within its error."""
    rng = np.random.default_rng(6)
    pulls, within, least = [], [], []
    for _ in range(6):
        truth = made(grid(rng), BLUR * np.hypot(1, times))
        stack = recorded(truth, rng)
        found = refine([shaken(truth, rng)], [stack], noise=NOISE, constraints=Constraints(psf=PSF))
        widths, errors = object_widths(found.gaussians[0], PSF, found.covariances)
        off = np.abs(widths[:, 0] - times * BLUR[0])
        within += [*(off <= np.maximum(0.05 * times * BLUR[0], 2 * errors[:, 0]))]
        pulls.append(off / errors[:, 0])
        least.append(np.linalg.eigvalsh(found.gaussians[0].covariances - PSF.matrix).min())
        assert (found.steps > 0).all()
    assert np.mean(within) >= (0.9 if times else 0.7)
    assert np.sqrt(np.mean(np.square(pulls))) < (1.2 if times else 2.0)
    assert min(least) > -1e-9, "nothing is narrower than light allows"


def test_points_that_overlap_are_told_apart_where_their_width_is_known() -> None:
    """A sigma and a half from each other: each within three error bars of the truth."""
    rng = np.random.default_rng(7)
    within = []
    for _ in range(30):
        centre = (PITCH / 2 + rng.uniform(-0.5, 0.5, 3)) * SPACING
        apart = np.array([0.0, 0.0, 0.75 * BLUR[2]])
        truth = made(np.stack([centre - apart, centre + apart]), BLUR)
        light = GaussianField.from_numpy(truth).voxelise(tuple(PITCH), SPACING).numpy()
        stack = Stack.from_array(rng.poisson(light).astype(float), spacing=tuple(SPACING))
        found = refine(
            [shaken(truth, rng, widths=False)], [stack], noise=NOISE,
            constraints=Constraints(shape="point", psf=PSF),
        )  # fmt: skip
        errors = found.errors()
        bars = np.stack([errors[f"sd_{axis}"] for axis in "zyx"], 1)
        within.append(bool((np.abs(found.gaussians[0].means - truth.means) < 3 * bars).all()))
    assert np.mean(within) >= 0.9


def crowded(rng: np.random.Generator, count: int) -> tuple[Gaussians, Stack]:
    """Equal spots a sigma and a half from each other at least, and how they were recorded."""
    sigmas, shape = np.array([0.44, 0.2, 0.15]), (24, 60, 60)
    means: list[Floats] = []
    while len(means) < count:
        one = rng.uniform(2 * sigmas, np.array(shape) * SPACING - 2 * sigmas)
        if all(np.linalg.norm((one - other) / sigmas) > 1.5 for other in means):
            means.append(one)
    truth = replace(made(np.array(means), sigmas), amplitudes=rng.uniform(50, 200, count))
    light = GaussianField.from_numpy(truth).voxelise(shape, SPACING, tolerance=1e-9)
    return truth, Stack.from_array(rng.poisson(light.numpy()).astype(float), spacing=tuple(SPACING))


def test_widths_that_many_overlapping_spots_share_are_the_true_ones() -> None:
    """They make up one structure, cut into blocks that reach into each other."""
    pulls, determined, heard = [], [], []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        truth, stack = crowded(rng, 120)
        start = shaken(truth, rng)
        start = replace(start, cholesky=start.cholesky + 0.15 * np.array([1, 0, 1, 0, 0, 1]))
        found = refine(
            [start], [stack], noise=NOISE, constraints=Constraints(widths="shared"),
            told=lambda steady, count: heard.append((steady, count)),
        )  # fmt: skip
        sure = found.steps > 0
        determined.append(np.mean(sure))
        known = pulls_of(found, truth)
        pulls.append([known[f"sigma_{n}"][sure][0] for n in (1, 2, 3)])
    assert min(determined) > 0.9
    assert np.sqrt(np.mean(np.square(pulls))) < 2.0
    assert {count for _, count in heard} == {120}
    assert heard[0][0] < heard[-1][0] == 120, "progress is told"


@pytest.mark.parametrize("widths", ["given", "shared"])
def test_the_number_of_threads_of_linear_algebra_changes_no_bit(
    widths: Literal["given", "shared"],
) -> None:
    """More than one made it five times as slow, and had it end elsewhere on other machines."""
    truth, stack = crowded(np.random.default_rng(0), 120)
    one, several = [], []
    for found, threads in ((one, 1), (several, 4)):
        with threadpool_limits(threads, "blas"):
            known = refine([truth], [stack], noise=NOISE, constraints=Constraints(widths=widths))
        found += [known.gaussians[0].means, known.gaussians[0].amplitudes, known.covariances]
    for alone, shared_out in zip(one, several, strict=True):
        np.testing.assert_array_equal(alone, shared_out)


def test_a_block_that_never_ends_takes_no_other_with_it() -> None:
    """A few spots where nothing is, each upon another: the widths of the rest are known."""
    rng = np.random.default_rng(8)
    truth = made(grid(rng), np.array([0.44, 0.2, 0.15]))
    stack, start = recorded(truth, rng), shaken(truth, rng)
    alone = refine([start], [stack], noise=NOISE, constraints=Constraints(widths="shared"))
    heap = rng.normal(0, 0.1, (20, 3)) * SPACING + np.array([2.4, 5.6, 5.6])
    both = made(np.concatenate([start.means, heap]), np.array([0.44, 0.2, 0.15]))
    both = replace(both, cholesky=np.concatenate([start.cholesky, start.cholesky[[0] * 20]]))
    found = refine([both], [stack], noise=NOISE, constraints=Constraints(widths="shared"))
    assert (found.steps[:16] > 0).all()
    assert not (found.steps[16:] > 0).all()
    width, other = found.gaussians[0].principal()[0][0], alone.gaussians[0].principal()[0][0]
    bars = np.array([alone.errors()[f"sd_sigma_{n}"][0] for n in (1, 2, 3)])
    assert (np.abs(width - other) < bars).all()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"shape": "cube"}, "shape='cube': expected one of 'any', 'aligned', 'sphere', 'point'"),
        ({"shape": "point"}, "a point is as wide as light makes it; give psf"),
        ({"shape": "sphere", "widths": "given"}, "widths='given' leaves no shape='sphere'"),
        ({"shape": "point", "widths": "shared", "psf": PSF}, "no width that is shared"),
    ],
)
def test_what_contradicts_itself_is_refused(given: dict[str, str], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        Constraints(**given)  # type: ignore[arg-type]


def test_a_stack_without_a_spacing_has_no_psf() -> None:
    pixels = Stack.from_array(np.arange(729.0).reshape(9, 9, 9))
    start = Gaussians(np.full((1, 3), 4.0), np.zeros((1, 6)), np.ones(1), 0.0, "pixel")
    with pytest.raises(SettingsError, match="the stack's spacing is not known"):
        refine([start], [pixels], noise=NOISE, constraints=Constraints(psf=PSF))


@pytest.mark.parametrize("least", [-1e-3, -1e-12, -3.0])
def test_information_that_rounding_made_negative_leads_nowhere_without_end(least: float) -> None:
    """As of Gaussians that are nearly one."""
    shapes = Shapes.of(Constraints(psf=PSF), SPACING, "micrometer")
    rng = np.random.default_rng(2)
    vectors = np.linalg.qr(rng.normal(size=(4, 12, 12)))[0]
    values = np.geomspace(1e-2, 2.0, 12)
    values[0] = least
    fisher = (vectors * values) @ vectors.swapaxes(1, 2)
    own = np.zeros((4, 2, 3, 3))  # the least that there may be
    steps = shapes.step(own, fisher, rng.normal(size=(4, 12)))
    assert np.isfinite(steps).all()
    assert np.abs(steps).max() < 1e6
    nothing = shapes.step(own, -np.broadcast_to(np.eye(12), (4, 12, 12)), -np.ones((4, 12)))
    assert np.isfinite(nothing).all()
