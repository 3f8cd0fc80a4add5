"""The table of Gaussians holds beside each number how well it is known."""

from __future__ import annotations

import numpy as np
import pytest

from napari_gaussfit.measure.measurement import Measurement
from napari_gaussfit.measure.refinement import refine
from napari_gaussfit.measure.table import ERRORS, error_columns, measurements
from napari_gaussfit.model.field import GaussianField
from napari_gaussfit.model.gaussians import FWHM_PER_SIGMA, Gaussians
from napari_gaussfit.stacks.stack import Stack


def spots() -> Gaussians:
    means = [[12.0, 12.0, 12.0], [12.0, 12.0, 36.0]]
    return Gaussians.from_covariances(
        means, np.tile(np.diag([6.0, 3.0, 2.0]), (2, 1, 1)), [90.0, 60.0], background=9.0,
        unit="pixel",
    )  # fmt: skip


def measured(channels: int) -> Measurement:
    truth = spots()
    light = GaussianField.from_numpy(truth).voxelise((25, 25, 49), (1.0, 1.0, 1.0)).numpy()
    rng = np.random.default_rng(0)
    stacks = [Stack.from_array(rng.poisson(light).astype(np.float32)) for _ in range(channels)]
    return refine([truth] * channels, stacks)


def test_each_number_stands_beside_its_standard_deviation() -> None:
    found = measured(1)
    field = GaussianField.from_numpy(found.gaussians[0])
    table = measurements(field, (1.0, 1.0, 1.0), measurement=found)
    deviations = np.sqrt(np.diagonal(found.covariances, axis1=1, axis2=2))
    for n, axis in enumerate("zyx"):
        np.testing.assert_array_equal(table[f"sd_{axis}"], deviations[:, n])
    # A sphere's width of the spot's, in that many photons, is known to one in sqrt(2 N).
    photons = table["integrated_intensity"]
    assert (table["sd_fwhm_1"] > FWHM_PER_SIGMA * table["sigma_1"] / np.sqrt(2 * photons)).all()
    assert (table["reduced_chi2"] - 1).abs().max() < 0.3
    assert (table["flags"] == "").all()


def test_channels_have_error_bars_of_their_own() -> None:
    found = measured(2)
    fields = [GaussianField.from_numpy(gaussians) for gaussians in found.gaussians]
    table = measurements(fields, (1.0, 1.0, 1.0), found)
    for n in range(2):
        np.testing.assert_array_equal(
            table[f"sd_amplitude_{n}"], np.sqrt(found.covariances[:, 9 + n, 9 + n])
        )
    assert list(error_columns(5, None, 2)) == [
        *ERRORS, "sd_amplitude_0", "sd_integrated_intensity_0",
        "sd_amplitude_1", "sd_integrated_intensity_1", "reduced_chi2", "flags",
    ]  # fmt: skip


@pytest.mark.parametrize("count", [0, 3])
def test_without_a_measurement_the_columns_are_empty(count: int) -> None:
    columns = error_columns(count)
    assert all(len(values) == count for values in columns.values())
    assert set(columns.pop("flags")) <= {""}
    assert all(np.isnan(np.asarray(values, float)).all() for values in columns.values())
