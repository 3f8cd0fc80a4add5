"""A field's numbers as arrays, and the same field as tensors."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from napari_gaussfit.errors import SettingsError
from napari_gaussfit.model.field import GaussianField
from napari_gaussfit.model.gaussians import Gaussians, counted

if TYPE_CHECKING:
    from pathlib import Path

COUNT = 7


@pytest.fixture
def gaussians() -> Gaussians:
    rng = np.random.default_rng(3)
    lower = np.tril(rng.normal(size=(COUNT, 3, 3)) * 0.3) + np.eye(3)
    return Gaussians.from_covariances(
        rng.uniform(0, 9, (COUNT, 3)),
        lower @ lower.transpose(0, 2, 1),
        rng.uniform(1, 9, COUNT),
        background=2.0,
        unit="pixel",
    )


def test_arrays_come_back_from_a_field_to_the_bit(gaussians: Gaussians) -> None:
    field = GaussianField.from_numpy(gaussians)
    assert field.numpy() is gaussians
    assert (len(field), field.background, field.unit) == (COUNT, 2.0, "pixel")
    assert field.means.dtype == torch.float32
    again = field.numpy()
    for name in ("means", "cholesky", "amplitudes"):
        np.testing.assert_array_equal(getattr(again, name), getattr(gaussians, name), err_msg=name)
    assert (again.background, again.unit, again.full_covariance) == (2.0, "pixel", True)


def test_arrays_say_of_shapes_what_tensors_say(gaussians: Gaussians) -> None:
    field = GaussianField.from_numpy(gaussians)
    np.testing.assert_allclose(field.factors, gaussians.factors, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(field.covariances, gaussians.covariances, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(field.principal()[0], gaussians.principal()[0], rtol=1e-6)
    np.testing.assert_allclose(field.fwhm(), gaussians.fwhm(), rtol=1e-6)
    integrals = gaussians.amplitudes * np.sqrt(np.linalg.det(2 * np.pi * gaussians.covariances))
    np.testing.assert_allclose(gaussians.integrated_intensities(), integrals, rtol=1e-6)


def test_what_is_learnt_in_place_counts_for_the_numbers(gaussians: Gaussians) -> None:
    field = GaussianField.from_numpy(gaussians)
    field.amplitudes.mul_(2.0)
    np.testing.assert_array_equal(field.numpy().amplitudes, 2 * gaussians.amplitudes)
    assert field.integrated_intensities()[0] == pytest.approx(
        2 * gaussians.integrated_intensities()[0]
    )


def test_a_field_shares_no_memory_with_the_arrays_it_was_made_of(gaussians: Gaussians) -> None:
    before = gaussians.means.copy()
    GaussianField.from_numpy(gaussians).means.zero_()
    np.testing.assert_array_equal(gaussians.means, before)


def test_without_full_covariance_axes_stay_along_z_y_x(gaussians: Gaussians) -> None:
    flat = replace(gaussians, full_covariance=False)
    off_diagonal = flat.covariances * (1 - np.eye(3))
    assert not off_diagonal.any()
    assert not GaussianField.from_numpy(flat).full_covariance


def test_arrays_that_do_not_belong_together_are_refused(gaussians: Gaussians) -> None:
    with pytest.raises(SettingsError, match=r"amplitudes has shape \(6,\), expected \(7,\)"):
        replace(gaussians, amplitudes=gaussians.amplitudes[:-1])


def test_a_field_says_in_a_line_what_it_is(gaussians: Gaussians) -> None:
    field = GaussianField.from_numpy(gaussians)
    assert repr(field) == "GaussianField(7 Gaussians, background=2, unit='pixel')"
    assert field.numpy() is gaussians


def test_a_field_has_no_attribute_that_it_does_not_have(gaussians: Gaussians) -> None:
    with pytest.raises(AttributeError, match="no attribute 'colour'"):
        GaussianField.from_numpy(gaussians).colour  # noqa: B018


def test_files_and_measurements_need_no_torch(tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, Blocked())
import numpy as np
from napari_gaussfit import FitResult, GaussianField, Stack, load
folder = Path(sys.argv[1])
field = GaussianField.from_covariances([[1, 2, 3]], [[[4, 1, 0], [1, 3, 0], [0, 0, 2]]], [5.0])
stack = Stack(np.zeros((9, 9, 9)), (1.0, 1.0, 1.0), "micrometer", "spot")
saved = FitResult((field,), stack.facts)
for suffix in (".safetensors", ".ply", ".csv"):
    saved.export(folder / f"fit{suffix}")
    fwhm = load(folder / f"fit{suffix}", stack).field.numpy().fwhm()
    np.testing.assert_allclose(fwhm, field.numpy().fwhm(), rtol=1e-5)
print("done")
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "done", done.stderr


@pytest.mark.parametrize(
    ("count", "said"), [(0, "0 Gaussians"), (1, "1 Gaussian"), (1234, "1,234 Gaussians")]
)
def test_one_is_said_to_be_one(count: int, said: str) -> None:
    assert counted(count) == said
