"""One table of formats; what is written through it and read again is the same volume."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from napari_gaussfit.errors import FormatError, OutputError
from napari_gaussfit.fitting.result import load
from napari_gaussfit.formats.csv import write_csv
from napari_gaussfit.formats.registry import (
    FIT_READERS,
    FIT_WRITERS,
    VOLUME_SUFFIXES,
    write_volume,
)
from napari_gaussfit.stacks.facts import StackFacts
from napari_gaussfit.stacks.stack import Stack
from napari_gaussfit.synthetic.phantoms import beads

if TYPE_CHECKING:
    from napari_gaussfit.fitting.result import FitResult

GAUSSIANS = sorted(set(FIT_WRITERS) & set(FIT_READERS))


@pytest.fixture
def stack(saved: FitResult) -> Stack:
    """What the fit would be of: its own voxels."""
    facts = saved.stack
    return Stack(saved.voxelise(), facts.spacing, facts.unit, facts.name)


@pytest.mark.parametrize("suffix", GAUSSIANS)
def test_a_field_renders_the_same_volume_after_any_format(
    tmp_path: Path, saved: FitResult, stack: Stack, suffix: str
) -> None:
    path = tmp_path / f"fit{suffix}"
    saved.export(path)
    again = load(path, stack)
    if suffix == ".csv":  # it has no place for the background
        again = replace(again, fields=(replace(again.field, background=saved.field.background),))
    off = np.abs(again.voxelise() - stack.voxels).max() / np.ptp(stack.voxels)
    assert off < 1e-5, f"{suffix}: off by {off:.1e} of the range"
    assert again.stack == saved.stack


@pytest.mark.parametrize("suffix", GAUSSIANS)
def test_a_file_says_which_channel_and_time_it_is_of(
    tmp_path: Path, saved: FitResult, stack: Stack, suffix: str
) -> None:
    path = tmp_path / f"fit{suffix}"
    replace(saved, stack=replace(saved.stack, channel=0, time=3)).export(path)
    if suffix == ".csv":
        table = pd.read_csv(path)
        assert set(table["channel"]) == {0}
        assert set(table["time"]) == {3}
    else:
        assert load(path, stack).stack.place == {"channel": 0, "time": 3}
    saved.export(path)
    assert load(path, stack).stack.place == {}


@pytest.mark.parametrize("suffix", GAUSSIANS)
def test_every_channel_renders_the_same_volume_after_any_format(
    tmp_path: Path, in_channels: FitResult, stack: Stack, suffix: str
) -> None:
    path = tmp_path / f"fit{suffix}"
    in_channels.export(path)
    again = load(path, stack)
    assert len(again.fields) == 3
    for n, (found, expected) in enumerate(zip(again.fields, in_channels.fields, strict=True)):
        level = found.background if suffix != ".csv" else expected.background
        volumes = [
            replace(one, background=level).voxelise(stack.shape, stack.spacing).numpy()
            for one in (found, expected)
        ]
        off = np.abs(volumes[0] - volumes[1]).max() / np.ptp(volumes[1])
        assert off < 1e-5, f"{suffix}, channel {n}: off by {off:.1e} of the range"
        assert level == expected.background


@pytest.mark.parametrize("suffix", VOLUME_SUFFIXES)
def test_the_channels_of_a_volume_are_stacks_of_their_own(
    tmp_path: Path, in_channels: FitResult, suffix: str
) -> None:
    path = tmp_path / f"volume.ome{suffix}"
    in_channels.export(path)
    stacks = Stack.open_channels(path)
    assert [stack.channel for stack in stacks] == [0, 1, 2]
    for stack, volume in zip(stacks, in_channels.voxelise(), strict=True):
        np.testing.assert_array_equal(stack.voxels, volume)
        assert stack.spacing == in_channels.stack.spacing
    [second] = Stack.open_channels(path, [1])
    np.testing.assert_array_equal(second.voxels, stacks[1].voxels)


@pytest.mark.parametrize("suffix", VOLUME_SUFFIXES)
def test_a_volume_reads_back_to_the_bit_with_its_spacing(
    tmp_path: Path, saved: FitResult, stack: Stack, suffix: str
) -> None:
    path = tmp_path / f"volume.ome{suffix}"
    saved.export(path)
    again = Stack.open(path)
    np.testing.assert_array_equal(again.voxels, stack.voxels)
    assert (again.spacing, again.unit) == (saved.stack.spacing, saved.stack.unit)


def test_every_format_is_written_and_read_again_here() -> None:
    assert GAUSSIANS == [".csv", ".ply", ".safetensors"]
    others = {".xml", ".trackmate.csv", ".geff"}  # read by the programs that they are for
    assert set(FIT_WRITERS) - set(GAUSSIANS) == set(VOLUME_SUFFIXES) | others
    assert set(FIT_READERS) - set(GAUSSIANS) == {".pt", ".pth"}


@pytest.mark.parametrize("suffix", [".csv", ".pt"])
def test_a_format_that_does_not_tell_its_stack_asks_for_it(
    tmp_path: Path, saved: FitResult, suffix: str
) -> None:
    path = tmp_path / f"fit{suffix}"
    saved.export(path) if suffix in FIT_WRITERS else path.write_bytes(b"")
    with pytest.raises(FormatError, match=r"export .* --stack STACK \(or"):
        load(path)


def test_names_of_no_format_are_refused_with_those_that_there_are(
    tmp_path: Path, saved: FitResult
) -> None:
    with pytest.raises(OutputError, match=r"'\.xls'; expected one of \.safetensors \(the fit"):
        saved.export(tmp_path / "fit.xls")
    with pytest.raises(OutputError, match=r"'\.ply'; a volume is one of \.tif"):
        write_volume(tmp_path / "fit.ply", saved.voxelise(), saved.stack)
    (tmp_path / "fit.xls").write_bytes(b"")
    with pytest.raises(FormatError, match=r"'\.xls'; expected one of \.safetensors"):
        load(tmp_path / "fit.xls")
    with pytest.raises(FormatError, match="no such file"):
        load(tmp_path / "missing.ply")


def test_the_plugin_writes_every_format_of_the_table() -> None:
    from npe2 import PluginManifest

    manifest = PluginManifest.from_distribution("napari-gaussfit")
    writers = manifest.contributions.writers or ()
    offered = {suffix for one in writers for suffix in one.filename_extensions}
    assert offered == set(FIT_WRITERS)


def test_a_table_in_a_box_names_no_stack_for_its_background(tmp_path: Path) -> None:
    phantom = beads(count=3)
    path = tmp_path / "three.csv"
    write_csv(path, phantom.truth, phantom.stack.spacing)
    box = StackFacts.of_size("three", (6.0, 4.0, 4.0), (0.5, 0.125, 0.125))
    assert load(path, box).notes == ("a table has no background; 0 is taken",)
