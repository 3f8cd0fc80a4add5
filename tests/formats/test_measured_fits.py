"""A fit that was measured keeps both: the Gaussians that it goes on from, and what was measured."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import save_file

from napari_gaussfit.cli.commands import main
from napari_gaussfit.errors import FormatError, SettingsError
from napari_gaussfit.fitting.result import FitResult, load
from napari_gaussfit.formats.native import FORMAT
from napari_gaussfit.measure.measurement import Measurement
from napari_gaussfit.measure.noise import Noise
from napari_gaussfit.measure.psf import Psf
from napari_gaussfit.model.field import GaussianField
from napari_gaussfit.stacks.stack import Stack
from napari_gaussfit.stacks.tiff import write_ome_tiff
from saved_fits import some_fit

if TYPE_CHECKING:
    from pathlib import Path

SPACING = (0.3, 0.1, 0.1)


def measured_fit(count: int = 12, channels: int = 1, **known: Any) -> FitResult:
    """A fit whose measurement is of Gaussians a little beside it; one is not determined."""
    fit = some_fit(count)
    rng = np.random.default_rng(7)
    factors = rng.normal(size=(count, 9 + 2 * channels, 9 + 2 * channels))
    covariances = factors @ factors.transpose(0, 2, 1)
    covariances[1] = np.nan
    own = fit.field.numpy()
    beside = replace(own, means=own.means.astype(np.float64) + 0.01)
    gaussians = tuple(
        replace(beside, amplitudes=own.amplitudes * (1.1 + c)) for c in range(channels)
    )
    found = Measurement(
        gaussians,
        covariances,
        np.linspace(0.9, 1.2, count),
        rng.uniform(10, 12, (count, channels)),
        np.arange(count) - 1,
        ("", "not determined", *[""] * (count - 2)),
        **known,
    )
    layers = tuple(
        replace(fit.field, amplitudes=fit.field.amplitudes * (c + 1)) for c in range(channels)
    )
    return replace(fit, fields=layers, reports=fit.reports * channels, measurement=found)


def assert_same_measurement(found: Measurement | None, wanted: Measurement | None) -> None:
    assert found is not None
    assert wanted is not None
    for name in ("covariances", "reduced_chi2", "backgrounds", "steps"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name), err_msg=name)
    for one, other in zip(found.gaussians, wanted.gaussians, strict=True):
        for part in fields(one):
            value, expected = getattr(one, part.name), getattr(other, part.name)
            np.testing.assert_array_equal(value, expected, err_msg=part.name)
            assert np.asarray(value).dtype == np.asarray(expected).dtype, part.name
    assert (found.flags, found.noise, found.notes) == (wanted.flags, wanted.noise, wanted.notes)
    assert (found.psf is None) == (wanted.psf is None)
    assert found.psf is None or found.psf.fwhm == wanted.psf.fwhm  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("channels", "known"),
    [
        (1, {}),
        (
            1,
            {
                "noise": Noise(2.3, -230.0),
                "notes": ("a note",),
                "psf": Psf.of_fwhm((0.7, 0.3, 0.3)),
            },
        ),
        (3, {"noise": Noise(2.3, 1.0, saturation=4095.0)}),
    ],
    ids=["noise not known", "one channel", "three channels"],
)
def test_a_measured_fit_comes_back_to_the_bit_with_its_own_gaussians_beside(
    channels: int, known: dict[str, Any], tmp_path: Path
) -> None:
    fit = measured_fit(channels=channels, **known)
    fit.save(tmp_path / "fit.safetensors")
    again = load(tmp_path / "fit.safetensors")
    assert_same_measurement(again.measurement, fit.measurement)
    for found, wanted in zip(again.fields, fit.fields, strict=True):
        assert torch.equal(found.means, wanted.means)
        assert torch.equal(found.amplitudes, wanted.amplitudes)
    assert again.reports == fit.reports
    assert again.state.keys() == fit.state.keys()
    pd.testing.assert_frame_equal(again.to_dataframe(), fit.to_dataframe(), check_exact=True)


def test_tables_are_of_what_was_measured_and_pictures_of_the_fit(tmp_path: Path) -> None:
    fit = measured_fit()
    assert fit.measurement is not None
    refined = fit.measurement.gaussians[0].means[:, 0].astype(np.float32)
    for name in ("table.csv", "spots.trackmate.csv"):
        fit.export(tmp_path / name)
    table = pd.read_csv(tmp_path / "table.csv")
    np.testing.assert_array_equal(table["z"].to_numpy(np.float32), refined)
    np.testing.assert_allclose(table["sd_z"], fit.measurement.errors()["sd_z"])
    assert table.loc[1, "flags"] == "not determined"
    spots = pd.read_csv(tmp_path / "spots.trackmate.csv", skiprows=[1, 2, 3])
    np.testing.assert_allclose(spots["POSITION_Z"], refined, rtol=1e-5)
    fit.export(tmp_path / "scene.ply")
    np.testing.assert_allclose(
        load(tmp_path / "scene.ply").field.means, fit.field.means, rtol=1e-5, atol=1e-5
    )


def test_a_measurement_of_other_gaussians_is_refused() -> None:
    fit = measured_fit()
    with pytest.raises(SettingsError, match="measured were 12 Gaussians of 1 channels"):
        replace(fit, fields=(fit.field.select(torch.arange(5)),))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"flags": 3}, "flags is 3"),
        ({"flags": [""] * 5}, r"expected real numbers \(5, 3\)"),
        ({"notes": None}, "notes is None"),
        ({"noise": [1.0]}, "noise is None"),
        ({"noise": {"gain": -1.0, "intercept": 0.0, "saturation": 9.0}}, "gain=-1"),
        ({"psf": {"fwhm": [1, 2]}}, "psf is none"),
        ({"levels": "dark"}, "levels is 'dark'"),
        ({"levels": [1.0, 2.0]}, "amplitudes is"),
        ({"unit": "pixel"}, "in pixels, the fit has"),
    ],
)
def test_a_measurement_that_holds_anything_else_is_refused_by_its_name(
    changed: dict[str, Any], said: str, tmp_path: Path
) -> None:
    path = tmp_path / "fit.safetensors"
    measured_fit().save(path)
    with safe_open(path, "np") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = json.loads(file.metadata()[FORMAT])
    metadata["measurement"] |= changed
    save_file(tensors, path, {FORMAT: json.dumps(metadata)})
    with pytest.raises(FormatError, match=said) as error:
        load(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_a_measurement_that_lacks_its_numbers_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "fit.safetensors"
    measured_fit().save(path)
    with safe_open(path, "np") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    del tensors["measured.covariances"]
    save_file(tensors, path, metadata)
    with pytest.raises(FormatError, match="measurement: covariances is missing"):
        load(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a fit of sixteen spots in two channels, which measures at its end."""
    path = tmp_path_factory.mktemp("fitted")
    rng = np.random.default_rng(0)
    cells = np.stack(np.meshgrid([0], range(4), range(4), indexing="ij"), -1).reshape(-1, 3)
    means = ((cells + 0.5) * 20 + rng.uniform(-1, 1, (16, 3))) * SPACING
    covariances = np.tile(np.diag(np.square([0.6, 0.17, 0.15])), (16, 1, 1))
    truth = GaussianField.from_covariances(means, covariances, np.full(16, 200.0), background=20.0)
    light = truth.voxelise((20, 80, 80), SPACING).numpy()
    stacks = np.stack([rng.poisson(light), rng.poisson(0.5 * light)]).astype(np.uint16)
    write_ome_tiff(path / "s.ome.tif", stacks, spacing=SPACING, unit="micrometer", name="s")
    count = ["--gaussians", 16, "--exactly", "--iterations", 60, "--held-out", 2, "--views", 12]
    command = ["fit", path / "s.ome.tif", "-o", path / "out", "--channel", 0, 1, *count]
    assert main([*map(str, command)]) == 0
    return path


def test_the_folder_of_a_fit_gives_back_what_its_table_says(folder: Path) -> None:
    out = folder / "out"
    table = pd.read_csv(out / "gaussians.csv")
    assert table["sd_z"].notna().any()
    assert main(["export", str(out), "-o", str(folder / "again.csv")]) == 0
    assert (folder / "again.csv").read_text() == (out / "gaussians.csv").read_text()
    saved = load(out)
    assert saved.measurement is not None
    assert len(saved.reports) == 2, "a report of each channel"
    assert not np.array_equal(saved.measurement.gaussians[0].means, saved.field.numpy().means)
    stack = Stack.open(folder / "s.ome.tif", channel=0)
    rendered = saved.field.voxelise(stack.shape, stack.spacing).numpy()
    assert saved.report.voxel_psnr == pytest.approx(
        10 * np.log10(np.ptp(stack.voxels) ** 2 / np.mean((rendered - stack.voxels) ** 2)), abs=0.05
    ), "the report is of the fit's own Gaussians, which the file keeps"
