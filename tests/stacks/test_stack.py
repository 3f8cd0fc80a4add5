"""A stack is valid once it is made: what an array must be, and what a stack then promises."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile

from napari_gaussfit.errors import (
    GaussfitError,
    SettingsError,
    StackError,
    StackNotFoundError,
)
from napari_gaussfit.stacks.stack import Stack

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import DTypeLike

RAMP = np.arange(24).reshape(2, 3, 4)


def message_of(error: pytest.ExceptionInfo[GaussfitError]) -> str:
    text = str(error.value)
    assert "\n" not in text, "an error is one line"
    return text


@pytest.mark.parametrize(
    "dtype",
    ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8", ">u2", ">f4", "<i4"],
)
def test_any_integer_or_real_type_is_kept_in_native_byte_order(dtype: DTypeLike) -> None:
    voxels = RAMP.astype(dtype)
    stack = Stack.from_array(voxels)
    assert stack.voxels.dtype == np.dtype(dtype).newbyteorder("=")
    assert stack.voxels.dtype.isnative
    np.testing.assert_array_equal(stack.voxels, RAMP)


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


def test_a_native_array_is_not_copied() -> None:
    voxels = RAMP.astype(np.float32)
    assert np.shares_memory(Stack.from_array(voxels).voxels, voxels)


def test_a_transposed_view_becomes_contiguous() -> None:
    stack = Stack.from_array(RAMP.transpose(2, 1, 0))
    assert stack.voxels.flags.c_contiguous
    assert stack.shape == (4, 3, 2)


def test_booleans_become_zero_and_one() -> None:
    stack = Stack.from_array(RAMP > 4)
    assert stack.voxels.dtype == np.uint8
    assert stack.value_range == (0, 1)


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


@pytest.mark.parametrize(
    ("voxels", "said"),
    [
        (np.arange(12).reshape(3, 4), "3 x 4"),
        (np.arange(48).reshape(2, 2, 3, 4), "2 x 2 x 3 x 4"),
        (np.arange(12).reshape(1, 3, 4), "1 x 3 x 4"),
        (np.zeros((0, 3, 4)), "0 x 3 x 4"),
        (np.float32(3), "shape 1;"),
        (RAMP * 1j, "complex128"),
        (RAMP.astype(str), "<U"),
        (RAMP.astype(object), "object"),
        (np.full((2, 3, 4), 7), "7 in every voxel"),
        (np.full((2, 3, 4), np.nan), "every one of its 24 voxels is NaN"),
        (RAMP * 1e300, "beyond single precision"),
        (np.where(RAMP > 5, 3.4e38, -3.4e38).astype(np.float32), "beyond single precision"),
    ],
)
def test_what_cannot_be_fitted_is_refused_with_what_was_found(
    voxels: np.ndarray, said: str
) -> None:
    with pytest.raises(StackError) as error:
        Stack.from_array(voxels, name="bad.tif")
    assert message_of(error).startswith("bad.tif: ")
    assert said in message_of(error)


@pytest.mark.parametrize("seed", range(4))
def test_voxels_that_are_no_numbers_are_refused_with_their_count(seed: int) -> None:
    rng = np.random.default_rng(seed)
    voxels = rng.normal(size=(4, 5, 6)).astype(np.float32)
    count = int(rng.integers(1, 60))
    where = rng.choice(voxels.size, count, replace=False)
    voxels.flat[where] = rng.choice([np.nan, np.inf, -np.inf], count)
    with pytest.raises(StackError) as error:
        Stack.from_array(voxels)
    assert f"{count} of 120 voxels ({100 * count / 120:.3g} %)" in message_of(error)
    assert "--fill-nan" in message_of(error)

    filled = Stack.from_array(voxels, fill_nan=-2.5)
    assert (filled.voxels.flat[where] == -2.5).all()
    assert np.count_nonzero(filled.voxels != voxels) == count
    assert any(f"{count} of 120" in note for note in filled.notes)
    assert not np.isfinite(voxels.flat[where]).any(), "the caller's array was changed"


@pytest.mark.parametrize("fill", [float("nan"), float("inf"), 1e30])
def test_a_filling_value_that_is_no_number_of_the_stacks_type_is_refused(fill: float) -> None:
    voxels = RAMP.astype(np.float16)
    voxels[0, 0, 0] = np.nan
    with pytest.raises(SettingsError, match="fill_nan"):
        Stack.from_array(voxels, fill_nan=fill)


def test_errors_are_builtin_errors_too(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Stack.open(tmp_path / "absent.tif")
    with pytest.raises(ValueError, match="expected three axes"):
        Stack.from_array(np.zeros((3, 4)))


@pytest.mark.parametrize("name", ["absent.tif", "absent.png", "absent"])
def test_a_missing_file_is_said_to_be_missing(tmp_path: Path, name: str) -> None:
    with pytest.raises(StackNotFoundError) as error:
        Stack.open(tmp_path / name)
    assert message_of(error).startswith(f"{tmp_path / name}: there is no such file")


def test_a_file_of_another_kind_is_refused_with_the_suffixes_that_are_read(tmp_path: Path) -> None:
    path = tmp_path / "stack.h5"
    path.write_bytes(b"\x89HDF")
    with pytest.raises(StackError) as error:
        Stack.open(path)
    assert "'.h5'" in message_of(error)
    assert ".tiff" in message_of(error)


@pytest.mark.parametrize("suffix", [".czi", ".nd2", ".lif", ".ims", ".CZI"])
def test_a_microscopes_own_format_says_where_it_can_be_opened(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"stack{suffix}"
    path.write_bytes(b"ZISRAWFILE")
    with pytest.raises(StackError) as error:
        Stack.open(path)
    assert repr(suffix) in message_of(error)
    assert "open it in napari with a plugin that reads it and fit the layer" in message_of(error)
    assert "OME-TIFF" in message_of(error)


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


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="is a folder"):
        Stack.open(tmp_path)
    (tmp_path / "folder.tif").mkdir()
    with pytest.raises(StackError, match="is a folder"):
        Stack.open(tmp_path / "folder.tif")


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


def test_large_offsets_stay_to_the_last_digit() -> None:
    """What float32 would round away."""
    for voxels in (RAMP.astype(np.int64) + 2**62, RAMP + 1e12):
        stack = Stack.from_array(voxels)
        assert stack.voxels.dtype == voxels.dtype
        np.testing.assert_array_equal(stack.voxels, voxels)
