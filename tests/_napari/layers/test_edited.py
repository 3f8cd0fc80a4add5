"""An edited Points layer is a field again: deleted, moved and added points count."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from napari.layers import Layer, Points

from napari_gaussfit._napari.layers import gaussians
from napari_gaussfit._napari.layers.edited import fields_of_points, fit_of_points
from napari_gaussfit.errors import SettingsError
from napari_gaussfit.fitting.result import FitResult
from napari_gaussfit.measure.measurement import Measurement
from napari_gaussfit.measure.table import ERRORS, GOODNESS
from saved_fits import PLACEMENT, SPACING, some_fit


def points_of(fit: FitResult) -> Points:
    return Layer.create(*gaussians.points_layer(fit, PLACEMENT, name="centres"))


def fit_now(points: Points) -> FitResult:
    data, keywords, _ = points.as_layer_data_tuple()
    return fit_of_points(data, keywords)


def test_points_that_nobody_touched_are_the_fit_itself() -> None:
    fit = some_fit()
    assert fit_now(points_of(fit)) is fit


def test_a_deleted_point_takes_its_gaussian_along_and_leaves_the_others_as_they_were() -> None:
    fit = some_fit()
    points = points_of(fit)
    points.selected_data = {3, 7}
    points.remove_selected()
    edited = fit_now(points)
    kept = [k for k in range(40) if k not in (3, 7)]
    assert len(edited.field) == 38
    torch.testing.assert_close(edited.field.means, fit.field.means[kept])
    torch.testing.assert_close(edited.field.covariances, fit.field.covariances[kept])
    torch.testing.assert_close(edited.field.amplitudes, fit.field.amplitudes[kept])
    assert edited.field.background == fit.field.background
    assert edited.field.unit == fit.field.unit


def test_a_moved_point_keeps_its_shape_and_brightness() -> None:
    fit = some_fit()
    points = points_of(fit)
    data = points.data.copy()
    data[5] += (1.0, -2.0, 0.5)
    points.data = data
    field = fit_now(points).field
    moved = field.means[5] - fit.field.means[5]
    np.testing.assert_allclose(moved, np.multiply((1.0, -2.0, 0.5), SPACING), atol=1e-6)
    torch.testing.assert_close(field.covariances, fit.field.covariances)
    torch.testing.assert_close(field.amplitudes, fit.field.amplitudes)


def test_an_added_point_becomes_a_gaussian() -> None:
    points = points_of(some_fit())
    points.add([4.0, 5.0, 6.0])
    field = fit_now(points).field
    assert len(field) == 41
    np.testing.assert_allclose(field.means[40], np.multiply((4, 5, 6), SPACING), rtol=1e-6)
    assert torch.linalg.eigvalsh(field.covariances[40]).min() > 0
    assert field.amplitudes[40] > 0


def test_a_point_without_measurements_gets_the_median_of_the_others() -> None:
    fit = some_fit()
    points = points_of(fit)
    features = points.features.copy()
    features.loc[0, ["amplitude", "cov_zz"]] = np.nan
    points.features = features
    field = fit_now(points).field
    assert float(field.amplitudes[0]) == pytest.approx(
        float(fit.field.amplitudes[1:].quantile(0.5))
    )


def test_an_edited_amplitude_counts() -> None:
    points = points_of(some_fit())
    features = points.features.copy()
    features.loc[2, "amplitude"] = 4321.0
    points.features = features
    assert float(fit_now(points).field.amplitudes[2]) == pytest.approx(4321.0)


def test_report_and_optimiser_state_go_with_the_points_that_they_were_of() -> None:
    fit = some_fit()
    points = points_of(fit)
    points.selected_data = {0}
    points.remove_selected()
    edited = fit_now(points)
    assert (edited.reports, edited.state) == ((), {})
    assert (edited.settings, edited.stack) == (fit.settings, fit.stack)


def test_other_points_are_refused_by_name() -> None:
    strangers = Points(np.zeros((3, 3)), name="cells")
    with pytest.raises(SettingsError, match="'cells' carries no fit"):
        fit_now(strangers)


def test_points_that_lost_their_features_are_refused_with_what_they_lack() -> None:
    fit = some_fit()
    points = points_of(fit)
    features = points.features.drop(columns=["cov_zz", "amplitude"])
    with pytest.raises(SettingsError, match="amplitude, cov_zz"):
        fields_of_points(points.data, features, fit)


def test_points_without_any_measurement_are_refused() -> None:
    points = points_of(some_fit())
    points.features = points.features.assign(amplitude=np.nan)
    with pytest.raises(SettingsError, match="no point has an amplitude"):
        fit_now(points)


def measured_fit() -> FitResult:
    """A fit whose measured Gaussians lie a little beside its own."""
    fit = some_fit()
    own = fit.field.numpy()
    found = Measurement(
        (replace(own, means=own.means.astype(np.float64) + 0.01),),
        np.tile(np.diag(np.linspace(0.1, 1.1, 11)), (40, 1, 1)) * np.arange(1, 41)[:, None, None],
        np.ones(40),
        np.full((40, 1), 12.0),
        np.full(40, 5),
        ("",) * 40,
    )
    return replace(fit, measurement=found)


def test_points_of_a_measured_fit_lie_where_it_was_measured_and_are_the_fit_itself() -> None:
    fit = measured_fit()
    points = points_of(fit)
    np.testing.assert_allclose(
        points.data * SPACING, fit.field.means.numpy() + 0.01, rtol=1e-5, atol=1e-6
    )
    assert fit_now(points) is fit


def test_gaussians_that_nobody_touched_keep_their_error_bars_and_others_say_why_not() -> None:
    fit = measured_fit()
    assert fit.measurement is not None
    points = points_of(fit)
    points.selected_data = {3}
    points.remove_selected()
    data = points.data.copy()
    data[5] += 0.25  # which was the seventh
    points.data = data
    points.add(data[0])  # a copy of the first
    features = points.features.copy()
    features.loc[8, "amplitude"] = 7.0
    points.features = features
    edited = fit_now(points)
    assert edited.measurement is not None
    was = np.array([k for k in range(40) if k != 3])
    kept = np.array([n for n in range(39) if n not in (5, 8)])
    before, after = fit.measurement, edited.measurement
    np.testing.assert_array_equal(after.covariances[kept], before.covariances[was[kept]])
    np.testing.assert_array_equal(
        after.gaussians[0].means[kept], before.gaussians[0].means[was[kept]]
    )
    table = edited.to_dataframe()
    others = [5, 8, 39]
    assert (table["flags"][others] == "edited since it was measured").all()
    assert (table["flags"][kept] == "").all()
    assert table[[*ERRORS, GOODNESS]].loc[others].isna().all(axis=None)
    assert table["sd_z"][kept].notna().all()
    assert table["amplitude"][8] == 7.0


def in_two_channels() -> FitResult:
    fit = some_fit()
    brightness = torch.linspace(10, 20, len(fit.field))
    second = replace(fit.field, amplitudes=brightness, background=3.0)
    return replace(fit, fields=(fit.field, second))


def test_channels_that_nobody_touched_are_the_fit_itself() -> None:
    fit = in_two_channels()
    points = points_of(fit)
    np.testing.assert_allclose(points.features["amplitude_1"], fit.fields[1].amplitudes)
    assert fit_now(points) is fit


def test_every_channel_follows_the_edited_points() -> None:
    fit = in_two_channels()
    points = points_of(fit)
    points.selected_data = {0, 1}
    points.remove_selected()
    edited = fit_now(points)
    first, second = edited.fields
    assert torch.equal(first.means, second.means)
    torch.testing.assert_close(second.amplitudes, fit.fields[1].amplitudes[2:])
    assert (first.background, second.background) == (12.5, 3.0)
    assert not edited.reports


def test_a_channel_that_was_changed_alone_counts() -> None:
    fit = in_two_channels()
    points = points_of(fit)
    features = points.features
    features.loc[4, "amplitude_1"] = 99.0
    points.features = features
    edited = fit_now(points)
    assert float(edited.fields[1].amplitudes[4]) == 99.0
    assert torch.equal(edited.field.amplitudes, fit.field.amplitudes)
    points.features = features.drop(columns="amplitude_1")
    with pytest.raises(SettingsError, match="lack the features amplitude_1"):
        fit_now(points)
