"""A stack is valid once it is made: what an array must be, and what a stack then promises."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
from one_line import message_of

from napari_gaussfit.errors import (
    SettingsError,
    StackError,
)
from napari_gaussfit.stacks.stack import Stack

if TYPE_CHECKING:
    from pathlib import Path


RAMP = np.arange(24).reshape(2, 3, 4)


@pytest.mark.parametrize("seed", range(8))
def test_a_stack_says_the_truth_about_its_array(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = tuple(int(length) for length in rng.integers(2, 9, 3))
    spacing = rng.uniform(0.01, 3, 3)
    voxels = rng.normal(size=shape)
    stack = Stack.from_array(voxels, spacing=spacing, name="noise")
    assert stack.shape == shape
    assert stack.spacing == pytest.approx(tuple(spacing))
    assert stack.value_range == (voxels.min(), voxels.max())
    assert stack.nbytes == voxels.nbytes
    assert (stack.unit, stack.spacing_known, stack.name) == ("micrometer", True, "noise")
    assert stack.notes == ()
    lower, upper = stack.box
    assert lower.dtype == upper.dtype == np.float64
    np.testing.assert_allclose(upper - lower, np.array(shape) * spacing)


def test_the_box_ends_half_a_voxel_beyond_the_outer_centres() -> None:
    lower, upper = Stack.from_array(RAMP, spacing=(0.4, 0.2, 0.1)).box
    np.testing.assert_allclose(lower, (-0.2, -0.1, -0.05))
    np.testing.assert_allclose(upper, (0.6, 0.5, 0.35))


def test_without_a_spacing_lengths_are_in_pixels_and_a_note_says_so() -> None:
    stack = Stack.from_array(RAMP)
    assert (stack.spacing, stack.unit, stack.spacing_known) == ((1, 1, 1), "pixel", False)
    [note] = stack.notes
    assert "spacing=" in note
    assert "--spacing" in note


@pytest.mark.parametrize(
    ("unit", "micrometers"),
    [
        ("micrometer", 1),
        ("micron", 1),
        ("um", 1),
        ("µm", 1),
        ("μm", 1),
        ("\\u00B5m", 1),
        ("\u00c2\u00b5m", 1),
        ("micrometres", 1),
        ("nm", 1e-3),
        ("nanometer", 1e-3),
        ("mm", 1e3),
        ("Millimeter", 1e3),
        ("cm", 1e4),
        ("inch", 25400),
        ("inches", 25400),
        ("Å", 1e-4),
        ("m", 1e6),
    ],
)
def test_a_spacing_in_any_unit_of_length_becomes_micrometers(unit: str, micrometers: float) -> None:
    stack = Stack.from_array(RAMP, spacing=(3, 2, 1), unit=unit)
    assert stack.spacing == pytest.approx((3 * micrometers, 2 * micrometers, micrometers))
    assert stack.unit == "micrometer"


def test_a_spacing_in_pixels_stays_in_pixels() -> None:
    stack = Stack.from_array(RAMP, spacing=(3, 1, 1), unit="pixel")
    assert (stack.spacing, stack.unit, stack.spacing_known) == ((3, 1, 1), "pixel", False)


def test_what_is_no_unit_of_length_is_refused() -> None:
    with pytest.raises(SettingsError) as error:
        Stack.from_array(RAMP, spacing=(1, 1, 1), unit="furlong")
    assert "unit='furlong'" in message_of(error)


@pytest.mark.parametrize(
    ("spacing", "said"),
    [
        ((0, 1, 1), "dz is 0"),
        ((1, -0.5, 1), "dy is -0.5"),
        ((1, 1, float("nan")), "dx is nan"),
        ((1, 1, float("inf")), "dx is inf"),
        ((1, 1), "2 numbers"),
        ((1, 1, 1, 1), "4 numbers"),
        (("a", 1, 1), "not three numbers"),
        (3, "not three numbers"),
    ],
)
def test_a_wrong_spacing_is_refused_by_field_and_value(spacing: Any, said: str) -> None:
    with pytest.raises(SettingsError) as error:
        Stack.from_array(RAMP, spacing=spacing)
    assert said in message_of(error)
    assert "--spacing 0.2 0.1 0.1" in message_of(error)


def test_errors_are_builtin_errors_too(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Stack.open(tmp_path / "absent.tif")
    with pytest.raises(ValueError, match="expected three axes"):
        Stack.from_array(np.zeros((3, 4)))


@pytest.mark.parametrize(
    ("spacing", "unit", "said"),
    [
        ((0.2, 0.1, 1e-5), "micrometer", "1e-05 micrometer is less than a nanometer"),
        ((500, 130, 130), "millimeter", "5e+05 micrometer is more than a millimeter"),
        ((500, 130, 130), "nm", None),
        ((200, 1.5, 1.5), "um", "one side is 133 times another"),
        ((100, 1, 1), "pixel", None),
        ((101, 1, 1), "pixel", "one side is 101 times another"),
        ((1e-9, 1e-9, 1e-9), "pixel", None),
    ],
)
def test_a_spacing_that_no_voxel_has_is_taken_with_a_word(
    spacing: Any, unit: str, said: str | None
) -> None:
    notes = Stack.from_array(RAMP, spacing=spacing, unit=unit).notes
    assert [said in note for note in notes] == ([True] if said else [])


def test_making_a_stack_imports_no_file_format() -> None:
    program = (
        "import sys, numpy, napari_gaussfit.stacks.stack as s;"
        "s.Stack.from_array(numpy.arange(8).reshape(2, 2, 2));"
        "print(sorted({'tifffile', 'torch', 'numba', 'scipy', 'napari'} & set(sys.modules)))"
    )
    said = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert said.stdout.strip() == "[]"


@pytest.mark.parametrize("size", [1e-200, 1e-37, 1e30, 1e300])
def test_a_spacing_that_nothing_can_be_computed_with_is_refused_unless_one_is_given(
    size: float, tmp_path: Path
) -> None:
    path = tmp_path / "stack.ome.tif"
    sizes = {f"PhysicalSize{axis}": size for axis in "XYZ"}
    options = {"photometric": "minisblack", "metadata": {"axes": "ZYX", **sizes}}
    tifffile.imwrite(path, RAMP.astype(np.int32), **options)
    with pytest.raises(StackError) as error:
        Stack.open(path)
    assert f"dz is {size:g}" in message_of(error)
    assert "--spacing" in message_of(error)
    assert Stack.open(path, spacing=(0.3, 0.1, 0.1)).spacing == (0.3, 0.1, 0.1)


def test_a_spacing_of_a_millionth_and_of_a_milliard_is_one() -> None:
    for size in (1e-6, 1e9):
        assert Stack.from_array(RAMP, spacing=(size, size, size)).spacing == (size, size, size)
