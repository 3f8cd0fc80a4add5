"""Splitting, cloning and pruning share brightness, and say where each row came from.

Means stay among the voxels.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_gaussfit.errors import SettingsError
from napari_gaussfit.model.field import GaussianField
from napari_gaussfit.synthetic.density import clone, prune, split


@pytest.fixture
def long_ones() -> GaussianField:
    """Six Gaussians, longest along y, of amplitudes 1 to 6."""
    means = np.random.default_rng(3).uniform(0.5, 2.5, (6, 3))
    covariances = np.tile(np.diag([0.04, 0.25, 0.01]), (6, 1, 1))
    return GaussianField.from_covariances(means, covariances, np.arange(1.0, 7.0), background=3.0)


@pytest.mark.notebook("densify-prune", api="synthetic.density.split")
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


@pytest.mark.notebook("densify-prune", api="synthetic.density.clone")
def test_a_clone_leaves_the_sum_as_it_was(long_ones: GaussianField) -> None:
    grown, rows = clone(long_ones, long_ones.amplitudes > 4)
    assert rows.source.tolist() == [0, 1, 2, 3, 4, 5, 4, 5]
    assert rows.fresh.tolist() == [False] * 6 + [True] * 2
    np.testing.assert_allclose(grown.amplitudes, [1, 2, 3, 4, 2.5, 3, 2.5, 3])
    shape, spacing = (10, 20, 20), (0.3, 0.15, 0.15)
    before, after = (f.voxelise(shape, spacing) for f in (long_ones, grown))
    off = float((after - before).abs().max())
    assert off < 1e-5 * float(before.max()), f"the sum changes by {off:.1e}"


@pytest.mark.notebook("densify-prune", api="synthetic.density.prune")
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
