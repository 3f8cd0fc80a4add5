"""What a stack is made of is found: places, widths, orientations and brightness."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_gaussfit.demo import errors_of
from napari_gaussfit.fitting import FitResult, fit
from napari_gaussfit.phantoms import Phantom, separated
from napari_gaussfit.settings import FitSettings


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    """Gaussians apart from each other, without noise."""
    return separated(count=12, shape=(40, 80, 80))


@pytest.fixture(scope="module")
def result(phantom: Phantom) -> FitResult:
    return fit(phantom.stack, FitSettings(gaussians=len(phantom.truth), views=8, held_out=2))


def test_centres_are_found_within_a_fiftieth_of_a_voxel(
    result: FitResult, phantom: Phantom
) -> None:
    voxel = torch.tensor(phantom.stack.spacing)
    away = (result.field.means[:, None] - phantom.truth.means).abs() / voxel
    worst = float(away.amax(-1).amin(0).max())
    assert worst < 0.02, f"a centre is {worst:.4f} voxels off"


@pytest.mark.parametrize("quantity", ["width", "amplitude"])
def test_widths_and_amplitudes_are_found_within_a_hundredth(
    result: FitResult, phantom: Phantom, quantity: str
) -> None:
    worst = errors_of(result.field, phantom.truth)[quantity].max()
    assert worst < 0.01, f"one {quantity} is {worst:.2%} off"


def test_the_background_is_found(result: FitResult, phantom: Phantom) -> None:
    off = abs(result.field.background - phantom.truth.background) / np.ptp(phantom.stack.voxels)
    assert off < 1e-4, f"off by {off:.1e} of the range"


def test_brightness_in_all_is_found(result: FitResult, phantom: Phantom) -> None:
    found, true = (f.integrated_intensities().sum() for f in (result.field, phantom.truth))
    assert float(found / true) == pytest.approx(1.0, abs=0.005)
