"""``napari-gaussfit fit`` by tiles."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import tifffile

from napari_gaussfit.cli.commands import main
from napari_gaussfit.errors import FitError
from napari_gaussfit.fitting.result import load
from napari_gaussfit.fitting.tile_tasks import TileWork
from napari_gaussfit.jobs import cluster
from napari_gaussfit.stacks import large, lazy
from napari_gaussfit.stacks.ome_zarr import write_ome_zarr
from napari_gaussfit.synthetic import phantoms

if TYPE_CHECKING:
    from collections.abc import Callable

BY_TILES = ("--tile", "24", "32", "32", "--iterations", "30", "--device", "cpu")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    stack = phantoms.neurite(shape=(24, 64, 64), seed=2).stack
    path = tmp_path_factory.mktemp("stack") / "big.ome.zarr"
    write_ome_zarr(path, stack.voxels, spacing=stack.spacing, unit="micrometer", name="big")
    return path


@pytest.fixture
def fit(source: Path, tmp_path: Path) -> Callable[..., int]:
    """Run the command with options, into the folder ``out``."""

    def run(*options: str) -> int:
        return main(["fit", str(source), "-o", str(tmp_path / "out"), *options])

    return run


def digests(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "log.jsonl"
    }


def test_tiles_leave_a_folder_that_other_commands_read(
    fit: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert fit(*BY_TILES, "--workers", "1") == 0
    assert "Gaussians in 4 tiles" in capsys.readouterr().out
    count = len(pd.read_parquet(out / "gaussians.parquet"))

    assert main(["info", str(out)]) == 0
    said = capsys.readouterr().out
    assert f"gaussians         {count}" in said
    assert "sample            all of its voxels" in said
    assert main(["export", str(out), "-o", str(tmp_path / "all.csv")]) == 0
    assert len(pd.read_csv(tmp_path / "all.csv")) == count
    assert main(["render", str(out), "-o", str(tmp_path / "mip.tif")]) == 0
    assert len(load(out, region=((0, 0, 0), (24, 20, 20))).field) < count


def test_tiles_replace_nothing_unless_forced_and_go_on_when_told_to(
    fit: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit(*BY_TILES, "--workers", "1") == 0
    before = digests(tmp_path / "out")
    (tmp_path / "out" / "mine.txt").write_text("mine")

    assert fit(*BY_TILES, "--workers", "1") == 2
    assert "exists; --force replaces it, --resume goes on with it" in capsys.readouterr().err
    assert fit(*BY_TILES, "--workers", "1", "--resume") == 0
    assert fit(*BY_TILES, "--workers", "1", "--resume", "--seed", "3") == 2
    assert "another settings" in capsys.readouterr().err
    assert fit(*BY_TILES, "--workers", "1", "--force", "--seed", "3") == 0
    assert digests(tmp_path / "out") != before
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"


def test_a_large_stack_is_fitted_by_tiles_and_that_is_said(
    fit: Callable[..., int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(large, "LARGE", 24 * 64 * 64)
    assert fit("--iterations", "10", "--no-tiles") == 0
    assert (tmp_path / "out" / "fit.safetensors").exists()
    capsys.readouterr()

    assert fit("--iterations", "10", "--device", "cpu") == 0

    assert "98,304 voxels are looked at by tiles; --tile DZ DY DX" in capsys.readouterr().err
    assert (tmp_path / "out" / "tiles.parquet").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--no-tiles", "--workers", "2"), "--no-tiles and --workers exclude each other"),
        (("--tile", "24", "32", "32", "--time", "5:"), "none of the 1 times"),
        (("--tile", "24", "32", "32", "--points", "no.csv"), "no.csv: cannot be read"),
        (("--workers", "0"), "--workers 0: expected 1 or more"),
        (("--tile", "24", "20", "32"), "20 voxels along y make tiles of 16"),
        (("--tile", "24", "32", "32", "--exactly"), "exactly: by tiles, expected how many"),
        (
            ("--scheduler", "tcp://127.0.0.1:9", "--workers", "2"),
            "--workers and --scheduler exclude each other",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused_in_a_line(
    fit: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    message: str,
) -> None:
    assert fit(*options) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_scheduler_that_does_not_answer_is_named(
    fit: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 0.2)

    assert fit(*BY_TILES, "--scheduler", "tcp://127.0.0.1:9") == 2
    assert "--scheduler tcp://127.0.0.1:9: cannot be reached" in capsys.readouterr().err


def test_tiles_that_fail_are_said_and_change_the_exit_code(
    fit: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    do = TileWork.do

    def failing(work: TileWork, task: object) -> object:
        if task.stage == "fit" and task.tile.place == (0, 1, 1):  # type: ignore[attr-defined]
            raise FitError("no such luck")
        return do(work, task)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(TileWork, "do", failing)
        assert fit(*BY_TILES, "--workers", "1") == 3
    said = capsys.readouterr().out
    assert "failed: fitting 0000-0001-0001, voxels z 0 to 23, y 32 to 63, x 32 to 63" in said
    assert "--resume tries these again" in said

    assert fit(*BY_TILES, "--workers", "1", "--resume") == 0


@pytest.mark.slow
def test_two_workers_leave_the_bytes_of_one(
    fit: Callable[..., int], source: Path, tmp_path: Path
) -> None:
    assert fit(*BY_TILES, "--workers", "2") == 0
    assert main(["fit", str(source), "-o", str(tmp_path / "one"), *BY_TILES, "--workers", "1"]) == 0

    assert digests(tmp_path / "out") == digests(tmp_path / "one")
    assert np.isfinite(load(tmp_path / "one").voxelise()).all()


def test_info_looks_at_a_sample_of_a_large_stack_and_says_so(
    source: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(large, "LARGE", 24 * 64 * 64)
    monkeypatch.setattr(lazy, "SAMPLE_BOX", 8)
    monkeypatch.setattr(lazy, "SAMPLE_BOXES", 2)

    assert main(["info", str(source)]) == 0

    said = capsys.readouterr().out
    assert "a sample of 4,096 of its 98,304 voxels: 8 boxes of 8 x 8 x 8, spread evenly" in said
    assert "background  " in said


def test_spots_by_tiles_are_those_of_one_piece(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stack, source = phantoms.spots(peak=100.0).stack, tmp_path / "spots.ome.zarr"
    write_ome_zarr(source, stack.voxels, spacing=stack.spacing, unit="micrometer", name="spots")

    def find(*options: str) -> int:
        return main(["spots", str(source), "-o", str(tmp_path / "out"), *options])

    assert find("--resume") == 2
    assert "give --tile" in capsys.readouterr().err
    assert find("--tile", "42", "40", "40", "--workers", "1") == 0
    assert f"{tmp_path / 'out'}: 48 spots in 4 tiles" in capsys.readouterr().out
    assert len(pd.read_parquet(tmp_path / "out" / "objects.parquet")) == 48
    assert find("--tile", "42", "40", "40", "--workers", "1", "--resume") == 0
    assert main(["info", str(tmp_path / "out")]) == 0


def test_several_times_are_fitted_by_tiles_each_as_if_it_were_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stack = phantoms.neurite(shape=(12, 40, 48), seed=2).stack
    movie = np.stack([stack.voxels, stack.voxels[:, ::-1], stack.voxels[:, :, ::-1]])
    source, out = tmp_path / "movie.tif", tmp_path / "out"
    tifffile.imwrite(source, movie, imagej=True, metadata={"axes": "TZYX"})
    by_tiles = ("--tile", "12", "40", "24", "--iterations", "10", "--device", "cpu")
    spacing = ("--spacing", "0.3", "0.1", "0.1")

    def fit(folder: Path, *options: str) -> int:
        return main(["fit", str(source), "-o", str(folder), *by_tiles, *spacing, *options])

    assert fit(out, "--workers", "1", "--time", "0:3:2") == 0
    assert "Gaussians are not linked" in capsys.readouterr().err
    assert sorted(path.name for path in out.iterdir()) == ["0000", "0002"]
    table = pd.read_parquet(out / "0002" / "gaussians.parquet")
    assert set(table["time"]) == {2}
    assert fit(tmp_path / "alone", "--workers", "1", "--time", "2") == 0
    assert digests(tmp_path / "alone") == digests(out / "0002")

    assert "not linked" not in capsys.readouterr().err
    assert fit(out, "--workers", "1", "--time", "all") == 2
    assert "0000" in capsys.readouterr().err
    assert not (out / "0001").exists()
    assert fit(out, "--workers", "1", "--time", "all", "--resume") == 0
    assert sorted(path.name for path in out.iterdir()) == ["0000", "0001", "0002"]


def test_spots_of_several_times_are_linked_across_tiles(tmp_path: Path) -> None:
    """As in one piece: every spot once, and each in the track of the place that it moves from."""
    voxels = phantoms.spots(peak=400.0).stack.voxels
    movie = np.stack([voxels, np.roll(voxels, 1, 2), np.roll(voxels, (1, 2), (1, 2))])
    source, out, whole = (tmp_path / name for name in ("movie.tif", "tiles", "whole"))
    tifffile.imwrite(source, movie, imagej=True, metadata={"axes": "TZYX"})
    command = ["spots", str(source), "--spacing", "0.2", "0.1", "0.1", "--time", "all"]

    by_tiles = ["--tile", "42", "40", "40", "--workers", "1"]
    assert main([*command, "-o", str(out), *by_tiles]) == 0
    assert main([*command, "-o", str(whole)]) == 0

    table = pd.read_parquet(out / "objects.parquet")
    tracks, expected = (pd.read_csv(one / "tracks.csv") for one in (out, whole))
    assert len(table) == tracks["objects"].sum()
    assert len(tracks) == len(expected) == 48
    assert (tracks["objects"] == 3).all()
    steps = table.sort_values(["track", "time"]).groupby("track")[["axis-1", "axis-2"]].diff()
    assert np.allclose(steps.dropna().to_numpy().reshape(-1, 2, 2), [[0, 1], [1, 1]], atol=0.3)
    assert main([*command, "-o", str(out), *by_tiles]) == 2
    assert main([*command, "-o", str(out), *by_tiles, "--resume"]) == 0


@pytest.mark.slow
def test_a_process_that_is_killed_twice_leaves_the_bytes_of_one_that_is_not(
    fit: Callable[..., int], source: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "napari_gaussfit.cli", "fit", str(source), "-o", str(out)]
    for lines in (2, 5):
        process = subprocess.Popen([*command, *BY_TILES, "--workers", "1", "--resume"])
        while process.poll() is None and logged(out) < lines:
            time.sleep(0.01)
        process.kill()
        process.wait()
    assert logged(out) >= 5
    assert fit(*BY_TILES, "--workers", "1", "--resume") == 0

    assert main(["fit", str(source), "-o", str(tmp_path / "one"), *BY_TILES, "--workers", "1"]) == 0
    assert digests(out) == digests(tmp_path / "one")


def logged(out: Path) -> int:
    """Return how many tasks have ended."""
    for path in (out / "work" / "log.jsonl", out / "log.jsonl"):
        if path.exists():
            return path.read_bytes().count(b"\n")
    return 0


@pytest.mark.slow
def test_channels_a_psf_and_points_are_taken_by_tiles(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    phantom, source = phantoms.spots(peak=200.0), tmp_path / "two.ome.tif"
    voxels = phantom.stack.voxels
    both = np.stack([voxels, voxels // 2]).swapaxes(0, 1)
    dz, dy, dx = phantom.stack.spacing
    tifffile.imwrite(
        source, both, metadata={"axes": "ZCYX", "PhysicalSizeX": dx, "PhysicalSizeY": dy,
        "PhysicalSizeZ": dz}, ome=True,
    )  # fmt: skip
    points = pd.DataFrame(phantom.truth.numpy().means, columns=[*"zyx"])
    points.to_csv(tmp_path / "points.csv", index=False)

    given = ("--channel", "0", "1", "--psf", "1.4,520,1.518", "--points", tmp_path / "points.csv")
    out = str(tmp_path / "out")
    command = ["fit", source, "-o", out, "--tile", "42", "40", "40", "--iterations", "30"]
    assert main([*map(str, (*command, *given, "--workers", "1"))]) == 0

    assert f"{len(points)} Gaussians in" in capsys.readouterr().out
    table = pd.read_parquet(tmp_path / "out" / "gaussians.parquet")
    ratio = table["amplitude_1"].sum() / table["amplitude_0"].sum()
    assert ratio == pytest.approx(0.5, rel=0.1)
    assert load(out).psf is not None
