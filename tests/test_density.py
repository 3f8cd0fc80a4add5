"""Relocation moves what does least to where most is missing, where that wins something."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_gaussfit.density import energies, relocate
from napari_gaussfit.field import GaussianField

SHAPE, SPACING = (12, 30, 30), (0.3, 0.1, 0.1)
WEAK = [2, 5]


def make_field() -> GaussianField:
    """Ten Gaussians of amplitude 0.5, but for two that add next to nothing."""
    rng = np.random.default_rng(0)
    means = rng.uniform(0, 1, (10, 3)) * SHAPE * SPACING
    sigmas = np.tile(2.0 * np.diag(SPACING), (10, 1, 1))
    amplitudes = np.full(10, 0.5)
    amplitudes[WEAK] = 1e-4
    return GaussianField.from_covariances(means, sigmas @ sigmas, amplitudes)


@pytest.fixture
def field() -> GaussianField:
    return make_field()


def residual_at(place: tuple[int, int, int], height: float = 0.6) -> np.ndarray:
    """A blob of two voxels' sigma that the field lacks."""
    offsets = np.stack(np.indices(SHAPE), -1) - place
    return (height * np.exp(-0.5 * (offsets**2).sum(-1) / 4)).astype(np.float32)


def test_energy_is_in_proportion_to_the_integral_of_the_square(field: GaussianField) -> None:
    covariances = field.covariances.double().numpy()
    integral = np.pi**1.5 * np.sqrt(np.linalg.det(covariances)) * field.amplitudes.numpy() ** 2
    np.testing.assert_allclose(energies(field) * np.pi**1.5, integral, rtol=1e-4)


def test_the_weakest_go_to_where_the_residual_is(field: GaussianField) -> None:
    before = field.detached()
    moved = relocate(field, residual_at((6, 20, 11)), SPACING, 0.2, np.random.default_rng(1))
    assert sorted(moved.tolist()) == WEAK
    away = np.abs(field.means[moved].numpy() / SPACING - (6, 20, 11)).max()
    assert away < 6, f"{away:.1f} voxels from the blob's centre"
    assert (field.amplitudes[moved] > 0.01).all()
    kept = [k for k in range(10) if k not in WEAK]
    for name in ("means", "cholesky", "amplitudes"):
        assert torch.equal(getattr(field, name)[kept], getattr(before, name)[kept]), name
    assert len(field) == len(before)


def test_what_is_put_down_does_not_exceed_the_residual(field: GaussianField) -> None:
    residual = residual_at((6, 20, 11))
    moved = relocate(field, residual, SPACING, 0.2, np.random.default_rng(1))
    assert float(field.amplitudes[moved].max()) <= residual.max()


def test_moving_lowers_the_squared_residual(field: GaussianField) -> None:
    target = field.voxelise(SHAPE, SPACING).numpy() + residual_at((6, 20, 11))
    before = np.square(target - field.voxelise(SHAPE, SPACING).numpy()).sum()
    relocate(
        field,
        target - field.voxelise(SHAPE, SPACING).numpy(),
        SPACING,
        0.1,
        np.random.default_rng(1),
    )
    after = np.square(target - field.voxelise(SHAPE, SPACING).numpy()).sum()
    assert after < before, f"from {before:.3g} to {after:.3g}"


@pytest.mark.parametrize(
    "residual",
    [np.zeros(SHAPE, np.float32), np.full(SHAPE, -0.3, np.float32), residual_at((6, 20, 11), 1e-5)],
    ids=["none", "negative", "fainter than what would be given up"],
)
def test_nothing_moves_where_nothing_is_to_win(residual: np.ndarray) -> None:
    field, before = make_field(), make_field()
    moved = relocate(field, residual, SPACING, 0.5, np.random.default_rng(1))
    assert len(moved) == 0, f"{len(moved)} moved"
    assert torch.equal(field.means, before.means)
    assert torch.equal(field.amplitudes, before.amplitudes)


def test_no_more_move_than_the_fraction_allows(field: GaussianField) -> None:
    strong = residual_at((6, 20, 11), 1e4)
    assert len(relocate(field, strong, SPACING, 0.3, np.random.default_rng(1))) == 3
    assert len(relocate(field, strong, SPACING, 0.0, np.random.default_rng(1))) == 0


def test_the_same_draw_moves_the_same_to_the_same_places() -> None:
    residual = residual_at((6, 20, 11))
    fields = [make_field() for _ in range(3)]
    for field, seed in zip(fields, (1, 1, 2), strict=True):
        relocate(field, residual, SPACING, 0.2, np.random.default_rng(seed))
    assert torch.equal(fields[0].means, fields[1].means)
    assert not torch.equal(fields[0].means, fields[2].means)
