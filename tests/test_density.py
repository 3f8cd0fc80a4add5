"""Relocation moves what does least to where most is missing, where that wins something.

Splitting, cloning and pruning share brightness, and say where each row came from.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_gaussfit.density import clone, energies, prune, relocate, split
from napari_gaussfit.errors import SettingsError
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


@pytest.fixture
def long_ones() -> GaussianField:
    """Six Gaussians, longest along y, of amplitudes 1 to 6."""
    means = np.random.default_rng(3).uniform(0.5, 2.5, (6, 3))
    covariances = np.tile(np.diag([0.04, 0.25, 0.01]), (6, 1, 1))
    return GaussianField.from_covariances(means, covariances, np.arange(1.0, 7.0), background=3.0)


@pytest.mark.notebook("densify-prune", api="density.split")
@pytest.mark.parametrize("parts", [2, 3])
def test_parts_of_a_split_share_amplitude_and_keep_brightness_and_middle(
    long_ones: GaussianField, parts: int
) -> None:
    grown, rows = split(long_ones, torch.tensor([1, 4]), parts=parts, spread=0.6)
    assert rows.source.tolist() == [0, 2, 3, 5, *[1] * parts, *[4] * parts]
    assert rows.fresh.tolist() == [False] * 4 + [True] * (2 * parts)
    assert torch.equal(grown.amplitudes[:4], long_ones.amplitudes[[0, 2, 3, 5]])
    np.testing.assert_allclose(grown.amplitudes[4:], [2 / parts] * parts + [5 / parts] * parts)
    before, after = (f.integrated_intensities().sum() for f in (long_ones, grown))
    assert float(after / before) == pytest.approx(1.0, rel=1e-6), "brightness is shared"
    for first, parent in ((4, 1), (4 + parts, 4)):
        places = grown.means[first : first + parts]
        np.testing.assert_allclose(places.mean(0), long_ones.means[parent], rtol=1e-6)
        extent = (places.amax(0) - places.amin(0)).numpy()
        np.testing.assert_allclose(extent, [0, 2 * 0.6 * 0.5, 0], atol=1e-6)
    assert grown.background == long_ones.background


@pytest.mark.notebook("densify-prune", api="density.clone")
def test_a_clone_leaves_the_sum_as_it_was(long_ones: GaussianField) -> None:
    grown, rows = clone(long_ones, long_ones.amplitudes > 4)
    assert rows.source.tolist() == [0, 1, 2, 3, 4, 5, 4, 5]
    assert rows.fresh.tolist() == [False] * 6 + [True] * 2
    np.testing.assert_allclose(grown.amplitudes, [1, 2, 3, 4, 2.5, 3, 2.5, 3])
    shape, spacing = (10, 20, 20), (0.3, 0.15, 0.15)
    before, after = (f.voxelise(shape, spacing) for f in (long_ones, grown))
    off = float((after - before).abs().max())
    assert off < 1e-5 * float(before.max()), f"the sum changes by {off:.1e}"


@pytest.mark.notebook("densify-prune", api="density.prune")
def test_the_dim_the_small_the_large_and_those_outside_are_pruned() -> None:
    sigmas = np.array([[0.2] * 3, [0.2] * 3, [0.2, 0.01, 0.2], [0.2, 0.2, 5.0], [0.2] * 3])
    means = np.array([[1.0, 1, 1], [1, 1, 1], [1, 1, 1], [1, 1, 1], [1, 3.1, 1]])
    covariances = np.stack([np.diag(s**2) for s in sigmas])
    field = GaussianField.from_covariances(means, covariances, [1.0, 0.1, 1, 1, 1])

    def kept(**limits: object) -> list[int]:
        pruned, rows = prune(field, **limits)  # type: ignore[arg-type]
        assert len(pruned) == len(rows.source)
        assert not rows.fresh.any()
        return list(rows.source.tolist())

    assert kept() == [0, 1, 2, 3, 4]
    assert kept(least_emission=0.5) == [0, 2, 3, 4]
    assert kept(sizes=(0.05, np.inf)) == [0, 1, 3, 4]
    assert kept(sizes=(0.0, 1.0)) == [0, 1, 2, 4]
    assert kept(box=([0, 0, 0], [3, 3, 3])) == [0, 1, 2, 3]
    assert kept(least_emission=0.5, sizes=(0.05, 1.0), box=([0, 0, 0], [3, 3, 3])) == [0]


def test_moments_move_with_their_gaussians(long_ones: GaussianField) -> None:
    moments = torch.arange(60.0).reshape(6, 10) + 1
    grown, rows = split(long_ones, torch.tensor([1]))
    carried = rows.carried(moments)
    assert torch.equal(carried[:5], moments[[0, 2, 3, 4, 5]])
    assert not carried[5:].any(), "an optimiser knows nothing of what is new"
    smaller, fewer = prune(grown, least_emission=3.5)
    assert torch.equal(fewer.carried(carried), moments[[3, 4, 5]])
    assert len(rows.carried(moments[:, 0])) == len(grown)
    assert len(smaller) == 3


def test_a_split_into_one_is_refused(long_ones: GaussianField) -> None:
    with pytest.raises(SettingsError, match="parts=1: expected 2 or more"):
        split(long_ones, torch.tensor([1]), parts=1)
