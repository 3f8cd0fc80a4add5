"""A fit with a point spread function: nothing is narrower, and what is wider is an object's own."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from napari_gaussfit.errors import FitError, SettingsError
from napari_gaussfit.fitting.bounds import keep_above
from napari_gaussfit.fitting.evidence import freedom, price
from napari_gaussfit.fitting.fit import Fit, fit
from napari_gaussfit.fitting.result import FitResult, load
from napari_gaussfit.measure.noise import Noise
from napari_gaussfit.measure.psf import Psf
from napari_gaussfit.model.field import GaussianField
from napari_gaussfit.model.gaussians import FWHM_PER_SIGMA, Gaussians
from napari_gaussfit.settings import FitSettings
from napari_gaussfit.stacks.stack import Stack

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

SPACING, SHAPE = (0.2, 0.1, 0.1), (32, 88, 88)
PSF = Psf.of_fwhm(FWHM_PER_SIGMA * np.array([0.4, 0.15, 0.15]), source="a phantom")
OWN = np.repeat([0.0, 0.5, 1.0, 2.0], 8)
"""Widths of objects, in those of the point spread function."""


def own_widths(field: GaussianField) -> Floats:
    """What Gaussians are wider than the point spread function [K, 3], in its widths, squared."""
    whitening = np.linalg.inv(np.linalg.cholesky(PSF.matrix))
    widths = np.linalg.eigvalsh(whitening @ field.numpy().covariances @ whitening.T) - 1
    return np.asarray(widths, np.float64)


@pytest.fixture(scope="module")
def stack() -> Stack:
    rng = np.random.default_rng(0)
    covariances = PSF.matrix * (1 + OWN[:, None, None] ** 2)
    truth = GaussianField.from_covariances(
        places(), covariances, np.full(32, 300.0), background=10.0
    )
    photons = rng.poisson(truth.voxelise(SHAPE, SPACING).numpy())
    return Stack.from_array(photons.astype(float), spacing=SPACING, name="objects")


def places() -> Floats:
    rng = np.random.default_rng(1)
    cells = np.indices((2, 4, 4)).reshape(3, -1).T
    return ((cells + 0.5) * (16, 22, 22) + rng.uniform(-1, 1, cells.shape)) * SPACING


@pytest.fixture(scope="module")
def result(stack: Stack) -> FitResult:
    settings = FitSettings(iterations=200, device="cpu")
    return fit(stack, settings, points=places(), psf=PSF)


def test_objects_have_their_own_widths(result: FitResult) -> None:
    """A half to two times that of the point spread function, within 5 %; of points next to none."""
    own = np.sqrt(np.maximum(own_widths(result.field), 0)).mean(1).reshape(4, 8).mean(1)
    np.testing.assert_allclose(own[1:], (0.5, 1.0, 2.0), rtol=0.05)
    assert own[0] < 0.15


def test_no_gaussian_is_narrower_than_light_allows_at_any_moment(stack: Stack) -> None:
    """Also not those that are added, while their number still grows."""
    running = Fit(stack, FitSettings(iterations=120, views=12, held_out=2, device="cpu"), psf=PSF)
    least = [own_widths(snapshot.field).min() for snapshot in running]
    assert len(running.result().field) > 10
    assert min(least) > -1e-5
    free = fit(stack, FitSettings(iterations=120, views=12, held_out=2, device="cpu"))
    assert own_widths(free.field).min() < -0.05, "by itself a fit goes below"


def test_the_report_and_the_file_tell_which_it_was(result: FitResult, tmp_path: Path) -> None:
    assert result.report.psf == "FWHM 942, 353, 353 nm along z, y, x (a phantom)"
    result.save(tmp_path / "fit.safetensors")
    loaded = load(tmp_path / "fit.safetensors")
    assert loaded.psf is not None
    assert loaded.psf.to_dict() == PSF.to_dict()
    assert loaded.report.psf == result.report.psf


def test_a_fit_goes_on_with_the_one_it_began_with(stack: Stack) -> None:
    settings = FitSettings(iterations=40, views=4, held_out=1, device="cpu")
    whole, part = (Fit(stack, settings, points=places(), psf=PSF) for _ in range(2))
    last = [*whole][-1].field
    for snapshot in part:
        if snapshot.iteration >= 10:
            break
    saved = part.checkpoint()
    going_on = Fit(stack, settings)
    going_on.restore(saved)
    for snapshot in going_on:
        assert snapshot.iteration >= saved.state["age"].max()
    for one, other in zip(last.tensors, going_on.result().field.tensors, strict=True):
        assert torch.equal(one, other)
    wider = Psf.of_fwhm((1.0, 0.5, 0.5))
    with pytest.raises(FitError, match="psf: the record's is FWHM 942, 353, 353 nm"):
        Fit(stack, settings, psf=wider).restore(saved)


def test_a_stack_without_a_spacing_is_refused(stack: Stack) -> None:
    pixels = Stack.from_array(stack.voxels)
    with pytest.raises(SettingsError, match=r"psf: its widths .*--spacing"):
        fit(pixels, FitSettings(gaussians=5, device="cpu"), psf=PSF)


def test_of_what_is_narrower_the_nearest_above_is_taken() -> None:
    """Along the directions in which it is wide enough, in the floor's widths, nothing changes."""
    turn = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
    floor = np.linalg.cholesky(turn @ np.diag([4.0, 1.0, 0.25]) @ turn.T)
    own = turn.T @ np.diag([3.0, 1.2, 0.1]) @ turn
    gaussians = Gaussians.from_covariances(
        np.zeros((2, 3)), [floor @ own @ floor.T, 30 * np.eye(3)], [1.0, 1.0]
    )
    cholesky = torch.from_numpy(gaussians.cholesky.copy())
    keep_above(cholesky, torch.from_numpy(floor.astype(np.float32)))
    found = Gaussians(gaussians.means, cholesky.numpy(), gaussians.amplitudes).covariances
    wanted = floor @ turn.T @ np.diag([3.0, 1.2, 1.0]) @ turn @ floor.T
    np.testing.assert_allclose(found[0], wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(cholesky[1].numpy(), gaussians.cholesky[1])


def test_where_axes_are_held_those_of_the_psf_are_too(stack: Stack) -> None:
    """And it is said: of a turned one only its widths along z, y and x can count."""
    turned = PSF.to_dict()
    turned["covariance"] = [[0.16, 0.02, 0.0], [0.02, 0.0225, 0.0], [0.0, 0.0, 0.0225]]
    settings = FitSettings(
        iterations=30, views=4, held_out=1, device="cpu", full_covariance=False, gaussians=40
    )
    result = fit(stack, settings, psf=Psf.from_dict(turned))
    widths = np.exp(result.field.numpy().log_widths)
    assert (widths >= 0.9999 * np.array([0.4, 0.15, 0.15])).all()
    assert "of the PSF, its widths along these count alone" in " ".join(result.report.notes)


def test_noise_that_does_not_grow_with_light_tells_how_sharp_a_picture_is(stack: Stack) -> None:
    """Also where the report has no offset, since there is no gain."""
    light = np.asarray(stack.voxels, np.float64)
    read = replace(stack, voxels=light + np.random.default_rng(0).normal(0, 20, light.shape))
    settings = FitSettings(
        iterations=20, views=4, held_out=1, device="cpu", gain=0, read_noise=200.0
    )
    result = fit(read, settings, points=places(), psf=PSF)
    assert result.report.detector == Noise(0.0, 40000.0)
    wide, sharp = (
        one.deconvolved().field.numpy().principal()[0][:, 0]
        for one in (result, replace(result, reports=()))
    )
    assert (wide[:8] > 1.2 * sharp[:8]).all()


@pytest.mark.parametrize(
    "fwhm", [(0.5, 0.2), (0.5, 0.2, 0.0), (0.5, math.nan, 0.2), (1e9, 1.0, 1.0)]
)
def test_widths_that_are_none_are_refused(fwhm: tuple[float, ...]) -> None:
    with pytest.raises(SettingsError, match="three lengths above 0"):
        Psf.of_fwhm(fwhm)


def test_the_table_has_objects_own_widths(result: FitResult, stack: Stack) -> None:
    table = result.to_dataframe()
    own = np.sqrt(table["fwhm_1"] ** 2 - PSF.fwhm[0] ** 2)
    some = OWN >= 1
    np.testing.assert_allclose(table["object_fwhm_1"][some], own[some], rtol=0.02)
    assert table["sd_object_fwhm_1"].isna().all(), "nobody has measured"
    measured = result.measured(stack).to_dataframe()
    off = measured["object_fwhm_1"] - FWHM_PER_SIGMA * 0.4 * OWN
    assert (np.abs(off) < 4 * measured["sd_object_fwhm_1"]).all()


@pytest.mark.parametrize("known", ["the report", "a measurement"])
def test_deconvolved_it_is_as_bright_and_no_narrower_than_its_error(
    known: str, result: FitResult, stack: Stack
) -> None:
    fine = (0.1, 0.05, 0.05)
    fit_of = result.measured(stack) if known == "a measurement" else result
    sharp = fit_of.deconvolved(fine)
    assert sharp.stack.shape == (63, 175, 175)
    assert sharp.psf is None
    before, after = (one.field.numpy() for one in (fit_of, sharp))
    np.testing.assert_allclose(after.means, before.means, rtol=1e-6)
    np.testing.assert_allclose(
        after.integrated_intensities(), before.integrated_intensities(), rtol=1e-4
    )
    widths = after.principal()[0].reshape(4, 8, 3)
    assert 0.1 * PSF.fwhm[0] < widths[0, :, 0].mean() * FWHM_PER_SIGMA < 0.45 * PSF.fwhm[0]
    np.testing.assert_allclose(widths[2:, :, 0].mean(1), (0.4, 0.8), rtol=0.05)
    volume = sharp.voxelise()
    light = (volume - sharp.field.background).sum() * math.prod(fine)
    assert light == pytest.approx(after.integrated_intensities().sum(), rel=0.05)
    assert sharp.render().shape == (175, 175)


def test_a_fit_without_one_cannot_be_deconvolved(stack: Stack) -> None:
    settings = FitSettings(iterations=5, views=2, held_out=1, device="cpu")
    with pytest.raises(SettingsError, match="knows no point spread function; fit with one"):
        fit(stack, settings).deconvolved()


def test_of_points_centre_and_amplitude_are_all_there_is(tmp_path: Path) -> None:
    """Their shapes stay those of light, also of those that are added; they cost four parameters."""
    rng = np.random.default_rng(5)
    truth = GaussianField.from_covariances(
        places(), np.tile(PSF.matrix, (32, 1, 1)), np.full(32, 60.0), background=10.0
    )
    photons = rng.poisson(truth.voxelise(SHAPE, SPACING).numpy())
    stack = Stack.from_array(photons.astype(float), spacing=SPACING, name="points")
    settings = FitSettings(iterations=120, views=12, held_out=2, device="cpu", shape="point")
    running = Fit(stack, settings, psf=PSF)
    for snapshot in running:
        np.testing.assert_allclose(own_widths(snapshot.field), 0, atol=1e-4)
    result = running.result()
    assert len(result.field) == 32, result.report.count_reason
    apart = np.linalg.norm(result.field.numpy().means[:, None] - places(), axis=2)
    assert apart.min(axis=0).max() < 0.1
    measured = result.measured(stack)
    assert (measured.to_dataframe()["object_fwhm_1"] == 0).all()
    result.save(tmp_path / "fit.safetensors")
    saved = load(tmp_path / "fit.safetensors").settings
    assert saved is not None
    assert saved.shape == "point"
    with pytest.raises(SettingsError, match="expected a point spread function beside it"):
        fit(stack, settings)


def test_a_gaussian_has_as_many_parameters_as_it_has_widths_of_its_own() -> None:
    """Four of a point, ten of what is wider in all directions, and as many as there is between."""
    floor = np.linalg.cholesky(PSF.matrix)
    own = [np.diag(widths) for widths in ((0, 0, 0), (1, 0, 0), (1, 0.5, 0), (2, 1, 0.3))]
    covariances = [PSF.matrix + floor @ one @ floor.T for one in own]
    gaussians = Gaussians.from_covariances(np.zeros((4, 3)), covariances, np.ones(4))
    cholesky = torch.from_numpy(gaussians.cholesky.copy())
    floor_of = torch.from_numpy(floor.astype(np.float32))
    assert freedom(cholesky, floor_of).tolist() == [4, 5, 7, 10]
    assert freedom(cholesky, None).tolist() == [10] * 4
    assert freedom(cholesky, floor_of, points=True).tolist() == [4] * 4
    assert price(10**6, 4) == price(10**6) - 6
