"""What a stack is made of is found: places, widths, orientations and brightness."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_gaussfit.fitting.fit import fit
from napari_gaussfit.fitting.result import FitResult
from napari_gaussfit.settings import FitSettings
from napari_gaussfit.synthetic.phantoms import Phantom, separated
from napari_gaussfit.synthetic.recovery import errors_of, errors_under_noise


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    """Fifty Gaussians apart from each other, without noise."""
    return separated(count=50)


@pytest.fixture(scope="module")
def result(phantom: Phantom) -> FitResult:
    return fit(
        phantom.stack, FitSettings(exactly=True, gaussians=len(phantom.truth), views=8, held_out=2)
    )


def test_centres_are_found_within_a_fiftieth_of_a_voxel(
    result: FitResult, phantom: Phantom
) -> None:
    voxel = torch.tensor(phantom.stack.spacing)
    away = (result.field.means[:, None] - phantom.truth.means).abs() / voxel
    nearest = away.amax(-1).min(0)
    assert len(nearest.indices.unique()) == 50, "each has a Gaussian of its own"
    worst = float(nearest.values.max())
    assert worst < 0.02, f"a centre is {worst:.4f} voxels off"


@pytest.mark.parametrize("quantity", ["width", "amplitude"])
def test_widths_and_amplitudes_are_found_within_a_hundredth(
    result: FitResult, phantom: Phantom, quantity: str
) -> None:
    errors = errors_of(result.field, phantom.truth)[quantity]
    assert len(errors) == 50
    worst = errors.max()
    assert worst < 0.01, f"one {quantity} is {worst:.2%} off"


def test_the_background_is_found(result: FitResult, phantom: Phantom) -> None:
    off = abs(result.field.background - phantom.truth.background) / np.ptp(phantom.stack.voxels)
    assert off < 1e-4, f"off by {off:.1e} of the range"


def test_brightness_in_all_is_found(result: FitResult, phantom: Phantom) -> None:
    found, true = (f.integrated_intensities().sum() for f in (result.field, phantom.truth))
    assert float(found / true) == pytest.approx(1.0, abs=0.005)


def test_errors_grow_with_the_noise() -> None:
    quick = FitSettings(views=8, held_out=2, iterations=300)
    table = errors_under_noise([None, 500.0, 50.0], quick)
    assert table["photons"].isna().tolist() == [True, False, False]
    for quantity in ("centre", "width", "amplitude"):
        values = table[quantity].to_numpy()
        assert (np.diff(values) > 0).all(), f"{quantity}: medians {values}"
        assert (table[quantity] <= table[f"{quantity}_95"]).all()
        assert (table[f"{quantity}_95"] <= table[f"{quantity}_worst"]).all()
    assert table["centre"].iloc[1] < 0.1, "with good light, a tenth of a voxel"
