"""`napari-gaussfit measure` writes the table of a fit with error bars that are true."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from napari_gaussfit.cli.commands import main
from napari_gaussfit.fitting.result import FitResult
from napari_gaussfit.measure.optics import Optics
from napari_gaussfit.measure.psf import Psf
from napari_gaussfit.model.field import GaussianField
from napari_gaussfit.model.gaussians import FWHM_PER_SIGMA
from napari_gaussfit.stacks.stack import Stack
from napari_gaussfit.stacks.tiff import write_ome_tiff

if TYPE_CHECKING:
    from pathlib import Path

    Capture = pytest.CaptureFixture[str]

SPACING = (0.3, 0.1, 0.1)


@pytest.fixture(scope="module")
def truth() -> GaussianField:
    rng = np.random.default_rng(0)
    cells = np.stack(np.meshgrid([0], range(4), range(4), indexing="ij"), -1).reshape(-1, 3)
    means = ((cells + 0.5) * 24 + rng.uniform(-1, 1, (16, 3))) * SPACING
    covariances = np.tile(np.diag(np.square([0.6, 0.17, 0.15])), (16, 1, 1))
    return GaussianField.from_covariances(means, covariances, np.full(16, 200.0), background=20.0)


@pytest.fixture(scope="module")
def files(truth: GaussianField, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A stack, and a fit of it that has stopped a little beside."""
    folder = tmp_path_factory.mktemp("measured")
    light = truth.voxelise((24, 96, 96), SPACING).numpy()
    voxels = np.random.default_rng(1).poisson(light).astype(np.uint16)
    write_ome_tiff(folder / "s.ome.tif", voxels, spacing=SPACING, unit="micrometer", name="s")
    stack = Stack.open(folder / "s.ome.tif")
    beside = replace(truth, means=truth.means + 0.02, amplitudes=truth.amplitudes * 0.9)
    FitResult((beside,), stack.facts).save(folder / "fit.safetensors")
    return folder / "s.ome.tif", folder / "fit.safetensors"


def test_the_table_has_the_truth_within_its_error_bars(
    truth: GaussianField, files: tuple[Path, Path], tmp_path: Path, capsys: Capture
) -> None:
    stack, fit = files
    table = tmp_path / "measured.csv"
    assert main(["measure", str(fit), str(stack), "-o", str(table)]) == 0
    assert "16 of 16 Gaussians determined, in the median to 0.0" in capsys.readouterr().out
    rows = pd.read_csv(table)
    for n, axis in enumerate("zyx"):
        pulls = (rows[axis] - truth.means.numpy()[:, n]) / rows[f"sd_{axis}"]
        assert 0.5 < np.sqrt(np.mean(pulls**2)) < 1.6, axis
    assert rows["reduced_chi2"].mean() == pytest.approx(1.0, abs=0.1)
    assert rows["flags"].isna().all()
    assert main(["measure", str(fit), str(stack), "-o", str(table)]) == 2, "replaced unasked"


def test_a_detector_that_is_given_counts(
    files: tuple[Path, Path], tmp_path: Path, capsys: Capture
) -> None:
    stack, fit = files
    sizes = []
    for gain in ("1", "4"):
        table = tmp_path / f"{gain}.csv"
        assert main(["measure", str(fit), str(stack), "-o", str(table), "--gain", gain]) == 0
        sizes.append(pd.read_csv(table)["sd_amplitude"].median())
    # Four times the gain: a fourth of the photons, and errors twice as large.
    assert sizes[1] == pytest.approx(2 * sizes[0], rel=0.05)
    assert main(["measure", str(fit), str(stack), "-o", str(tmp_path / "x.png")]) == 2
    assert "expected a name that ends in .csv" in capsys.readouterr().err


def test_what_is_known_beforehand_counts(
    files: tuple[Path, Path], tmp_path: Path, capsys: Capture
) -> None:
    """One width for all; the widths that a point spread function leaves to objects; points."""
    stack, fit = files
    optics = ("--psf", "1.2,500,1.33")
    tables = {}
    for name, options in {
        "shared": ("--widths", "shared", "--shape", "aligned"),
        "blurred": optics,
        "points": (*optics, "--shape", "point"),
    }.items():
        path = tmp_path / f"{name}.csv"
        assert main(["measure", str(fit), str(stack), "-o", str(path), *options]) == 0
        tables[name] = pd.read_csv(path)
    said = capsys.readouterr().out
    assert "assumed: axes along z, y, x, one width for all" in said
    assert "assumed: points, blurred by a PSF of FWHM " in said
    assert tables["shared"]["fwhm_1"].nunique() == 1
    assert (tables["shared"]["sd_fwhm_1"] < 0.3 * tables["blurred"]["sd_fwhm_1"]).all()
    psf = Psf.of_optics(Optics(1.2, 500, 1.33))
    own = np.sqrt((0.6 * FWHM_PER_SIGMA) ** 2 - psf.fwhm[0] ** 2)
    off = tables["blurred"]["object_fwhm_1"] - own
    assert (np.abs(off) < 4 * tables["blurred"]["sd_object_fwhm_1"]).all()
    assert (tables["points"]["sd_x"] > 0).all()
    np.testing.assert_allclose(tables["points"]["fwhm_1"], psf.fwhm[0], rtol=1e-5)
    table = str(tmp_path / "no.csv")
    assert main(["measure", str(fit), str(stack), "-o", table, "--shape", "point"]) == 2
    assert "a point is as wide as light makes it; give psf" in capsys.readouterr().err


def test_a_terminal_is_told_how_many_are_steady_where_not_all_is_free(
    files: tuple[Path, Path], tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack, fit = files
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    for widths in ("free", "shared", "given"):
        table = tmp_path / f"{widths}.csv"
        assert main(["measure", str(fit), str(stack), "-o", str(table), "--widths", widths]) == 0
        assert ("16 of 16 steady" in capsys.readouterr().err) == (widths != "free")


def test_where_nothing_is_known_gaussians_are_measured_as_in_a_notebook(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    stack, fit = files
    table, other = tmp_path / "prompt.csv", tmp_path / "notebook.csv"
    assert main(["measure", str(fit), str(stack), "-o", str(table)]) == 0
    FitResult.load(fit).measured(Stack.open(stack)).export(other)
    assert table.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("what", ["spacing", "shape", "unit"])
def test_a_stack_that_is_not_the_one_that_was_fitted_is_refused(
    files: tuple[Path, Path], tmp_path: Path, capsys: Capture, what: str
) -> None:
    path, fit = files
    stack, other, table = Stack.open(path), tmp_path / "other.ome.tif", tmp_path / "no.csv"
    voxels, spacing = (stack.voxels[:-2] if what == "shape" else stack.voxels), stack.spacing
    if what == "spacing":
        spacing = (1.2 * spacing[0], *spacing[1:])
    unit = "pixel" if what == "unit" else stack.unit
    write_ome_tiff(other, voxels, spacing=spacing, unit=unit, name="s")
    assert main(["measure", str(fit), str(other), "-o", str(table)]) == 2
    assert "the fit is of 1 channel(s) of shape" in capsys.readouterr().err
    assert not table.exists()


def test_a_spacing_that_a_file_has_rounded_is_that_of_the_fit(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    path, fit = files
    stack, other, table = Stack.open(path), tmp_path / "other.ome.tif", tmp_path / "same.csv"
    z, y, x = stack.spacing
    rounded = z, y, x * (1 + 1e-6)
    write_ome_tiff(other, stack.voxels, spacing=rounded, unit=stack.unit, name="s")
    assert main(["measure", str(fit), str(other), "-o", str(table)]) == 0
    assert table.exists()
