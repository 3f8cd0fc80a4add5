"""Neither the unit nor the camera's offset decides how good a fit is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_gaussfit.errors import SettingsError
from napari_gaussfit.fitting.fit import fit
from napari_gaussfit.model.scaling import WorkingStack
from napari_gaussfit.settings import FitSettings
from napari_gaussfit.stacks.stack import Stack
from napari_gaussfit.synthetic.phantoms import beads

if TYPE_CHECKING:
    from numpy.typing import NDArray

SETTINGS = FitSettings(exactly=True, gaussians=12, iterations=80, views=8, held_out=2)


@pytest.fixture(scope="module")
def voxels() -> NDArray[np.uint16]:
    recorded: NDArray[np.uint16] = beads(count=4, shape=(14, 32, 32)).stack.voxels
    return recorded


@pytest.fixture(scope="module")
def expected(voxels: NDArray[np.uint16]) -> tuple[float, float, float]:
    return figures(Stack.from_array(voxels, spacing=(0.3, 0.1, 0.1)))


def figures(stack: Stack) -> tuple[float, float, float]:
    report = fit(stack, SETTINGS).report
    return report.heldout_mip_psnr, report.voxel_psnr, report.consistency_psnr


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1e9])
def test_a_spacing_of_any_size_gives_the_same_fit(
    voxels: NDArray[np.uint16], expected: tuple[float, float, float], scale: float
) -> None:
    spacing = (0.3 * scale, 0.1 * scale, 0.1 * scale)
    found = figures(Stack.from_array(voxels, spacing=spacing))
    assert found == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize(
    ("kind", "offset"),
    [
        pytest.param(np.float64, 1e9, id="float64 and 1e9"),
        pytest.param(np.float64, 1e12, id="float64 and 1e12"),
        pytest.param(np.float64, -1e9, id="float64 and -1e9"),
        pytest.param(np.int64, 2**62, id="int64 and 2^62"),
        pytest.param(np.int64, -(2**62), id="int64 and -2^62"),
        pytest.param(np.uint64, 2**63, id="uint64 and 2^63"),
        pytest.param(np.int32, -(2**31), id="int32 and -2^31"),
    ],
)
def test_an_offset_of_any_size_gives_the_same_fit(
    voxels: NDArray[np.uint16], expected: tuple[float, float, float], kind: type, offset: float
) -> None:
    lifted = voxels.astype(kind) + kind(offset)
    found = figures(Stack.from_array(lifted, spacing=(0.3, 0.1, 0.1)))
    assert found == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize("factor", [1e-30, 1e30])
def test_intensities_of_any_size_give_the_same_fit(
    voxels: NDArray[np.uint16], expected: tuple[float, float, float], factor: float
) -> None:
    found = figures(Stack.from_array(voxels * factor, spacing=(0.3, 0.1, 0.1)))
    assert found == pytest.approx(expected, abs=0.1)


def test_a_field_goes_into_working_units_and_back() -> None:
    phantom = beads(count=4, shape=(14, 32, 32))
    working = WorkingStack.of(phantom.stack)
    again = working.restored(working.scaled(phantom.truth))
    points = phantom.truth.means + 0.05
    np.testing.assert_allclose(
        again.evaluate(points).numpy(), phantom.truth.evaluate(points).numpy(), rtol=1e-5
    )
    assert again.background == pytest.approx(phantom.truth.background)
    assert again.unit == phantom.truth.unit


def test_a_stack_in_working_units_is_the_stack() -> None:
    stack = beads(count=4, shape=(14, 32, 32)).stack
    working = WorkingStack.of(stack)
    assert working.stack.value_range == (0.0, 1.0)
    assert min(working.stack.spacing) == 1.0
    np.testing.assert_allclose(
        np.multiply(working.stack.spacing, working.length), stack.spacing, rtol=1e-12
    )
    np.testing.assert_allclose(
        working.stack.voxels * working.range + working.lowest, stack.voxels, rtol=1e-4
    )


def test_photons_over_a_huge_offset_are_found_as_with_even_noise() -> None:
    """In single precision the likelihood of 10^6 ranges and the stack above lost 9 dB."""
    clean = beads(count=5, shape=(12, 24, 24), photons=None).stack
    voxels = clean.voxels.astype(np.float64) + 1e6 * float(np.ptp(clean.voxels))
    stack = Stack.from_array(voxels, spacing=clean.spacing)
    even, photons = (
        fit(
            stack, FitSettings(exactly=True, gaussians=10, quality="preview", loss=loss)
        ).report.voxel_psnr
        for loss in ("squared", "poisson")
    )
    assert photons > even - 0.5


def test_photons_of_a_stack_without_light_are_refused() -> None:
    clean = beads(count=5, shape=(12, 24, 24), photons=None).stack
    stack = Stack.from_array(clean.voxels.astype(np.float64) - 1e6, spacing=clean.spacing)
    with pytest.raises(SettingsError, match="loss='poisson': the stack's brightest voxel is -"):
        fit(stack, FitSettings(exactly=True, gaussians=10, loss="poisson"))
