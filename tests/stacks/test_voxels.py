"""Voxels are kept as they were recorded, or refused with what was found."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from one_line import message_of

from napari_gaussfit.errors import (
    SettingsError,
    StackError,
)
from napari_gaussfit.stacks.stack import Stack

if TYPE_CHECKING:
    from numpy.typing import DTypeLike


RAMP = np.arange(24).reshape(2, 3, 4)


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


def test_large_offsets_stay_to_the_last_digit() -> None:
    """What float32 would round away."""
    for voxels in (RAMP.astype(np.int64) + 2**62, RAMP + 1e12):
        stack = Stack.from_array(voxels)
        assert stack.voxels.dtype == voxels.dtype
        np.testing.assert_array_equal(stack.voxels, voxels)
