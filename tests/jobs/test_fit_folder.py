"""What a fit leaves in its folder, read without this project's code."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_gaussfit.errors import FormatError, OutputError, SettingsError
from napari_gaussfit.fitting.fit import Fit
from napari_gaussfit.fitting.result import load
from napari_gaussfit.formats.registry import fit_path
from napari_gaussfit.jobs.fit_folder import (
    FitFolder,
    checked_folder,
    is_finished,
    resumed_settings,
)
from napari_gaussfit.measure.table import ERRORS
from napari_gaussfit.settings import FitSettings
from napari_gaussfit.stacks.stack import Stack
from napari_gaussfit.synthetic.phantoms import beads, neurite

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

SETTINGS = FitSettings(exactly=True, gaussians=60, iterations=60, views=8, held_out=2)

SYMMETRIC = ("zz", "zy", "zx", "yy", "yx", "xx")

REPORT_KEYS = {
    "psf",
    "stack", "shape", "spacing", "unit", "gaussians", "background", "heldout_mip_psnr",
    "heldout_mip_ssim", "heldout_noise_psnr", "train_mip_psnr", "mip_psnr_gap", "voxel_psnr",
    "noise_psnr",
    "consistency_psnr", "compression", "seconds", "iterations", "device", "backend",
    "peak_memory_mb", "seed", "version", "notes",
    "converged", "convergence", "count_reason", "noise", "measured", "gain", "offset",
    "read_noise", "saturation",
}  # fmt: skip

COLUMNS = [
    "index", "axis-0", "axis-1", "axis-2", "z", "y", "x", "amplitude",
    "cov_zz", "cov_zy", "cov_zx", "cov_yy", "cov_yx", "cov_xx", "sigma_1", "sigma_2", "sigma_3",
    "fwhm_1", "fwhm_2", "fwhm_3", "fwhm_z", "fwhm_y", "fwhm_x",
    "axis_1_z", "axis_1_y", "axis_1_x",
    "axis_2_z", "axis_2_y", "axis_2_x", "axis_3_z", "axis_3_y", "axis_3_x",
    "integrated_intensity", *ERRORS,
    "reduced_chi2", "flags", "unit",
]  # fmt: skip


@pytest.fixture(scope="module")
def stack() -> Stack:
    return neurite(shape=(16, 48, 40)).stack


@pytest.fixture(scope="module")
def folder(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> FitFolder:
    """The folder of a finished fit."""
    folder = FitFolder(tmp_path_factory.mktemp("out") / "fit", (stack,))
    folder.path.mkdir()
    fit = Fit(stack, SETTINGS)
    for _ in fit:
        pass
    folder.finish(fit)
    return folder


@pytest.fixture
def report(folder: FitFolder) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        pytest.fail(f"report.json holds {constant}, which is no JSON")

    text = (folder.path / "report.json").read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text, parse_constant=refuse)
    return loaded


def rows(folder: FitFolder) -> list[dict[str, str]]:
    with (folder.path / "gaussians.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def summed(folder: FitFolder, background: float) -> NDArray[np.float64]:
    """Return background + the sum over the table's rows at the voxel centres, in float64."""
    [stack] = folder.stacks
    steps = [np.arange(n) * d for n, d in zip(stack.shape, stack.spacing, strict=True)]
    points = np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1)
    total = np.full(stack.shape, background)
    for row in rows(folder):
        zz, zy, zx, yy, yx, xx = (float(row[f"cov_{n}"]) for n in SYMMETRIC)
        precision = np.linalg.inv([[zz, zy, zx], [zy, yy, yx], [zx, yx, xx]])
        offset = points - [float(row[axis]) for axis in "zyx"]
        exponent = np.einsum("...i,ij,...j->...", offset, precision, offset)
        total += float(row["amplitude"]) * np.exp(-0.5 * exponent)
    return total


def test_table_and_fit_say_which_time_and_channel_of_a_file_they_are_of(
    stack: Stack, tmp_path: Path
) -> None:
    folder = FitFolder(tmp_path, (replace(stack, channel=1, time=2),))
    fit = Fit(folder.stacks, replace(SETTINGS, iterations=2))
    for _ in fit:
        pass
    folder.finish(fit)
    assert {(row["channel"], row["time"]) for row in rows(folder)} == {("1", "2")}
    assert load(tmp_path / "fit.safetensors").stack.place == {"channel": 1, "time": 2}
    together = Fit(folder.stacks * 2, replace(SETTINGS, iterations=1))
    for _ in together:
        pass
    place = together.checkpoint().stack.place
    assert place == {"time": 2}, "channels that are fitted together are not one"


def test_folder_holds_its_files_and_nothing_half_written(folder: FitFolder) -> None:
    found = sorted(path.name for path in folder.path.iterdir())
    assert found == [
        *("fit.safetensors", "gaussians.csv", "gaussians.png"),
        *("history.png", "noise.png", "projections.png", "report.json", "settings.toml"),
    ]


def test_table_and_background_reproduce_the_reported_psnr(
    folder: FitFolder, report: dict[str, Any]
) -> None:
    voxels = folder.stacks[0].voxels.astype(np.float64)
    error = np.square(summed(folder, report["background"]) - voxels).mean()
    found = 10 * np.log10((voxels.max() - voxels.min()) ** 2 / error)
    assert report["voxel_psnr"] == pytest.approx(found, abs=0.05)


def test_table_has_its_columns_and_a_row_each(folder: FitFolder, report: dict[str, Any]) -> None:
    table = rows(folder)
    assert list(table[0]) == COLUMNS
    assert len(table) == report["gaussians"] <= 60
    assert {row["unit"] for row in table} == {"micrometer"}


def test_report_has_its_keys_the_settings_and_the_history(report: dict[str, Any]) -> None:
    assert report.keys() == REPORT_KEYS | {"settings", "history"}
    assert report["settings"] == SETTINGS.to_dict()
    assert report["history"]["iteration"] == [10, 20, 30, 40, 50, 60]
    assert report["history"]["loss"][0] > report["history"]["loss"][-1] > 0


def test_what_is_not_known_is_null_in_the_report(tmp_path: Path, stack: Stack) -> None:
    folder = FitFolder(tmp_path, (stack,))
    fit = Fit(stack, replace(SETTINGS, objective="mip", iterations=10))
    for _ in fit:
        pass
    folder.finish(fit)
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert report["history"]["voxel_psnr"] == [None]


def test_a_finished_fit_says_so(folder: FitFolder) -> None:
    saved = folder.saved()
    assert is_finished(saved, resumed_settings(saved, {}))
    assert fit_path(folder.path) == folder.path / "fit.safetensors"


def test_a_folder_without_a_fit_is_no_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="is a folder that holds no fit"):
        fit_path(tmp_path)


def test_a_saved_fit_goes_on_to_the_same_field(
    folder: FitFolder, stack: Stack, tmp_path: Path
) -> None:
    broken = FitFolder(tmp_path, (stack,))
    fit = Fit(stack, SETTINGS)
    for snapshot in fit:
        if snapshot.iteration >= 5:
            break
    broken.save(fit.checkpoint())
    saved = broken.saved()
    assert not is_finished(saved, resumed_settings(saved, {}))
    again = Fit(stack, resumed_settings(saved, {}))
    again.restore(saved)
    for _ in again:
        pass
    whole = load(folder.path / "fit.safetensors").field
    assert np.array_equal(again.snapshot().field.means, whole.means)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"voxels": 1}, "is the fit of other voxels"),
        ({"shape": 1}, "is the fit of a stack of shape"),
        ({"spacing": 1}, "is the fit of a stack of spacing"),
    ],
)
def test_the_fit_of_another_stack_is_refused(
    folder: FitFolder, stack: Stack, change: dict[str, int], complaint: str
) -> None:
    voxels = stack.voxels + (1 if "voxels" in change else 0)
    other = Stack.from_array(
        voxels[:-1] if "shape" in change else voxels,
        spacing=(1, 1, 1) if "spacing" in change else stack.spacing,
    )
    with pytest.raises(FormatError, match=complaint):
        FitFolder(folder.path, (other,)).saved()


def test_other_settings_are_refused_with_both_values(folder: FitFolder) -> None:
    saved = folder.saved()
    with pytest.raises(SettingsError, match="gaussians=61: the saved fit has 60"):
        resumed_settings(saved, {"gaussians": 61})
    assert resumed_settings(saved, {"gaussians": 60, "max_seconds": 5.0}).max_seconds == 5.0


def test_a_folder_that_cannot_be_is_refused_and_nothing_is_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="is a file; give a folder"):
        checked_folder(tmp_path / "file")
    with pytest.raises(OutputError, match="is a file; give a folder"):
        checked_folder(tmp_path / "file" / "out")
    assert checked_folder(tmp_path / "new" / "out") == tmp_path / "new" / "out"
    assert not (tmp_path / "new").exists()


def test_spots_are_measured_when_their_fit_has_ended(tmp_path: Path) -> None:
    made = beads(count=4, shape=(24, 64, 64), photons=300)
    folder = FitFolder(tmp_path, (made.stack,))
    fit = Fit(made.stack, replace(SETTINGS, gaussians=4))
    for _ in fit:
        pass
    result, failed = folder.finish(fit)
    assert not failed
    assert result.report.measured.startswith("yes: ")
    table = rows(folder)
    true = made.truth.means.numpy()
    for row in table:
        nearest = true[np.argmin(np.linalg.norm(true - [float(row[a]) for a in "zyx"], axis=1))]
        for n, axis in enumerate("zyx"):
            error = abs(float(row[axis]) - float(nearest[n]))
            assert error < 5 * float(row[f"sd_{axis}"]), (axis, row["flags"])
    # What the fit goes on from is as the fit left it.
    [kept] = load(tmp_path / "fit.safetensors").fields
    np.testing.assert_array_equal(kept.means.numpy(), result.field.means.numpy())


def test_a_structure_is_not_measured_unless_asked(
    folder: FitFolder, report: dict[str, Any]
) -> None:
    assert report["measured"].startswith("no: ")
    assert "make up structures together" in report["measured"]
    assert {row["sd_z"] for row in rows(folder)} == {""}
