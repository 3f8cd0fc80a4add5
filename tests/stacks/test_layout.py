"""Which axis is which, which choices are open, and what was assumed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile

from napari_gaussfit.stacks.readers import read_layout
from napari_gaussfit.stacks.stack import Stack

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 4000, (5, 12, 10)).astype(np.uint16)
"""A stack without any symmetry that could hide a swap of axes."""

ALL_AXES = RNG.integers(0, 4000, (3, 5, 2, 12, 10)).astype(np.uint16)
"""T, Z, C, Y, X."""


def test_a_missing_choice_of_channel_and_time_is_asked_for_in_one_line(
    refusal: Callable[..., str],
    written: Callable[..., Path],
) -> None:
    path = written(
        ALL_AXES, ome=True, metadata={"axes": "TZCYX", "Channel": {"Name": ["DAPI", "GFP"]}}
    )
    text = refusal(path)
    assert "2 channels (0 DAPI, 1 GFP) and 3 time points" in text
    assert "channel=N (--channel N), N from 0 to 1, and time=N (--time N), N from 0 to 2" in text
    assert "channel" not in refusal(path, channel=0).split(";")[1]
    assert read_layout(path).channel_names == ("DAPI", "GFP")


@pytest.mark.parametrize("channel", [-1, 2, 99])
def test_a_channel_out_of_range_is_refused_with_the_range(
    refusal: Callable[..., str], written: Callable[..., Path], channel: int
) -> None:
    text = refusal(written(ALL_AXES, metadata={"axes": "TZCYX"}), channel=channel, time=0)
    assert f"channel={channel}" in text
    assert "2 channels" in text
    assert "channel=N (--channel N), N from 0 to 1" in text


def test_the_only_channel_may_be_named_but_no_other(
    refusal: Callable[..., str], written: Callable[..., Path]
) -> None:
    path = written(NOISE, metadata={"axes": "ZYX"})
    assert Stack.open(path, channel=0, time=0).channel is None
    assert "1 channel;" in refusal(path, channel=1)
    assert "1 time point;" in refusal(path, time=3)


@pytest.mark.parametrize(
    ("shape", "axes", "said"),
    [
        ((12, 10), "YX", "single 2D image"),
        ((1, 12, 10), "ZYX", "single 2D image"),
        ((3, 12, 10), "CYX", "3 channels but no z axis"),
        ((7, 12, 10), "TYX", "7 time points but no z axis"),
        ((7, 3, 12, 10), "TCYX", "3 channels and 7 time points but no z axis"),
        ((7, 3, 12, 10), "QQYX", "cannot tell which axis is which"),
        ((7, 3, 12, 10), "QZYX", "cannot tell which axis is which"),
        ((7, 3, 12, 10), "HZYX", "not understood"),
        ((5, 12, 10, 4), "ZYXS", "colour (RGB)"),
    ],
)
def test_axes_that_make_no_stack_are_refused_with_what_they_are(
    refusal: Callable[..., str],
    written: Callable[..., Path],
    shape: tuple[int, ...],
    axes: str,
    said: str,
) -> None:
    path = written(
        np.arange(np.prod(shape), dtype=np.uint16).reshape(shape), metadata={"axes": axes}
    )
    assert said in refusal(path)


def test_an_rgb_photograph_is_refused(refusal: Callable[..., str], tmp_path: Path) -> None:
    path = tmp_path / "photo.tif"
    tifffile.imwrite(path, np.zeros((12, 10, 3), np.uint8), photometric="rgb")
    assert "colour (RGB)" in refusal(path)


@pytest.mark.parametrize("axes", ["QYX", "IYX"])
def test_an_unnamed_axis_is_z_when_nothing_else_is(written: Callable[..., Path], axes: str) -> None:
    stack = Stack.open(written(NOISE, metadata={"axes": axes}))
    np.testing.assert_array_equal(stack.voxels, NOISE)
    assert any("taken for z-planes" in note for note in stack.notes)


def test_an_unnamed_axis_beside_channels_is_z(written: Callable[..., Path]) -> None:
    path = written(ALL_AXES[0], metadata={"axes": "QCYX"})
    np.testing.assert_array_equal(Stack.open(path, channel=1).voxels, ALL_AXES[0, :, 1])


def test_axes_of_length_one_are_no_axes(written: Callable[..., Path]) -> None:
    path = written(NOISE[None, :, None], metadata={"axes": "TZCYX"})
    assert Stack.open(path).shape == NOISE.shape


def test_of_several_images_the_first_with_z_is_taken_and_said(tmp_path: Path) -> None:
    path = tmp_path / "overview.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as tif:
        tif.write(NOISE[0], photometric="minisblack", metadata={"axes": "YX", "PhysicalSizeX": 9.0})
        tif.write(
            NOISE,
            photometric="minisblack",
            metadata={
                "axes": "ZYX",
                "Name": "cell",
                "PhysicalSizeZ": 0.3,
                "PhysicalSizeY": 0.1,
                "PhysicalSizeX": 0.1,
            },
        )
    stack = Stack.open(path)
    np.testing.assert_array_equal(stack.voxels, NOISE)
    assert stack.spacing == pytest.approx((0.3, 0.1, 0.1))
    assert stack.name == "overview"
    [note] = stack.notes
    assert "position 1 (cell) is taken, the first with a z axis" in note
