"""What a stack's voxels tell: background, noise, and how many Gaussians they ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_gaussfit.stacks.statistics import (
    SUGGESTION_LIMITS,
    estimate_background,
    smoothed,
    suggested_count,
)
from napari_gaussfit.synthetic.phantoms import beads, neurite, nuclei, separated

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_gaussfit.synthetic.phantoms import Phantom


@pytest.mark.parametrize("make", [neurite, beads, nuclei, separated])
def test_background_of_a_phantom_is_found(make: Callable[..., Phantom]) -> None:
    phantom = make(seed=2, photons=150)
    background, noise = estimate_background(phantom.stack.voxels)
    part = (background - phantom.truth.background) / np.ptp(phantom.stack.voxels)
    assert abs(part) < 0.01, f"off by {part:.2%} of the range"
    assert noise > 0


def test_background_and_noise_of_noise_alone() -> None:
    voxels = np.random.default_rng(0).normal(100, 8, (30, 60, 60)).astype(np.float32)
    background, noise = estimate_background(voxels)
    assert background == pytest.approx(100, abs=2.0)
    smooth = float(smoothed(voxels).std())
    assert noise == pytest.approx(smooth, rel=0.5), f"{noise:.2f}, smoothed noise is {smooth:.2f}"


def test_background_of_a_stack_without_noise_has_none() -> None:
    background, noise = estimate_background(np.full((9, 9, 9), 42, np.uint16))
    assert background == pytest.approx(42)
    assert noise == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("make", [neurite, beads, nuclei, separated])
def test_suggested_count_grows_with_the_signal_within_its_limits(
    make: Callable[..., Phantom],
) -> None:
    least, most = SUGGESTION_LIMITS
    phantom = make(photons=150)
    count = suggested_count(phantom.stack.voxels)
    assert least <= count <= most
    twice = suggested_count(np.concatenate([phantom.stack.voxels] * 4, axis=1))
    assert twice > 2 * count or count == least, f"{count}, and {twice} for four times the stack"


def test_noise_alone_asks_for_the_least() -> None:
    voxels = np.random.default_rng(0).normal(100, 8, (30, 60, 60))
    count = suggested_count(voxels.astype(np.float32))
    assert count == SUGGESTION_LIMITS[0], f"{count}"
