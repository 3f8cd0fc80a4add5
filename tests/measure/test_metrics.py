"""PSNR and SSIM mean what the project says they mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_gaussfit.errors import SettingsError
from napari_gaussfit.measure import differences
from napari_gaussfit.measure.metrics import noise_leaves, noise_psnr, psnr, ssim
from napari_gaussfit.synthetic import phantoms

if TYPE_CHECKING:
    from collections.abc import Callable


def test_psnr_is_of_the_raw_range_and_the_mean_square_error() -> None:
    reference = np.zeros((4, 5, 6))
    estimate = np.full((4, 5, 6), 2.0)
    assert psnr(reference, estimate, (-50.0, 150.0)) == pytest.approx(10 * np.log10(200**2 / 4))


def test_identical_images_have_infinite_psnr_and_ssim_1() -> None:
    image = np.random.default_rng(0).uniform(0, 9, (20, 30))
    assert psnr(image, image, (0, 9)) == np.inf
    assert ssim(image, image, (0, 9)) == pytest.approx(1.0)


def test_only_the_chosen_pixels_count() -> None:
    reference = np.zeros((3, 4))
    estimate = np.zeros((3, 4))
    estimate[0] = 1.0
    where = np.zeros((3, 4), dtype=bool)
    where[:2] = True
    assert psnr(reference, estimate, (0, 10), where) == pytest.approx(10 * np.log10(100 / 0.5))
    assert psnr(reference, estimate, (0, 10), ~where) == np.inf


def test_values_beyond_the_range_are_not_clipped() -> None:
    beyond = psnr(np.zeros(5), np.full(5, 20.0), (0, 10))
    assert beyond == pytest.approx(10 * np.log10(100 / 400))


def test_unsigned_integers_do_not_wrap() -> None:
    dark, bright = np.zeros((9, 9), np.uint8), np.full((9, 9), 255, np.uint8)
    assert psnr(dark, bright, (0, 255)) == pytest.approx(0.0)
    assert psnr(bright, dark, (0, 255)) == pytest.approx(0.0)


def test_ssim_falls_with_noise_and_depends_on_the_range() -> None:
    rng = np.random.default_rng(1)
    reference = rng.uniform(0, 100, (40, 40)).cumsum(axis=1) / 40
    little, much = (reference + rng.normal(0, sigma, reference.shape) for sigma in (1, 10))
    near, far = ssim(reference, little, (0, 100)), ssim(reference, much, (0, 100))
    assert 0 < far < near < 1
    assert ssim(reference, much, (0, 1000)) > far


def test_ssim_takes_images_smaller_than_its_window() -> None:
    thin = np.random.default_rng(2).uniform(0, 1, (2, 40))
    assert ssim(thin, thin, (0, 1)) == pytest.approx(1.0)
    assert ssim(thin, 1 - thin, (0, 1)) < 0.5


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"estimate has shape \(4,\).*reference, \(3,\)"):
        psnr(np.zeros(3), np.ones(4), (0, 1))
    with pytest.raises(SettingsError, match="chooses no pixel"):
        psnr(np.zeros(3), np.ones(3), (0, 1), np.zeros(3, dtype=bool))


@pytest.mark.parametrize("shape", [(40, 50, 60), (1, 200, 300), (2, 3, 40_000), (30_000, 2, 3)])
def test_noise_alone_has_the_psnr_of_its_deviation(shape: tuple[int, int, int]) -> None:
    noise = np.random.default_rng(3).normal(1000.0, 4.0, shape)
    expected = 20 * np.log10(500 / 4.0)
    assert noise_psnr(noise, (0, 500)) == pytest.approx(expected, abs=0.15)


@pytest.mark.parametrize("make", [phantoms.neurite, phantoms.beads, phantoms.nuclei])
@pytest.mark.parametrize("photons", [30, 300])
def test_noise_is_told_from_structure(
    make: Callable[..., phantoms.Phantom], photons: float
) -> None:
    phantom = make(photons=photons)
    stack = phantom.stack
    clean = phantom.truth.voxelise(stack.shape, stack.spacing)
    true = psnr(clean, stack.voxels, stack.value_range)
    assert noise_psnr(stack.voxels, stack.value_range) == pytest.approx(true, abs=0.2)


def test_noise_is_the_same_looked_at_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    voxels = np.random.default_rng(4).integers(0, 255, (23, 20, 30), dtype=np.uint8)
    whole = noise_psnr(voxels, (0, 255))
    monkeypatch.setattr(differences, "AT_ONCE", 4 * 20 * 30)
    assert noise_psnr(voxels, (0, 255)) == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize("shape", [(10, 10, 10), (1, 2, 2)])
def test_a_stack_without_noise_leaves_everything_to_reach(shape: tuple[int, int, int]) -> None:
    assert noise_psnr(np.full(shape, 7.0), (0, 10)) == np.inf


def test_what_the_noise_leaves_is_said_where_it_is_known() -> None:
    assert noise_leaves(51.04) == " (noise leaves 51.0)"
    assert noise_leaves(51.04, 2) == " (noise leaves 51.04)"
    assert noise_leaves(float("nan")) == noise_leaves(None) == ""
