"""``napari-gaussfit spots``."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
import tifffile

from napari_gaussfit.cli.commands import main
from napari_gaussfit.cli.exits import Exit
from napari_gaussfit.formats.csv import read_csv
from napari_gaussfit.measure.psf import Psf
from napari_gaussfit.model.field import GaussianField
from napari_gaussfit.model.gaussians import FWHM_PER_SIGMA
from napari_gaussfit.stacks.tiff import write_ome_tiff
from napari_gaussfit.synthetic.phantoms import photon_counts, spots

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    """48 spots, in a file."""
    path = tmp_path / "stack.tif"
    voxels = spots(peak=100.0).stack.voxels
    tifffile.imwrite(
        path, voxels, imagej=True, resolution=(10, 10),
        metadata={"axes": "ZYX", "spacing": 0.2, "unit": "um"},
    )  # fmt: skip
    return path


def test_spots_writes_a_table_a_report_and_a_picture(
    stack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["spots", str(stack), "-o", str(out)]) == 0
    assert "48 spots" in capsys.readouterr().out
    table = pd.read_csv(out / "objects.csv")
    assert len(table) == 48
    assert (table["sd_x"] > 0).all()
    report = json.loads((out / "report.json").read_text())
    assert report["spots"] == 48
    assert report["noise"]["gain"] == pytest.approx(1.0, abs=0.1)
    assert (out / "spots.png").read_bytes().startswith(b"\x89PNG")
    assert len(read_csv(out / "objects.csv")) == 48


def test_a_terminal_is_told_what_is_being_done_and_a_file_is_not(
    stack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stack of a thousand candidates takes a minute, which was silent."""
    for out in ("file", "terminal"):
        if out == "terminal":
            monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        assert main(["spots", str(stack), "-o", str(tmp_path / out)]) == 0
        said = capsys.readouterr().err
        assert ("48 that may be spots are refined" in said) == (out == "terminal")
        assert ("48 spots are measured" in said) == (out == "terminal")


def test_a_picture_that_cannot_be_written_costs_nothing_else(
    stack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its report and settings were missing too, and the exit code said that nothing was done."""
    out, further = tmp_path / "out", tmp_path / "spots.ply"
    (out / "spots.png" / "held").mkdir(parents=True)
    given = ["spots", str(stack), "-o", str(out), "--force", "--also", str(further)]
    with patch("napari_gaussfit.files.PATIENCE_SECONDS", 0.0):
        assert main(given) == Exit.NOT_WRITTEN
    said = capsys.readouterr()
    assert "48 spots" in said.out
    assert "spots.png: " in said.err
    assert len(pd.read_csv(out / "objects.csv")) == 48
    assert json.loads((out / "report.json").read_text())["spots"] == 48
    assert (out / "settings.toml").is_file()
    assert further.is_file()


def test_spots_are_points_where_their_width_is_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two that stand a sigma and a half from each other are two."""
    spacing, blur = (0.2, 0.1, 0.1), np.array([0.4, 0.15, 0.15])
    psf = Psf.of_fwhm(FWHM_PER_SIGMA * blur)
    psf.save(tmp_path / "psf.json")
    middles = np.stack(np.meshgrid([2.8], [1.6, 4.8], [1.6, 4.8], indexing="ij"), -1).reshape(-1, 3)
    off = np.array([0.0, 0.75, 0.0]) * blur
    truth = GaussianField.from_covariances(
        np.concatenate([middles - off, middles + off]),
        np.tile(psf.matrix, (8, 1, 1)),
        np.full(8, 100.0),
        background=10.0,
    )
    voxels = photon_counts(truth, (28, 64, 64), spacing).stack.voxels
    path, out = tmp_path / "pairs.ome.tif", tmp_path / "out"
    write_ome_tiff(path, voxels, spacing=spacing, unit="micrometer", name="pairs")
    assert main(["spots", str(path), "-o", str(out), "--psf", str(tmp_path / "psf.json")]) == 0
    assert "8 spots" in capsys.readouterr().out
    table = pd.read_csv(out / "objects.csv")
    np.testing.assert_allclose(table["fwhm_1"], psf.fwhm[0], rtol=1e-5)
    assert json.loads((out / "report.json").read_text())["psf"] == psf.words
    given = ["spots", str(path), "-o", str(tmp_path / "no"), "--psf", str(tmp_path / "psf.json")]
    assert main([*given, "--likelihood", "squared"]) == 2
    assert "tells no points apart" in capsys.readouterr().err


def test_spots_replaces_nothing_unless_forced(stack: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "objects.csv").write_text("mine")
    assert main(["spots", str(stack), "-o", str(out)]) == 2
    assert (out / "objects.csv").read_text() == "mine"
    assert main(["spots", str(stack), "-o", str(out), "--force"]) == 0
    assert len(pd.read_csv(out / "objects.csv")) == 48


def test_spots_refuses_sizes_that_are_none(
    stack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ["spots", str(stack), "-o", str(out), "--least-size", "1", "--largest-size", "0.5"]
    assert main(words) == 2
    assert "least size" in capsys.readouterr().err
    assert not out.exists()


def test_spots_keeps_points_that_are_given(stack: Path, tmp_path: Path) -> None:
    points = tmp_path / "points.csv"
    points.write_text("axis-0,axis-1,axis-2\n0,0,0\n")
    out = tmp_path / "out"
    assert main(["spots", str(stack), "-o", str(out), "--points", str(points)]) == 0
    table = pd.read_csv(out / "objects.csv")
    nearest = np.hypot(table["axis-1"], table["axis-2"]).min()
    assert nearest < 10
