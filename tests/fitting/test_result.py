"""The record of a fit: what it holds, and what a notebook does with it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import torch

from napari_gaussfit import FitResult, FitSettings, GaussianField, Stack, StackFacts, fit, load
from napari_gaussfit.errors import FitError, FormatError, SettingsError
from napari_gaussfit.measure.report import Report
from napari_gaussfit.model.camera import axis_view, orbit_view
from napari_gaussfit.model.projection import render
from saved_fits import some_fit, some_report

if TYPE_CHECKING:
    from pathlib import Path

STACK = Stack(
    np.arange(60, dtype=np.uint8).reshape(3, 4, 5),
    spacing=(0.5, 0.2, 0.1),
    unit="micrometer",
    name="cells",
    channel=2,
    time=7,
    origin=(3.0, 4.0, 5.0),
)
FIELD = GaussianField(torch.zeros(2, 3), torch.zeros(2, 6), torch.ones(2), 9.0)
SECOND = replace(FIELD, amplitudes=torch.full((2,), 3.0), background=1.0)


def test_a_stack_says_where_it_is_without_its_voxels() -> None:
    facts = STACK.facts
    assert facts == StackFacts(
        "cells", (3, 4, 5), (0.5, 0.2, 0.1), "micrometer", (3.0, 4.0, 5.0), 2, 7
    )
    assert facts.value_range == (0.0, 59.0)
    assert facts.place == {"channel": 2, "time": 7}
    np.testing.assert_array_equal(facts.box, STACK.box)


def test_a_fit_records_its_stack_its_settings_and_a_report_of_each_channel() -> None:
    settings = FitSettings(
        exactly=True, gaussians=3, iterations=10, views=4, held_out=1, device="cpu"
    )
    alone, together = fit(STACK, settings), fit([STACK, STACK], settings)
    assert alone.stack == STACK.facts
    assert together.stack.place == {"time": 7}, "of several channels it is of none of them"
    for result, channels in ((alone, 1), (together, 2)):
        assert result.settings == settings
        assert len(result.fields) == len(result.reports) == channels
        assert result.field is result.fields[0]
        assert result.report is result.reports[0]
        assert result.history["iteration"] == [10]
        assert "words" in result.state


def test_gaussians_in_another_unit_than_the_stacks_are_refused() -> None:
    with pytest.raises(SettingsError, match="unit='micrometer' of the stack is not the field's"):
        FitResult((replace(FIELD, unit="pixel"),), STACK.facts)


def test_a_record_of_no_channel_is_refused() -> None:
    with pytest.raises(SettingsError, match="fields is empty"):
        FitResult((), STACK.facts)


def test_a_record_without_a_report_says_so_when_it_is_asked_for_one() -> None:
    with pytest.raises(FitError, match="the fit of 'cells' has no report"):
        FitResult((FIELD,), STACK.facts).report  # noqa: B018


def test_a_record_shows_itself_in_one_line() -> None:
    shown = repr(FitResult((FIELD, SECOND), STACK.facts))
    assert shown == "FitResult('cells': 2 Gaussians in 2 channels, micrometers, no report)"
    assert repr(some_fit(40)) == (
        "FitResult('stack': 40 Gaussians, micrometers, held-out projections "
        f"{some_report().heldout_mip_psnr:.2f} dB)"
    )


def test_the_table_of_a_record_is_the_one_that_it_exports(tmp_path: Path) -> None:
    result = FitResult((FIELD, SECOND), STACK.facts)
    result.export(tmp_path / "gaussians.csv")
    written = pd.read_csv(tmp_path / "gaussians.csv", keep_default_na=True)
    table = result.to_dataframe()
    assert list(table) == list(written)
    assert list(table["amplitude_1"]) == [3.0, 3.0]
    assert set(table["channel"]) == {2}
    np.testing.assert_allclose(table["cov_zz"], written["cov_zz"])


def test_a_record_renders_as_its_field_does() -> None:
    result = some_fit(6)
    box, finest = result.stack.box, min(result.stack.spacing)
    for given, camera in (
        ({}, axis_view(result.stack.shape, result.stack.spacing, 0)),
        ({"azimuth": 30.0}, orbit_view(box, 30.0, 0.0, finest)),
        ({"elevation": 20.0, "mode": "sum"}, orbit_view(box, 0.0, 20.0, finest)),
        ({"camera": orbit_view(box, 9.0, 9.0, 0.3)}, orbit_view(box, 9.0, 9.0, 0.3)),
    ):
        expected = render(result.field, camera, box, mode=given.get("mode", "mip"))
        np.testing.assert_array_equal(result.render(**given), expected)
    with pytest.raises(SettingsError, match="two ways to say it"):
        result.render(camera, azimuth=3.0)


def test_each_channel_of_a_record_can_be_rendered() -> None:
    result = FitResult((FIELD, SECOND), STACK.facts)
    assert result.render(channel=0).max() == pytest.approx(11.0)
    assert result.render(channel=1).max() == pytest.approx(7.0)


def test_a_residual_is_the_stack_minus_the_fit_in_each_channel(tmp_path: Path) -> None:
    result = FitResult((FIELD, SECOND), STACK.facts)
    brighter = replace(STACK, voxels=STACK.voxels + 5)
    residual = result.residual([STACK, brighter])
    np.testing.assert_allclose(
        residual + result.voxelise(), np.stack([STACK.voxels, brighter.voxels]), rtol=1e-5
    )
    result.export(tmp_path / "residual.ome.tif", residual_of=[STACK, brighter])
    written = Stack.open_channels(tmp_path / "residual.ome.tif")
    np.testing.assert_array_equal([stack.voxels for stack in written], residual)
    with pytest.raises(SettingsError, match=r"has 1 channel\(s\) of shape .* is of 2 channel"):
        result.residual(STACK)


def test_load_reads_the_folder_that_the_command_line_leaves(tmp_path: Path) -> None:
    result = some_fit(3)
    result.save(tmp_path / "fit.safetensors")
    assert load(tmp_path).stack == result.stack
    with pytest.raises(FormatError, match="is a folder that holds no fit"):
        load(tmp_path.parent)


def test_only_checkpoints_have_options_to_be_read_by(tmp_path: Path) -> None:
    some_fit(3).save(tmp_path / "fit.safetensors")
    with pytest.raises(SettingsError, match="box: only checkpoints"):
        load(tmp_path / "fit.safetensors", box=[[0, 1]] * 3)


def test_settings_of_another_version_are_left_out_with_a_note(tmp_path: Path) -> None:
    from napari_gaussfit.formats.registry import write_fit

    path, contents = tmp_path / "fit.safetensors", some_fit(3).contents()
    contents["settings"]["sparkle"] = 3
    write_fit(path, **contents)
    loaded = load(path)
    assert loaded.settings is None
    [note] = loaded.notes
    assert "sparkle: no such setting" in note


def test_a_report_comes_back_from_json_and_what_was_not_measured_is_nan() -> None:
    report = some_report()
    assert Report.from_dict(report.to_dict()) == report
    older = report.to_dict()
    for name in ("noise_psnr", "mip_psnr_gap", "converged", "convergence"):
        del older[name]
    found = Report.from_dict(older | {"of a newer version": 3})
    assert found.noise_psnr is None
    assert np.isnan(found.mip_psnr_gap)
    assert (found.converged, found.convergence) == (False, "")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("voxel_psnr", "much", "a number"),
        ("iterations", 2.5, "a whole number"),
        ("converged", 1, "true or false"),
        ("device", None, "text"),
        ("notes", "a note", "a list"),
    ],
)
def test_a_report_that_is_none_is_refused_by_what_is_wrong(
    name: str, value: object, expected: str
) -> None:
    with pytest.raises(SettingsError, match=f"report: {name} is .*; expected {expected}"):
        Report.from_dict(some_report().to_dict() | {name: value})
