"""What a scientist tries in a notebook works, or one line says what would."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import torch
import xarray

from napari_gaussfit import FitSettings, GaussianField, Stack, draw_history, fit, load
from napari_gaussfit.errors import FitError, SettingsError, StackError
from napari_gaussfit.stacks.tiff import write_ome_tiff
from napari_gaussfit.synthetic.phantoms import beads

if TYPE_CHECKING:
    from napari_gaussfit.fitting.result import FitResult

FEW: dict[str, Any] = {"gaussians": 6, "exactly": True, "iterations": 3, "views": 4, "held_out": 1}
SPACING = (0.3, 0.1, 0.1)


@pytest.fixture(scope="module")
def stack() -> Stack:
    return beads(count=6, shape=(12, 30, 32)).stack


@pytest.fixture(scope="module")
def result(stack: Stack) -> FitResult:
    return fit(stack, **FEW)


@pytest.fixture(scope="module")
def file(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files") / "stack.ome.tif"
    write_ome_tiff(path, stack.voxels, spacing=stack.spacing, unit=stack.unit, name="stack")
    return path


def labelled(stack: Stack, dims: str = "zyx", unit: str = "nm", scale: float = 1000) -> Any:
    """Return the stack as xarray has it, with coordinates in nanometres from 5 micrometres on."""
    coords = {
        axis: (axis, (5 + np.arange(n) * step) * scale, {"units": unit})
        for axis, n, step in zip("zyx", stack.shape, stack.spacing, strict=True)
    }
    return xarray.DataArray(stack.voxels, dims=list("zyx"), coords=coords).transpose(*dims)


def test_fit_of_a_file_by_its_name(file: Path, result: FitResult) -> None:
    assert np.array_equal(fit(str(file), **FEW).field.means, result.field.means)


def test_fit_of_an_array_with_its_spacing(stack: Stack) -> None:
    assert fit(np.array(stack.voxels), spacing=SPACING, **FEW).stack.spacing == SPACING


def test_fit_of_lists_of_numbers() -> None:
    ramp = (np.indices((4, 6, 6)).sum(0)).tolist()
    assert fit(ramp, **FEW).stack.unit == "pixel"


def test_settings_by_name_beside_others(stack: Stack) -> None:
    settings = fit(stack, FitSettings(seed=3), **FEW).settings
    assert settings is not None
    assert (settings.seed, settings.gaussians) == (3, 6)


def test_numpy_integers_are_numbers(stack: Stack) -> None:
    assert len(fit(stack, **FEW | {"gaussians": np.int64(5)}).field) == 5


def test_what_is_no_setting_is_named(stack: Stack) -> None:
    with pytest.raises(SettingsError, match="gausians: no setting of a fit and no option of a st"):
        fit(stack, gausians=300)


def test_options_of_files_are_none_of_a_stack(stack: Stack) -> None:
    with pytest.raises(
        SettingsError, match="spacing: no option of a Stack, which has them already"
    ):
        fit(stack, spacing=SPACING, **FEW)


def test_xarray_tells_axes_spacing_unit_and_place(stack: Stack) -> None:
    found = Stack.from_array(labelled(stack, "xzy"))
    assert np.array_equal(found.voxels, stack.voxels)
    assert found.spacing == pytest.approx(stack.spacing)
    assert found.origin == pytest.approx((5, 5, 5))
    assert found.unit == "micrometer"


def test_xarray_has_channels_by_name(stack: Stack) -> None:
    both = xarray.concat([labelled(stack), labelled(stack) * 2], "c").assign_coords(
        c=["GFP", "DAPI"]
    )
    found = Stack.from_array(both, channel="DAPI")
    assert (found.channel, found.voxels.max()) == (1, 2 * stack.voxels.max())
    with pytest.raises(
        StackError, match="has 2 channels; choose channel=N, N from 0 to 1, or one of GFP, DAPI"
    ):
        Stack.from_array(both)


def test_xarray_of_other_dims_and_units_is_refused(stack: Stack) -> None:
    with pytest.raises(StackError, match="has the dims depth, y, x; expected z, y, x"):
        Stack.from_array(labelled(stack).rename(z="depth"))
    with pytest.raises(StackError, match="z is in 'seconds', which is no length known here"):
        Stack.from_array(labelled(stack, unit="seconds"))
    uneven = labelled(stack)
    uneven = uneven.isel(z=[0, 1, 2, 5])
    with pytest.raises(StackError, match="z runs in steps of"):
        Stack.from_array(uneven)


def test_xarray_without_units_is_in_pixels(stack: Stack) -> None:
    assert Stack.from_array(xarray.DataArray(stack.voxels, dims=list("zyx"))).unit == "pixel"


def test_numpy_takes_the_voxels_of_a_stack(stack: Stack) -> None:
    assert np.array_equal(np.asarray(stack), stack.voxels)


def test_part_of_a_stack_knows_where_it_is(stack: Stack) -> None:
    part = stack[2:10, 5:, ::2]
    assert np.array_equal(part.voxels, stack.voxels[2:10, 5:, ::2])
    dz, dy, dx = stack.spacing
    assert part.origin == pytest.approx((2 * dz, 5 * dy, 0))
    assert part.spacing == pytest.approx((dz, dy, 2 * dx))


def test_planes_and_thin_parts_of_a_stack_are_refused(stack: Stack) -> None:
    with pytest.raises(StackError, match=r"planes and voxels are those of stack\.voxels"):
        stack[3]
    with pytest.raises(StackError, match="that part of it has 1 x 30 x 32 voxels"):
        stack[3:4]


def test_mask_indices_and_slices_choose_gaussians(result: FitResult) -> None:
    field = result.field
    bright = field.amplitudes > field.amplitudes.median()
    assert torch.equal(field[bright].means, field.means[bright])
    assert torch.equal(field[bright.numpy()].means, field.means[bright])
    assert torch.equal(field[[0, 2]].means, field.means[[0, 2]])
    assert torch.equal(field[2:].amplitudes, field.amplitudes[2:])
    assert torch.equal(field[-1].means, field.means[-1:])
    assert (len(field[[]]), len(list(field))) == (0, len(field))
    with pytest.raises(SettingsError, match="the mask has 2 entries, the field 6 Gaussians"):
        field[np.array([True, False])]


def test_sum_of_two_fields_has_the_sum_of_their_values(result: FitResult) -> None:
    field, points = result.field, [[1.0, 1.0, 1.0], [2.0, 0.5, 1.5]]
    both = field + field[1:3]
    expected = field.evaluate(points) + field[1:3].evaluate(points)
    torch.testing.assert_close(both.evaluate(points), expected)
    other = GaussianField(*field.tensors, unit="pixel")
    with pytest.raises(SettingsError, match="a field in micrometers and one in pixels have no sum"):
        field + other
    with pytest.raises(TypeError):
        field + 3


def test_result_knows_its_stack(result: FitResult, stack: Stack) -> None:
    assert np.array_equal(result.residual(), result.residual(stack))
    assert result.measured().measurement is not None


def test_saved_result_asks_for_its_stack(result: FitResult, tmp_path: Path) -> None:
    result.save(tmp_path / "fit.safetensors")
    with pytest.raises(SettingsError, match=r"give it, as in result\.residual\(stack\)"):
        load(tmp_path / "fit.safetensors").residual()


def test_view_from_angles(result: FitResult) -> None:
    assert result.render(azimuth=30, elevation=20).max() > result.field.background
    with pytest.raises(SettingsError, match="channel=3: the fit has 1; choose a number from 0"):
        result.render(channel=3)


def test_channel_of_a_file_by_its_name(stack: Stack, tmp_path: Path) -> None:
    import tifffile

    path = tmp_path / "two.ome.tif"
    both = np.stack([stack.voxels, stack.voxels + 7])
    metadata = {"axes": "CZYX", "Channel": {"Name": ["DAPI", "GFP"]}}
    tifffile.imwrite(path, both, ome=True, metadata=metadata)
    assert Stack.open(path, channel="gfp").channel == 1
    assert fit(path, channel="DAPI", **FEW).stack.channel == 0
    assert len(fit(path, channel=["DAPI", "GFP"], **FEW).fields) == 2
    with pytest.raises(StackError, match="channel='RFP' is none of its channels; its channels are"):
        Stack.open(path, channel="RFP")


@pytest.mark.parametrize(
    "columns", [["fwhm_z", "fwhm_y", "fwhm_x"], ["sigma_z", "sigma_y", "sigma_x"]]
)
def test_table_with_widths_in_place_of_covariances(
    columns: list[str], stack: Stack, tmp_path: Path
) -> None:
    per_sigma = 2.354820045 if columns[0].startswith("fwhm") else 1.0
    sigmas = np.array([0.5, 0.2, 0.1])
    table = pd.DataFrame([{"z": 1, "y": 2, "x": 2, "amplitude": 9, "unit": "um"}])
    table.assign(**dict(zip(columns, sigmas * per_sigma, strict=True))).to_csv(tmp_path / "t.csv")
    covariance = load(tmp_path / "t.csv", stack).field.covariances[0]
    torch.testing.assert_close(covariance, torch.diag(torch.tensor(sigmas**2)).float())


def test_table_with_principal_widths_is_that_with_covariances(
    result: FitResult, stack: Stack, tmp_path: Path
) -> None:
    table = result.to_dataframe()
    keep = [name for name in table if not name.startswith(("cov_", "fwhm_"))]
    table[keep].to_csv(tmp_path / "t.csv", index=False)
    found = load(tmp_path / "t.csv", stack).field.covariances
    torch.testing.assert_close(found, result.field.covariances, rtol=1e-4, atol=1e-7)


def test_table_with_one_width_has_spheres(stack: Stack, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("z,y,x,amplitude,sigma,unit\n1,2,2,9,0.2,um\n")
    covariance = load(tmp_path / "t.csv", stack).field.covariances[0]
    torch.testing.assert_close(covariance, 0.04 * torch.eye(3))


def test_start_in_another_unit_is_refused(stack: Stack, result: FitResult) -> None:
    start = GaussianField(*result.field.tensors, result.field.background, "pixel")
    with pytest.raises(SettingsError, match=r"start is in pixels, the stack .* in micrometers"):
        fit(stack, start=start, **FEW)


@pytest.mark.parametrize("start", [np.zeros((3, 3)), "result"], ids=["array", "result"])
def test_a_start_that_is_no_field_is_refused(stack: Stack, result: FitResult, start: Any) -> None:
    with pytest.raises(SettingsError, match=r"start is a \w+; expected a GaussianField"):
        fit(stack, start=result if isinstance(start, str) else start, **FEW)


def test_voxels_in_place_of_a_stack_are_refused(stack: Stack, result: FitResult) -> None:
    for ask in (result.residual, result.measured):
        with pytest.raises(SettingsError, match="stack is a ndarray; expected the Stack"):
            ask(stack.voxels)


def test_start_of_another_place_is_refused(stack: Stack, result: FitResult) -> None:
    means, cholesky, amplitudes = result.field.tensors
    with pytest.raises(SettingsError, match="start has none of its 6 Gaussians in the stack"):
        fit(stack, start=GaussianField(means + 1000, cholesky, amplitudes), **FEW)
    with pytest.raises(SettingsError, match="start has 2 fields, the fit 1 channels"):
        fit(stack, start=[result.field, result.field], **FEW)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([[500.0, 1, 1]], "points: 1 of 1 lie outside of the stack .* at 500, 1, 1; which is at z"),
        ([[1.0, float("nan"), 1]], "1 of 1 lie outside"),
        ([1.0, 1, 1], r"points has shape \(3,\); expected \(P, 3\)"),
    ],
)
def test_points_outside_of_the_stack_are_refused(
    stack: Stack, points: list[Any], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        fit(stack, points=points, **FEW)


def test_each_says_what_it_is_in_a_line(stack: Stack, result: FitResult) -> None:
    for thing in (stack, result, result.field, result.field.numpy()):
        assert len(repr(thing)) < 160
        assert "\n" not in repr(thing)
    assert repr(stack).startswith("Stack('beads': 12 x 30 x 32 voxels (z, y, x) of ")


def test_notebooks_show_a_picture_a_table_and_the_quality(stack: Stack, result: FitResult) -> None:
    page = result._repr_html_()
    assert page.count("data:image/png;base64,") == 2
    assert page.count('alt="') == 2
    assert "not converged: " in page
    assert "integrated_intensity" in page
    assert "voxels " in page
    assert "12 x 30 x 32 voxels" in stack._repr_html_()
    assert result.field._repr_html_().count("<tr>") == 6


def test_names_are_no_html(stack: Stack) -> None:
    evil = Stack.from_array(stack.voxels, name="<script>")
    assert "<script>" not in evil._repr_html_()


def test_result_without_report_says_so(result: FitResult) -> None:
    from dataclasses import replace

    bare = replace(result, reports=())
    assert "no report: recorded before its end" in bare._repr_html_()
    with pytest.raises(FitError):
        _ = bare.report


def test_progress_is_a_bar(stack: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    fit(stack, progress=True, **FEW)
    assert "3/3" in capsys.readouterr().err
    fit(stack, **FEW)
    assert not capsys.readouterr().err


def test_figures_show_themselves_where_pyplot_has_not_run(result: FitResult) -> None:
    picture: Any = draw_history(result.history, unit="micrometer")
    assert picture._repr_png_().startswith(b"\x89PNG")
