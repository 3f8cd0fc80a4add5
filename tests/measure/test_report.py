"""A report's figures are those that anybody would measure."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_gaussfit.measure.metrics import psnr
from napari_gaussfit.measure.report import (
    TRAINING_VIEWS_REPORTED,
    Report,
    make_report,
    peak_memory_mb,
)
from napari_gaussfit.model.projection import project_stack, render
from napari_gaussfit.model.scaling import WorkingStack
from napari_gaussfit.model.views import Views
from napari_gaussfit.settings import FitSettings
from napari_gaussfit.synthetic.phantoms import Phantom, separated

if TYPE_CHECKING:
    from napari_gaussfit.model.field import GaussianField
    from napari_gaussfit.stacks.stack import Stack

SETTINGS = FitSettings(views=12, held_out=4, seed=9)


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return separated(count=5, shape=(30, 48, 48), photons=100)


@pytest.fixture(scope="module")
def views(phantom: Phantom) -> Views:
    """Those of the stack as it was recorded; a report looks at it in working units."""
    return Views(phantom.stack, SETTINGS.views, SETTINGS.held_out)


def reported(field: GaussianField, stack: Stack, settings: FitSettings = SETTINGS) -> Report:
    working = WorkingStack.of(stack)
    views = Views(working.stack, settings.views, settings.held_out)
    scaled = working.scaled(field)
    return make_report(scaled, working, views, settings, seconds=1.5, iterations=12)


@pytest.fixture(scope="module")
def report(phantom: Phantom) -> Report:
    return reported(phantom.truth, phantom.stack)


def test_voxel_psnr_is_that_of_the_formula(report: Report, phantom: Phantom) -> None:
    stack, truth = phantom.stack, phantom.truth
    points = np.stack(np.indices(stack.shape), -1).reshape(-1, 3) * stack.spacing
    total = np.full(len(points), truth.background)
    for mean, sigma, amplitude in zip(
        truth.means.double().numpy(),
        truth.covariances.double().numpy(),
        truth.amplitudes.tolist(),
        strict=True,
    ):
        offsets = points - mean
        squares = np.einsum("bi,ij,bj->b", offsets, np.linalg.inv(sigma), offsets)
        total += amplitude * np.exp(-squares / 2)
    error = np.square(total - stack.voxels.ravel()).mean()
    expected = 10 * math.log10(float(np.ptp(stack.voxels)) ** 2 / error)
    assert report.voxel_psnr == pytest.approx(expected, abs=0.01)


@pytest.mark.notebook("psnr-gap", api="measure.report.Report.heldout_mip_psnr")
def test_held_out_psnr_is_the_mean_over_held_out_views(
    report: Report, phantom: Phantom, views: Views
) -> None:
    stack = phantom.stack
    found = [
        psnr(
            project_stack(stack, camera),
            render(phantom.truth, camera, stack.box).numpy(),
            stack.value_range,
            views.view(camera).hit.numpy(),
        )
        for camera in views.held_out
    ]
    assert report.heldout_mip_psnr == pytest.approx(np.mean(found), abs=1e-3)


@pytest.mark.notebook("psnr-gap", api="measure.report.Report.mip_psnr_gap")
def test_the_gap_is_between_views_trained_on_and_held_out(
    report: Report, phantom: Phantom, views: Views
) -> None:
    stack = phantom.stack
    sample = views.training[:: max(1, len(views.training) // TRAINING_VIEWS_REPORTED)]
    found = [
        psnr(
            views.view(camera).target.numpy(),
            render(phantom.truth, camera, stack.box).numpy(),
            stack.value_range,
            views.view(camera).hit.numpy(),
        )
        for camera in sample
    ]
    assert report.train_mip_psnr == pytest.approx(np.mean(found), abs=1e-3)
    assert report.mip_psnr_gap == report.train_mip_psnr - report.heldout_mip_psnr


def test_the_renderer_agrees_with_the_voxels_of_its_own_field(report: Report) -> None:
    assert report.consistency_psnr > 50, f"{report.consistency_psnr:.1f} dB"


def test_a_perfect_field_is_nearly_perfect_in_every_figure() -> None:
    phantom = separated(count=5, shape=(30, 48, 48), photons=None)
    report = reported(phantom.truth, phantom.stack)
    assert report.voxel_psnr > 100, f"{report.voxel_psnr:.1f} dB"
    assert report.heldout_mip_psnr > 50, f"{report.heldout_mip_psnr:.1f} dB"
    assert report.heldout_mip_ssim > 0.99
    assert report.heldout_mip_psnr == pytest.approx(report.consistency_psnr, abs=0.5)


def test_a_worse_field_has_lower_figures(report: Report, phantom: Phantom) -> None:
    field = phantom.truth.detached()
    field.amplitudes.mul_(0.8)
    worse = reported(field, phantom.stack)
    for name in ("voxel_psnr", "heldout_mip_psnr", "heldout_mip_ssim", "train_mip_psnr"):
        assert getattr(worse, name) < getattr(report, name), name


@pytest.mark.parametrize("photons", [20, 100, 1000])
def test_the_truth_comes_as_near_to_noisy_views_as_the_noise_leaves(photons: int) -> None:
    """No field does honestly better: noise lifts the maxima that it is held against."""
    phantom = separated(count=5, shape=(30, 48, 48), photons=photons)
    report = reported(phantom.truth, phantom.stack)
    assert report.heldout_noise_psnr == pytest.approx(report.heldout_mip_psnr, abs=0.5)


def test_the_noise_is_said_as_found_or_as_given(report: Report, phantom: Phantom) -> None:
    stack, truth = phantom.stack, phantom.truth
    clean = truth.voxelise(stack.shape, stack.spacing).numpy()
    gain = float(np.square(stack.voxels - clean).sum() / clean.sum())
    assert report.gain is not None
    assert report.gain == pytest.approx(gain, rel=0.1)
    assert report.noise.startswith(f"gain {report.gain:.3g} a photon")
    given = reported(truth, stack, replace(SETTINGS, gain=gain, offset=3.0, read_noise=2.0))
    assert (given.gain, given.offset, given.read_noise) == (pytest.approx(gain), 3.0, 2.0)
    assert given.noise.endswith("as given")
    assert given.heldout_noise_psnr == pytest.approx(report.heldout_noise_psnr, abs=0.5)


def test_where_noise_cannot_be_known_there_is_no_figure_of_it(phantom: Phantom) -> None:
    """A thresholded neuron was said to be fitted better than its noise leaves."""
    voxels = phantom.stack.voxels
    cut = replace(phantom.stack, voxels=np.where(voxels < np.median(voxels) * 1.5, 0, voxels))
    report = reported(phantom.truth, cut)
    assert "cut off" in report.noise
    assert report.noise_psnr is None
    assert report.heldout_noise_psnr is None
    assert report.gain is None


def test_without_noise_nothing_is_in_the_way_of_the_views() -> None:
    phantom = separated(count=5, shape=(30, 48, 48), photons=None)
    report = reported(phantom.truth, phantom.stack)
    assert (
        report.noise == "cannot be known: neighbours differ by nothing but what the light explains"
    )
    assert report.heldout_noise_psnr is None


def test_what_is_assumed_of_a_stack_is_said(phantom: Phantom) -> None:
    def notes(**changes: Any) -> str:
        return " ".join(reported(phantom.truth, phantom.stack, replace(SETTINGS, **changes)).notes)

    assert notes() == ""
    assert "which noise lifts" in notes(objective="mip")
    lowest = f"the lowest voxel is {phantom.stack.voxels.min():g}"
    assert lowest in notes(loss="poisson")


def test_what_was_done_is_recorded(report: Report, phantom: Phantom) -> None:
    assert report.gaussians == len(phantom.truth)
    assert report.shape == phantom.stack.shape
    assert report.spacing == phantom.stack.spacing
    assert (report.seconds, report.iterations, report.seed) == (1.5, 12, 9)
    assert (report.device, report.backend) == ("cpu", "numba")


def test_compression_is_the_stacks_bytes_for_each_of_the_fields(
    report: Report, phantom: Phantom
) -> None:
    # float32: 3 of the mean, 6 of the covariance, the amplitude.
    expected = phantom.stack.voxels.nbytes / (len(phantom.truth) * 10 * 4)
    assert report.compression == pytest.approx(expected)


def test_a_report_is_json(report: Report) -> None:
    again = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert again["heldout_mip_psnr"] == report.heldout_mip_psnr
    assert again["shape"] == list(report.shape)


def test_peak_memory_never_falls_and_sees_what_is_taken() -> None:
    before = peak_memory_mb()
    block = np.ones(int((before + 200) * 1e6 / 8))
    after = peak_memory_mb()
    assert after >= before + 100, f"{before:.0f} MB, then {after:.0f} with {block.nbytes / 1e6:.0f}"
