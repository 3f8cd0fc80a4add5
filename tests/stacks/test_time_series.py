"""Times of a recording, and how far it has drifted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile

from napari_gaussfit import Stack, TimeSeries
from napari_gaussfit.errors import SettingsError, StackError
from napari_gaussfit.stacks.drift import drift_between

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Five times of four planes, the time in every voxel."""
    path = tmp_path / "recording.tif"
    voxels = np.arange(5 * 4 * 6 * 7, dtype=np.uint16).reshape(5, 4, 6, 7)
    tifffile.imwrite(path, voxels, imagej=True, metadata={"axes": "TZYX"})
    return path


def test_all_times_are_read_in_order(recording: Path) -> None:
    series = TimeSeries.open(recording)
    assert series.times == (0, 1, 2, 3, 4)
    assert [int(stacks[0].voxels[0, 0, 0]) for stacks in series] == [0, 168, 336, 504, 672]
    assert [stacks[0].time for stacks in series] == [0, 1, 2, 3, 4]


def test_a_range_is_a_slice_and_what_it_lacks_is_said(recording: Path) -> None:
    series = TimeSeries.open(recording, slice(0, 30, 2))
    assert series.times == (0, 2, 4)
    [note] = series.notes
    assert note.startswith("0:30:2 reaches beyond the 5 time points")
    assert not TimeSeries.open(recording, slice(1, 3)).notes


def test_times_that_are_not_there_are_refused(recording: Path) -> None:
    with pytest.raises(StackError, match="none of which is in 5:9; choose some of 0:5"):
        TimeSeries.open(recording, slice(5, 9))
    with pytest.raises(StackError, match="not all in the file, which has 5"):
        TimeSeries.open(recording, [1, 5])


def test_a_file_of_one_time_is_a_series_of_one(tmp_path: Path) -> None:
    path = tmp_path / "one.tif"
    tifffile.imwrite(path, np.arange(60, dtype=np.uint8).reshape(3, 4, 5), imagej=True,
                     metadata={"axes": "ZYX"})  # fmt: skip
    [[stack]] = list(TimeSeries.open(path, slice(None)))
    assert stack.shape == (3, 4, 5)


def test_a_channel_must_be_chosen_where_there_are_several(tmp_path: Path) -> None:
    path = tmp_path / "two.tif"
    voxels = np.arange(2 * 3 * 2 * 4 * 5, dtype=np.uint8).reshape(2, 3, 2, 4, 5)
    tifffile.imwrite(path, voxels, imagej=True, metadata={"axes": "TZCYX"})
    with pytest.raises(StackError, match="2 channels"):
        TimeSeries.open(path)
    series = TimeSeries.open(path, channels=[0, 1])
    assert [len(stacks) for stacks in series] == [2, 2]


def test_stacks_of_other_shapes_are_no_series() -> None:
    one = Stack.from_array(np.arange(60.0).reshape(3, 4, 5), spacing=(1, 1, 1))
    other = Stack.from_array(np.arange(80.0).reshape(4, 4, 5), spacing=(1, 1, 1))
    with pytest.raises(SettingsError, match="time 1 has"):
        TimeSeries.from_stacks([one, other])
    with pytest.raises(SettingsError, match="no time"):
        TimeSeries.from_stacks([])


def _blob(centre: tuple[float, float, float], seed: int = 0) -> Stack:
    z, y, x = np.indices((12, 24, 26)).astype(float)
    square = sum((a - c) ** 2 for a, c in zip((z, y, x), centre, strict=True))
    noise = np.random.default_rng(seed).normal(0, 2, (12, 24, 26))
    return Stack.from_array(100 * np.exp(-square / 8) + noise, spacing=(0.5, 0.2, 0.2))


def test_a_drift_is_told_to_a_tenth_of_a_voxel() -> None:
    found = drift_between([_blob((5, 10, 12))], [_blob((6.5, 7.0, 13.4), seed=1)])
    np.testing.assert_allclose(found, (0.75, -0.6, 0.28), atol=0.03)


def test_noise_does_not_drift() -> None:
    rng = np.random.default_rng(3)
    stacks = [Stack.from_array(rng.normal(9, 1, (8, 16, 16)), spacing=(1, 1, 1)) for _ in "ab"]
    assert np.abs(drift_between(stacks[:1], stacks[1:])).max() < 1
