"""The table says what each Gaussian is, reproduces the field, and opens in napari as points."""

from __future__ import annotations

import csv as standard_csv
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd
import pytest
import torch

from napari_gaussfit.errors import FormatError, OutputError
from napari_gaussfit.formats.csv import read_channels, read_csv, read_points, write_csv
from napari_gaussfit.measure.table import ERRORS, measurements
from napari_gaussfit.model.field import GaussianField
from napari_gaussfit.stacks.facts import StackFacts
from napari_gaussfit.stacks.stack import Stack

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_gaussfit.fitting.result import FitResult

SPACING = (0.3, 0.1, 0.11)

COLUMNS = [
    "index",
    "axis-0",
    "axis-1",
    "axis-2",
    "z",
    "y",
    "x",
    "amplitude",
    "cov_zz",
    "cov_zy",
    "cov_zx",
    "cov_yy",
    "cov_yx",
    "cov_xx",
    "sigma_1",
    "sigma_2",
    "sigma_3",
    "fwhm_1",
    "fwhm_2",
    "fwhm_3",
    "fwhm_z",
    "fwhm_y",
    "fwhm_x",
    *(f"axis_{n}_{axis}" for n in (1, 2, 3) for axis in "zyx"),
    "integrated_intensity",
    *ERRORS,
    "reduced_chi2",
    "flags",
    "unit",
]


@pytest.fixture
def field() -> GaussianField:
    """Elongated Gaussians of any orientation, some of them negative."""
    rng = np.random.default_rng(5)
    count = 80
    turns = np.linalg.qr(rng.normal(size=(count, 3, 3)))[0]
    variances = np.exp(rng.uniform(np.log(0.05), np.log(1.5), (count, 3))) ** 2
    return GaussianField.from_covariances(
        rng.uniform(0, 6, (count, 3)),
        np.einsum("kij,kj,klj->kil", turns, variances, turns),
        rng.normal(500, 400, count),
        background=99.5,
    )


@pytest.fixture
def written(tmp_path: Path, field: GaussianField) -> Path:
    path = tmp_path / "gaussians.csv"
    write_csv(path, field, SPACING)
    return path


def field_of_the_table(path: Path, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Evaluate the sum over the rows with nothing but the file's text and numpy."""
    values = np.zeros(len(points))
    with path.open(newline="") as file:
        for row in standard_csv.DictReader(file):
            zz, zy, zx, yy, yx, xx = (
                float(row[f"cov_{name}"]) for name in ("zz", "zy", "zx", "yy", "yx", "xx")
            )
            covariance = np.array([[zz, zy, zx], [zy, yy, yx], [zx, yx, xx]])
            offsets = points - [float(row[axis]) for axis in "zyx"]
            squares = (offsets @ np.linalg.inv(covariance) * offsets).sum(axis=1)
            values += float(row["amplitude"]) * np.exp(-squares / 2)
    return values


def field_of_the_tensors(field: GaussianField, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Evaluate the sum in float64 by the field's own parameters."""
    a, b, c, d, e, f = field.cholesky.double().numpy().T
    values = np.zeros(len(points))
    for k, (mean, amplitude) in enumerate(
        zip(field.means.double().numpy(), field.amplitudes.tolist(), strict=True)
    ):
        factor = np.array(
            [[np.exp(a[k]), 0, 0], [b[k], np.exp(c[k]), 0], [d[k], e[k], np.exp(f[k])]]
        )
        whitened = np.linalg.solve(factor, (points - mean).T)
        values += amplitude * np.exp(-np.square(whitened).sum(axis=0) / 2)
    return values


def test_the_columns_are_the_documented_ones_in_order(written: Path) -> None:
    header = written.read_text(encoding="utf-8").splitlines()[0]
    assert header.split(",") == COLUMNS


def test_the_sum_over_the_rows_is_the_field(written: Path, field: GaussianField) -> None:
    near = field.means.double().numpy() + np.random.default_rng(0).normal(0, 0.2, (80, 3))
    expected = field_of_the_tensors(field, near)
    difference = np.abs(field_of_the_table(written, near) - expected).max()
    assert difference <= 1e-6 * np.abs(expected).max(), f"differs by {difference:.3g}"


def test_a_field_comes_back_to_the_bit(written: Path, field: GaussianField) -> None:
    read = read_csv(written, background=field.background)
    assert torch.equal(read.means, field.means)
    assert torch.equal(read.amplitudes, field.amplitudes)
    torch.testing.assert_close(read.cholesky, field.cholesky, rtol=2e-7, atol=1e-7)
    assert read.means.dtype == read.cholesky.dtype == read.amplitudes.dtype == torch.float32
    assert read.background == field.background
    assert read.unit == field.unit
    assert read_csv(written).background == 0


def test_pixels_are_positions_over_the_spacing(written: Path) -> None:
    table = pd.read_csv(written)
    for axis, name, distance in zip(range(3), "zyx", SPACING, strict=True):
        np.testing.assert_allclose(table[f"axis-{axis}"] * distance, table[name], rtol=1e-12)


def test_sizes_follow_from_the_covariances(written: Path) -> None:
    table = pd.read_csv(written)
    names = ["zz", "zy", "zx", "zy", "yy", "yx", "zx", "yx", "xx"]
    covariances = table[[f"cov_{name}" for name in names]].to_numpy().reshape(-1, 3, 3)
    sigmas = np.sqrt(np.linalg.eigvalsh(covariances)[:, ::-1])
    np.testing.assert_allclose(table[["sigma_1", "sigma_2", "sigma_3"]], sigmas, rtol=1e-9)
    np.testing.assert_allclose(
        table[["fwhm_1", "fwhm_2", "fwhm_3"]], sigmas * np.sqrt(8 * np.log(2)), rtol=1e-9
    )
    integrals = table["amplitude"] * (2 * np.pi) ** 1.5 * sigmas.prod(axis=1)
    np.testing.assert_allclose(table["integrated_intensity"], integrals, rtol=1e-9)


def test_sizes_and_axes_rebuild_the_covariances(written: Path) -> None:
    table = pd.read_csv(written)
    names = ["zz", "zy", "zx", "zy", "yy", "yx", "zx", "yx", "xx"]
    covariances = table[[f"cov_{name}" for name in names]].to_numpy().reshape(-1, 3, 3)
    rebuilt = np.zeros_like(covariances)
    for n in (1, 2, 3):
        axis = table[[f"axis_{n}_{name}" for name in "zyx"]].to_numpy()
        variance = table[f"sigma_{n}"].to_numpy() ** 2
        rebuilt += variance[:, None, None] * axis[:, :, None] * axis[:, None, :]
    np.testing.assert_allclose(rebuilt, covariances, atol=1e-9)


def test_a_gaussian_of_known_size_is_described_so() -> None:
    field = GaussianField.from_covariances(
        [[3.0, 1.0, 2.0]], np.diag([0.25, 0.01, 0.04])[None], [7.0], unit="pixel"
    )
    row = measurements(field, (1.0, 0.5, 0.25)).iloc[0]
    assert row[["axis-0", "axis-1", "axis-2"]].tolist() == pytest.approx([3, 2, 8])
    assert row[["sigma_1", "sigma_2", "sigma_3"]].tolist() == pytest.approx([0.5, 0.2, 0.1])
    assert row["fwhm_1"] == pytest.approx(0.5 * 2.354820045)
    along = np.sqrt(row[["cov_zz", "cov_yy", "cov_xx"]].to_numpy(float)) * 2.354820045
    assert row[["fwhm_z", "fwhm_y", "fwhm_x"]].tolist() == pytest.approx(along.tolist())
    assert row["integrated_intensity"] == pytest.approx(7 * 15.749609945722419 * 0.01)
    assert row["unit"] == "pixel"


def test_what_was_not_measured_has_no_error_bars(written: Path) -> None:
    table = pd.read_csv(written)
    assert table[[*ERRORS, "reduced_chi2", "flags"]].isna().all(axis=None)
    assert set(ERRORS.values()) < set(table.columns), "each stands beside what it is of"


def test_a_field_in_training_and_an_empty_one_are_described(field: GaussianField) -> None:
    assert list(measurements(field.select(torch.arange(0)), SPACING).columns) == COLUMNS
    trained = GaussianField(
        field.means.requires_grad_(), field.cholesky.requires_grad_(), field.amplitudes
    )
    assert len(measurements(trained, SPACING)) == len(field)


def test_napari_opens_the_file_as_points_in_the_right_place(
    written: Path, field: GaussianField
) -> None:
    from npe2 import PluginManager
    from npe2.io_utils import read

    PluginManager.instance().discover()
    (layer,) = read([str(written)], stack=False, plugin_name="napari")
    data, options, kind = cast("tuple[NDArray[np.float64], dict[str, Any], str]", layer)
    assert kind == "points"
    np.testing.assert_allclose(data * SPACING, field.means.numpy(), rtol=1e-6)
    features = options["properties"]
    assert set(features) == set(COLUMNS) - {"index", "axis-0", "axis-1", "axis-2"}
    np.testing.assert_allclose(features["amplitude"], field.amplitudes.numpy(), rtol=1e-6)


def test_a_folder_that_is_not_there_is_said(tmp_path: Path, field: GaussianField) -> None:
    with pytest.raises(OutputError, match="no folder"):
        write_csv(tmp_path / "missing" / "gaussians.csv", field, SPACING)


def refusal(path: Path) -> str:
    with pytest.raises(FormatError) as error:
        read_csv(path)
    text = str(error.value)
    assert "\n" not in text, "an error is one line"
    assert text.startswith(f"{path}: "), "an error begins with the file"
    return text


def test_missing_columns_are_named(written: Path) -> None:
    pd.read_csv(written).drop(columns=["cov_zy", "amplitude"]).to_csv(written, index=False)
    text = refusal(written)
    assert "lacks the columns amplitude, cov_zy; it has index, axis-0" in text
    assert "expected z, y, x, amplitude, cov_zz" in text


def test_columns_that_follow_from_others_need_not_be_there(
    written: Path, field: GaussianField
) -> None:
    needed = ["z", "y", "x", "amplitude", *[name for name in COLUMNS if "cov" in name], "unit"]
    pd.read_csv(written)[needed].to_csv(written, index=False)
    assert len(read_csv(written)) == len(field)


@pytest.mark.parametrize("bad", ["", "bright", "inf"])
def test_what_is_no_number_is_named_with_its_place(written: Path, bad: str) -> None:
    table = pd.read_csv(written, dtype=str)
    table.loc[2, "amplitude"] = bad
    table.to_csv(written, index=False)
    assert "in column amplitude of row 3 of 80" in refusal(written)


def test_a_covariance_that_is_none_is_named(written: Path) -> None:
    table = pd.read_csv(written)
    table.loc[4, "cov_zz"] = -1.0
    table.to_csv(written, index=False)
    assert "covariances[4] is not positive definite" in refusal(written)


@pytest.mark.parametrize("name", ["time", "channel"])
def test_rows_of_several_times_or_channels_are_no_one_field(written: Path, name: str) -> None:
    table = pd.read_csv(written)
    table[name] = 3
    table.to_csv(written, index=False)
    assert len(read_csv(written)) == len(table)
    table.loc[0, name] = 4
    table.to_csv(written, index=False)
    assert f"has rows of 2 {name}s; keep those of one" in refusal(written)
    voxels = np.arange(64, dtype=np.float32).reshape(4, 4, 4)
    stack = Stack.from_array(voxels, spacing=(1e3,) * 3)
    with pytest.raises(FormatError, match=f"rows of 2 {name}s"):
        read_points(written, stack)


def test_rows_of_several_units_or_none_are_refused(written: Path) -> None:
    table = pd.read_csv(written)
    table.loc[0, "unit"] = "pixel"
    table.to_csv(written, index=False)
    assert "has the units micrometer, pixel" in refusal(written)
    table.iloc[:0].to_csv(written, index=False)
    assert "has no row" in refusal(written)


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "gaussians.csv"
    assert "cannot be read" in refusal(path)
    path.write_bytes(b"")
    assert "is no CSV table" in refusal(path)
    path.write_bytes(b"\x89PNG\r\n\xff\xfe\x00" * 9)
    assert "is no CSV table" in refusal(path)


def test_channels_have_amplitudes_in_columns_of_their_own(
    tmp_path: Path, in_channels: FitResult
) -> None:
    path = tmp_path / "gaussians.csv"
    write_csv(path, in_channels.fields, SPACING)
    table = pd.read_csv(path)
    for n, channel in enumerate(in_channels.fields):
        # pandas 2 reads a decimal number to the last bit but one.
        np.testing.assert_allclose(
            table[f"amplitude_{n}"], channel.amplitudes.double(), rtol=1e-15, atol=0
        )
        np.testing.assert_allclose(
            table[f"integrated_intensity_{n}"], channel.integrated_intensities(), rtol=1e-5
        )
    np.testing.assert_array_equal(table["amplitude"], table["amplitude_0"])
    backgrounds = [channel.background for channel in in_channels.fields]
    read = read_channels(path, backgrounds=backgrounds)
    for found, expected in zip(read, in_channels.fields, strict=True):
        assert torch.equal(found.amplitudes, expected.amplitudes)
        assert found.background == expected.background
    table.drop(columns="amplitude_1").to_csv(path, index=False)
    assert "lacks the columns amplitude_1" in refusal(path)


def test_a_table_that_a_spreadsheet_saved_is_the_same_field(
    written: Path, field: GaussianField
) -> None:
    text = written.read_text(encoding="utf-8")
    german = text.replace(",", ";").replace(".", ",")
    for name, saved in {
        "with a byte order mark": text.encode("utf-8-sig"),
        "of a country of decimal commas": german.encode("utf-8-sig"),
        "with semicolons and decimal points": text.replace(",", ";").encode(),
        "with tabs": text.replace(",", "\t").encode(),
    }.items():
        written.write_bytes(saved)
        read = read_csv(written)
        assert torch.equal(read.means, field.means), name
        assert torch.equal(read.amplitudes, field.amplitudes), name


def test_a_table_whose_numbers_cannot_be_told_is_refused_by_what_is_wrong(written: Path) -> None:
    text = written.read_text(encoding="utf-8")
    lines = text.replace(",", ";").splitlines()
    written.write_text("\n".join([lines[0], lines[1], lines[2].replace(".", ","), *lines[3:]]))
    assert "with decimal commas and with decimal points" in refusal(written)
    written.write_text("\n".join([text.splitlines()[0], *text.replace(".", ",").splitlines()[1:]]))
    assert f"has more cells in a row than its {len(COLUMNS)} columns" in refusal(written)
    written.write_bytes(text.encode("utf-16"))
    assert "is no CSV table in UTF-8" in refusal(written)


@pytest.mark.parametrize(
    ("unit", "factor", "known"),
    [("um", 1.0, "micrometer"), ("\u00b5m", 1.0, "micrometer"), ("nm", 1e-3, "micrometer"),
     ("px", 1.0, "pixel")],
)  # fmt: skip
def test_the_unit_of_a_table_is_read_in_any_spelling(
    written: Path, field: GaussianField, unit: str, factor: float, known: str
) -> None:
    pd.read_csv(written).assign(unit=unit).to_csv(written, index=False)
    read = read_csv(written)
    assert read.unit == known
    torch.testing.assert_close(read.means, field.means * factor)
    torch.testing.assert_close(read.covariances, field.covariances * factor**2)


def test_a_unit_that_is_none_is_refused(written: Path) -> None:
    pd.read_csv(written).assign(unit="furlong").to_csv(written, index=False)
    assert "unit='furlong' is no length known here" in refusal(written)


def test_points_of_our_table_and_of_napari_are_the_same_places(
    tmp_path: Path, saved: FitResult
) -> None:
    from npe2.io_utils import write

    table, layer = tmp_path / "gaussians.csv", tmp_path / "layer.csv"
    stack = Stack.from_array(np.arange(2 * 3 * 4).reshape(2, 3, 4), spacing=SPACING)
    inside = replace(saved.field, means=saved.field.means % torch.tensor(SPACING))
    write_csv(table, inside, SPACING)
    voxels = inside.means.numpy().astype(np.float64) / SPACING
    write(str(layer), [(voxels, {"scale": SPACING}, "points")], plugin_name="napari")
    expected = inside.means.numpy()
    np.testing.assert_allclose(read_points(table, stack), expected, rtol=1e-12)
    np.testing.assert_allclose(read_points(layer, stack), expected, rtol=1e-12)


def test_points_beyond_the_stack_are_named(tmp_path: Path) -> None:
    stack = Stack.from_array(np.arange(2 * 3 * 4).reshape(2, 3, 4), spacing=(0.5, 0.2, 0.1))
    path = tmp_path / "points.csv"
    path.write_text("z,y,x\n-0.25,0.5,0.35\n0,0,0\n0.2,0.51,0.1\n")
    with pytest.raises(FormatError, match=r"1 of 3 points .* row 3 at 0.2, 0.51, 0.1") as error:
        read_points(path, stack)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("unit", "factor"), [("um", 1), ("nm", 1000)])
def test_points_are_read_in_any_unit_of_length(tmp_path: Path, unit: str, factor: float) -> None:
    stack = StackFacts("cell", (10, 20, 30), (0.3, 0.1, 0.1))
    path = tmp_path / "points.csv"
    given = pd.DataFrame({"z": [0.6, 1.5], "y": [0.4, 0.5], "x": [2.0, 0.1]})
    (given * factor).assign(unit=unit).to_csv(path, index=False)
    np.testing.assert_allclose(read_points(path, stack), given)
