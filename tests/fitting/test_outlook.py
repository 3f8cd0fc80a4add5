"""Before a fit it is said how many Gaussians a stack would carry, and what others would reach."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_gaussfit import FitSettings, Stack, fit, outlook, phantoms
from napari_gaussfit.fitting.outlook import WHOLE

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_gaussfit.synthetic.phantoms import Phantom

TRUTHS: dict[str, tuple[Callable[[], Phantom], int | None]] = {
    "beads": (lambda: phantoms.beads(count=20, shape=(24, 96, 96)), 20),
    "spots": (phantoms.spots, 48),
    "neurite, dim": (lambda: phantoms.neurite(photons=30.0, shape=(32, 96, 96)), None),
}


@pytest.mark.parametrize("name", TRUTHS)
def test_the_predicted_numbers_and_psnrs_are_those_of_fits(name: str) -> None:
    make, true_count = TRUTHS[name]
    stack = make().stack
    found = outlook(stack)
    known = true_count or fit(stack).report.gaussians
    assert abs(found.carried - known) <= 2 * found.carried_error
    assert found.carried_error <= 0.3 * known
    for count, psnr, error in zip(found.counts, found.psnr, found.psnr_error, strict=True):
        settings = FitSettings(gaussians=int(count), exactly=bool(count > found.carried))
        reached = fit(stack, settings).report.voxel_psnr
        assert abs(psnr - reached) <= 2 * error, f"{count}: {psnr:.2f} ± {error:.2f}, {reached:.2f}"


def test_what_twice_as_many_would_add_is_noise_and_what_as_many_add_is_not() -> None:
    found = outlook(phantoms.beads().stack)
    own = found.counts.tolist().index(found.carried)
    assert found.noise_share[own] < 0.1
    assert found.noise_share[-1] > 0.9
    assert "as many as the noise allows" in found.words
    assert "may be noise" in found.words


def test_a_large_stack_is_told_from_boxes_of_it() -> None:
    one = phantoms.spots(peak=100.0).stack  # 48 spots
    voxels = np.tile(one.voxels, (1, 4, 4))
    stack = replace(one, voxels=voxels)
    assert voxels.size > 3 * WHOLE
    found = outlook(stack)
    assert abs(found.carried - 16 * 48) <= 2 * found.carried_error
    assert "boxes" in found.looked_at


def test_the_same_is_predicted_each_time() -> None:
    stack = phantoms.beads(shape=(16, 48, 48)).stack
    one, other = outlook(stack), outlook(stack)
    np.testing.assert_array_equal(one.psnr, other.psnr)
    np.testing.assert_array_equal(one.counts, other.counts)


def test_noise_alone_carries_next_to_none() -> None:
    rng = np.random.default_rng(0)
    found = outlook(Stack.from_array(rng.poisson(50.0, (24, 64, 64)).astype(np.float32)))
    assert found.carried <= 2
