"""Relocation moves what is missed least to where most is missing, where that wins something."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_gaussfit.fitting.relocation import relocate, removal_costs, sites
from napari_gaussfit.model.field import GaussianField

SHAPE, SPACING = (14, 32, 32), (0.3, 0.1, 0.1)
VOXEL = float(np.prod(SPACING))
WEAK = [2, 5]


def make_field(count: int = 10, seed: int = 0) -> GaussianField:
    """Gaussians of amplitude 0.5, but for two that add next to nothing."""
    rng = np.random.default_rng(seed)
    means = rng.uniform(0.2, 0.8, (count, 3)) * SHAPE * SPACING
    sigmas = np.tile(1.5 * np.diag(SPACING), (count, 1, 1))
    amplitudes = np.full(count, 0.5)
    amplitudes[WEAK] = 1e-4
    return GaussianField.from_covariances(means, sigmas @ sigmas, amplitudes)


def blob(place: tuple[int, int, int], height: float = 0.6) -> np.ndarray:
    """What the field lacks: a blob with a sigma of two voxels."""
    offsets = np.stack(np.indices(SHAPE), -1) - place
    return (height * np.exp(-0.5 * (offsets**2).sum(-1) / 4)).astype(np.float32)


def squared(volume: torch.Tensor | np.ndarray) -> float:
    return float(np.square(np.asarray(volume, np.float64)).sum())


def test_a_cost_is_what_is_lost_when_all_others_are_solved_anew() -> None:
    field = make_field()
    costs, neighbours, shares = removal_costs(field)
    columns = np.stack(
        [
            field.select(torch.tensor([k])).voxelise(SHAPE, SPACING, tolerance=1e-9).numpy().ravel()
            for k in range(len(field))
        ],
        1,
    ).astype(np.float64)
    for k in range(len(field)):
        others = np.delete(columns, k, 1)
        solution = np.linalg.lstsq(others, columns[:, k], rcond=None)[0]
        lost = squared(columns[:, k] - others @ solution)
        found = float(costs[k]) / VOXEL
        # Voxels sample the integral, and its tails leave the box.
        assert found == pytest.approx(lost, rel=0.05), f"{k}: {found:.4g}, lost {lost:.4g}"
        unit = columns / field.amplitudes.double().numpy()
        taken = squared(unit[:, k] - unit[:, neighbours[k]] @ shares[k].numpy())
        assert taken * float(field.amplitudes[k]) ** 2 == pytest.approx(lost, rel=0.05)


def test_one_of_two_copies_costs_nothing() -> None:
    field = make_field()
    copies = field.select(torch.tensor([0, 0, 1, 3]))
    costs, _, _ = removal_costs(copies)
    assert float(costs[:2].max()) < 1e-4 * float(costs[2:].min())


def test_a_site_has_the_place_the_width_and_the_height_of_what_is_missing() -> None:
    found = sites(blob((6, 20, 11)), 3)
    assert found.voxels[0].tolist() == [6, 20, 11]
    assert found.amplitudes[0] == pytest.approx(0.6, rel=0.25)
    assert found.gains[0] == pytest.approx(squared(blob((6, 20, 11))), rel=0.1)
    assert (np.diff(found.gains) <= 0).all()


def test_a_gain_is_what_is_won() -> None:
    residual = blob((6, 20, 11)) + 0.2 * np.random.default_rng(0).standard_normal(SHAPE)
    best = sites(residual.astype(np.float32), 1)
    offsets = (np.stack(np.indices(SHAPE), -1) - best.voxels[0]) / best.sigmas[0]
    added = best.amplitudes[0] * np.exp(-0.5 * (offsets**2).sum(-1))
    won = squared(residual) - squared(residual - added)
    assert best.gains[0] == pytest.approx(won, rel=0.05)


def test_the_least_missed_go_to_where_the_residual_is() -> None:
    field, before = make_field(), make_field()
    moved = relocate(field, blob((6, 20, 11)), SPACING, 1)
    assert moved.tolist()[0] in WEAK
    assert len(moved) == 1
    assert field.means[moved[0]].numpy() / SPACING == pytest.approx((6, 20, 11), abs=1e-3)
    kept = [k for k in range(10) if k not in WEAK]
    assert torch.equal(field.means[kept], before.means[kept])
    assert torch.equal(field.cholesky[kept], before.cholesky[kept])
    assert len(field) == len(before)


def test_a_slab_of_a_stack_lies_where_its_planes_do() -> None:
    field = make_field()
    moved = relocate(field, blob((6, 20, 11))[3:10], SPACING, 1, first_plane=3)
    assert field.means[moved[0]].numpy() / SPACING == pytest.approx((6, 20, 11), abs=1e-3)


@pytest.mark.parametrize("most", [2, 6, 12])
def test_moving_lowers_the_squared_residual(most: int) -> None:
    field = make_field(20)
    missing = blob((6, 20, 11)) + blob((9, 8, 22), 0.4) + blob((3, 25, 25), 0.2)
    target = field.voxelise(SHAPE, SPACING).numpy() + missing
    before = squared(missing)
    moved = relocate(field, missing, SPACING, most)
    after = squared(target - field.voxelise(SHAPE, SPACING).numpy())
    assert len(moved) > 0
    assert after < before, f"from {before:.3g} to {after:.3g}"


@pytest.mark.parametrize(
    "residual",
    [np.zeros(SHAPE, np.float32), np.full(SHAPE, -0.3, np.float32), blob((6, 20, 11), 1e-6)],
    ids=["none", "negative", "fainter than what would be given up"],
)
def test_nothing_moves_where_nothing_is_to_win(residual: np.ndarray) -> None:
    field, before = make_field(), make_field()
    moved = relocate(field, residual, SPACING, 5)
    assert len(moved) == 0, f"{len(moved)} moved"
    assert torch.equal(field.means, before.means)
    assert torch.equal(field.amplitudes, before.amplitudes)


def test_no_more_move_than_are_allowed() -> None:
    rng = np.random.default_rng(3)
    strong = (1e3 * rng.standard_normal(SHAPE)).astype(np.float32)
    assert len(relocate(make_field(), strong, SPACING, 3)) == 3
    assert len(relocate(make_field(), strong, SPACING, 0)) == 0


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_stay_where_they_are(count: int) -> None:
    field = make_field().select(torch.arange(count))
    assert len(relocate(field, blob((6, 20, 11)), SPACING, count)) == 0


def test_gaussians_that_are_kept_stay_where_they_are() -> None:
    residual = np.zeros((20, 20, 20), np.float32)
    residual[10, 10, 10] = 10.0
    field = GaussianField.from_gaussians(
        [((3.0 + n, 4.0, 5.0), 0.5 * np.eye(3), 1e-3) for n in range(8)]
    )
    before = field.detached()
    moved = relocate(field, residual, (1, 1, 1), 4, kept=5)
    assert len(moved), "something goes where light is missing"
    assert min(moved.tolist()) >= 5
    assert torch.equal(field.means[:5], before.means[:5])
    none = relocate(before, residual, (1, 1, 1), 4, kept=8)
    assert not len(none)
