"""``fit`` and ``spots`` with ``--time all`` or a range: one table, with tracks."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import tifffile

from napari_gaussfit import load
from napari_gaussfit.cli.commands import main
from napari_gaussfit.stacks.time_range import parse_times
from napari_gaussfit.synthetic.phantoms import moving_spots

if TYPE_CHECKING:
    from pathlib import Path

FIT = ["fit", "--device", "cpu", "--quality", "preview"]


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight spots at four times, in a file."""
    path = tmp_path_factory.mktemp("recording") / "moving.tif"
    phantom = moving_spots(count=8, times=4, crossings=0, shape=(20, 60, 60))
    tifffile.imwrite(
        path, np.stack([stack.voxels for stack in phantom.stacks]), imagej=True,
        resolution=(10, 10), metadata={"axes": "TZYX", "spacing": 0.2, "unit": "um"},
    )  # fmt: skip
    return path


@pytest.fixture(scope="module")
def fitted(recording: Path) -> Path:
    """The folder of a fit of all times."""
    out = recording.parent / "fitted"
    assert main([*FIT, str(recording), "-o", str(out), "--time", "all"]) == 0
    return out


@pytest.fixture(scope="module")
def found(recording: Path) -> Path:
    """The folder of the spots of all times."""
    out = recording.parent / "found"
    assert main(["spots", str(recording), "-o", str(out), "--time", "all"]) == 0
    return out


def test_fit_writes_one_table_of_all_times_with_tracks(fitted: Path) -> None:
    table = pd.read_csv(fitted / "gaussians.csv")
    assert list(table.columns[-2:]) == ["time", "track"]
    assert sorted(table["time"].unique()) == [0, 1, 2, 3]
    assert table.groupby("track")["time"].nunique().max() == 4
    assert not table.duplicated(["time", "track"]).any()
    assert {"z", "sd_z", "amplitude", "cov_zz", "unit"} <= {*table.columns}


def test_a_fit_of_all_times_leaves_report_tracks_and_picture(fitted: Path) -> None:
    report = json.loads((fitted / "report.json").read_text())
    assert [one["time"] for one in report["times"]] == [0, 1, 2, 3]
    assert report["times"][0]["drift"] == [0, 0, 0]
    assert report["times"][2]["iterations"] == 38
    tracks = pd.read_csv(fitted / "tracks.csv")
    assert len(tracks) == report["tracks"]
    assert {"track", "first", "last", "objects", "born", "died"} == {*tracks.columns}
    assert (fitted / "tracks.png").read_bytes().startswith(b"\x89PNG")


def test_each_time_is_a_fit_that_can_be_read(fitted: Path) -> None:
    table = pd.read_csv(fitted / "gaussians.csv")
    saved = load(fitted / "times" / "0002")
    assert saved.stack.time == 2
    assert len(saved.field) == (table["time"] == 2).sum()


def test_a_run_that_was_killed_goes_on_and_ends_in_the_same_table(
    recording: Path, fitted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "killed"
    shutil.copytree(fitted, out)
    for name in ("gaussians.csv", "tracks.csv", "report.json", "tracks.png"):
        (out / name).unlink()
    for time in ("0002", "0003"):  # the third was being written
        (out / "times" / time / "fit.safetensors").unlink()
    assert main(["fit", str(recording), "-o", str(out), "--time", "all", "--resume"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.endswith("was done before") for line in lines[:4]] == [True, True, False, False]
    assert (out / "gaussians.csv").read_bytes() == (fitted / "gaussians.csv").read_bytes()


def test_nothing_is_replaced_unless_forced(
    recording: Path, fitted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (fitted / "gaussians.csv").read_bytes()
    assert main([*FIT, str(recording), "-o", str(fitted), "--time", "all"]) == 2
    assert "--force replaces it, --resume goes on with it" in capsys.readouterr().err
    assert (fitted / "gaussians.csv").read_bytes() == before


def test_going_on_with_other_settings_is_refused(
    recording: Path, fitted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["fit", str(recording), "-o", str(fitted), "--time", "all", "--resume", "--seed", "3"]
    assert main(words) == 2
    assert "seed=3: the saved fit has 0" in capsys.readouterr().err


def test_spots_writes_one_table_of_all_times_with_tracks(found: Path) -> None:
    table = pd.read_csv(found / "objects.csv")
    assert list(table.columns[-2:]) == ["time", "track"]
    assert (table.groupby("time").size() == 8).all()
    assert table["track"].nunique() <= 9
    report = json.loads((found / "report.json").read_text())
    assert [one["spots"] for one in report["times"]] == [8, 8, 8, 8]
    noise = report["noise"]
    assert 10 * noise["gain"] + noise["intercept"] == pytest.approx(10, rel=0.2)


def test_spots_go_on_after_a_kill(recording: Path, found: Path, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    shutil.copytree(found, out)
    (out / "objects.csv").unlink()
    (out / "times" / "0001" / "state.json").unlink()
    shutil.rmtree(out / "times" / "0003")
    words = ["spots", str(recording), "-o", str(out), "--time", "all", "--resume"]
    assert main(words) == 0
    assert (out / "objects.csv").read_bytes() == (found / "objects.csv").read_bytes()


def test_spots_of_other_settings_are_not_gone_on_from(
    recording: Path, found: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["spots", str(recording), "-o", str(found), "--time", "all", "--resume"]
    assert main([*words, "--false-discoveries", "0.1"]) == 2
    assert "is of other settings" in capsys.readouterr().err


def test_a_range_takes_every_second_time(
    recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "range"
    assert main(["spots", str(recording), "-o", str(out), "--time", "0:30:2"]) == 0
    assert sorted(pd.read_csv(out / "objects.csv")["time"].unique()) == [0, 2]
    assert "reaches beyond the 4 time points" in capsys.readouterr().err


def test_one_time_is_what_it_was(recording: Path, tmp_path: Path) -> None:
    assert main(["spots", str(recording), "-o", str(tmp_path / "one"), "--time", "1"]) == 0
    assert "track" not in pd.read_csv(tmp_path / "one" / "objects.csv").columns


@pytest.mark.parametrize("option", ["--resume", "--reach=1"])
def test_what_is_about_several_times_needs_them(
    recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    assert main(["spots", str(recording), "-o", str(tmp_path / "o"), "--time", "0", option]) == 2
    assert "several times; give" in capsys.readouterr().err


def test_times_are_read_as_they_are_typed() -> None:
    assert parse_times("7") == 7
    assert parse_times("all") == slice(None)
    assert parse_times("0:30:2") == slice(0, 30, 2)
    assert parse_times(":5") == slice(None, 5)
    for text in ("x", "0:-1", "1:2:0", "1:2:3:4", "1.5"):
        with pytest.raises(ValueError, match=r".+"):
            parse_times(text)


def test_tracks_are_written_for_other_programs_as_well(
    recording: Path, found: Path, tmp_path: Path
) -> None:
    import xml.etree.ElementTree as ET

    geff = pytest.importorskip("geff")
    also = [str(tmp_path / name) for name in ("tracks.xml", "tracks.geff")]
    again = ["spots", str(recording), "-o", str(found), "--time", "all", "--resume"]
    assert main([*again, "--also", *also]) == 0
    table = pd.read_csv(found / "objects.csv")
    links = len(table) - table["track"].nunique()
    root = ET.parse(also[0]).getroot()
    assert len(root.findall(".//Spot")) == len(table)
    assert len(root.findall(".//Edge")) == links
    graph = geff.core_io.read_to_memory(also[1])
    assert len(graph["edge_ids"]) == links
    assert main([*again, "--also", *also]) == 2  # they are there
