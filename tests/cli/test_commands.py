"""The command line: what it writes, how it ends, and that bad input costs one line."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import psutil
import pytest
import tifffile
import torch
import zarr
from plyfile import PlyData, PlyElement

from napari_gaussfit._kernels import fallback
from napari_gaussfit.cli import main, run
from napari_gaussfit.cli.exits import Exit
from napari_gaussfit.fitting.memory import PROCESS, predict_memory
from napari_gaussfit.fitting.result import load
from napari_gaussfit.settings import SETTINGS, FitSettings
from napari_gaussfit.stacks.stack import Stack
from napari_gaussfit.stacks.tiff import write_ome_tiff
from napari_gaussfit.synthetic.phantoms import beads
from saved_fits import some_fit

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_gaussfit.fitting.fit import Fit

    Capture = pytest.CaptureFixture[str]

FILES = [
    *("fit.safetensors", "gaussians.csv", "gaussians.png"),
    *("history.png", "noise.png", "projections.png", "report.json", "settings.toml"),
]
SHAPE = (16, 40, 36)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of five beads."""
    made = beads(count=5, shape=SHAPE).stack
    path = tmp_path_factory.mktemp("stack") / "beads.ome.tif"
    write_ome_tiff(path, made.voxels, spacing=made.spacing, unit=made.unit, name="beads")
    return path


@pytest.fixture(scope="module")
def fitted(stack: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished fit, with the kernels compiled."""
    out = tmp_path_factory.mktemp("fits") / "new" / "beads"
    command = [
        "fit",
        str(stack),
        "-o",
        str(out),
        "--gaussians",
        "10",
        "--exactly",
        "--no-measure",
        "--quality",
        "preview",
    ]
    assert main(command) == 0
    return out


def report_in(folder: Path) -> dict[str, object]:
    loaded: dict[str, object] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return loaded


def refused(capsys: Capture, *arguments: object) -> str:
    """Run a command that must end with 2 and one line, and return the line."""
    capsys.readouterr()
    try:
        code: object = main([str(argument) for argument in arguments])
    except SystemExit as ended:
        code = ended.code
    said = capsys.readouterr()
    assert code == 2, said
    lines = said.err.strip().splitlines()
    assert len(lines) == 1, f"not one line: {lines}"
    assert said.out == ""
    return lines[0]


def test_every_setting_has_its_option_which_says_the_default(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")  # no line is broken
    with pytest.raises(SystemExit):
        main(["fit", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    for name, setting in SETTINGS.items():
        assert f"--{name.replace('_', '-')}" in said
        assert setting.help in said
        if setting.kind is not bool:
            default = setting.without or getattr(FitSettings, name)
            assert f"{setting.help} ({default})" in said


def test_fit_leaves_its_files(fitted: Path) -> None:
    assert sorted(path.name for path in fitted.iterdir()) == FILES
    assert report_in(fitted)["gaussians"] == 10


def test_fit_takes_the_position_asked_for_and_says_where_none_was(
    tmp_path: Path, capsys: Capture
) -> None:
    voxels = beads(count=3, shape=(6, 20, 20)).stack.voxels
    path = tmp_path / "positions.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as tif:
        for offset in (0, 5000):
            tif.write(
                (voxels + offset).astype(np.uint16),
                photometric="minisblack",
                metadata={"axes": "ZYX"},
            )
    command = [
        "fit",
        str(path),
        "--gaussians",
        "3",
        "--exactly",
        "--quality",
        "preview",
        "--spacing",
    ]
    command += ["0.2", "0.1", "0.1", "-o"]
    for position, options in ((0, []), (1, ["--position", "1"])):
        out = tmp_path / f"fit{position}"
        capsys.readouterr()
        assert main([*command, str(out), *options]) == 0
        found = report_in(out)["background"]
        assert isinstance(found, float)
        assert (found > 5000) == (position == 1)
        said = "(--position N), N from 0 to 1, chooses another" in capsys.readouterr().err
        assert said == (position == 0)
    assert "2 images; choose position=N (--position N), N from 0 to 1" in refused(
        capsys, *command, tmp_path / "none", "--position", 2
    )


def test_progress_is_silent_where_stderr_is_no_terminal(
    fitted: Path, stack: Path, tmp_path: Path, capfd: Capture
) -> None:
    assert fitted.exists()
    arguments = [
        "--gaussians",
        "10",
        "--exactly",
        "--max-seconds",
        "0.1",
        "--objective",
        "mip",
        "--seed",
        "3",
    ]
    assert main(["fit", str(stack), "-o", str(tmp_path / "out"), *arguments]) == 0
    said = capfd.readouterr()
    assert said.err == ""
    assert "held-out projections" in said.out
    settings = report_in(tmp_path / "out")["settings"]
    assert isinstance(settings, dict)
    assert (settings["objective"], settings["seed"]) == ("mip", 3)


def test_a_terminal_is_told_what_memory_a_fit_takes_and_how_far_it_is(
    stack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    arguments = ["--gaussians", "10", "--exactly", "--max-seconds", "0.1"]
    assert main(["fit", str(stack), "-o", str(tmp_path / "out"), *arguments]) == 0
    said = terminal.getvalue()
    why = fallback("auto")
    if why is not None:  # there is no GPU: the default device is another than may be expected
        assert f"\n{why}\n" in said
        assert report_in(tmp_path / "out")["notes"] == [why]
    assert re.search(r"takes about [\d.]+ GB of memory; [\d.]+ GB are free", said), said
    assert "10 Gaussians" in said


def test_resuming_a_finished_fit_says_so(fitted: Path, stack: Path, capsys: Capture) -> None:
    before = (fitted / "fit.safetensors").read_bytes()
    assert main(["fit", str(stack), "-o", str(fitted), "--resume"]) == 0
    assert "this fit is finished, after 150 steps" in capsys.readouterr().out
    assert (fitted / "fit.safetensors").read_bytes() == before


def test_a_folder_that_holds_something_is_written_into_by_force_only(
    stack: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    (out / "gaussians.csv").write_text("mine")
    fit = ["fit", str(stack), "-o", str(out), "--gaussians", "4", "--exactly", "--iterations", "5"]
    for options in ([], ["--resume"]):
        line = refused(capsys, *fit, *options)
        assert f"{out / 'gaussians.csv'}: exists; --force replaces it" in line
    assert main([*fit, "--force"]) == 0
    line = refused(capsys, *fit)
    expected = f"{out / 'fit.safetensors'}: exists; --force replaces it, --resume goes on with it"
    assert line.endswith(expected)
    assert (out / "notes.txt").read_text() == "mine"
    assert sorted(path.name for path in out.iterdir()) == sorted([*FILES, "notes.txt"])


def test_what_a_fit_reads_is_never_written_over(
    fitted: Path, stack: Path, tmp_path: Path, capsys: Capture
) -> None:
    table, before = fitted / "gaussians.csv", (fitted / "gaussians.csv").read_bytes()
    fit = ["fit", stack, "-o", fitted, "--force"]
    assert "which is read; give another place" in refused(capsys, *fit, "--points", table)
    assert "which is read; give another place" in refused(capsys, *fit, "--refine", fitted)
    assert table.read_bytes() == before
    zarr = tmp_path / "stack.ome.zarr"
    assert main(["export", str(fitted), "-o", str(zarr)]) == 0
    held = sorted(zarr.rglob("*"))
    for out in (zarr, zarr / "0"):
        assert "which is read" in refused(capsys, "fit", zarr, "-o", out, "--force")
    assert sorted(zarr.rglob("*")) == held


def test_a_second_fit_into_one_folder_is_refused(
    fitted: Path, stack: Path, tmp_path: Path, capsys: Capture
) -> None:
    assert fitted.exists()
    out = tmp_path / "out"
    process = started(stack, out, "--quality", "fine")
    wait_until_saved(process, out)
    for option in ("--resume", "--force"):
        line = refused(capsys, "fit", stack, "-o", out, option)
        assert f"another fit is writing into it (process {process.pid})" in line
    process.kill()
    process.communicate()
    # Killed, it has no say any more.
    assert main(["fit", str(stack), "-o", str(out), "--resume", "--max-seconds", "0"]) == 0
    assert sorted(path.name for path in out.iterdir()) == FILES


def test_the_demo_replaces_nothing_of_anybodys(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "stack.ome.tif").write_text("mine")
    assert "stack.ome.tif: exists; --force replaces it" in refused(capsys, "demo", "-o", tmp_path)
    assert (tmp_path / "stack.ome.tif").read_text() == "mine"


def test_resuming_with_other_settings_is_refused(
    fitted: Path, stack: Path, capsys: Capture
) -> None:
    line = refused(capsys, "fit", stack, "-o", fitted, "--resume", "--gaussians", 11, "--exactly")
    assert "gaussians=11: the saved fit has 10" in line


def test_resuming_the_fit_of_another_stack_is_refused(
    fitted: Path, tmp_path: Path, capsys: Capture
) -> None:
    other = beads(count=5, shape=SHAPE, seed=1).stack
    path = tmp_path / "beads.ome.tif"
    write_ome_tiff(path, other.voxels, spacing=other.spacing, unit=other.unit, name="beads")
    assert "is the fit of other voxels" in refused(capsys, "fit", path, "-o", fitted, "--resume")


def test_what_is_assumed_of_a_stack_is_noted(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "plain.tif"
    tifffile.imwrite(path, beads(count=2, shape=(12, 24, 24)).stack.voxels)
    out = tmp_path / "out"
    assert (
        main(
            [
                "fit",
                str(path),
                "-o",
                str(out),
                "--gaussians",
                "4",
                "--exactly",
                "--max-seconds",
                "0",
            ]
        )
        == 0
    )
    notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
    assert any("--spacing DZ DY DX" in note for note in notes)
    assert report_in(out)["unit"] == "pixel"


# An option and what it sets, for each field of FitSettings; none of them is the default.
SETTING_OPTIONS: dict[str, tuple[tuple[str, ...], object]] = {
    "gaussians": (("--gaussians", "7"), 7),
    "exactly": (("--exactly",), True),
    "quality": (("--quality", "fine"), "fine"),
    "objective": (("--objective", "voxels"), "voxels"),
    "loss": (("--loss", "poisson"), "poisson"),
    "shape": (("--shape", "point", "--psf", "0.9,600,1.33"), "point"),
    "ssim_weight": (("--ssim-weight", "0.25"), 0.25),
    "iterations": (("--iterations", "30"), 30),
    "max_seconds": (("--max-seconds", "9.5"), 9.5),
    "views": (("--views", "70"), 70),
    "held_out": (("--held-out", "3"), 3),
    "full_covariance": (("--no-full-covariance",), False),
    "background": (("--background", "-12.5"), -12.5),
    "device": (("--device", "cpu"), "cpu"),
    "seed": (("--seed", "5"), 5),
    "refine": (("--refine", "FITTED"), True),
    "measure": (("--measure",), True),
    "gain": (("--gain", "2.3"), 2.3),
    "offset": (("--offset", "100", "--gain", "2.3"), 100.0),
    "read_noise": (("--read-noise", "1.5", "--gain", "2.3"), 1.5),
}


@pytest.mark.parametrize("name", [setting.name for setting in fields(FitSettings)])
def test_every_setting_of_a_fit_has_its_option(
    stack: Path, fitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    asked: list[FitSettings] = []

    def take(fit: Fit, *_: object, **__: object) -> Exit:
        asked.append(fit.settings)
        return Exit.DONE

    monkeypatch.setattr(run, "run", take)
    options, value = SETTING_OPTIONS[name]
    options = tuple(str(fitted) if option == "FITTED" else option for option in options)
    assert main(["fit", str(stack), "-o", str(tmp_path / "out"), *options]) == 0
    beside = {"gain": 2.3} if "--gain" in options else {}
    assert asked == [FitSettings(**(beside | {name: value}))]
    assert asked != [FitSettings()], f"{options} sets what is the default"


def test_covariances_are_full_on_request_too(stack: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "out"
    short = ["--gaussians", "4", "--exactly", "--iterations", "5"]
    assert main(["fit", str(stack), "-o", str(out), "--no-full-covariance", *short]) == 0
    line = refused(capsys, "fit", stack, "-o", out, "--resume", "--full-covariance")
    assert "full_covariance=True: the saved fit has False" in line
    assert main(["fit", str(stack), "-o", str(out), "--no-full-covariance", "--resume"]) == 0


def test_a_fit_goes_on_by_its_own_settings(stack: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "out"
    fit = ["fit", str(stack), "-o", str(out)]
    short = [
        "--gaussians",
        "4",
        "--exactly",
        "--iterations",
        "5",
        "--views",
        "90",
        "--held-out",
        "70",
    ]
    assert main([*fit, *short, "--loss", "poisson", "--background", "3"]) == 0
    # 70 views of the usual 60 could not be held out: what is given is held against what is saved.
    assert main([*fit, "--resume", "--held-out", "70", "--loss", "poisson"]) == 0
    assert "this fit is finished, after 5 steps" in capsys.readouterr().out
    for option, value, was in (
        ("--loss", "squared", "'poisson'"),
        ("--views", 60, 90),
        ("--held-out", 10, 70),
        ("--background", 2, 3.0),
        ("--iterations", 6, 5),
        ("--ssim-weight", 0.5, 0.0),
    ):
        line = refused(capsys, *fit, "--resume", option, value)
        assert f"the saved fit has {was}; leave it out to go on" in line


def test_a_fit_begins_at_points_and_goes_on_from_no_others(
    stack: Path, tmp_path: Path, capsys: Capture
) -> None:
    out, points, others = tmp_path / "out", tmp_path / "points.csv", tmp_path / "others.csv"
    points.write_text("index,axis-0,axis-1,axis-2\n0,4,20,18\n1,9,11.5,30\n")
    others.write_text("z,y,x\n1.2,2,1.8\n")
    fit = ["fit", str(stack), "-o", str(out)]
    assert (
        main([*fit, "--points", str(points), "--iterations", "5", "--gaussians", "4", "--exactly"])
        == 0
    )
    began = load(out / "fit.safetensors").state["points"]
    np.testing.assert_allclose(began, [[1.2, 2.0, 1.8], [2.7, 1.15, 3.0]])
    assert main([*fit, "--resume", "--points", str(points)]) == 0
    line = refused(capsys, *fit, "--resume", "--points", others)
    assert "the saved fit began at 2 points, others than these; leave --points out" in line
    assert main([*fit, "--resume"]) == 0


def test_a_fit_is_refined_in_a_folder_of_its_own(
    stack: Path, fitted: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "better"
    refine = ["fit", str(stack), "-o", str(out), "--refine", str(fitted)]
    assert main([*refine, "--iterations", "20"]) == 0
    summary = capsys.readouterr().out
    assert re.search(r"refining .*: \d+\.\d\d dB before, \d+\.\d\d dB refined", summary)
    began, ended = report_in(fitted), report_in(out)
    assert ended["gaussians"] == began["gaussians"]
    assert ("; not converged: 50 more steps would" in summary) == (not ended["converged"])
    assert float(str(ended["voxel_psnr"])) >= float(str(began["voxel_psnr"]))
    assert "leave one of them out" in refused(capsys, *refine, "--resume")
    elsewhere = ["fit", stack, "-o", tmp_path / "other", "--refine", fitted]
    line = refused(capsys, *elsewhere, "--spacing", 1, 1, 1)
    assert "is the fit of a stack of spacing (0.3, 0.1, 0.1), this one's is (1.0" in line


def test_points_that_are_none_of_the_stacks_cost_one_line(
    stack: Path, tmp_path: Path, capsys: Capture
) -> None:
    points = tmp_path / "points.csv"
    for text, said in (
        ("axis-0,axis-1,axis-2\n1,1,1\n2,3,90\n", "1 of 2 points lie outside of the stack"),
        ("z,y,x\n0.3,nan,1\n", "expected a finite number"),
        ("z,y\n0.3,1\n", "expected z, y, x (in the stack's unit) or axis-0, axis-1, axis-2"),
        ("z,y,x,unit\n1,1,1,pixel\n", "has points in pixels, the stack 'beads' is in micro"),
        ("z,y,x\n", "has no row"),
    ):
        points.write_text(text)
        line = refused(capsys, "fit", stack, "-o", tmp_path / "out", "--points", points)
        assert said in line
        assert str(points) in line
    assert "cannot be read" in refused(
        capsys, "fit", stack, "-o", tmp_path / "out", "--points", tmp_path / "none.csv"
    )
    assert not (tmp_path / "out").exists()


def test_a_name_in_any_script_is_printed_in_any_encoding(stack: Path, tmp_path: Path) -> None:
    name = tmp_path / "細胞 α.tif"
    name.write_bytes(stack.read_bytes())
    out = tmp_path / "出力"
    environment = os.environ | {"PYTHONIOENCODING": "cp1252:strict"}
    for *arguments, said in (
        ("fit", name, "-o", out, "--iterations", "5", r"\u51fa\u529b: "),
        ("info", name, r"\u7d30\u80de \u03b1.tif"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "napari_gaussfit.cli", *arguments],
            capture_output=True, env=environment, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, b""), done
        assert said in done.stdout.decode("cp1252")
    assert sorted(path.name for path in out.iterdir()) == FILES


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is always full")
def test_a_log_on_a_full_disk_costs_no_fit(stack: Path, tmp_path: Path) -> None:
    program, out = [sys.executable, "-m", "napari_gaussfit.cli"], tmp_path / "out"
    fit = [
        *program,
        "fit",
        str(stack),
        "-o",
        str(out),
        "--gaussians",
        "4",
        "--exactly",
        "--iterations",
        "5",
    ]
    reason = "what was to be printed cannot be: No space left on device"
    for command, redirected, said in (
        (fit, "> /dev/full", reason),
        ([*program, "info", str(out)], "> /dev/full 2>&1", ""),
    ):
        line = f"{shlex.join(command)} {redirected}"
        done = subprocess.run(line, shell=True, capture_output=True, text=True, check=False)
        assert done.returncode == 3, done
        assert done.stderr.strip().endswith(said)
        assert "Traceback" not in done.stderr
    assert sorted(path.name for path in out.iterdir()) == FILES


@pytest.mark.skipif(os.name == "nt", reason="a shell closes the streams")
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_nobody_needs_to_listen(stack: Path, closed: str) -> None:
    command = [sys.executable, "-m", "napari_gaussfit.cli", "info", str(stack)]
    done = subprocess.run(f"{shlex.join(command)} {closed}", shell=True, check=False)
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--gaussians", 0, "--exactly"), "gaussians=0: expected a whole number of at least 1"),
        (("--gaussians", "many", "--exactly"), "invalid int value: 'many'"),
        (("--seed", -1), "seed=-1: expected a whole number of at least 0"),
        (("--max-seconds", "nan"), "max_seconds=nan: expected a number"),
        (("--quality", "best"), "invalid choice: 'best'"),
        (("--loss", "l1"), "invalid choice: 'l1'"),
        (("--iterations", 0), "iterations=0: expected a whole number of at least 1"),
        (("--held-out", 60), "held_out=60: expected fewer than views=60"),
        (("--ssim-weight", 1.5), "ssim_weight=1.5: expected a number from 0 to 1"),
        (("--background", "inf"), "background=inf: expected a number"),
        (("--device", "cuda"), "device=cuda cannot be used: "),
        (("--channel", 3), "channel=3 (--channel 3) is not in the file"),
        (("--spacing", 0, 1, 1), "spacing: dz is 0"),
    ],
)
def test_bad_settings_cost_one_line_and_leave_nothing(
    stack: Path, tmp_path: Path, capsys: Capture, options: tuple[object, ...], said: str
) -> None:
    out = tmp_path / "out"
    assert said in refused(capsys, "fit", stack, "-o", out, *options)
    assert not out.exists()


def test_bad_stacks_cost_one_line_and_leave_nothing(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "empty.tif").touch()
    (tmp_path / "text.tif").write_text("no picture")
    tifffile.imwrite(tmp_path / "flat.tif", np.zeros((20, 30), np.uint8))
    tifffile.imwrite(tmp_path / "same.tif", np.ones((5, 20, 30), np.uint8))
    tifffile.imwrite(tmp_path / "nan.tif", np.full((5, 20, 30), np.nan, np.float32))
    out = tmp_path / "out"
    for name, said in (
        ("none.tif", "there is no such file"),
        ("empty.tif", "is an empty file"),
        ("text.tif", "is not a TIFF"),
        ("flat.tif", "is a single 2D image"),
        ("same.tif", "is 1 in every voxel"),
        ("nan.tif", "every one of its 3,000 voxels is NaN"),
    ):
        line = refused(capsys, "fit", tmp_path / name, "-o", out)
        assert said in line
        assert name in line
        assert not out.exists()


@pytest.mark.parametrize(
    "name",
    [
        "odd/derived_empty.tif",
        "odd/derived_truncated_header8.tif",
        "odd/derived_truncated60pct.tif",
        "odd/hela_rgb16_imagej_bian.tif",
        "odd/psf_float32_with_nan_bian.tif",
        "hyperstack/droplet_TZYX_napari_stress.tif",
        "hyperstack/threechannel_CYX_pyimagej.tif",
    ],
)
def test_odd_real_files_cost_one_line(
    stack_path: Callable[[str], Path], tmp_path: Path, capsys: Capture, name: str
) -> None:
    path = stack_path(name)
    assert path.name in refused(capsys, "fit", path, "-o", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_bad_folder_is_refused_before_the_fit(
    stack: Path, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "file").write_text("mine")
    assert "is a file" in refused(capsys, "fit", stack, "-o", tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_stack_too_large_for_memory_is_refused_with_figures(
    stack: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = psutil.virtual_memory()._replace(available=1_000_000)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    line = refused(capsys, "fit", stack, "-o", tmp_path / "out")
    needed = predict_memory(23_040, 4 * 23_040, FitSettings()) - PROCESS
    assert f"its 23,040 voxels (16 x 40 x 36) need about {needed / 1e9:.3g} GB" in line
    assert "0.001 GB are free" in line


def test_render_along_an_axis_has_the_voxels_own_pixels(fitted: Path, tmp_path: Path) -> None:
    assert main(["render", str(fitted), "-o", str(tmp_path / "y.tif"), "--view", "y"]) == 0
    image = tifffile.imread(tmp_path / "y.tif")
    volume = load(fitted / "fit.safetensors").field.voxelise(SHAPE, (0.3, 0.1, 0.1)).numpy()
    assert image.shape == (16, 36)
    assert image.dtype == np.float32
    # The MIP's maxima lie between voxels: never below the voxels' own.
    assert (image - volume.max(axis=1)).min() > -1e-3 * volume.max()


def test_render_to_look_at_has_square_pixels(fitted: Path, tmp_path: Path) -> None:
    from matplotlib.image import imread

    assert main(["render", str(fitted), "-o", str(tmp_path / "y.png"), "--view", "y"]) == 0
    assert imread(tmp_path / "y.png").shape[:2] == (48, 36)


def test_render_takes_angles_modes_and_the_volume(fitted: Path, tmp_path: Path) -> None:
    fit = str(fitted / "fit.safetensors")
    images = {}
    for mode in ("mip", "soft-mip", "sum"):
        path = tmp_path / f"{mode}.tif"
        angles = ["--azimuth", "-30", "--elevation", "20"]
        assert main(["render", fit, "-o", str(path), *angles, "--mode", mode]) == 0
        images[mode] = tifffile.imread(path)
    assert images["mip"].shape == images["sum"].shape
    assert not np.allclose(images["mip"], images["sum"])
    volume = tmp_path / "volume.ome.tif"
    assert main(["render", fit, "-o", str(volume), "--volume"]) == 0
    assert tifffile.imread(volume).shape == SHAPE


def test_render_refuses_what_contradicts_itself(
    fitted: Path, tmp_path: Path, capsys: Capture
) -> None:
    image = tmp_path / "image.png"
    line = refused(capsys, "render", fitted, "-o", image, "--view", "x", "--azimuth", 3)
    assert "choose one" in line
    assert "has the suffix '.jpg'" in refused(capsys, "render", fitted, "-o", tmp_path / "i.jpg")
    assert "there is no folder" in refused(capsys, "render", fitted, "-o", tmp_path / "n" / "i.png")
    assert "--volume" in refused(capsys, "render", fitted, "-o", image, "--volume")
    assert not list(tmp_path.iterdir())


def test_export_writes_by_suffix(fitted: Path, tmp_path: Path, capsys: Capture) -> None:
    assert main(["export", str(fitted), "-o", str(tmp_path / "g.csv")]) == 0
    assert (tmp_path / "g.csv").read_bytes() == (fitted / "gaussians.csv").read_bytes()
    assert main(["export", str(fitted), "-o", str(tmp_path / "v.ome.tif")]) == 0
    assert tifffile.imread(tmp_path / "v.ome.tif").shape == SHAPE
    line = refused(capsys, "export", fitted, "-o", tmp_path / "g.xls")
    assert ".csv (a table of the Gaussians)" in line
    assert "no such file" in refused(capsys, "export", tmp_path / "no", "-o", tmp_path / "n.csv")


def test_export_writes_gaussians_and_volumes_that_open_again(
    fitted: Path, stack: Path, tmp_path: Path
) -> None:
    ply, table, zarr = (tmp_path / name for name in ("g.ply", "g.csv", "v.ome.zarr"))
    for path in (ply, table, zarr):
        assert main(["export", str(fitted), "-o", str(path)]) == 0
    field = load(fitted / "fit.safetensors").field
    again = tmp_path / "again.safetensors"
    for options in ([str(ply)], [str(table), "--stack", str(stack)]):
        assert main(["export", *options, "-o", str(again), "--force"]) == 0
        np.testing.assert_array_equal(load(again).field.means, field.means)
    assert Stack.open(zarr).spacing == (0.3, 0.1, 0.1)


def test_gaussians_from_other_programs_are_described_and_rendered(
    fitted: Path, tmp_path: Path, capsys: Capture
) -> None:
    ply, image = tmp_path / "g.ply", tmp_path / "mip.tif"
    assert main(["export", str(fitted), "-o", str(ply)]) == 0
    assert main(["info", str(ply)]) == 0
    said = capsys.readouterr().out
    assert "16 x 40 x 36 voxels" in said
    assert "unfinished" not in said
    assert main(["render", str(ply), "-o", str(image)]) == 0
    assert main(["render", str(fitted), "-o", str(tmp_path / "own.tif")]) == 0
    expected = tifffile.imread(tmp_path / "own.tif")
    off = np.abs(tifffile.imread(image) - expected).max() / np.ptp(expected)
    assert off < 1e-5, f"off by {off:.1e} of the range"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_there_already_is_replaced_by_force_alone(
    fitted: Path, stack: Path, tmp_path: Path, capsys: Capture
) -> None:
    fit, raw = tmp_path / "fit.safetensors", tmp_path / "raw.ome.tif"
    shutil.copy(fitted / "fit.safetensors", fit)
    shutil.copy(stack, raw)
    for name in ("table.csv", "volume.ome.zarr"):
        assert main(["export", str(fit), "-o", str(tmp_path / name)]) == 0
    (tmp_path / "view.png").write_bytes(b"mine")
    before = contents(tmp_path)
    for target in ("table.csv", "volume.ome.zarr"):
        line = refused(capsys, "export", fit, "-o", tmp_path / target)
        assert "exists; --force replaces it" in line
    assert "exists; --force replaces it" in refused(
        capsys, "render", fit, "-o", tmp_path / "view.png"
    )
    volume = ("render", fit, "--volume", "-o")
    assert "exists; --force replaces it" in refused(capsys, *volume, tmp_path / "volume.ome.zarr")
    assert "would write over" in refused(capsys, "export", fit, "-o", fit)
    assert "would write over" in refused(capsys, "export", tmp_path, "-o", fit)
    line = refused(capsys, "export", fit, "--stack", raw, "-o", raw, "--residual", "--force")
    assert "which is read; give another place" in line
    assert contents(tmp_path) == before
    assert main(["render", str(fit), "-o", str(tmp_path / "view.png"), "--force"]) == 0
    assert (tmp_path / "view.png").read_bytes() != b"mine"
    assert main(["export", str(fit), "-o", str(tmp_path / "volume.ome.zarr"), "--force"]) == 0


def test_a_zarr_that_is_not_ours_is_never_removed(
    fitted: Path, tmp_path: Path, capsys: Capture
) -> None:
    recorded, ours = tmp_path / "recorded.zarr", tmp_path / "ours.ome.zarr"
    zarr.save_array(recorded, np.ones((3, 4, 5)))
    assert main(["export", str(fitted), "-o", str(ours)]) == 0
    zarr.open_group(ours, mode="r+").create_group("labels")
    before = contents(tmp_path)
    for path in (recorded, ours):
        line = refused(capsys, "export", fitted, "-o", path, "--force")
        assert "never removed; give another name" in line
        line = refused(capsys, "render", fitted, "--volume", "-o", path, "--force")
        assert "never removed; give another name" in line
    inner = tmp_path / "recorded.zarr" / "c.ome.tif"
    residual = ("export", fitted, "--residual", "--stack", recorded, "-o")
    assert "which is read" in refused(capsys, *residual, inner, "--force")
    assert contents(tmp_path) == before


def test_a_checkpoint_needs_no_stack_where_its_size_and_spacing_are_given(
    tmp_path: Path, capsys: Capture
) -> None:
    path, out = tmp_path / "model.pt", tmp_path / "fit.safetensors"
    state = {"means": torch.full((2, 3), 0.5), "log_scales": torch.full((2, 3), -3.0)}
    torch.save({**state, "weights": torch.zeros(2)}, path)
    asked = refused(capsys, "export", path, "-o", out)
    assert "--box Z Y X --spacing DZ DY DX" in asked
    assert "--box needs --spacing" in refused(capsys, "export", path, "-o", out, "--box", 2, 4, 6)
    assert "give it too (--stack)" in refused(capsys, "export", path, "-o", out, "--time", 0)
    box = ["--box", "2", "4", "6", "--spacing", "0.5", "0.2", "0.2"]
    assert main(["export", str(path), "-o", str(out), *box]) == 0
    assert "in parts of its stack's range" in capsys.readouterr().err
    fit = load(out)
    assert (fit.stack.shape, fit.stack.spacing, fit.stack.unit) == (
        (4, 20, 30),
        (0.5, 0.2, 0.2),
        "micrometer",
    )
    np.testing.assert_allclose(fit.field.means, [[0.75, 1.9, 2.9]] * 2, atol=1e-6)


def test_a_scene_about_the_origin_is_rendered_whole_with_a_note(
    tmp_path: Path, capsys: Capture
) -> None:
    names = ("x", "y", "z", "opacity", "scale_0", "scale_1", "scale_2")
    turn = ("rot_0", "rot_1", "rot_2", "rot_3")
    rows = np.zeros(2, [(name, "f4") for name in (*names, *turn)])
    rows["rot_0"], rows["y"] = 1, 3
    rows["x"], rows["z"] = [-6, 6], [-2, 2]
    PlyData([PlyElement.describe(rows, "vertex")]).write(tmp_path / "scene.ply")
    assert main(["render", str(tmp_path / "scene.ply"), "-o", str(tmp_path / "z.tif")]) == 0
    assert "all were moved by 2 x 0 x 6" in capsys.readouterr().err
    image = tifffile.imread(tmp_path / "z.tif")
    assert image[3, 0] == pytest.approx(0.5, rel=1e-3)
    assert image[3, 12] == pytest.approx(0.5, rel=1e-3)
    assert main(["info", str(tmp_path / "scene.ply")]) == 0
    assert "all were moved by 2 x 0 x 6" in capsys.readouterr().out


def test_export_writes_what_the_fit_lacks(
    fitted: Path, stack: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "residual.ome.tif"
    assert main(["export", str(fitted), "-o", str(out), "--stack", str(stack), "--residual"]) == 0
    field = load(fitted / "fit.safetensors").field
    voxels = Stack.open(stack).voxels
    np.testing.assert_allclose(
        tifffile.imread(out), voxels - field.voxelise(SHAPE, (0.3, 0.1, 0.1)).numpy(), atol=1e-3
    )
    again = ["export", fitted, "-o", out, "--residual", "--force"]
    assert "--stack" in refused(capsys, *again)
    assert "give that stack" in refused(capsys, *again, "--stack", stack, "--spacing", 1, 1, 1)


def test_several_channels_share_their_gaussians_from_file_to_file(
    tmp_path: Path, stack: Path, capsys: Capture
) -> None:
    one = Stack.open(stack)
    colours, out = tmp_path / "colours.ome.tif", tmp_path / "out"
    volume = np.stack([one.voxels, 2.0 * one.voxels + 5, one.voxels.max() - one.voxels])
    write_ome_tiff(colours, volume, spacing=one.spacing, unit=one.unit, name="colours")
    command = ["fit", str(colours), "-o", str(out), "--channel", "0", "1"]
    assert main([*command, "--gaussians", "10", "--exactly", "--quality", "preview"]) == 0
    assert sorted(path.name for path in out.iterdir()) == sorted([*FILES, "channels.csv"])
    saved = load(out / "fit.safetensors")
    assert len(saved.fields) == 2
    ratio = saved.fields[1].amplitudes / saved.field.amplitudes
    assert float(ratio[saved.field.amplitudes > 300].median()) == pytest.approx(2.0, rel=0.05)
    [other] = report_in(out)["other_channels"]  # type: ignore[misc]
    [pair] = report_in(out)["channel_pairs"]  # type: ignore[misc]
    assert (pair["channel_1"], pair["channel_2"]) == (0, 1)
    a, b = (field.numpy().integrated_intensities().sum() for field in load(out).fields)
    assert pair["ratio"] == pytest.approx(b / a, rel=1e-3)  # which is of them as measured
    assert pd.read_csv(out / "channels.csv").to_dict("records") == [pytest.approx(pair)]
    assert other["voxel_psnr"] > 30
    header = (out / "gaussians.csv").read_text(encoding="utf-8").splitlines()[0]
    assert "amplitude_0,integrated_intensity_0,amplitude_1,integrated_intensity_1" in header

    assert main(["info", str(out)]) == 0
    assert "2, an amplitude in each" in capsys.readouterr().out
    assert main([*command, "--resume"]) == 0
    assert "this fit is finished" in capsys.readouterr().out
    other_two = ["fit", colours, "-o", out, "--channel", 0, 2, "--resume"]
    assert "is the fit of other voxels" in refused(capsys, *other_two)

    residual = tmp_path / "residual.ome.zarr"
    export = ["export", str(out), "-o", str(residual), "--residual", "--stack", str(colours)]
    assert main([*export, "--channel", "0", "1"]) == 0
    for left, field, was in zip(
        Stack.open_channels(residual), saved.fields, volume[:2], strict=True
    ):
        expected = was - field.voxelise(SHAPE, (0.3, 0.1, 0.1)).numpy()
        np.testing.assert_allclose(left.voxels, expected, atol=1e-2)
    assert "the fit is of 2 channel(s)" in refused(capsys, *export, "--channel", 0, "--force")


def test_info_names_the_backend_and_why_no_other(capsys: Capture) -> None:
    assert main(["info"]) == 0
    said = capsys.readouterr().out
    assert "numba, on the CPU" in said
    assert "built without CUDA" in said or "no NVIDIA GPU" in said or "numba-cuda" in said


def test_info_says_how_many_gaussians_a_stack_would_carry(stack: Path, capsys: Capture) -> None:
    assert main(["info", str(stack), "--how-many"]) == 0
    printed = capsys.readouterr().out
    assert "as many as the noise allows: about" in printed
    assert "dB; noise, of what is added:" in printed


def test_how_many_is_asked_of_a_stack_alone(capsys: Capture) -> None:
    assert main(["info", "--how-many"]) == 2
    assert "--how-many: this machine is no single stack" in capsys.readouterr().err


def test_info_of_a_stack_and_of_a_fit(fitted: Path, stack: Path, capsys: Capture) -> None:
    assert main(["info", str(stack)]) == 0
    said = capsys.readouterr().out
    assert "16 x 40 x 36 voxels" in said
    assert "0.3 x 0.1 x 0.1 micrometer" in said
    assert "as many as the noise carries" in said
    assert main(["info", str(fitted)]) == 0
    assert "heldout_mip_psnr" in capsys.readouterr().out


def test_info_groups_counts_by_thousands_for_a_person_alone(
    tmp_path: Path, capsys: Capture
) -> None:
    path = tmp_path / "many.safetensors"
    some_fit(1234).save(path)
    assert main(["info", str(path)]) == 0
    assert "1,234\n" in capsys.readouterr().out
    assert main(["info", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["gaussians"] == 1234


def test_info_of_a_stack_with_channels_says_what_to_choose(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "two.ome.tif"
    voxels = np.random.default_rng(0).integers(0, 99, (2, 5, 20, 30), np.uint16)
    tifffile.imwrite(path, voxels, ome=True, metadata={"axes": "CZYX"})
    assert main(["info", str(path)]) == 0
    assert "choose channel=N (--channel N), N from 0 to 1" in capsys.readouterr().out


def started(stack: Path, out: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "napari_gaussfit.cli", "fit", str(stack), "-o", str(out)]
    return subprocess.Popen(
        [*command, "--gaussians", "300", "--exactly", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_until_saved(process: subprocess.Popen[str], out: Path) -> None:
    deadline = time.monotonic() + 120
    while not (out / "fit.safetensors").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture(params=["SIGINT", "SIGTERM"])
def ending(request: pytest.FixtureRequest) -> signal.Signals:
    return signal.Signals[request.param]


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no signals to send to a process")
def test_an_interrupted_fit_is_saved_and_goes_on(
    fitted: Path, stack: Path, tmp_path: Path, ending: signal.Signals
) -> None:
    assert fitted.exists()
    out = tmp_path / "out"
    process = started(stack, out, "--quality", "fine")
    wait_until_saved(process, out)
    process.send_signal(ending)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert sorted(path.name for path in out.iterdir()) == FILES
    begun = int(str(report_in(out)["iterations"]))
    assert begun < 2500
    again = started(stack, out, "--quality", "fine", "--resume", "--max-seconds", "6")
    _, said = again.communicate(timeout=120)
    assert again.returncode == 0, said
    assert int(str(report_in(out)["iterations"])) > begun


@pytest.mark.slow
def test_a_killed_fit_goes_on(fitted: Path, stack: Path, tmp_path: Path) -> None:
    assert fitted.exists()
    out = tmp_path / "out"
    process = started(stack, out, "--quality", "preview", "--seed", "5")
    wait_until_saved(process, out)
    process.kill()
    process.communicate()
    assert not (out / "report.json").exists()
    again = started(stack, out, "--resume")
    _, said = again.communicate(timeout=120)
    assert again.returncode == 0, said
    assert sorted(path.name for path in out.iterdir() if path.name in FILES) == FILES
    settings = report_in(out)["settings"]
    assert isinstance(settings, dict)
    assert (settings["quality"], settings["seed"]) == ("preview", 5)
    assert report_in(out)["iterations"] == 150


def test_a_demo_without_a_terminal_opens_no_window(monkeypatch: pytest.MonkeyPatch) -> None:
    from napari_gaussfit.cli.demo import has_screen

    monkeypatch.setenv("DISPLAY", ":0")
    assert not has_screen()


def test_the_demos_window_runs_nothing_that_lies_in_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_gaussfit.cli import demo

    asked: list[list[str]] = []
    monkeypatch.setattr(demo, "has_screen", lambda: True)
    monkeypatch.setattr(demo.subprocess, "run", lambda command, **_: asked.append(command))
    demo.show(tmp_path)
    monkeypatch.undo()
    [command] = asked
    python = command[: command.index("-m")]
    assert command[len(python) :][:2] == ["-m", "napari"]
    (tmp_path / "queue.py").write_text("raise SystemExit('this was run')\n")
    for asking in (["-c", "import queue"], ["-m", "queue"]):
        done = subprocess.run([*python, *asking], cwd=tmp_path, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_demo_finds_the_truth(tmp_path: Path, capsys: Capture) -> None:
    assert main(["demo", "-o", str(tmp_path / "demo")]) == 0
    said = capsys.readouterr().out
    assert "50 true Gaussians" in said
    assert sorted(path.name for path in (tmp_path / "demo").iterdir()) == sorted(
        [*FILES, "stack.ome.tif", "truth.csv"]
    )
    centre = next(line for line in said.splitlines() if line.strip().startswith("centre"))
    assert float(centre.split("median")[1].split("nm")[0]) < 10, said
