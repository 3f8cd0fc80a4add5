"""Gaussians are added where noise cannot explain what is missing, and taken away where it can."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from napari_gaussfit.fitting.evidence import LEAST_GROWTH, NoiseLeft, Recount, price, recount
from napari_gaussfit.model.field import GaussianField

SHAPE, SPACING = (16, 40, 36), (0.5, 0.2, 0.2)
BACKGROUND, NOISE = 20.0, 2.0


def made_of(
    places: list[tuple[float, float, float]],
    sigma: tuple[float, float, float] = (1.6, 1.8, 1.8),
    height: float = 12.0,
) -> GaussianField:
    """Gaussians at places in voxels, of widths in voxels."""
    cholesky = np.zeros((len(places), 6), np.float32)
    cholesky[:, [0, 2, 5]] = np.log(np.multiply(sigma, SPACING))
    means = np.asarray(places).reshape(-1, 3) * SPACING
    return GaussianField(
        torch.from_numpy(means.astype(np.float32)),
        torch.from_numpy(cholesky),
        torch.full((len(places),), height),
        BACKGROUND,
    )


def recorded(truth: GaussianField, seed: int = 1, noise: float = NOISE) -> np.ndarray:
    rng = np.random.default_rng(seed)
    light = truth.voxelise(SHAPE, SPACING).numpy()
    return (light + rng.normal(0.0, noise, SHAPE)).astype(np.float32)


def counted_anew(
    field: GaussianField, voxels: np.ndarray, room: int = 1000, kept: int = 0
) -> tuple[Recount, GaussianField]:
    """A recount, and the field with those that took over from others."""
    own = field.means.clone(), field.cholesky.clone(), field.amplitudes[None].clone()
    light = field.voxelise(SHAPE, SPACING).numpy()
    found = recount(
        own, [voxels - light], [light], SPACING, voxels=voxels.size, room=room, kept=kept
    )
    return found, GaussianField(own[0], own[1], own[2][0], BACKGROUND)


def test_noise_beside_a_smooth_misfit_is_the_noise() -> None:
    rng = np.random.default_rng(1)
    light = (40 + 30 * np.sin(np.indices((30, 60, 60)).sum(0) / 15)).astype(np.float32)
    noisy = (rng.poisson(light) - light).astype(np.float32)
    misfit = (4 * np.sin(np.indices(light.shape)[2] / 12)).astype(np.float32)
    # What is darker than the mean error is not told apart; brighter light is.
    bright = light > 50
    for residual in (noisy, noisy + misfit):
        variance = NoiseLeft.of(residual, light).deviations(light[bright]) ** 2
        np.testing.assert_allclose(variance, light[bright], rtol=0.06)


def test_noise_is_never_none() -> None:
    nothing = np.zeros((4, 5, 6), np.float32)
    assert NoiseLeft.of(nothing, nothing).deviations(nothing).min() > 0


def test_noise_alone_is_given_no_gaussians() -> None:
    empty = made_of([(8, 20, 18)], height=1e-6)
    for seed in range(1, 21):
        found, _ = counted_anew(empty, recorded(empty, seed))
        assert len(found.added[0]) == found.waiting == 0


def test_what_noise_cannot_explain_is_given_one() -> None:
    there = (7.0, 25.0, 12.0)
    found, _ = counted_anew(made_of([(8, 5, 30)]), recorded(made_of([(8, 5, 30), there])))
    means, cholesky, amplitudes = found.added
    assert len(means) == 1
    assert found.waiting == 0
    np.testing.assert_allclose(means[0].numpy() / SPACING, there, atol=1.01)
    assert 4 < float(amplitudes[0, 0]) < 30
    widths = np.exp(cholesky[0, [0, 2, 5]].numpy()) / SPACING
    assert ((widths > 0.7) & (widths < 4.1)).all()


def test_what_noise_may_explain_is_given_none() -> None:
    known = made_of([(8, 5, 30)])
    found, _ = counted_anew(known, recorded(_joined(known, made_of([(7, 25, 12)], height=0.8))))
    assert len(found.added[0]) == 0


def test_gaussians_that_describe_noise_are_taken_away() -> None:
    real, noise = made_of([(8, 20, 18)]), made_of([(4, 8, 8), (12, 32, 28)], height=0.4)
    found, _ = counted_anew(_joined(real, noise), recorded(real))
    assert found.stay.tolist() == [0]


def test_given_gaussians_stay() -> None:
    real, given = made_of([(8, 20, 18)]), made_of([(4, 8, 8)], height=0.4)
    found, field = counted_anew(_joined(given, real), recorded(real), kept=1)
    assert found.stay.tolist() == [0, 1]
    assert torch.equal(field.amplitudes[:1], given.amplitudes)


def test_one_stays_where_there_is_nothing_but_noise() -> None:
    noise = made_of([(4, 8, 8), (12, 32, 28)], height=0.01)
    found, _ = counted_anew(noise, recorded(made_of([])))
    assert len(found.stay) == 1


def test_one_stands_for_two_halves_of_a_spot() -> None:
    truth = made_of([(8, 20, 18)])
    halves = made_of([(8, 20, 17.0), (8, 20, 19.0)], (1.6, 1.8, 1.5), height=6.6)
    found, field = counted_anew(halves, recorded(truth))
    assert len(found.stay) == len(found.changed) == 1
    one = int(found.changed[0])
    np.testing.assert_allclose(field.means[one].numpy() / SPACING, (8, 20, 18), atol=0.05)
    np.testing.assert_allclose(
        field.covariances[one].numpy(), truth.covariances[0].numpy(), rtol=0.05, atol=0.003
    )
    light = [f.voxelise(SHAPE, SPACING).numpy() for f in (field.select(found.stay), halves)]
    assert np.abs(light[0] - light[1]).max() < 0.08 * (light[1].max() - BACKGROUND)


def test_two_spots_stay_two() -> None:
    two = made_of([(8, 20, 12), (8, 20, 18)])
    found, _ = counted_anew(two, recorded(two))
    assert len(found.stay) == 2
    assert len(found.changed) == 0


def test_no_more_are_added_than_there_is_room_for() -> None:
    places = [(z, y, x) for z in (4, 12) for y in (6, 20, 34) for x in (4, 18, 32)]
    voxels = recorded(made_of(places, height=40.0))
    begun = made_of(places[:1], height=40.0)
    free, _ = counted_anew(begun, voxels)
    assert (len(free.added[0]), free.waiting) == (17, 0)
    full, _ = counted_anew(begun, voxels, room=5)
    assert (len(full.added[0]), full.waiting) == (4, 13)


def test_a_field_grows_by_a_part_of_itself_at_once() -> None:
    places = [(z, y, x) for z in (4, 12) for y in range(4, 40, 14) for x in range(4, 36, 14)]
    begun = made_of(places[:1], height=40.0)
    light = begun.voxelise(SHAPE, SPACING).numpy()
    tall = np.concatenate([recorded(made_of(places, height=40.0)) for _ in range(2)])
    fitted = np.concatenate([light, np.full_like(light, BACKGROUND)])
    own = begun.means.clone(), begun.cholesky.clone(), begun.amplitudes[None].clone()
    found = recount(own, [tall - fitted], [fitted], SPACING, voxels=tall.size, room=1000)
    assert len(found.added[0]) == LEAST_GROWTH
    assert found.waiting > 0


def test_a_spot_in_one_of_two_channels_counts() -> None:
    base = made_of([(8, 5, 30)])
    other = recorded(made_of([(8, 5, 30), (7, 25, 12)]), 3)
    own = base.means.clone(), base.cholesky.clone(), base.amplitudes.expand(2, 1).clone()
    light = base.voxelise(SHAPE, SPACING).numpy()
    residuals = [recorded(base) - light, other - light]
    found = recount(own, residuals, [light, light], SPACING, voxels=light.size, room=9)
    assert found.added[2].shape == (2, 1)
    dark, bright = found.added[2][:, 0].tolist()
    assert bright > 2
    assert abs(dark) < bright / 3


def test_the_price_is_what_the_best_of_many_places_wins() -> None:
    assert price(100_000) == pytest.approx(10 + 2 * math.log(100_000))


def _joined(one: GaussianField, other: GaussianField) -> GaussianField:
    return GaussianField(
        torch.cat([one.means, other.means]),
        torch.cat([one.cholesky, other.cholesky]),
        torch.cat([one.amplitudes, other.amplitudes]),
        one.background,
    )
