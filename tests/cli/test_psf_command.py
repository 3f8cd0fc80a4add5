"""`napari-gaussfit psf` leaves a point spread function, its table, a picture and a page."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import tifffile

from napari_gaussfit.cli.commands import main
from napari_gaussfit.fitting.fit import fit
from napari_gaussfit.fitting.result import load
from napari_gaussfit.measure.psf import Psf
from napari_gaussfit.settings import FitSettings
from napari_gaussfit.stacks.stack import Stack
from napari_gaussfit.stacks.tiff import write_ome_tiff

if TYPE_CHECKING:
    from pathlib import Path

    Capture = pytest.CaptureFixture[str]

SPACING = (0.2, 0.08, 0.08)
SIGMAS = (0.3, 0.1, 0.1)


@pytest.fixture(scope="module")
def beads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four beads of which one is cut by the border."""
    shape = (24, 80, 80)
    places = np.stack(np.indices(shape), -1) * SPACING
    light = np.full(shape, 10.0)
    for mean in ((2.4, 1.6, 1.6), (2.3, 4.8, 1.7), (2.5, 1.7, 4.7), (2.4, 4.7, 6.3)):
        light += 500 * np.exp(-0.5 * np.square((places - mean) / SIGMAS).sum(-1))
    path = tmp_path_factory.mktemp("beads") / "beads.ome.tif"
    voxels = np.random.default_rng(0).poisson(light).astype(np.uint16)
    write_ome_tiff(path, voxels, spacing=SPACING, unit="micrometer", name="beads")
    return path


def test_a_psf_of_beads_is_written_beside_what_light_allows(
    beads: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "psf"
    optics = ("--na", "1.2", "--wavelength", "520", "--index", "1.33", "--pinhole", "1")
    assert main(["psf", str(beads), "-o", str(out), *optics]) == 0
    said = capsys.readouterr().out
    assert "3 beads, FWHM along z 7" in said
    assert "light allows z " in said
    assert "does not count: at the border" in said
    assert sorted(path.name for path in out.iterdir()) == [
        "psf.csv", "psf.json", "psf.pdf", "psf.png",
    ]  # fmt: skip
    psf = Psf.load(out / "psf.json")
    np.testing.assert_allclose(psf.fwhm, 2.3548 * np.array(SIGMAS), rtol=0.03)
    with (out / "psf.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["refused"] for row in rows].count("") == 3
    assert (out / "psf.pdf").read_bytes().startswith(b"%PDF")
    assert main(["psf", str(beads), "-o", str(out)]) == 2, "nothing is replaced unasked"


def test_optics_alone_make_a_psf(tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "psf"
    assert main(["psf", "-o", str(out), "--na", "1.4", "--wavelength", "520"]) == 0
    assert "by the optics, FWHM along z 50" in capsys.readouterr().out
    assert Psf.load(out / "psf.json").beads == 0


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ((), "give a stack of beads, or the optics"),
        (("--na", "1.4"), "--na and --wavelength make the optics together"),
        (("--index", "1.4"), "--index and --pinhole need --na"),
    ],
)
def test_half_of_the_optics_is_refused(
    tmp_path: Path, capsys: Capture, options: tuple[str, ...], line: str
) -> None:
    assert main(["psf", "-o", str(tmp_path / "psf"), *options]) == 2
    assert line in capsys.readouterr().err
    assert not (tmp_path / "psf").exists()


FAST = ("--iterations", "20", "--views", "4", "--held-out", "1", "--device", "cpu")


def test_a_fit_takes_the_file_or_the_optics(beads: Path, tmp_path: Path, capsys: Capture) -> None:
    psf, out = tmp_path / "psf", tmp_path / "out"
    assert main(["psf", "-o", str(psf), "--na", "1.2", "--wavelength", "520"]) == 0
    assert main(["fit", str(beads), "-o", str(out), *FAST, "--psf", str(psf / "psf.json")]) == 0
    said = capsys.readouterr().out
    assert "psf: FWHM " in said
    saved = load(out)
    assert saved.psf == Psf.load(psf / "psf.json")
    assert saved.report.psf in said
    assert Stack.open(out / "deconvolved.ome.tif").shape == (24, 80, 80)
    assert "sd_object_fwhm_3" in pd.read_csv(out / "gaussians.csv")
    other = tmp_path / "other"
    assert main(["fit", str(beads), "-o", str(other), *FAST, "--psf", "1.2,520,1.518"]) == 0
    assert load(other).psf == saved.psf


def test_a_fit_is_rendered_without_its_blur_at_any_sampling(
    beads: Path, tmp_path: Path, capsys: Capture
) -> None:
    out, image = tmp_path / "out", tmp_path / "sharp.tif"
    widths = Psf.of_fwhm(2.3548 * np.array(SIGMAS))
    fit(Stack.open(beads), FitSettings(gaussians=8, iterations=20, device="cpu"), psf=widths).save(
        tmp_path / "fit.safetensors"
    )
    given = ["render", str(tmp_path / "fit.safetensors"), "-o", str(image)]
    assert main([*given, "--deconvolved", "--sampling", "0.1", "0.04", "0.04"]) == 0
    sharp = tifffile.imread(image)
    assert sharp.shape == (159, 159)
    volume = ["--volume", "--deconvolved", "--sampling", "0.1", "0.08", "0.08"]
    given[-1] = str(tmp_path / "sharp.ome.tif")
    assert main([*given, *volume]) == 0
    assert Stack.open(given[-1]).shape == (47, 80, 80)
    given[-1] = str(tmp_path / "blurred.tif")
    assert main([*given, "--sampling", "0.1", "0.04", "0.04"]) == 0
    assert sharp.max() > 1.2 * tifffile.imread(given[-1]).max()
    assert main(["fit", str(beads), "-o", str(out), *FAST]) == 0
    assert not (out / "deconvolved.ome.tif").exists()
    assert main(["render", str(out), "-o", str(tmp_path / "no.tif"), "--deconvolved"]) == 2
    assert "knows no point spread function" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("1.2,520", "--psf 1.2,520: expected the psf.json"),
        ("1.6,520,1.5", "NA=1.6 is not below the index 1.5"),
        ("nothing.json", "nothing.json: cannot be read"),
    ],
)
def test_what_is_no_psf_is_refused_before_anything_is_written(
    given: str, said: str, beads: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "out"
    assert main(["fit", str(beads), "-o", str(out), *FAST, "--psf", given]) == 2
    assert said in capsys.readouterr().err
    assert not out.exists()
