"""`measure` takes a fit, Gaussians or points, and its error bars are true for all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

import napari_gaussfit
from napari_gaussfit import FitSettings, Stack, fit
from napari_gaussfit.errors import SettingsError
from napari_gaussfit.measure.measuring import measure, worth_measuring
from napari_gaussfit.measure.noise import Noise
from napari_gaussfit.model.field import GaussianField
from napari_gaussfit.model.gaussians import Gaussians

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_gaussfit.measure.measurement import Measurement

SPACING = (0.3, 0.1, 0.1)
SHAPE = (40, 96, 96)


@pytest.fixture(scope="module")
def truth() -> Gaussians:
    """Thirty-two spots apart from each other, in micrometres."""
    rng = np.random.default_rng(0)
    cells = np.indices((2, 4, 4)).reshape(3, -1).T
    voxels = (cells + 0.5) * (20, 24, 24) + rng.uniform(-1.5, 1.5, cells.shape)
    covariances = np.tile(np.diag(np.square([0.6, 0.17, 0.15])), (len(voxels), 1, 1))
    return Gaussians.from_covariances(
        voxels * SPACING, covariances, np.full(len(voxels), 100.0), background=10.0
    )


def recorded(truth: Gaussians, seed: int, gain: float = 1.0, offset: float = 0.0) -> Stack:
    light = GaussianField.from_numpy(truth).voxelise(SHAPE, SPACING).numpy()
    photons = np.random.default_rng(seed).poisson(light)
    return Stack.from_array(gain * photons + offset, spacing=SPACING)


def pulls(found: Measurement, truth: Gaussians, gain: float = 1.0) -> NDArray[np.float64]:
    """Errors over error bars of z, y, x, amplitude and integrated intensity."""
    errors, refined = found.errors(), found.gaussians[0]
    off = {axis: refined.means[:, n] - truth.means[:, n] for n, axis in enumerate("zyx")}
    off["amplitude"] = refined.amplitudes - gain * truth.amplitudes
    integrals = truth.integrated_intensities()
    off["integrated_intensity"] = refined.integrated_intensities() - gain * integrals
    return np.stack([error / errors[f"sd_{name}"] for name, error in off.items()])


def test_points_are_enough_and_the_stack_tells_its_noise(truth: Gaussians) -> None:
    """Gain, offset and widths are nobody's to give: from points clicked a voxel beside."""
    found = []
    for seed in range(3):
        stack = recorded(truth, seed, gain=2.3, offset=100.0)
        rng = np.random.default_rng(seed)
        clicked = truth.means + rng.uniform(-1, 1, truth.means.shape) * SPACING
        measured = measure(clicked, stack)
        assert measured.noise is not None
        assert measured.noise.gain == pytest.approx(2.3, rel=0.1)
        assert measured.flags == ("",) * len(truth)
        found.append(pulls(measured, truth, gain=2.3))
    every = np.concatenate(found, axis=1)
    assert every.shape[1] == 96
    # 96 draws know a mean to a tenth and a standard deviation to 7 %: three of these.
    assert (np.abs(every.mean(axis=1)) < 0.31).all(), every.mean(axis=1)
    assert (np.abs(every.std(axis=1) - 1) < 0.22).all(), every.std(axis=1)


def test_a_fit_a_field_and_gaussians_are_measured_alike(truth: Gaussians) -> None:
    stack = recorded(truth, 5)
    field = GaussianField.from_numpy(truth)
    by_field, by_gaussians = measure(field, stack), measure([truth], [stack])
    np.testing.assert_array_equal(by_field.covariances, by_gaussians.covariances)
    settings = FitSettings(iterations=40, views=8, held_out=2)
    result = fit(stack, settings, points=truth.means.astype(np.float64))
    by_fit = napari_gaussfit.measure(result, stack)
    errors = by_field.errors()
    for n, axis in enumerate("zyx"):
        apart = by_fit.gaussians[0].means[:, n] - by_field.gaussians[0].means[:, n]
        assert (np.abs(apart) < 0.1 * errors[f"sd_{axis}"]).all(), "both end at the same maximum"


def test_the_name_of_the_package_is_that_of_the_function() -> None:
    from napari_gaussfit import measure as by_name

    with pytest.raises(SettingsError, match="expected a fit, Gaussians, or points"):
        by_name(np.zeros(3), Stack.from_array(np.eye(3)[None].repeat(3, 0)))


def test_fields_are_the_refined_gaussians(truth: Gaussians) -> None:
    found = measure(truth, recorded(truth, 6))
    [field] = found.fields
    np.testing.assert_allclose(field.means.numpy(), found.gaussians[0].means, rtol=1e-6)


def test_where_noise_cannot_be_known_the_errors_follow_from_what_is_left(
    truth: Gaussians,
) -> None:
    voxels = recorded(truth, 7).voxels
    cut = Stack.from_array(np.where(voxels < 14, 0.0, voxels), spacing=SPACING)
    found = measure(truth, cut)
    assert found.noise is None
    assert "cannot be known: the background was cut off" in found.notes[0]
    assert np.isnan(found.reduced_chi2).all()
    given = measure(truth, cut, noise=Noise(1.0))
    assert given.noise == Noise(1.0)
    assert given.notes[0].startswith("32 of 32 are no Gaussians over a constant"), "it was cut"


def test_what_makes_up_a_structure_is_not_worth_measuring(truth: Gaussians) -> None:
    worth, why = worth_measuring(truth, SPACING)
    assert worth
    assert why == "32 of 32 Gaussians stand alone or in small groups"
    line = np.column_stack([np.full(60, 6.0), np.full(60, 5.0), np.linspace(1, 8, 60)])
    covariances = np.tile(np.diag(np.square([0.3, 0.2, 0.2])), (60, 1, 1))
    worth, why = worth_measuring(
        Gaussians.from_covariances(line, covariances, np.full(60, 50.0)), SPACING
    )
    assert not worth
    assert why.startswith("60 of 60 Gaussians make up structures together")


def test_a_point_outside_of_the_stack_is_refused(truth: Gaussians) -> None:
    with pytest.raises(SettingsError, match="point at 99, 1, 1 lies outside of the stack"):
        measure([[99.0, 1.0, 1.0]], recorded(truth, 8))


def test_gaussians_where_nothing_is_stay_as_they_were(truth: Gaussians) -> None:
    """Also those that the first of two turns has led astray, with the noise of neighbours."""
    means = np.concatenate([truth.means, [[3.0, 2.4, 2.4], [9.0, 4.8, 7.2]]])
    given = Gaussians.from_covariances(
        means,
        np.concatenate([truth.covariances, truth.covariances[:2]]),
        np.append(truth.amplitudes, [2.0, 2.0]),
        background=10.0,
    )
    found = measure(given, recorded(truth, 1))
    lost = found.steps <= 0
    assert lost.any()
    assert not lost[: len(truth)].any()
    np.testing.assert_array_equal(found.gaussians[0].means[lost], given.means[lost])
    np.testing.assert_array_equal(found.gaussians[0].amplitudes[lost], given.amplitudes[lost])


def test_fields_of_a_measurement_are_evaluated_by_kernels() -> None:
    """In float32, whatever its numbers have: plain torch takes a hundred times as long."""
    phantom = napari_gaussfit.phantoms.beads(count=3)
    found = measure(phantom.truth, phantom.stack)
    assert found.gaussians[0].means.dtype == np.float64
    [field] = found.fields
    assert {tensor.dtype for tensor in field.tensors} == {torch.float32}


def test_light_whose_maximum_lies_beyond_the_stack_is_not_determined() -> None:
    """A tail alone is explained by any amplitude, farther out by ever larger ones."""
    z, y, x = np.indices((24, 24, 24), float)
    light = 100 + 500 * np.exp(-((z - 12) ** 2 + (y - 12) ** 2) / 8 - (x + 6) ** 2 / 32)
    stack = Stack.from_array(np.random.default_rng(3).poisson(light).astype(np.float32))
    begun = Gaussians.from_covariances(
        np.array([[12.0, 12.0, 0.5]]), 4 * np.eye(3)[None], np.array([160.0]), background=100.0,
        unit="pixel",
    )  # fmt: skip
    found = measure(begun, stack, noise=Noise(1.0))
    [refined] = found.gaussians
    assert "not determined" in found.flags[0]
    np.testing.assert_array_equal(refined.means, begun.means)
    np.testing.assert_array_equal(refined.amplitudes, begun.amplitudes)
    assert np.isnan(found.errors()["sd_amplitude"][0])
