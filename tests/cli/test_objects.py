"""`trace` and `cells`: what they leave in a folder, of a stack and of a fit."""

from __future__ import annotations

from typing import TYPE_CHECKING
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
import tifffile
from matplotlib.image import imread

from napari_gaussfit.cli import main
from napari_gaussfit.cli.exits import Exit
from napari_gaussfit.fitting.fit_tiles import fit_tiles
from napari_gaussfit.fitting.result import FitResult
from napari_gaussfit.formats.swc import read_swc
from napari_gaussfit.settings import FitSettings
from napari_gaussfit.stacks.stack import Stack
from napari_gaussfit.stacks.tiff import write_ome_tiff
from napari_gaussfit.synthetic.phantoms import Phantom, neurite, nuclei

if TYPE_CHECKING:
    from pathlib import Path

    Capture = pytest.CaptureFixture[str]


def saved(phantom: Phantom, path: Path) -> Path:
    """The true Gaussians of a phantom as a fit."""
    FitResult((phantom.truth,), phantom.stack.facts).save(path)
    return path


@pytest.fixture(scope="module")
def dendrite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(neurite(spines=False), tmp_path_factory.mktemp("fit") / "dendrite.safetensors")


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(nuclei(seed=1, photons=None), tmp_path_factory.mktemp("fit") / "cells.safetensors")


def test_a_trace_is_swc_a_table_and_a_picture(
    dendrite: Path, tmp_path: Path, capsys: Capture
) -> None:
    assert main(["trace", str(dendrite), "-o", str(tmp_path / "out")]) == 0
    out = tmp_path / "out"
    assert sorted(path.name for path in out.iterdir()) == [
        "branches.csv",
        "settings.toml",
        "trace.png",
        "trace.swc",
    ]

    points, radii, parents, _ = read_swc(out / "trace.swc")
    assert (parents < np.arange(len(parents))).all()
    assert (parents == -1).sum() == 1
    assert points.min() > -0.5
    assert 0.05 < radii.min() < radii.max() < 1.0
    branches = pd.read_csv(out / "branches.csv")
    assert list(branches["order"]) == [0, 1, 1]
    assert set(branches["unit"]) == {"micrometer"}
    length = np.linalg.norm(points[1:] - points[parents[1:]], axis=1).sum()
    assert branches["length"].sum() == pytest.approx(length, rel=1e-3)
    assert imread(out / "trace.png").shape[2] == 4
    assert "1 tree, 3 branches and 0 spines" in capsys.readouterr().out


def test_another_program_reads_the_trace(dendrite: Path, tmp_path: Path) -> None:
    morphio = pytest.importorskip("morphio")
    main(["trace", str(dendrite), "-o", str(tmp_path)])
    points, radii, _, _ = read_swc(tmp_path / "trace.swc")
    neuron = morphio.Morphology(str(tmp_path / "trace.swc"))
    assert sum(not section.children for section in neuron.iter()) == 3
    assert {tuple(p) for p in np.round(neuron.points, 3)} == {
        tuple(p) for p in np.round(points[:, ::-1].astype(np.float32), 3)
    }
    assert neuron.diameters.max() == pytest.approx(2 * radii.max(), rel=1e-5)


def test_radii_are_free_of_a_blur_that_is_given(dendrite: Path, tmp_path: Path) -> None:
    main(["trace", str(dendrite), "-o", str(tmp_path / "seen")])
    psf = ["--psf-fwhm", "0.66", "0.24", "0.24"]
    main(["trace", str(dendrite), "-o", str(tmp_path / "own"), *psf])
    seen, own = (
        pd.read_csv(tmp_path / name / "branches.csv")["mean_radius"] for name in ("seen", "own")
    )
    assert (own < 0.95 * seen).all()


def test_cells_are_labels_a_table_and_a_picture(
    cells: Path, tmp_path: Path, capsys: Capture
) -> None:
    assert main(["cells", str(cells), "-o", str(tmp_path / "out")]) == 0
    out = tmp_path / "out"
    names = ["labels.ome.tif", "objects.csv", "objects.png", "settings.toml"]
    assert sorted(path.name for path in out.iterdir()) == names

    labels = tifffile.imread(out / "labels.ome.tif")
    assert labels.dtype == np.uint16
    assert labels.shape == (40, 128, 128)
    stack = Stack.open(out / "labels.ome.tif")
    assert stack.spacing == (0.6, 0.25, 0.25)
    table = pd.read_csv(out / "objects.csv")
    assert list(table["label"]) == list(range(1, 13)) == list(np.unique(labels)[1:])
    voxels = np.bincount(labels.reshape(-1))[1:]
    np.testing.assert_allclose(table["volume"], voxels * 0.6 * 0.25 * 0.25)
    assert "12 objects of about" in capsys.readouterr().out


@pytest.fixture(scope="module")
def in_tiles(cells: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Those Gaussians as a fit by tiles, whose seams cut nuclei; one step moves them little."""
    out = tmp_path_factory.mktemp("tiles") / "out"
    stack = nuclei(seed=1, photons=None).stack
    once = FitSettings(iterations=1, device="cpu", refine=True, measure=False)
    fit_tiles(stack, out, once, tile=(40, 64, 64), start=cells)
    return out


def test_nuclei_that_tiles_cut_are_those_of_one_piece_also_in_a_region(
    cells: Path, in_tiles: Path, tmp_path: Path, capsys: Capture
) -> None:
    def found(fit: Path, *options: str) -> pd.DataFrame:
        out = tmp_path / f"{len([*tmp_path.iterdir()])}"
        same = ("--radius", "2.5", "--level", "150", "--saddle", "0.9")
        assert main(["cells", str(fit), "-o", str(out), *same, *options]) == 0
        return pd.read_csv(out / "objects.csv").sort_values("z").reset_index(drop=True)

    whole, tiled = found(cells), found(in_tiles)
    assert len(whole) == len(tiled) == 12
    np.testing.assert_allclose(tiled["volume"], whole["volume"], rtol=0.02)
    np.testing.assert_allclose(tiled[[*"zyx"]], whole[[*"zyx"]], atol=0.1)

    part = found(in_tiles, "--region", "0", "20", "20", "40", "110", "110")
    inside = part[~part["at_border"]]
    assert len(inside), "every nucleus lies at the border of this region"
    assert not part["at_border"].all()
    moved = inside[[*"zyx"]].to_numpy() + np.array([0, 20, 20]) * 0.25
    for place, volume in zip(moved, inside["volume"], strict=True):
        near = np.linalg.norm(whole[[*"zyx"]].to_numpy() - place, axis=1).argmin()
        assert whole["volume"][near] == pytest.approx(volume, rel=0.02)
        np.testing.assert_allclose(whole[[*"zyx"]].to_numpy()[near], place, atol=0.1)
    command = ["cells", str(cells), "-o", str(tmp_path / "no"), "--region", *"012345"]
    assert main(command) == 2
    assert "is no fit by tiles" in capsys.readouterr().err


def test_a_stack_is_fitted_first_and_its_fit_is_kept(tmp_path: Path) -> None:
    stack = neurite(shape=(12, 40, 40), spines=False).stack
    path = tmp_path / "stack.ome.tif"
    write_ome_tiff(path, stack.voxels, spacing=stack.spacing, unit=stack.unit, name="stack")
    out = tmp_path / "out"
    few = [
        "--gaussians",
        "40",
        "--exactly",
        "--iterations",
        "20",
        "--views",
        "6",
        "--held-out",
        "2",
    ]
    assert main(["trace", str(path), "-o", str(out), *few]) == 0
    assert {"fit.safetensors", "gaussians.csv", "trace.swc"} <= {p.name for p in out.iterdir()}
    # The fit that is kept can be traced again.
    assert main(["trace", str(out), "-o", str(out)]) == 2
    assert main(["trace", str(out), "-o", str(out), "--shortest", "1", "--force"]) == 0


@pytest.mark.parametrize(
    ("command", "held", "others"),
    [
        ("cells", "labels.ome.tif", ("objects.csv", "objects.png")),
        ("trace", "trace.swc", ("branches.csv", "trace.png")),
    ],
)
def test_a_file_that_cannot_be_written_costs_no_other(
    command: str,
    held: str,
    others: tuple[str, ...],
    request: pytest.FixtureRequest,
    tmp_path: Path,
    capsys: Capture,
) -> None:
    fit = request.getfixturevalue("cells" if command == "cells" else "dendrite")
    (tmp_path / "out" / held / "by another").mkdir(parents=True)
    with patch("napari_gaussfit.files.PATIENCE_SECONDS", 0.0):
        assert main([command, str(fit), "-o", str(tmp_path / "out"), "--force"]) == Exit.NOT_WRITTEN
    assert f"{held}: " in capsys.readouterr().err
    for name in others:
        assert (tmp_path / "out" / name).is_file(), name


@pytest.mark.parametrize("command", ["trace", "cells"])
def test_what_exists_is_not_replaced(
    command: str, dendrite: Path, tmp_path: Path, capsys: Capture
) -> None:
    for name in ("trace.swc", "labels.ome.tif"):
        (tmp_path / name).write_text("mine")
    assert main([command, str(dendrite), "-o", str(tmp_path)]) == 2
    assert "--force replaces it" in capsys.readouterr().err
    assert {path.read_text() for path in tmp_path.iterdir()} == {"mine"}


def test_settings_that_cannot_be_meant_cost_a_line(
    dendrite: Path, tmp_path: Path, capsys: Capture
) -> None:
    assert main(["trace", str(dendrite), "-o", str(tmp_path), "--faintest", "2"]) == 2
    assert "faintest=2.0: expected a part, 0 to 1" in capsys.readouterr().err
    assert main(["cells", str(dendrite), "-o", str(tmp_path), "--saddle", "2"]) == 2
    assert "saddle=2.0: expected a share, 0 to 1" in capsys.readouterr().err


def test_lengths_in_pixels_are_said_to_be(tmp_path: Path, capsys: Capture) -> None:
    phantom = neurite(spines=False)
    pixels = Stack.from_array(phantom.stack.voxels)
    field = phantom.truth.from_covariances(
        phantom.truth.numpy().means * 4, phantom.truth.numpy().covariances * 16,
        phantom.truth.numpy().amplitudes, unit="pixel",
    )  # fmt: skip
    FitResult((field,), pixels.facts).save(tmp_path / "fit.safetensors")
    assert main(["trace", str(tmp_path), "-o", str(tmp_path / "out")]) == 0
    assert "lengths, also in SWC, are pixels" in capsys.readouterr().out
    assert (tmp_path / "out" / "trace.swc").read_text().splitlines()[1] == "# lengths in pixel"


def test_a_fit_of_several_channels_asks_for_one(tmp_path: Path, capsys: Capture) -> None:
    phantom = neurite(spines=False)
    both = FitResult((phantom.truth, phantom.truth), phantom.stack.facts)
    both.save(tmp_path / "fit.safetensors")
    assert main(["trace", str(tmp_path), "-o", str(tmp_path / "out")]) == 2
    assert "is a fit of 2 channels; give a fit of one of them" in capsys.readouterr().err
